import { performance } from 'node:perf_hooks';
import { Accounting, type AccountKind, FLUSH, READ, UNMAP, WRITE } from './accounting.ts';
import type { ErrorAction } from './events.ts';
import type { BlockGraph, Drainable } from './graph.ts';
import { plugTransfers, unplugTransfers } from './host-transfer.ts';
import { BlockError, errno, errnoOf, errnoText } from './io-error.ts';
import { IoVector } from './io-vector.ts';
import type { BlockNode } from './node.ts';
import { type Pending, WaitQueue } from './pending.ts';
import { Edge, type EdgeParent, PERM_ALL, type Permissions, perm, settlePermissions } from './permissions.ts';
import { writeFlag } from './requests.ts';
import type { ThrottleGroup } from './throttle.ts';

/**
 * How a request ended: 0, or a positive error number ({@link errno}). A promise only where it could not be finished at
 * once; it never rejects.
 */
export type IoResult = number | Promise<number>;

const SECTOR = 512;

/** Calls `done` with a result, at once where it is there. */
export function whenDone(result: IoResult, done: (error: number) => void): void {
  if (typeof result === 'number') done(result);
  else void result.then(done);
}

/** What to do about a failed request: `rerror`, `werror`. */
export type OnError = 'report' | 'ignore' | 'enospc' | 'stop' | 'auto';

/** What a device with a backend does when the monitor or the host acts on it. All are optional. */
export interface BlockDevice {
  /** For messages, events and query-block: the id or the QOM path. */
  readonly id: string;
  /** The medium came (true) or went (false). */
  changeMedium?(inserted: boolean): void;
  /** The monitor asks for the medium: a locked tray lets the guest decide (unless `force`). */
  ejectRequest?(force: boolean): void;
  /** Whether the tray is open; undefined where there is none. */
  trayOpen?(): boolean | undefined;
  mediumLocked?(): boolean;
  /** The medium has another size now. */
  resized?(): void;
  /** Has a medium that can be changed. */
  readonly removable: boolean;
}

/** A device reads and writes a medium through this: range, errors, statistics, limits, and changes of medium. */
export class BlockBackend implements EdgeParent, Drainable {
  readonly graph: BlockGraph;
  /** The `id` of -drive; empty for a backend that a device made of a node. */
  name = '';
  readonly stats = new Accounting();
  onReadError: OnError = 'report';
  onWriteError: OnError = 'enospc';
  /** The guest's writes need a flush to be safe; else each is made safe at once (`cache=writethrough`). */
  writeCache = true;
  /** `rerror`/`werror` may stop the machine, and query-block tells. */
  ioStatus: 'ok' | 'failed' | 'nospace' | undefined;
  throttle: ThrottleGroup | undefined;
  device: BlockDevice | undefined;
  /** Settings for the next medium where there is none now. */
  readOnlyIfEmpty = false;
  /** What -drive said for legacy users of it. */
  legacy: { readonly media: 'disk' | 'cdrom'; readonly serial?: string } | undefined;
  /** Called once when the medium goes: for what was made of this medium only. */
  readonly onMediumGone = new Set<() => Promise<void>>();
  /** The backend is no more. */
  onClose: () => void = () => {};
  #root: Edge | undefined;
  #sharesStill = false;
  #permissions: Permissions;
  #inFlight = 0;
  #quiesced = 0;
  readonly #idle = new WaitQueue();
  readonly #resume = new WaitQueue();

  constructor(graph: BlockGraph, permissions: Permissions = { perm: 0, shared: PERM_ALL }) {
    this.graph = graph;
    this.#permissions = permissions;
    graph.backends.add(this);
    graph.drainables.add(this);
  }

  get description(): string {
    if (this.name !== '') return `block device '${this.name}'`;
    return this.device === undefined ? 'an unnamed block device' : `block device '${this.device.id}'`;
  }

  /** What devices that use it show: its name, or that of the node. */
  get id(): string {
    return this.name === '' ? (this.root?.nodeName ?? '') : this.name;
  }

  get backendName(): string {
    return this.name;
  }

  get root(): BlockNode | undefined {
    return this.#root?.node;
  }

  /** In bytes; 0 without a medium. */
  get length(): number {
    return this.#root?.node.length ?? 0;
  }

  get inserted(): boolean {
    return this.#root !== undefined;
  }

  /** Whether a medium is there and the tray is closed over it. */
  get available(): boolean {
    return this.#root !== undefined && this.device?.trayOpen?.() !== true;
  }

  get readOnly(): boolean {
    return this.#root?.node.readOnly ?? this.readOnlyIfEmpty;
  }

  /** Requests must be multiples of this, in bytes, to go through without a copy. */
  get requestAlignment(): number {
    return this.#root?.node.requestAlignment ?? 1;
  }

  /** Uses `node`. */
  insert(node: BlockNode): void {
    if (this.#root !== undefined) throw new BlockError(`Device '${this.name}' already has a medium`);
    const edge = new Edge('root', this, node, this.#wanted);
    node.parents.add(edge);
    try {
      settlePermissions([node]);
    } catch (error) {
      node.parents.delete(edge);
      settlePermissions([node]);
      throw error;
    }
    this.#root = edge;
  }

  /** Lets go of the medium. */
  async remove(): Promise<void> {
    const edge = this.#root;
    if (edge === undefined) return;
    await this.quiesce();
    this.#root = undefined;
    edge.node.parents.delete(edge);
    settlePermissions([edge.node]);
    this.unquiesce();
    const dependents = [...this.onMediumGone];
    this.onMediumGone.clear();
    for (const gone of dependents) await gone();
    await this.graph.released(edge.node);
  }

  /** While another process has the image the device stands still: it asks for nothing, and minds nothing. */
  get #wanted(): Permissions {
    return this.graph.inactive && this.device !== undefined ? { perm: 0, shared: PERM_ALL } : this.#permissions;
  }

  /**
   * Asks for what the device wants now that images were given away or taken over; the caller settles it. `sharing`: others are
   * not minded yet.
   */
  askAgain(sharing: boolean): void {
    if (this.#root === undefined) return;
    const { perm, shared } = this.#wanted;
    this.#root.perm = perm;
    this.#root.shared = sharing ? PERM_ALL : shared;
    this.#sharesStill = sharing;
  }

  get permissions(): Permissions {
    return this.#permissions;
  }

  /** @throws BlockError where another user of the node does not allow that */
  setPermissions(permissions: Permissions): void {
    const before = this.#permissions;
    this.#permissions = permissions;
    if (this.#root === undefined) return;
    const wanted = this.#wanted;
    this.#root.perm = wanted.perm;
    this.#root.shared = wanted.shared;
    try {
      settlePermissions([this.#root.node]);
    } catch (error) {
      this.#permissions = before;
      const earlier = this.#wanted;
      this.#root.perm = earlier.perm;
      this.#root.shared = earlier.shared;
      settlePermissions([this.#root.node]);
      throw error;
    }
  }

  /**
   * A device takes the backend for itself.
   *
   * @throws BlockError where another one has it, or where what it needs (`writable`) cannot be had
   */
  attachDevice(
    device: BlockDevice,
    wants: { readonly writable: boolean; readonly shareRw?: boolean; readonly resizable?: boolean },
  ): void {
    if (this.device !== undefined) throw new BlockError(`Drive '${this.name}' is already in use by another device`);
    this.device = device;
    const shared =
      perm.CONSISTENT_READ | perm.WRITE_UNCHANGED | perm.RESIZE | (wants.shareRw === true ? perm.WRITE : 0);
    try {
      this.setPermissions({ perm: perm.CONSISTENT_READ | (wants.writable ? perm.WRITE : 0), shared });
    } catch (error) {
      this.device = undefined;
      throw error;
    }
  }

  detachDevice(device: BlockDevice): void {
    if (this.device !== device) return;
    this.device = undefined;
    this.setPermissions({ perm: 0, shared: PERM_ALL });
    if (this.legacy !== undefined) for (const { parent } of [...(this.root?.parents ?? [])]) parent.driveGone?.();
    // A -drive goes with the device that it was made for, and so does what was made for a node's device.
    if (this.legacy !== undefined || this.name === '') void this.close();
  }

  /**
   * Several requests follow: those that the host is to carry out beside the guest go to it together, at {@link unplug}. Pairs
   * may nest; no waiting in between.
   */
  plug(): void {
    plugTransfers();
  }

  unplug(): void {
    unplugTransfers();
  }

  /**
   * The first sector, for a guess at the geometry: nobody waits for it, and no guest has asked for it. Zeros where it is not at
   * hand at once.
   */
  peekBootSector(): Uint8Array {
    const sector = new Uint8Array(SECTOR);
    const edge = this.#root;
    if (edge === undefined || edge.node.length < SECTOR) return sector;
    try {
      const request = edge.node.readv(0, SECTOR, IoVector.of(sector), 0);
      if (request !== undefined) void this.#ignore(request);
    } catch {
      // A disk that cannot be read has the geometry of its size.
    }
    return sector;
  }

  /** Whether it succeeds interests nobody, but it is under way. */
  async #ignore(request: Promise<void>): Promise<void> {
    this.#inFlight++;
    try {
      await request;
    } catch {
      // As above.
    } finally {
      this.#inFlight--;
      if (this.#inFlight === 0) this.#idle.wakeAll();
    }
  }

  /** Reads `bytes` bytes from `offset` on into `iov` from its byte `at` on. */
  readv(offset: number, iov: IoVector, bytes: number = iov.length, at = 0): IoResult {
    const edge = this.#root;
    if (edge === undefined) return this.#refused(READ, errno.ENOMEDIUM);
    if (!(offset >= 0 && offset + bytes <= edge.node.length)) return this.#refused(READ, errno.EIO);
    if (this.#quiesced > 0 || this.throttle !== undefined)
      return this.#later(READ, bytes, () => this.root?.readv(offset, bytes, iov, at));
    const started = performance.now();
    let request: Pending;
    try {
      request = edge.node.readv(offset, bytes, iov, at);
    } catch (error) {
      return this.#failed(READ, started, error);
    }
    if (request !== undefined) return this.#wait(READ, bytes, started, request);
    this.stats.done(READ, bytes, started, performance.now());
    return 0;
  }

  /** Writes; `flags` as in {@link writeFlag}. */
  writev(offset: number, iov: IoVector, bytes: number = iov.length, at = 0, flags = 0): IoResult {
    const edge = this.#root;
    if (edge === undefined) return this.#refused(WRITE, errno.ENOMEDIUM);
    if (!(offset >= 0 && offset + bytes <= edge.node.length)) return this.#refused(WRITE, errno.EIO);
    if (!this.writeCache) flags |= writeFlag.FUA;
    if (this.#quiesced > 0 || this.throttle !== undefined) {
      return this.#later(WRITE, bytes, () => this.root?.writev(offset, bytes, iov, at, flags));
    }
    const started = performance.now();
    let request: Pending;
    try {
      request = edge.node.writev(offset, bytes, iov, at, flags);
    } catch (error) {
      return this.#failed(WRITE, started, error);
    }
    if (request !== undefined) return this.#wait(WRITE, bytes, started, request);
    this.stats.done(WRITE, bytes, started, performance.now());
    return 0;
  }

  writeZeroes(offset: number, bytes: number, flags = 0): IoResult {
    if (!this.writeCache) flags |= writeFlag.FUA;
    return this.#ranged(WRITE, offset, bytes, node => node.writeZeroes(offset, bytes, flags));
  }

  discard(offset: number, bytes: number): IoResult {
    return this.#ranged(UNMAP, offset, bytes, node => node.discard(offset, bytes));
  }

  /** What was written before is on the disk when this is done. */
  flush(): IoResult {
    return this.#ranged(FLUSH, 0, 0, node => node.flush());
  }

  #ranged(kind: AccountKind, offset: number, bytes: number, request: (node: BlockNode) => Pending): IoResult {
    const edge = this.#root;
    if (edge === undefined) return this.#refused(kind, errno.ENOMEDIUM);
    if (!(offset >= 0 && bytes >= 0 && offset + bytes <= edge.node.length)) return this.#refused(kind, errno.EIO);
    const begin = (): Pending => (this.#root === undefined ? undefined : request(this.#root.node));
    if (this.#quiesced > 0 || (this.throttle !== undefined && kind !== FLUSH)) return this.#later(kind, bytes, begin);
    const started = performance.now();
    try {
      const pending = begin();
      if (pending !== undefined) return this.#wait(kind, bytes, started, pending);
    } catch (error) {
      return this.#failed(kind, started, error);
    }
    this.stats.done(kind, bytes, started, performance.now());
    return 0;
  }

  async #wait(kind: AccountKind, bytes: number, started: number, request: Promise<void>): Promise<number> {
    this.#inFlight++;
    hurry();
    try {
      await request;
      this.stats.done(kind, bytes, started, performance.now());
      return 0;
    } catch (error) {
      return this.#failed(kind, started, error);
    } finally {
      this.#inFlight--;
      if (this.#inFlight === 0) this.#idle.wakeAll();
    }
  }

  /** A request that must wait before it begins: for a drained section to end, or for its turn by the limits. */
  async #later(kind: AccountKind, bytes: number, begin: () => Pending): Promise<number> {
    const started = performance.now();
    hurry();
    for (;;) {
      while (this.#quiesced > 0) await this.#resume.wait();
      const throttled = this.throttle?.admit(this, kind === READ ? 'read' : 'write', bytes);
      if (throttled === undefined) break;
      await throttled;
      if (this.#quiesced === 0) break;
    }
    try {
      if (this.#root === undefined) return this.#refused(kind, errno.ENOMEDIUM);
      const request = begin();
      if (request !== undefined) return await this.#wait(kind, bytes, started, request);
    } catch (error) {
      return this.#failed(kind, started, error);
    }
    this.stats.done(kind, bytes, started, performance.now());
    return 0;
  }

  /** The device has refused a request of the guest before it came here. */
  accountRefused(kind: AccountKind): void {
    this.stats.refuse(kind, performance.now());
  }

  #refused(kind: AccountKind, number: number): number {
    this.stats.refuse(kind, performance.now());
    return number;
  }

  #failed(kind: AccountKind, started: number, error: unknown): number {
    this.stats.fail(kind, started, performance.now());
    return errnoOf(error);
  }

  /** What `rerror` or `werror` says about a failed request. */
  errorAction(isRead: boolean, error: number): ErrorAction {
    const policy = isRead ? this.onReadError : this.onWriteError;
    switch (policy) {
      case 'enospc':
        return error === errno.ENOSPC ? 'stop' : 'report';
      case 'auto':
        return !isRead && error === errno.ENOSPC ? 'stop' : 'report';
      case 'stop':
        return 'stop';
      case 'ignore':
        return 'ignore';
      case 'report':
        return 'report';
    }
  }

  /**
   * Reports a failed request and does what the policy says. Where that is `stop`, the machine stops and the device
   * keeps the request, to try it again when the machine goes on.
   */
  requestFailed(isRead: boolean, error: number): ErrorAction {
    const action = this.errorAction(isRead, error);
    if (action === 'stop' && this.ioStatus === 'ok') this.ioStatus = error === errno.ENOSPC ? 'nospace' : 'failed';
    this.graph.emit({
      event: 'BLOCK_IO_ERROR',
      device: this.name,
      nodeName: this.root?.nodeName,
      operation: isRead ? 'read' : 'write',
      action,
      nospace: error === errno.ENOSPC,
      reason: errnoText(error),
    });
    if (action === 'stop') this.graph.stopMachine();
    return action;
  }

  /** query-block shows an I/O status from now on. */
  enableIoStatus(): void {
    this.ioStatus ??= 'ok';
  }

  /** The machine goes on: what failed may be tried again. */
  resetIoStatus(): void {
    if (this.ioStatus !== undefined) this.ioStatus = 'ok';
    if (this.#sharesStill) this.mindOthers();
  }

  /** Nobody else may do to the image what the device does not share. Where somebody does, that waits until the machine goes on. */
  mindOthers(): void {
    const root = this.#root;
    if (root === undefined) return;
    this.askAgain(false);
    try {
      settlePermissions([root.node]);
    } catch (error) {
      this.askAgain(true);
      settlePermissions([root.node]);
      if (error instanceof BlockError && error.code === 'ERR_BLOCK_LOCKED') throw error;
    }
  }

  resized(): void {
    this.device?.resized?.();
  }

  /** Requests that are under way. */
  get inFlight(): number {
    return this.#inFlight;
  }

  async quiesce(): Promise<void> {
    this.#quiesced++;
    while (this.#inFlight > 0) await this.#idle.wait();
  }

  unquiesce(): void {
    this.#quiesced--;
    if (this.#quiesced === 0) this.#resume.wakeAll();
  }

  /** Lets go of the medium and is no more. */
  async close(): Promise<void> {
    this.throttle?.leave(this);
    this.throttle = undefined;
    if (this.name !== '') this.graph.forgetBackend(this.name);
    this.graph.backends.delete(this);
    this.onClose();
    await this.remove();
    this.graph.drainables.delete(this);
  }
}

let hurrying = false;

/**
 * Has the run loop let the event loop turn soon: the rest of a request may be only a microtask away, and the guest would
 * otherwise run to the end of its slice first.
 */
function hurry(): void {
  if (hurrying) return;
  hurrying = true;
  setImmediate(() => {
    hurrying = false;
  });
}
