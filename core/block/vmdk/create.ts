import { randomBytes } from 'node:crypto';
import path from 'node:path';
import { relativeTo } from '../file-name.ts';
import type { BlockGraph } from '../graph.ts';
import { BlockError } from '../io-error.ts';
import type { BlockNode } from '../node.ts';
import { writeBytes } from '../node-bytes.ts';
import { BlockOptions } from '../options.ts';
import { start, type Task } from '../pending.ts';
import { DESCRIPTOR_OFFSET, descriptorText, NO_PARENT } from './descriptor.ts';
import { newLayout } from './header.ts';
import { VmdkNode } from './node.ts';

const SECTOR = 512;
/** "twoGbMaxExtent": what each file of a split disk holds at most. */
const SPLIT_BYTES = 2 ** 31;

const SUBFORMATS = [
  'monolithicSparse',
  'monolithicFlat',
  'twoGbMaxExtentSparse',
  'twoGbMaxExtentFlat',
  'streamOptimized',
] as const;

const ADAPTERS = ['ide', 'buslogic', 'lsilogic', 'legacyESX'] as const;

/** Makes a disk in the node `file`, and in the nodes `extents` where its data lies apart. */
export async function create(graph: BlockGraph, options: BlockOptions): Promise<void> {
  const file = graph.lookup(options.string('file') ?? '');
  const size = options.bytes('size') ?? 0;
  const subformat = options.choice('subformat', SUBFORMATS) ?? 'monolithicSparse';
  const adapterType = options.choice('adapter-type', ADAPTERS) ?? 'ide';
  const backingFile = options.string('backing-file');
  const backingFormat = options.string('backing-fmt');
  const hardwareVersion = options.string('hwversion') ?? '4';
  const toolsVersion = options.string('toolsversion') ?? '2147483647';
  const zeroGrain = options.bool('zeroed-grain') ?? false;
  const extents = options.list('extents').map(extent => graph.lookup(extent.string('') ?? ''));
  const split = subformat === 'twoGbMaxExtentSparse' || subformat === 'twoGbMaxExtentFlat';
  const flat = subformat === 'monolithicFlat' || subformat === 'twoGbMaxExtentFlat';
  const compressed = subformat === 'streamOptimized';
  if (size % SECTOR !== 0) throw new BlockError('Image size must be a multiple of 512 bytes');
  if (backingFormat !== undefined && backingFormat !== 'vmdk')
    throw new BlockError('backing_file must be a vmdk image');
  if (flat && backingFile !== undefined) throw new BlockError("Flat image can't have backing file");
  if (flat && zeroGrain) throw new BlockError("Flat image can't enable zeroed grain");
  const parentId = backingFile === undefined ? NO_PARENT : await identityOf(graph, file, backingFile);
  const apart = split || flat;
  const parts = apart ? partsOf(size, split, extents) : [{ node: file, bytes: size }];
  if (!apart && extents.length > 0) throw new BlockError('List of extents contains unused extents');
  if (apart) await file.truncate(0);
  for (const { node, bytes } of parts) {
    await node.truncate(0);
    await start(flat ? makeFlat(node, bytes) : makeSparse(node, bytes, compressed, zeroGrain));
    await node.flush();
  }
  const text = descriptorText({
    id: randomBytes(4).readUInt32LE(),
    parentId,
    createType: subformat,
    parentName: backingFile,
    extents: parts.map(({ node, bytes }) => ({
      sectors: bytes / SECTOR,
      flat,
      filename: path.basename(node.filename),
    })),
    hardwareVersion,
    toolsVersion,
    adapterType,
    size,
  });
  const bytes = Buffer.from(text, 'latin1');
  await start(writeBytes(file, apart ? 0 : DESCRIPTOR_OFFSET, bytes));
  await file.flush();
}

/** Which part of the disk lies in which node. */
function partsOf(size: number, split: boolean, extents: readonly BlockNode[]): { node: BlockNode; bytes: number }[] {
  const longest = split ? SPLIT_BYTES : size;
  const parts: { node: BlockNode; bytes: number }[] = [];
  for (let done = 0; done < size; done += longest) {
    const node = extents[parts.length];
    if (node === undefined) throw new BlockError(`Extent [${parts.length}] not specified`);
    parts.push({ node, bytes: Math.min(longest, size - done) });
  }
  if (parts.length < extents.length) throw new BlockError('List of extents contains unused extents');
  return parts;
}

/** The identity of the content of what is to back a disk: it must be a disk of this format. */
async function identityOf(graph: BlockGraph, file: BlockNode, backingFile: string): Promise<number> {
  const options = new BlockOptions([['read-only', true]]);
  const backing = await graph.openTree(relativeTo(file.filename, backingFile), options, {}, false);
  try {
    if (!(backing instanceof VmdkNode))
      throw new BlockError(`Invalid backing file format: ${backing.driver.name}. Must be vmdk`);
    return backing.contentId;
  } finally {
    await graph.released(backing);
  }
}

function* makeFlat(file: BlockNode, bytes: number): Task {
  const growing = file.truncate(bytes);
  if (growing) yield growing;
}

function* makeSparse(file: BlockNode, bytes: number, compressed: boolean, zeroGrain: boolean): Task {
  const { header, directories, directorySectors, tables, tableSectors, overhead } = newLayout(
    bytes,
    compressed,
    zeroGrain,
  );
  yield* writeBytes(file, 0, header);
  const growing = file.truncate(overhead * SECTOR);
  if (growing) yield growing;
  for (const at of directories) {
    const directory = Buffer.alloc(directorySectors * SECTOR);
    for (let index = 0; index < tables; index++)
      directory.writeUInt32LE(at + directorySectors + index * tableSectors, index * 4);
    if (directory.length > 0) yield* writeBytes(file, at * SECTOR, directory);
  }
}
