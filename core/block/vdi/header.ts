import { Parser } from 'binary-parser';
import { BlockError } from '../io-error.ts';
import { HEADER_BYTES, SIGNATURE, SIGNATURE_AT } from './signature.ts';

/** VirtualBox's VDI, version 1.1: VDIPREHEADER and VDIHEADER1PLUS in its src/VBox/Storage/VDICore.h. */
const VERSION = 0x0001_0001;
const SECTOR = 512;
/** QEMU reads no other size of blocks. */
export const BLOCK_SIZE = 1 << 20;
/** So that the map is below 2 GiB. */
const MAX_BLOCKS = 0x1fff_ff80;
export const MAX_SIZE = MAX_BLOCKS * BLOCK_SIZE;
/** Of the header behind the signature and version, as VirtualBox counts it. */
const HEADER_SIZE = 0x180;
const BLOCKS_ALLOCATED_AT = 388;
export const MAP_OFFSET = HEADER_BYTES;

export const imageType = { DYNAMIC: 1, STATIC: 2 } as const;

/** What an entry of the map says of a block that is not there: never written, or given back. */
export const FREE = 0xffff_ffff;
export const ZERO = 0xffff_fffe;

export interface VdiHeader {
  readonly signature: number;
  readonly version: number;
  readonly type: number;
  /** In bytes, as all offsets. */
  readonly mapOffset: number;
  readonly dataOffset: number;
  readonly sectorSize: number;
  readonly diskSize: bigint;
  readonly blockSize: number;
  readonly blocks: number;
  readonly blocksAllocated: number;
  readonly link: Buffer;
  readonly parent: Buffer;
}

const parser = new Parser()
  .endianness('little')
  .buffer('text', { length: 64 })
  .uint32('signature')
  .uint32('version')
  .uint32('headerSize')
  .uint32('type')
  .uint32('flags')
  .buffer('description', { length: 256 })
  .uint32('mapOffset')
  .uint32('dataOffset')
  .uint32('cylinders')
  .uint32('heads')
  .uint32('sectors')
  .uint32('sectorSize')
  .uint32('unused')
  .uint64('diskSize')
  .uint32('blockSize')
  .uint32('blockExtra')
  .uint32('blocks')
  .uint32('blocksAllocated')
  .buffer('uuid', { length: 16 })
  .buffer('lastSnapshot', { length: 16 })
  .buffer('link', { length: 16 })
  .buffer('parent', { length: 16 });

const hex = (value: number | bigint): string => value.toString(16);

/**
 * Reads the header.
 *
 * @param bytes {@link HEADER_BYTES} of them
 * @throws BlockError where it is damaged, hostile, or asks for what QEMU does not have either
 */
export function parseHeader(bytes: Buffer): VdiHeader {
  const header = parser.parse<VdiHeader>(bytes);
  checkSize(header.diskSize);
  if (header.signature !== SIGNATURE) {
    throw new BlockError(`Image not in VDI format (bad signature ${hex(header.signature).padStart(8, '0')})`);
  }
  const unsupported = (why: string): BlockError => new BlockError(`unsupported VDI image (${why})`);
  const { version, mapOffset, dataOffset, sectorSize, blockSize, blocks, diskSize } = header;
  const room = BigInt(blocks) * BigInt(blockSize);
  if (version !== VERSION) throw unsupported(`version ${version >>> 16}.${version & 0xffff}`);
  if (mapOffset % SECTOR !== 0) throw unsupported(`unaligned block map offset 0x${hex(mapOffset)}`);
  if (dataOffset % SECTOR !== 0) throw unsupported(`unaligned data offset 0x${hex(dataOffset)}`);
  if (sectorSize !== SECTOR) throw unsupported(`sector size ${sectorSize} is not ${SECTOR}`);
  if (blockSize !== BLOCK_SIZE) throw unsupported(`block size ${blockSize} is not ${BLOCK_SIZE}`);
  if (roundUp(diskSize) > room) {
    throw unsupported(`disk size ${roundUp(diskSize)}, image bitmap has room for ${room}`);
  }
  if (header.link.some(byte => byte !== 0)) throw unsupported('non-NULL link UUID');
  if (header.parent.some(byte => byte !== 0)) throw unsupported('non-NULL parent UUID');
  if (blocks > MAX_BLOCKS) throw unsupported(`too many blocks ${blocks}, max is ${MAX_BLOCKS}`);
  return header;
}

/** VirtualBox makes images that do not end with a sector. */
export function roundUp(size: bigint): bigint {
  return ((size + BigInt(SECTOR - 1)) / BigInt(SECTOR)) * BigInt(SECTOR);
}

export function checkSize(size: bigint): void {
  if (size > BigInt(MAX_SIZE)) {
    throw new BlockError(`Unsupported VDI image size (size is 0x${hex(size)}, max supported is 0x${hex(MAX_SIZE)})`);
  }
}

/** The count of blocks, and where it lies. */
export function allocationCount(blocks: number): { readonly offset: number; readonly bytes: Buffer } {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(blocks);
  return { offset: BLOCKS_ALLOCATED_AT, bytes };
}

export interface NewHeader {
  readonly type: number;
  readonly dataOffset: number;
  readonly diskSize: number;
  readonly blocks: number;
  readonly uuid: Uint8Array;
  readonly lastSnapshot: Uint8Array;
}

export function serializeHeader({ type, dataOffset, diskSize, blocks, uuid, lastSnapshot }: NewHeader): Buffer {
  const bytes = Buffer.alloc(HEADER_BYTES);
  bytes.write('<<< QEMU VM Virtual Disk Image >>>\n', 0, 'latin1');
  bytes.writeUInt32LE(SIGNATURE, SIGNATURE_AT);
  bytes.writeUInt32LE(VERSION, 68);
  bytes.writeUInt32LE(HEADER_SIZE, 72);
  bytes.writeUInt32LE(type, 76);
  bytes.writeUInt32LE(MAP_OFFSET, 340);
  bytes.writeUInt32LE(dataOffset, 344);
  bytes.writeUInt32LE(SECTOR, 360);
  bytes.writeBigUInt64LE(BigInt(diskSize), 368);
  bytes.writeUInt32LE(BLOCK_SIZE, 376);
  bytes.writeUInt32LE(blocks, 384);
  bytes.writeUInt32LE(type === imageType.STATIC ? blocks : 0, BLOCKS_ALLOCATED_AT);
  bytes.set(uuid.subarray(0, 16), 392);
  bytes.set(lastSnapshot.subarray(0, 16), 408);
  return bytes;
}
