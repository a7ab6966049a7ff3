import { copyFromRam, copyToRam } from '../memory/copy.ts';
import { isZero } from '../memory/zero.ts';

const EMPTY = new Uint8Array(0);

/** Memory that its owner may move while a request waits (guest RAM of the wasm accelerator can), and who knows where it is. */
export interface MovableMemory {
  readonly bytes: Uint8Array;
  /** Keeps the bytes at their address while somebody holds it; undefined where they may move. Memory with one begins on a page. */
  readonly anchor: object | undefined;
}

/**
 * The memory of a request: pieces of guest RAM or of buffers, in order. A piece is named by its memory, where it begins in
 * it and how long it is, so that no view is made for it, and none becomes stale; a vector is reused from request to request.
 */
export class IoVector {
  readonly bases: (Uint8Array | MovableMemory)[] = [];
  readonly starts: number[] = [];
  readonly lengths: number[] = [];
  count = 0;
  /** Bytes of all pieces. */
  length = 0;
  /** What {@link locate} and {@link spans} found; good until the guest runs. */
  base: Uint8Array = EMPTY;
  start = 0;
  /** What keeps {@link base} where it is, after {@link spans}; undefined where nothing does. */
  anchor: object | undefined;

  static of(base: Uint8Array, start = 0, length: number = base.length - start): IoVector {
    return new IoVector().add(base, start, length);
  }

  clear(): this {
    this.count = 0;
    this.length = 0;
    return this;
  }

  /** Appends `length` bytes of `base` from `start`; joins them with the last piece where they follow it in memory. */
  add(base: Uint8Array | MovableMemory, start: number, length: number): this {
    if (length === 0) return this;
    const last = this.count - 1;
    if (last >= 0 && this.bases[last] === base && at(this.starts, last) + at(this.lengths, last) === start) {
      this.lengths[last] = at(this.lengths, last) + length;
    } else {
      this.bases[this.count] = base;
      this.starts[this.count] = start;
      this.lengths[this.count] = length;
      this.count++;
    }
    this.length += length;
    return this;
  }

  /** Appends `length` bytes of another vector from its byte `from` on. */
  append(other: IoVector, from: number, length: number): this {
    for (let index = 0, done = 0; index < other.count && done < length; index++) {
      const size = at(other.lengths, index);
      if (from < size) {
        const part = Math.min(size - from, length - done);
        const base = other.bases[index];
        if (base !== undefined) this.add(base, at(other.starts, index) + from, part);
        done += part;
        from = 0;
      } else {
        from -= size;
      }
    }
    return this;
  }

  /** Whether all of the memory stays where it is, so that the host may use it while the guest runs. */
  get stays(): boolean {
    for (let index = 0; index < this.count; index++) {
      const base = this.bases[index];
      if (base !== undefined && !(base instanceof Uint8Array) && base.anchor === undefined) return false;
    }
    return true;
  }

  /**
   * Calls `visit` for each stretch of memory of the `length` bytes from `from`, in order.
   * `done` counts the bytes of the stretches before; `memory` is what the vector names the stretch by.
   */
  forEach(
    from: number,
    length: number,
    visit: (base: Uint8Array, start: number, length: number, done: number, memory: Uint8Array | MovableMemory) => void,
  ): void {
    let done = 0;
    for (let index = 0; index < this.count && done < length; index++) {
      const size = at(this.lengths, index);
      if (from >= size) {
        from -= size;
        continue;
      }
      const base = this.bases[index];
      if (base === undefined) return;
      const part = Math.min(size - from, length - done);
      visit(current(base), at(this.starts, index) + from, part, done, base);
      done += part;
      from = 0;
    }
  }

  /** Whether the `length` bytes from `from` are one stretch of memory; if so `base` and `start` say which. */
  locate(from: number, length: number): boolean {
    for (let index = 0; index < this.count; index++) {
      const size = at(this.lengths, index);
      if (from < size) {
        this.base = current(this.bases[index] ?? EMPTY);
        this.start = at(this.starts, index) + from;
        return from + length <= size;
      }
      from -= size;
    }
    return false;
  }

  /**
   * The `length` bytes from `from` as stretches of one memory, which is then `base`: their starts and lengths in turn go to
   * `table`, which keeps room for one number more. Returns how many; 0 where they are of several memories, or too many.
   */
  spans(from: number, length: number, table: Float64Array): number {
    let found: Uint8Array | MovableMemory | undefined;
    let count = 0;
    for (let index = 0; index < this.count && length > 0; index++) {
      const size = at(this.lengths, index);
      if (from >= size) {
        from -= size;
        continue;
      }
      const base = this.bases[index];
      if (base === undefined || (found !== undefined && base !== found) || 2 * count + 2 >= table.length) return 0;
      const part = Math.min(size - from, length);
      table[2 * count] = at(this.starts, index) + from;
      table[2 * count + 1] = part;
      found = base;
      length -= part;
      from = 0;
      count++;
    }
    if (found === undefined) return 0;
    this.base = current(found);
    this.anchor = found instanceof Uint8Array ? found : found.anchor;
    return count;
  }

  /** Views of the `length` bytes from `from`, for host calls that take several. */
  views(from: number, length: number): Uint8Array[] {
    const views: Uint8Array[] = [];
    this.forEach(from, length, (base, start, size) => {
      views.push(base.subarray(start, start + size));
    });
    return views;
  }

  /** Copies `length` bytes from `from` to a buffer. */
  gather(from: number, target: Uint8Array, targetStart: number, length: number): void {
    for (let index = 0, skip = from, done = 0; index < this.count && done < length; index++) {
      const size = at(this.lengths, index);
      const base = this.bases[index];
      if (base !== undefined && skip < size) {
        const part = Math.min(size - skip, length - done);
        copyFromRam(current(base), at(this.starts, index) + skip, target, targetStart + done, part);
        done += part;
      }
      skip = Math.max(0, skip - size);
    }
  }

  /** Copies `length` bytes of a buffer to `to`. */
  scatter(to: number, source: Uint8Array, sourceStart: number, length: number): void {
    for (let index = 0, skip = to, done = 0; index < this.count && done < length; index++) {
      const size = at(this.lengths, index);
      const base = this.bases[index];
      if (base !== undefined && skip < size) {
        const part = Math.min(size - skip, length - done);
        copyToRam(source, sourceStart + done, current(base), at(this.starts, index) + skip, part);
        done += part;
      }
      skip = Math.max(0, skip - size);
    }
  }

  fill(from: number, length: number, value: number): void {
    this.forEach(from, length, (base, start, size) => {
      base.fill(value, start, start + size);
    });
  }

  isZero(from: number, length: number): boolean {
    let zero = true;
    this.forEach(from, length, (base, start, size) => {
      zero &&= isZero(base, start, size);
    });
    return zero;
  }
}

function current(base: Uint8Array | MovableMemory): Uint8Array {
  return base instanceof Uint8Array ? base : base.bytes;
}

function at(numbers: readonly number[], index: number): number {
  return numbers[index] ?? 0;
}
