import { inherits, reaches } from './chain.ts';
import { type DirtyBitmap, DirtyBitmaps } from './dirty-bitmap.ts';
import type { BlockDriver } from './driver.ts';
import type { BlockGraph } from './graph.ts';
import { BlockError, errno, IoError, reason } from './io-error.ts';
import { IoVector } from './io-vector.ts';
import type { OptionScalar } from './options.ts';
import { all, type Maybe, type Pending, settle, start, type Task } from './pending.ts';
import { Edge, type EdgeParent, type Permissions, settlePermissions, usualNeeds } from './permissions.ts';
import { type BlockStatus, type NodeSettings, type TruncateOptions, writeFlag } from './requests.ts';
import { TrackedRequests } from './tracked-requests.ts';

const ZERO_CHUNK = 1 << 20;
const zeroChunk = new Uint8Array(ZERO_CHUNK);

/**
 * A node of the block graph: a file, an image format over it, or a filter.
 *
 * Subclasses implement `pread`, `pwrite` and what else they can; callers use `readv`, `writev` and so on, which add what
 * all nodes have in common. Requests are in bytes; those that need no waiting are done on return (see {@link Pending}).
 */
export abstract class BlockNode implements EdgeParent {
  readonly graph: BlockGraph;
  readonly driver: BlockDriver;
  nodeName = '';
  /** A job put this filter here; listings do not show it. */
  implicitFilter = false;
  /** True where the name was made up. */
  implicitName = false;
  /** A name for messages and image metadata: a path, `nbd://...` or `json:{...}`. */
  filename = '';
  readonly settings: NodeSettings;
  readonly children = new Map<string, Edge>();
  readonly parents = new Set<Edge>();
  readonly dirtyBitmaps = new DirtyBitmaps();
  /** Options that say what the node shows, for its name where that is no path. */
  get identity(): { readonly [option: string]: string | number | boolean } {
    return {};
  }

  /** What an image says backs it: as it stands there. */
  backingFileName: string | undefined;
  backingFormat: string | undefined;
  /** The options that it was opened with, without those of its children. */
  given: ReadonlyMap<string, OptionScalar> = new Map();
  /** The node that this one was opened as a child of, and takes settings from. */
  inheritsFrom: BlockNode | undefined;
  /** Held by the monitor (`-blockdev`, `blockdev-add`), so that it stays without a user. */
  monitorOwned = false;
  /** Requests below must be multiples of this, in bytes. */
  requestAlignment = 1;
  /** Longer requests are split, in bytes; 0 for no limit. */
  maxTransfer = 0;
  /** For BLOCK_WRITE_THRESHOLD; 0 for none. */
  writeThreshold = 0;
  /** The end of the highest write, for statistics. */
  highestWrite = 0;
  /** Writes so far, to know whether there is something to flush. */
  protected writes = 0;
  #flushedWrites = 0;
  #flushing: Promise<void> | undefined;
  readonly tracked = new TrackedRequests();
  /** Hears of each change of content once it was made; the request that made it ends with what this gives. */
  follower: ((offset: number, bytes: number) => Pending) | undefined;
  closed = false;
  /** Was taken over before the rest: an export serves it to the migration. */
  activated = false;

  constructor(graph: BlockGraph, driver: BlockDriver, settings: NodeSettings) {
    this.graph = graph;
    this.driver = driver;
    this.settings = settings;
  }

  get description(): string {
    return `node '${this.nodeName}'`;
  }

  /** Another process has the image. */
  get inactive(): boolean {
    return this.graph.inactive && !this.activated;
  }

  /** This node, or what lies under the filters that jobs have put there for themselves. */
  get withoutImplicit(): BlockNode {
    let node: BlockNode = this;
    while (node.implicitFilter && node.filtered !== undefined) node = node.filtered;
    return node;
  }

  /**
   * Copies what backs a range into this node itself; what it has already stays. Nothing else happens to the range
   * meanwhile.
   */
  populate(offset: number, bytes: number): Pending {
    const cluster = this.clusterSize;
    const from = offset - (offset % cluster);
    const end = Math.min(this.length, Math.ceil((offset + bytes) / cluster) * cluster);
    return this.tracked.serialise(from, end - from, () => start(this.#populate(from, end)));
  }

  *#populate(from: number, end: number): Task {
    for (let at = from; at < end; ) {
      const status = yield* settle(this.pstatus(at, end - at));
      const size = Math.min(status.bytes, end - at, ZERO_CHUNK);
      if (!status.allocated) {
        const iov = IoVector.of(new Uint8Array(size));
        const reading = this.pread(at, size, iov, 0);
        if (reading) yield reading;
        const writing = this.pwrite(at, size, iov, 0, writeFlag.UNCHANGED);
        if (writing) yield writing;
        this.noteWrite(at, size);
      }
      at += size;
    }
  }

  /** The name of the device that uses this node, directly or through others; empty where there is none. */
  get deviceName(): string {
    for (const { parent } of this.parents) {
      const name = parent.asNode === undefined ? (parent.backendName ?? '') : parent.asNode.deviceName;
      if (name !== '') return name;
    }
    return '';
  }

  /** The name of the device that uses this very node; empty where there is none. */
  get ownDeviceName(): string {
    for (const { parent } of this.parents)
      if (parent.asNode === undefined && parent.backendName !== undefined && parent.backendName !== '')
        return parent.backendName;
    return '';
  }

  get asNode(): BlockNode {
    return this;
  }

  get readOnly(): boolean {
    return this.settings.readOnly;
  }

  /** A read-only node that could serve a writer if one came. */
  get canBecomeWritable(): boolean {
    return false;
  }

  get file(): BlockNode | undefined {
    return this.children.get('file')?.node;
  }

  get backing(): BlockNode | undefined {
    return this.children.get('backing')?.node;
  }

  /** What a filter passes requests on to. */
  get filtered(): BlockNode | undefined {
    return this.driver.kind === 'filter' ? (this.file ?? this.backing) : undefined;
  }

  /** This node, or what lies under it if it is a filter. */
  get withoutFilters(): BlockNode {
    let node: BlockNode = this;
    for (let next = node.filtered; next !== undefined; next = node.filtered) node = next;
    return node;
  }

  /** In bytes; a multiple of 512. */
  abstract get length(): number;

  protected abstract pread(offset: number, bytes: number, iov: IoVector, at: number): Pending;
  protected abstract pwrite(offset: number, bytes: number, iov: IoVector, at: number, flags: number): Pending;

  /** Zeroes a range without data. `undefined` instead of a method, or ENOTSUP: zeroes are written. */
  protected pwriteZeroes?(offset: number, bytes: number, flags: number): Pending;
  protected pdiscard?(offset: number, bytes: number): Pending;
  /** What is kept in memory goes to the host. */
  protected flushToHost?(): Pending;
  /** What the host has goes to the disk. */
  protected flushToDisk?(): Pending;
  protected ptruncate?(size: number, options: TruncateOptions): Pending;

  /** The default is that all is data, lying in `file` where it lies here. */
  protected pstatus(offset: number, bytes: number): Maybe<BlockStatus> {
    const { file } = this;
    if (this.filtered !== undefined) return this.filtered.status(offset, bytes);
    return file === undefined
      ? { bytes, allocated: true, data: true, zero: false }
      : { bytes, allocated: true, data: true, zero: false, offset, file };
  }

  /** Reads `bytes` bytes into `iov` from its byte `at` on. What lies behind the end is 0. */
  readv(offset: number, bytes: number, iov: IoVector, at = 0): Pending {
    if (bytes === 0) return undefined;
    const end = offset + bytes;
    if (!(offset >= 0 && end <= Number.MAX_SAFE_INTEGER)) throw new IoError(errno.EIO);
    const inside = Math.max(0, this.length - offset);
    if (inside < bytes) {
      iov.fill(at + inside, bytes - inside, 0);
      if (inside === 0) return undefined;
      bytes = inside;
    }
    if (!this.tracked.idle || !this.#fits(offset, bytes)) return this.#slowRead(offset, bytes, iov, at);
    const request = this.pread(offset, bytes, iov, at);
    return request === undefined ? undefined : this.tracked.note(offset, bytes, request);
  }

  async #slowRead(offset: number, bytes: number, iov: IoVector, at: number): Promise<void> {
    await this.tracked.wait(offset, bytes);
    await this.tracked.note(offset, bytes, this.#readParts(offset, bytes, iov, at));
  }

  async #readParts(offset: number, bytes: number, iov: IoVector, at: number): Promise<void> {
    const align = this.requestAlignment;
    const start = offset - (offset % align);
    const end = Math.ceil((offset + bytes) / align) * align;
    const limit = this.maxTransfer === 0 ? end - start : this.maxTransfer;
    if (start === offset && end === offset + bytes) {
      for (let done = 0; done < bytes; done += limit) {
        await this.pread(offset + done, Math.min(limit, bytes - done), iov, at + done);
      }
      return;
    }
    for (let from = start; from < end; from += limit) {
      const size = Math.min(limit, end - from);
      const bounce = new Uint8Array(size);
      await this.pread(from, size, IoVector.of(bounce), 0);
      const first = Math.max(from, offset);
      const last = Math.min(from + size, offset + bytes);
      iov.scatter(at + first - offset, bounce, first - from, last - first);
    }
  }

  writev(offset: number, bytes: number, iov: IoVector, at = 0, flags = 0): Pending {
    if (bytes === 0) return undefined;
    this.checkWritable(offset, bytes);
    if (this.settings.detectZeroes !== 'off' && iov.isZero(at, bytes)) {
      return this.writeZeroes(
        offset,
        bytes,
        flags | (this.settings.detectZeroes === 'unmap' ? writeFlag.MAY_UNMAP : 0),
      );
    }
    return this.#followed(offset, bytes, this.#write(offset, bytes, iov, at, flags));
  }

  #followed(offset: number, bytes: number, request: Pending): Pending {
    if (this.follower === undefined) return request;
    return request === undefined ? this.follower(offset, bytes) : request.then(() => this.follower?.(offset, bytes));
  }

  #write(offset: number, bytes: number, iov: IoVector, at: number, flags: number): Pending {
    if (!this.tracked.idle || !this.#fits(offset, bytes)) return this.#slowWrite(offset, bytes, iov, at, flags);
    const request = this.pwrite(offset, bytes, iov, at, flags);
    if (request !== undefined || (flags & writeFlag.FUA) !== 0) {
      return this.#written(offset, bytes, flags, request);
    }
    this.noteWrite(offset, bytes);
    return undefined;
  }

  async #written(offset: number, bytes: number, flags: number, request: Pending): Promise<void> {
    try {
      if (request !== undefined) await this.tracked.note(offset, bytes, request);
    } finally {
      this.noteWrite(offset, bytes);
    }
    if ((flags & writeFlag.FUA) !== 0) await this.flush();
  }

  async #slowWrite(offset: number, bytes: number, iov: IoVector, at: number, flags: number): Promise<void> {
    await this.tracked.wait(offset, bytes);
    const align = this.requestAlignment;
    const head = offset % align;
    const end = Math.ceil((offset + bytes) / align) * align;
    if (head === 0 && end === offset + bytes) {
      await this.#written(offset, bytes, flags, this.#splitWrite(offset, bytes, iov, at, flags));
      return;
    }
    // What shares a block with the ends of the request is read first and written back with it.
    const from = offset - head;
    await this.tracked.serialise(from, end - from, () =>
      start(this.#readModifyWrite(from, end, offset, bytes, iov, at, flags)),
    );
    this.noteWrite(offset, bytes);
    if ((flags & writeFlag.FUA) !== 0) await this.flush();
  }

  *#readModifyWrite(
    from: number,
    end: number,
    offset: number,
    bytes: number,
    iov: IoVector,
    at: number,
    flags: number,
  ): Task {
    const bounce = new Uint8Array(end - from);
    const flat = IoVector.of(bounce);
    const inside = Math.min(end, Math.ceil(this.length / this.requestAlignment) * this.requestAlignment) - from;
    const reading = inside > 0 ? this.pread(from, inside, flat, 0) : undefined;
    if (reading) yield reading;
    iov.gather(at, bounce, offset - from, bytes);
    const writing = this.#splitWrite(from, end - from, flat, 0, flags);
    if (writing) yield writing;
  }

  #splitWrite(offset: number, bytes: number, iov: IoVector, at: number, flags: number): Pending {
    if (this.maxTransfer === 0 || bytes <= this.maxTransfer) return this.pwrite(offset, bytes, iov, at, flags);
    return start(this.#writeParts(offset, bytes, iov, at, flags));
  }

  *#writeParts(offset: number, bytes: number, iov: IoVector, at: number, flags: number): Task {
    for (let done = 0; done < bytes; done += this.maxTransfer) {
      const part = this.pwrite(offset + done, Math.min(this.maxTransfer, bytes - done), iov, at + done, flags);
      if (part) yield part;
    }
  }

  #fits(offset: number, bytes: number): boolean {
    const align = this.requestAlignment;
    return (
      (align === 1 || (offset % align === 0 && bytes % align === 0)) &&
      (this.maxTransfer === 0 || bytes <= this.maxTransfer)
    );
  }

  /** Makes a range read as zeroes. */
  writeZeroes(offset: number, bytes: number, flags = 0): Pending {
    if (bytes === 0) return undefined;
    this.checkWritable(offset, bytes);
    return this.#followed(offset, bytes, start(this.#zero(offset, bytes, flags)));
  }

  *#zero(offset: number, bytes: number, flags: number): Task {
    const waiting = this.tracked.wait(offset, bytes);
    if (waiting) yield waiting;
    if (!this.settings.discard) flags &= ~writeFlag.MAY_UNMAP;
    const align = this.requestAlignment;
    let done = false;
    if (this.pwriteZeroes !== undefined && offset % align === 0 && bytes % align === 0) {
      try {
        const request = this.pwriteZeroes(offset, bytes, flags);
        if (request) yield this.tracked.note(offset, bytes, request);
        done = true;
      } catch (error) {
        if (!(error instanceof IoError) || error.errno !== errno.EOPNOTSUPP) throw error;
      } finally {
        this.noteWrite(offset, bytes);
      }
    }
    if (!done) {
      if ((flags & writeFlag.NO_FALLBACK) !== 0) throw new IoError(errno.EOPNOTSUPP);
      for (let at = 0; at < bytes; at += ZERO_CHUNK) {
        const size = Math.min(ZERO_CHUNK, bytes - at);
        const request = this.#write(offset + at, size, IoVector.of(zeroChunk, 0, size), 0, flags & writeFlag.UNCHANGED);
        if (request) yield request;
      }
    }
    if ((flags & writeFlag.FUA) !== 0) {
      const flushed = this.flush();
      if (flushed) yield flushed;
    }
  }

  /** The content of a range is not needed any more. Advice: nothing happens where `discard=ignore`. */
  discard(offset: number, bytes: number): Pending {
    if (bytes === 0) return undefined;
    this.checkWritable(offset, bytes);
    if (!this.settings.discard || this.pdiscard === undefined) return undefined;
    return this.#followed(offset, bytes, start(this.#discard(offset, bytes)));
  }

  *#discard(offset: number, bytes: number): Task {
    const waiting = this.tracked.wait(offset, bytes);
    if (waiting) yield waiting;
    const align = this.requestAlignment;
    const from = Math.ceil(offset / align) * align;
    const end = Math.floor((offset + bytes) / align) * align;
    if (from >= end) return;
    try {
      const request = this.pdiscard?.(from, end - from);
      if (request) yield this.tracked.note(from, end - from, request);
    } catch (error) {
      if (!(error instanceof IoError) || error.errno !== errno.EOPNOTSUPP) throw error;
    } finally {
      this.noteWrite(from, end - from);
    }
  }

  /** All writes that are done are on the disk when this is done. */
  flush(): Pending {
    if (this.readOnly && this.writes === this.#flushedWrites) return undefined;
    if (this.#flushing !== undefined) return this.#flushAfter(this.#flushing);
    if (this.writes === this.#flushedWrites && this.flushToHost === undefined && this.children.size === 0)
      return undefined;
    const request = start(this.#flush());
    if (request === undefined) return undefined;
    const flushing = request.finally(() => {
      if (this.#flushing === flushing) this.#flushing = undefined;
    });
    this.#flushing = flushing;
    return flushing;
  }

  async #flushAfter(before: Promise<void>): Promise<void> {
    await before.catch(() => {});
    await this.flush();
  }

  *#flush(): Task {
    const generation = this.writes;
    const debugged = this.graph.debugging ? this.file : undefined;
    const flushingToOs = debugged?.debugEvent('flush_to_os');
    if (flushingToOs) yield flushingToOs;
    const toHost = this.flushToHost?.();
    if (toHost) yield toHost;
    if (!this.settings.noFlush && generation !== this.#flushedWrites) {
      const flushingToDisk = debugged?.debugEvent('flush_to_disk');
      if (flushingToDisk) yield flushingToDisk;
      const toDisk = this.flushToDisk?.();
      if (toDisk) yield toDisk;
    }
    const below: Pending[] = [];
    for (const [name, { node }] of this.children) if (name !== 'backing' || !node.readOnly) below.push(node.flush());
    yield* all(below);
    this.#flushedWrites = generation;
  }

  /** Changes the length, in bytes. */
  truncate(size: number, options: TruncateOptions = {}): Pending {
    if (this.readOnly) throw new IoError(errno.EACCES, 'Image is read-only');
    if (this.ptruncate === undefined)
      throw new IoError(errno.EOPNOTSUPP, 'Image format driver does not support resize');
    return start(this.#truncate(size, options));
  }

  *#truncate(size: number, options: TruncateOptions): Task {
    const request = this.ptruncate?.(size, options);
    if (request) yield request;
    this.writes++;
    this.dirtyBitmaps.resize(size);
    this.notifyResize();
  }

  /** What the bytes from `offset` on are, for as far as it is the same; `bytes` at most. */
  status(offset: number, bytes: number): Maybe<BlockStatus> {
    const { length } = this;
    if (offset >= length) return { bytes, allocated: true, data: false, zero: true };
    return this.pstatus(offset, Math.min(bytes, length - offset));
  }

  checkWritable(offset: number, bytes: number): void {
    if (this.readOnly) throw new IoError(errno.EPERM);
    if (!(offset >= 0 && offset + bytes <= Number.MAX_SAFE_INTEGER)) throw new IoError(errno.EIO);
  }

  protected noteWrite(offset: number, bytes: number): void {
    const end = offset + bytes;
    this.writes++;
    if (end > this.highestWrite) this.highestWrite = end;
    if (this.writeThreshold !== 0 && end > this.writeThreshold) this.graph.writeThresholdExceeded(this, end);
    this.dirtyBitmaps.wrote(offset, bytes);
  }

  notifyResize(): void {
    for (const edge of this.parents) edge.parent.resized?.();
  }

  /** A child changed its length. */
  resized(): void {
    if (this.driver.kind === 'filter') this.notifyResize();
  }

  /** Something happens in a node above: the place for a debugging filter's rules. Passed down to it. */
  debugEvent(event: string): Pending {
    return this.filtered?.debugEvent(event);
  }

  /** What stretches an image keeps, in bytes; 512 where it does not matter. */
  get clusterSize(): number {
    return 512;
  }

  /** @throws BlockError where the node has no place to keep a dirty bitmap in while it is closed */
  checkPersistent(_bitmap: DirtyBitmap): void {
    throw new BlockError(
      `Can't store persistent bitmaps to ${this.deviceName || this.nodeName}: Operation not supported`,
    );
  }

  /** A dirty bitmap that may be kept is removed. */
  forgetBitmap(_name: string): Pending {
    return undefined;
  }

  /** Takes one more child (`x-blockdev-change`). A driver that can do that overrides this. */
  addChild(_node: BlockNode): void {
    throw new BlockError(`The node ${this.deviceName || this.nodeName} does not support adding a child`);
  }

  /** Whether what the node shows stays the same when a child shows something else. */
  toleratesChange(_child: BlockNode): boolean {
    return false;
  }

  /** Lets go of a child that it can do without. A driver that can do that overrides this. */
  removeChild(_name: string): BlockNode | undefined {
    throw new BlockError(`The node ${this.deviceName || this.nodeName} does not support removing a child`);
  }

  /** Another node is the child `name` now. */
  childReplaced(_name: string, _node: BlockNode): void {}

  /** What this node needs of the child `name` when its own users need and share this. */
  childPermissions(name: string, needed: number, shared: number): Permissions {
    return usualNeeds(this, name, needed, shared);
  }

  /** What the users of this node need now: the place for locks on a file. */
  applyPermissions(_permissions: Permissions): void {}

  /**
   * Makes `node` the child `name`.
   *
   * @throws BlockError where its other users do not allow that
   */
  attach(name: string, node: BlockNode): void {
    if (reaches(node, this)) {
      throw new BlockError(`Making '${node.nodeName}' a ${name} child of '${this.nodeName}' would create a cycle`);
    }
    const edge = new Edge(name, this, node, { perm: 0, shared: 15 });
    if (inherits(node, this)) node.inheritsFrom = this;
    this.children.set(name, edge);
    node.parents.add(edge);
    try {
      settlePermissions([this]);
    } catch (error) {
      this.children.delete(name);
      node.parents.delete(edge);
      throw error;
    }
  }

  /** Lets go of the child `name`; the graph closes it if nobody else uses it. */
  detach(name: string): BlockNode | undefined {
    const edge = this.children.get(name);
    if (edge === undefined) return undefined;
    this.children.delete(name);
    edge.node.parents.delete(edge);
    settlePermissions([edge.node]);
    return edge.node;
  }

  /** Writes back what is in memory and lets go of the host's file. Called once, with no request under way. */
  protected pclose(): Pending {
    return undefined;
  }

  /** There is nobody left to take an error: it is said, and the node goes all the same. */
  async #flushAtLast(): Promise<void> {
    try {
      await this.flush();
    } catch (error) {
      this.graph.warn(`could not flush '${this.filename}': ${reason(error)}`);
    }
  }

  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    try {
      if (!this.readOnly) await this.#flushAtLast();
      await this.pclose();
    } finally {
      for (const name of [...this.children.keys()]) {
        const edge = this.children.get(name);
        if (edge === undefined) continue;
        this.children.delete(name);
        edge.node.parents.delete(edge);
        await this.graph.released(edge.node);
      }
    }
  }
}
