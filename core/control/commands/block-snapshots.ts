import { checkNotBacking, checkNotBusy } from '../../block/busy.ts';
import type { BlockGraph } from '../../block/graph.ts';
import { start, startFor } from '../../block/pending.ts';
import { Qcow2Node } from '../../block/qcow2/node.ts';
import { type InstalledOverlay, installOverlay, openOverlay } from '../../block/snapshot-overlay.ts';
import type { Value } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import type * as schema from '../qapi/schema/block-jobs.ts';
import { type Done, rootNode } from './block-bitmaps.ts';

export async function snapshot(
  graph: BlockGraph,
  { node, overlay }: Value<typeof schema.BlockdevSnapshot>,
): Promise<Done> {
  const base = rootNode(graph, node);
  checkNotBusy(base);
  checkNotBacking(base);
  return overlaid(await installOverlay(graph, base, graph.lookupPair(overlay, overlay)));
}

export async function snapshotSync(graph: BlockGraph, args: Value<typeof schema.BlockdevSnapshotSync>): Promise<Done> {
  const node = graph.lookupPair(args.device, args['node-name']);
  checkNotBusy(node);
  checkNotBacking(node);
  const name = args['snapshot-node-name'];
  if (args['node-name'] !== undefined && name === undefined) throw new QmpError('New overlay node-name missing');
  if (name !== undefined && graph.node(name) !== undefined) throw new QmpError('New overlay node-name already in use');
  const overlay = await openOverlay(graph, node, {
    filename: args['snapshot-file'],
    format: args.format ?? 'qcow2',
    mode: args.mode ?? 'absolute-paths',
    nodeName: name,
  });
  try {
    const installed = await installOverlay(graph, node, overlay);
    // Of a node that nobody uses the overlay has no user either.
    await graph.released(overlay);
    return overlaid(installed);
  } catch (error) {
    await graph.released(overlay);
    throw error;
  }
}

const overlaid = ({ settle, takeBack }: InstalledOverlay): Done => ({ settle, undo: takeBack });

export function imageWithSnapshots(graph: BlockGraph, device: string): Qcow2Node {
  const node = rootNode(graph, device).withoutFilters;
  if (node instanceof Qcow2Node) return node;
  throw new QmpError(
    `Block format '${node.driver.name}' used by device '${device}' does not support internal snapshots`,
  );
}

export async function internalSnapshot(
  graph: BlockGraph,
  { device, name }: Value<typeof schema.BlockdevSnapshotInternal>,
): Promise<Done> {
  const node = imageWithSnapshots(graph, device);
  checkNotBusy(node);
  if (node.readOnly) throw new QmpError(`Device '${device}' is read only`);
  if (name === '') throw new QmpError('Name is empty');
  if (node.snapshots.list.some(one => one.name === name)) {
    throw new QmpError(`Snapshot with name '${name}' already exists on device '${device}'`);
  }
  const now = Date.now();
  const made = await graph.drained(() =>
    startFor(
      node.exclusively(
        node.snapshots.create({
          name,
          vmStateSize: 0,
          vmClockNs: 0,
          dateSeconds: Math.floor(now / 1000),
          dateNanoseconds: (now % 1000) * 1e6,
        }),
      ),
    ),
  );
  return { undo: () => graph.drained(() => start(node.exclusively(node.snapshots.remove(made)))) };
}
