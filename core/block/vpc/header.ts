import { Parser } from 'binary-parser';
import { FOOTER_COOKIE } from './signature.ts';

/** Virtual Hard Disk Image Format Specification, version 1.0 (Microsoft, 2006). */
export const FOOTER_BYTES = 512;
export const DYNAMIC_HEADER_BYTES = 1024;
const DYNAMIC_COOKIE = Buffer.from('cxsparse');
const FOOTER_CHECKSUM_AT = 64;
const DYNAMIC_CHECKSUM_AT = 36;
/** The second at which its time begins, 2000-01-01T00:00:00Z, in Unix time. */
const EPOCH = 946_684_800;
const NO_OFFSET = 0xffff_ffff_ffff_ffffn;

export const diskType = { FIXED: 2, DYNAMIC: 3, DIFFERENCING: 4 } as const;

/** "Hard Disk Footer Format". */
export interface Footer {
  readonly cookie: Buffer;
  /** Of the dynamic disk header, in bytes. */
  readonly dataOffset: bigint;
  readonly creatorApplication: Buffer;
  readonly currentSize: bigint;
  readonly cylinders: number;
  readonly heads: number;
  readonly sectors: number;
  readonly type: number;
  readonly checksum: number;
}

/** "Dynamic Disk Header Format". */
export interface DynamicHeader {
  readonly cookie: Buffer;
  readonly tableOffset: bigint;
  readonly maxTableEntries: number;
  readonly blockSize: number;
}

const footerParser = new Parser()
  .endianness('big')
  .buffer('cookie', { length: 8 })
  .uint32('features')
  .uint32('version')
  .uint64('dataOffset')
  .uint32('timestamp')
  .buffer('creatorApplication', { length: 4 })
  .uint32('creatorVersion')
  .buffer('creatorHostOs', { length: 4 })
  .uint64('originalSize')
  .uint64('currentSize')
  .uint16('cylinders')
  .uint8('heads')
  .uint8('sectors')
  .uint32('type')
  .uint32('checksum');

const dynamicParser = new Parser()
  .endianness('big')
  .buffer('cookie', { length: 8 })
  .uint64('dataOffset')
  .uint64('tableOffset')
  .uint32('version')
  .uint32('maxTableEntries')
  .uint32('blockSize')
  .uint32('checksum');

/** @param bytes at least {@link FOOTER_BYTES} */
export function parseFooter(bytes: Buffer): Footer {
  return footerParser.parse<Footer>(bytes);
}

/** @param bytes at least {@link DYNAMIC_HEADER_BYTES} */
export function parseDynamicHeader(bytes: Buffer): DynamicHeader {
  return dynamicParser.parse<DynamicHeader>(bytes);
}

export function isDynamicHeader({ cookie }: DynamicHeader): boolean {
  return DYNAMIC_COOKIE.equals(cookie);
}

/** "Checksum": the one's complement of the sum of all bytes but its own four. */
function checksum(bytes: Buffer, at: number): number {
  let sum = 0;
  for (const [index, byte] of bytes.entries()) if (index < at || index >= at + 4) sum += byte;
  return ~sum >>> 0;
}

export function hasFooterChecksum(bytes: Buffer, footer: Footer): boolean {
  return checksum(bytes, FOOTER_CHECKSUM_AT) === footer.checksum;
}

export interface NewFooter {
  /** In bytes. */
  readonly size: number;
  readonly cylinders: number;
  readonly heads: number;
  readonly sectors: number;
  readonly type: number;
  /** `qem2` where the size counts, `qemu` where the geometry does. */
  readonly creatorApplication: string;
  /** Unix time, in seconds. */
  readonly seconds: number;
  readonly uuid: Uint8Array;
}

export function serializeFooter(footer: NewFooter): Buffer {
  const bytes = Buffer.alloc(FOOTER_BYTES);
  FOOTER_COOKIE.copy(bytes);
  // "Features": the reserved bit is always set.
  bytes.writeUInt32BE(2, 8);
  bytes.writeUInt32BE(0x0001_0000, 12);
  bytes.writeBigUInt64BE(footer.type === diskType.DYNAMIC ? BigInt(FOOTER_BYTES) : NO_OFFSET, 16);
  bytes.writeUInt32BE((footer.seconds - EPOCH) >>> 0, 24);
  bytes.write(footer.creatorApplication, 28, 4, 'latin1');
  // Virtual PC 2007.
  bytes.writeUInt32BE(0x0005_0003, 32);
  bytes.write('Wi2k', 36, 'latin1');
  bytes.writeBigUInt64BE(BigInt(footer.size), 40);
  bytes.writeBigUInt64BE(BigInt(footer.size), 48);
  bytes.writeUInt16BE(footer.cylinders, 56);
  bytes.writeUInt8(footer.heads, 58);
  bytes.writeUInt8(footer.sectors, 59);
  bytes.writeUInt32BE(footer.type, 60);
  bytes.set(footer.uuid.subarray(0, 16), 68);
  bytes.writeUInt32BE(checksum(bytes, FOOTER_CHECKSUM_AT), FOOTER_CHECKSUM_AT);
  return bytes;
}

export function serializeDynamicHeader(tableOffset: number, maxTableEntries: number, blockSize: number): Buffer {
  const bytes = Buffer.alloc(DYNAMIC_HEADER_BYTES);
  DYNAMIC_COOKIE.copy(bytes);
  // "Data Offset" is said to be 0xffffffff, but Microsoft's programs want all 64 bits set.
  bytes.writeBigUInt64BE(NO_OFFSET, 8);
  bytes.writeBigUInt64BE(BigInt(tableOffset), 16);
  bytes.writeUInt32BE(0x0001_0000, 24);
  bytes.writeUInt32BE(maxTableEntries, 28);
  bytes.writeUInt32BE(blockSize, 32);
  bytes.writeUInt32BE(checksum(bytes, DYNAMIC_CHECKSUM_AT), DYNAMIC_CHECKSUM_AT);
  return bytes;
}
