import { DirtyBitmap } from './dirty-bitmap.ts';
import type { BlockGraph } from './graph.ts';
import { isWellFormedId } from './identifier.ts';
import { BlockError, reason } from './io-error.ts';
import type { BlockNode } from './node.ts';

/** A node whose bitmaps go along, and what it and they are called on the way: `block-bitmap-mapping`. */
export interface NodeAlias {
  readonly 'node-name': string;
  readonly alias: string;
  readonly bitmaps: readonly {
    readonly name: string;
    readonly alias: string;
    readonly transform?: { readonly persistent?: boolean | undefined } | undefined;
  }[];
}

/** A bitmap on its way to another process. */
export interface MigratedBitmap {
  readonly node: string;
  readonly name: string;
  readonly granularity: number;
  readonly length: number;
  readonly enabled: boolean;
  readonly persistent: boolean;
  readonly bits: Uint8Array;
}

interface Leaving {
  readonly node: BlockNode;
  readonly bitmap: DirtyBitmap;
  readonly nodeAlias: string;
  readonly alias: string;
  readonly persistent: boolean;
}

const MAX_ALIAS = 255;
const MAX_NODE_NAME = 31;
const MAX_BITMAP_NAME = 1023;

/** @throws BlockError where a name or an alias is none, or there twice */
export function checkMapping(mapping: readonly NodeAlias[]): void {
  try {
    checkAliases(mapping);
  } catch (error) {
    throw new BlockError(`Invalid mapping given for block-bitmap-mapping: ${reason(error)}`, { cause: error });
  }
}

function checkAliases(mapping: readonly NodeAlias[]): void {
  const nodes = new Set<string>();
  const aliases = new Set<string>();
  for (const { 'node-name': name, alias, bitmaps } of mapping) {
    if (!isWellFormedId(alias)) throw new BlockError(`The node alias '${alias}' is not well-formed`);
    if (Buffer.byteLength(alias) > MAX_ALIAS)
      throw new BlockError(`The node alias '${alias}' is longer than ${MAX_ALIAS} bytes`);
    if (Buffer.byteLength(name) > MAX_NODE_NAME)
      throw new BlockError(`The node name '${name}' is longer than ${MAX_NODE_NAME} bytes`);
    if (nodes.has(name)) throw new BlockError(`The node name '${name}' is mapped twice`);
    if (aliases.has(alias)) throw new BlockError(`The node alias '${alias}' is used twice`);
    nodes.add(name);
    aliases.add(alias);
    checkBitmaps(name, alias, bitmaps);
  }
}

function checkBitmaps(node: string, nodeAlias: string, bitmaps: NodeAlias['bitmaps']): void {
  const names = new Set<string>();
  const aliases = new Set<string>();
  for (const { name, alias } of bitmaps) {
    if (Buffer.byteLength(alias) > MAX_ALIAS)
      throw new BlockError(`The bitmap alias '${alias}' is longer than ${MAX_ALIAS} bytes`);
    if (Buffer.byteLength(name) > MAX_BITMAP_NAME)
      throw new BlockError(`The bitmap name '${name}' is longer than ${MAX_BITMAP_NAME} bytes`);
    if (names.has(name)) throw new BlockError(`The bitmap '${node}'/'${name}' is mapped twice`);
    if (aliases.has(alias)) throw new BlockError(`The bitmap alias '${nodeAlias}'/'${alias}' is used twice`);
    names.add(name);
    aliases.add(alias);
  }
}

/** Each node with what it is called on the way: by its device where it has one. */
function* namedNodes(graph: BlockGraph): Generator<readonly [BlockNode, string]> {
  const done = new Set<BlockNode>();
  for (const { name, root } of graph.backends) {
    if (name === '' || root === undefined) continue;
    let node: BlockNode = root;
    while (node.filtered !== undefined && ![...node.dirtyBitmaps].some(one => one.name !== undefined))
      node = node.filtered;
    if (node.filtered !== undefined || done.has(node)) continue;
    done.add(node);
    yield [node, name];
  }
  for (const node of graph.nodes()) if (!done.has(node)) yield [node, node.nodeName];
}

function leaving(graph: BlockGraph, mapping: readonly NodeAlias[] | undefined): Leaving[] {
  const found: Leaving[] = [];
  const nodes = mapping === undefined ? namedNodes(graph) : graph.nodes().map(node => [node, node.nodeName] as const);
  for (const [node, name] of nodes) {
    const bitmaps = [...node.dirtyBitmaps].filter(one => one.name !== undefined);
    const mapped = mapping?.find(one => one['node-name'] === name);
    if (bitmaps.length === 0 || (mapping !== undefined && mapped === undefined)) continue;
    const nodeAlias = mapped?.alias ?? name;
    if (nodeAlias.startsWith('#')) {
      throw new BlockError(
        `Bitmap '${bitmaps[0]?.name}' in a node with auto-generated name '${nodeAlias}' can't be migrated`,
      );
    }
    for (const bitmap of bitmaps) {
      bitmap.checkUsable();
      const { name: own = '', persistent } = bitmap;
      const as = mapped?.bitmaps.find(one => one.name === own);
      if (mapped !== undefined && as === undefined) continue;
      if (as === undefined && Buffer.byteLength(own) > MAX_ALIAS) {
        throw new BlockError(
          `Cannot migrate bitmap '${own}' on node '${name}': Name is longer than ${MAX_ALIAS} bytes`,
        );
      }
      const kept = as?.transform?.persistent ?? persistent;
      found.push({ node, bitmap, nodeAlias, alias: as?.alias ?? own, persistent: kept });
    }
  }
  return found;
}

/** @throws BlockError where a bitmap that is to go along cannot */
export function checkBitmapsCanLeave(graph: BlockGraph, mapping: readonly NodeAlias[] | undefined): void {
  leaving(graph, mapping);
}

/** Takes the bitmaps as they are now; their images will not keep them. The machine stands still. */
export function bitmapsToSend(graph: BlockGraph, mapping: readonly NodeAlias[] | undefined): MigratedBitmap[] {
  return leaving(graph, mapping).map(({ bitmap, nodeAlias, alias, persistent }) => {
    bitmap.inTransit = true;
    const { granularity, length, enabled, bytes } = bitmap;
    return { node: nodeAlias, name: alias, granularity, length, enabled, persistent, bits: bytes };
  });
}

/** Where a bitmap would go nobody has said, or there is no such node: the machine can do without. */
export class UnplacedBitmap extends BlockError {}

function placeOf(
  graph: BlockGraph,
  mapping: readonly NodeAlias[] | undefined,
  sent: MigratedBitmap,
): { readonly node: BlockNode; readonly as: NodeAlias['bitmaps'][number] | undefined } {
  const mapped = mapping?.find(one => one.alias === sent.node);
  if (mapping !== undefined && mapped === undefined)
    throw new UnplacedBitmap(`Error: Unknown node alias '${sent.node}'`);
  let node: BlockNode;
  try {
    node = mapped === undefined ? graph.lookup(sent.node) : graph.lookupPair(undefined, mapped['node-name']);
  } catch (error) {
    throw new UnplacedBitmap(reason(error));
  }
  const as = mapped?.bitmaps.find(one => one.alias === sent.name);
  if (mapped !== undefined && as === undefined) {
    throw new UnplacedBitmap(
      `Error: Unknown bitmap alias '${sent.name}' on node '${node.nodeName}' (alias '${sent.node}')`,
    );
  }
  return { node, as };
}

/**
 * Puts a bitmap that has come where it belongs.
 *
 * @returns what takes it away again
 * @throws UnplacedBitmap where it has no place here; BlockError where there is something in its place, or it is damaged
 */
export function takeBitmap(
  graph: BlockGraph,
  mapping: readonly NodeAlias[] | undefined,
  sent: MigratedBitmap,
): () => void {
  const { node, as } = placeOf(graph, mapping, sent);
  const name = as?.name ?? sent.name;
  const place = node.withoutFilters;
  if (place.dirtyBitmaps.named(name) !== undefined) {
    throw new BlockError(`Bitmap with the same name ('${name}') already exists on destination`);
  }
  if (sent.length !== place.length)
    throw new BlockError(`Bitmap '${name}' is of ${sent.length} bytes, node '${place.nodeName}' of ${place.length}`);
  const persistent = as?.transform?.persistent ?? sent.persistent;
  const bitmap = new DirtyBitmap(place.length, {
    name,
    granularity: sent.granularity,
    persistent,
    disabled: !sent.enabled,
  });
  if (sent.bits.length !== bitmap.bytes.length) throw new BlockError(`Bitmap '${name}' is damaged`);
  bitmap.restore(sent.bits);
  // Bits behind the end mean nothing.
  bitmap.resize(bitmap.length);
  bitmap.inTransit = true;
  place.dirtyBitmaps.add(bitmap);
  return () => place.dirtyBitmaps.remove(bitmap);
}
