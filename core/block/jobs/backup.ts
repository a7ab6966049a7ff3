import type { OnError } from '../backend.ts';
import { DirtyBitmap } from '../dirty-bitmap.ts';
import type { BlockDriver } from '../driver.ts';
import { FilterNode } from '../filters.ts';
import type { BlockGraph } from '../graph.ts';
import { BlockError } from '../io-error.ts';
import type { IoVector } from '../io-vector.ts';
import type { BlockNode } from '../node.ts';
import type { Pending } from '../pending.ts';
import { type Permissions, perm } from '../permissions.ts';
import { TrackedRequests } from '../tracked-requests.ts';
import { allocatedAbove, CopyError, copyRange, zeroRange } from './copy.ts';
import { Job, type JobOptions } from './job.ts';

const copyBeforeWriteDriver: BlockDriver = {
  name: 'copy-before-write',
  kind: 'filter',
  open: () => Promise.reject(new BlockError("The 'copy-before-write' filter is put in place by backup jobs only")),
};

/** Copies to the backup what a write is about to replace. */
class CopyBeforeWrite extends FilterNode {
  /** What is still to be copied. */
  readonly todo: DirtyBitmap;
  readonly target: BlockNode;
  readonly compress: boolean;
  readonly #copying = new TrackedRequests();
  /** Why the backup is worth nothing any more. */
  failure: unknown;

  constructor(graph: BlockGraph, source: BlockNode, target: BlockNode, granularity: number, compress: boolean) {
    super(graph, copyBeforeWriteDriver, { ...source.settings });
    this.target = target;
    this.compress = compress;
    this.todo = new DirtyBitmap(source.length, { granularity });
    this.filename = source.filename;
    this.implicitFilter = true;
  }

  /** Copies a range as far as that was not done yet; `at` and `bytes` in whole granules. */
  copy(at: number, bytes: number): Pending {
    if (this.todo.nextDirty(at) < 0 || this.todo.nextDirty(at) >= at + bytes) return undefined;
    return this.#copying.serialise(at, bytes, () => this.#copyNow(at, bytes));
  }

  async #copyNow(at: number, bytes: number): Promise<void> {
    for (let from = this.todo.nextDirty(at); from >= 0 && from < at + bytes; from = this.todo.nextDirty(from)) {
      const size = await this.#copyAlike(from, Math.min(this.todo.nextClean(from), at + bytes) - from);
      this.todo.reset(from, size);
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
    await copyRange(this.below, this.target, at, Math.min(bytes, size), { compress: this.compress });
    return Math.min(bytes, size);
  }

  #before(offset: number, bytes: number, write: () => Pending): Pending {
    if (this.failure !== undefined) return write();
    const { granularity } = this.todo;
    const from = offset - (offset % granularity);
    const end = Math.min(this.length, Math.ceil((offset + bytes) / granularity) * granularity);
    const copying = this.copy(from, end - from);
    if (copying === undefined) return write();
    return copying
      .catch(error => {
        // The guest's write goes on; the backup has failed.
        this.failure = error instanceof CopyError ? error.cause : error;
      })
      .then(write);
  }

  protected override pwrite(offset: number, bytes: number, iov: IoVector, at: number, flags: number): Pending {
    return this.#before(offset, bytes, () => super.pwrite(offset, bytes, iov, at, flags));
  }

  protected override pwriteZeroes(offset: number, bytes: number, flags: number): Pending {
    return this.#before(offset, bytes, () => super.pwriteZeroes(offset, bytes, flags));
  }

  protected override pdiscard(offset: number, bytes: number): Pending {
    return this.#before(offset, bytes, () => super.pdiscard(offset, bytes));
  }

  override childPermissions(name: string, needed: number, shared: number): Permissions {
    if (name === 'target') return { perm: perm.WRITE, shared: perm.CONSISTENT_READ | perm.WRITE_UNCHANGED };
    return { perm: needed | perm.CONSISTENT_READ, shared: shared & ~perm.RESIZE };
  }
}

export interface BackupOptions extends JobOptions {
  readonly source: BlockNode;
  readonly target: BlockNode;
  readonly sync: 'full' | 'top' | 'none' | 'incremental' | 'bitmap';
  readonly bitmap?: DirtyBitmap | undefined;
  readonly bitmapMode?: 'on-success' | 'never' | 'always' | undefined;
  readonly compress?: boolean | undefined;
  readonly filterNodeName?: string | undefined;
  readonly onSourceError?: OnError | undefined;
  readonly onTargetError?: OnError | undefined;
}

/** Copies a node as it is at one moment, while the guest goes on. */
export class BackupJob extends Job {
  override readonly type = 'backup';
  readonly #options: BackupOptions;
  readonly #filter: CopyBeforeWrite;
  #bitmapBefore: Uint8Array | undefined;
  #succeeded = false;

  constructor(graph: BlockGraph, options: BackupOptions) {
    super(graph, options);
    const { source, target, sync, bitmap } = options;
    this.#options = options;
    if (source === target) throw new BlockError('Source and target cannot be the same');
    if (target.length < source.length) throw new BlockError(`Source and target image have different sizes`);
    if ((sync === 'incremental' || sync === 'bitmap') && bitmap === undefined)
      throw new BlockError(`must provide a valid bitmap name for '${sync}' sync mode`);
    if (bitmap?.busy === true)
      throw new BlockError(`Bitmap '${bitmap.name}' is currently in use by another operation and cannot be used`);
    const granularity = Math.max(65536, target.clusterSize, bitmap?.granularity ?? 0);
    this.#filter = new CopyBeforeWrite(graph, source, target, granularity, options.compress === true);
  }

  /** Puts the filter over the source: from now on the backup is of this moment. */
  async setup(): Promise<this> {
    const { source, target, sync, bitmap, filterNodeName } = this.#options;
    const filter = this.#filter;
    await this.graph.drained(() => {
      this.graph.adopt(filter, filterNodeName);
      filter.attach('file', source);
      try {
        filter.attach('target', target);
        this.graph.replace(source, filter);
      } catch (error) {
        filter.detach('target');
        filter.detach('file');
        this.graph.forget(filter);
        throw error;
      }
      const chosen = sync === 'incremental' || sync === 'bitmap' ? bitmap : undefined;
      if (chosen !== undefined) filter.todo.merge(chosen);
      else filter.todo.set(0, source.length);
      if (bitmap !== undefined) {
        this.#bitmapBefore = bitmap.snapshot();
        bitmap.clear();
        bitmap.busy = true;
      }
    });
    return this;
  }

  protected override async work(): Promise<void> {
    const { source, sync } = this.#options;
    const { todo } = this.#filter;
    if (sync === 'none') {
      this.total = source.length;
      for (;;) await this.sleep(1000);
    }
    if (sync === 'top') await this.#skipBacked();
    this.total = todo.count;
    for (let at = todo.nextDirty(0); at >= 0; at = todo.nextDirty(at)) {
      if (this.#filter.failure !== undefined) throw this.#filter.failure;
      const bytes = Math.min(todo.nextClean(at) - at, Math.max(todo.granularity, 1 << 20), source.length - at);
      try {
        await this.#filter.copy(at, bytes);
      } catch (error) {
        if (!(error instanceof CopyError)) throw error;
        const { onSourceError = 'report', onTargetError = 'report' } = this.#options;
        const action = await this.failedRequest(
          error.operation,
          error.cause,
          error.operation === 'read' ? onSourceError : onTargetError,
        );
        if (action === 'report') throw error.cause;
        if (action === 'ignore') todo.reset(at, bytes);
        continue;
      }
      await this.worked(bytes);
    }
    if (this.#filter.failure !== undefined) throw this.#filter.failure;
    this.offset = this.total;
    await this.#options.target.flush();
  }

  /** Only what the image itself holds is copied. */
  async #skipBacked(): Promise<void> {
    const { source } = this.#options;
    const { todo } = this.#filter;
    const { granularity } = todo;
    for (let at = 0; at < source.length; ) {
      const found = await allocatedAbove(source, source.withoutFilters.backing, at, source.length - at);
      if (!found.allocated) {
        const from = Math.ceil(at / granularity) * granularity;
        const end =
          at + found.bytes >= source.length
            ? source.length
            : Math.floor((at + found.bytes) / granularity) * granularity;
        if (end > from) todo.reset(from, end - from);
      }
      at += found.bytes;
      await this.pausePoint();
    }
  }

  protected override async commit(): Promise<void> {
    this.#succeeded = true;
  }

  protected override async clean(): Promise<void> {
    const { source, target, bitmap, bitmapMode = 'on-success' } = this.#options;
    const filter = this.#filter;
    await this.graph.drained(async () => {
      this.graph.replace(filter, source);
      filter.detach('file');
      filter.detach('target');
      this.graph.forget(filter);
      filter.closed = true;
    }, this);
    if (bitmap !== undefined && this.#bitmapBefore !== undefined) {
      bitmap.busy = false;
      const forget = bitmapMode === 'always' || (bitmapMode === 'on-success' && this.#succeeded);
      if (!forget) bitmap.restore(union(bitmap.snapshot(), this.#bitmapBefore));
      // What was to be forgotten in any case, and was not copied, is remembered after all.
      else if (!this.#succeeded) bitmap.merge(filter.todo);
    }
    await this.graph.released(target);
    await this.graph.released(source);
  }
}

function union(a: Uint8Array, b: Uint8Array): Uint8Array {
  return a.map((byte, index) => byte | (b[index] ?? 0));
}
