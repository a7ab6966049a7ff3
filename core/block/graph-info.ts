import type { BlockGraph } from './graph.ts';
import type { Info } from './info.ts';
import type { Job } from './jobs/job.ts';
import type { Edge, EdgeParent } from './permissions.ts';
import { permBits } from './permissions.ts';

/** XDbgBlockGraph: backends, jobs and nodes, and what they need of each other. All lists have the last first, as QEMU's. */
export function graphInfo(graph: BlockGraph, jobs: Iterable<Job>): Info {
  const nodes = graph.nodes().reverse();
  const uses = new Map<EdgeParent, Edge[]>();
  for (const node of nodes) {
    for (const edge of node.parents) {
      const known = uses.get(edge.parent);
      if (known === undefined) uses.set(edge.parent, [edge]);
      else known.push(edge);
    }
  }
  const ids = new Map<EdgeParent, number>();
  const idOf = (member: EdgeParent): number => {
    const id = ids.get(member) ?? ids.size + 1;
    ids.set(member, id);
    return id;
  };
  const members: Info[] = [];
  const edges: Info[] = [];
  const add = (member: EdgeParent, type: string, name: string, below: Iterable<Edge>): void => {
    members.unshift({ id: idOf(member), type, name });
    for (const edge of below) {
      edges.unshift({
        parent: idOf(member),
        child: idOf(edge.node),
        name: edge.name,
        perm: permBits(edge.perm).reverse(),
        'shared-perm': permBits(edge.shared).reverse(),
      });
    }
  };
  for (const backend of graph.backends)
    add(backend, 'block-backend', backend.name || (backend.device?.id ?? ''), uses.get(backend) ?? []);
  for (const job of jobs) if (job.isBlockJob) add(job, 'block-job', job.id, newestFirst(uses.get(job)));
  for (const node of nodes) add(node, 'block-driver', node.nodeName, [...node.children.values()].reverse());
  return { nodes: members, edges };
}

function newestFirst(edges: readonly Edge[] = []): Edge[] {
  return edges.toSorted((a, b) => b.serial - a.serial);
}
