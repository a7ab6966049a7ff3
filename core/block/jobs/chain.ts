import type { OnError } from '../backend.ts';
import type { BlockGraph } from '../graph.ts';
import { BlockError } from '../io-error.ts';
import type { BlockNode } from '../node.ts';
import { start } from '../pending.ts';
import { Qcow2Node } from '../qcow2/node.ts';
import { reopen, whileWritable } from '../reopen.ts';
import { allocatedAbove, CHUNK, CopyError, copyRange } from './copy.ts';
import { Holds } from './hold.ts';
import { Job, type JobOptions } from './job.ts';

/** Gives an image another backing node, in the graph and in what the image says of itself. */
export async function changeBacking(
  graph: BlockGraph,
  node: BlockNode,
  backing: BlockNode | undefined,
  name: string | undefined,
): Promise<void> {
  const before = node.detach('backing');
  if (backing !== undefined) node.attach('backing', backing);
  await writeBackingName(node, name, backing === undefined ? undefined : backing.driver.name);
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
  /** The image over `top`; undefined where there is none. */
  readonly overlay: BlockNode;
  readonly top: BlockNode;
  readonly base: BlockNode;
  /** What the overlay is to say backs it. */
  readonly backingFile?: string | undefined;
  readonly onError?: OnError | undefined;
}

/** Merges the images from `top` down to above `base` into `base`, and takes them out of the chain. */
export class CommitJob extends Job {
  override readonly type = 'commit';
  readonly #options: CommitOptions;
  readonly #holds: Holds;
  #reopened = false;

  constructor(graph: BlockGraph, options: CommitOptions) {
    super(graph, options);
    this.#options = options;
    this.#holds = new Holds(graph, this);
  }

  async setup(): Promise<this> {
    const { top, base, overlay } = this.#options;
    if (top === base) throw new BlockError("'base' and 'top' are the same");
    if (base.readOnly) {
      await reopen(base, { readOnly: false });
      this.#reopened = true;
    }
    for (const node of [overlay, top, base]) this.#holds.hold('main node', node, false);
    if (base.length < top.length) await base.truncate(top.length);
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
          if (action === 'stop') continue;
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
    const { overlay, base, backingFile } = this.#options;
    await this.graph.drained(() => changeBacking(this.graph, overlay, base, backingFile ?? base.filename), this);
  }

  protected override async clean(): Promise<void> {
    await this.#holds.release();
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
  readonly onError?: OnError | undefined;
}

/** Copies what backs an image into it, so that it needs no backing file any more, or only `base`. */
export class StreamJob extends Job {
  override readonly type = 'stream';
  readonly #options: StreamOptions;
  readonly #holds: Holds;
  #reopened = false;

  constructor(graph: BlockGraph, options: StreamOptions) {
    super(graph, options);
    this.#options = options;
    this.#holds = new Holds(graph, this);
  }

  async setup(): Promise<this> {
    const { top, base } = this.#options;
    if (top.readOnly) {
      await reopen(top, { readOnly: false });
      this.#reopened = true;
    }
    this.#holds.hold('main node', top, false);
    if (base !== undefined) this.#holds.hold('base', base, false);
    return this;
  }

  protected override async work(): Promise<void> {
    const { top, base, onError = 'report' } = this.#options;
    this.total = top.length;
    while (this.offset < top.length) {
      const at = this.offset;
      const own = await top.status(at, Math.min(CHUNK, top.length - at));
      let bytes = own.bytes;
      let copied = false;
      if (!own.allocated && top.backing !== undefined) {
        const below = await allocatedAbove(top.backing, base, at, bytes);
        bytes = below.bytes;
        if (below.allocated) {
          try {
            await top.populate(at, bytes);
            copied = true;
          } catch (error) {
            const action = await this.failedRequest('read', error, onError);
            if (action === 'report') throw error;
            if (action === 'stop') continue;
          }
        }
      }
      if (copied) await this.worked(bytes);
      else {
        this.offset += bytes;
        await this.pausePoint();
      }
    }
  }

  protected override async commit(): Promise<void> {
    const { top, base, backingFile } = this.#options;
    const name = base === undefined ? undefined : (backingFile ?? base.filename);
    await this.graph.drained(() => changeBacking(this.graph, top, base, name), this);
  }

  protected override async clean(): Promise<void> {
    await this.#holds.release();
    if (this.#reopened && !this.#options.top.closed) await reopen(this.#options.top, { readOnly: true });
  }
}
