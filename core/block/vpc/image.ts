import { randomBytes } from 'node:crypto';
import type { OpenContext } from '../driver.ts';
import type { BlockGraph } from '../graph.ts';
import { BlockError, errno } from '../io-error.ts';
import { couldNotOpen, exactNumber } from '../mapped-image.ts';
import type { BlockNode } from '../node.ts';
import { readBytes, writeBytes } from '../node-bytes.ts';
import type { BlockOptions } from '../options.ts';
import { start, startFor, type Task } from '../pending.ts';
import { entriesOf } from '../table-entries.ts';
import { fit, LARGEST_SECTORS, MAX_SECTORS, sectorsOf } from './geometry.ts';
import {
  DYNAMIC_HEADER_BYTES,
  diskType,
  FOOTER_BYTES,
  type Footer,
  hasFooterChecksum,
  isDynamicHeader,
  parseDynamicHeader,
  parseFooter,
  serializeDynamicHeader,
  serializeFooter,
} from './header.ts';
import { type Blocks, NO_BLOCK, type SizeCalculation, VpcNode } from './node.ts';
import { isVpc } from './signature.ts';

const SECTOR = 512;
const NEW_BLOCK_SIZE = 2 << 20;
/** 2040 GiB in blocks of 64 KiB; a larger table is hostile. */
const MAX_TABLE_BYTES = 128 << 20;

/** Those who count by size; all others count by geometry. `tap` is three letters long. */
const COUNTS_BY_SIZE = ['win ', 'qem2', 'd2v ', 'CTXS', 'tap'];

/** Opens an image of the format (see BlockDriver). */
export async function open(context: OpenContext): Promise<BlockNode> {
  const { graph, options, settings, driver } = context;
  const mode = sizeCalculation(options.string('force_size_calc'));
  const file = await context.child('file');
  context.followReadOnly(file);
  const { bytes, footer, atEnd } = await startFor(readFooter(file));
  const total = sectorsIn(footer, mode);
  if (total > MAX_SECTORS) throw couldNotOpen(file, errno.EFBIG);
  const length = total * SECTOR;
  // Whatever else the footer says, QEMU takes a disk for dynamic that begins with one.
  const blocks = atEnd ? undefined : await startFor(readBlocks(file, footer, length));
  const fixed = footer.type === diskType.FIXED;
  const node = new VpcNode(graph, driver, settings, length, bytes, fixed ? undefined : blocks, mode);
  node.filename = file.filename;
  node.attach('file', file);
  return node;
}

function sizeCalculation(mode: string | undefined): SizeCalculation | undefined {
  if (mode === undefined || mode === 'chs' || mode === 'current_size') return mode;
  throw new BlockError(`Invalid size calculation mode: '${mode}'`);
}

function* readFooter(file: BlockNode): Task<{ bytes: Buffer; footer: Footer; atEnd: boolean }> {
  let bytes = yield* readBytes(file, 0, FOOTER_BYTES);
  const atEnd = !isVpc(bytes);
  if (atEnd) {
    if (file.length < FOOTER_BYTES) throw new BlockError('File too small for a VHD header');
    bytes = yield* readBytes(file, file.length - FOOTER_BYTES, FOOTER_BYTES);
    if (!isVpc(bytes) || parseFooter(bytes).type !== diskType.FIXED) throw new BlockError('invalid VPC image');
  }
  const footer = parseFooter(bytes);
  if (!hasFooterChecksum(bytes, footer)) throw new BlockError('Incorrect header checksum');
  return { bytes, footer, atEnd };
}

/** How long the image is, in sectors: Virtual PC goes by the geometry, Hyper-V and others by the size. */
function sectorsIn(footer: Footer, mode: SizeCalculation | undefined): number {
  const byGeometry = sectorsOf(footer);
  const creator = footer.creatorApplication.toString('latin1');
  const usesChs = mode === 'chs' || !COUNTS_BY_SIZE.some(name => creator.startsWith(name));
  if (usesChs && byGeometry !== LARGEST_SECTORS && mode !== 'current_size') return byGeometry;
  return Number(footer.currentSize / BigInt(SECTOR));
}

function* readBlocks(file: BlockNode, footer: Footer, length: number): Task<Blocks> {
  if (footer.dataOffset > BigInt(Number.MAX_SAFE_INTEGER)) throw new BlockError('Error reading dynamic VHD header');
  const header = parseDynamicHeader(yield* readBytes(file, Number(footer.dataOffset), DYNAMIC_HEADER_BYTES));
  if (!isDynamicHeader(header)) throw new BlockError('Invalid header magic');
  const { blockSize: size, maxTableEntries: entries } = header;
  if (size < SECTOR || (size & (size - 1)) !== 0) throw new BlockError(`Invalid block size ${size}`);
  if (entries * size < length) throw new BlockError('Page table too small');
  if (entries * 4 > MAX_TABLE_BYTES) throw new BlockError(`Max Table Entries too large (${entries})`);
  const bitmapBytes = Math.ceil(size / (8 * SECTOR) / SECTOR) * SECTOR;
  const tableOffset = exactNumber(header.tableOffset, file);
  let end = Math.ceil((tableOffset + entries * 4) / SECTOR) * SECTOR;
  checkInside(file, end);
  const table = entriesOf(yield* readBytes(file, tableOffset, entries * 4), 'big');
  for (const sector of table) if (sector !== NO_BLOCK) end = Math.max(end, sector * SECTOR + bitmapBytes + size);
  checkInside(file, end);
  return { size, bitmapBytes, table, tableOffset, end };
}

function checkInside(file: BlockNode, end: number): void {
  if (end > file.length) {
    throw new BlockError(
      'block-vpc: free_data_block_offset points after the end of file. The image has been truncated.',
    );
  }
}

/** Makes one (see BlockDriver). */
export async function create(graph: BlockGraph, options: BlockOptions): Promise<void> {
  const file = graph.lookup(options.string('file') ?? '');
  const size = options.bytes('size') ?? 0;
  const subformat = options.choice('subformat', ['dynamic', 'fixed']) ?? 'dynamic';
  const forceSize = options.bool('force-size') ?? false;
  const { geometry, total } = fit(size, forceSize);
  if (size !== total * SECTOR) {
    throw new BlockError('The requested image size cannot be represented in CHS geometry', {
      hint: `Try size=${total * SECTOR} or force-size=on (the latter makes the image incompatible with Virtual PC)`,
    });
  }
  const footer = serializeFooter({
    ...geometry,
    size,
    type: subformat === 'fixed' ? diskType.FIXED : diskType.DYNAMIC,
    creatorApplication: forceSize ? 'qem2' : 'qemu',
    seconds: Math.floor(Date.now() / 1000),
    uuid: randomBytes(16),
  });
  await file.truncate(0);
  await start(subformat === 'fixed' ? makeFixed(file, footer, size) : makeDynamic(file, footer, total));
  await file.flush();
}

function* makeFixed(file: BlockNode, footer: Buffer, size: number): Task {
  const growing = file.truncate(size + FOOTER_BYTES);
  if (growing) yield growing;
  yield* writeBytes(file, size, footer);
}

function* makeDynamic(file: BlockNode, footer: Buffer, total: number): Task {
  const entries = Math.ceil(total / (NEW_BLOCK_SIZE / SECTOR));
  const tableOffset = FOOTER_BYTES + DYNAMIC_HEADER_BYTES;
  const table = Buffer.alloc(Math.ceil((entries * 4) / SECTOR) * SECTOR, 0xff);
  yield* writeBytes(file, tableOffset, table);
  yield* writeBytes(file, tableOffset + table.length, footer);
  yield* writeBytes(file, FOOTER_BYTES, serializeDynamicHeader(tableOffset, entries, NEW_BLOCK_SIZE));
  yield* writeBytes(file, 0, footer);
}
