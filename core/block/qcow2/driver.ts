import { openBacking } from '../backing.ts';
import type { BlockDriver, OpenContext } from '../driver.ts';
import { relativeTo } from '../file-name.ts';
import { BlockError, IoError, reason } from '../io-error.ts';
import { IoVector } from '../io-vector.ts';
import { openVolume } from '../luks/luks.ts';
import type { BlockNode } from '../node.ts';
import type { BlockOptions } from '../options.ts';
import { start, startFor, type Task } from '../pending.ts';
import { check } from './check.ts';
import type { DiscardPolicy } from './clearing.ts';
import { create } from './create.ts';
import { autoclear, incompatible, isQcow2, parseHeader, type Qcow2Header } from './header.ts';
import { Qcow2Image } from './image.ts';
import { Qcow2Node } from './node.ts';

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
  image.isWritable = () => !node.readOnly && !node.inactive;
  image.onCorruption = (msg, offset, size, fatal) => {
    graph.notice(
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
  if (!node.inactive) yield* node.bitmaps.load();
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
