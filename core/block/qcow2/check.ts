import { errno, IoError } from '../io-error.ts';
import { settle, type Task } from '../pending.ts';
import { type ClusterKind, COPIED, kind, parseL1 } from './cluster-map.ts';
import { incompatible } from './header.ts';
import type { Qcow2Node } from './node.ts';

/** More clusters than this are not checked: their counts would not fit in memory. */
const MAX_CLUSTERS = 2 ** 28;

export interface CheckResult {
  /** Clusters that are used more often than they are counted, and entries that make no sense. */
  corruptions: number;
  /** Clusters that are counted and not used: lost space, no danger. */
  leaks: number;
  /** Entries that are marked as used once and are not, or the other way round, where nothing is lost by it. */
  wrongMarks: number;
  corruptionsFixed: number;
  leaksFixed: number;
  /** Where the last used cluster ends, in bytes. */
  imageEnd: number;
  allocatedClusters: number;
  compressedClusters: number;
  totalClusters: number;
}

/** Compares the refcounts of an image with what is really used. The lock is held. */
export function* check(node: Qcow2Node, fix: boolean): Task<CheckResult> {
  const { image, refcounts, map, snapshots } = node;
  const { clusterSize, header } = image;
  const result: CheckResult = {
    corruptions: 0,
    leaks: 0,
    wrongMarks: 0,
    corruptionsFixed: 0,
    leaksFixed: 0,
    imageEnd: 0,
    allocatedClusters: 0,
    compressedClusters: 0,
    totalClusters: Math.ceil(header.size / clusterSize),
  };
  yield* map.cache.write();
  const uses = new Uses(Math.ceil(image.file.length / clusterSize));
  const mark = (offset: number, bytes: number): void => {
    const end = Math.ceil((offset + bytes) / clusterSize);
    for (let cluster = Math.floor(offset / clusterSize); cluster < end; cluster++)
      if (!uses.add(cluster)) result.corruptions++;
  };

  mark(0, clusterSize);
  mark(header.l1Offset, header.l1Size * 8);
  mark(header.refcountTableOffset, header.refcountTableClusters * clusterSize);
  for (const offset of refcounts.table) if (offset !== 0) mark(offset, clusterSize);
  yield* walk(node, map.l1, mark, result, true);
  if (header.snapshotsOffset !== 0) mark(header.snapshotsOffset, snapshots.tableBytes);
  for (const snapshot of snapshots.list) {
    mark(snapshot.l1Offset, snapshot.l1Size * 8);
    const { l1 } = parseL1(yield* image.read(snapshot.l1Offset, snapshot.l1Size * 8));
    yield* walk(node, l1, mark, result, false);
  }
  yield* node.bitmaps.visit(mark);
  if (header.encryption !== undefined) mark(header.encryption.offset, header.encryption.length);

  const highest = Math.max(uses.end, Math.ceil(image.file.length / clusterSize));
  if (fix) refcounts.startAt(highest);
  for (let cluster = 0; cluster < highest; cluster++) {
    const counted = yield* refcounts.get(cluster);
    const used = uses.get(cluster);
    if (used > 0) result.imageEnd = (cluster + 1) * clusterSize;
    if (counted === used) continue;
    if (counted < used) result.corruptions++;
    else result.leaks++;
    if (!fix) continue;
    yield* refcounts.set(cluster, used);
    if (counted < used) result.corruptionsFixed++;
    else result.leaksFixed++;
  }
  if (fix) {
    yield* refcounts.cache.flush();
    refcounts.startAt(0);
    yield* snapshots.refreshCopied();
    yield* map.cache.flush();
    if (result.corruptions === result.corruptionsFixed) {
      yield* image.setIncompatible(incompatible.DIRTY | incompatible.CORRUPT, false);
    }
  }
  return result;
}

function* walk(
  node: Qcow2Node,
  l1: Float64Array,
  mark: (offset: number, bytes: number) => void,
  result: CheckResult,
  active: boolean,
): Task {
  const { image, map, refcounts } = node;
  const { clusterSize } = image;
  for (const table of l1) {
    if (table === 0) continue;
    mark(table, clusterSize);
    if (table % clusterSize !== 0) {
      result.corruptions++;
      continue;
    }
    const view = new DataView((yield* image.read(table, clusterSize)).buffer);
    for (let entry = 0; entry < clusterSize; entry += map.entryBytes) {
      const high = view.getUint32(entry);
      const { kind: found, host, bytes } = map.decode(high, view.getUint32(entry + 4));
      if (map.entryBytes === 16 && !saneSubclusters(view, entry, found)) result.corruptions++;
      if (found === kind.COMPRESSED) {
        const from = host - (host % 512);
        mark(from, Math.ceil((host + bytes - from) / 512) * 512);
        result.compressedClusters++;
        result.allocatedClusters++;
      } else if (found === kind.NORMAL || found === kind.ZERO_ALLOCATED) {
        if (active) result.allocatedClusters++;
        if (image.data !== undefined) continue;
        if (host % clusterSize !== 0) {
          result.corruptions++;
          continue;
        }
        mark(host, clusterSize);
        if (active && (image.header.incompatible & incompatible.DIRTY) === 0) {
          const once = (yield* refcounts.get(host / clusterSize)) === 1;
          if (once !== high >= COPIED) result.wrongMarks++;
        }
      }
    }
  }
}

/** Subclusters are there or zero, not both, and are only where their cluster is. */
function saneSubclusters(view: DataView, entry: number, found: ClusterKind): boolean {
  const zero = view.getUint32(entry + 8);
  const allocated = view.getUint32(entry + 12);
  if (found === kind.COMPRESSED) return zero === 0 && allocated === 0;
  return (zero & allocated) === 0 && (allocated === 0 || found === kind.NORMAL);
}

class Uses {
  #counts: Uint32Array;
  readonly #limit: number;
  end = 0;

  constructor(clusters: number) {
    if (clusters > MAX_CLUSTERS) throw new IoError(errno.EFBIG);
    this.#counts = new Uint32Array(clusters + 1);
    // A reference may lie a little behind the end of the file, where nothing was written yet; further is nonsense.
    this.#limit = Math.min(MAX_CLUSTERS, clusters * 2 + 0x1_0000);
  }

  get(cluster: number): number {
    return this.#counts[cluster] ?? 0;
  }

  /** @returns false where the cluster cannot be one of the file's */
  add(cluster: number): boolean {
    if (cluster >= this.#limit) return false;
    if (cluster >= this.#counts.length) {
      const counts = new Uint32Array(Math.min(this.#limit, Math.max(cluster + 1, this.#counts.length * 2)));
      counts.set(this.#counts);
      this.#counts = counts;
    }
    this.#counts[cluster] = this.get(cluster) + 1;
    this.end = Math.max(this.end, cluster + 1);
    return true;
  }
}

/** Bytes of an image's clusters that hold data, for a listing. */
export function* allocatedBytes(node: Qcow2Node): Task<number> {
  let total = 0;
  for (let at = 0; at < node.length; ) {
    const status = yield* settle(node.status(at, node.length - at));
    if (status.data) total += status.bytes;
    at += status.bytes;
  }
  return total;
}
