import { BlockError } from '../io-error.ts';
import { IoVector } from '../io-vector.ts';
import type { BlockNode } from '../node.ts';
import type { Task } from '../pending.ts';
import { check } from './check.ts';
import { autoclear, incompatible, parseHeader, type Qcow2Header } from './header.ts';
import type { Qcow2Node } from './node.ts';

const HEAD_BYTES = 65536;

/** Reads the header of the image in `file`. */
export function* readHeader(file: BlockNode): Task<Qcow2Header> {
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

/** Reads all tables of an image that was just opened. */
export function* load(node: Qcow2Node): Task {
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
