import { randomBytes } from 'node:crypto';
import type { BlockGraph } from '../graph.ts';
import { BlockError } from '../io-error.ts';
import type { BlockNode } from '../node.ts';
import { writeBytes } from '../node-bytes.ts';
import type { BlockOptions } from '../options.ts';
import { start, type Task } from '../pending.ts';
import {
  blockState,
  entryOf,
  type Geometry,
  GUID_BYTES,
  geometryOf,
  HEADER_BYTES,
  HEADER_OFFSETS,
  HEADER_SECTION_BYTES,
  item,
  MAX_BLOCK_BYTES,
  MIB,
  NO_GUID,
  REGION_TABLE_OFFSETS,
  region,
  serializeHeader,
  serializeMetadata,
  serializeRegionTable,
} from './layout.ts';
import { setBatEntry } from './node.ts';
import { FILE_SIGNATURE } from './signature.ts';

const GIB = 2 ** 30;
const TIB = 2 ** 40;
const MAX_SIZE = 64 * TIB;
/** Room behind the metadata. */
const RESERVE = 5 * MIB;
const LEAVE_BLOCKS_ALLOCATED = 1;

interface NewDisk extends Geometry {
  readonly logBytes: number;
  readonly fixed: boolean;
  /** Blocks that were never written say that they are zeroes: without it they say nothing. */
  readonly stateZero: boolean;
}

function takeOptions(options: BlockOptions): NewDisk {
  const size = options.bytes('size') ?? 0;
  const logBytes = options.bytes('log-size') ?? MIB;
  const stateZero = options.bool('block-state-zero') ?? true;
  const fixed = options.choice('subformat', ['dynamic', 'fixed']) === 'fixed';
  const blockSize = options.bytes('block-size') ?? usualBlock(size);
  if (size > MAX_SIZE) throw new BlockError('Image size too large; max of 64TB');
  if (logBytes >= 2 ** 32) throw new BlockError('Log size must be smaller than 4 GB');
  if (logBytes < MIB || logBytes % MIB !== 0) throw new BlockError('Log size must be a multiple of 1 MB');
  if (blockSize < MIB || blockSize % MIB !== 0) throw new BlockError('Block size must be a multiple of 1 MB');
  if (!Number.isInteger(Math.log2(blockSize))) throw new BlockError('Block size must be a power of two');
  if (blockSize > MAX_BLOCK_BYTES) throw new BlockError(`Block size must not exceed ${MAX_BLOCK_BYTES}`);
  return { ...geometryOf(size, blockSize), logBytes, fixed, stateZero };
}

/** So that the table stays small. */
function usualBlock(size: number): number {
  if (size > 32 * TIB) return 64 * MIB;
  if (size > 100 * GIB) return 32 * MIB;
  return size > GIB ? 16 * MIB : 8 * MIB;
}

/** Makes an image in the node `file`. */
export async function create(graph: BlockGraph, options: BlockOptions): Promise<void> {
  const file = graph.lookup(options.string('file') ?? '');
  const disk = takeOptions(options);
  await file.truncate(0);
  await start(writeEmpty(file, disk));
  await file.flush();
}

function* writeEmpty(file: BlockNode, disk: NewDisk): Task {
  const { logBytes, entries, size, fixed, stateZero } = disk;
  const batOffset = HEADER_SECTION_BYTES + logBytes;
  const batBytes = Math.ceil((entries * 8) / MIB) * MIB;
  const metadataOffset = batOffset + batBytes;
  const dataOffset = metadataOffset + RESERVE;
  yield* writeBytes(file, 0, Buffer.concat([FILE_SIGNATURE, Buffer.from('Southbridge', 'utf16le')]));
  const header = {
    signature: NO_GUID,
    sequenceNumber: BigInt(randomBytes(4).readUInt32LE()),
    fileWriteGuid: randomBytes(GUID_BYTES),
    dataWriteGuid: randomBytes(GUID_BYTES),
    logGuid: NO_GUID,
    logVersion: 0,
    version: 1,
    logLength: logBytes,
    logOffset: BigInt(HEADER_SECTION_BYTES),
  };
  for (const [index, offset] of HEADER_OFFSETS.entries()) {
    const newer = { ...header, sequenceNumber: header.sequenceNumber + BigInt(index) };
    yield* writeBytes(file, offset, serializeHeader(newer, Buffer.alloc(HEADER_BYTES)));
  }
  const growing = file.truncate(dataOffset + (fixed ? size : 0));
  if (growing) yield growing;
  if (fixed || stateZero) yield* writeBytes(file, batOffset, batOf(disk, batBytes, dataOffset));
  const regions = serializeRegionTable([
    { guid: region.BAT, offset: BigInt(batOffset), length: batBytes },
    { guid: region.METADATA, offset: BigInt(metadataOffset), length: MIB },
  ]);
  for (const offset of REGION_TABLE_OFFSETS) yield* writeBytes(file, offset, regions);
  yield* writeBytes(file, metadataOffset, metadataOf(disk));
}

function batOf({ blocks, blockSize, chunkRatio, stateZero }: NewDisk, bytes: number, dataOffset: number): Buffer {
  const bat = Buffer.alloc(bytes);
  for (let block = 0; block < blocks; block++) {
    // As QEMU has it, also a fixed disk is one of zeroes that says so.
    const entry = stateZero
      ? { state: blockState.ZERO, offset: 0 }
      : { state: blockState.FULLY_PRESENT, offset: dataOffset + block * blockSize };
    setBatEntry(bat, entryOf(block, chunkRatio), entry);
  }
  return bat;
}

function metadataOf({ blockSize, fixed, size }: NewDisk): Buffer {
  const u32 = (...values: number[]): Buffer => {
    const bytes = Buffer.alloc(values.length * 4);
    for (const [index, value] of values.entries()) bytes.writeUInt32LE(value, index * 4);
    return bytes;
  };
  return serializeMetadata([
    { guid: item.FILE_PARAMETERS, value: u32(blockSize, fixed ? LEAVE_BLOCKS_ALLOCATED : 0) },
    { guid: item.VIRTUAL_DISK_SIZE, value: u32(size % 2 ** 32, Math.floor(size / 2 ** 32)) },
    { guid: item.VIRTUAL_DISK_ID, value: randomBytes(GUID_BYTES) },
    { guid: item.LOGICAL_SECTOR_SIZE, value: u32(512) },
    { guid: item.PHYSICAL_SECTOR_SIZE, value: u32(512) },
  ]);
}
