import { errno, IoError } from '../io-error.ts';
import type { Task } from '../pending.ts';
import { headerOffset } from './header.ts';
import { hex, type Qcow2Image } from './image.ts';
import { MetadataCache } from './metadata-cache.ts';
import { type RefcountWidth, refcountWidths } from './refcount-width.ts';

/** The refcount table's largest size, in bytes. */
const MAX_TABLE = 8 << 20;

/** Bits 9 to 63 of an entry: the offset of a block. */
const OFFSET_LOW = 0xffff_fe00;

/** Why clusters are freed: decides whether the host hears of it. */
export type FreeReason = 'request' | 'snapshot' | 'other';

/** Which clusters of the file are in use, and how often: table, blocks, and the allocation of clusters. */
export class Refcounts {
  readonly #image: Qcow2Image;
  readonly cache: MetadataCache;
  readonly width: RefcountWidth;
  /** Clusters that one block counts. */
  readonly perBlock: number;
  #table = new Float64Array(0);
  /** No cluster before this one is free. */
  #firstFree = 0;
  /** Where the next compressed cluster may begin, within a cluster that has some already; 0 for nowhere. */
  #freeByte = 0;
  /** The cache of L2 tables: a cluster must not be freed before the tables have let go of it. */
  users: MetadataCache | undefined;
  /** Called for each stretch of clusters that became free. */
  onFree: (offset: number, bytes: number, reason: FreeReason) => void = () => {};
  /**
   * Clusters that are free, but that tables on the disk may still point to: what is written there now would show in
   * their place after a crash. They may be used again once the tables are on the disk.
   */
  readonly quarantine = new Set<number>();

  constructor(image: Qcow2Image, cacheBytes: number) {
    this.#image = image;
    this.width = refcountWidths[image.header.refcountOrder] ?? noSuchWidth();
    this.perBlock = (image.clusterSize * 8) / this.width.bits;
    this.cache = new MetadataCache(image, image.clusterSize, Math.ceil(cacheBytes / image.clusterSize));
  }

  /** Another size, in bytes, for a cache that is empty. */
  resizeCache(cacheBytes: number): void {
    this.cache.resize(this.cache.entrySize, Math.ceil(cacheBytes / this.cache.entrySize));
  }

  /** Reads the table. */
  *load(): Task {
    const { header, clusterSize } = this.#image;
    const bytes = yield* this.#image.read(header.refcountTableOffset, header.refcountTableClusters * clusterSize);
    const view = new DataView(bytes.buffer);
    this.#table = new Float64Array(bytes.length / 8);
    for (let index = 0; index < this.#table.length; index++) {
      this.#table[index] = view.getUint32(index * 8) * 2 ** 32 + ((view.getUint32(index * 8 + 4) & OFFSET_LOW) >>> 0);
    }
    this.#image.claim('refcount table', header.refcountTableOffset, bytes.length);
    for (const offset of this.#table) if (offset !== 0) this.#image.claim('refcount block', offset, clusterSize);
  }

  /** Offsets of the blocks by index; 0 where there is none. */
  get table(): Float64Array {
    return this.#table;
  }

  /** How often the cluster of that number is used. */
  *get(cluster: number): Task<number> {
    const block = Math.floor(cluster / this.perBlock);
    const offset = this.#blockOffset(block);
    if (offset === 0) return 0;
    const entry = yield* this.cache.get(offset);
    return this.width.get(entry.view, cluster - block * this.perBlock);
  }

  #blockOffset(block: number): number {
    const offset = this.#table[block] ?? 0;
    if (offset % this.#image.clusterSize !== 0) {
      throw this.#image.corrupt(`Refblock offset ${hex(offset)} unaligned (reftable index: ${hex(block)})`);
    }
    return offset;
  }

  /**
   * Takes `count` clusters in a row that nobody uses.
   *
   * @returns where they begin, in bytes
   */
  *allocate(count: number): Task<number> {
    for (;;) {
      const first = yield* this.#findFree(count);
      if (!(yield* this.#blocksExist(first, count))) {
        // The new block may have taken what was found.
        this.#firstFree = Math.min(this.#firstFree, first);
        continue;
      }
      this.#checkFree(first, count);
      yield* this.add(first, count, 1, 'other');
      return first * this.#image.clusterSize;
    }
  }

  /** Takes space for `bytes` bytes of compressed data, at most a cluster; several of them share clusters. */
  *allocateBytes(bytes: number): Task<number> {
    const { clusterSize } = this.#image;
    if (this.#freeByte !== 0) {
      const cluster = Math.floor(this.#freeByte / clusterSize);
      const left = clusterSize - (this.#freeByte % clusterSize);
      const used = yield* this.get(cluster);
      if (used > 0 && used < this.width.max) {
        if (bytes <= left) {
          yield* this.add(cluster, 1, 1, 'other');
          const offset = this.#freeByte;
          this.#freeByte = bytes === left ? 0 : offset + bytes;
          return offset;
        }
        // It may go on in the next cluster if that one is free.
        const offset = this.#freeByte;
        if (
          !this.quarantine.has(cluster + 1) &&
          (yield* this.get(cluster + 1)) === 0 &&
          (yield* this.#blocksExist(cluster + 1, 1)) &&
          (yield* this.get(cluster + 1)) === 0
        ) {
          this.#checkFree(cluster + 1, 1);
          yield* this.add(cluster, 2, 1, 'other');
          this.#freeByte = offset + bytes;
          return offset;
        }
      }
    }
    const offset = yield* this.allocate(1);
    this.#freeByte = bytes === clusterSize ? 0 : offset + bytes;
    return offset;
  }

  *#findFree(count: number): Task<number> {
    const { perBlock } = this;
    let cluster = this.#firstFree;
    let run = 0;
    while (run < count) {
      const block = Math.floor(cluster / perBlock);
      const blockEnd = (block + 1) * perBlock;
      const offset = this.#blockOffset(block);
      if (offset === 0) {
        const step = Math.min(count - run, blockEnd - cluster);
        run += step;
        cluster += step;
        continue;
      }
      const { view } = yield* this.cache.get(offset);
      for (; cluster < blockEnd && run < count; cluster++) {
        run = this.width.get(view, cluster - block * perBlock) === 0 && !this.quarantine.has(cluster) ? run + 1 : 0;
      }
    }
    if (cluster * this.#image.clusterSize > 2 ** 52) throw new IoError(errno.EFBIG);
    this.#firstFree = cluster;
    return cluster - count;
  }

  #checkFree(first: number, count: number): void {
    for (let cluster = first; cluster < first + count; cluster++) {
      const table = this.#image.tables.get(cluster);
      if (table === undefined && cluster !== 0) continue;
      throw this.#image.corrupt(
        `Preventing invalid write on metadata (overlaps with ${table ?? 'main image header'})`,
        cluster * this.#image.clusterSize,
        this.#image.clusterSize,
      );
    }
  }

  /** Whether there are blocks for all of these clusters; where one is missing it is made, and the answer is no. */
  *#blocksExist(first: number, count: number): Task<boolean> {
    const last = Math.floor((first + count - 1) / this.perBlock);
    for (let block = Math.floor(first / this.perBlock); block <= last; block++) {
      if (this.#blockOffset(block) !== 0) continue;
      yield* this.#makeBlock(block);
      return false;
    }
    return true;
  }

  *#makeBlock(block: number): Task {
    if (block >= this.#table.length) {
      yield* this.#growTable(block);
      return;
    }
    const { clusterSize } = this.#image;
    const cluster = yield* this.#findFree(1);
    const home = Math.floor(cluster / this.perBlock);
    if (home !== block && this.#blockOffset(home) === 0) {
      this.#firstFree = cluster;
      yield* this.#makeBlock(home);
      return;
    }
    this.#checkFree(cluster, 1);
    const offset = cluster * clusterSize;
    const entry = yield* this.cache.create(offset);
    // A block may count the cluster it lies in itself.
    if (home === block) this.width.set(entry.view, cluster - block * this.perBlock, 1);
    this.cache.markDirty(entry);
    if (home !== block) yield* this.add(cluster, 1, 1, 'other');
    // The block must be there before the table says so.
    yield* this.cache.flush();
    yield* this.#image.write(this.#image.header.refcountTableOffset + block * 8, entryBytes(offset));
    this.#table[block] = offset;
    this.#image.claim('refcount block', offset, clusterSize);
  }

  /** A larger table, behind all that the old one could count, with blocks that count it and themselves. */
  *#growTable(wanted: number): Task {
    const { header, clusterSize } = this.#image;
    const start = this.#table.length * this.perBlock;
    let entries = 0;
    let tableClusters = 0;
    let blocks = 0;
    for (let total = 0; ; ) {
      const needed = Math.max(
        Math.ceil(this.#table.length * 1.5),
        wanted + 1,
        Math.ceil((start + total) / this.perBlock),
      );
      tableClusters = Math.ceil((needed * 8) / clusterSize);
      entries = (tableClusters * clusterSize) / 8;
      blocks = Math.ceil((tableClusters + Math.max(1, blocks)) / this.perBlock);
      if (tableClusters + blocks === total) break;
      total = tableClusters + blocks;
    }
    if (tableClusters * clusterSize > MAX_TABLE) throw new IoError(errno.EFBIG);
    const firstBlock = this.#table.length;
    const tableOffset = (start + blocks) * clusterSize;
    const table = new Float64Array(entries);
    table.set(this.#table);
    for (let index = 0; index < blocks; index++) {
      const bytes = new Uint8Array(clusterSize);
      const view = new DataView(bytes.buffer);
      const counted = Math.min(this.perBlock, blocks + tableClusters - index * this.perBlock);
      for (let cluster = 0; cluster < counted; cluster++) this.width.set(view, cluster, 1);
      table[firstBlock + index] = (start + index) * clusterSize;
      yield* this.#image.write((start + index) * clusterSize, bytes);
    }
    yield* this.cache.write();
    const bytes = new Uint8Array(entries * 8);
    const view = new DataView(bytes.buffer);
    for (const [index, offset] of table.entries()) {
      view.setUint32(index * 8, Math.floor(offset / 2 ** 32));
      view.setUint32(index * 8 + 4, offset >>> 0);
    }
    yield* this.#image.write(tableOffset, bytes);
    yield* this.#image.flush();
    const pointer = new Uint8Array(12);
    pointer.set(entryBytes(tableOffset));
    new DataView(pointer.buffer).setUint32(8, tableClusters);
    yield* this.#image.write(headerOffset.REFCOUNT_TABLE, pointer);
    yield* this.#image.flush();
    const before = { offset: header.refcountTableOffset, clusters: header.refcountTableClusters };
    header.refcountTableOffset = tableOffset;
    header.refcountTableClusters = tableClusters;
    this.#table = table;
    this.#image.claim('refcount table', tableOffset, tableClusters * clusterSize);
    this.#image.claim('refcount block', start * clusterSize, blocks * clusterSize);
    this.#image.release(before.offset, before.clusters * clusterSize);
    yield* this.add(before.offset / clusterSize, before.clusters, -1, 'other');
  }

  /**
   * Changes the counts of `count` clusters by `delta`.
   *
   * @throws IoError ERANGE where a count would not fit, EIO where it would fall below 0; what was changed is changed back
   */
  *add(first: number, count: number, delta: number, reason: FreeReason): Task {
    if (delta < 0 && this.users !== undefined) yield* this.cache.dependOn(this.users);
    const { clusterSize } = this.#image;
    for (let done = 0; done < count; ) {
      const block = Math.floor((first + done) / this.perBlock);
      const offset = this.#blockOffset(block);
      if (offset === 0) {
        yield* this.#undo(first, done, delta);
        throw this.#image.corrupt(
          `Cluster 0x${((first + done) * clusterSize).toString(16)} is used but not counted`,
          (first + done) * clusterSize,
          clusterSize,
        );
      }
      const entry = yield* this.cache.get(offset);
      const from = first + done - block * this.perBlock;
      const part = Math.min(count - done, this.perBlock - from);
      let freedAt = -1;
      for (let index = from; index < from + part; index++) {
        const value = this.width.get(entry.view, index) + delta;
        if (value < 0 || value > this.width.max) {
          yield* this.#undo(first, done + index - from, delta);
          throw value < 0
            ? new IoError(errno.EINVAL, 'A cluster is used more often than it is counted')
            : new IoError(errno.ERANGE, 'A cluster is used more often than its refcount can say');
        }
        this.width.set(entry.view, index, value);
        if (value === 0) {
          const cluster = block * this.perBlock + index;
          if (freedAt < 0) freedAt = cluster;
          this.#freed(cluster);
        } else if (freedAt >= 0) {
          this.onFree(freedAt * clusterSize, (block * this.perBlock + index - freedAt) * clusterSize, reason);
          freedAt = -1;
        }
      }
      this.cache.markDirty(entry);
      if (freedAt >= 0)
        this.onFree(freedAt * clusterSize, (block * this.perBlock + from + part - freedAt) * clusterSize, reason);
      done += part;
    }
  }

  *#undo(first: number, done: number, delta: number): Task {
    if (done > 0) yield* this.add(first, done, -delta, 'other');
  }

  #freed(cluster: number): void {
    const { clusterSize, tables } = this.#image;
    this.quarantine.add(cluster);
    const offset = cluster * clusterSize;
    if (Math.floor(this.#freeByte / clusterSize) === cluster) this.#freeByte = 0;
    if (!tables.has(cluster)) return;
    tables.delete(cluster);
    this.cache.forget(offset);
    if (this.users === undefined) return;
    for (let slice = 0; slice < clusterSize; slice += this.users.entrySize) this.users.forget(offset + slice);
  }

  /** Lets go of the clusters that `bytes` bytes at `offset` lie in. */
  *free(offset: number, bytes: number, reason: FreeReason): Task {
    const { clusterSize } = this.#image;
    const first = Math.floor(offset / clusterSize);
    const end = Math.ceil((offset + bytes) / clusterSize);
    yield* this.add(first, end - first, -1, reason);
  }

  /** The number of the last cluster that is in use. */
  *lastUsed(): Task<number> {
    for (let block = this.#table.length - 1; block >= 0; block--) {
      const offset = this.#blockOffset(block);
      if (offset === 0) continue;
      const { view } = yield* this.cache.get(offset);
      for (let index = this.perBlock - 1; index >= 0; index--) {
        if (this.width.get(view, index) !== 0) return block * this.perBlock + index;
      }
    }
    return 0;
  }

  /** The tables are on the disk: what they let go of may be used again. */
  release(): void {
    for (const cluster of this.quarantine) this.#firstFree = Math.min(this.#firstFree, cluster);
    this.quarantine.clear();
  }

  /** Takes no cluster before this one from now on: while the counts are not to be believed. */
  startAt(cluster: number): void {
    this.#firstFree = cluster;
    this.#freeByte = 0;
  }

  /** Sets a count, whatever it was. */
  *set(cluster: number, value: number): Task {
    const block = Math.floor(cluster / this.perBlock);
    if (value > this.width.max) throw new IoError(errno.ERANGE);
    while (!(yield* this.#blocksExist(cluster, 1)));
    const entry = yield* this.cache.get(this.#blockOffset(block));
    this.width.set(entry.view, cluster - block * this.perBlock, value);
    this.cache.markDirty(entry);
  }
}

function entryBytes(offset: number): Uint8Array {
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(offset));
  return bytes;
}

function noSuchWidth(): RefcountWidth {
  throw new IoError(errno.EINVAL, 'Reference count entry width too large; may not exceed 64 bits');
}
