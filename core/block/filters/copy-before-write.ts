import { reaches } from '../chain.ts';
import { DirtyBitmap } from '../dirty-bitmap.ts';
import type { BlockDriver, OpenContext } from '../driver.ts';
import type { BlockGraph } from '../graph.ts';
import { BlockError, errno, IoError } from '../io-error.ts';
import type { IoVector } from '../io-vector.ts';
import { allocatedAbove, CopyError, copyRange, zeroRange } from '../jobs/copy.ts';
import type { BlockNode } from '../node.ts';
import type { Pending } from '../pending.ts';
import { PERM_ALL, type Permissions, perm } from '../permissions.ts';
import { type BlockStatus, type NodeSettings, writeFlag } from '../requests.ts';
import { TrackedRequests } from '../tracked-requests.ts';
import { FilterNode } from './filter-node.ts';

/** Never less than this is copied at once, in bytes. */
const LEAST_GRANULARITY = 65536;

export interface CopyBeforeWriteOptions {
  readonly compress?: boolean;
  /** A copy that fails ends the snapshot rather than the guest's write. */
  readonly breakSnapshot?: boolean;
  /** A copy that takes longer has failed, as far as the write is concerned; 0 for no limit. */
  readonly timeoutMs?: number;
  /** Hears of each stretch that was copied, in bytes. */
  readonly copied?: (bytes: number) => void;
}

/** Copies to its target what a write is about to replace: with that, the node as it was when the filter came. */
export class CopyBeforeWriteNode extends FilterNode {
  /** What is still to be copied. */
  readonly todo: DirtyBitmap;
  /** What was copied. */
  readonly #done: DirtyBitmap;
  /** What the snapshot holds. */
  readonly #accessible: DirtyBitmap;
  readonly target: BlockNode;
  readonly #options: CopyBeforeWriteOptions;
  /** The node backs its target: who reads there finds here what has not been copied. */
  readonly #fleecing: boolean;
  /** The node whose writes are copied first: what is to be copied of it is listed there. */
  readonly #source: BlockNode;
  readonly #copying = new TrackedRequests();
  /** Reads of the snapshot from the node itself: what they read must not be replaced meanwhile. */
  readonly #frozen = new TrackedRequests();
  /** Why the snapshot is worth nothing any more. */
  failure: unknown;

  constructor(
    graph: BlockGraph,
    settings: NodeSettings,
    source: BlockNode,
    target: BlockNode,
    options: CopyBeforeWriteOptions,
  ) {
    super(graph, copyBeforeWriteDriver, settings);
    this.target = target;
    this.#options = options;
    this.#fleecing = reaches(target, source);
    const granularity = Math.max(LEAST_GRANULARITY, target.clusterSize);
    this.todo = new DirtyBitmap(source.length, { granularity, disabled: true });
    this.#done = new DirtyBitmap(source.length, { granularity, disabled: true });
    this.#accessible = new DirtyBitmap(source.length, { granularity, disabled: true });
    this.#source = source;
    this.filename = source.filename;
  }

  /** Puts itself between the source and the target. @throws BlockError where their other users do not allow that */
  connect(source: BlockNode): void {
    this.attach('file', source);
    try {
      this.attach('target', this.target);
    } catch (error) {
      this.detach('file');
      throw error;
    }
  }

  /** Begins the snapshot: of what `only` marks, or of all. */
  begin(only: DirtyBitmap | undefined): void {
    if (only === undefined) this.todo.set(0, this.length);
    else this.todo.merge(only);
    this.#accessible.merge(this.todo);
    this.#source.dirtyBitmaps.add(this.todo);
    this.dirtyBitmaps.add(this.#done);
    this.dirtyBitmaps.add(this.#accessible);
  }

  /** Copies no more than `only` marks. */
  narrow(only: DirtyBitmap): void {
    this.todo.clear();
    this.todo.merge(only);
  }

  /** The snapshot is over. */
  end(): void {
    this.#source.dirtyBitmaps.remove(this.todo);
  }

  protected override pclose(): Pending {
    this.end();
    return super.pclose();
  }

  /** Copies a range as far as that was not done yet; `at` and `bytes` in whole granules. */
  copy(at: number, bytes: number): Pending {
    const next = this.todo.nextDirty(at);
    if ((next < 0 || next >= at + bytes) && this.#copying.idle) return undefined;
    return this.#copying.serialise(at, bytes, () => this.#copyNow(at, bytes));
  }

  async #copyNow(at: number, bytes: number): Promise<void> {
    for (let from = this.todo.nextDirty(at); from >= 0 && from < at + bytes; from = this.todo.nextDirty(from)) {
      const size = await this.#copyAlike(from, Math.min(this.todo.nextClean(from), at + bytes) - from);
      this.todo.reset(from, size);
      this.#options.copied?.(size);
    }
  }

  /** Copies whole granules from `at` on as long as they are of one kind: what holds nothing is not read. */
  async #copyAlike(at: number, bytes: number): Promise<number> {
    const { granularity } = this.todo;
    const found = await allocatedAbove(this.below, undefined, at, bytes);
    const empty = !found.allocated || found.zero;
    const whole = found.bytes - (found.bytes % granularity);
    if (empty && (whole > 0 || found.bytes === bytes)) {
      const size = found.bytes === bytes ? bytes : whole;
      await zeroRange(this.target, at, size, false);
      return size;
    }
    const size = empty ? granularity : Math.ceil(found.bytes / granularity) * granularity;
    await copyRange(this.below, this.target, at, Math.min(bytes, size), { compress: this.#options.compress === true });
    return Math.min(bytes, size);
  }

  #before(offset: number, bytes: number, flags: number, write: () => Pending): Pending {
    if (this.failure !== undefined || (flags & writeFlag.UNCHANGED) !== 0) return write();
    const { granularity } = this.todo;
    const from = offset - (offset % granularity);
    const size = Math.min(this.length, Math.ceil((offset + bytes) / granularity) * granularity) - from;
    const copying = this.copy(from, size);
    if (copying === undefined && !this.#frozen.busy && !(this.#fleecing && this.target.tracked.busy)) {
      this.#done.set(from, size);
      return write();
    }
    return this.#copiedFirst(from, size, copying).then(write);
  }

  async #copiedFirst(from: number, size: number, copying: Pending): Promise<void> {
    try {
      await this.#inTime(copying);
      this.#done.set(from, size);
    } catch (error) {
      const cause = error instanceof CopyError ? error.cause : error;
      if (this.#options.breakSnapshot !== true) throw cause;
      this.failure ??= cause;
    }
    // Those who read the target and began before the copy was there may be about to read here.
    if (this.#fleecing) await this.target.tracked.settled(from, size);
    await this.#frozen.serialise(from, size, () => undefined);
  }

  async #inTime(copying: Pending): Promise<void> {
    const { timeoutMs = 0 } = this.#options;
    if (timeoutMs === 0 || copying === undefined) return copying;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new IoError(errno.ETIMEDOUT)), timeoutMs);
    });
    // Whoever waits no longer has heard of the time-out; the copy goes on.
    copying.catch(() => undefined);
    try {
      await Promise.race([copying, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  protected override pwrite(offset: number, bytes: number, iov: IoVector, at: number, flags: number): Pending {
    return this.#before(offset, bytes, flags, () => super.pwrite(offset, bytes, iov, at, flags));
  }

  protected override pwriteZeroes(offset: number, bytes: number, flags: number): Pending {
    return this.#before(offset, bytes, flags, () => super.pwriteZeroes(offset, bytes, flags));
  }

  protected override pdiscard(offset: number, bytes: number): Pending {
    return this.#before(offset, bytes, 0, () => super.pdiscard(offset, bytes));
  }

  // The snapshot: what `snapshot-access` shows

  /** Where the snapshot has a range, and how much of it lies there together. @throws IoError EACCES where it has it not */
  #whereIs(offset: number, bytes: number): { readonly node: BlockNode; readonly bytes: number } {
    if (this.failure !== undefined || this.#accessible.nextClean(offset) < offset + bytes)
      throw new IoError(errno.EACCES);
    const done = this.#done.get(offset);
    const next = done ? this.#done.nextClean(offset) : this.#done.nextDirty(offset);
    return { node: done ? this.target : this.below, bytes: next < 0 ? bytes : Math.min(bytes, next - offset) };
  }

  readSnapshot(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    const { node, bytes: size } = this.#whereIs(offset, bytes);
    const reading = node.readv(offset, size, iov, at);
    const frozen = reading !== undefined && node !== this.target ? this.#frozen.note(offset, size, reading) : reading;
    if (size === bytes) return frozen;
    const rest = (): Pending => this.readSnapshot(offset + size, bytes - size, iov, at + size);
    return frozen === undefined ? rest() : frozen.then(rest);
  }

  async snapshotStatus(offset: number, bytes: number): Promise<BlockStatus> {
    const { node, bytes: size } = this.#whereIs(offset, bytes);
    const found = await allocatedAbove(node, undefined, offset, size);
    return {
      bytes: found.bytes,
      allocated: true,
      data: found.allocated && !found.zero,
      zero: !found.allocated || found.zero,
    };
  }

  /** Nobody will read that of the snapshot any more. */
  discardSnapshot(offset: number, bytes: number): Pending {
    for (const bitmap of [this.#accessible, this.todo]) bitmap.reset(offset, bytes);
    return this.target.discard(offset, bytes);
  }

  override childPermissions(name: string, needed: number, shared: number): Permissions {
    if (name === 'target') return { perm: perm.WRITE, shared: PERM_ALL & ~perm.RESIZE };
    if (this.parents.size === 0) return { perm: needed, shared: shared | perm.WRITE_UNCHANGED };
    return {
      perm: needed | ((needed & perm.WRITE) !== 0 ? perm.CONSISTENT_READ : 0),
      shared: (shared | perm.WRITE_UNCHANGED) & ~(perm.WRITE | perm.RESIZE),
    };
  }
}

export const copyBeforeWriteDriver: BlockDriver = {
  name: 'copy-before-write',
  kind: 'filter',
  async open(context: OpenContext) {
    const { options, graph, settings } = context;
    const onError = options.choice('on-cbw-error', ['break-guest-write', 'break-snapshot']) ?? 'break-guest-write';
    const timeoutMs = (options.number('cbw-timeout') ?? 0) * 1000;
    const named = options.child('bitmap');
    const source = await context.child('file');
    const target = await context.child('target');
    const only = named.size === 0 ? undefined : bitmapOf(graph, named.string('node') ?? '', named.string('name') ?? '');
    context.followReadOnly(source);
    const node = new CopyBeforeWriteNode(graph, settings, source, target, {
      breakSnapshot: onError === 'break-snapshot',
      timeoutMs,
    });
    node.connect(source);
    node.begin(only);
    return node;
  },
};

function bitmapOf(graph: BlockGraph, nodeName: string, name: string): DirtyBitmap {
  const bitmap = graph.lookup(nodeName).dirtyBitmaps.named(name);
  if (bitmap === undefined) throw new BlockError(`Dirty bitmap '${name}' not found`);
  return bitmap;
}
