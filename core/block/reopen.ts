import { FileNode } from './file.ts';
import type { BlockNode } from './node.ts';
import { start } from './pending.ts';
import { settlePermissions } from './permissions.ts';
import { prepareForWriting } from './qcow2/driver.ts';
import { Qcow2Node } from './qcow2/node.ts';
import type { NodeSettings } from './requests.ts';

/** Opens a node and the file under it anew, with other settings. Nothing of it is under way. */
export async function reopen(node: BlockNode, changes: Partial<NodeSettings>): Promise<void> {
  const settings = { ...node.settings, ...changes };
  if (node instanceof FileNode) {
    if (settings.readOnly !== node.settings.readOnly || settings.direct !== node.settings.direct) {
      await node.flush();
      node.reopen(settings);
    } else {
      Object.assign(node.settings, settings);
    }
    settlePermissions([node]);
    return;
  }
  const becomesWritable = !settings.readOnly && node.settings.readOnly;
  if (settings.readOnly && !node.settings.readOnly) {
    await node.flush();
    if (node instanceof Qcow2Node) await start(node.exclusively(node.putDown()));
  }
  if (becomesWritable) {
    for (const [name, { node: child }] of node.children)
      if (name !== 'backing' && child.readOnly) await reopen(child, { readOnly: false });
  }
  const before = { ...node.settings };
  Object.assign(node.settings, settings);
  try {
    settlePermissions([node]);
    if (becomesWritable && node instanceof Qcow2Node) await start(prepareForWriting(node));
  } catch (error) {
    Object.assign(node.settings, before);
    settlePermissions([node]);
    throw error;
  }
}

/** Has `work` done while a node can be written to, and makes it what it was before. */
export async function whileWritable<T>(node: BlockNode, work: () => Promise<T>): Promise<T> {
  if (!node.readOnly) return work();
  await reopen(node, { readOnly: false });
  try {
    return await work();
  } finally {
    await reopen(node, { readOnly: true });
  }
}
