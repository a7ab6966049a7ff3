import path from 'node:path';
import { openBacking } from '../backing.ts';
import type { OpenContext } from '../driver.ts';
import { hasProtocol } from '../file-name.ts';
import { BlockError, errno } from '../io-error.ts';
import { couldNotOpen } from '../mapped-image.ts';
import type { BlockNode } from '../node.ts';
import { readBytes } from '../node-bytes.ts';
import { startFor, type Task } from '../pending.ts';
import {
  contentId,
  createType,
  DESCRIPTOR_BYTES,
  DESCRIPTOR_OFFSET,
  type ExtentLine,
  extentLines,
  parentName,
  textOf,
} from './descriptor.ts';
import { type Extent, SparseExtent } from './extent.ts';
import {
  esxLayout,
  FOOTER_BYTES,
  footerFollows,
  HEADER_BYTES,
  hostedLayout,
  parseFooter,
  parseHosted,
  type SparseLayout,
} from './header.ts';
import { VmdkNode } from './node.ts';
import { isEsx, isHosted } from './signature.ts';

const SECTOR = 512;
/** How much of a descriptor is read to find its extents. */
const MAX_TEXT = (1 << 20) - 1;

/** A disk: its extents, what it calls itself, and where its descriptor lies. */
interface Disk {
  readonly extents: readonly Extent[];
  readonly files: ReadonlyMap<string, BlockNode>;
  readonly createType: string;
  readonly descriptorOffset: number;
}

/** Opens an image of the format (see BlockDriver). */
export async function open(context: OpenContext): Promise<BlockNode> {
  const { graph, options, settings, driver } = context;
  const backingGiven = options.peek('backing');
  const file = await context.child('file');
  context.followReadOnly(file);
  const head = await startFor(readBytes(file, 0, HEADER_BYTES));
  const disk = isHosted(head) || isEsx(head) ? await openSparse(context, file, head) : await openText(context, file, 0);
  const { extents, files, descriptorOffset } = disk;
  if (extents.length === 0) throw new BlockError('invalid VMDK image descriptor');
  const text = textOf(await startFor(readBytes(file, descriptorOffset, DESCRIPTOR_BYTES)));
  const backingFile = parentName(text);
  const id = contentId(text, 'CID');
  const parentId = contentId(text, 'parentCID');
  if (id === undefined || parentId === undefined) throw couldNotOpen(file, errno.EINVAL);
  const identity = { createType: disk.createType, descriptorOffset, id, parentId };
  const node = new VmdkNode(graph, driver, settings, extents, identity);
  node.filename = file.filename;
  node.attach('file', file);
  try {
    for (const [name, extentFile] of files) node.attach(name, extentFile);
    const refused = backingGiven === null || backingGiven === '';
    const backingFormat = backingFile === undefined ? undefined : 'vmdk';
    await openBacking(context, node, { backingFile, backingFormat }, refused);
  } catch (error) {
    settings.readOnly = true;
    await node.close();
    throw error;
  }
  return node;
}

/** A disk in one sparse extent, which holds its descriptor. */
async function openSparse(context: OpenContext, file: BlockNode, head: Buffer): Promise<Disk> {
  const inside = isHosted(head) ? parseHosted(head) : undefined;
  // An extent without room only carries the descriptor of others.
  if (inside?.capacity === 0n && inside.descriptorOffset > 0n && inside.descriptorOffset < 1n << 32n) {
    const disk = await openText(context, file, Number(inside.descriptorOffset) * SECTOR);
    return { ...disk, descriptorOffset: DESCRIPTOR_OFFSET };
  }
  const layout = await startFor(readLayout(file, context.settings.readOnly));
  const extent = await startFor(sparseExtent(file, layout, 'file', '', 0));
  return {
    extents: [extent],
    files: new Map(),
    createType: layout.compressed ? 'streamOptimized' : 'monolithicSparse',
    descriptorOffset: DESCRIPTOR_OFFSET,
  };
}

/** A disk whose descriptor names the files of its extents. */
async function openText(context: OpenContext, file: BlockNode, offset: number): Promise<Disk> {
  if (file.length < 4) throw new BlockError('File is too small, not a valid image');
  const text = textOf(await startFor(readBytes(file, offset, Math.min(file.length, MAX_TEXT))));
  const type = createType(text);
  const extents: Extent[] = [];
  const files = new Map<string, BlockNode>();
  let start = 0;
  for (const line of extentLines(text)) {
    const child = `extents.${extents.length}`;
    const extentFile = await context.child(child, {}, extentName(file, line.filename), true);
    files.set(child, extentFile);
    const extent = await startFor(openExtent(extentFile, line, child, start, context.settings.readOnly));
    extents.push(extent);
    start += extent.bytes;
  }
  return { extents, files, createType: type, descriptorOffset: 0 };
}

/** Where an extent lies: beside its descriptor, and never behind a protocol that the descriptor names. */
function extentName(descriptor: BlockNode, name: string): string {
  if (path.isAbsolute(name)) return name;
  if (descriptor.filename === '' || hasProtocol(descriptor.filename))
    throw new BlockError(`Cannot use relative paths with VMDK descriptor file '${descriptor.filename}'`);
  const beside = path.join(path.dirname(descriptor.filename), name);
  return hasProtocol(beside) ? `./${beside}` : beside;
}

function* openExtent(
  file: BlockNode,
  { type, sectors, offset }: ExtentLine,
  child: string,
  start: number,
  readOnly: boolean,
): Task<Extent> {
  if (type === 'FLAT' || type === 'VMFS')
    return { kind: 'flat', child, type, start, bytes: sectors * SECTOR, offset: offset * SECTOR };
  if (type === 'SESPARSE') throw new BlockError(`Unsupported extent type '${type}'`);
  return yield* sparseExtent(file, yield* readLayout(file, readOnly), child, type, start);
}

function* readLayout(file: BlockNode, readOnly: boolean): Task<SparseLayout> {
  if (file.length < 4) throw new BlockError('File is too small, not a valid image');
  const head = yield* readBytes(file, 0, HEADER_BYTES);
  if (isEsx(head)) return esxLayout(head);
  if (!isHosted(head)) throw new BlockError('Image not in VMDK format');
  let header = parseHosted(head);
  if (footerFollows(header)) {
    if (file.length < FOOTER_BYTES) throw new BlockError('Invalid footer');
    header = parseFooter(yield* readBytes(file, file.length - FOOTER_BYTES, FOOTER_BYTES));
  }
  return hostedLayout(header, file.length / SECTOR, readOnly);
}

function* sparseExtent(
  file: BlockNode,
  layout: SparseLayout,
  child: string,
  type: string,
  start: number,
): Task<SparseExtent> {
  if (!Number.isSafeInteger(start + layout.sectors * SECTOR)) throw couldNotOpen(file, errno.EFBIG);
  return yield* SparseExtent.load(file, { child, type, start, bytes: layout.sectors * SECTOR }, layout);
}
