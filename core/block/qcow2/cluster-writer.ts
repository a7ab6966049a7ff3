import { errno, IoError } from '../io-error.ts';
import { IoVector } from '../io-vector.ts';
import { all, type Pending, start, type Task } from '../pending.ts';
import { kind } from './cluster-map.ts';
import type { Compression } from './compression.ts';
import type { Qcow2Node } from './node.ts';

/** More freed clusters than this are not kept waiting for the guest to flush. */
const QUARANTINE_LIMIT = 4096;

/** Clusters that a write has taken and whose tables do not say so yet. */
interface Allocation {
  /** The guest's, cluster-aligned. */
  readonly start: number;
  readonly end: number;
  /** What of it is to be in the file, in whole subclusters: all of it unless L2 entries are extended. */
  readonly from: number;
  readonly to: number;
  /** Where `start` is to lie. */
  readonly host: number;
  /** The clusters were there before, with nothing in them. */
  readonly reused: boolean;
  /** Nothing but zeroes is in the file where the clusters lie. */
  readonly fresh: boolean;
  readonly done: Promise<void>;
  readonly finish: () => void;
}

/** Writes: in place where the cluster is the image's own, else into new clusters that the tables point to afterwards. */
export class ClusterWriter {
  readonly #node: Qcow2Node;
  readonly #compression: Compression;
  readonly #allocations = new Set<Allocation>();

  constructor(node: Qcow2Node, compression: Compression) {
    this.#node = node;
    this.#compression = compression;
  }

  /** No write has taken clusters that the tables do not name yet. */
  get idle(): boolean {
    return this.#allocations.size === 0;
  }

  *write(offset: number, bytes: number, iov: IoVector, at: number): Task {
    const { image, lock, map } = this.#node;
    const parts: Pending[] = [];
    try {
      for (let done = 0; done < bytes; ) {
        const from = offset + done;
        const left = bytes - done;
        yield* this.awaitAllocations(from, left);
        const waiting = lock.lock();
        if (waiting) yield waiting;
        let allocation: Allocation | undefined;
        let host = 0;
        let length = 0;
        try {
          // While we waited for the lock, somebody else may have begun to write here.
          if (this.#overlapping(from, left) !== undefined) continue;
          yield* map.lookup(from, left);
          ({ host, length } = map);
          if (map.kind !== kind.NORMAL || !map.copied) {
            allocation = yield* this.#allocate(from, left);
            length = Math.min(left, allocation.to - from);
          }
        } finally {
          lock.unlock();
        }
        if (allocation === undefined) {
          if (image.data === undefined) image.guardData(host, length);
          yield* this.#node.debug('write_aio');
          parts.push(image.writeData(host, length, iov, at + done));
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

  /** Waits for writes that have taken clusters for a part of the range. */
  *awaitAllocations(offset: number, bytes: number): Task {
    for (let other = this.#overlapping(offset, bytes); other !== undefined; other = this.#overlapping(offset, bytes)) {
      yield other.done;
    }
  }

  /** Takes clusters for a write at `offset`: as many as it needs in a row. Called with the lock held, after a lookup. */
  *#allocate(offset: number, bytes: number): Task<Allocation> {
    const { image, map, refcounts } = this.#node;
    const { clusterSize } = image;
    const { subclusterSize } = map;
    const found = map.kind;
    const startAt = offset - (offset % clusterSize);
    const placed = found === kind.ZERO_ALLOCATED || found === kind.RESERVED;
    const reused = placed && map.copied;
    const wanted = offset + Math.min(bytes, map.length);
    let clusters = Math.ceil((wanted - startAt) / clusterSize);
    let host = map.host - (offset % clusterSize);
    let from = offset - (offset % subclusterSize);
    let to = Math.ceil(wanted / subclusterSize) * subclusterSize;
    if (!reused) {
      // Where some subclusters are to move with the write, each cluster is a case of its own.
      const alone = placed || found === kind.COMPRESSED || (found === kind.NORMAL && image.extended);
      clusters = alone ? 1 : Math.min(clusters, map.clustersInSlice(offset));
      if (refcounts.quarantine.size > QUARANTINE_LIMIT) yield* this.#node.clearing.releaseFreed();
      yield* this.#node.markDirty();
      // The table comes first: it would not be good to find out later that there is no room for it.
      const slice = yield* map.sliceForUpdate(offset);
      const end = startAt + clusters * clusterSize;
      to = Math.min(to, end);
      if (found === kind.COMPRESSED) [from, to] = [startAt, end];
      else if (alone) {
        const moving = map.allocatedSubclusters(slice, map.indexForUpdate(offset));
        if (moving !== 0) {
          from = Math.min(from, startAt + (31 - Math.clz32(moving & -moving)) * subclusterSize);
          to = Math.max(to, startAt + (32 - Math.clz32(moving)) * subclusterSize);
        }
      }
      host = image.data !== undefined ? startAt : yield* refcounts.allocate(clusters);
    }
    let finish = (): void => {};
    const done = new Promise<void>(resolve => {
      finish = resolve;
    });
    const fresh = !reused && image.holesAreZero && host >= image.file.length && !image.file.children.size;
    const end = startAt + clusters * clusterSize;
    const allocation = { start: startAt, end, from, to, host, reused, fresh, done, finish };
    this.#allocations.add(allocation);
    return allocation;
  }

  /** Writes into new clusters, with what else belongs into them, and then has the tables say so. */
  *#fill(allocation: Allocation, offset: number, bytes: number, iov: IoVector, at: number): Task {
    const { refcounts, image } = this.#node;
    try {
      yield* this.#node.debug('write_aio');
      let copied = false;
      try {
        copied = yield* this.#writeClusters(allocation, offset, bytes, iov, at);
      } catch (error) {
        if (!allocation.reused && image.data === undefined) {
          yield* this.#node.exclusively(refcounts.free(allocation.host, allocation.end - allocation.start, 'other'));
        }
        throw error;
      }
      yield* this.#node.exclusively(this.#link(allocation, copied));
    } finally {
      this.#allocations.delete(allocation);
      allocation.finish();
    }
  }

  /** @returns whether more than the guest's own data had to be written */
  *#writeClusters(
    { start, from, to, host, fresh }: Allocation,
    offset: number,
    bytes: number,
    iov: IoVector,
    at: number,
  ): Task<boolean> {
    const node = this.#node;
    const { image } = node;
    const head = offset - from;
    const tail = to - offset - bytes;
    const place = host + from - start;
    if (head === 0 && tail === 0) {
      const writing = image.writeData(place, bytes, iov, at);
      if (writing) yield writing;
      return false;
    }
    const headZero = head === 0 || (yield* node.isZero(from, head));
    const tailZero = tail === 0 || (yield* node.isZero(offset + bytes, tail));
    if (headZero && tailZero && fresh) {
      const writing = image.writeData(place + head, bytes, iov, at);
      if (writing) yield writing;
      return false;
    }
    const around = new Uint8Array(head + tail);
    const aroundIov = IoVector.of(around);
    if (!headZero) yield* node.read(from, head, aroundIov, 0);
    if (!tailZero) yield* node.read(offset + bytes, tail, aroundIov, head);
    const whole = new IoVector().add(around, 0, head).append(iov, at, bytes).add(around, head, tail);
    const writing = image.writeData(place, whole.length, whole, 0);
    if (writing) yield writing;
    return true;
  }

  /** Writes the clusters' places into the L2 table, and lets go of what was there before. */
  *#link(allocation: Allocation, copied: boolean): Task {
    const { image, map, refcounts, lazyRefcounts } = this.#node;
    const { clusterSize } = image;
    const count = (allocation.end - allocation.start) / clusterSize;
    const external = image.data !== undefined;
    if (!lazyRefcounts && !external) yield* map.cache.dependOn(refcounts.cache);
    const old: { offset: number; bytes: number }[] = [];
    for (let done = 0; done < count; ) {
      const guest = allocation.start + done * clusterSize;
      const slice = yield* map.sliceForUpdate(guest);
      const first = map.indexForUpdate(guest);
      const part = Math.min(count - done, map.clustersInSlice(guest));
      for (let index = 0; index < part; index++) {
        const cluster = guest + index * clusterSize;
        const before = map.at(slice, first + index);
        const packed = before.kind === kind.COMPRESSED;
        const placed = before.kind === kind.NORMAL || before.kind === kind.ZERO_ALLOCATED;
        if (packed || (placed && !allocation.reused && !external)) {
          old.push({ offset: before.host, bytes: before.bytes });
        }
        map.place(slice, first + index, allocation.host + (done + index) * clusterSize);
        const filled = map.subclusterBits(
          Math.max(0, allocation.from - cluster),
          Math.min(clusterSize, allocation.to - cluster),
        );
        const zero = packed ? 0 : map.zeroSubclusters(slice, first + index) & ~filled;
        const there = packed ? filled : map.allocatedSubclusters(slice, first + index) | filled;
        map.putSubclusters(slice, first + index, zero, there);
      }
      // What was copied must not be lost once the table no longer points to where it came from.
      if (copied) map.cache.dependOnFlush();
      done += part;
    }
    for (const { offset, bytes } of old) yield* refcounts.free(offset, bytes, 'other');
  }

  /** Writes whole clusters compressed, one by one; those that do not become smaller are written as they are. */
  *writeCompressed(offset: number, bytes: number, iov: IoVector, at: number): Task {
    const node = this.#node;
    const { clusterSize } = node.image;
    if (node.image.data !== undefined || node.image.cipher !== undefined) throw new IoError(errno.EOPNOTSUPP);
    for (let done = 0; done < bytes; done += clusterSize) {
      const from = offset + done;
      const size = Math.min(clusterSize, bytes - done);
      const whole = from % clusterSize === 0 && (size === clusterSize || from + size >= node.length);
      if (!whole) throw new IoError(errno.EINVAL);
      const plain = new Uint8Array(clusterSize);
      iov.gather(at + done, plain, 0, size);
      const packed = this.#compression.compress(plain);
      if (packed === undefined) {
        yield* this.write(from, size, iov, at + done);
        continue;
      }
      yield* this.awaitAllocations(from, clusterSize);
      yield* node.exclusively(this.#storeCompressed(from, packed));
    }
  }

  *#storeCompressed(offset: number, packed: Uint8Array): Task {
    const { map, refcounts, image, clearing, lazyRefcounts } = this.#node;
    yield* this.#node.markDirty();
    yield* map.sliceForUpdate(offset);
    const host = yield* refcounts.allocateBytes(packed.length);
    yield* image.write(host, packed);
    if (!lazyRefcounts) yield* map.cache.dependOn(refcounts.cache);
    const slice = yield* map.sliceForUpdate(offset);
    const index = map.indexForUpdate(offset);
    const before = map.at(slice, index);
    const { high, low } = map.compressedEntry(host, packed.length);
    map.put(slice, index, high, low);
    map.putSubclusters(slice, index, 0, 0);
    yield* clearing.letGo(before, 'other');
  }

  /**
   * Takes clusters for as much as can be had in a row from `offset` on. The lock is held.
   *
   * @returns where they are; 0 bytes where the first cluster has one already
   */
  *preallocate(offset: number, bytes: number): Task<{ readonly host: number; readonly bytes: number }> {
    const { map, image } = this.#node;
    yield* map.lookup(offset, bytes);
    const placed = map.kind === kind.NORMAL || map.kind === kind.COMPRESSED || map.kind === kind.RESERVED;
    if (placed || (image.extended && map.kind === kind.ZERO_ALLOCATED)) return { host: map.host, bytes: 0 };
    const allocation = yield* this.#allocate(offset, bytes);
    try {
      if (image.extended) {
        // The clusters have their place, and none of their subclusters is in it: what backs the image shows.
        yield* this.#link({ ...allocation, to: allocation.from }, false);
      } else {
        if (!allocation.fresh && image.cipher === undefined) {
          const zeroing = this.#node.data.writeZeroes(allocation.host, allocation.end - allocation.start);
          if (zeroing) yield zeroing;
        }
        yield* this.#link(allocation, false);
        // What lies there would be deciphered, and would be no zeroes.
        if (image.cipher !== undefined) yield* this.#zeroPlaces(allocation);
      }
    } finally {
      this.#allocations.delete(allocation);
      allocation.finish();
    }
    return { host: allocation.host, bytes: allocation.end - allocation.start };
  }

  *#zeroPlaces({ start, end }: Allocation): Task {
    const { map, image } = this.#node;
    for (let guest = start; guest < end; guest += image.clusterSize) {
      map.zero(yield* map.sliceForUpdate(guest), map.indexForUpdate(guest));
    }
  }
}
