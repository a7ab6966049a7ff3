import type { OnError } from '../backend.ts';
import { canReplace, mergedNodes } from '../chain.ts';
import { DirtyBitmap } from '../dirty-bitmap.ts';
import { relativeTo } from '../file-name.ts';
import type { BlockGraph } from '../graph.ts';
import { BlockError, errno, IoError, reason } from '../io-error.ts';
import type { BlockNode } from '../node.ts';
import { BlockOptions } from '../options.ts';
import type { Pending } from '../pending.ts';
import { perm } from '../permissions.ts';
import { reopen } from '../reopen.ts';
import { TrackedRequests } from '../tracked-requests.ts';
import { allocatedAbove, CHUNK, CopyError, copyRange, zeroRange } from './copy.ts';
import { Holds } from './hold.ts';
import { Job, type JobOptions } from './job.ts';
import { JobFilterNode } from './job-filter.ts';

export interface MirrorOptions extends JobOptions {
  readonly source: BlockNode;
  readonly target: BlockNode;
  /** `full`: all; `top`: what is not in the backing file; `none`: only what is written from now on. */
  readonly sync: 'full' | 'top' | 'none';
  /** The node that the target takes the place of in the end, where it is not the source. */
  readonly replaces?: BlockNode | undefined;
  readonly filterNodeName?: string | undefined;
  readonly granularity?: number | undefined;
  /** No more than this is copied at once, in bytes; but a granule. */
  readonly bufferSize?: number | undefined;
  readonly unmap?: boolean | undefined;
  /** The guest waits until the target has what it wrote as well, so that the copy catches up in any case. */
  readonly writeBlocking?: boolean | undefined;
  readonly onSourceError?: OnError | undefined;
  readonly onTargetError?: OnError | undefined;
  /** The target was made for this, and reads as zeroes. */
  readonly emptyTarget?: boolean;
  /** The image is merged into one that backs it. */
  readonly activeCommit?: boolean | undefined;
  /** Backs the target once it stands by itself: a node, or what the target says. */
  readonly targetBacking?: BlockNode | 'its own' | undefined;
}

/** Keeps a copy of a node that follows the guest's writes, and can take the node's place. */
export class MirrorJob extends Job {
  override readonly type: 'mirror' | 'commit';
  readonly #options: MirrorOptions;
  readonly #bitmap: DirtyBitmap;
  readonly #holds: Holds;
  #filter: JobFilterNode | undefined;
  /** Of one range there is one copy at a time, so that an older one does not overtake a newer one. */
  readonly #copying = new TrackedRequests();
  #pivot = true;
  #reopened = false;
  #recording = false;

  constructor(graph: BlockGraph, options: MirrorOptions) {
    super(graph, options);
    this.#options = options;
    this.type = options.activeCommit === true ? 'commit' : 'mirror';
    const { source, target } = options;
    if (options.writeBlocking === true && source.follower !== undefined)
      throw new BlockError(`Node '${source.nodeName}' is copied as it is written already`);
    if (source === target) throw new BlockError("Can't mirror node into itself");
    const asked = options.granularity ?? Math.min(65536, Math.max(512, target.clusterSize));
    // Until the target has its backing file, only whole clusters of it show what they should.
    const granularity = Math.max(asked, target.clusterSize);
    if (asked < 512 || asked > 64 << 20)
      throw new BlockError("Parameter 'granularity' expects a value in range [512B, 64MB]");
    if ((asked & (asked - 1)) !== 0) throw new BlockError("Parameter 'granularity' expects a power of 2");
    this.#bitmap = new DirtyBitmap(source.length, { granularity });
    this.#holds = new Holds(graph, this);
  }

  /** Takes the nodes, and begins to record the guest's writes. */
  async setup(): Promise<this> {
    const { source, target } = this.#options;
    try {
      if (target.readOnly) {
        await reopen(target, { readOnly: false });
        this.#reopened = true;
      }
      this.#filter = await JobFilterNode.insert(this.graph, source, {
        purpose: 'mirror',
        nodeName: this.#options.filterNodeName,
        activeCommit: this.type === 'commit',
      });
      this.created();
      // Nobody resizes either of the two.
      const shared = perm.CONSISTENT_READ | perm.WRITE | perm.WRITE_UNCHANGED;
      this.#holds.hold('main node', this.#filter, { perm: perm.CONSISTENT_READ, shared });
      const commits = this.type === 'commit';
      const grows = commits && target.length < source.length ? perm.RESIZE : 0;
      this.#holds.hold('target', target, {
        perm: perm.WRITE | grows,
        shared: commits ? shared : perm.WRITE_UNCHANGED,
      });
      this.#holds.hold('source', source, { perm: 0, shared });
      if (commits) {
        for (const [node, shared] of mergedNodes(source, target))
          if (node !== source) this.#holds.hold('intermediate node', node, { perm: 0, shared });
        this.#holds.freeze(this.#filter, target);
        if (target.length < source.length) await target.truncate(source.length);
      }
    } catch (error) {
      this.earlyFail();
      await this.clean();
      throw error;
    }
    source.dirtyBitmaps.add(this.#bitmap);
    this.#recording = true;
    if (this.#options.writeBlocking === true) source.follower = (offset, bytes) => this.#follow(offset, bytes);
    return this;
  }

  get source(): BlockNode {
    return this.#options.source;
  }

  protected override async work(): Promise<void> {
    const { source, target } = this.#options;
    if (this.type === 'mirror' && target.length !== source.length)
      throw new BlockError('Source and target image have different sizes');
    await this.#markInitial();
    this.total = this.#bitmap.count;
    for (let position = 0; ; ) {
      const next = this.#bitmap.nextDirty(position);
      if (next >= 0) {
        position = next + (await this.#copyFrom(next));
        this.total = this.offset + this.#bitmap.count;
        await this.pausePoint();
        continue;
      }
      if (position > 0 && !this.#bitmap.empty) {
        position = 0;
        continue;
      }
      position = 0;
      if (!this.ready) {
        await this.#options.target.flush();
        this.becomeReady();
      }
      if (this.completing) return;
      await this.sleep(100);
    }
  }

  async #markInitial(): Promise<void> {
    const { source, sync, target, activeCommit, emptyTarget } = this.#options;
    if (sync === 'none') return;
    const base = activeCommit === true ? target : sync === 'top' ? source.withoutFilters.backing : undefined;
    if (base === undefined && emptyTarget !== true) {
      this.#bitmap.set(0, source.length);
      return;
    }
    for (let at = 0; at < source.length; ) {
      const found = await allocatedAbove(source, base, at, source.length - at);
      if (found.allocated) this.#bitmap.set(at, found.bytes);
      at += found.bytes;
      await this.pausePoint();
    }
  }

  /** @returns the bytes that were dealt with */
  async #copyFrom(at: number): Promise<number> {
    const { source, onSourceError = 'report', onTargetError = 'report' } = this.#options;
    const run = Math.min(this.#bitmap.nextClean(at), source.length) - at;
    let bytes = 0;
    try {
      await this.#copying.serialise(at, run, async () => {
        bytes = await this.#copyRun(at, run);
      });
    } catch (error) {
      if (!(error instanceof CopyFailure)) throw error;
      const { operation, cause } = error.failure;
      const action = await this.failedRequest(operation, cause, operation === 'read' ? onSourceError : onTargetError);
      if (action === 'report') throw cause;
      // Ignored or not, it is missing in the target: its turn comes again.
      this.#bitmap.set(at, error.bytes);
      return action === 'stop' ? 0 : error.bytes;
    }
    this.offset += bytes;
    if (this.speed > 0) await this.sleep((bytes / this.speed) * 1000);
    return bytes;
  }

  /** Copies what begins a marked run, as far as it is of one kind. */
  async #copyRun(at: number, run: number): Promise<number> {
    const { source, target, unmap } = this.#options;
    // First the marks go, then the source is looked at: what is written meanwhile is marked again.
    this.#bitmap.reset(at, run);
    const found = await allocatedAbove(source, undefined, at, run);
    const zero = !found.allocated || found.zero;
    const { granularity } = this.#bitmap;
    const whole = Math.max(granularity, found.bytes - (found.bytes % granularity));
    const limit = Math.max(granularity, Math.min(CHUNK, this.#options.bufferSize || CHUNK));
    const bytes = Math.min(run, whole, zero && limit === CHUNK ? run : limit);
    if (run > bytes) this.#bitmap.set(at + bytes, run - bytes);
    try {
      await (zero && found.bytes >= bytes
        ? zeroRange(target, at, bytes, unmap !== false)
        : copyRange(source, target, at, bytes, { unmap: unmap !== false }));
    } catch (error) {
      throw error instanceof CopyError ? new CopyFailure(bytes, error) : error;
    }
    return bytes;
  }

  /**
   * `write-blocking`: what the guest has written is in the target before it hears of that. Where the target fails, the mark
   * stays, and the job tries again and says so.
   */
  #follow(offset: number, bytes: number): Pending {
    const { granularity } = this.#bitmap;
    const from = offset - (offset % granularity);
    const end = Math.min(this.#options.source.length, Math.ceil((offset + bytes) / granularity) * granularity);
    return this.#copying.serialise(from, end - from, () => this.#copyMarked(from, end));
  }

  async #copyMarked(from: number, end: number): Promise<void> {
    const { source, target, unmap } = this.#options;
    for (let at = this.#bitmap.nextDirty(from); at >= 0 && at < end; at = this.#bitmap.nextDirty(at)) {
      const bytes = Math.min(this.#bitmap.nextClean(at), end) - at;
      this.#bitmap.reset(at, bytes);
      try {
        await copyRange(source, target, at, bytes, { unmap: unmap !== false });
      } catch {
        this.#bitmap.set(at, bytes);
        return;
      }
    }
  }

  protected override async commit(): Promise<void> {
    const { source, target, replaces, targetBacking } = this.#options;
    await this.graph.drained(async () => {
      for (let next = this.#bitmap.nextDirty(0); next >= 0; next = this.#bitmap.nextDirty(0))
        await this.#copyFrom(next);
      await target.flush();
      this.#forgetBitmap();
      this.#holds.relax();
      this.#holds.thaw();
      if (targetBacking === 'its own') await openOwnBacking(target.withoutFilters);
      else if (targetBacking !== undefined && target.driver.supportsBacking === true && target.backing === undefined)
        target.attach('backing', targetBacking);
      if (this.#pivot) this.#replace(replaces ?? source, target);
    }, this);
  }

  /** @throws IoError EPERM where the users of `from` cannot take `to`; why is said on standard error */
  #replace(from: BlockNode, to: BlockNode): void {
    const { source } = this.#options;
    const refuse = (why: string): never => {
      this.graph.notice(why);
      throw new IoError(errno.EPERM);
    };
    if (from !== source && !canReplace(source, from)) {
      refuse(
        `Can no longer replace '${from.nodeName}' by '${to.nodeName}', because it can no longer be guaranteed that doing so would not lead to an abrupt change of visible data`,
      );
    }
    try {
      this.graph.replace(from, to);
    } catch (error) {
      refuse(reason(error));
    }
  }

  #forgetBitmap(): void {
    const { source } = this.#options;
    if (!this.#recording) return;
    this.#recording = false;
    source.dirtyBitmaps.remove(this.#bitmap);
    if (this.#options.writeBlocking === true) source.follower = undefined;
  }

  override cancel(force: boolean): void {
    if (!force && this.ready) {
      // The copy stays behind as it is at this moment.
      this.#pivot = false;
      this.complete();
      return;
    }
    super.cancel(force);
  }

  protected override async clean(): Promise<void> {
    this.#forgetBitmap();
    const { source, target } = this.#options;
    await this.#copying.serialise(0, source.length, () => undefined);
    await this.#holds.release(this.#filter);
    if (this.#reopened && !target.closed && ![...target.parents].some(({ name }) => name === 'root')) {
      await reopen(target, { readOnly: true });
    }
  }
}

/** Opens what an image says backs it. */
async function openOwnBacking(node: BlockNode): Promise<void> {
  const { graph, backingFileName, backingFormat } = node;
  if (backingFileName === undefined || node.backing !== undefined) return;
  const options = new BlockOptions();
  if (backingFormat !== undefined) options.set('driver', backingFormat);
  const { direct, noFlush } = node.settings;
  const settings = { readOnly: true, autoReadOnly: true, direct, noFlush };
  const backing = await graph.openTree(relativeTo(node.filename, backingFileName), options, settings, false);
  try {
    node.attach('backing', backing);
  } catch (error) {
    await graph.released(backing);
    throw error;
  }
}

/** A copy of `bytes` bytes failed. */
class CopyFailure extends Error {
  readonly bytes: number;
  readonly failure: CopyError;

  constructor(bytes: number, failure: CopyError) {
    super();
    this.bytes = bytes;
    this.failure = failure;
  }
}
