import type { BlockDriver } from '../driver.ts';
import type { BlockGraph } from '../graph.ts';
import { errno, errnoOf, IoError } from '../io-error.ts';
import { IoVector } from '../io-vector.ts';
import { BlockNode, type BlockStatus, type NodeSettings, type TruncateOptions, writeFlag } from '../node.ts';
import { all, type Maybe, Mutex, type Pending, settle, start, startFor, type Task } from '../pending.ts';
import { type Permissions, perm } from '../permissions.ts';
import { ClusterMap, COPIED, kind, ZERO } from './cluster-map.ts';
import { type Compression, compressionOf } from './compression.ts';
import { compatible, headerOffset, incompatible } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { type FreeReason, Refcounts } from './refcounts.ts';
import { resize } from './resize.ts';
import { Snapshots } from './snapshots.ts';

/** More freed clusters than this are not kept waiting for the guest to flush. */
const QUARANTINE_LIMIT = 4096;

/** How much of the tables is kept in memory, in bytes. */
export interface CacheSizes {
  readonly l2: number;
  readonly l2Entry: number;
  readonly refcount: number;
}

/** Which freed clusters the host is told of. */
export type DiscardPolicy = { readonly [Reason in FreeReason]: boolean };

/** Clusters that a write has taken and whose tables do not say so yet. */
interface Allocation {
  /** The guest's, cluster-aligned. */
  readonly start: number;
  readonly end: number;
  readonly host: number;
  /** The clusters were there before, as preallocated zeroes. */
  readonly reused: boolean;
  /** Nothing but zeroes is in the file where the clusters lie. */
  readonly fresh: boolean;
  readonly done: Promise<void>;
  readonly finish: () => void;
}

/** A qcow2 image. */
export class Qcow2Node extends BlockNode {
  readonly image: Qcow2Image;
  readonly refcounts: Refcounts;
  readonly map: ClusterMap;
  readonly snapshots: Snapshots;
  readonly discardPolicy: DiscardPolicy;
  /** Held by whoever looks into the tables or changes them. */
  readonly lock = new Mutex();
  readonly #compression: Compression;
  readonly #allocations = new Set<Allocation>();
  #freed: { readonly offset: number; readonly bytes: number }[] = [];
  /** The compressed cluster that was read last: neighbours are often read one after the other. */
  #unpacked: { readonly host: number; readonly data: Uint8Array } | undefined;

  constructor(
    graph: BlockGraph,
    driver: BlockDriver,
    settings: NodeSettings,
    image: Qcow2Image,
    caches: CacheSizes,
    discardPolicy: DiscardPolicy,
    lazyRefcounts: boolean,
  ) {
    super(graph, driver, settings);
    this.image = image;
    this.lazyRefcounts = lazyRefcounts;
    this.discardPolicy = discardPolicy;
    this.refcounts = new Refcounts(image, caches.refcount);
    this.map = new ClusterMap(
      image,
      this.refcounts,
      caches.l2,
      caches.l2Entry,
      (image.header.incompatible & incompatible.DATA_FILE) !== 0,
    );
    this.snapshots = new Snapshots(this);
    this.refcounts.onFree = (offset, bytes, reason) => {
      this.#unpacked = undefined;
      if (discardPolicy[reason]) this.#freed.push({ offset, bytes });
    };
    this.#compression = compressionOf(image.header.compression);
  }

  readonly lazyRefcounts: boolean;

  override get length(): number {
    return Math.ceil(this.image.header.size / 512) * 512;
  }

  /** Where guest data lies: the image file itself, or the external data file. */
  get data(): BlockNode {
    return this.image.data ?? this.image.file;
  }

  get #external(): boolean {
    return this.image.data !== undefined;
  }

  override childReplaced(name: string, node: BlockNode): void {
    if (name === 'file') this.image.file = node;
    else if (name === 'data-file') this.image.data = node;
  }

  *#locked<T>(task: Task<T>): Task<T> {
    const waiting = this.lock.lock();
    if (waiting) yield waiting;
    try {
      return yield* task;
    } finally {
      this.lock.unlock();
    }
  }

  /** Runs `task` with the tables locked. */
  exclusively<T>(task: Task<T>): Task<T> {
    return this.#locked(task);
  }

  #checkUsable(): void {
    if (this.image.broken) throw new IoError(errno.ENOMEDIUM);
  }

  *#debug(event: string): Task {
    if (!this.graph.debugging) return;
    const waiting = this.image.file.debugEvent(event);
    if (waiting) yield waiting;
  }

  *#lookup(offset: number, bytes: number): Task {
    if (this.map.lookupCached(offset, bytes)) return;
    yield* this.#locked(this.map.lookup(offset, bytes));
  }

  protected override pread(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    this.#checkUsable();
    const { map } = this;
    if (!this.graph.debugging && map.lookupCached(offset, bytes) && map.kind === kind.NORMAL && map.length === bytes) {
      return this.data.readv(map.host, bytes, iov, at);
    }
    return start(this.#read(offset, bytes, iov, at));
  }

  *#read(offset: number, bytes: number, iov: IoVector, at: number): Task {
    const { map } = this;
    const parts: Pending[] = [];
    for (let done = 0; done < bytes; ) {
      yield* this.#lookup(offset + done, bytes - done);
      const { length, host } = map;
      switch (map.kind) {
        case kind.NORMAL:
          yield* this.#debug('read_aio');
          parts.push(this.data.readv(host, length, iov, at + done));
          break;
        case kind.ZERO_PLAIN:
        case kind.ZERO_ALLOCATED:
          iov.fill(at + done, length, 0);
          break;
        case kind.COMPRESSED:
          parts.push(start(this.#readCompressed(host, map.compressedBytes, offset + done, length, iov, at + done)));
          break;
        case kind.UNALLOCATED: {
          const { backing } = this;
          if (backing === undefined) iov.fill(at + done, length, 0);
          else parts.push(backing.readv(offset + done, length, iov, at + done));
          break;
        }
      }
      done += length;
    }
    yield* all(parts);
  }

  *#readCompressed(host: number, packedBytes: number, offset: number, bytes: number, iov: IoVector, at: number): Task {
    const { clusterSize } = this.image;
    let data = this.#unpacked?.host === host ? this.#unpacked.data : undefined;
    if (data === undefined) {
      const packed = yield* this.image.read(host, packedBytes);
      data = this.#compression.decompress(packed, clusterSize);
      this.#unpacked = { host, data };
    }
    iov.scatter(at, data, offset % clusterSize, bytes);
  }

  protected override pwrite(offset: number, bytes: number, iov: IoVector, at: number, flags: number): Pending {
    this.#checkUsable();
    if ((flags & writeFlag.COMPRESSED) !== 0) return start(this.#writeCompressed(offset, bytes, iov, at));
    const { map } = this;
    if (
      !this.graph.debugging &&
      this.#allocations.size === 0 &&
      map.lookupCached(offset, bytes) &&
      map.kind === kind.NORMAL &&
      map.copied &&
      map.length === bytes
    ) {
      if (!this.#external) this.image.guardData(map.host, bytes);
      return this.data.writev(map.host, bytes, iov, at);
    }
    return start(this.#write(offset, bytes, iov, at));
  }

  *#write(offset: number, bytes: number, iov: IoVector, at: number): Task {
    const parts: Pending[] = [];
    try {
      for (let done = 0; done < bytes; ) {
        const from = offset + done;
        const left = bytes - done;
        yield* this.#awaitAllocations(from, left);
        const waiting = this.lock.lock();
        if (waiting) yield waiting;
        let allocation: Allocation | undefined;
        let host = 0;
        let length = 0;
        try {
          // While we waited for the lock, somebody else may have begun to write here.
          if (this.#overlapping(from, left) !== undefined) continue;
          yield* this.map.lookup(from, left);
          ({ host, length } = this.map);
          if (this.map.kind !== kind.NORMAL || !this.map.copied) {
            allocation = yield* this.#allocate(from, left);
            length = Math.min(left, allocation.end - from);
          }
        } finally {
          this.lock.unlock();
        }
        if (allocation === undefined) {
          if (!this.#external) this.image.guardData(host, length);
          yield* this.#debug('write_aio');
          parts.push(this.data.writev(host, length, iov, at + done));
        } else {
          parts.push(start(this.#fill(allocation, from, length, iov, at + done)));
        }
        done += length;
      }
    } finally {
      yield* all(parts);
    }
  }

  #overlapping(offset: number, bytes: number): Allocation | undefined {
    for (const allocation of this.#allocations) {
      if (allocation.start < offset + bytes && offset < allocation.end) return allocation;
    }
    return undefined;
  }

  *#awaitAllocations(offset: number, bytes: number): Task {
    for (let other = this.#overlapping(offset, bytes); other !== undefined; other = this.#overlapping(offset, bytes)) {
      yield other.done;
    }
  }

  /** Takes clusters for a write at `offset`: as many as it needs in a row. Called with the lock held, after a lookup. */
  *#allocate(offset: number, bytes: number): Task<Allocation> {
    const { clusterSize } = this.image;
    const { map } = this;
    const startAt = offset - (offset % clusterSize);
    const reuse = map.kind === kind.ZERO_ALLOCATED && map.copied;
    let clusters = Math.ceil((offset + Math.min(bytes, map.length) - startAt) / clusterSize);
    let host = map.host - (offset % clusterSize);
    if (!reuse) {
      if (map.kind === kind.UNALLOCATED || map.kind === kind.ZERO_PLAIN || map.kind === kind.NORMAL) {
        clusters = Math.min(clusters, map.clustersInSlice(offset));
      } else {
        clusters = 1;
      }
      if (this.refcounts.quarantine.size > QUARANTINE_LIMIT) yield* this.#releaseFreed();
      yield* this.markDirty();
      // The table comes first: it would not be good to find out later that there is no room for it.
      yield* map.sliceForUpdate(offset);
      host = this.#external ? startAt : yield* this.refcounts.allocate(clusters);
    }
    let finish = (): void => {};
    const done = new Promise<void>(resolve => {
      finish = resolve;
    });
    const fresh = !reuse && !this.#external && host >= this.image.file.length && !this.image.file.children.size;
    const allocation = {
      start: startAt,
      end: startAt + clusters * clusterSize,
      host,
      reused: reuse,
      fresh,
      done,
      finish,
    };
    this.#allocations.add(allocation);
    return allocation;
  }

  /** Writes into new clusters, with what else belongs into them, and then has the tables say so. */
  *#fill(allocation: Allocation, offset: number, bytes: number, iov: IoVector, at: number): Task {
    try {
      yield* this.#debug('write_aio');
      const head = offset - allocation.start;
      const tail = allocation.end - offset - bytes;
      let copied = false;
      try {
        copied = yield* this.#writeClusters(allocation, head, tail, offset, bytes, iov, at);
      } catch (error) {
        if (!allocation.reused && !this.#external) {
          yield* this.#locked(this.refcounts.free(allocation.host, allocation.end - allocation.start, 'other'));
        }
        throw error;
      }
      yield* this.#locked(this.#link(allocation, copied));
    } finally {
      this.#allocations.delete(allocation);
      allocation.finish();
    }
  }

  /** @returns whether more than the guest's own data had to be written */
  *#writeClusters(
    allocation: Allocation,
    head: number,
    tail: number,
    offset: number,
    bytes: number,
    iov: IoVector,
    at: number,
  ): Task<boolean> {
    const { host } = allocation;
    if (head === 0 && tail === 0) {
      const writing = this.data.writev(host, bytes, iov, at);
      if (writing) yield writing;
      return false;
    }
    const headZero = head === 0 || allocation.reused || (yield* this.#isZero(allocation.start, head));
    const tailZero = tail === 0 || allocation.reused || (yield* this.#isZero(offset + bytes, tail));
    if (headZero && tailZero && allocation.fresh) {
      const writing = this.data.writev(host + head, bytes, iov, at);
      if (writing) yield writing;
      return false;
    }
    // Not by readv: what waits for this write would be waited for.
    const around = new Uint8Array(head + tail);
    const aroundIov = IoVector.of(around);
    if (!headZero) {
      yield* this.#read(allocation.start, head, aroundIov, 0);
    }
    if (!tailZero) {
      yield* this.#read(offset + bytes, tail, aroundIov, head);
    }
    const whole = new IoVector().add(around, 0, head);
    iov.forEach(at, bytes, (base, from, length) => {
      whole.add(base, from, length);
    });
    whole.add(around, head, tail);
    const writing = this.data.writev(host, whole.length, whole);
    if (writing) yield writing;
    return true;
  }

  *#isZero(offset: number, bytes: number): Task<boolean> {
    for (let done = 0; done < bytes; ) {
      yield* this.#lookup(offset + done, bytes - done);
      const found = this.map.kind;
      const { length } = this.map;
      if (found === kind.UNALLOCATED) {
        const { backing } = this;
        if (backing !== undefined && offset + done < backing.length) {
          const status = yield* settle(backing.status(offset + done, length));
          if (!status.zero) return false;
          done += Math.min(length, status.bytes);
          continue;
        }
      } else if (found !== kind.ZERO_PLAIN && found !== kind.ZERO_ALLOCATED) {
        return false;
      }
      done += length;
    }
    return true;
  }

  /** Writes the clusters' places into the L2 table, and lets go of what was there before. */
  *#link(allocation: Allocation, copied: boolean): Task {
    const { clusterSize } = this.image;
    const { map, refcounts } = this;
    const count = (allocation.end - allocation.start) / clusterSize;
    if (!this.lazyRefcounts && !this.#external) yield* map.cache.dependOn(refcounts.cache);
    const old: { offset: number; bytes: number }[] = [];
    for (let done = 0; done < count; ) {
      const guest = allocation.start + done * clusterSize;
      const slice = yield* map.sliceForUpdate(guest);
      const first = map.indexForUpdate(guest);
      const part = Math.min(count - done, map.clustersInSlice(guest));
      for (let index = 0; index < part; index++) {
        const host = allocation.host + (done + index) * clusterSize;
        map.lookupCached(guest + index * clusterSize, clusterSize);
        if (map.kind === kind.COMPRESSED) old.push({ offset: map.host, bytes: map.compressedBytes });
        else if (
          (map.kind === kind.NORMAL || map.kind === kind.ZERO_ALLOCATED) &&
          !allocation.reused &&
          !this.#external
        ) {
          old.push({ offset: map.host, bytes: clusterSize });
        }
        slice.view.setUint32((first + index) * 8, (Math.floor(host / 2 ** 32) | COPIED) >>> 0);
        slice.view.setUint32((first + index) * 8 + 4, host >>> 0);
      }
      map.cache.markDirty(slice);
      // What was copied must not be lost once the table no longer points to where it came from.
      if (copied) map.cache.dependOnFlush();
      done += part;
    }
    for (const { offset, bytes } of old) yield* refcounts.free(offset, bytes, 'other');
  }

  *#writeCompressed(offset: number, bytes: number, iov: IoVector, at: number): Task {
    const { clusterSize } = this.image;
    if (this.#external) throw new IoError(errno.EOPNOTSUPP);
    for (let done = 0; done < bytes; done += clusterSize) {
      const from = offset + done;
      const size = Math.min(clusterSize, bytes - done);
      const whole = from % clusterSize === 0 && (size === clusterSize || from + size >= this.length);
      if (!whole) throw new IoError(errno.EINVAL);
      const plain = new Uint8Array(clusterSize);
      iov.gather(at + done, plain, 0, size);
      const packed = this.#compression.compress(plain);
      if (packed === undefined) {
        yield* this.#write(from, size, iov, at + done);
        continue;
      }
      yield* this.#awaitAllocations(from, clusterSize);
      yield* this.#locked(this.#storeCompressed(from, packed));
    }
  }

  *#storeCompressed(offset: number, packed: Uint8Array): Task {
    const { map, refcounts } = this;
    yield* this.markDirty();
    yield* map.sliceForUpdate(offset);
    const host = yield* refcounts.allocateBytes(packed.length);
    const writing = this.image.file.writev(host, packed.length, IoVector.of(packed));
    if (writing) yield writing;
    if (!this.lazyRefcounts) yield* map.cache.dependOn(refcounts.cache);
    const slice = yield* map.sliceForUpdate(offset);
    const index = map.indexForUpdate(offset);
    const { high, low } = map.compressedEntry(host, packed.length);
    yield* this.#replaceEntry(
      offset,
      () => {
        slice.view.setUint32(index * 8, high);
        slice.view.setUint32(index * 8 + 4, low);
        map.cache.markDirty(slice);
      },
      'other',
    );
  }

  /** Has `change` rewrite the entry of a cluster, and lets go of what it pointed to. The slice is in memory. */
  *#replaceEntry(guest: number, change: () => void, reason: FreeReason): Task {
    const { map } = this;
    const before = map.inspect(guest);
    const { host, compressedBytes } = map;
    const base = host - (guest % this.image.clusterSize);
    change();
    if (before === kind.COMPRESSED) yield* this.refcounts.free(host, compressedBytes, reason);
    else if (before === kind.NORMAL || before === kind.ZERO_ALLOCATED) {
      if (!this.#external) yield* this.refcounts.free(base, this.image.clusterSize, reason);
      else if (this.discardPolicy[reason]) yield* this.#discardHost(base, this.image.clusterSize);
    }
  }

  *#discardHost(offset: number, bytes: number): Task {
    try {
      const request = this.data.discard(offset, bytes);
      if (request) yield request;
    } catch {
      // The host keeps the blocks: nothing is lost.
    }
  }

  /**
   * Takes clusters for as much as can be had in a row from `offset` on. The lock is held.
   *
   * @returns where they are; 0 bytes where the first cluster has one already
   */
  *preallocateSome(offset: number, bytes: number): Task<{ readonly host: number; readonly bytes: number }> {
    yield* this.map.lookup(offset, bytes);
    if (this.map.kind === kind.NORMAL || this.map.kind === kind.COMPRESSED) return { host: this.map.host, bytes: 0 };
    const allocation = yield* this.#allocate(offset, bytes);
    try {
      if (!allocation.fresh) {
        const zeroing = this.data.writeZeroes(allocation.host, allocation.end - allocation.start);
        if (zeroing) yield zeroing;
      }
      yield* this.#link(allocation, false);
    } finally {
      this.#allocations.delete(allocation);
      allocation.finish();
    }
    return { host: allocation.host, bytes: allocation.end - allocation.start };
  }

  /** With lazy refcounts the image says that its counts are not to be believed before they stop being right. */
  *markDirty(): Task {
    if (this.lazyRefcounts) yield* this.image.setIncompatible(incompatible.DIRTY, true);
  }

  protected override pwriteZeroes(offset: number, bytes: number, flags: number): Pending {
    this.#checkUsable();
    return this.#alone(offset, bytes, () => this.#writeZeroes(offset, bytes, flags));
  }

  /** Runs what frees clusters while no request that may use them is under way. */
  #alone(offset: number, bytes: number, task: () => Task): Pending {
    const { clusterSize } = this.image;
    const from = offset - (offset % clusterSize);
    const end = Math.ceil((offset + bytes) / clusterSize) * clusterSize;
    return this.tracked.serialise(from, end - from, () => start(task()));
  }

  *#writeZeroes(offset: number, bytes: number, flags: number): Task {
    const { clusterSize, header } = this.image;
    const end = offset + bytes;
    let from = offset;
    if (this.image.rawData) yield* this.#zeroRawData(offset, bytes, flags);
    const headEnd = Math.min(end, Math.ceil(offset / clusterSize) * clusterSize);
    if (headEnd > from) {
      yield* this.#zeroPart(from, headEnd - from, flags);
      from = headEnd;
    }
    const tailStart = end >= this.length ? end : end - (end % clusterSize);
    while (from < tailStart) {
      const waiting = this.lock.lock();
      if (waiting) yield waiting;
      try {
        from += yield* this.#zeroClusters(from, Math.ceil((tailStart - from) / clusterSize), flags, header.version);
      } finally {
        this.lock.unlock();
      }
    }
    if (end > Math.max(from, tailStart)) yield* this.#zeroPart(tailStart, end - tailStart, flags);
  }

  /** A raw data file holds what the guest sees, whatever the tables say. */
  *#zeroRawData(offset: number, bytes: number, flags: number): Task {
    const zeroing = this.data.writeZeroes(offset, Math.min(bytes, this.data.length - offset), flags);
    if (zeroing) yield zeroing;
  }

  /** Zeroes a part of one cluster: the whole of it if the rest is zero anyway. */
  *#zeroPart(offset: number, bytes: number, flags: number): Task {
    const { clusterSize } = this.image;
    const startAt = offset - (offset % clusterSize);
    const rest = startAt + clusterSize - offset - bytes;
    if (yield* this.#isZero(offset, bytes)) return;
    const restZero =
      (yield* this.#isZero(startAt, offset - startAt)) && (yield* this.#isZero(offset + bytes, Math.max(0, rest)));
    if (restZero && this.image.header.version >= 3) {
      const waiting = this.lock.lock();
      if (waiting) yield waiting;
      try {
        yield* this.#zeroClusters(startAt, 1, flags, 3);
      } finally {
        this.lock.unlock();
      }
      return;
    }
    if ((flags & writeFlag.NO_FALLBACK) !== 0) throw new IoError(errno.EOPNOTSUPP);
    yield* this.#write(offset, bytes, IoVector.of(new Uint8Array(bytes)), 0);
  }

  /** @returns the bytes of whole clusters that are zero now */
  *#zeroClusters(offset: number, count: number, flags: number, version: number): Task<number> {
    const { clusterSize } = this.image;
    const { map } = this;
    yield* map.lookup(offset, count * clusterSize);
    if (
      map.kind === kind.ZERO_PLAIN ||
      (map.kind === kind.UNALLOCATED && (this.backing === undefined || offset >= this.backing.length))
    ) {
      return map.length;
    }
    const unmap = (flags & writeFlag.MAY_UNMAP) !== 0;
    if (version < 3) {
      // Without zero clusters, what is not allocated is zero only where nothing backs it.
      if (this.backing !== undefined || !unmap) throw new IoError(errno.EOPNOTSUPP);
    }
    yield* this.markDirty();
    yield* map.sliceForUpdate(offset);
    const part = Math.min(count, map.clustersInSlice(offset));
    for (let done = 0; done < part; done++) {
      const guest = offset + done * clusterSize;
      const slice = yield* map.sliceForUpdate(guest);
      const index = map.indexForUpdate(guest);
      const found = map.inspect(guest);
      if (found === kind.ZERO_PLAIN) continue;
      const allocated = found === kind.NORMAL || found === kind.ZERO_ALLOCATED;
      if (allocated && !unmap) {
        const low = slice.view.getUint32(index * 8 + 4);
        slice.view.setUint32(index * 8 + 4, (low | ZERO) >>> 0);
        map.cache.markDirty(slice);
        continue;
      }
      yield* this.#replaceEntry(
        guest,
        () => {
          slice.view.setUint32(index * 8, 0);
          slice.view.setUint32(index * 8 + 4, version < 3 ? 0 : ZERO);
          map.cache.markDirty(slice);
        },
        'request',
      );
    }
    return part * clusterSize;
  }

  protected override pdiscard(offset: number, bytes: number): Pending {
    this.#checkUsable();
    return this.#alone(offset, bytes, () => this.discardClusters(offset, bytes, false, 'request'));
  }

  /** Lets go of the whole clusters in a range. `full`: entirely, so that what backs the image shows again. */
  *discardClusters(offset: number, bytes: number, full: boolean, reason: FreeReason): Task {
    const { clusterSize } = this.image;
    const end =
      offset + bytes >= this.length && !full ? Math.ceil((offset + bytes) / clusterSize) * clusterSize : offset + bytes;
    const last = end - (end % clusterSize);
    const first = Math.ceil(offset / clusterSize) * clusterSize;
    if (this.image.rawData && !full && last > first) yield* this.#zeroRawData(first, last - first, writeFlag.MAY_UNMAP);
    for (let guest = first; guest < last; ) {
      const waiting = this.lock.lock();
      if (waiting) yield waiting;
      try {
        guest += yield* this.#discardSome(guest, last - guest, full, reason);
      } finally {
        this.lock.unlock();
      }
    }
  }

  *#discardSome(offset: number, bytes: number, full: boolean, reason: FreeReason): Task<number> {
    const { clusterSize, header } = this.image;
    const { map } = this;
    yield* map.lookup(offset, bytes);
    const nothing = map.kind === kind.UNALLOCATED && (full || this.backing === undefined);
    if (nothing || (map.kind === kind.ZERO_PLAIN && !full)) return map.length;
    yield* this.markDirty();
    const count = Math.min(bytes / clusterSize, map.clustersInSlice(offset));
    for (let done = 0; done < count; done++) {
      const guest = offset + done * clusterSize;
      const slice = yield* map.sliceForUpdate(guest);
      const index = map.indexForUpdate(guest);
      yield* this.#replaceEntry(
        guest,
        () => {
          slice.view.setUint32(index * 8, 0);
          slice.view.setUint32(index * 8 + 4, full || header.version < 3 ? 0 : ZERO);
          map.cache.markDirty(slice);
        },
        reason,
      );
    }
    return count * clusterSize;
  }

  /** Once the tables are on the disk, the clusters they let go of are really free. The lock is held. */
  *#releaseFreed(): Task {
    if (this.refcounts.quarantine.size === 0 && this.#freed.length === 0) return;
    yield* this.map.cache.flush();
    this.refcounts.release();
    const freed = joined(this.#freed);
    this.#freed = [];
    for (const { offset, bytes } of freed) yield* this.#discardHost(offset, bytes);
  }

  protected override flushToHost(): Pending {
    if (this.image.broken || this.readOnly) return undefined;
    if (!this.map.cache.dirty && !this.refcounts.cache.dirty && this.refcounts.quarantine.size === 0) return undefined;
    return start(this.#locked(this.writeTables()));
  }

  /** Writes the tables that were changed; the lock is held. */
  *writeTables(): Task {
    yield* this.map.cache.write();
    if (!this.lazyRefcounts) yield* this.refcounts.cache.write();
    yield* this.#releaseFreed();
  }

  protected override flushToDisk(): Pending {
    // The children are flushed by the caller, in any case.
    return undefined;
  }

  protected override ptruncate(size: number, options: TruncateOptions): Pending {
    this.#checkUsable();
    return start(resize(this, size, options));
  }

  protected override pstatus(offset: number, bytes: number): Maybe<BlockStatus> {
    return startFor(this.#status(offset, bytes));
  }

  *#status(offset: number, bytes: number): Task<BlockStatus> {
    const { map } = this;
    yield* this.#lookup(offset, bytes);
    let { length } = map;
    const { host } = map;
    switch (map.kind) {
      case kind.NORMAL:
        // As far as the data goes on in a row, also across slices.
        for (let next = length; next < bytes; next += map.length, length = next) {
          yield* this.#lookup(offset + next, bytes - next);
          if (map.kind !== kind.NORMAL || map.host !== host + next) break;
        }
        return { bytes: length, allocated: true, data: true, zero: false, offset: host, file: this.data };
      case kind.COMPRESSED:
        return { bytes: length, allocated: true, data: true, zero: false, compressed: true };
      case kind.ZERO_PLAIN:
      case kind.ZERO_ALLOCATED:
        return { bytes: length, allocated: true, data: false, zero: true };
      case kind.UNALLOCATED:
        for (let next = length; next < bytes; next += map.length, length = next) {
          yield* this.#lookup(offset + next, bytes - next);
          if (map.kind !== kind.UNALLOCATED) break;
        }
        return { bytes: length, allocated: false, data: false, zero: this.backing === undefined };
    }
  }

  override childPermissions(name: string, needed: number, shared: number): Permissions {
    if (name !== 'data-file') return super.childPermissions(name, needed, shared);
    return {
      perm: needed | perm.CONSISTENT_READ | (this.readOnly ? 0 : perm.WRITE | perm.RESIZE),
      shared: this.settings.forceShare ? 15 : perm.CONSISTENT_READ | perm.WRITE_UNCHANGED,
    };
  }

  /** Bytes of one stretch that a request should be a multiple of. */
  override get clusterSize(): number {
    return this.image.clusterSize;
  }

  /** Where the state of the virtual machine begins, in the guest's offsets: behind all that a disk can be. */
  get vmStateOffset(): number {
    return Math.ceil(this.image.header.size / this.map.l2Reach) * this.map.l2Reach;
  }

  /** Writes a part of the virtual machine's state; the next snapshot takes it. */
  writeVmState(position: number, iov: IoVector): Pending {
    this.writes++;
    return start(this.#write(this.vmStateOffset + position, iov.length, iov, 0));
  }

  readVmState(position: number, iov: IoVector): Pending {
    return start(this.#readVmState(position, iov));
  }

  *#readVmState(position: number, iov: IoVector): Task {
    const offset = this.vmStateOffset + position;
    for (let done = 0; done < iov.length; ) {
      yield* this.#lookup(offset + done, iov.length - done);
      const { length, host } = this.map;
      if (this.map.kind === kind.NORMAL) {
        const reading = this.data.readv(host, length, iov, done);
        if (reading) yield reading;
      } else {
        iov.fill(done, length, 0);
      }
      done += length;
    }
  }

  /** Says in the header how long the image is. */
  *writeSize(size: number): Task {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, BigInt(size));
    yield* this.image.write(headerOffset.SIZE, bytes);
    this.image.header.size = size;
  }

  /** Nothing that was read of the tables is believed any more. */
  forgetTables(): void {
    this.#unpacked = undefined;
    this.#freed = [];
    this.map.cache.clear();
    this.refcounts.cache.clear();
    this.refcounts.quarantine.clear();
    this.refcounts.startAt(0);
  }

  /** Writes everything and takes back the mark that the image is in use. */
  *markClean(): Task {
    yield* this.map.cache.flush();
    yield* this.#releaseFreed();
    yield* this.refcounts.cache.flush();
    yield* this.image.setIncompatible(incompatible.DIRTY, false);
  }

  protected override async pclose(): Promise<void> {
    if (this.readOnly || this.image.broken || this.graph.inactive || this.file === undefined) return;
    try {
      await start(this.#locked(this.markClean()));
    } catch (error) {
      this.graph.warn(`could not write the tables of '${this.filename}': errno ${errnoOf(error)}`);
    }
  }

  get compat(): '0.10' | '1.1' {
    return this.image.header.version === 2 ? '0.10' : '1.1';
  }

  get hasLazyRefcounts(): boolean {
    return (this.image.header.compatible & compatible.LAZY_REFCOUNTS) !== 0;
  }
}

/** The same stretches in order, with neighbours made one. */
function joined(
  stretches: readonly { readonly offset: number; readonly bytes: number }[],
): { offset: number; bytes: number }[] {
  const result: { offset: number; bytes: number }[] = [];
  for (const { offset, bytes } of [...stretches].sort((a, b) => a.offset - b.offset)) {
    const last = result.at(-1);
    if (last !== undefined && last.offset + last.bytes === offset) last.bytes += bytes;
    else result.push({ offset, bytes });
  }
  return result;
}
