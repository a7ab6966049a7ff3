import { DirtyBitmap } from '../../block/dirty-bitmap.ts';
import type { BlockGraph } from '../../block/graph.ts';
import type { BlockNode } from '../../block/node.ts';
import type { Value } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import type * as schema from '../qapi/schema/block-jobs.ts';

/** Takes back what an action of a transaction did. */
export type Undo = () => void | Promise<void>;

const nothing: Undo = () => undefined;

/** The node that a command calls `device`: a device's, or one by its own name. */
export function rootNode(graph: BlockGraph, device: string): BlockNode {
  return graph.lookupPair(device, device);
}

export function findBitmap(node: BlockNode, name: string): DirtyBitmap {
  const bitmap = node.dirtyBitmaps.find(one => one.name === name);
  if (bitmap === undefined) throw new QmpError(`Dirty bitmap '${name}' not found`);
  return bitmap;
}

function usableBitmap(node: BlockNode, name: string): DirtyBitmap {
  const bitmap = findBitmap(node, name);
  if (bitmap.busy) throw new QmpError(`Bitmap '${name}' is currently in use by another operation and cannot be used`);
  return bitmap;
}

export function addBitmap(graph: BlockGraph, args: Value<typeof schema.BlockDirtyBitmapAdd>): Undo {
  const node = rootNode(graph, args.node);
  const { name, granularity = Math.min(65536, Math.max(4096, node.clusterSize)) } = args;
  if (name === '') throw new QmpError('Bitmap name cannot be empty');
  if (granularity < 512 || (granularity & (granularity - 1)) !== 0) {
    throw new QmpError('Granularity must be power of 2 and at least 512');
  }
  if (node.dirtyBitmaps.some(one => one.name === name)) throw new QmpError(`Bitmap already exists: ${name}`);
  if (args.persistent === true) {
    throw new QmpError(`Cannot store dirty bitmaps in '${node.nodeName}': persistent bitmaps are not supported`);
  }
  const bitmap = new DirtyBitmap(node.length, { name, granularity, disabled: args.disabled ?? false });
  node.dirtyBitmaps.push(bitmap);
  return () => drop(node, bitmap);
}

function drop(node: BlockNode, bitmap: DirtyBitmap): void {
  const index = node.dirtyBitmaps.indexOf(bitmap);
  if (index >= 0) node.dirtyBitmaps.splice(index, 1);
}

export function removeBitmap(graph: BlockGraph, args: Value<typeof schema.BlockDirtyBitmap>): Undo {
  const node = rootNode(graph, args.node);
  const bitmap = usableBitmap(node, args.name);
  drop(node, bitmap);
  return () => {
    node.dirtyBitmaps.push(bitmap);
  };
}

export function clearBitmap(graph: BlockGraph, args: Value<typeof schema.BlockDirtyBitmap>): Undo {
  const bitmap = usableBitmap(rootNode(graph, args.node), args.name);
  const before = bitmap.snapshot();
  bitmap.clear();
  return () => bitmap.restore(before);
}

export function enableBitmap(graph: BlockGraph, args: Value<typeof schema.BlockDirtyBitmap>, enabled: boolean): Undo {
  const bitmap = usableBitmap(rootNode(graph, args.node), args.name);
  const before = bitmap.enabled;
  bitmap.enabled = enabled;
  return () => {
    bitmap.enabled = before;
  };
}

export function mergeBitmaps(graph: BlockGraph, args: Value<typeof schema.BlockDirtyBitmapMerge>): Undo {
  const node = rootNode(graph, args.node);
  const target = usableBitmap(node, args.target);
  const sources = args.bitmaps.map(source =>
    typeof source === 'string' ? findBitmap(node, source) : findBitmap(rootNode(graph, source.node), source.name),
  );
  const before = target.snapshot();
  for (const source of sources) target.merge(source);
  return sources.length === 0 ? nothing : () => target.restore(before);
}
