import { BlockError } from './io-error.ts';

/** No bitmap takes more memory than this, in bytes. */
const MAX_BITMAP_BYTES = 2 ** 30;

export interface BitmapOptions {
  readonly name?: string;
  /** Bytes that one bit stands for: a power of two from 512. */
  readonly granularity: number;
  readonly persistent?: boolean;
  readonly disabled?: boolean;
}

/** What is borne with in a bitmap. */
export interface BitmapTolerance {
  readonly readonly?: boolean;
  readonly inconsistent?: boolean;
}

/** Which parts of a node were written since some moment. */
export class DirtyBitmap {
  name: string | undefined;
  readonly granularity: number;
  persistent: boolean;
  /** Writes are recorded. */
  enabled: boolean;
  /** In use by a job or an export. */
  busy = false;
  /** Read from an image that was not closed: its content means nothing. */
  inconsistent = false;
  readonly: boolean = false;
  /** Goes to another process, or has come from one, beside the image: the image does not keep it meanwhile. */
  inTransit = false;
  /** Records what is written while this one stands still for a backup. */
  successor: DirtyBitmap | undefined;
  #length: number;
  #bits: Uint8Array;
  #count = 0;

  constructor(length: number, options: BitmapOptions) {
    const { granularity } = options;
    if (granularity < 512 || (granularity & (granularity - 1)) !== 0)
      throw new BlockError('Granularity must be power of 2');
    this.name = options.name;
    this.granularity = granularity;
    this.persistent = options.persistent ?? false;
    this.enabled = options.disabled !== true;
    this.#length = length;
    this.#bits = allocate(length, granularity);
  }

  /** Bytes that are marked. */
  get count(): number {
    return this.#count * this.granularity;
  }

  /** The length of the node, in bytes. */
  get length(): number {
    return this.#length;
  }

  get empty(): boolean {
    return this.#count === 0;
  }

  /** @throws BlockError where the bitmap is in use, or in a state that is not borne with */
  checkUsable(tolerated: BitmapTolerance = {}): this {
    const { name = '' } = this;
    if (this.busy) throw new BlockError(`Bitmap '${name}' is currently in use by another operation and cannot be used`);
    if (this.readonly && tolerated.readonly !== true)
      throw new BlockError(`Bitmap '${name}' is readonly and cannot be modified`);
    if (this.inconsistent && tolerated.inconsistent !== true)
      throw new BlockError(`Bitmap '${name}' is inconsistent and cannot be used`);
    return this;
  }

  /** One bit a granule, the lowest first: as in image files and in NBD. */
  get bytes(): Uint8Array {
    return this.#bits;
  }

  wrote(offset: number, bytes: number): void {
    if (this.enabled) this.set(offset, bytes);
  }

  get(offset: number): boolean {
    const index = Math.floor(offset / this.granularity);
    return (((this.#bits[index >>> 3] ?? 0) >>> (index & 7)) & 1) !== 0;
  }

  /** Marks all that the range touches. */
  set(offset: number, bytes: number): void {
    this.#change(Math.floor(offset / this.granularity), Math.ceil((offset + bytes) / this.granularity), true);
  }

  /** Unmarks all that the range touches. */
  reset(offset: number, bytes: number): void {
    this.#change(Math.floor(offset / this.granularity), Math.ceil((offset + bytes) / this.granularity), false);
  }

  clear(): void {
    this.#bits.fill(0);
    this.#count = 0;
  }

  #change(first: number, end: number, value: boolean): void {
    end = Math.min(end, this.#bits.length * 8, Math.ceil(this.#length / this.granularity));
    for (let index = first; index < end; ) {
      const at = index >>> 3;
      const old = this.#bits[at] ?? 0;
      if ((index & 7) === 0 && index + 8 <= end) {
        const whole = value ? 0xff : 0;
        if (old !== whole) {
          this.#count += value ? 8 - ones(old) : -ones(old);
          this.#bits[at] = whole;
        }
        index += 8;
        continue;
      }
      const bit = 1 << (index & 7);
      if (((old & bit) !== 0) !== value) {
        this.#bits[at] = old ^ bit;
        this.#count += value ? 1 : -1;
      }
      index++;
    }
  }

  /** The first marked byte at or behind `offset`, or -1. */
  nextDirty(offset: number): number {
    return this.#find(offset, true);
  }

  /** The first unmarked byte at or behind `offset`; the length where there is none. */
  nextClean(offset: number): number {
    const found = this.#find(offset, false);
    return found < 0 ? this.#length : found;
  }

  #find(offset: number, value: boolean): number {
    const end = Math.ceil(this.#length / this.granularity);
    const skip = value ? 0 : 0xff;
    let index = Math.floor(offset / this.granularity);
    while (index < end) {
      const byte = this.#bits[index >>> 3] ?? 0;
      if ((index & 7) === 0 && byte === skip) {
        index += 8;
      } else if (((byte >>> (index & 7)) & 1) === (value ? 1 : 0)) {
        return Math.max(offset, index * this.granularity);
      } else {
        index++;
      }
    }
    return -1;
  }

  /** Marks here what is marked in `other`. */
  merge(other: DirtyBitmap): void {
    if (other.granularity === this.granularity && other.#bits.length === this.#bits.length) {
      let count = 0;
      for (let index = 0; index < this.#bits.length; index++) {
        const byte = (this.#bits[index] ?? 0) | (other.#bits[index] ?? 0);
        this.#bits[index] = byte;
        count += ones(byte);
      }
      this.#count = count;
      return;
    }
    for (let at = other.nextDirty(0); at >= 0; ) {
      const end = other.nextClean(at);
      this.set(at, end - at);
      at = end >= other.length ? -1 : other.nextDirty(end);
    }
  }

  /** A copy of the marks, to take back what follows. */
  snapshot(): Uint8Array {
    return this.#bits.slice();
  }

  restore(bits: Uint8Array): void {
    this.#bits.set(bits.subarray(0, this.#bits.length));
    this.#recount();
  }

  /** The node has another length now; what is new is not marked. */
  resize(length: number): void {
    const bits = allocate(length, this.granularity);
    bits.set(this.#bits.subarray(0, bits.length));
    this.#bits = bits;
    this.#length = length;
    const end = Math.ceil(length / this.granularity);
    for (let index = end; index < bits.length * 8; index++)
      bits[index >>> 3] = (bits[index >>> 3] ?? 0) & ~(1 << (index & 7));
    this.#recount();
  }

  #recount(): void {
    let count = 0;
    for (const byte of this.#bits) count += ones(byte);
    this.#count = count;
  }

  /** What query-block says of it. */
  info(): Record<string, string | number | boolean> {
    return {
      ...(this.name === undefined ? {} : { name: this.name }),
      recording: (this.enabled || this.successor?.enabled === true) && !this.inconsistent,
      busy: this.busy,
      persistent: this.persistent,
      ...(this.inconsistent ? { inconsistent: true } : {}),
      granularity: this.granularity,
      count: this.count,
    };
  }
}

/** The dirty bitmaps of a node, the newest first as QEMU lists them. */
export class DirtyBitmaps {
  readonly #bitmaps: DirtyBitmap[] = [];

  [Symbol.iterator](): Iterator<DirtyBitmap> {
    return this.#bitmaps[Symbol.iterator]();
  }

  get size(): number {
    return this.#bitmaps.length;
  }

  named(name: string): DirtyBitmap | undefined {
    return this.#bitmaps.find(one => one.name === name);
  }

  get persistent(): DirtyBitmap[] {
    return this.#bitmaps.filter(one => one.persistent);
  }

  add(bitmap: DirtyBitmap): void {
    this.#bitmaps.unshift(bitmap);
  }

  remove(bitmap: DirtyBitmap): void {
    const index = this.#bitmaps.indexOf(bitmap);
    if (index >= 0) this.#bitmaps.splice(index, 1);
  }

  wrote(offset: number, bytes: number): void {
    for (const bitmap of this.#bitmaps) bitmap.wrote(offset, bytes);
  }

  resize(length: number): void {
    for (const bitmap of this.#bitmaps) bitmap.resize(length);
  }

  /** The bitmap stands still from now on: an anonymous successor records what is written. */
  freeze(bitmap: DirtyBitmap): void {
    const { length, granularity, enabled } = bitmap;
    const successor = new DirtyBitmap(length, { granularity, disabled: !enabled });
    this.add(successor);
    bitmap.successor = successor;
    bitmap.enabled = false;
    bitmap.busy = true;
  }

  /** The successor takes the place of a bitmap whose marks are settled. @returns what bears the name now */
  succeed(bitmap: DirtyBitmap): DirtyBitmap {
    const { successor } = bitmap;
    if (successor === undefined) return bitmap;
    successor.name = bitmap.name;
    successor.persistent = bitmap.persistent;
    this.remove(bitmap);
    return successor;
  }

  /** The bitmap goes on, with what its successor has recorded. */
  reclaim(bitmap: DirtyBitmap): void {
    const { successor } = bitmap;
    if (successor === undefined) return;
    bitmap.merge(successor);
    bitmap.enabled = successor.enabled;
    bitmap.busy = false;
    bitmap.successor = undefined;
    this.remove(successor);
  }
}

function allocate(length: number, granularity: number): Uint8Array {
  const size = Math.ceil(length / granularity / 8);
  if (size > MAX_BITMAP_BYTES)
    throw new BlockError(`A bitmap of granularity ${granularity} over ${length} bytes is too large`);
  return new Uint8Array(size);
}

function ones(byte: number): number {
  byte -= (byte >>> 1) & 0x55;
  byte = (byte & 0x33) + ((byte >>> 2) & 0x33);
  return (byte + (byte >>> 4)) & 0x0f;
}
