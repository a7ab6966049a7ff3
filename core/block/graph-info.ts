import type { BlockGraph } from './graph.ts';
import type { Info } from './info.ts';
import type { Job } from './jobs/job.ts';
import type { EdgeParent } from './permissions.ts';
import { permBits } from './permissions.ts';

/** XDbgBlockGraph: backends, jobs and nodes, and what they need of each other. */
export function graphInfo(graph: BlockGraph, jobs: Iterable<Job>): Info {
  const ids = new Map<EdgeParent, number>();
  const members: Info[] = [];
  const add = (member: EdgeParent, type: string, name: string): void => {
    ids.set(member, ids.size + 1);
    members.push({ id: ids.size, type, name });
  };
  for (const backend of graph.backends) add(backend, 'block-backend', backend.name || (backend.device?.id ?? ''));
  for (const job of jobs) if (job.isBlockJob) add(job, 'block-job', job.id);
  for (const node of graph.nodes()) add(node, 'block-driver', node.nodeName);
  const edges: Info[] = [];
  for (const node of graph.nodes()) {
    for (const { parent, name, perm, shared } of node.parents) {
      const from = ids.get(parent);
      if (from === undefined) continue;
      edges.push({ parent: from, child: ids.get(node), name, perm: permBits(perm), 'shared-perm': permBits(shared) });
    }
  }
  return { nodes: members, edges };
}
