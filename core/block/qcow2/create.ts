import type { BlockGraph } from '../graph.ts';
import { BlockError, IoError, reason } from '../io-error.ts';
import { SECTOR } from '../luks/cipher.ts';
import { createVolume } from '../luks/luks.ts';
import type { BlockNode } from '../node.ts';
import { BlockOptions } from '../options.ts';
import { start, type Task } from '../pending.ts';
import { imageLength, MAX_LENGTH, PREALLOCATIONS, type Preallocation } from '../requests.ts';
import { compressionOf } from './compression.ts';
import { incompatible, MIN_EXTENDED_CLUSTER, type Qcow2Header, serializeHeader } from './header.ts';
import { Qcow2Image } from './image.ts';
import { Qcow2Node } from './node.ts';
import { refcountWidths } from './refcount-width.ts';

interface CreateOptions {
  /** In bytes. */
  readonly size: bigint;
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly refcountOrder: number;
  readonly lazy: boolean;
  readonly extended: boolean;
  readonly preallocation: Preallocation;
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
  const size = options.wholeBytes('size');
  if (size === undefined) throw new BlockError("Parameter 'size' is missing");
  if (size % 512n !== 0n) throw new BlockError('Image size must be a multiple of 512 bytes');
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
  const preallocationName = options.choice('preallocation', PREALLOCATIONS) ?? 'off';
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
export async function create(graph: BlockGraph, options: BlockOptions): Promise<void> {
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
    await node.truncate(lengthOf(node, wanted.size), { preallocation: wanted.preallocation });
  } catch (error) {
    throw error instanceof IoError
      ? new BlockError(`Could not resize image: ${reason(error)}`, { cause: error })
      : error;
  } finally {
    await graph.released(node);
  }
}

/** @throws IoError where the image cannot be that long */
function lengthOf(node: BlockNode, size: bigint): number {
  // More than its first table can name is wrong before it is too much for us.
  if (size <= MAX_LENGTH && node instanceof Qcow2Node) node.map.checkL1(Number(size) / node.map.l2Reach);
  return imageLength(size);
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
