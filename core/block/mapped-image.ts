import { BlockError, errno, errnoText, IoError } from './io-error.ts';
import type { IoVector } from './io-vector.ts';
import { BlockNode } from './node.ts';
import { type Maybe, Mutex, type Pending, settle, start, startFor, type Task } from './pending.ts';
import { type BlockStatus, writeFlag } from './requests.ts';

/** What a stretch of guest data is. */
export const place = {
  /** It lies in a file as it is. */
  DATA: 0,
  /** It reads as zeroes. */
  ZERO: 1,
  /** The image says nothing of it: it is in what backs the image, or reads as zeroes. */
  NOWHERE: 2,
  /** It lies in a file, compressed. */
  PACKED: 3,
} as const;

export type Place = (typeof place)[keyof typeof place];

/**
 * An image whose tables say of each block where it lies in a file, and that grows at its end: VHD, VDI, VMDK, VHDX.
 *
 * New blocks are written at once and the tables when the image is flushed, after the blocks are on the disk: what the guest
 * has flushed is there after a power failure, and a table never points to what was not written. The subclass keeps what is
 * to be written of its tables in memory until then.
 */
export abstract class MappedImage extends BlockNode {
  /** Held by whoever changes the tables. */
  protected readonly lock = new Mutex();
  /** What {@link find} found; good until the next wait. */
  protected place: Place = place.ZERO;
  /** In bytes, in {@link holder}. */
  protected host = 0;
  /** For as many bytes it goes on like this. */
  protected stretch = 0;
  protected holder: BlockNode | undefined;
  #begun = false;

  /** Looks a guest offset up; false where the table for it must be loaded first. */
  protected abstract find(offset: number, bytes: number): boolean;

  /** Loads the table for a guest offset. */
  protected *load(_offset: number): Task {}

  /**
   * Makes a block for the guest's data at `offset`, writes to it as much as belongs there (zeroes where there is no `iov`),
   * and notes it in the tables in memory. The lock is held.
   *
   * @returns how many bytes it took, at least 1
   */
  protected abstract allocate(offset: number, bytes: number, iov: IoVector | undefined, at: number): Task<number>;

  /** Writes what was changed of the tables; the lock is held, and all blocks are on the disk. */
  protected abstract writeTables(): Task;

  protected abstract get tablesChanged(): boolean;

  /** What the image must say before the guest's first change to it; the lock is held. */
  protected *beforeFirstWrite(): Task {}

  /** Whether data may be written to the block at `offset` as it is. */
  protected isSettled(_offset: number): boolean {
    return true;
  }

  /** Makes that so; the lock is held. */
  protected *settleBlock(_offset: number): Task {}

  protected readPacked(_offset: number, _bytes: number, _iov: IoVector, _at: number): Pending {
    throw new IoError(errno.EIO);
  }

  protected *exclusively<T>(task: () => Task<T>): Task<T> {
    const waiting = this.lock.lock();
    if (waiting) yield waiting;
    try {
      return yield* task();
    } finally {
      this.lock.unlock();
    }
  }

  protected get below(): BlockNode {
    const { file } = this;
    if (file === undefined) throw new IoError(errno.ENOMEDIUM);
    return file;
  }

  #holder(): BlockNode {
    return this.holder ?? this.below;
  }

  *#lookup(offset: number, bytes: number): Task {
    while (!this.find(offset, bytes)) yield* this.load(offset);
  }

  /** A stretch without data in this image reads as zeroes, whatever may back it. */
  #isZero(): boolean {
    return this.place === place.ZERO || (this.place === place.NOWHERE && this.backing === undefined);
  }

  protected override pread(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    if (!this.graph.debugging && this.find(offset, bytes) && this.place === place.DATA && this.stretch === bytes)
      return this.#holder().readv(this.host, bytes, iov, at);
    return start(this.#read(offset, bytes, iov, at));
  }

  *#read(offset: number, bytes: number, iov: IoVector, at: number): Task {
    for (let done = 0; done < bytes; ) {
      yield* this.#lookup(offset + done, bytes - done);
      const { stretch } = this;
      if (this.#isZero()) {
        iov.fill(at + done, stretch, 0);
      } else {
        const reading = this.#readStretch(offset + done, stretch, iov, at + done);
        if (reading) yield reading;
      }
      done += stretch;
    }
  }

  #readStretch(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    if (this.place === place.DATA) return this.#holder().readv(this.host, bytes, iov, at);
    if (this.place === place.PACKED) return this.readPacked(offset, bytes, iov, at);
    return this.readBacking(offset, bytes, iov, at);
  }

  protected readBacking(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    return this.backing?.readv(offset, bytes, iov, at);
  }

  protected override pwrite(offset: number, bytes: number, iov: IoVector, at: number, _flags: number): Pending {
    if (
      this.#begun &&
      !this.graph.debugging &&
      this.find(offset, bytes) &&
      this.stretch === bytes &&
      this.#inPlace(offset)
    )
      return this.#holder().writev(this.host, bytes, iov, at);
    return start(this.#write(offset, bytes, iov, at));
  }

  #inPlace(offset: number): boolean {
    return this.place === place.DATA && this.isSettled(offset);
  }

  *#begin(): Task {
    if (this.#begun) return;
    yield* this.beforeFirstWrite();
    this.#begun = true;
  }

  *#write(offset: number, bytes: number, iov: IoVector | undefined, at: number): Task {
    if (!this.#begun) yield* this.exclusively(() => this.#begin());
    for (let done = 0; done < bytes; ) {
      yield* this.#lookup(offset + done, bytes - done);
      if (!this.#inPlace(offset + done)) {
        done += yield* this.exclusively(() => this.#make(offset + done, bytes - done, iov, at + done));
        continue;
      }
      const { stretch } = this;
      const writing =
        iov === undefined
          ? this.#holder().writeZeroes(this.host, stretch)
          : this.#holder().writev(this.host, stretch, iov, at + done);
      if (writing) yield writing;
      done += stretch;
    }
  }

  /** Gives the guest a block of its own at `offset`. 0: it has one now, and data may be written to it. */
  *#make(offset: number, bytes: number, iov: IoVector | undefined, at: number): Task<number> {
    // Who had the lock before may have made it.
    yield* this.#lookup(offset, bytes);
    if (this.place !== place.DATA) return yield* this.allocate(offset, this.stretch, iov, at);
    if (!this.isSettled(offset)) yield* this.settleBlock(offset);
    return 0;
  }

  protected override pwriteZeroes(offset: number, bytes: number, flags: number): Pending {
    return start(this.#zero(offset, bytes, flags));
  }

  *#zero(offset: number, bytes: number, flags: number): Task {
    for (let done = 0; done < bytes; ) {
      yield* this.#lookup(offset + done, bytes - done);
      const { stretch } = this;
      if (!this.#isZero()) {
        // A hole in the file is what the block is to be.
        if (this.place === place.DATA && this.#begun && this.isSettled(offset + done)) {
          const zeroing = this.#holder().writeZeroes(this.host, stretch, flags & writeFlag.MAY_UNMAP);
          if (zeroing) yield zeroing;
        } else {
          yield* this.#write(offset + done, stretch, undefined, 0);
        }
      }
      done += stretch;
    }
  }

  protected override flushToHost(): Pending {
    if (this.readOnly || !this.tablesChanged) return undefined;
    return start(this.exclusively(() => this.#writeTables()));
  }

  *#writeTables(): Task {
    if (!this.tablesChanged) return;
    yield* this.flushFiles();
    yield* this.writeTables();
  }

  /** What was written to the files of the image is on the disk when this is done. */
  protected *flushFiles(): Task {
    for (const [name, { node }] of this.children) {
      if (name === 'backing') continue;
      const flushing = node.flush();
      if (flushing) yield flushing;
    }
  }

  protected override pstatus(offset: number, bytes: number): Maybe<BlockStatus> {
    return startFor(this.#status(offset, bytes));
  }

  *#status(offset: number, bytes: number): Task<BlockStatus> {
    yield* this.#lookup(offset, bytes);
    const { stretch } = this;
    switch (this.place) {
      case place.DATA:
        return yield* settle(this.dataStatus(stretch));
      case place.PACKED:
        return { bytes: stretch, allocated: true, data: true, zero: false, compressed: true };
      case place.ZERO:
        return { bytes: stretch, allocated: true, data: false, zero: true };
      case place.NOWHERE:
        return { bytes: stretch, allocated: false, data: false, zero: this.backing === undefined };
    }
  }

  protected dataStatus(bytes: number): Maybe<BlockStatus> {
    return { bytes, allocated: true, data: true, zero: false, offset: this.host, file: this.#holder() };
  }

  /** As {@link dataStatus}, where the file was set aside as a whole: its holes are zeroes of the guest. */
  protected recursiveStatus(bytes: number): Maybe<BlockStatus> {
    return startFor(this.#recursiveStatus(bytes));
  }

  *#recursiveStatus(bytes: number): Task<BlockStatus> {
    const { host } = this;
    const holder = this.#holder();
    const below = yield* settle(holder.status(host, bytes));
    return {
      bytes: Math.min(bytes, below.bytes),
      allocated: true,
      data: below.data,
      zero: below.zero,
      offset: host,
      file: holder,
    };
  }

  /** Makes the file reach to `end` and `bytes` bytes from `from` on read as zeroes, as far as they are there already. */
  protected *extend(file: BlockNode, from: number, end: number): Task {
    const { length } = file;
    if (from < length) {
      const zeroing = file.writeZeroes(from, Math.min(end, length) - from);
      if (zeroing) yield zeroing;
    }
    if (end > length) {
      const growing = file.truncate(end);
      if (growing) yield growing;
    }
  }
}

/** For what QEMU refuses without a word of its own. */
export function couldNotOpen(file: BlockNode, number: number): BlockError {
  return new BlockError(`Could not open '${file.filename}': ${errnoText(number)}`);
}

/** A number of 64 bits that stands for an offset or length. @throws BlockError where none of ours can be so large */
export function exactNumber(value: bigint, file: BlockNode): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw couldNotOpen(file, errno.EFBIG);
  return Number(value);
}
