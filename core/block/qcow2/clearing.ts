import { errno, IoError } from '../io-error.ts';
import { IoVector } from '../io-vector.ts';
import type { Task } from '../pending.ts';
import { writeFlag } from '../requests.ts';
import { type ClusterMap, isEmpty, kind } from './cluster-map.ts';
import type { Qcow2Node } from './node.ts';
import type { FreeReason } from './refcounts.ts';

/** Which freed clusters the host is told of. */
export type DiscardPolicy = { readonly [Reason in FreeReason]: boolean };

/** Zeroes and discards: data goes, clusters become free, and the host may hear of it. */
export class Clearing {
  readonly #node: Qcow2Node;
  #freed: { readonly offset: number; readonly bytes: number }[] = [];

  constructor(node: Qcow2Node) {
    this.#node = node;
  }

  /** Clusters that nobody uses any more. */
  noteFreed(offset: number, bytes: number, reason: FreeReason): void {
    if (this.#node.runtime.discards[reason]) this.#freed.push({ offset, bytes });
  }

  /** Forgets which freed clusters the host was to hear of. */
  forget(): void {
    this.#freed = [];
  }

  /** Once the tables are on the disk, the clusters they let go of are really free. The lock is held. */
  *releaseFreed(): Task {
    const { refcounts, map } = this.#node;
    if (refcounts.quarantine.size === 0 && this.#freed.length === 0) return;
    yield* map.cache.flush();
    refcounts.release();
    const freed = joined(this.#freed);
    this.#freed = [];
    for (const { offset, bytes } of freed) yield* this.#discardHost(offset, bytes);
  }

  *#discardHost(offset: number, bytes: number): Task {
    try {
      const request = this.#node.data.discard(offset, bytes);
      if (request) yield request;
    } catch {
      // The host keeps the blocks: nothing is lost.
    }
  }

  /** Lets go of what an entry pointed to before it was rewritten. */
  *letGo(before: ReturnType<ClusterMap['decode']>, reason: FreeReason): Task {
    const { image, refcounts } = this.#node;
    if (before.kind === kind.UNALLOCATED || before.kind === kind.ZERO_PLAIN) return;
    if (before.kind === kind.COMPRESSED || image.data === undefined)
      yield* refcounts.free(before.host, before.bytes, reason);
    // In a data file each cluster has its own place, which may be written to again at once.
    else if (this.#node.runtime.discards[reason]) yield* this.#discardHost(before.host, before.bytes);
  }

  /** Has a range read as zeroes. No other request to it is under way. */
  *writeZeroes(offset: number, bytes: number, flags: number): Task {
    const node = this.#node;
    const { image, map, lock } = node;
    const { clusterSize } = image;
    const { subclusterSize } = map;
    if (image.rawData) yield* this.#zeroRawData(offset, bytes, flags);
    const end = offset + bytes;
    let from = offset;
    const headEnd = Math.min(end, Math.ceil(offset / subclusterSize) * subclusterSize);
    if (headEnd > from) {
      yield* this.#zeroPart(from, headEnd - from, flags);
      from = headEnd;
    }
    const tailStart = end >= node.length ? end : end - (end % subclusterSize);
    while (from < tailStart) {
      const rest = tailStart >= node.length ? Math.ceil(tailStart / clusterSize) * clusterSize : tailStart;
      if (from % clusterSize !== 0 || rest - from < clusterSize) {
        const part = Math.min(rest, from - (from % clusterSize) + clusterSize) - from;
        yield* this.#zeroSubclusters(from, part, flags);
        from += part;
        continue;
      }
      const waiting = lock.lock();
      if (waiting) yield waiting;
      try {
        from += yield* this.#zeroClusters(from, Math.floor((rest - from) / clusterSize), flags);
      } finally {
        lock.unlock();
      }
    }
    if (end > Math.max(from, tailStart)) yield* this.#zeroPart(tailStart, end - tailStart, flags);
  }

  /** A raw data file holds what the guest sees, whatever the tables say. */
  *#zeroRawData(offset: number, bytes: number, flags: number): Task {
    const { data } = this.#node;
    const zeroing = data.writeZeroes(offset, Math.min(bytes, data.length - offset), flags);
    if (zeroing) yield zeroing;
  }

  /** Zeroes less than a subcluster: the whole of it if the rest is zero anyway. */
  *#zeroPart(offset: number, bytes: number, flags: number): Task {
    const node = this.#node;
    const { subclusterSize } = node.map;
    if (yield* node.isZero(offset, bytes)) return;
    const startAt = offset - (offset % subclusterSize);
    const rest = startAt + subclusterSize - offset - bytes;
    const restZero =
      (yield* node.isZero(startAt, offset - startAt)) && (yield* node.isZero(offset + bytes, Math.max(0, rest)));
    if (restZero && node.image.header.version >= 3) {
      if (node.image.extended) yield* this.#zeroSubclusters(startAt, subclusterSize, flags);
      else yield* node.exclusively(this.#zeroClusters(startAt, 1, flags));
    } else {
      yield* this.#writeData(offset, bytes, flags);
    }
  }

  *#writeData(offset: number, bytes: number, flags: number): Task {
    if ((flags & writeFlag.NO_FALLBACK) !== 0) throw new IoError(errno.EOPNOTSUPP);
    yield* this.#node.writer.write(offset, bytes, IoVector.of(new Uint8Array(bytes)), 0);
  }

  /** Zeroes a part of one cluster, in whole subclusters. */
  *#zeroSubclusters(offset: number, bytes: number, flags: number): Task {
    if (yield* this.#node.exclusively(this.#markSubclusters(offset, bytes))) return;
    yield* this.#writeData(offset, Math.min(bytes, this.#node.length - offset), flags);
  }

  /** @returns false where the cluster is compressed, and has no subclusters */
  *#markSubclusters(offset: number, bytes: number): Task<boolean> {
    const { image, map } = this.#node;
    yield* map.lookup(offset, bytes);
    if (map.kind === kind.COMPRESSED) return false;
    if (this.#readsZero(offset) && map.length === bytes) return true;
    yield* this.#node.markDirty();
    const slice = yield* map.sliceForUpdate(offset);
    const index = map.indexForUpdate(offset);
    const within = offset % image.clusterSize;
    const bits = map.subclusterBits(within, within + bytes);
    const allocated = map.allocatedSubclusters(slice, index) & ~bits;
    map.putSubclusters(slice, index, map.zeroSubclusters(slice, index) | bits, allocated);
    return true;
  }

  /** Whether nothing has to be done to what was looked up at `offset` for it to read as zeroes. */
  #readsZero(offset: number): boolean {
    const { map, backing } = this.#node;
    return map.kind === kind.ZERO_PLAIN || (isEmpty(map.kind) && (backing === undefined || offset >= backing.length));
  }

  /** Zeroes whole clusters. The lock is held. @returns the bytes that are zero now */
  *#zeroClusters(offset: number, count: number, flags: number): Task<number> {
    const { image, map, backing } = this.#node;
    const { clusterSize } = image;
    const { version } = image.header;
    yield* map.lookup(offset, count * clusterSize);
    if (this.#readsZero(offset) && map.length >= clusterSize) return map.length - (map.length % clusterSize);
    const unmap = (flags & writeFlag.MAY_UNMAP) !== 0;
    // Without zero clusters, what is not allocated is zero only where nothing backs it.
    if (version < 3 && (backing !== undefined || !unmap)) throw new IoError(errno.EOPNOTSUPP);
    yield* this.#node.markDirty();
    const part = Math.min(count, map.clustersInSlice(offset));
    for (let done = 0; done < part; done++) {
      const guest = offset + done * clusterSize;
      const slice = yield* map.sliceForUpdate(guest);
      const index = map.indexForUpdate(guest);
      const before = map.at(slice, index);
      const placed = before.kind === kind.NORMAL || before.kind === kind.ZERO_ALLOCATED;
      if (placed && !unmap) {
        map.zero(slice, index);
        continue;
      }
      if (before.kind === kind.ZERO_PLAIN) continue;
      map.clear(slice, index, version >= 3);
      yield* this.letGo(before, 'request');
    }
    return part * clusterSize;
  }

  /** Lets go of the whole clusters in a range. `full`: entirely, so that what backs the image shows again. */
  *discard(offset: number, bytes: number, full: boolean, reason: FreeReason): Task {
    const { image, lock, length } = this.#node;
    const { clusterSize } = image;
    const end =
      offset + bytes >= length && !full ? Math.ceil((offset + bytes) / clusterSize) * clusterSize : offset + bytes;
    const last = end - (end % clusterSize);
    const first = Math.ceil(offset / clusterSize) * clusterSize;
    if (image.rawData && !full && last > first) yield* this.#zeroRawData(first, last - first, writeFlag.MAY_UNMAP);
    for (let guest = first; guest < last; ) {
      const waiting = lock.lock();
      if (waiting) yield waiting;
      try {
        guest += yield* this.#discardSome(guest, last - guest, full, reason);
      } finally {
        lock.unlock();
      }
    }
  }

  *#discardSome(offset: number, bytes: number, full: boolean, reason: FreeReason): Task<number> {
    const { image, map, backing } = this.#node;
    const { clusterSize, header } = image;
    yield* map.lookup(offset, bytes);
    const nothing =
      (map.kind === kind.UNALLOCATED && (full || backing === undefined)) || (map.kind === kind.ZERO_PLAIN && !full);
    if (nothing && map.length >= clusterSize) return map.length - (map.length % clusterSize);
    yield* this.#node.markDirty();
    const count = Math.min(bytes / clusterSize, map.clustersInSlice(offset));
    for (let done = 0; done < count; done++) {
      const guest = offset + done * clusterSize;
      const slice = yield* map.sliceForUpdate(guest);
      const index = map.indexForUpdate(guest);
      const before = map.at(slice, index);
      map.clear(slice, index, !full && header.version >= 3);
      yield* this.letGo(before, reason);
    }
    return count * clusterSize;
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
