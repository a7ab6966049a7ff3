import { BlockError } from './io-error.ts';
import type { BlockNode } from './node.ts';

/** @throws BlockError where a job works on the node */
export function checkNotBusy(node: BlockNode): void {
  for (const { blocks } of node.parents)
    if (blocks !== undefined) throw new BlockError(`Node '${nameOf(node)}' is busy: ${blocks}`);
}

/** @throws BlockError where an image has the node as its backing file */
export function checkNotBacking(node: BlockNode): void {
  // The newest speaks, as in QEMU.
  for (const { name, parent } of [...node.parents].reverse()) {
    if (name !== 'backing' || parent.asNode === undefined || parent.asNode.filtered !== undefined) continue;
    throw new BlockError(`Node '${nameOf(node)}' is busy: node is used as backing hd of '${parent.asNode.nodeName}'`);
  }
}

function nameOf(node: BlockNode): string {
  return node.ownDeviceName || node.nodeName;
}
