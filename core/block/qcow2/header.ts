import { Parser } from 'binary-parser';
import { BlockError } from '../io-error.ts';

export const MAGIC = 0x514649fb;

/** A reader that does not know one of these must not open the image. */
export const incompatible = { DIRTY: 1, CORRUPT: 2, DATA_FILE: 4, COMPRESSION: 8, EXTENDED_L2: 16 } as const;
export const compatible = { LAZY_REFCOUNTS: 1 } as const;
/** A writer that does not know one of these clears it. */
export const autoclear = { BITMAPS: 1, DATA_FILE_RAW: 2, UNKNOWN: 1 << 30 } as const;

const KNOWN_INCOMPATIBLE =
  incompatible.DIRTY |
  incompatible.CORRUPT |
  incompatible.DATA_FILE |
  incompatible.COMPRESSION |
  incompatible.EXTENDED_L2;

/** What the features are called in the image's own table of their names. */
const FEATURE_NAMES: readonly (readonly [type: number, bit: number, name: string])[] = [
  [0, 0, 'dirty bit'],
  [0, 1, 'corrupt bit'],
  [0, 2, 'external data file'],
  [0, 3, 'compression type'],
  [0, 4, 'extended L2 entries'],
  [1, 0, 'lazy refcounts'],
  [2, 0, 'bitmaps'],
  [2, 1, 'raw external data'],
];

const extensionType = {
  END: 0,
  BACKING_FORMAT: 0xe2792aca,
  FEATURE_NAMES: 0x6803f857,
  BITMAPS: 0x23852875,
  ENCRYPTION: 0x0537be77,
  DATA_FILE: 0x44415441,
} as const;

/** crypt_method: of AES-CBC nobody should make an image any more. */
const crypt = { NONE: 0, AES: 1, LUKS: 2 } as const;

export const V2_HEADER = 72;
export const V3_HEADER = 112;

/** Where fields lie that are updated one by one. */
export const headerOffset = {
  SIZE: 24,
  L1_SIZE: 36,
  L1_TABLE: 40,
  REFCOUNT_TABLE: 48,
  SNAPSHOTS: 60,
  INCOMPATIBLE: 72,
  COMPATIBLE: 80,
  AUTOCLEAR: 88,
} as const;

const MAX_REFCOUNT_TABLE = 8 << 20;
export const MAX_L1_BYTES = 32 << 20;
export const MAX_SNAPSHOTS = 65536;
const MAX_BACKING_NAME = 1023;
/** A subcluster has at least a sector. */
export const MIN_EXTENDED_CLUSTER = 32 * 512;

interface Fields {
  readonly magic: number;
  readonly version: number;
  readonly backingOffset: number;
  readonly backingLength: number;
  readonly clusterBits: number;
  readonly size: number;
  readonly cryptMethod: number;
  readonly l1Size: number;
  readonly l1Offset: number;
  readonly refcountTableOffset: number;
  readonly refcountTableClusters: number;
  readonly snapshotCount: number;
  readonly snapshotsOffset: number;
}

interface V3Fields {
  readonly incompatible: bigint;
  readonly compatible: bigint;
  readonly autoclear: bigint;
  readonly refcountOrder: number;
  readonly headerLength: number;
}

const number = { formatter: Number };

const v2Parser = new Parser()
  .endianness('big')
  .uint32('magic')
  .uint32('version')
  .uint64('backingOffset', number)
  .uint32('backingLength')
  .uint32('clusterBits')
  .uint64('size', number)
  .uint32('cryptMethod')
  .uint32('l1Size')
  .uint64('l1Offset', number)
  .uint64('refcountTableOffset', number)
  .uint32('refcountTableClusters')
  .uint32('snapshotCount')
  .uint64('snapshotsOffset', number);

const v3Parser = new Parser()
  .endianness('big')
  .skip(V2_HEADER)
  .uint64('incompatible')
  .uint64('compatible')
  .uint64('autoclear')
  .uint32('refcountOrder')
  .uint32('headerLength');

/** The first cluster of an image, understood. */
export interface Qcow2Header {
  version: 2 | 3;
  clusterBits: number;
  /** In bytes. */
  size: number;
  l1Size: number;
  l1Offset: number;
  refcountTableOffset: number;
  refcountTableClusters: number;
  snapshotCount: number;
  snapshotsOffset: number;
  incompatible: number;
  compatible: number;
  autoclear: number;
  /** Refcounts have 2^order bits. */
  refcountOrder: number;
  compression: 'zlib' | 'zstd';
  /** Where the LUKS header lies of an image whose guest data is enciphered. */
  encryption: EncryptionExtension | undefined;
  backingFile: string | undefined;
  backingFormat: string | undefined;
  dataFile: string | undefined;
  bitmaps: BitmapsExtension | undefined;
  /** Extensions that we do not know and write back as they are. */
  unknownExtensions: { readonly type: number; readonly data: Uint8Array }[];
}

export interface BitmapsExtension {
  readonly count: number;
  readonly directorySize: number;
  readonly directoryOffset: number;
}

export interface EncryptionExtension {
  readonly offset: number;
  readonly length: number;
}

/** Whether an image may be a qcow2 one. */
export function isQcow2(head: Uint8Array): boolean {
  if (head.length < 8) return false;
  const view = new DataView(head.buffer, head.byteOffset, head.length);
  return view.getUint32(0) === MAGIC && view.getUint32(4) >= 2;
}

/**
 * Reads the header.
 *
 * @param head the first 64 KiB of the file, or all there is
 * @throws BlockError in QEMU's words where the image is damaged, hostile or of a kind that we do not know
 */
export function parseHeader(head: Uint8Array): Qcow2Header {
  if (head.length < V2_HEADER) throw new BlockError('Image is not in qcow2 format');
  const fields = v2Parser.parse<Fields>(head);
  if (fields.magic !== MAGIC) throw new BlockError('Image is not in qcow2 format');
  const { version, clusterBits } = fields;
  if (version !== 2 && version !== 3) throw new BlockError(`Unsupported qcow2 version ${version}`);
  if (clusterBits < 9 || clusterBits > 21) throw new BlockError(`Unsupported cluster size: 2^${clusterBits}`);
  const clusterSize = 2 ** clusterBits;

  let headerLength = V2_HEADER;
  let v3: V3Fields = { incompatible: 0n, compatible: 0n, autoclear: 0n, refcountOrder: 4, headerLength };
  if (version === 3) {
    v3 = v3Parser.parse<V3Fields>(head);
    headerLength = v3.headerLength;
    if (headerLength < 104) throw new BlockError('qcow2 header too short');
    if (headerLength > clusterSize || headerLength > head.length)
      throw new BlockError('qcow2 header exceeds cluster size');
  }
  if (fields.backingOffset > clusterSize) throw new BlockError('Invalid backing file offset');

  const extensionsEnd = fields.backingOffset !== 0 ? fields.backingOffset : clusterSize;
  const extensions = parseExtensions(head, headerLength, Math.min(extensionsEnd, head.length), v3.incompatible);
  checkFeatures(v3.incompatible, extensions.featureNames);
  const features = Number(v3.incompatible & 0xffff_ffffn);

  const compressionByte = headerLength >= V3_HEADER ? (head[104] ?? 0) : 0;
  if (compressionByte > 1) throw new BlockError(`qcow2: unknown compression type: ${compressionByte}`);
  if ((compressionByte !== 0) !== ((features & incompatible.COMPRESSION) !== 0)) {
    throw new BlockError(
      'qcow2: Compression type incompatible feature bit must not be set with zlib and must be set otherwise',
    );
  }
  if (v3.refcountOrder > 6) throw new BlockError('Reference count entry width too large; may not exceed 64 bits');
  checkEncryption(fields.cryptMethod, extensions.encryption, clusterSize);
  const checked: Qcow2Header = {
    version,
    clusterBits,
    size: fields.size,
    l1Size: fields.l1Size,
    l1Offset: fields.l1Offset,
    refcountTableOffset: fields.refcountTableOffset,
    refcountTableClusters: fields.refcountTableClusters,
    snapshotCount: fields.snapshotCount,
    snapshotsOffset: fields.snapshotsOffset,
    incompatible: features,
    compatible: Number(v3.compatible & 0xffff_ffffn),
    // Of those that nobody knows yet it is enough to know whether there are any: they go with the first write.
    autoclear: Number(v3.autoclear & 0x3fff_ffffn) | (v3.autoclear >> 30n === 0n ? 0 : autoclear.UNKNOWN),
    refcountOrder: v3.refcountOrder,
    compression: compressionByte === 1 ? 'zstd' : 'zlib',
    encryption: extensions.encryption,
    backingFile: backingName(head, fields, clusterSize),
    backingFormat: extensions.backingFormat,
    dataFile: extensions.dataFile,
    bitmaps: extensions.bitmaps,
    unknownExtensions: extensions.unknown,
  };
  checkTables(checked);
  return checked;
}

function checkEncryption(method: number, extension: EncryptionExtension | undefined, clusterSize: number): void {
  if (method === crypt.AES) {
    throw new BlockError('Use of AES-CBC encrypted qcow2 images is no longer supported in system emulators', {
      hint: 'convert it with qemu-img, to encrypt.format=luks',
      code: 'ERR_QCOW2_ENCRYPTED',
    });
  }
  if (method > crypt.LUKS) throw new BlockError(`Unsupported encryption method ${method}`);
  if (method === crypt.LUKS && extension === undefined)
    throw new BlockError(`Missing CRYPTO header for crypt method ${method}`);
  if (extension === undefined) return;
  if (method !== crypt.LUKS) throw new BlockError('CRYPTO header extension only expected with LUKS encryption method');
  if (extension.offset % clusterSize !== 0 || !Number.isSafeInteger(extension.offset + extension.length)) {
    throw new BlockError(
      `Encryption header offset '${extension.offset}' is not a multiple of cluster size '${clusterSize}'`,
    );
  }
}

function checkFeatures(features: bigint, names: ReadonlyMap<string, string>): void {
  const unknown: string[] = [];
  for (let bit = 0; bit < 64; bit++) {
    if (((features >> BigInt(bit)) & 1n) === 0n || (bit < 32 && ((1 << bit) & KNOWN_INCOMPATIBLE) !== 0)) continue;
    const known = FEATURE_NAMES.find(([type, number]) => type === 0 && number === bit)?.[2];
    unknown.push(names.get(`0.${bit}`) ?? known ?? `Unknown incompatible feature: ${(1n << BigInt(bit)).toString(16)}`);
  }
  if (unknown.length > 0) {
    throw new BlockError(`Unsupported qcow2 feature(s): ${unknown.join(', ')}`, { code: 'ERR_QCOW2_FEATURE' });
  }
}

function backingName(head: Uint8Array, fields: Fields, clusterSize: number): string | undefined {
  const { backingOffset, backingLength } = fields;
  if (backingOffset === 0) return undefined;
  if (
    backingLength > Math.min(MAX_BACKING_NAME, clusterSize - backingOffset) ||
    backingOffset + backingLength > head.length
  ) {
    throw new BlockError('Backing file name too long');
  }
  return Buffer.from(head.buffer, head.byteOffset + backingOffset, backingLength).toString('utf8');
}

function checkTables(header: Qcow2Header): void {
  const { clusterBits, l1Size, l1Offset, refcountTableOffset, refcountTableClusters, size, snapshotCount } = header;
  const clusterSize = 2 ** clusterBits;
  if (!Number.isSafeInteger(size)) throw new BlockError('Image is too large');
  if (refcountTableClusters === 0) throw new BlockError('Image does not contain a reference count table');
  checkTable(
    'Reference count table',
    refcountTableOffset,
    refcountTableClusters * clusterSize,
    MAX_REFCOUNT_TABLE,
    clusterSize,
  );
  if (snapshotCount > MAX_SNAPSHOTS) throw new BlockError('Snapshot table too large');
  checkTable('Snapshot table', header.snapshotsOffset, snapshotCount * 40, MAX_SNAPSHOTS * 1024, clusterSize);
  checkTable('Active L1 table', l1Offset, l1Size * 8, MAX_L1_BYTES, clusterSize);
  const extended = (header.incompatible & incompatible.EXTENDED_L2) !== 0;
  if (extended && clusterSize < MIN_EXTENDED_CLUSTER)
    throw new BlockError(`Unsupported subcluster size: ${clusterSize / 32}`);
  const needed = Math.ceil(size / (clusterSize * (clusterSize / (extended ? 16 : 8))));
  if (l1Size < needed) throw new BlockError('L1 table is too small');
}

/** @throws BlockError where a table of the image is not where one can be */
export function checkTable(name: string, offset: number, bytes: number, limit: number, clusterSize: number): void {
  if (bytes > limit) throw new BlockError(`${name} too large`);
  if (!Number.isSafeInteger(offset + bytes) || offset % clusterSize !== 0)
    throw new BlockError(`${name} offset invalid`);
}

interface Extensions {
  backingFormat: string | undefined;
  dataFile: string | undefined;
  bitmaps: BitmapsExtension | undefined;
  encryption: EncryptionExtension | undefined;
  readonly featureNames: Map<string, string>;
  readonly unknown: { readonly type: number; readonly data: Uint8Array }[];
}

function parseExtensions(head: Uint8Array, from: number, end: number, _features: bigint): Extensions {
  const view = new DataView(head.buffer, head.byteOffset, head.length);
  const found: Extensions = {
    backingFormat: undefined,
    dataFile: undefined,
    bitmaps: undefined,
    encryption: undefined,
    featureNames: new Map(),
    unknown: [],
  };
  for (let at = from; at + 8 <= end; ) {
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    at += 8;
    if (type === extensionType.END) break;
    if (length > end - at) throw new BlockError('Header extension too large');
    const data = head.slice(at, at + length);
    if (type === extensionType.BACKING_FORMAT) found.backingFormat = text(data);
    else if (type === extensionType.DATA_FILE) found.dataFile = text(data);
    else if (type === extensionType.FEATURE_NAMES) {
      for (let entry = 0; entry + 48 <= length; entry += 48) {
        found.featureNames.set(`${data[entry]}.${data[entry + 1]}`, text(data.subarray(entry + 2, entry + 48)));
      }
    } else if (type === extensionType.BITMAPS && length === 24) {
      found.bitmaps = {
        count: view.getUint32(at),
        directorySize: Number(view.getBigUint64(at + 8)),
        directoryOffset: Number(view.getBigUint64(at + 16)),
      };
    } else if (type === extensionType.ENCRYPTION) {
      if (length !== 16) throw new BlockError(`CRYPTO header extension size ${length}, but expected size 16`);
      found.encryption = {
        offset: Number(view.getBigUint64(at)),
        length: Number(view.getBigUint64(at + 8)),
      };
    } else if (found.unknown.length < 64) {
      found.unknown.push({ type, data });
    }
    at += Math.ceil(length / 8) * 8;
  }
  return found;
}

function text(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return Buffer.from(bytes.subarray(0, end < 0 ? bytes.length : end)).toString('utf8');
}

/**
 * The header with its extensions and the name of the backing file, to be written to the image's first cluster.
 *
 * @throws BlockError where all that does not fit
 */
export function serializeHeader(header: Qcow2Header): Uint8Array {
  const clusterSize = 2 ** header.clusterBits;
  const bytes = new Uint8Array(clusterSize);
  const view = new DataView(bytes.buffer);
  const headerLength = header.version === 2 ? V2_HEADER : V3_HEADER;
  let at = headerLength;
  const put = (type: number, data: Uint8Array): void => {
    const size = 8 + Math.ceil(data.length / 8) * 8;
    if (at + size > clusterSize) throw new BlockError('qcow2 header extensions exceed cluster size');
    view.setUint32(at, type);
    view.setUint32(at + 4, data.length);
    bytes.set(data, at + 8);
    at += size;
  };
  view.setUint32(0, MAGIC);
  view.setUint32(4, header.version);
  view.setUint32(20, header.clusterBits);
  view.setBigUint64(headerOffset.SIZE, BigInt(header.size));
  view.setUint32(32, header.encryption === undefined ? crypt.NONE : crypt.LUKS);
  view.setUint32(headerOffset.L1_SIZE, header.l1Size);
  view.setBigUint64(headerOffset.L1_TABLE, BigInt(header.l1Offset));
  view.setBigUint64(headerOffset.REFCOUNT_TABLE, BigInt(header.refcountTableOffset));
  view.setUint32(56, header.refcountTableClusters);
  view.setUint32(headerOffset.SNAPSHOTS, header.snapshotCount);
  view.setBigUint64(64, BigInt(header.snapshotsOffset));
  if (header.version === 3) {
    view.setBigUint64(headerOffset.INCOMPATIBLE, BigInt(header.incompatible));
    view.setBigUint64(headerOffset.COMPATIBLE, BigInt(header.compatible));
    view.setBigUint64(headerOffset.AUTOCLEAR, BigInt(header.autoclear));
    view.setUint32(96, header.refcountOrder);
    view.setUint32(100, V3_HEADER);
    view.setUint8(104, header.compression === 'zstd' ? 1 : 0);
  }
  if (header.backingFile !== undefined && header.backingFormat !== undefined) {
    put(extensionType.BACKING_FORMAT, Buffer.from(header.backingFormat));
  }
  if (header.dataFile !== undefined) put(extensionType.DATA_FILE, Buffer.from(header.dataFile));
  if (header.encryption !== undefined) {
    const data = new DataView(new ArrayBuffer(16));
    data.setBigUint64(0, BigInt(header.encryption.offset));
    data.setBigUint64(8, BigInt(header.encryption.length));
    put(extensionType.ENCRYPTION, new Uint8Array(data.buffer));
  }
  if (header.bitmaps !== undefined) {
    const data = new DataView(new ArrayBuffer(24));
    data.setUint32(0, header.bitmaps.count);
    data.setBigUint64(8, BigInt(header.bitmaps.directorySize));
    data.setBigUint64(16, BigInt(header.bitmaps.directoryOffset));
    put(extensionType.BITMAPS, new Uint8Array(data.buffer));
  }
  for (const { type, data } of header.unknownExtensions) put(type, data);
  if (header.version === 3) {
    // Names are a courtesy: in a small cluster what is needed comes first.
    const names = featureNameTable();
    const rest = 16 + Buffer.byteLength(header.backingFile ?? '');
    if (at + names.length + rest <= clusterSize) put(extensionType.FEATURE_NAMES, names);
  }
  put(extensionType.END, new Uint8Array(0));
  if (header.backingFile !== undefined) {
    const name = Buffer.from(header.backingFile);
    if (name.length > MAX_BACKING_NAME || at + name.length > clusterSize)
      throw new BlockError('Backing file name too long');
    view.setBigUint64(8, BigInt(at));
    view.setUint32(16, name.length);
    bytes.set(name, at);
  }
  return bytes;
}

function featureNameTable(): Uint8Array {
  const table = new Uint8Array(FEATURE_NAMES.length * 48);
  for (const [index, [type, bit, name]] of FEATURE_NAMES.entries()) {
    table[index * 48] = type;
    table[index * 48 + 1] = bit;
    table.set(Buffer.from(name), index * 48 + 2);
  }
  return table;
}
