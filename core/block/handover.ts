import { FileNode } from './file.ts';
import type { BlockGraph } from './graph.ts';
import type { BlockNode } from './node.ts';
import { start } from './pending.ts';
import { settlePermissions } from './permissions.ts';
import { reload } from './qcow2/loading.ts';
import { Qcow2Node } from './qcow2/node.ts';

/**
 * Gives all images to another process: what was under way has ended, all is on the disk, and no lock is held. Nothing may
 * be read or written until {@link takeOver}.
 */
export async function handOver(graph: BlockGraph): Promise<void> {
  if (graph.inactive) return;
  await graph.drained(async () => {
    for (const { root } of graph.backends) if (root !== undefined && !root.readOnly) await root.flush();
    for (const node of graph.nodes()) {
      if (!(node instanceof Qcow2Node) || node.image.broken) continue;
      if (!node.readOnly) await start(node.exclusively(node.putDown()));
      node.bitmaps.forgetStored();
    }
    graph.inactive = true;
    for (const backend of graph.backends) backend.askAgain(false);
    settlePermissions(graph.nodes());
  });
}

/** Takes over a node, with all below it, before the rest: to be written while the machine is still on its way. */
export async function activate(node: BlockNode): Promise<void> {
  if (!node.inactive) return;
  await node.graph.drained(async () => {
    const nodes = [...nodesFrom(node)].filter(one => one.inactive);
    for (const one of nodes) one.activated = true;
    try {
      settlePermissions([node]);
      await readAnew(nodes);
    } catch (error) {
      for (const one of nodes) one.activated = false;
      settlePermissions([node]);
      throw error;
    }
  });
}

function* nodesFrom(node: BlockNode): Generator<BlockNode> {
  for (const { node: below } of node.children.values()) yield* nodesFrom(below);
  yield node;
}

async function readAnew(nodes: readonly BlockNode[]): Promise<void> {
  // Files come before the images in them.
  for (const node of nodes) if (node instanceof FileNode) node.host.refreshSize();
  for (const node of nodes) {
    if (!(node instanceof Qcow2Node)) continue;
    const before = node.length;
    await start(node.exclusively(reload(node)));
    if (node.length !== before) node.notifyResize();
  }
}

/**
 * Takes the images over from the process that had them before: an incoming migration, or one that failed. What was known of
 * them is read anew.
 *
 * @throws BlockError where another process still uses one; the images are as they were then
 */
export async function takeOver(graph: BlockGraph): Promise<void> {
  if (!graph.inactive) return;
  await graph.drained(async () => {
    const nodes = graph.nodes();
    const taken = nodes.filter(node => node.inactive);
    graph.inactive = false;
    for (const node of nodes) {
      if (node instanceof Qcow2Node) continue;
      for (const bitmap of node.dirtyBitmaps) bitmap.inTransit = false;
    }
    try {
      // An export that fed the migration may still be there: devices mind that once they run.
      for (const backend of graph.backends) backend.askAgain(backend.device !== undefined);
      settlePermissions(nodes);
      for (const backend of graph.backends) if (backend.device !== undefined) backend.mindOthers();
      await readAnew(taken);
      for (const node of nodes) node.activated = false;
    } catch (error) {
      graph.inactive = true;
      for (const backend of graph.backends) backend.askAgain(false);
      settlePermissions(nodes);
      throw error;
    }
  });
}
