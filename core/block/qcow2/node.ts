import type { DirtyBitmap } from '../dirty-bitmap.ts';
import type { BlockDriver } from '../driver.ts';
import type { BlockGraph } from '../graph.ts';
import { errno, errnoOf, IoError, reason } from '../io-error.ts';
import { IoVector } from '../io-vector.ts';
import { SECTOR } from '../luks/cipher.ts';
import { BlockNode } from '../node.ts';
import { all, type Maybe, Mutex, type Pending, settle, start, startFor, type Task } from '../pending.ts';
import { type Permissions, perm } from '../permissions.ts';
import { type BlockStatus, type NodeSettings, type TruncateOptions, writeFlag } from '../requests.ts';
import { PersistentBitmaps } from './bitmaps.ts';
import { Clearing } from './clearing.ts';
import { ClusterMap, isEmpty, kind } from './cluster-map.ts';
import { ClusterWriter } from './cluster-writer.ts';
import { type Compression, compressionOf } from './compression.ts';
import { compatible, headerOffset, incompatible } from './header.ts';
import type { Qcow2Image } from './image.ts';
import { Refcounts } from './refcounts.ts';
import { resize } from './resize.ts';
import type { Qcow2Runtime } from './runtime-options.ts';
import { Snapshots } from './snapshots.ts';

/** A qcow2 image. */
export class Qcow2Node extends BlockNode {
  readonly image: Qcow2Image;
  readonly refcounts: Refcounts;
  readonly map: ClusterMap;
  readonly snapshots: Snapshots;
  readonly bitmaps: PersistentBitmaps;
  readonly writer: ClusterWriter;
  readonly clearing: Clearing;
  #runtime: Qcow2Runtime;
  #cleaning: NodeJS.Timeout | undefined;
  /** Held by whoever looks into the tables or changes them. */
  readonly lock = new Mutex();
  readonly #compression: Compression;
  /** The compressed cluster that was read last: neighbours are often read one after the other. */
  #unpacked: { readonly host: number; readonly data: Uint8Array } | undefined;

  constructor(
    graph: BlockGraph,
    driver: BlockDriver,
    settings: NodeSettings,
    image: Qcow2Image,
    runtime: Qcow2Runtime,
  ) {
    super(graph, driver, settings);
    this.image = image;
    this.#runtime = runtime;
    if (image.header.encryption !== undefined) this.requestAlignment = SECTOR;
    this.refcounts = new Refcounts(image, runtime.refcount);
    this.map = new ClusterMap(
      image,
      this.refcounts,
      runtime.l2,
      runtime.l2Entry,
      (image.header.incompatible & incompatible.DATA_FILE) !== 0,
    );
    this.snapshots = new Snapshots(this);
    this.bitmaps = new PersistentBitmaps(this);
    this.#compression = compressionOf(image.header.compression);
    this.writer = new ClusterWriter(this, this.#compression);
    this.clearing = new Clearing(this);
    this.refcounts.onFree = (offset, bytes, reason) => {
      this.#unpacked = undefined;
      this.clearing.noteFreed(offset, bytes, reason);
    };
    this.#applyRuntime();
  }

  get runtime(): Qcow2Runtime {
    return this.#runtime;
  }

  get lazyRefcounts(): boolean {
    return this.#runtime.lazyRefcounts;
  }

  /** Takes other options. No table in memory is newer than the disk. */
  configure(runtime: Qcow2Runtime): void {
    this.#runtime = runtime;
    this.forgetTables();
    this.map.resizeCache(runtime.l2, runtime.l2Entry);
    this.refcounts.resizeCache(runtime.refcount);
    this.#applyRuntime();
  }

  #applyRuntime(): void {
    const { unguarded, cleanInterval } = this.#runtime;
    this.image.unguarded = unguarded;
    clearInterval(this.#cleaning);
    this.#cleaning = undefined;
    if (cleanInterval === 0) return;
    const clean = (): void => {
      this.map.cache.dropUnused();
      this.refcounts.cache.dropUnused();
    };
    // Longer ones than a timer can wait for are as good as never.
    this.#cleaning = setInterval(clean, Math.min(cleanInterval * 1000, 2 ** 31 - 1)).unref();
  }

  override get length(): number {
    return Math.ceil(this.image.header.size / 512) * 512;
  }

  /** Where guest data lies: the image file itself, or the external data file. */
  get data(): BlockNode {
    return this.image.data ?? this.image.file;
  }

  override childReplaced(name: string, node: BlockNode): void {
    if (name === 'file') this.image.file = node;
    else if (name === 'data-file') this.image.data = node;
  }

  /** Runs `task` with the tables locked. */
  *exclusively<T>(task: Task<T>): Task<T> {
    const waiting = this.lock.lock();
    if (waiting) yield waiting;
    try {
      return yield* task;
    } finally {
      this.lock.unlock();
    }
  }

  #checkUsable(): void {
    if (this.image.broken) throw new IoError(errno.ENOMEDIUM);
  }

  /** Tells debugging filters below what is about to happen. */
  *debug(event: string): Task {
    if (!this.graph.debugging) return;
    const waiting = this.image.file.debugEvent(event);
    if (waiting) yield waiting;
  }

  *#lookup(offset: number, bytes: number): Task {
    if (this.map.lookupCached(offset, bytes)) return;
    yield* this.exclusively(this.map.lookup(offset, bytes));
  }

  protected override pread(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    this.#checkUsable();
    const { map } = this;
    if (!this.graph.debugging && map.lookupCached(offset, bytes) && map.kind === kind.NORMAL && map.length === bytes) {
      return this.image.readData(map.host, bytes, iov, at);
    }
    return start(this.read(offset, bytes, iov, at));
  }

  /**
   * What the image holds. For those inside it: by readv, what waits for a request of theirs would be waited for.
   */
  *read(offset: number, bytes: number, iov: IoVector, at: number): Task {
    const { map } = this;
    const parts: Pending[] = [];
    for (let done = 0; done < bytes; ) {
      yield* this.#lookup(offset + done, bytes - done);
      const { length, host } = map;
      switch (map.kind) {
        case kind.NORMAL:
          yield* this.debug('read_aio');
          parts.push(this.image.readData(host, length, iov, at + done));
          break;
        case kind.ZERO_PLAIN:
        case kind.ZERO_ALLOCATED:
          iov.fill(at + done, length, 0);
          break;
        case kind.COMPRESSED:
          parts.push(start(this.#readCompressed(host, map.compressedBytes, offset + done, length, iov, at + done)));
          break;
        case kind.UNALLOCATED:
        case kind.RESERVED: {
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
    if ((flags & writeFlag.COMPRESSED) !== 0) return start(this.writer.writeCompressed(offset, bytes, iov, at));
    const { map } = this;
    if (
      !this.graph.debugging &&
      this.writer.idle &&
      map.lookupCached(offset, bytes) &&
      map.kind === kind.NORMAL &&
      map.copied &&
      map.length === bytes
    ) {
      if (this.image.data === undefined) this.image.guardData(map.host, bytes);
      return this.image.writeData(map.host, bytes, iov, at);
    }
    return start(this.writer.write(offset, bytes, iov, at));
  }

  /** Whether a range reads as zeroes, as far as the tables know. */
  *isZero(offset: number, bytes: number): Task<boolean> {
    for (let done = 0; done < bytes; ) {
      yield* this.#lookup(offset + done, bytes - done);
      const found = this.map.kind;
      const { length } = this.map;
      if (isEmpty(found)) {
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

  /** With lazy refcounts the image says that its counts are not to be believed before they stop being right. */
  *markDirty(): Task {
    if (this.lazyRefcounts) yield* this.image.setIncompatible(incompatible.DIRTY, true);
  }

  protected override pwriteZeroes(offset: number, bytes: number, flags: number): Pending {
    this.#checkUsable();
    return this.#alone(offset, bytes, () => this.clearing.writeZeroes(offset, bytes, flags));
  }

  /** Runs what frees clusters while no request that may use them is under way. */
  #alone(offset: number, bytes: number, task: () => Task): Pending {
    const { clusterSize } = this.image;
    const from = offset - (offset % clusterSize);
    const end = Math.ceil((offset + bytes) / clusterSize) * clusterSize;
    return this.tracked.serialise(from, end - from, () => start(task()));
  }

  protected override pdiscard(offset: number, bytes: number): Pending {
    this.#checkUsable();
    return this.#alone(offset, bytes, () => this.clearing.discard(offset, bytes, false, 'request'));
  }

  protected override flushToHost(): Pending {
    if (this.image.broken || this.readOnly) return undefined;
    if (!this.map.cache.dirty && !this.refcounts.cache.dirty && this.refcounts.quarantine.size === 0) return undefined;
    return start(this.exclusively(this.writeTables()));
  }

  /** Writes the tables that were changed; the lock is held. */
  *writeTables(): Task {
    yield* this.map.cache.write();
    if (!this.lazyRefcounts) yield* this.refcounts.cache.write();
    yield* this.clearing.releaseFreed();
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
        // What is enciphered does not lie in the file as it is.
        if (this.image.cipher !== undefined) return { bytes: length, allocated: true, data: true, zero: false };
        return { bytes: length, allocated: true, data: true, zero: false, offset: host, file: this.data };
      case kind.COMPRESSED:
        return { bytes: length, allocated: true, data: true, zero: false, compressed: true };
      case kind.ZERO_PLAIN:
      case kind.ZERO_ALLOCATED:
        return { bytes: length, allocated: true, data: false, zero: true };
      case kind.UNALLOCATED:
      case kind.RESERVED:
        for (let next = length; next < bytes; next += map.length, length = next) {
          yield* this.#lookup(offset + next, bytes - next);
          if (!isEmpty(map.kind)) break;
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
    return start(this.#writeVmState(position, iov));
  }

  *#writeVmState(position: number, iov: IoVector): Task {
    const align = this.requestAlignment;
    const from = position - (position % align);
    const end = Math.ceil((position + iov.length) / align) * align;
    let whole = iov;
    if (end - from !== iov.length) {
      const bytes = new Uint8Array(end - from);
      whole = IoVector.of(bytes);
      yield* this.#readVmState(from, whole);
      iov.gather(0, bytes, position - from, iov.length);
    }
    yield* this.writer.write(this.vmStateOffset + from, whole.length, whole, 0);
  }

  readVmState(position: number, iov: IoVector): Pending {
    const align = this.requestAlignment;
    if (position % align === 0 && iov.length % align === 0) return start(this.#readVmState(position, iov));
    return start(this.#readVmStatePart(position, iov));
  }

  *#readVmStatePart(position: number, iov: IoVector): Task {
    const align = this.requestAlignment;
    const from = position - (position % align);
    const bytes = new Uint8Array(Math.ceil((position + iov.length) / align) * align - from);
    yield* this.#readVmState(from, IoVector.of(bytes));
    iov.scatter(0, bytes, position - from, iov.length);
  }

  *#readVmState(position: number, iov: IoVector): Task {
    const offset = this.vmStateOffset + position;
    for (let done = 0; done < iov.length; ) {
      yield* this.#lookup(offset + done, iov.length - done);
      const { length, host } = this.map;
      if (this.map.kind === kind.NORMAL) {
        const reading = this.image.readData(host, length, iov, done);
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
    this.clearing.forget();
    this.map.cache.clear();
    this.refcounts.cache.clear();
    this.refcounts.quarantine.clear();
    this.refcounts.startAt(0);
  }

  /** Has all tables on the disk; what was freed is free. */
  *settleTables(): Task {
    yield* this.map.cache.flush();
    yield* this.clearing.releaseFreed();
    yield* this.refcounts.cache.flush();
  }

  /** Writes everything and takes back the mark that the image is in use. */
  *markClean(): Task {
    yield* this.settleTables();
    yield* this.image.setIncompatible(incompatible.DIRTY, false);
  }

  /** Writes what is only in memory, the dirty bitmaps too: others may have the image then. */
  *putDown(): Task {
    try {
      yield* this.bitmaps.store();
    } catch (error) {
      this.graph.warn(`Lost persistent bitmaps during inactivation of node '${this.nodeName}': ${reason(error)}`);
    }
    yield* this.markClean();
  }

  override checkPersistent(bitmap: DirtyBitmap): void {
    this.bitmaps.checkNew(bitmap);
  }

  override forgetBitmap(name: string): Pending {
    return this.readOnly ? undefined : start(this.exclusively(this.bitmaps.remove(name)));
  }

  protected override async pclose(): Promise<void> {
    clearInterval(this.#cleaning);
    if (this.readOnly || this.image.broken || this.inactive || this.file === undefined) return;
    try {
      await start(this.exclusively(this.putDown()));
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
