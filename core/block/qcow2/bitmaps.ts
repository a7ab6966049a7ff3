import { DirtyBitmap } from '../dirty-bitmap.ts';
import { BlockError } from '../io-error.ts';
import type { Task } from '../pending.ts';
import { autoclear } from './header.ts';
import type { Qcow2Node } from './node.ts';

/** Flags of an entry of the bitmap directory. */
const flag = { IN_USE: 1, AUTO: 2 } as const;
const DIRTY_TRACKING = 1;
const ENTRY_BYTES = 24;
const MIN_GRANULARITY_BITS = 9;
const MAX_GRANULARITY_BITS = 31;
const MAX_NAME = 1023;
const MAX_BITMAPS = 65535;
const MAX_DIRECTORY = 64 << 20;
/** The most memory that a stored bitmap may ask for, in bytes. */
const MAX_BITMAP_BYTES = 512 << 20;
/** Bits 9 to 55 of an entry of a bitmap table. */
const OFFSET_MASK = 0x00ff_ffff_ffff_fe00n;
/** Entries without an offset: a cluster of zeroes, or of ones. */
const ALL_ONES = 1n;

/** A bitmap as the directory has it. */
interface StoredBitmap {
  readonly name: string;
  readonly granularityBits: number;
  readonly tableOffset: number;
  /** Entries of the table. */
  readonly tableSize: number;
  flags: number;
}

/** Dirty bitmaps that are kept in the image while nobody has it open ("Bitmaps extension" and "Bitmap directory"). */
export class PersistentBitmaps {
  readonly #node: Qcow2Node;
  #stored: StoredBitmap[] = [];
  /** The header names bitmaps that nobody may believe any more. */
  outdated = false;

  constructor(node: Qcow2Node) {
    this.#node = node;
  }

  /** What the directory in the file names, for listings. */
  get listed(): readonly { readonly name: string; readonly granularity: number; readonly flags: string[] }[] {
    return this.#stored.map(({ name, granularityBits, flags }) => ({
      name,
      granularity: 2 ** granularityBits,
      flags: [...((flags & flag.IN_USE) !== 0 ? ['in-use'] : []), ...((flags & flag.AUTO) !== 0 ? ['auto'] : [])],
    }));
  }

  /** Reads the directory and the bitmaps. Those that were in use when their writer ended mean nothing any more. */
  *load(): Task {
    const node = this.#node;
    const { image } = node;
    const { dirtyBitmaps } = node;
    for (const old of dirtyBitmaps.persistent) {
      if (old.inTransit) old.inTransit = false;
      else dirtyBitmaps.remove(old);
    }
    this.#stored = [];
    const { bitmaps: extension } = image.header;
    if (extension === undefined) return;
    if ((image.header.autoclear & autoclear.BITMAPS) === 0) {
      node.graph.warn(
        'a program lacking bitmap support modified this file, so all bitmaps are now considered inconsistent\n' +
          "Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix.",
      );
      image.header.bitmaps = undefined;
      this.outdated = true;
      return;
    }
    this.#stored = yield* this.#readDirectory(extension);
    image.claim('bitmap directory', extension.directoryOffset, extension.directorySize);
    for (const stored of this.#stored) {
      // One that came beside the image is the newer one.
      if (dirtyBitmaps.persistent.some(one => one.name === stored.name)) continue;
      const bitmap = new DirtyBitmap(node.length, {
        name: stored.name,
        granularity: 2 ** stored.granularityBits,
        persistent: true,
        disabled: (stored.flags & flag.AUTO) === 0,
      });
      if ((stored.flags & flag.IN_USE) !== 0) bitmap.inconsistent = true;
      else yield* this.#readBits(stored, bitmap);
      bitmap.readonly = node.readOnly;
      dirtyBitmaps.add(bitmap);
    }
  }

  *#readDirectory(extension: { count: number; directorySize: number; directoryOffset: number }): Task<StoredBitmap[]> {
    const { image, length } = this.#node;
    const { count, directorySize, directoryOffset } = extension;
    if (directorySize === 0) throw new BlockError('Requested bitmap directory size is zero');
    if (directorySize > MAX_DIRECTORY || count > MAX_BITMAPS)
      throw new BlockError('Requested bitmap directory size is too big');
    if (!Number.isSafeInteger(directoryOffset) || directoryOffset % image.clusterSize !== 0)
      throw new BlockError('Invalid bitmap directory offset');
    const bytes = Buffer.from(yield* image.read(directoryOffset, directorySize));
    const found: StoredBitmap[] = [];
    for (let at = 0; at < directorySize; ) {
      if (at + ENTRY_BYTES > directorySize) throw new BlockError('Broken bitmap directory');
      const nameLength = bytes.readUInt16BE(at + 18);
      const extraLength = bytes.readUInt32BE(at + 20);
      const end = at + Math.ceil((ENTRY_BYTES + extraLength + nameLength) / 8) * 8;
      if (end > directorySize) throw new BlockError('Broken bitmap directory');
      if (extraLength !== 0) throw new BlockError('Bitmap extra data is not supported');
      const name = bytes.toString('utf8', at + ENTRY_BYTES, at + ENTRY_BYTES + nameLength);
      const stored = {
        name,
        granularityBits: bytes.readUInt8(at + 17),
        tableOffset: Number(bytes.readBigUInt64BE(at)),
        tableSize: bytes.readUInt32BE(at + 8),
        flags: bytes.readUInt32BE(at + 12),
      };
      const sane =
        nameLength > 0 &&
        nameLength <= MAX_NAME &&
        bytes.readUInt8(at + 16) === DIRTY_TRACKING &&
        (stored.flags & ~(flag.IN_USE | flag.AUTO)) === 0 &&
        stored.granularityBits >= MIN_GRANULARITY_BITS &&
        stored.granularityBits <= MAX_GRANULARITY_BITS &&
        Number.isSafeInteger(stored.tableOffset) &&
        stored.tableOffset % image.clusterSize === 0 &&
        stored.tableOffset !== 0 &&
        stored.tableSize * image.clusterSize <= MAX_BITMAP_BYTES + image.clusterSize &&
        // What was in use may be of another length; it is not read.
        ((stored.flags & flag.IN_USE) !== 0 || stored.tableSize === this.#clustersFor(length, stored.granularityBits));
      if (!sane) throw new BlockError(`Bitmap '${name}' doesn't satisfy the constraints`);
      found.push(stored);
      at = end;
    }
    if (found.length !== count) {
      throw new BlockError(
        `${found.length > count ? 'More' : 'Less'} bitmaps found than specified in header extension`,
      );
    }
    return found;
  }

  #clustersFor(length: number, granularityBits: number): number {
    return Math.ceil(Math.ceil(length / 2 ** granularityBits / 8) / this.#node.image.clusterSize);
  }

  *#readTable({ tableOffset, tableSize }: StoredBitmap): Task<bigint[]> {
    const view = new DataView((yield* this.#node.image.read(tableOffset, tableSize * 8)).buffer);
    return Array.from({ length: tableSize }, (_, index) => view.getBigUint64(index * 8));
  }

  *#readBits(stored: StoredBitmap, bitmap: DirtyBitmap): Task {
    const { image } = this.#node;
    const { clusterSize } = image;
    const bits = new Uint8Array(bitmap.bytes.length);
    for (const [index, entry] of (yield* this.#readTable(stored)).entries()) {
      const at = index * clusterSize;
      const bytes = Math.min(clusterSize, bits.length - at);
      const offset = Number(entry & OFFSET_MASK);
      if (offset === 0) bits.fill((entry & ALL_ONES) !== 0n ? 0xff : 0, at, at + bytes);
      else if (offset % clusterSize === 0) bits.set(yield* image.read(offset, bytes), at);
      else throw new BlockError(`Could not read bitmap '${stored.name}' from image: Invalid argument`);
    }
    bitmap.restore(bits);
    // Bits behind the end mean nothing.
    bitmap.resize(bitmap.length);
  }

  /**
   * Says in the file that the bitmaps in it are not to be believed: those in memory are. Nothing may be written to the
   * image before.
   */
  *markInUse(): Task {
    const { dirtyBitmaps, image } = this.#node;
    for (const bitmap of dirtyBitmaps.persistent) bitmap.readonly = false;
    const { bitmaps: extension } = image.header;
    if (extension === undefined || this.#stored.every(({ flags }) => (flags & flag.IN_USE) !== 0)) return;
    for (const stored of this.#stored) stored.flags |= flag.IN_USE;
    yield* image.write(extension.directoryOffset, serialize(this.#stored));
    yield* image.flush();
  }

  /** @throws BlockError where the image cannot keep such a bitmap */
  checkNew({ name = '', granularity }: DirtyBitmap): void {
    const { image, length, dirtyBitmaps, nodeName, deviceName } = this.#node;
    const refuse = (why: string): BlockError =>
      new BlockError(`Can't make bitmap '${name}' persistent in '${deviceName || nodeName}': ${why}`);
    if (image.header.version < 3) throw refuse('Cannot store dirty bitmaps in qcow2 v2 files');
    if (granularity > 2 ** MAX_GRANULARITY_BITS)
      throw refuse(`Granularity exceeds maximum (${2 ** MAX_GRANULARITY_BITS} bytes)`);
    if (length / granularity / 8 > MAX_BITMAP_BYTES)
      throw refuse('Too much space will be occupied by the bitmap. Use larger granularity');
    if (Buffer.byteLength(name) > MAX_NAME) throw refuse(`Name length exceeds maximum (${MAX_NAME} characters)`);
    const names = dirtyBitmaps.persistent.map(bitmap => bitmap.name ?? '');
    if (names.length >= MAX_BITMAPS) throw refuse('Too many persistent bitmaps');
    if (directoryBytes([...names, name]) > MAX_DIRECTORY) throw refuse('Not enough space in the bitmap directory');
  }

  /** Takes a bitmap out of the file. The lock is held. */
  *remove(name: string): Task {
    const stored = this.#stored.find(one => one.name === name);
    if (stored === undefined) return;
    const remaining = this.#stored.filter(one => one !== stored);
    yield* this.#replaceDirectory(remaining);
    yield* this.#free(stored);
  }

  /** Those that the image keeps are known only to whoever has the image. */
  forgetStored(): void {
    const { dirtyBitmaps } = this.#node;
    for (const kept of dirtyBitmaps.persistent) if (!kept.inTransit) dirtyBitmaps.remove(kept);
  }

  /** Writes the bitmaps into the file. The lock is held, and nothing is written to the image any more. */
  *store(): Task {
    const { dirtyBitmaps, image } = this.#node;
    const wanted = dirtyBitmaps.persistent.filter(one => !one.readonly && !one.inTransit);
    if (wanted.length === 0 && this.#stored.length === 0) return;
    // Those that the file has stay in its order, and the new ones follow: listings are in the directory's order.
    const place = ({ name }: DirtyBitmap): number => {
      const index = this.#stored.findIndex(stored => stored.name === name);
      return index < 0 ? this.#stored.length : index;
    };
    wanted.sort((one, other) => place(one) - place(other));
    const next: StoredBitmap[] = [];
    for (const bitmap of wanted) {
      const before = this.#stored.find(({ name }) => name === bitmap.name);
      if (!bitmap.inconsistent) next.push(yield* this.#write(bitmap));
      else if (before !== undefined) next.push(before);
    }
    const old = this.#stored.filter(stored => !next.includes(stored));
    yield* this.#replaceDirectory(next);
    for (const stored of old) yield* this.#free(stored);
    for (const bitmap of wanted) bitmap.readonly = true;
    yield* image.flush();
  }

  *#write(bitmap: DirtyBitmap): Task<StoredBitmap> {
    const { image, refcounts } = this.#node;
    const { clusterSize } = image;
    const granularityBits = Math.log2(bitmap.granularity);
    const tableSize = this.#clustersFor(bitmap.length, granularityBits);
    const table = new DataView(new ArrayBuffer(tableSize * 8));
    for (let index = 0; index < tableSize; index++) {
      const bits = bitmap.bytes.subarray(index * clusterSize, (index + 1) * clusterSize);
      if (bits.every(byte => byte === 0)) continue;
      if (bits.length === clusterSize && bits.every(byte => byte === 0xff)) {
        table.setBigUint64(index * 8, ALL_ONES);
        continue;
      }
      const cluster = new Uint8Array(clusterSize);
      cluster.set(bits);
      const offset = yield* refcounts.allocate(1);
      yield* image.write(offset, cluster);
      table.setBigUint64(index * 8, BigInt(offset));
    }
    const tableOffset = yield* refcounts.allocate(Math.max(1, Math.ceil((tableSize * 8) / clusterSize)));
    yield* image.write(tableOffset, new Uint8Array(table.buffer));
    return {
      name: bitmap.name ?? '',
      granularityBits,
      tableOffset,
      tableSize,
      flags: bitmap.enabled ? flag.AUTO : 0,
    };
  }

  /** Writes another directory, and has the header point to it once all that it names is on the disk. */
  *#replaceDirectory(next: StoredBitmap[]): Task {
    const { image, refcounts } = this.#node;
    const { header } = image;
    const before = header.bitmaps;
    if (next.length === 0) {
      header.bitmaps = undefined;
      header.autoclear &= ~autoclear.BITMAPS;
    } else {
      const bytes = serialize(next);
      const directoryOffset = yield* refcounts.allocate(Math.ceil(bytes.length / image.clusterSize));
      yield* image.write(directoryOffset, bytes);
      image.claim('bitmap directory', directoryOffset, bytes.length);
      header.bitmaps = { count: next.length, directorySize: bytes.length, directoryOffset };
      header.autoclear |= autoclear.BITMAPS;
    }
    yield* refcounts.cache.flush();
    yield* image.writeHeader();
    yield* image.flush();
    this.#stored = next;
    if (before === undefined) return;
    image.release(before.directoryOffset, before.directorySize);
    yield* refcounts.free(before.directoryOffset, before.directorySize, 'other');
  }

  *#free(stored: StoredBitmap): Task {
    const { image, refcounts } = this.#node;
    for (const entry of yield* this.#readTable(stored)) {
      const offset = Number(entry & OFFSET_MASK);
      if (offset !== 0) yield* refcounts.free(offset, image.clusterSize, 'other');
    }
    yield* refcounts.free(stored.tableOffset, Math.max(1, stored.tableSize * 8), 'other');
  }

  /** Calls `mark` with each stretch of the file that the bitmaps take. */
  *visit(mark: (offset: number, bytes: number) => void): Task {
    const { image } = this.#node;
    const { bitmaps: extension } = image.header;
    if (extension === undefined) return;
    mark(extension.directoryOffset, extension.directorySize);
    for (const stored of this.#stored) {
      mark(stored.tableOffset, stored.tableSize * 8);
      for (const entry of yield* this.#readTable(stored)) {
        const offset = Number(entry & OFFSET_MASK);
        if (offset !== 0) mark(offset, image.clusterSize);
      }
    }
  }
}

function entryLength(name: string): number {
  return Math.ceil((ENTRY_BYTES + Buffer.byteLength(name)) / 8) * 8;
}

function directoryBytes(names: readonly string[]): number {
  return names.reduce((total, name) => total + entryLength(name), 0);
}

function serialize(bitmaps: readonly StoredBitmap[]): Buffer {
  return Buffer.concat(
    bitmaps.map(({ name, granularityBits, tableOffset, tableSize, flags }) => {
      const entry = Buffer.alloc(entryLength(name));
      entry.writeBigUInt64BE(BigInt(tableOffset), 0);
      entry.writeUInt32BE(tableSize, 8);
      entry.writeUInt32BE(flags, 12);
      entry.writeUInt8(DIRTY_TRACKING, 16);
      entry.writeUInt8(granularityBits, 17);
      entry.writeUInt16BE(Buffer.byteLength(name), 18);
      entry.write(name, ENTRY_BYTES, 'utf8');
      return entry;
    }),
  );
}
