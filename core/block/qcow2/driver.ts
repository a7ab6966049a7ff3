import path from 'node:path';
import type { BlockDriver, OpenContext } from '../driver.ts';
import type { BlockGraph } from '../graph.ts';
import { BlockError, errnoText, IoError, reason } from '../io-error.ts';
import { IoVector } from '../io-vector.ts';
import { SECTOR } from '../luks/cipher.ts';
import { createVolume, openVolume } from '../luks/luks.ts';
import type { BlockNode } from '../node.ts';
import { BlockOptions } from '../options.ts';
import { start, startFor, type Task } from '../pending.ts';
import { check } from './check.ts';
import type { DiscardPolicy } from './clearing.ts';
import { compressionOf } from './compression.ts';
import {
  autoclear,
  incompatible,
  isQcow2,
  MIN_EXTENDED_CLUSTER,
  parseHeader,
  type Qcow2Header,
  serializeHeader,
} from './header.ts';
import { Qcow2Image } from './image.ts';
import { Qcow2Node } from './node.ts';
import { refcountWidths } from './refcount-width.ts';

const HEAD_BYTES = 65536;
/** QEMU's own default for the cache of L2 tables: enough for a disk of 256 GiB. */
const L2_CACHE_LIMIT = 32 << 20;
const L2_ENTRY = 4096;

interface Qcow2Options {
  readonly lazyRefcounts: boolean | undefined;
  readonly discards: DiscardPolicy;
  readonly l2Cache: number | undefined;
  readonly l2Entry: number;
  readonly refcountCache: number | undefined;
}

function takeOptions(options: BlockOptions, unmap: boolean): Qcow2Options {
  const lazyRefcounts = options.bool('lazy-refcounts');
  const discards = {
    request: options.bool('pass-discard-request') ?? unmap,
    snapshot: options.bool('pass-discard-snapshot') ?? true,
    other: options.bool('pass-discard-other') ?? false,
  };
  options.string('overlap-check');
  options.child('overlap-check');
  const total = options.bytes('cache-size');
  const l2 = options.bytes('l2-cache-size');
  const refcountCache = options.bytes('refcount-cache-size');
  if (total !== undefined && l2 !== undefined && refcountCache !== undefined) {
    throw new BlockError('cache-size, l2-cache-size and refcount-cache-size may not be set at the same time');
  }
  if (total !== undefined && l2 !== undefined && l2 > total)
    throw new BlockError('l2-cache-size may not exceed cache-size');
  if (total !== undefined && refcountCache !== undefined && refcountCache > total) {
    throw new BlockError('refcount-cache-size may not exceed cache-size');
  }
  options.number('cache-clean-interval');
  const l2Entry = options.bytes('l2-cache-entry-size') ?? L2_ENTRY;
  if (l2Entry < 512 || (l2Entry & (l2Entry - 1)) !== 0) {
    throw new BlockError('L2 cache entry size must be a power of two between 512 and the cluster size (65536)');
  }
  return { lazyRefcounts, discards, l2Cache: l2 ?? total, l2Entry, refcountCache };
}

async function open(context: OpenContext): Promise<BlockNode> {
  const { options, settings, graph } = context;
  const own = takeOptions(options, settings.discard);
  const backingGiven = options.peek('backing');
  const file = await context.child('file');
  context.followReadOnly(file);
  let header: Qcow2Header;
  try {
    header = await startFor(readHeader(file));
  } catch (error) {
    if (!(error instanceof IoError)) throw error;
    throw new BlockError(`Could not read qcow2 header: ${reason(error)}`, { cause: error });
  }
  if ((header.incompatible & incompatible.CORRUPT) !== 0 && !settings.readOnly) {
    throw new BlockError('qcow2: Image is corrupt; cannot be opened read/write', { code: 'ERR_QCOW2_CORRUPT' });
  }
  const image = new Qcow2Image(file, header);
  await openEncryption(context, image);
  if ((header.incompatible & incompatible.DATA_FILE) !== 0) image.data = await dataFile(context, header, file);
  else if (options.hasChild('data-file'))
    throw new BlockError("'data-file' can only be set for images with an external data file");
  const fullCover = Math.ceil(header.size / image.clusterSize) * (image.extended ? 16 : 8);
  const node = new Qcow2Node(
    graph,
    context.driver,
    settings,
    image,
    {
      l2: own.l2Cache ?? Math.min(L2_CACHE_LIMIT, Math.max(fullCover, image.clusterSize)),
      l2Entry: Math.min(own.l2Entry, image.clusterSize),
      refcount: own.refcountCache ?? Math.max(4 * image.clusterSize, 256 << 10),
    },
    own.discards,
    header.version >= 3 && (own.lazyRefcounts ?? (header.compatible & 1) !== 0),
  );
  node.filename = file.filename;
  node.attach('file', file);
  if (image.data !== undefined) node.attach('data-file', image.data);
  image.onCorruption = (msg, offset, size, fatal) => {
    graph.warn(
      `qcow2: ${fatal ? 'Marking image as corrupt' : 'Image is corrupt'}: ${msg}; ${fatal ? 'further corruption events will be suppressed' : 'further non-fatal corruption events will be suppressed'}`,
    );
    graph.emit({
      event: 'BLOCK_IMAGE_CORRUPTED',
      device: node.deviceName,
      nodeName: node.nodeName,
      msg,
      ...(offset >= 0 ? { offset } : {}),
      ...(size >= 0 ? { size } : {}),
      fatal,
    });
  };
  try {
    await start(load(node));
    await openBacking(context, node, header, backingGiven === null || backingGiven === '');
    if (!settings.readOnly && !graph.inactive) await start(prepareForWriting(node));
  } catch (error) {
    settings.readOnly = true;
    await node.close();
    throw error;
  }
  return node;
}

/** Takes `encrypt.*`; where the image is enciphered they name the secret that opens it. */
async function openEncryption({ graph, options }: OpenContext, image: Qcow2Image): Promise<void> {
  const encrypt = options.child('encrypt');
  const format = encrypt.choice('format', ['aes', 'luks']);
  const secret = encrypt.string('key-secret');
  const { encryption } = image.header;
  if (encryption === undefined) {
    if (format === undefined) return;
    throw new BlockError(`No encryption in image header, but options specified format '${format}'`);
  }
  if (format !== undefined && format !== 'luks')
    throw new BlockError(`Header reported 'luks' encryption format but options specify '${format}'`);
  const { header, cipher } = await openVolume(graph, image.file, encryption.offset, secret, 'encrypt.');
  image.luks = header;
  image.cipher = cipher;
}

function* readHeader(file: BlockNode): Task<Qcow2Header> {
  // More than 64 KiB of extensions cannot be kept.
  const head = new Uint8Array(Math.min(HEAD_BYTES, Math.max(512, file.length)));
  const reading = file.readv(0, head.length, IoVector.of(head));
  if (reading) yield reading;
  return parseHeader(head);
}

/** Reads all tables anew: another process had the image. The lock is held. */
export function* reload(node: Qcow2Node): Task {
  const { image } = node;
  const header = yield* readHeader(image.file);
  if (header.clusterBits !== image.header.clusterBits || header.refcountOrder !== image.header.refcountOrder)
    throw new BlockError(`The layout of '${node.filename}' is another one now`);
  Object.assign(image.header, header);
  image.tables.clear();
  node.forgetTables();
  yield* load(node);
  if (!node.readOnly) yield* prepareForWriting(node);
}

function* load(node: Qcow2Node): Task {
  yield* node.refcounts.load();
  yield* node.map.load();
  const { encryption } = node.image.header;
  if (encryption !== undefined) node.image.claim('encryption header', encryption.offset, encryption.length);
  yield* node.snapshots.load();
  if (!node.graph.inactive) yield* node.bitmaps.load();
}

/** What must be put right before anything is written. */
export function* prepareForWriting(node: Qcow2Node): Task {
  const { image } = node;
  if ((image.header.incompatible & incompatible.DIRTY) !== 0) {
    // The image was not closed: its refcounts are what they were some time ago.
    const result = yield* check(node, true);
    if (result.corruptions !== result.corruptionsFixed)
      throw new BlockError('Could not repair dirty image: Input/output error');
  }
  // What we do not know is not true any more once we have written.
  const known = autoclear.DATA_FILE_RAW | (image.header.bitmaps === undefined ? 0 : autoclear.BITMAPS);
  if ((image.header.autoclear & ~known) !== 0 || node.bitmaps.outdated) {
    image.header.autoclear &= known;
    yield* image.writeHeader();
    node.bitmaps.outdated = false;
  }
  yield* node.bitmaps.markInUse();
}

async function dataFile(context: OpenContext, header: Qcow2Header, file: BlockNode): Promise<BlockNode> {
  // A protocol, as `file` is: nothing in it says what it is.
  if (context.options.hasChild('data-file')) return context.child('data-file', {}, undefined, true);
  if (header.dataFile === undefined) throw new BlockError("'data-file' is required for this image");
  return context.child('data-file', {}, relativeTo(file.filename, header.dataFile), true);
}

async function openBacking(
  context: OpenContext,
  node: Qcow2Node,
  header: Qcow2Header,
  refused: boolean,
): Promise<void> {
  const { options } = context;
  node.backingFileName = header.backingFile;
  node.backingFormat = header.backingFormat;
  if (refused) {
    options.delete('backing');
    return;
  }
  const reference = options.peek('backing');
  if (reference === undefined && header.backingFile === undefined && !options.hasChild('backing')) return;
  let filename: string | undefined;
  if (
    reference === undefined &&
    !options.has('backing.file.filename') &&
    !options.has('backing.file') &&
    !options.has('backing.filename')
  ) {
    filename = header.backingFile === undefined ? undefined : relativeTo(node.filename, header.backingFile);
    if (header.backingFormat !== undefined && !options.has('backing.driver'))
      options.set('backing.driver', header.backingFormat);
  }
  let backing: BlockNode;
  try {
    backing = await context.child('backing', {}, filename);
  } catch (error) {
    throw new BlockError(`Could not open backing file: ${reason(error)}`, { cause: error });
  }
  node.attach('backing', backing);
}

/** A file name as it stands in an image: relative to the image's own folder, if it is a plain relative path. */
export function relativeTo(image: string, name: string): string {
  if (name.startsWith('/') || /^[^/:]+:/.test(name) || image === '') return name;
  if (image.startsWith('json:')) {
    throw new BlockError(`Cannot use relative backing file names for '${image}'`);
  }
  const directory = path.dirname(image);
  return directory === '.' ? name : `${directory}/${name}`;
}

interface CreateOptions {
  readonly size: number;
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly refcountOrder: number;
  readonly lazy: boolean;
  readonly extended: boolean;
  readonly preallocation: 'off' | 'metadata' | 'falloc' | 'full';
  readonly compression: 'zlib' | 'zstd';
  readonly backingFile: string | undefined;
  readonly backingFormat: string | undefined;
  readonly dataFile: string | undefined;
  readonly dataFileRaw: boolean;
  /** Options of the LUKS volume; empty where the image is not to be encrypted. */
  readonly encrypt: BlockOptions;
}

function takeCreateOptions(options: BlockOptions): CreateOptions {
  const either = <T>(take: (key: string) => T | undefined, ...keys: string[]): T | undefined => {
    let value: T | undefined;
    for (const key of keys) value = take(key) ?? value;
    return value;
  };
  const text = (...keys: string[]): string | undefined => either(key => options.string(key), ...keys);
  const size = options.bytes('size');
  if (size === undefined) throw new BlockError("Parameter 'size' is missing");
  if (size % 512 !== 0) throw new BlockError('Image size must be a multiple of 512 bytes');
  const versionName = text('version', 'compat') ?? 'v3';
  if (!['v2', 'v3', '0.10', '1.1'].includes(versionName)) throw new BlockError(`Invalid parameter '${versionName}'`);
  const version = versionName === 'v2' || versionName === '0.10' ? 2 : 3;
  const clusterSize = either(key => options.bytes(key), 'cluster-size', 'cluster_size') ?? 65536;
  const clusterBits = Math.log2(clusterSize);
  if (!Number.isInteger(clusterBits) || clusterBits < 9 || clusterBits > 21) {
    throw new BlockError('Cluster size must be a power of two between 512 and 2048k');
  }
  const refcountBits = either(key => options.number(key), 'refcount-bits', 'refcount_bits') ?? 16;
  const refcountOrder = refcountWidths.findIndex(({ bits }) => bits === refcountBits);
  if (refcountOrder < 0) throw new BlockError('Refcount width must be a power of two and may not exceed 64 bits');
  if (version < 3 && refcountOrder !== 4) {
    throw new BlockError(
      'Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)',
    );
  }
  const lazy = either(key => options.bool(key), 'lazy-refcounts', 'lazy_refcounts') ?? false;
  if (lazy && version < 3) {
    throw new BlockError(
      'Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)',
    );
  }
  const extended = either(key => options.bool(key), 'extended-l2', 'extended_l2') ?? false;
  if (extended && version < 3) {
    throw new BlockError(
      'Extended L2 entries are only supported with compatibility level 1.1 and above (use version=v3 or greater)',
    );
  }
  if (extended && clusterSize < MIN_EXTENDED_CLUSTER) {
    throw new BlockError(
      `Extended L2 entries are only supported with cluster sizes of at least ${MIN_EXTENDED_CLUSTER} bytes`,
    );
  }
  const encrypt = options.child('encrypt');
  if (options.bool('encryption') === true || encrypt.peek('format') === 'qcow' || encrypt.peek('format') === 'aes') {
    throw new BlockError('Images with AES-CBC encryption are not made any more', {
      hint: 'use encrypt.format=luks',
      code: 'ERR_QCOW2_ENCRYPTED',
    });
  }
  encrypt.choice('format', ['luks']);
  const backingFile = text('backing-file', 'backing_file');
  const backingFormat = text('backing-fmt', 'backing_fmt');
  if (backingFormat !== undefined && backingFile === undefined)
    throw new BlockError('Backing format cannot be used without backing file');
  const preallocationName = options.choice('preallocation', ['off', 'metadata', 'falloc', 'full']) ?? 'off';
  if (preallocationName !== 'off' && backingFile !== undefined && !extended) {
    throw new BlockError('Backing file and preallocation can only be used at the same time if extended_l2 is on');
  }
  const compression =
    options.choice('compression-type', ['zlib', 'zstd']) ??
    options.choice('compression_type', ['zlib', 'zstd']) ??
    'zlib';
  if (compression !== 'zlib' && version < 3) {
    throw new BlockError(
      'Non-zlib compression type is only supported with compatibility level 1.1 and above (use version=v3 or greater)',
    );
  }
  const dataFileName = text('data-file', 'data_file');
  const dataFileRaw = either(key => options.bool(key), 'data-file-raw', 'data_file_raw') ?? false;
  if (dataFileRaw && dataFileName === undefined) throw new BlockError('data-file-raw requires data-file');
  if (dataFileRaw && backingFile !== undefined)
    throw new BlockError('Backing file and data-file-raw cannot be used at the same time');
  return {
    size,
    version,
    clusterBits,
    refcountOrder,
    lazy,
    extended,
    preallocation: preallocationName,
    compression,
    backingFile,
    backingFormat,
    dataFile: dataFileName,
    dataFileRaw,
    encrypt,
  };
}

/** Makes an image in the node `file`. */
async function create(graph: BlockGraph, options: BlockOptions): Promise<void> {
  const file = graph.lookup(options.string('file') ?? '');
  const encrypted = options.hasChild('encrypt');
  const wanted = takeCreateOptions(options);
  const volume = encrypted ? await createVolume(graph, wanted.encrypt, 'encrypt.') : undefined;
  const [strange] = wanted.encrypt.keys();
  if (strange !== undefined) throw new BlockError(`Parameter 'encrypt.${strange}' is unexpected`);
  compressionOf(wanted.compression);
  const dataNode = wanted.dataFile === undefined ? undefined : graph.node(wanted.dataFile);
  const clusterSize = 2 ** wanted.clusterBits;
  const header: Qcow2Header = {
    version: wanted.version,
    clusterBits: wanted.clusterBits,
    size: 0,
    l1Size: 0,
    l1Offset: 0,
    refcountTableOffset: clusterSize,
    refcountTableClusters: 1,
    snapshotCount: 0,
    snapshotsOffset: 0,
    incompatible:
      (wanted.dataFile === undefined ? 0 : incompatible.DATA_FILE) |
      (wanted.compression === 'zstd' ? incompatible.COMPRESSION : 0) |
      (wanted.extended ? incompatible.EXTENDED_L2 : 0),
    compatible: wanted.lazy ? 1 : 0,
    autoclear: wanted.dataFileRaw ? 2 : 0,
    refcountOrder: wanted.refcountOrder,
    compression: wanted.compression,
    encryption: undefined,
    backingFile: wanted.backingFile,
    backingFormat: wanted.backingFormat,
    dataFile: dataNode?.filename ?? wanted.dataFile,
    bitmaps: undefined,
    unknownExtensions: [],
  };
  await file.truncate(0);
  await start(writeEmpty(file, header));
  // The rest is done by the image itself.
  const opening = new BlockOptions([
    ['driver', 'qcow2'],
    ['file', file.nodeName],
    ['backing', null],
  ]);
  if (dataNode !== undefined) opening.set('data-file', dataNode.nodeName);
  const node = await graph.openTree(undefined, opening, { noFlush: true }, false);
  try {
    if (volume !== undefined && node instanceof Qcow2Node) await start(node.exclusively(encipher(node, volume)));
    await node.truncate(wanted.size, { preallocation: wanted.preallocation });
  } catch (error) {
    throw error instanceof IoError
      ? new BlockError(`Could not resize image: ${errnoText(error.errno)}`, { cause: error })
      : error;
  } finally {
    await graph.released(node);
  }
}

/** Gives an empty image a LUKS header: what is written from now on is enciphered. */
function* encipher(node: Qcow2Node, volume: Awaited<ReturnType<typeof createVolume>>): Task {
  const { image, refcounts } = node;
  const offset = yield* refcounts.allocate(Math.ceil(volume.area.length / image.clusterSize));
  yield* image.write(offset, volume.area);
  yield* refcounts.cache.flush();
  image.header.encryption = { offset, length: volume.area.length };
  yield* image.writeHeader();
  yield* image.flush();
  image.luks = volume.header;
  image.cipher = volume.cipher;
  node.requestAlignment = SECTOR;
}

function* writeEmpty(file: BlockNode, header: Qcow2Header): Task {
  const image = new Qcow2Image(file, header);
  const { clusterSize } = image;
  // The header, the refcount table and the first block, which counts these three.
  const table = new Uint8Array(clusterSize);
  new DataView(table.buffer).setBigUint64(0, BigInt(2 * clusterSize));
  const block = new Uint8Array(clusterSize);
  for (let cluster = 0; cluster < 3; cluster++)
    refcountWidths[header.refcountOrder]?.set(new DataView(block.buffer), cluster, 1);
  yield* image.write(clusterSize, table);
  yield* image.write(2 * clusterSize, block);
  yield* image.write(0, serializeHeader(header));
}

export const qcow2Driver: BlockDriver = {
  name: 'qcow2',
  kind: 'format',
  supportsBacking: true,
  probe: head => (isQcow2(head) ? 100 : 0),
  open,
  create,
};

/** Checks an open image, and repairs it where `fix` is set. */
export async function checkImage(
  node: Qcow2Node,
  fix: boolean,
): Promise<ReturnType<typeof check> extends Task<infer R> ? R : never> {
  return startFor(node.exclusively(check(node, fix)));
}
