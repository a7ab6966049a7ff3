import { between } from '../chain.ts';
import type { BlockGraph } from '../graph.ts';
import type { BlockNode } from '../node.ts';
import { Edge, PERM_ALL, type Permissions, settlePermissions } from '../permissions.ts';
import type { Job } from './job.ts';
import type { JobFilterNode } from './job-filter.ts';

/** The nodes that a job works on: they stay open, and where they are, until it lets go. */
export class Holds {
  readonly #graph: BlockGraph;
  readonly #parent: Job;
  readonly #edges: Edge[] = [];
  readonly #frozen: Edge[] = [];

  constructor(graph: BlockGraph, parent: Job) {
    this.#graph = graph;
    this.#parent = parent;
  }

  /** The links from `top` down to `base` stay as they are; undefined: to the end of the chain. */
  freeze(top: BlockNode, base: BlockNode | undefined): void {
    for (const node of between(top, base)) {
      const edge = node.children.get(node.filtered !== undefined && node.file !== undefined ? 'file' : 'backing');
      if (edge === undefined) continue;
      edge.frozen++;
      this.#frozen.push(edge);
    }
  }

  thaw(): void {
    for (const edge of this.#frozen.splice(0)) edge.frozen--;
  }

  /** @throws BlockError where another user of the node does not allow that */
  hold(name: string, node: BlockNode, permissions: Permissions): void {
    const edge = new Edge(name, this.#parent, node, permissions, true);
    edge.blocks = `block device is in use by block job: ${this.#parent.type}`;
    node.parents.add(edge);
    try {
      settlePermissions([node]);
    } catch (error) {
      node.parents.delete(edge);
      throw error;
    }
    this.#edges.push(edge);
  }

  /** Keeps the nodes open, but needs nothing of them any more, nor forbids anything. */
  relax(): void {
    for (const edge of this.#edges) {
      edge.perm = 0;
      edge.shared = PERM_ALL;
      settlePermissions([edge.node]);
    }
  }

  /** Is no user of the nodes any more; those that nobody else uses are closed by {@link release}. */
  letGo(): void {
    this.thaw();
    for (const edge of this.#edges) {
      if (edge.node.parents.delete(edge) && !edge.node.closed) settlePermissions([edge.node]);
    }
  }

  /** Lets everything go, the filter that the job has put over it first. */
  async release(filter?: JobFilterNode): Promise<void> {
    this.thaw();
    await filter?.remove(this.#parent);
    this.letGo();
    for (const { node } of this.#edges.splice(0)) await this.#graph.released(node);
  }
}
