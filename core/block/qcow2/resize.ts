import { errno, IoError } from '../io-error.ts';
import type { Task } from '../pending.ts';
import type { Preallocation, TruncateOptions } from '../requests.ts';
import type { Qcow2Node } from './node.ts';

/** Gives an image another length. */
export function* resize(node: Qcow2Node, size: number, options: TruncateOptions): Task {
  const { image, map } = node;
  const before = image.header.size;
  if (size % 512 !== 0) throw new IoError(errno.EINVAL, 'The new size must be a multiple of 512');
  if (node.snapshots.list.length > 0 && image.header.version < 3) {
    throw new IoError(errno.EOPNOTSUPP, "Can't resize a v2 image which has snapshots");
  }
  const preallocation = options.preallocation ?? 'off';
  const tables = Math.ceil(size / map.l2Reach);
  if (size < before) {
    if (preallocation !== 'off') throw new IoError(errno.EINVAL, "Preallocation can't be used for shrinking an image");
    yield* shrink(node, size, before, tables);
  } else if (size > before) {
    yield* node.exclusively(grow(node, size, tables));
    if (preallocation !== 'off') yield* preallocate(node, before, size, preallocation);
    // Every cluster of a raw data file has its entry, so that nothing shows through it.
    else if (image.rawData) yield* preallocate(node, before, size, 'metadata');
    // What backs the image may be longer than it was, and must not show.
    const backed = Math.min(size, node.backing?.length ?? 0);
    if (backed > before) {
      const zeroing = node.writeZeroes(before, backed - before);
      if (zeroing) yield zeroing;
    }
  }
}

function* grow(node: Qcow2Node, size: number, tables: number): Task {
  yield* node.map.growL1(tables, true);
  if (node.image.data !== undefined) {
    const growing = node.image.data.truncate(size);
    if (growing) yield growing;
  }
  yield* node.map.cache.flush();
  yield* node.writeSize(size);
  yield* node.image.flush();
}

function* shrink(node: Qcow2Node, size: number, before: number, tables: number): Task {
  const { image, map, refcounts } = node;
  const { clusterSize } = image;
  const keep = Math.ceil(size / clusterSize) * clusterSize;
  const end = Math.ceil(before / clusterSize) * clusterSize;
  yield* node.clearing.discard(keep, end - keep, true, 'request');
  yield* node.exclusively(dropTables(node, tables));
  // The rest of the last cluster must be zero if the image grows again.
  if (size % clusterSize !== 0) {
    const zeroing = node.writeZeroes(size, keep - size);
    if (zeroing) yield zeroing;
  }
  yield* node.exclusively(map.cache.flush());
  yield* node.exclusively(refcounts.cache.flush());
  yield* node.writeSize(size);
  yield* image.flush();
  if (image.data !== undefined) {
    const shrinking = image.data.truncate(size);
    if (shrinking) yield shrinking;
    return;
  }
  const used = ((yield* node.exclusively(refcounts.lastUsed())) + 1) * clusterSize;
  if (used < image.file.length && image.file.driver.kind === 'protocol') {
    try {
      const shrinking = image.file.truncate(used);
      if (shrinking) yield shrinking;
    } catch {
      // The file stays as long as it was: no harm.
    }
  }
}

/** Lets go of the L2 tables behind the first `tables`. */
function* dropTables(node: Qcow2Node, tables: number): Task {
  const { map, image, refcounts } = node;
  const dropped: number[] = [];
  for (let index = tables; index < map.l1.length; index++) {
    const offset = map.l1[index] ?? 0;
    if (offset === 0) continue;
    dropped.push(offset);
    map.l1[index] = 0;
    map.setCopied(index, false);
    yield* map.writeL1Entry(index);
  }
  if (dropped.length === 0) return;
  yield* map.cache.flush();
  yield* image.flush();
  for (const offset of dropped) yield* refcounts.free(offset, image.clusterSize, 'other');
}

/** Takes clusters for a range now, so that later writes need none. */
export function* preallocate(node: Qcow2Node, from: number, end: number, mode: Preallocation): Task {
  const { clusterSize } = node.image;
  const start = from - (from % clusterSize);
  let last = 0;
  for (let at = start; at < end; ) {
    const { host, bytes } = yield* node.exclusively(node.writer.preallocate(at, end - at));
    if (mode === 'full' && bytes > 0) yield* writeZeroes(node, host, bytes);
    last = Math.max(last, host + bytes);
    at += Math.max(bytes, clusterSize);
  }
  if (last > node.data.length) {
    const growing = node.data.truncate(last, { preallocation: mode === 'falloc' ? 'falloc' : 'off' });
    if (growing) yield growing;
  }
}

function* writeZeroes(node: Qcow2Node, host: number, bytes: number): Task {
  const writing = node.data.writeZeroes(host, bytes);
  if (writing) yield writing;
}
