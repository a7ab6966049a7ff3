import { Parser } from 'binary-parser';
import { BlockError } from '../io-error.ts';
import { HOSTED_MAGIC, isHosted } from './signature.ts';

/** VMware's Virtual Disk Format 5.0, "Hosted Sparse Extents" and "ESX Server Sparse Extents". */
export const HEADER_BYTES = 512;
export const FOOTER_BYTES = 3 * 512;
const SECTOR = 512;
const DEFLATE = 1;
const ESX_TABLE_ENTRIES = 4096;
const MAX_TABLE_ENTRIES = 512;
/** A grain of 1 GiB is no grain. */
const MAX_GRAIN_SECTORS = 0x20_0000;
const MAX_DIRECTORY = 32 << 20;
/** "the grain directory's offset is in the footer". */
const DIRECTORY_IN_FOOTER = 0xffff_ffff_ffff_ffffn;
const NEW_GRAIN_SECTORS = 128;
const DESCRIPTOR_SECTORS = 20;

const flag = { NEWLINE_TEST: 1, REDUNDANT: 2, ZERO_GRAIN: 4, COMPRESSED: 1 << 16, MARKERS: 1 << 17 } as const;

/** "Markers" of streamOptimized extents. */
const marker = { END_OF_STREAM: 0, FOOTER: 3 } as const;

/** Of a marker before a compressed grain: its sector, and how many bytes follow. */
export const GRAIN_MARKER_BYTES = 12;

export interface HostedHeader {
  readonly magic: Buffer;
  readonly version: number;
  readonly flags: number;
  readonly capacity: bigint;
  readonly grainSize: bigint;
  readonly descriptorOffset: bigint;
  readonly descriptorSize: bigint;
  readonly tableEntries: number;
  readonly redundantOffset: bigint;
  readonly directoryOffset: bigint;
  readonly overhead: bigint;
  readonly compression: number;
}

/** What a sparse extent's header comes to. */
export interface SparseLayout {
  readonly version: number;
  readonly sectors: number;
  readonly grainSectors: number;
  /** In a grain table. */
  readonly tableEntries: number;
  /** Of the grain directory. */
  readonly directoryEntries: number;
  /** In bytes. */
  readonly directoryOffset: number;
  /** Of the second directory, in bytes; 0 where there is none. */
  readonly redundantOffset: number;
  readonly compressed: boolean;
  readonly markers: boolean;
  readonly zeroGrain: boolean;
}

const hostedParser = new Parser()
  .endianness('little')
  .buffer('magic', { length: 4 })
  .uint32('version')
  .uint32('flags')
  .uint64('capacity')
  .uint64('grainSize')
  .uint64('descriptorOffset')
  .uint64('descriptorSize')
  .uint32('tableEntries')
  .uint64('redundantOffset')
  .uint64('directoryOffset')
  .uint64('overhead')
  .uint8('uncleanShutdown')
  .buffer('newlines', { length: 4 })
  .uint16('compression');

interface EsxHeader {
  readonly sectors: number;
  readonly grainSize: number;
  readonly directoryOffset: number;
  readonly directoryEntries: number;
}

const esxParser = new Parser()
  .endianness('little')
  .buffer('magic', { length: 4 })
  .uint32('version')
  .uint32('flags')
  .uint32('sectors')
  .uint32('grainSize')
  .uint32('directoryOffset')
  .uint32('directoryEntries');

interface Marker {
  readonly value: bigint;
  readonly size: number;
  readonly type: number;
}

const markerParser = new Parser().endianness('little').uint64('value').uint32('size').uint32('type');

export function parseHosted(bytes: Buffer): HostedHeader {
  return hostedParser.parse<HostedHeader>(bytes);
}

export function footerFollows({ directoryOffset }: HostedHeader): boolean {
  return directoryOffset === DIRECTORY_IN_FOOTER;
}

/**
 * The header that stands in the footer: it takes precedence.
 *
 * @param bytes the last three sectors: a marker, the footer, the marker of the end
 */
export function parseFooter(bytes: Buffer): HostedHeader {
  const before = markerParser.parse<Marker>(bytes);
  const header = bytes.subarray(SECTOR, 2 * SECTOR);
  const end = markerParser.parse<Marker>(bytes.subarray(2 * SECTOR));
  const sound =
    isHosted(header) &&
    before.size === 0 &&
    before.type === marker.FOOTER &&
    end.value === 0n &&
    end.size === 0 &&
    end.type === marker.END_OF_STREAM;
  if (!sound) throw new BlockError('Invalid footer');
  return parseHosted(header);
}

/**
 * @param fileSectors of the extent's file
 * @param readOnly QEMU writes no uncompressed extents of version 3: it would not track what changed
 * @throws BlockError where the header is damaged, hostile, or asks for what QEMU does not have either
 */
export function hostedLayout(header: HostedHeader, fileSectors: number, readOnly: boolean): SparseLayout {
  const { version, tableEntries, grainSize, flags, overhead } = header;
  const compressed = header.compression === DEFLATE;
  if (version > 3) throw new BlockError(`Unsupported VMDK version ${version}`);
  if (version === 3 && !readOnly && !compressed) throw new BlockError('VMDK version 3 must be read only');
  if (tableEntries > MAX_TABLE_ENTRIES) throw new BlockError('L2 table size too big');
  // QEMU keeps 32 bits of it.
  const perTable = BigInt.asUintN(32, BigInt(tableEntries) * grainSize);
  if (perTable === 0n) throw new BlockError('L1 entry size is invalid');
  if (BigInt(fileSectors) < overhead)
    throw new BlockError(`File truncated, expecting at least ${overhead * BigInt(SECTOR)} bytes`);
  if (grainSize > BigInt(MAX_GRAIN_SECTORS)) throw new BlockError('Invalid granularity, image may be corrupt');
  const directoryEntries = (header.capacity + perTable - 1n) / perTable;
  if (directoryEntries > BigInt(MAX_DIRECTORY)) throw new BlockError('L1 size too big');
  return {
    version,
    sectors: Number(header.capacity),
    grainSectors: Number(grainSize),
    tableEntries,
    directoryEntries: Number(directoryEntries),
    directoryOffset: offsetOf(header.directoryOffset),
    redundantOffset: (flags & flag.REDUNDANT) === 0 ? 0 : offsetOf(header.redundantOffset),
    compressed,
    markers: (flags & flag.MARKERS) !== 0,
    zeroGrain: (flags & flag.ZERO_GRAIN) !== 0,
  };
}

function offsetOf(sector: bigint): number {
  if (sector >= 1n << 44n) throw new BlockError('Grain directory is out of reach, image may be corrupt');
  return Number(sector) * SECTOR;
}

export function esxLayout(bytes: Buffer): SparseLayout {
  const { sectors, grainSize, directoryOffset, directoryEntries } = esxParser.parse<EsxHeader>(bytes);
  if (grainSize > MAX_GRAIN_SECTORS || grainSize === 0)
    throw new BlockError('Invalid granularity, image may be corrupt');
  if (directoryEntries > MAX_DIRECTORY) throw new BlockError('L1 size too big');
  return {
    version: 1,
    sectors,
    grainSectors: grainSize,
    tableEntries: ESX_TABLE_ENTRIES,
    directoryEntries,
    directoryOffset: directoryOffset * SECTOR,
    redundantOffset: 0,
    compressed: false,
    markers: false,
    zeroGrain: false,
  };
}

/** Where everything lies in an extent of our own making, in sectors. */
export interface NewLayout {
  readonly header: Buffer;
  /** Of the two grain directories, each with its tables behind it. */
  readonly directories: readonly number[];
  readonly directorySectors: number;
  readonly tables: number;
  readonly tableSectors: number;
  /** Where the first grain goes. */
  readonly overhead: number;
}

/** @param size in bytes */
export function newLayout(size: number, compressed: boolean, zeroGrain: boolean): NewLayout {
  const capacity = Math.floor(size / SECTOR);
  const tables = Math.ceil(Math.ceil(capacity / NEW_GRAIN_SECTORS) / MAX_TABLE_ENTRIES);
  const tableSectors = (MAX_TABLE_ENTRIES * 4) / SECTOR;
  const directorySectors = Math.ceil((tables * 4) / SECTOR);
  const redundant = 1 + DESCRIPTOR_SECTORS;
  const directory = redundant + directorySectors + tableSectors * tables;
  const end = directory + directorySectors + tableSectors * tables;
  const overhead = Math.ceil(end / NEW_GRAIN_SECTORS) * NEW_GRAIN_SECTORS;
  const bytes = Buffer.alloc(HEADER_BYTES);
  HOSTED_MAGIC.copy(bytes);
  bytes.writeUInt32LE(compressed ? 3 : zeroGrain ? 2 : 1, 4);
  const packing = compressed ? flag.COMPRESSED | flag.MARKERS : 0;
  bytes.writeUInt32LE(flag.NEWLINE_TEST | flag.REDUNDANT | packing | (zeroGrain ? flag.ZERO_GRAIN : 0), 8);
  bytes.writeBigUInt64LE(BigInt(capacity), 12);
  bytes.writeBigUInt64LE(BigInt(NEW_GRAIN_SECTORS), 20);
  bytes.writeBigUInt64LE(1n, 28);
  bytes.writeBigUInt64LE(BigInt(DESCRIPTOR_SECTORS), 36);
  bytes.writeUInt32LE(MAX_TABLE_ENTRIES, 44);
  bytes.writeBigUInt64LE(BigInt(redundant), 48);
  bytes.writeBigUInt64LE(BigInt(directory), 56);
  bytes.writeBigUInt64LE(BigInt(overhead), 64);
  // What a transfer as text would change.
  bytes.write('\n \r\n', 73, 'latin1');
  bytes.writeUInt16LE(compressed ? DEFLATE : 0, 77);
  return { header: bytes, directories: [redundant, directory], directorySectors, tables, tableSectors, overhead };
}
