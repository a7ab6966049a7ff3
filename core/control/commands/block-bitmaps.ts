import { createHash } from 'node:crypto';
import { type BitmapTolerance, DirtyBitmap } from '../../block/dirty-bitmap.ts';
import type { BlockGraph } from '../../block/graph.ts';
import type { BlockNode } from '../../block/node.ts';
import type { Value } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import type * as schema from '../qapi/schema/block-jobs.ts';

/** What an action of a transaction did. One of these follows, when all were done or one failed. */
export interface Done {
  /** Takes it back. */
  undo(): void | Promise<void>;
  /** It stays: what cannot be taken back is done now. */
  settle?(): Promise<void>;
}

/** Bytes of a bitmap's name. */
const MAX_NAME = 1023;

const nothing: Done = { undo: () => {} };

/** The node that a command calls `device`: a device's, or one by its own name. */
export function rootNode(graph: BlockGraph, device: string): BlockNode {
  return graph.lookupPair(device, device);
}

export function findBitmap(node: BlockNode, name: string): DirtyBitmap {
  const bitmap = node.dirtyBitmaps.named(name);
  if (bitmap === undefined) throw new QmpError(`Dirty bitmap '${name}' not found`);
  return bitmap;
}

function bitmapNode(graph: BlockGraph, name: string): BlockNode {
  try {
    return rootNode(graph, name);
  } catch {
    throw new QmpError(`Node '${name}' not found`);
  }
}

function usableBitmap(
  graph: BlockGraph,
  { node, name }: { readonly node: string; readonly name: string },
  tolerated?: BitmapTolerance,
): DirtyBitmap {
  return findBitmap(bitmapNode(graph, node), name).checkUsable(tolerated);
}

export function addBitmap(graph: BlockGraph, args: Value<typeof schema.BlockDirtyBitmapAdd>): Done {
  const node = rootNode(graph, args.node);
  const { name, granularity = Math.min(65536, Math.max(4096, node.clusterSize)) } = args;
  if (name === '') throw new QmpError('Bitmap name cannot be empty');
  if (granularity < 512 || (granularity & (granularity - 1)) !== 0) {
    throw new QmpError('Granularity must be power of 2 and at least 512');
  }
  if (node.dirtyBitmaps.named(name) !== undefined) throw new QmpError(`Bitmap already exists: ${name}`);
  if (Buffer.byteLength(name) > MAX_NAME) throw new QmpError(`Bitmap name too long: ${name}`);
  const { disabled = false, persistent = false } = args;
  const bitmap = new DirtyBitmap(node.length, { name, granularity, disabled, persistent });
  if (persistent) node.checkPersistent(bitmap);
  node.dirtyBitmaps.add(bitmap);
  return { undo: () => node.dirtyBitmaps.remove(bitmap) };
}

export async function removeBitmap(graph: BlockGraph, args: Value<typeof schema.BlockDirtyBitmap>): Promise<Done> {
  const bitmap = usableBitmap(graph, args, { inconsistent: true });
  const node = bitmapNode(graph, args.node);
  if (bitmap.persistent) await node.forgetBitmap(args.name);
  node.dirtyBitmaps.remove(bitmap);
  return { undo: () => node.dirtyBitmaps.add(bitmap) };
}

export function clearBitmap(graph: BlockGraph, args: Value<typeof schema.BlockDirtyBitmap>): Done {
  const bitmap = usableBitmap(graph, args);
  const before = bitmap.snapshot();
  bitmap.clear();
  return { undo: () => bitmap.restore(before) };
}

export function enableBitmap(graph: BlockGraph, args: Value<typeof schema.BlockDirtyBitmap>, enabled: boolean): Done {
  const bitmap = usableBitmap(graph, args, { readonly: true });
  const before = bitmap.enabled;
  bitmap.enabled = enabled;
  return {
    undo() {
      bitmap.enabled = before;
    },
  };
}

/** The hash of the marks, in whole 64-bit words as QEMU keeps them. */
export function bitmapHash(graph: BlockGraph, node: string, name: string): string {
  const { bytes } = findBitmap(bitmapNode(graph, node), name);
  const padding = new Uint8Array(Math.max(8, Math.ceil(bytes.length / 8) * 8) - bytes.length);
  return createHash('sha256').update(bytes).update(padding).digest('hex');
}

export function mergeBitmaps(graph: BlockGraph, args: Value<typeof schema.BlockDirtyBitmapMerge>): Done {
  const target = findBitmap(bitmapNode(graph, args.node), args.target);
  const sources = args.bitmaps.map(source =>
    findBitmap(
      bitmapNode(graph, typeof source === 'string' ? args.node : source.node),
      typeof source === 'string' ? source : source.name,
    ),
  );
  for (const source of sources) {
    target.checkUsable();
    source.checkUsable({ readonly: true });
    if (source.length === target.length) continue;
    throw new QmpError(
      `Bitmaps are of different sizes (destination size is ${target.length}, source size is ${source.length}) and can't be merged`,
    );
  }
  const before = target.snapshot();
  for (const source of sources) target.merge(source);
  return sources.length === 0 ? nothing : { undo: () => target.restore(before) };
}
