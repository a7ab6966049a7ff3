import { FileNode } from './file.ts';
import type { BlockGraph } from './graph.ts';
import { start } from './pending.ts';
import { settlePermissions } from './permissions.ts';
import { reload } from './qcow2/driver.ts';
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
    settlePermissions(graph.nodes());
  });
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
    graph.inactive = false;
    for (const node of nodes) {
      if (node instanceof Qcow2Node) continue;
      for (const bitmap of node.dirtyBitmaps) bitmap.inTransit = false;
    }
    try {
      settlePermissions(nodes);
      // Files come before the images in them.
      for (const node of nodes) if (node instanceof FileNode) node.host.refreshSize();
      for (const node of nodes) {
        if (!(node instanceof Qcow2Node)) continue;
        const before = node.length;
        await start(node.exclusively(reload(node)));
        if (node.length !== before) node.notifyResize();
      }
    } catch (error) {
      graph.inactive = true;
      settlePermissions(nodes);
      throw error;
    }
  });
}
