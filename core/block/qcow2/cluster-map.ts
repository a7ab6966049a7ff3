import { errno, IoError } from '../io-error.ts';
import type { Task } from '../pending.ts';
import { headerOffset, MAX_L1_BYTES } from './header.ts';
import { hex, type Qcow2Image } from './image.ts';
import { type CachedTable, MetadataCache } from './metadata-cache.ts';
import type { Refcounts } from './refcounts.ts';

/** Bit 63 of an L1 or L2 entry, in its upper half: the refcount is exactly 1, so it may be written in place. */
export const COPIED = 0x8000_0000;
/** Bit 62 of an L2 entry. */
const COMPRESSED = 0x4000_0000;
/** Bit 0 of an L2 entry that is not extended: reads as zeroes, whatever the offset says. */
const ZERO = 1;
const ALL_SUBCLUSTERS = 0xffff_ffff;
const OFFSET_HIGH = 0x00ff_ffff;
const OFFSET_LOW = 0xffff_fe00;

/** With extended L2 entries a cluster has this many parts that are allocated and zeroed one by one. */
const SUBCLUSTERS = 32;

/**
 * What the tables say about a cluster, or about a part of it with extended L2 entries. RESERVED: nothing is here, though
 * the cluster has a place in the file.
 */
export const kind = {
  UNALLOCATED: 0,
  ZERO_PLAIN: 1,
  ZERO_ALLOCATED: 2,
  NORMAL: 3,
  COMPRESSED: 4,
  RESERVED: 5,
} as const;
export type ClusterKind = (typeof kind)[keyof typeof kind];

/** Nothing of the image's own is there: what backs it shows. */
export function isEmpty(found: ClusterKind): boolean {
  return found === kind.UNALLOCATED || found === kind.RESERVED;
}

/** Where guest data lies: the L1 table, the L2 tables behind a cache of their slices. */
export class ClusterMap {
  readonly #image: Qcow2Image;
  readonly #refcounts: Refcounts;
  readonly cache: MetadataCache;
  /** Bytes of an L2 entry: 16 where it is an extended one. */
  readonly entryBytes: 8 | 16;
  /** Entries of an L2 table. */
  readonly entries: number;
  /** Bytes that are allocated and zeroed at once: the cluster size unless L2 entries are extended. */
  readonly subclusterSize: number;
  #perSlice: number;
  readonly #dataIsExternal: boolean;
  readonly #compressedShift: number;
  /** Offsets of the L2 tables. */
  l1: Float64Array;
  /** Whether the L2 table belongs to the active image alone, by L1 index. */
  #copiedFlags: Uint8Array;

  // What the last lookup found.
  kind: ClusterKind = kind.UNALLOCATED;
  /** Where the data lies in the file; for a compressed cluster, where it begins. */
  host = 0;
  /** For how many bytes from the offset asked for the answer holds. */
  length = 0;
  /** The clusters found may be written in place. */
  copied = false;
  /** Sectors of a compressed cluster's data, from `host` on. */
  compressedBytes = 0;

  constructor(
    image: Qcow2Image,
    refcounts: Refcounts,
    cacheBytes: number,
    sliceBytes: number,
    dataIsExternal: boolean,
  ) {
    this.#image = image;
    this.#refcounts = refcounts;
    const slice = Math.min(image.clusterSize, sliceBytes);
    this.cache = new MetadataCache(image, slice, Math.ceil(cacheBytes / slice));
    this.entryBytes = image.extended ? 16 : 8;
    this.entries = image.clusterSize / this.entryBytes;
    this.subclusterSize = image.clusterSize / (image.extended ? SUBCLUSTERS : 1);
    this.#perSlice = slice / this.entryBytes;
    this.#dataIsExternal = dataIsExternal;
    this.#compressedShift = 62 - (image.header.clusterBits - 8);
    this.l1 = new Float64Array(0);
    this.#copiedFlags = new Uint8Array(0);
    refcounts.users = this.cache;
  }

  /** Other sizes, in bytes, for a cache that is empty. */
  resizeCache(cacheBytes: number, sliceBytes: number): void {
    const slice = Math.min(this.#image.clusterSize, sliceBytes);
    this.cache.resize(slice, Math.ceil(cacheBytes / slice));
    this.#perSlice = slice / this.entryBytes;
  }

  /** Reads the L1 table. */
  *load(): Task {
    const { header, clusterSize } = this.#image;
    const bytes = yield* this.#image.read(header.l1Offset, header.l1Size * 8);
    this.adopt(bytes);
    if (header.l1Size > 0) this.#image.claim('active L1 table', header.l1Offset, header.l1Size * 8);
    for (const offset of this.l1)
      if (offset !== 0 && offset % clusterSize === 0) this.#image.claim('active L2 table', offset, clusterSize);
  }

  /** Takes over the content of an L1 table. */
  adopt(bytes: Uint8Array): void {
    const { l1, copied } = parseL1(bytes);
    this.l1 = l1;
    this.#copiedFlags = copied;
  }

  /** The table as it is in the file. */
  l1Bytes(): Uint8Array {
    const bytes = new Uint8Array(this.l1.length * 8);
    const view = new DataView(bytes.buffer);
    for (let index = 0; index < this.l1.length; index++) this.#putL1(view, index * 8, index);
    return bytes;
  }

  #putL1(view: DataView, at: number, index: number): void {
    const offset = this.l1[index] ?? 0;
    view.setUint32(at, (Math.floor(offset / 2 ** 32) | (this.#copiedFlags[index] !== 0 ? COPIED : 0)) >>> 0);
    view.setUint32(at + 4, offset >>> 0);
  }

  isCopied(l1Index: number): boolean {
    return this.#copiedFlags[l1Index] !== 0;
  }

  setCopied(l1Index: number, copied: boolean): void {
    this.#copiedFlags[l1Index] = copied ? 1 : 0;
  }

  /** Bytes of the guest that one L2 table maps. */
  get l2Reach(): number {
    return this.entries * this.#image.clusterSize;
  }

  /** Where the slice with the entry for a guest offset lies; 0 where there is no L2 table. */
  #sliceOffset(offset: number): number {
    const cluster = Math.floor(offset / this.#image.clusterSize);
    const index = Math.floor(cluster / this.entries);
    const table = this.l1[index] ?? 0;
    if (table === 0) return 0;
    if (table % this.#image.clusterSize !== 0) {
      throw this.#image.corrupt(`L2 table offset ${hex(table)} unaligned (L1 index: ${hex(index)})`);
    }
    return table + Math.floor((cluster % this.entries) / this.#perSlice) * this.cache.entrySize;
  }

  #indexInSlice(offset: number): number {
    return Math.floor(offset / this.#image.clusterSize) % this.#perSlice;
  }

  /**
   * Looks up where `bytes` bytes of the guest from `offset` on lie, as far as they are of one kind and in a row.
   *
   * @returns false where the table must be read first: {@link lookup} does
   */
  lookupCached(offset: number, bytes: number): boolean {
    const slice = this.#sliceOffset(offset);
    if (slice === 0) {
      const reach = this.l2Reach;
      this.kind = kind.UNALLOCATED;
      this.copied = false;
      this.length = Math.min(bytes, reach - (offset % reach));
      return true;
    }
    const table = this.cache.peek(slice);
    if (table === undefined) return false;
    this.#examine(table, offset, bytes);
    return true;
  }

  *lookup(offset: number, bytes: number): Task {
    if (this.lookupCached(offset, bytes)) return;
    const table = yield* this.cache.get(this.#sliceOffset(offset));
    this.#examine(table, offset, bytes);
  }

  #examine(table: CachedTable, offset: number, bytes: number): void {
    if (this.entryBytes === 16) {
      this.#examineSubclusters(table, offset, bytes);
      return;
    }
    const { clusterSize } = this.#image;
    const { view } = table;
    const first = this.#indexInSlice(offset);
    const within = offset % clusterSize;
    const most = Math.min(this.#perSlice - first, Math.ceil((within + bytes) / clusterSize));
    const high = view.getUint32(first * 8);
    const low = view.getUint32(first * 8 + 4);
    const found = this.#kindOf(high, low);
    const base = (high & OFFSET_HIGH) * 2 ** 32 + ((low & OFFSET_LOW) >>> 0);
    this.kind = found;
    this.copied = high >= COPIED;
    let count = 1;
    if (found === kind.COMPRESSED) {
      this.#examineCompressed(high, low);
    } else {
      this.host = base + within;
      if (found === kind.NORMAL || found === kind.ZERO_ALLOCATED) {
        if (base % clusterSize !== 0) throw this.#unaligned(table, first, found, base);
        const wanted = high;
        for (let next = base + clusterSize; count < most; count++, next += clusterSize) {
          const at = (first + count) * 8;
          const nextLow = view.getUint32(at + 4);
          if (
            view.getUint32(at) >>> 24 !== wanted >>> 24 ||
            (view.getUint32(at) & OFFSET_HIGH) !== Math.floor(next / 2 ** 32) ||
            nextLow !== ((next >>> 0) | (low & ZERO)) >>> 0
          ) {
            break;
          }
        }
      } else {
        for (; count < most; count++) {
          const at = (first + count) * 8;
          if (this.#kindOf(view.getUint32(at), view.getUint32(at + 4)) !== found) break;
        }
      }
    }
    this.length = Math.min(bytes, count * clusterSize - within);
  }

  #unaligned(table: CachedTable, index: number, found: ClusterKind, base: number): IoError {
    return this.#image.corrupt(
      `${found === kind.NORMAL ? 'Cluster allocation offset' : 'Preallocated zero cluster offset'} ${hex(base)} unaligned (L2 offset: ${hex(table.offset)}, L2 index: ${hex(index)})`,
    );
  }

  /** Extended L2 entries: runs of subclusters of one kind, over the clusters that go on in the file. */
  #examineSubclusters(table: CachedTable, offset: number, bytes: number): void {
    const { clusterSize } = this.#image;
    const { view } = table;
    const first = this.#indexInSlice(offset);
    const within = offset % clusterSize;
    const high = view.getUint32(first * 16);
    const low = view.getUint32(first * 16 + 4);
    this.copied = high >= COPIED;
    if ((high & COMPRESSED) !== 0) {
      this.kind = kind.COMPRESSED;
      this.#examineCompressed(high, low);
      this.length = Math.min(bytes, clusterSize - within);
      return;
    }
    const base = (high & OFFSET_HIGH) * 2 ** 32 + ((low & OFFSET_LOW) >>> 0);
    if (base % clusterSize !== 0) throw this.#unaligned(table, first, kind.NORMAL, base);
    const start = Math.floor(within / this.subclusterSize);
    const found = this.#subclusterKind(table, first, start);
    this.kind = found;
    this.host = base + within;
    const placed = this.#hasPlace(high, low);
    let end = this.#runEnd(table, first, start, found);
    let covered = end * this.subclusterSize - within;
    for (let index = first + 1; end === SUBCLUSTERS && covered < bytes && index < this.#perSlice; index++) {
      const next = placed ? base + (index - first) * clusterSize : 0;
      const nextHigh = view.getUint32(index * 16);
      if (
        nextHigh >>> 24 !== high >>> 24 ||
        (nextHigh & OFFSET_HIGH) !== Math.floor(next / 2 ** 32) ||
        (view.getUint32(index * 16 + 4) & OFFSET_LOW) >>> 0 !== next >>> 0
      ) {
        break;
      }
      end = this.#runEnd(table, index, 0, found);
      covered += end * this.subclusterSize;
    }
    this.length = Math.min(bytes, covered);
  }

  /** Where the run of subclusters of one kind ends that may begin at `start`. */
  #runEnd(table: CachedTable, index: number, start: number, wanted: ClusterKind): number {
    let end = start;
    while (end < SUBCLUSTERS && this.#subclusterKind(table, index, end) === wanted) end++;
    return end;
  }

  #subclusterKind(table: CachedTable, index: number, number: number): ClusterKind {
    const { view } = table;
    const zero = view.getUint32(index * 16 + 8);
    const allocated = view.getUint32(index * 16 + 12);
    const placed = this.#hasPlace(view.getUint32(index * 16), view.getUint32(index * 16 + 4));
    if ((zero & allocated) !== 0 || (allocated !== 0 && !placed)) {
      throw this.#image.corrupt(
        `Invalid subcluster allocation (L2 offset: ${hex(table.offset)}, L2 index: ${hex(index)})`,
      );
    }
    if (((allocated >>> number) & 1) !== 0) return kind.NORMAL;
    if (((zero >>> number) & 1) !== 0) return placed ? kind.ZERO_ALLOCATED : kind.ZERO_PLAIN;
    return placed ? kind.RESERVED : kind.UNALLOCATED;
  }

  #hasPlace(high: number, low: number): boolean {
    return (high & OFFSET_HIGH) !== 0 || (low & OFFSET_LOW) !== 0 || (this.#dataIsExternal && high >= COPIED);
  }

  #kindOf(high: number, low: number): ClusterKind {
    if ((high & COMPRESSED) !== 0) return kind.COMPRESSED;
    const hasOffset = this.#hasPlace(high, low);
    if (this.entryBytes === 16) return hasOffset ? kind.NORMAL : kind.UNALLOCATED;
    if ((low & ZERO) !== 0 && this.#image.header.version >= 3) return hasOffset ? kind.ZERO_ALLOCATED : kind.ZERO_PLAIN;
    return hasOffset ? kind.NORMAL : kind.UNALLOCATED;
  }

  /**
   * What an entry of an L2 table holds on to, wherever the table lies. With extended entries NORMAL is all that has a
   * place, whatever its subclusters are.
   */
  decode(high: number, low: number): { readonly kind: ClusterKind; readonly host: number; readonly bytes: number } {
    const found = this.#kindOf(high, low);
    if (found === kind.COMPRESSED) {
      this.#examineCompressed(high, low);
      return { kind: found, host: this.host, bytes: this.compressedBytes };
    }
    return {
      kind: found,
      host: (high & OFFSET_HIGH) * 2 ** 32 + ((low & OFFSET_LOW) >>> 0),
      bytes: this.#image.clusterSize,
    };
  }

  /** {@link decode} of an entry of a slice. */
  at(slice: CachedTable, index: number): ReturnType<ClusterMap['decode']> {
    const at = index * this.entryBytes;
    return this.decode(slice.view.getUint32(at), slice.view.getUint32(at + 4));
  }

  /** Rewrites an entry; its subclusters stay what they are. */
  put(slice: CachedTable, index: number, high: number, low: number): void {
    slice.view.setUint32(index * this.entryBytes, high >>> 0);
    slice.view.setUint32(index * this.entryBytes + 4, low >>> 0);
    this.cache.markDirty(slice);
  }

  /** Points an entry to the cluster at `host`, which belongs to nobody else. */
  place(slice: CachedTable, index: number, host: number): void {
    this.put(slice, index, Math.floor(host / 2 ** 32) | COPIED, host);
  }

  /** Has a cluster read as zeroes; what it has a place for stays its own. */
  zero(slice: CachedTable, index: number): void {
    if (this.entryBytes === 16) this.putSubclusters(slice, index, ALL_SUBCLUSTERS, 0);
    else this.put(slice, index, slice.view.getUint32(index * 8), slice.view.getUint32(index * 8 + 4) | ZERO);
  }

  /** Empties an entry: what backs the image shows, or zeroes where `zero` is set. */
  clear(slice: CachedTable, index: number, zero: boolean): void {
    this.put(slice, index, 0, zero && this.entryBytes === 8 ? ZERO : 0);
    this.putSubclusters(slice, index, zero ? ALL_SUBCLUSTERS : 0, 0);
  }

  /** The subclusters of an entry that read as zeroes, a bit each. */
  zeroSubclusters(slice: CachedTable, index: number): number {
    return this.entryBytes === 16 ? slice.view.getUint32(index * 16 + 8) : 0;
  }

  /** The subclusters of an entry that are in the file, a bit each. */
  allocatedSubclusters(slice: CachedTable, index: number): number {
    return this.entryBytes === 16 ? slice.view.getUint32(index * 16 + 12) : 0;
  }

  /** Says what the subclusters of an entry are; entries that are not extended have none. */
  putSubclusters(slice: CachedTable, index: number, zero: number, allocated: number): void {
    if (this.entryBytes === 8) return;
    slice.view.setUint32(index * 16 + 8, zero >>> 0);
    slice.view.setUint32(index * 16 + 12, allocated >>> 0);
    this.cache.markDirty(slice);
  }

  /** A bit for each subcluster of its cluster that lies between two offsets in it. */
  subclusterBits(from: number, end: number): number {
    const first = Math.floor(from / this.subclusterSize);
    const last = Math.ceil(end / this.subclusterSize);
    return last <= first ? 0 : ((ALL_SUBCLUSTERS >>> (SUBCLUSTERS - last + first)) << first) >>> 0;
  }

  /** A compressed cluster's entry: an offset of 62 - (cluster_bits - 8) bits, then the number of further sectors. */
  #examineCompressed(high: number, low: number): void {
    if (this.#dataIsExternal) {
      throw this.#image.corrupt('Compressed cluster entry found in image with external data file');
    }
    const shift = this.#compressedShift;
    const bits = (high & 0x3fff_ffff) >>> 0;
    const offsetHigh = bits & (2 ** (shift - 32) - 1);
    this.host = offsetHigh * 2 ** 32 + low;
    const sectors = Math.floor(bits / 2 ** (shift - 32)) + 1;
    this.compressedBytes = sectors * 512 - (this.host % 512);
  }

  /** The upper and lower half of the entry for a compressed cluster. */
  compressedEntry(host: number, bytes: number): { high: number; low: number } {
    const sectors = Math.floor((host + bytes - 1) / 512) - Math.floor(host / 512);
    const high = (COMPRESSED | Math.floor(host / 2 ** 32)) + sectors * 2 ** (this.#compressedShift - 32);
    return { high: high >>> 0, low: host >>> 0 };
  }

  /** The slice with the entry for a guest offset, in a table that is ours alone: made or copied where need be. */
  *sliceForUpdate(offset: number): Task<CachedTable> {
    const l1Index = Math.floor(offset / this.l2Reach);
    if (l1Index >= this.l1.length) yield* this.growL1(l1Index + 1, false);
    if ((this.l1[l1Index] ?? 0) === 0 || !this.isCopied(l1Index)) yield* this.#ownTable(l1Index);
    return yield* this.cache.get(this.#sliceOffset(offset));
  }

  indexForUpdate(offset: number): number {
    return this.#indexInSlice(offset);
  }

  /** Clusters from `offset` to the end of its slice. */
  clustersInSlice(offset: number): number {
    return this.#perSlice - this.#indexInSlice(offset);
  }

  /** Gives the L1 entry a table of its own: empty, or a copy of the one that a snapshot shares. */
  *#ownTable(l1Index: number): Task {
    const { clusterSize } = this.#image;
    const before = this.l1[l1Index] ?? 0;
    const offset = yield* this.#refcounts.allocate(1);
    // The table must be counted before anything points to it.
    yield* this.#refcounts.cache.flush();
    this.#image.claim('active L2 table', offset, clusterSize);
    for (let at = 0; at < clusterSize; at += this.cache.entrySize) {
      const source = before === 0 ? undefined : (yield* this.cache.get(before + at)).bytes.slice();
      const slice = yield* this.cache.create(offset + at);
      if (source !== undefined) slice.bytes.set(source);
      this.cache.markDirty(slice);
    }
    yield* this.cache.flush();
    this.l1[l1Index] = offset;
    this.#copiedFlags[l1Index] = 1;
    yield* this.writeL1Entry(l1Index);
    if (before !== 0) yield* this.#refcounts.free(before, clusterSize, 'other');
  }

  *writeL1Entry(l1Index: number): Task {
    const bytes = new Uint8Array(8);
    this.#putL1(new DataView(bytes.buffer), 0, l1Index);
    yield* this.#image.write(this.#image.header.l1Offset + l1Index * 8, bytes);
  }

  /** @throws IoError where no L1 table can have that many entries */
  checkL1(entries: number): void {
    if (entries * 8 > MAX_L1_BYTES) throw new IoError(errno.EFBIG, 'Failed to grow the L1 table: File too large');
  }

  /** A longer L1 table in a new place. */
  *growL1(wanted: number, exact: boolean): Task {
    const { header, clusterSize } = this.#image;
    if (wanted <= this.l1.length) return;
    let size = wanted;
    if (!exact) {
      size = Math.max(1, this.l1.length);
      while (size < wanted) size = Math.ceil((size * 3) / 2);
    }
    this.checkL1(size);
    const before = { offset: header.l1Offset, size: header.l1Size };
    const offset = yield* this.#refcounts.allocate(Math.ceil((size * 8) / clusterSize));
    yield* this.#refcounts.cache.flush();
    const l1 = new Float64Array(size);
    l1.set(this.l1);
    const copied = new Uint8Array(size);
    copied.set(this.#copiedFlags);
    this.l1 = l1;
    this.#copiedFlags = copied;
    const bytes = new Uint8Array(Math.ceil((size * 8) / clusterSize) * clusterSize);
    bytes.set(this.l1Bytes());
    yield* this.#image.write(offset, bytes);
    yield* this.#image.flush();
    const pointer = new Uint8Array(12);
    const view = new DataView(pointer.buffer);
    view.setUint32(0, size);
    view.setBigUint64(4, BigInt(offset));
    yield* this.#image.write(headerOffset.L1_SIZE, pointer);
    yield* this.#image.flush();
    header.l1Offset = offset;
    header.l1Size = size;
    this.#image.claim('active L1 table', offset, size * 8);
    if (before.size > 0) {
      this.#image.release(before.offset, before.size * 8);
      yield* this.#refcounts.free(before.offset, before.size * 8, 'other');
    }
  }
}

/** The entries of an L1 table: offsets, and which are marked as used once. */
export function parseL1(bytes: Uint8Array): { l1: Float64Array; copied: Uint8Array } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const l1 = new Float64Array(bytes.length / 8);
  const copied = new Uint8Array(l1.length);
  for (let index = 0; index < l1.length; index++) {
    const high = view.getUint32(index * 8);
    l1[index] = (high & OFFSET_HIGH) * 2 ** 32 + ((view.getUint32(index * 8 + 4) & OFFSET_LOW) >>> 0);
    copied[index] = high >= COPIED ? 1 : 0;
  }
  return { l1, copied };
}
