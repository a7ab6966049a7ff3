import type { BlockGraph } from '../graph.ts';
import type { BlockNode } from '../node.ts';
import { Edge, type EdgeParent, PERM_ALL, perm, settlePermissions } from '../permissions.ts';

/** The nodes that a job works on: they stay open, and where they are, until it lets go. */
export class Holds {
  readonly #graph: BlockGraph;
  readonly #parent: EdgeParent;
  readonly #edges: Edge[] = [];

  constructor(graph: BlockGraph, parent: EdgeParent) {
    this.#graph = graph;
    this.#parent = parent;
  }

  /** @throws BlockError where another user of the node does not allow that */
  hold(name: string, node: BlockNode, writes: boolean): void {
    const permissions = { perm: perm.CONSISTENT_READ | (writes ? perm.WRITE | perm.RESIZE : 0), shared: PERM_ALL };
    const edge = new Edge(name, this.#parent, node, permissions, true);
    node.parents.add(edge);
    try {
      settlePermissions([node]);
    } catch (error) {
      node.parents.delete(edge);
      throw error;
    }
    this.#edges.push(edge);
  }

  /** Keeps the nodes open, but needs nothing of them any more. */
  relax(): void {
    for (const edge of this.#edges) {
      edge.perm = 0;
      settlePermissions([edge.node]);
    }
  }

  async release(): Promise<void> {
    for (const edge of this.#edges.splice(0)) {
      edge.node.parents.delete(edge);
      if (edge.node.closed) continue;
      settlePermissions([edge.node]);
      await this.#graph.released(edge.node);
    }
  }
}
