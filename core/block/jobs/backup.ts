import type { OnError } from '../backend.ts';
import type { DirtyBitmap } from '../dirty-bitmap.ts';
import { CopyBeforeWriteNode } from '../filters/copy-before-write.ts';
import type { BlockGraph } from '../graph.ts';
import { BlockError } from '../io-error.ts';
import type { BlockNode } from '../node.ts';
import { PERM_ALL } from '../permissions.ts';
import { allocatedAbove, CopyError } from './copy.ts';
import { Holds } from './hold.ts';
import { Job, type JobOptions } from './job.ts';

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
  readonly #filter: CopyBeforeWriteNode;
  readonly #holds: Holds;
  #succeeded = false;

  constructor(graph: BlockGraph, options: BackupOptions) {
    super(graph, options);
    const { source, target, sync, bitmap } = options;
    this.#options = options;
    this.#holds = new Holds(graph, this);
    if (source === target) throw new BlockError('Source and target cannot be the same');
    if (target.length < source.length) throw new BlockError(`Source and target image have different sizes`);
    if ((sync === 'incremental' || sync === 'bitmap') && bitmap === undefined)
      throw new BlockError(`must provide a valid bitmap name for '${sync}' sync mode`);
    bitmap?.checkUsable({ readonly: true, inconsistent: true });
    this.#filter = new CopyBeforeWriteNode(graph, { ...source.settings }, source, target, {
      compress: options.compress === true,
      breakSnapshot: true,
      copied: bytes => {
        // Without copying of its own the job gets on by what the guest has copied.
        if (sync === 'none') this.offset += bytes;
      },
    });
    this.#filter.implicitFilter = options.filterNodeName === undefined;
  }

  /** Puts the filter over the source: from now on the backup is of this moment. */
  async setup(): Promise<this> {
    const { source, target, sync, bitmap, filterNodeName } = this.#options;
    const filter = this.#filter;
    await this.graph.drained(() => {
      this.graph.adopt(filter, filterNodeName);
      try {
        filter.connect(source);
      } catch (error) {
        this.graph.forget(filter);
        throw error;
      }
      try {
        this.graph.replace(source, filter);
      } catch (error) {
        filter.detach('target');
        filter.detach('file');
        this.graph.forget(filter);
        throw error;
      }
      if (bitmap !== undefined) source.dirtyBitmaps.freeze(bitmap);
      filter.begin(undefined);
      if (bitmap !== undefined && (sync === 'incremental' || sync === 'bitmap')) filter.narrow(bitmap);
    });
    this.created();
    try {
      this.#holds.hold('main node', filter, { perm: 0, shared: PERM_ALL });
      this.#holds.hold('target', target, { perm: 0, shared: PERM_ALL });
    } catch (error) {
      this.earlyFail();
      await this.clean();
      throw error;
    }
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
        this.offset = this.total - todo.count;
        if (!(error instanceof CopyError)) throw error;
        const { onSourceError = 'report', onTargetError = 'report' } = this.#options;
        const action = await this.failedRequest(
          error.operation,
          error.cause,
          error.operation === 'read' ? onSourceError : onTargetError,
        );
        if (action === 'report') throw error.cause;
        continue;
      }
      // What the guest had copied, because it was about to overwrite it, is done as well.
      this.offset = this.total - todo.count - bytes;
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
      this.#holds.letGo();
      this.graph.replace(filter, source);
      filter.detach('file');
      filter.detach('target');
      filter.end();
      this.graph.forget(filter);
      filter.closed = true;
    }, this);
    if (bitmap !== undefined) {
      const { dirtyBitmaps } = source;
      const forget = bitmapMode === 'always' || (bitmapMode === 'on-success' && this.#succeeded);
      if (!forget) dirtyBitmaps.reclaim(bitmap);
      else {
        const successor = dirtyBitmaps.succeed(bitmap);
        // What was to be forgotten in any case, and was not copied, is remembered after all.
        if (!this.#succeeded) successor.merge(filter.todo);
      }
    }
    await this.#holds.release();
    await this.graph.released(target);
    await this.graph.released(source);
  }
}
