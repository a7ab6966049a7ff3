import type { OpenContext } from '../driver.ts';
import { errno } from '../io-error.ts';
import { couldNotOpen, exactNumber } from '../mapped-image.ts';
import type { BlockNode } from '../node.ts';
import { readBytes } from '../node-bytes.ts';
import { start, startFor, type Task } from '../pending.ts';
import { Headers } from './headers.ts';
import {
  blockState,
  entryOf,
  type Geometry,
  geometryOf,
  HEADER_SECTION_BYTES,
  item,
  MAX_BLOCK_BYTES,
  METADATA_TABLE_BYTES,
  MIB,
  parseMetadataTable,
  parseRegionTable,
  REGION_TABLE_BYTES,
  REGION_TABLE_OFFSETS,
  region,
  type TableEntry,
} from './layout.ts';
import { LOG_SECTOR, Log } from './log.ts';
import { batEntry, VhdxNode } from './node.ts';
import { isVhdx } from './signature.ts';

const SECTOR = 512;
/** Of the table: a disk of 64 TiB in blocks of 4 MiB. A larger one is hostile. */
const MAX_BAT_BYTES = 128 * MIB;
const HAS_PARENT = 2;

/** Stretches of the file that are taken. */
interface Taken {
  readonly offset: number;
  readonly length: number;
}

/** Opens an image of the format (see BlockDriver). */
export async function open(context: OpenContext): Promise<BlockNode> {
  const { graph, settings, driver } = context;
  const file = await context.child('file');
  context.followReadOnly(file);
  if (!isVhdx(await startFor(readBytes(file, 0, 8)))) throw couldNotOpen(file, errno.EINVAL);
  const headers = await startFor(Headers.load(file));
  const log = new Log(file, headers);
  await start(log.replay(file, !settings.readOnly && !file.readOnly && !graph.inactive));
  const complain = (message: string): void => graph.notice(message);
  const { taken, bat, metadata } = await startFor(readRegions(file, log.place, complain));
  const geometry = await startFor(readMetadata(file, exactNumber(metadata.offset, file)));
  const batOffset = exactNumber(bat.offset, file);
  const table = await startFor(readBat(file, geometry, bat, batOffset));
  const wrong = wrongEntry(table, geometry, file.length, taken);
  if (wrong !== undefined) {
    complain(wrong);
    throw couldNotOpen(file, errno.EINVAL);
  }
  const node = new VhdxNode(graph, driver, settings, geometry, headers, log, table, batOffset);
  node.filename = file.filename;
  node.attach('file', file);
  return node;
}

/** MS-VHDX 2.2.3. */
function* readRegions(
  file: BlockNode,
  log: Taken,
  complain: (message: string) => void,
): Task<{ taken: readonly Taken[]; bat: TableEntry; metadata: TableEntry }> {
  const entries = parseRegionTable(yield* readBytes(file, REGION_TABLE_OFFSETS[0], REGION_TABLE_BYTES));
  if (entries === undefined) throw couldNotOpen(file, errno.EINVAL);
  const taken: Taken[] = [log];
  for (const { guid, offset, length, required } of entries) {
    const place = { offset: exactNumber(offset, file), length };
    const other = overlapping(place, taken);
    if (other !== undefined) {
      complain(overlap(place, other));
      throw couldNotOpen(file, errno.EINVAL);
    }
    taken.push(place);
    const known = guid.equals(region.BAT) || guid.equals(region.METADATA);
    if (required && !known) throw couldNotOpen(file, errno.EOPNOTSUPP);
  }
  const bats = entries.filter(({ guid }) => guid.equals(region.BAT));
  const metadatas = entries.filter(({ guid }) => guid.equals(region.METADATA));
  const [bat, secondBat] = bats;
  const [metadata, secondMetadata] = metadatas;
  if (bat === undefined || metadata === undefined || secondBat !== undefined || secondMetadata !== undefined)
    throw couldNotOpen(file, errno.EINVAL);
  return { taken, bat, metadata };
}

function overlapping({ offset, length }: Taken, taken: readonly Taken[]): Taken | undefined {
  return taken.find(other => offset < other.offset + other.length && offset + length > other.offset);
}

function overlap(place: Taken, other: Taken): string {
  const text = ({ offset, length }: Taken): string => `${offset}-${offset + length}`;
  return `VHDX region ${text(place)} overlaps with region ${text(other)}`;
}

/** 2.6: how large the disk and its blocks are. */
function* readMetadata(file: BlockNode, offset: number): Task<Geometry> {
  const entries = parseMetadataTable(yield* readBytes(file, offset, METADATA_TABLE_BYTES));
  if (entries === undefined) throw couldNotOpen(file, errno.EINVAL);
  const found = new Map<Buffer, TableEntry>();
  for (const entry of entries) {
    const known = Object.values(item).find(guid => guid.equals(entry.guid));
    if (known === undefined) {
      if (entry.required) throw couldNotOpen(file, errno.EOPNOTSUPP);
      continue;
    }
    if (found.has(known)) throw couldNotOpen(file, errno.EINVAL);
    found.set(known, entry);
  }
  const value = function* (guid: Buffer, bytes: number): Task<Buffer> {
    const entry = found.get(guid);
    if (entry === undefined) throw couldNotOpen(file, errno.EOPNOTSUPP);
    return yield* readBytes(file, offset + Number(entry.offset), bytes);
  };
  // Only differencing disks have a locator, and QEMU has none of those.
  if (found.has(item.PARENT_LOCATOR)) throw couldNotOpen(file, errno.EOPNOTSUPP);
  yield* value(item.VIRTUAL_DISK_ID, 16);
  yield* value(item.PHYSICAL_SECTOR_SIZE, 4);
  const parameters = yield* value(item.FILE_PARAMETERS, 8);
  if ((parameters.readUInt32LE(4) & HAS_PARENT) !== 0) throw couldNotOpen(file, errno.EINVAL);
  const blockSize = parameters.readUInt32LE();
  const size = exactNumber((yield* value(item.VIRTUAL_DISK_SIZE, 8)).readBigUInt64LE(), file);
  const sectorSize = (yield* value(item.LOGICAL_SECTOR_SIZE, 4)).readUInt32LE();
  const isPower = (blockSize & (blockSize - 1)) === 0;
  if (blockSize < MIB || blockSize > MAX_BLOCK_BYTES) throw couldNotOpen(file, errno.EINVAL);
  if (sectorSize !== SECTOR) throw couldNotOpen(file, errno.EOPNOTSUPP);
  if (!isPower) throw couldNotOpen(file, errno.EINVAL);
  return geometryOf(size - (size % SECTOR), blockSize);
}

function* readBat(file: BlockNode, { entries }: Geometry, { length }: TableEntry, offset: number): Task<Buffer> {
  const bytes = Math.ceil((entries * 8) / LOG_SECTOR) * LOG_SECTOR;
  if (entries > length / 8 || bytes > MAX_BAT_BYTES) throw couldNotOpen(file, errno.EINVAL);
  return yield* readBytes(file, offset, bytes);
}

/** What is wrong with the first block that cannot lie where it is said to lie. */
function wrongEntry(
  bat: Buffer,
  { blocks, blockSize, chunkRatio, size }: Geometry,
  fileBytes: number,
  taken: readonly Taken[],
): string | undefined {
  for (let block = 0; block < blocks; block++) {
    const index = entryOf(block, chunkRatio);
    const { state, offset } = batEntry(bat, index);
    if (state !== blockState.FULLY_PRESENT) continue;
    // QEMU once made images whose last block ends with the disk.
    const end = offset + Math.min(blockSize, size - block * blockSize);
    const cutOff = `points after end of file (${fileBytes}). Image has probably been truncated.`;
    if (!Number.isSafeInteger(end)) return `VHDX BAT entry ${index} offset overflow.`;
    if (offset >= fileBytes) return `VHDX BAT entry ${index} start offset ${offset} ${cutOff}`;
    if (end > fileBytes) return `VHDX BAT entry ${index} end offset ${end - 1} ${cutOff}`;
    const place = { offset, length: blockSize };
    const other = overlapping(place, [{ offset: 0, length: HEADER_SECTION_BYTES }, ...taken]);
    if (other !== undefined) return overlap(place, other);
  }
  return undefined;
}
