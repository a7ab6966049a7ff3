import type { OnError } from '../backend.ts';
import { between, imagesOver, inherits, mergedNodes } from '../chain.ts';
import type { BlockGraph } from '../graph.ts';
import { BlockError } from '../io-error.ts';
import type { BlockNode } from '../node.ts';
import { start } from '../pending.ts';
import { PERM_ALL, perm } from '../permissions.ts';
import { Qcow2Node } from '../qcow2/node.ts';
import { reopen, whileWritable } from '../reopen.ts';
import { allocatedAbove, CopyError, copyRange } from './copy.ts';
import { Holds } from './hold.ts';
import { Job, type JobOptions } from './job.ts';
import { JobFilterNode } from './job-filter.ts';

/** Bytes that a commit or stream job copies at once: what its speed is kept by. */
const CHUNK = 512 << 10;

/** Gives an image another backing node, in the graph and in what the image says of itself. */
export async function changeBacking(
  graph: BlockGraph,
  node: BlockNode,
  backing: BlockNode | undefined,
  name: string | undefined,
): Promise<void> {
  const before = node.detach('backing');
  if (backing !== undefined) node.attach('backing', backing);
  await writeBackingName(node, name, backing?.withoutFilters.driver.name);
  if (before !== undefined) await graph.released(before);
}

/** Rewrites only what the image says backs it. */
export async function writeBackingName(
  node: BlockNode,
  name: string | undefined,
  format: string | undefined,
): Promise<void> {
  if (!(node instanceof Qcow2Node)) throw new BlockError('Could not update backing file link: Operation not supported');
  await whileWritable(node, async () => {
    node.image.header.backingFile = name;
    node.image.header.backingFormat = name === undefined ? undefined : format;
    await start(node.exclusively(node.image.writeHeader()));
    await node.flush();
  });
  node.backingFileName = name;
  node.backingFormat = name === undefined ? undefined : format;
}

export interface CommitOptions extends JobOptions {
  /** The image that the machine uses. */
  readonly active: BlockNode;
  readonly top: BlockNode;
  readonly base: BlockNode;
  /** What the images over `top` are to say backs them. */
  readonly backingFile?: string | undefined;
  readonly filterNodeName?: string | undefined;
  readonly onError?: OnError | undefined;
}

/** Merges the images from `top` down to above `base` into `base`, and takes them out of the chain. */
export class CommitJob extends Job {
  override readonly type = 'commit';
  readonly #options: CommitOptions;
  readonly #holds: Holds;
  #filter: JobFilterNode | undefined;
  #reopened = false;

  constructor(graph: BlockGraph, options: CommitOptions) {
    super(graph, options);
    this.#options = options;
    this.#holds = new Holds(graph, this);
  }

  async setup(): Promise<this> {
    const { active, top, base, filterNodeName } = this.#options;
    if (top === base) throw new BlockError("'base' and 'top' are the same");
    try {
      this.created();
      if (base.readOnly) {
        await reopen(base, { readOnly: false });
        this.#reopened = true;
      }
      this.#filter = await JobFilterNode.insert(this.graph, top, { purpose: 'commit', nodeName: filterNodeName });
      const nothing = { perm: 0, shared: PERM_ALL };
      this.#holds.hold('main node', active, nothing);
      this.#holds.hold('commit top', this.#filter, nothing);
      for (const [node, shared] of mergedNodes(top, base))
        this.#holds.hold('intermediate node', node, { perm: 0, shared });
      const grows = base.length < top.length ? perm.RESIZE : 0;
      this.#holds.hold('base', base, {
        perm: perm.CONSISTENT_READ | perm.WRITE | grows,
        shared: perm.CONSISTENT_READ | perm.WRITE_UNCHANGED,
      });
      this.#holds.freeze(this.#filter, base);
      if (base.length < top.length) await base.truncate(top.length);
    } catch (error) {
      this.earlyFail();
      await this.clean();
      throw error;
    }
    return this;
  }

  protected override async work(): Promise<void> {
    const { top, base, onError = 'report' } = this.#options;
    this.total = top.length;
    while (this.offset < top.length) {
      const at = this.offset;
      const found = await allocatedAbove(top, base, at, Math.min(CHUNK, top.length - at));
      if (found.allocated) {
        try {
          await copyRange(top, base, at, found.bytes);
        } catch (error) {
          if (!(error instanceof CopyError)) throw error;
          const action = await this.failedRequest(error.operation, error.cause, onError);
          if (action === 'report') throw error.cause;
          continue;
        }
      }
      if (found.allocated) await this.worked(found.bytes);
      else {
        this.offset += found.bytes;
        await this.pausePoint();
      }
    }
    await base.flush();
  }

  protected override async commit(): Promise<void> {
    const { base, backingFile } = this.#options;
    const filter = this.#filter;
    if (filter === undefined) return;
    this.#holds.thaw();
    this.#holds.relax();
    await this.graph.drained(async () => {
      // Not those of the beginning: a stream job may have put others there.
      const overlays = [...imagesOver(filter)];
      this.graph.replace(filter, base);
      for (const overlay of overlays) {
        if (inherits(base, overlay)) base.inheritsFrom = overlay;
        await writeBackingName(overlay, backingFile ?? base.filename, base.withoutFilters.driver.name);
      }
    }, this);
  }

  protected override async clean(): Promise<void> {
    await this.#holds.release(this.#filter);
    if (this.#reopened && !this.#options.base.closed) await reopen(this.#options.base, { readOnly: true });
  }
}

/**
 * Writes what `top` has of its own into the image behind it, while nothing else happens to either (the monitor's `commit`). What
 * the machine sees stays the same.
 */
export async function commitBacking(graph: BlockGraph, top: BlockNode): Promise<void> {
  const base = top.withoutFilters.backing;
  if (base === undefined) throw new BlockError('No medium found');
  await graph.drained(() =>
    whileWritable(base, async () => {
      if (base.length < top.length) await base.truncate(top.length);
      for (let at = 0; at < top.length; ) {
        const found = await allocatedAbove(top, base, at, Math.min(CHUNK, top.length - at));
        if (found.allocated) await copyRange(top, base, at, found.bytes);
        at += found.bytes;
      }
      await base.flush();
    }),
  );
}

export interface StreamOptions extends JobOptions {
  readonly top: BlockNode;
  /** What backs the image in the end; undefined for nothing. */
  readonly base: BlockNode | undefined;
  readonly backingFile?: string | undefined;
  readonly filterNodeName?: string | undefined;
  readonly onError?: OnError | undefined;
}

/** Copies what backs an image into it, so that it needs no backing file any more, or only `base`. */
export class StreamJob extends Job {
  override readonly type = 'stream';
  readonly #options: StreamOptions;
  readonly #holds: Holds;
  #filter: JobFilterNode | undefined;
  /** The last node whose data is taken. What lies under it may be replaced meanwhile. */
  #last: BlockNode;
  #reopened = false;

  constructor(graph: BlockGraph, options: StreamOptions) {
    super(graph, options);
    this.#options = options;
    this.#holds = new Holds(graph, this);
    this.#last = options.top;
    for (const node of between(options.top, options.base)) this.#last = node;
  }

  async setup(): Promise<this> {
    const { top, filterNodeName } = this.#options;
    try {
      if (top.readOnly) {
        await reopen(top, { readOnly: false });
        this.#reopened = true;
      }
      this.#filter = await JobFilterNode.insert(this.graph, top, { purpose: 'stream', nodeName: filterNodeName });
      this.created();
      const shared = perm.CONSISTENT_READ | perm.WRITE_UNCHANGED;
      this.#holds.hold('main node', this.#filter, { perm: perm.CONSISTENT_READ, shared: shared | perm.WRITE });
      this.#holds.hold('active node', top, { perm: 0, shared: shared | perm.WRITE });
      // Each block is read once: nobody changes what is still to be read.
      for (const node of between(top, this.#base))
        if (node !== top) this.#holds.hold('intermediate node', node, { perm: 0, shared });
      this.#holds.freeze(this.#filter, this.#last);
    } catch (error) {
      this.earlyFail();
      await this.clean();
      throw error;
    }
    return this;
  }

  get #base(): BlockNode | undefined {
    return this.#last.filtered ?? this.#last.backing;
  }

  protected override async work(): Promise<void> {
    const { top, onError = 'report' } = this.#options;
    const image = top.withoutFilters;
    this.total = top.length;
    let ignored: unknown;
    while (this.offset < top.length) {
      const at = this.offset;
      const own = await top.status(at, Math.min(CHUNK, top.length - at));
      let bytes = own.bytes;
      let copied = false;
      if (!own.allocated && image.backing !== undefined) {
        const below = await allocatedAbove(image.backing, this.#base, at, bytes);
        bytes = below.bytes;
        if (below.allocated) {
          try {
            await top.populate(at, bytes);
            copied = true;
          } catch (error) {
            const action = await this.failedRequest('read', error, onError);
            if (action === 'report') throw error;
            if (action === 'stop') continue;
            ignored ??= error;
          }
        }
      }
      if (copied) await this.worked(bytes);
      else {
        this.offset += bytes;
        await this.pausePoint();
      }
    }
    // What could not be read is still only where it was: the image goes on needing that.
    if (ignored !== undefined) throw ignored;
  }

  protected override async commit(): Promise<void> {
    const { top, backingFile } = this.#options;
    this.#holds.thaw();
    this.#holds.relax();
    await this.graph.drained(async () => {
      const base = this.#base;
      const name = base === undefined ? undefined : (backingFile ?? base.withoutFilters.filename);
      await changeBacking(this.graph, top.withoutFilters, base, name);
    }, this);
  }

  protected override async clean(): Promise<void> {
    await this.#holds.release(this.#filter);
    if (this.#reopened && !this.#options.top.closed) await reopen(this.#options.top, { readOnly: true });
  }
}
