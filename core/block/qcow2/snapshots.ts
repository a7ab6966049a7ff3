import { BlockError, errno, IoError } from '../io-error.ts';
import type { Task } from '../pending.ts';
import { COPIED, kind, parseL1 } from './cluster-map.ts';
import { headerOffset, MAX_L1_BYTES, MAX_SNAPSHOTS } from './header.ts';
import type { Qcow2Node } from './node.ts';

/** The fixed part of an entry of the snapshot table. */
const FIXED_BYTES = 40;
/** What an entry has at least of further data, as we write it. */
const EXTRA_BYTES = 24;
const MAX_EXTRA = 1024;
const MAX_TABLE = 64 << 20;

/** The image as it was at some moment, with the state of the virtual machine at that moment if that was saved. */
export interface Snapshot {
  readonly id: string;
  readonly name: string;
  readonly l1Offset: number;
  readonly l1Size: number;
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
  /** How long the guest had run, in nanoseconds. */
  readonly vmClockNs: number;
  /** Bytes of the virtual machine's state; 0 for a snapshot of the disk alone. */
  readonly vmStateSize: number;
  /** Bytes of the disk. */
  readonly diskSize: number;
  /** Instructions executed, or -1. */
  readonly icount: number;
}

export interface NewSnapshot {
  readonly id?: string;
  readonly name: string;
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
  readonly vmClockNs: number;
  readonly vmStateSize: number;
  readonly icount?: number;
}

/** The internal snapshots of an image. */
export class Snapshots {
  readonly #node: Qcow2Node;
  #list: Snapshot[] = [];
  #tableBytes = 0;

  constructor(node: Qcow2Node) {
    this.#node = node;
  }

  get tableBytes(): number {
    return this.#tableBytes;
  }

  get list(): readonly Snapshot[] {
    return this.#list;
  }

  /** Reads the table. */
  *load(): Task {
    const { image } = this.#node;
    const { snapshotCount, snapshotsOffset } = image.header;
    this.#list = [];
    let at = snapshotsOffset;
    for (let index = 0; index < snapshotCount; index++) {
      const fixed = new DataView((yield* image.read(at, FIXED_BYTES)).buffer);
      const l1Offset = Number(fixed.getBigUint64(0));
      const l1Size = fixed.getUint32(8);
      const idLength = fixed.getUint16(12);
      const nameLength = fixed.getUint16(14);
      const extraLength = fixed.getUint32(36);
      if (extraLength > MAX_EXTRA) throw new BlockError('Too much extra metadata in snapshot table entry');
      if (l1Size * 8 > MAX_L1_BYTES || !Number.isSafeInteger(l1Offset) || l1Offset % image.clusterSize !== 0) {
        throw new BlockError('Snapshot L1 table offset invalid');
      }
      const rest = yield* image.read(at + FIXED_BYTES, extraLength + idLength + nameLength);
      const extra = new DataView(rest.buffer, 0, extraLength);
      const large = extraLength >= 8 ? Number(extra.getBigUint64(0)) : 0;
      const text = (from: number, length: number): string => Buffer.from(rest.buffer, from, length).toString('utf8');
      this.#list.push({
        id: text(extraLength, idLength),
        name: text(extraLength + idLength, nameLength),
        l1Offset,
        l1Size,
        dateSeconds: fixed.getUint32(16),
        dateNanoseconds: fixed.getUint32(20),
        vmClockNs: Number(fixed.getBigUint64(24)),
        vmStateSize: extraLength >= 8 ? large : fixed.getUint32(32),
        diskSize: extraLength >= 16 ? Number(extra.getBigUint64(8)) : image.header.size,
        icount: extraLength >= 24 ? Number(extra.getBigInt64(16)) : -1,
      });
      at += Math.ceil((FIXED_BYTES + extraLength + idLength + nameLength) / 8) * 8;
      if (at - snapshotsOffset > MAX_TABLE) throw new BlockError('Snapshot table is too large');
      image.claim('inactive L1 table', l1Offset, l1Size * 8);
    }
    this.#tableBytes = at - snapshotsOffset;
    if (snapshotCount > 0) image.claim('snapshot table', snapshotsOffset, this.#tableBytes);
  }

  /** By id first, then by name. */
  find(idOrName: string): Snapshot | undefined {
    return this.#list.find(({ id }) => id === idOrName) ?? this.#list.find(({ name }) => name === idOrName);
  }

  #serialize(list: readonly Snapshot[]): Uint8Array {
    const parts: Buffer[] = [];
    for (const snapshot of list) {
      const id = Buffer.from(snapshot.id);
      const name = Buffer.from(snapshot.name);
      const entry = Buffer.alloc(Math.ceil((FIXED_BYTES + EXTRA_BYTES + id.length + name.length) / 8) * 8);
      entry.writeBigUInt64BE(BigInt(snapshot.l1Offset), 0);
      entry.writeUInt32BE(snapshot.l1Size, 8);
      entry.writeUInt16BE(id.length, 12);
      entry.writeUInt16BE(name.length, 14);
      entry.writeUInt32BE(snapshot.dateSeconds >>> 0, 16);
      entry.writeUInt32BE(snapshot.dateNanoseconds, 20);
      entry.writeBigUInt64BE(BigInt(snapshot.vmClockNs), 24);
      entry.writeUInt32BE(snapshot.vmStateSize > 0xffff_ffff ? 0 : snapshot.vmStateSize, 32);
      entry.writeUInt32BE(EXTRA_BYTES, 36);
      entry.writeBigUInt64BE(BigInt(snapshot.vmStateSize), 40);
      entry.writeBigUInt64BE(BigInt(snapshot.diskSize), 48);
      entry.writeBigInt64BE(BigInt(snapshot.icount), 56);
      id.copy(entry, FIXED_BYTES + EXTRA_BYTES);
      name.copy(entry, FIXED_BYTES + EXTRA_BYTES + id.length);
      parts.push(entry);
    }
    return Buffer.concat(parts);
  }

  /** Writes another table and makes it the valid one; the space of the old one is free then. */
  *#store(list: Snapshot[]): Task {
    const { image, refcounts } = this.#node;
    const before = { offset: image.header.snapshotsOffset, bytes: this.#tableBytes };
    const bytes = this.#serialize(list);
    if (bytes.length > MAX_TABLE || list.length > MAX_SNAPSHOTS) throw new IoError(errno.EFBIG);
    let offset = 0;
    if (bytes.length > 0) {
      offset = yield* refcounts.allocate(Math.ceil(bytes.length / image.clusterSize));
      yield* image.write(offset, bytes);
    }
    yield* this.#node.map.cache.flush();
    yield* refcounts.cache.flush();
    const pointer = Buffer.alloc(12);
    pointer.writeUInt32BE(list.length, 0);
    pointer.writeBigUInt64BE(BigInt(offset), 4);
    yield* image.write(headerOffset.SNAPSHOTS, pointer);
    yield* image.flush();
    image.header.snapshotCount = list.length;
    image.header.snapshotsOffset = offset;
    this.#list = list;
    this.#tableBytes = bytes.length;
    if (bytes.length > 0) image.claim('snapshot table', offset, bytes.length);
    if (before.bytes > 0) {
      image.release(before.offset, before.bytes);
      yield* refcounts.free(before.offset, before.bytes, 'snapshot');
    }
  }

  /** Keeps the image as it is now. The lock is held, and nothing else is under way. */
  *create(wanted: NewSnapshot): Task<Snapshot> {
    const node = this.#node;
    const { image, refcounts, map } = node;
    if (image.data !== undefined)
      throw new IoError(errno.EOPNOTSUPP, 'Snapshots cannot be made of an image with an external data file');
    if (this.#list.length >= MAX_SNAPSHOTS) throw new IoError(errno.EFBIG);
    const id =
      wanted.id ??
      String(1 + this.#list.reduce((highest, { id: other }) => Math.max(highest, Number.parseInt(other, 10) || 0), 0));
    if (this.#list.some(other => other.id === id)) throw new IoError(errno.EEXIST);
    yield* node.markDirty();
    const l1Bytes = map.l1.length * 8;
    const l1Offset = yield* refcounts.allocate(Math.max(1, Math.ceil(l1Bytes / image.clusterSize)));
    // All that is reachable is used once more; nothing of it may be written in place from now on.
    yield* this.#count(map.l1, 1);
    yield* this.refreshCopied();
    yield* image.write(l1Offset, map.l1Bytes());
    image.claim('inactive L1 table', l1Offset, l1Bytes);
    const snapshot: Snapshot = {
      id,
      name: wanted.name,
      l1Offset,
      l1Size: map.l1.length,
      dateSeconds: wanted.dateSeconds,
      dateNanoseconds: wanted.dateNanoseconds,
      vmClockNs: wanted.vmClockNs,
      vmStateSize: wanted.vmStateSize,
      diskSize: image.header.size,
      icount: wanted.icount ?? -1,
    };
    yield* this.#store([...this.#list, snapshot]);
    return snapshot;
  }

  /** Makes the image what it was at the snapshot. The lock is held, and nothing else is under way. */
  *apply(snapshot: Snapshot): Task {
    const node = this.#node;
    const { image, refcounts, map } = node;
    if (snapshot.diskSize !== image.header.size) {
      if (node.dirtyBitmaps.persistent.length > 0) throw new IoError(errno.EOPNOTSUPP);
      yield* node.writeSize(snapshot.diskSize);
    }
    yield* node.markDirty();
    yield* map.growL1(snapshot.l1Size, true);
    const bytes = new Uint8Array(map.l1.length * 8);
    bytes.set(yield* image.read(snapshot.l1Offset, snapshot.l1Size * 8));
    const { l1 } = parseL1(bytes);
    yield* map.cache.flush();
    // First the new one is counted, then it is made active, then the old one is let go.
    yield* this.#count(l1, 1);
    yield* refcounts.cache.flush();
    const before = map.l1.slice();
    for (const offset of before) if (offset !== 0) image.release(offset, image.clusterSize);
    map.adopt(bytes);
    for (let index = 0; index < map.l1.length; index++) map.setCopied(index, false);
    yield* image.write(image.header.l1Offset, map.l1Bytes());
    yield* image.flush();
    for (const offset of map.l1) if (offset !== 0) image.claim('active L2 table', offset, image.clusterSize);
    yield* this.#count(before, -1);
    yield* this.refreshCopied();
    yield* map.cache.flush();
    yield* refcounts.cache.flush();
  }

  /** Forgets a snapshot. The lock is held, and nothing else is under way. */
  *remove(snapshot: Snapshot): Task {
    const { image, refcounts } = this.#node;
    yield* this.#node.markDirty();
    const { l1 } = parseL1(yield* image.read(snapshot.l1Offset, snapshot.l1Size * 8));
    yield* this.#store(this.#list.filter(other => other !== snapshot));
    yield* this.#count(l1, -1);
    image.release(snapshot.l1Offset, snapshot.l1Size * 8);
    yield* refcounts.free(snapshot.l1Offset, Math.max(1, snapshot.l1Size * 8), 'snapshot');
    yield* this.refreshCopied();
    yield* this.#node.map.cache.flush();
    yield* refcounts.cache.flush();
  }

  /** Counts all that an L1 table reaches once more (1) or once less (-1). */
  *#count(l1: Float64Array, delta: 1 | -1): Task {
    const { image, refcounts, map } = this.#node;
    const { clusterSize } = image;
    for (const table of l1) {
      if (table === 0) continue;
      if (table % clusterSize !== 0) throw image.corrupt(`L2 table offset 0x${table.toString(16)} unaligned`);
      for (let at = 0; at < clusterSize; at += map.cache.entrySize) {
        // A copy, since what follows may push the slice out of memory.
        const view = new DataView((yield* map.cache.get(table + at)).bytes.slice().buffer);
        for (let entry = 0; entry < view.byteLength; entry += map.entryBytes) {
          const found = map.decode(view.getUint32(entry), view.getUint32(entry + 4));
          if (found.kind === kind.COMPRESSED) {
            const first = Math.floor(found.host / clusterSize);
            const end = Math.ceil((found.host + found.bytes) / clusterSize);
            yield* refcounts.add(first, end - first, delta, 'snapshot');
          } else if (found.kind === kind.NORMAL || found.kind === kind.ZERO_ALLOCATED) {
            if (found.host % clusterSize !== 0) throw image.corrupt(`Cluster 0x${found.host.toString(16)} unaligned`);
            yield* refcounts.add(found.host / clusterSize, 1, delta, 'snapshot');
          }
        }
      }
      yield* refcounts.add(table / clusterSize, 1, delta, 'snapshot');
    }
  }

  /** Marks in the active tables what is used exactly once, and so may be written in place. */
  *refreshCopied(): Task {
    const { image, refcounts, map } = this.#node;
    const { clusterSize } = image;
    for (const [index, table] of map.l1.entries()) {
      if (table === 0) continue;
      const own = (yield* refcounts.get(table / clusterSize)) === 1;
      for (let at = 0; at < clusterSize; at += map.cache.entrySize) {
        const entries = map.cache.entrySize / map.entryBytes;
        const flags = new Uint8Array(entries);
        const before = new DataView((yield* map.cache.get(table + at)).bytes.slice().buffer);
        let changed = false;
        for (let entry = 0; entry < entries; entry++) {
          const high = before.getUint32(entry * map.entryBytes);
          const found = map.decode(high, before.getUint32(entry * map.entryBytes + 4));
          if (found.kind !== kind.NORMAL && found.kind !== kind.ZERO_ALLOCATED) continue;
          const copied = (yield* refcounts.get(found.host / clusterSize)) === 1;
          flags[entry] = copied ? 1 : 2;
          changed ||= copied !== high >= COPIED;
        }
        if (!changed) continue;
        const slice = yield* map.cache.get(table + at);
        for (const [entry, flag] of flags.entries()) {
          if (flag === 0) continue;
          const at = entry * map.entryBytes;
          const high = slice.view.getUint32(at) & ~COPIED;
          slice.view.setUint32(at, (flag === 1 ? high | COPIED : high) >>> 0);
        }
        map.cache.markDirty(slice);
      }
      if (map.isCopied(index) !== own) {
        map.setCopied(index, own);
        yield* map.writeL1Entry(index);
      }
    }
  }
}
