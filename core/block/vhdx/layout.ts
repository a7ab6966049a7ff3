import { Parser } from 'binary-parser';
import { crc32c } from './crc32c.ts';

/** MS-VHDX: Virtual Hard Disk v2 (VHDX) File Format, revision 6. */
export const MIB = 1 << 20;
export const MAX_BLOCK_BYTES = 256 * MIB;
export const HEADER_OFFSETS = [64 << 10, 128 << 10] as const;
export const HEADER_BYTES = 4096;
export const REGION_TABLE_OFFSETS = [192 << 10, 256 << 10] as const;
export const REGION_TABLE_BYTES = 64 << 10;
export const METADATA_TABLE_BYTES = 64 << 10;
/** 2.2: the header section ends here, and all else begins at a multiple of it. */
export const HEADER_SECTION_BYTES = MIB;
const CHECKSUM_AT = 4;
const MAX_ENTRIES = 2047;
export const GUID_BYTES = 16;
export const NO_GUID = Buffer.alloc(GUID_BYTES);

const HEADER_SIGNATURE = Buffer.from('head');
const REGION_SIGNATURE = Buffer.from('regi');
const METADATA_SIGNATURE = Buffer.from('metadata');

/** A GUID as the file has it: the first three fields are little-endian. */
function guid(text: string): Buffer {
  const bytes = Buffer.from(text.replaceAll('-', ''), 'hex');
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}

/** 2.2.3.2: the regions that are known. */
export const region = {
  BAT: guid('2dc27766-f623-4200-9d64-115e9bfd4a08'),
  METADATA: guid('8b7ca206-4790-4b9a-b8fe-575f050f886e'),
} as const;

/** 2.6.2: the metadata items that are known. */
export const item = {
  FILE_PARAMETERS: guid('caa16737-fa36-4d43-b3b6-33f0aa44e76b'),
  VIRTUAL_DISK_SIZE: guid('2fa54224-cd1b-4876-b211-5dbed83bf4b8'),
  VIRTUAL_DISK_ID: guid('beca12ab-b2e6-4523-93ef-c309e000c746'),
  LOGICAL_SECTOR_SIZE: guid('8141bf1d-a96f-4709-ba47-f233a8faab5f'),
  PHYSICAL_SECTOR_SIZE: guid('cda348c7-445d-4471-9cc9-e9885251c556'),
  PARENT_LOCATOR: guid('a8d35f2d-b30b-454d-abf7-d3d84834ab0c'),
} as const;

/** 2.2.2: a header; there are two, and the one with the higher number counts. */
export interface Header {
  readonly signature: Buffer;
  readonly sequenceNumber: bigint;
  readonly fileWriteGuid: Buffer;
  readonly dataWriteGuid: Buffer;
  /** All zeroes: the log has nothing. */
  readonly logGuid: Buffer;
  readonly logVersion: number;
  readonly version: number;
  /** In bytes, as the offset. */
  readonly logLength: number;
  readonly logOffset: bigint;
}

const headerParser = new Parser()
  .endianness('little')
  .buffer('signature', { length: 4 })
  .uint32('checksum')
  .uint64('sequenceNumber')
  .buffer('fileWriteGuid', { length: GUID_BYTES })
  .buffer('dataWriteGuid', { length: GUID_BYTES })
  .buffer('logGuid', { length: GUID_BYTES })
  .uint16('logVersion')
  .uint16('version')
  .uint32('logLength')
  .uint64('logOffset');

export function hasChecksum(bytes: Buffer): boolean {
  return crc32c(bytes, CHECKSUM_AT) === bytes.readUInt32LE(CHECKSUM_AT);
}

/** Writes the checksum of a structure into it. */
export function seal(bytes: Buffer): Buffer {
  bytes.writeUInt32LE(crc32c(bytes, CHECKSUM_AT), CHECKSUM_AT);
  return bytes;
}

/** @returns undefined where the header is not valid */
export function parseHeader(bytes: Buffer): Header | undefined {
  if (!hasChecksum(bytes)) return undefined;
  const header = headerParser.parse<Header>(bytes);
  return HEADER_SIGNATURE.equals(header.signature) && header.version === 1 ? header : undefined;
}

/** Writes a header's fields into the place it has; what is reserved there stays. */
export function serializeHeader(header: Header, bytes: Buffer): Buffer {
  HEADER_SIGNATURE.copy(bytes);
  bytes.writeBigUInt64LE(BigInt.asUintN(64, header.sequenceNumber), 8);
  header.fileWriteGuid.copy(bytes, 16);
  header.dataWriteGuid.copy(bytes, 32);
  header.logGuid.copy(bytes, 48);
  bytes.writeUInt16LE(header.logVersion, 64);
  bytes.writeUInt16LE(header.version, 66);
  bytes.writeUInt32LE(header.logLength, 68);
  bytes.writeBigUInt64LE(header.logOffset, 72);
  return seal(bytes);
}

/** 2.2.3.2 and 2.6.1.2. */
export interface TableEntry {
  readonly guid: Buffer;
  readonly offset: bigint;
  readonly length: number;
  readonly required: boolean;
}

/** @returns undefined where the table is not valid */
export function parseRegionTable(bytes: Buffer): TableEntry[] | undefined {
  const count = bytes.readUInt32LE(8);
  if (!hasChecksum(bytes) || !REGION_SIGNATURE.equals(bytes.subarray(0, 4)) || count > MAX_ENTRIES) return undefined;
  return Array.from({ length: count }, (_, index) => {
    const at = 16 + index * 32;
    return {
      guid: bytes.subarray(at, at + GUID_BYTES),
      offset: bytes.readBigUInt64LE(at + 16),
      length: bytes.readUInt32LE(at + 24),
      required: (bytes.readUInt32LE(at + 28) & 1) !== 0,
    };
  });
}

/** @returns undefined where the table is not valid */
export function parseMetadataTable(bytes: Buffer): TableEntry[] | undefined {
  const count = bytes.readUInt16LE(10);
  if (!METADATA_SIGNATURE.equals(bytes.subarray(0, 8)) || count > MAX_ENTRIES) return undefined;
  return Array.from({ length: count }, (_, index) => {
    const at = 32 + index * 32;
    return {
      guid: bytes.subarray(at, at + GUID_BYTES),
      offset: BigInt(bytes.readUInt32LE(at + 16)),
      length: bytes.readUInt32LE(at + 20),
      required: (bytes.readUInt32LE(at + 24) & 4) !== 0,
    };
  });
}

export function serializeRegionTable(entries: readonly Omit<TableEntry, 'required'>[]): Buffer {
  const bytes = Buffer.alloc(REGION_TABLE_BYTES);
  REGION_SIGNATURE.copy(bytes);
  bytes.writeUInt32LE(entries.length, 8);
  for (const [index, entry] of entries.entries()) {
    const at = 16 + index * 32;
    entry.guid.copy(bytes, at);
    bytes.writeBigUInt64LE(entry.offset, at + 16);
    bytes.writeUInt32LE(entry.length, at + 24);
  }
  return seal(bytes);
}

/** A metadata region: the table, and the items behind it. */
export function serializeMetadata(items: readonly { readonly guid: Buffer; readonly value: Buffer }[]): Buffer {
  const bytes = Buffer.alloc(METADATA_TABLE_BYTES + items.reduce((sum, { value }) => sum + value.length, 0));
  METADATA_SIGNATURE.copy(bytes);
  bytes.writeUInt16LE(items.length, 10);
  let place = METADATA_TABLE_BYTES;
  for (const [index, { guid: id, value }] of items.entries()) {
    const at = 32 + index * 32;
    id.copy(bytes, at);
    bytes.writeUInt32LE(place, at + 16);
    bytes.writeUInt32LE(value.length, at + 20);
    // All are required; all but the file parameters are the virtual disk's.
    bytes.writeUInt32LE(id.equals(item.FILE_PARAMETERS) ? 4 : 6, at + 24);
    value.copy(bytes, place);
    place += value.length;
  }
  return bytes;
}

/** 2.5.1.1: states of a payload block. */
export const blockState = {
  NOT_PRESENT: 0,
  UNDEFINED: 1,
  ZERO: 2,
  UNMAPPED: 3,
  /** Of an early draft. */
  UNMAPPED_095: 5,
  FULLY_PRESENT: 6,
  PARTIALLY_PRESENT: 7,
} as const;

/** What follows from the size of the disk and of its blocks. */
export interface Geometry {
  readonly size: number;
  readonly blockSize: number;
  readonly blocks: number;
  /** 2.5: so many payload blocks come before each bitmap block's entry. */
  readonly chunkRatio: number;
  readonly entries: number;
}

/** 2.5: sectors that the bitmap of a chunk covers. */
const SECTORS_PER_CHUNK = 1 << 23;

export function geometryOf(size: number, blockSize: number): Geometry {
  const chunkRatio = (SECTORS_PER_CHUNK * 512) / blockSize;
  const blocks = Math.ceil(size / blockSize);
  const entries = blocks === 0 ? 0 : blocks + Math.floor((blocks - 1) / chunkRatio);
  return { size, blockSize, blocks, chunkRatio, entries };
}

/** Which entry of the BAT is a block's. */
export const entryOf = (block: number, chunkRatio: number): number => block + Math.floor(block / chunkRatio);
