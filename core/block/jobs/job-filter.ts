import type { BlockDriver } from '../driver.ts';
import { copyOnReadDriver } from '../filters/copy-on-read.ts';
import { FilterNode } from '../filters/filter-node.ts';
import type { BlockGraph, Drainable } from '../graph.ts';
import { BlockError } from '../io-error.ts';
import type { BlockNode } from '../node.ts';
import { PERM_ALL, type Permissions, perm } from '../permissions.ts';

const ofJobs = (name: string): BlockDriver => ({
  name,
  kind: 'filter',
  open: () => Promise.reject(new BlockError(`The '${name}' filter is put in place by jobs only`)),
});

const DRIVERS = { mirror: ofJobs('mirror_top'), commit: ofJobs('commit_top'), stream: copyOnReadDriver } as const;

interface JobFilterOptions {
  /** What the filter is for: the copying itself is its job's. */
  readonly purpose: keyof typeof DRIVERS;
  /** The name that the user gave it; without one it is not shown. */
  readonly nodeName?: string | undefined;
  /** An image is merged into one that backs it, which does not show anything consistent meanwhile. */
  readonly activeCommit?: boolean;
}

/** Stands over the node that a job works on: the place where the job's end changes the graph. */
export class JobFilterNode extends FilterNode {
  readonly #options: JobFilterOptions;

  private constructor(graph: BlockGraph, over: BlockNode, options: JobFilterOptions) {
    super(graph, DRIVERS[options.purpose], { ...over.settings, detectZeroes: 'off' });
    this.#options = options;
    this.implicitFilter = options.nodeName === undefined;
    this.filename = over.filename;
  }

  /** @throws BlockError where the name is taken, or where the users of the node do not allow it */
  static async insert(graph: BlockGraph, over: BlockNode, options: JobFilterOptions): Promise<JobFilterNode> {
    const filter = new JobFilterNode(graph, over, options);
    graph.adopt(filter, options.nodeName);
    const child = options.purpose === 'stream' ? 'file' : 'backing';
    try {
      await graph.drained(() => {
        filter.attach(child, over);
        try {
          graph.replace(over, filter);
        } catch (error) {
          filter.detach(child);
          throw error;
        }
      });
    } catch (error) {
      filter.#gone();
      throw error;
    }
    return filter;
  }

  /** Gives the users of the filter what lies under it. `job`: the one that does this, and is not waited for. */
  async remove(job: Drainable): Promise<void> {
    if (this.closed) return;
    const { below } = this;
    await this.graph.drained(() => {
      this.graph.replace(this, below);
      for (const name of [...this.children.keys()]) this.detach(name);
      this.#gone();
    }, job);
    await this.graph.released(below);
  }

  #gone(): void {
    this.graph.forget(this);
    this.closed = true;
  }

  override childPermissions(name: string, needed: number, shared: number): Permissions {
    if (this.#options.purpose === 'commit') return { perm: 0, shared: PERM_ALL };
    const usual = super.childPermissions(name, needed, shared);
    return this.#options.activeCommit === true
      ? { perm: usual.perm & ~perm.CONSISTENT_READ, shared: usual.shared | perm.WRITE }
      : usual;
  }
}
