import { IoVector } from '../../core/block/io-vector.ts';
import type { Dma } from '../../core/memory/dma.ts';

const NOTHING = new Uint8Array(0);
/** A larger bounce buffer is given back when the transfer is over, in bytes. */
const KEEP_LIMIT = 1 << 20;

/**
 * The memory of one DMA transfer: stretches of bus addresses in order. RAM goes to the backend without a copy; for all else
 * (registers, addresses with nothing behind them) there is a bounce buffer.
 */
export class ScatterList {
  readonly #dma: Dma;
  readonly #addresses: number[] = [];
  readonly #lengths: number[] = [];
  readonly #vector = new IoVector();
  #count = 0;
  #length = 0;
  #bounce: Uint8Array = NOTHING;
  #bounced = false;

  constructor(dma: Dma) {
    this.#dma = dma;
  }

  /** Bytes of all stretches. */
  get length(): number {
    return this.#length;
  }

  clear(): void {
    this.#count = 0;
    this.#length = 0;
  }

  add(address: number, length: number): void {
    if (length <= 0) return;
    const last = this.#count - 1;
    const before = this.#lengths[last] ?? 0;
    if (last >= 0 && (this.#addresses[last] ?? 0) + before === address) {
      this.#lengths[last] = before + length;
    } else {
      this.#addresses[this.#count] = address;
      this.#lengths[this.#count] = length;
      this.#count++;
    }
    this.#length += length;
  }

  /** The memory for a request: to be filled (`toMemory`), or with what is there now. Valid until {@link finish}. */
  begin(toMemory: boolean): IoVector {
    const vector = this.#vector.clear();
    this.#bounced = !this.#map(vector, toMemory);
    if (!this.#bounced) return vector;
    if (this.#bounce.length < this.#length) this.#bounce = new Uint8Array(this.#length);
    if (!toMemory) this.copyFrom(this.#bounce);
    return vector.clear().add(this.#bounce, 0, this.#length);
  }

  /** The request of {@link begin} has filled the memory, or used it. */
  finish(toMemory: boolean): void {
    if (toMemory) {
      if (this.#bounced) this.copyTo(this.#bounce);
      else for (let at = 0; at < this.#count; at++) this.#dma.written(this.#addresses[at] ?? 0, this.#lengths[at] ?? 0);
    }
    if (this.#bounce.length > KEEP_LIMIT) this.#bounce = NOTHING;
  }

  /** Copies `length` bytes of `source` from `at` on to the memory, from its byte `from` on. Returns how many found a place. */
  copyTo(source: Uint8Array, at = 0, length: number = this.#length, from = 0): number {
    let done = 0;
    for (let index = 0; index < this.#count && done < length; index++) {
      const stretch = this.#lengths[index] ?? 0;
      if (from >= stretch) {
        from -= stretch;
        continue;
      }
      const size = Math.min(stretch - from, length - done);
      this.#dma.write((this.#addresses[index] ?? 0) + from, source, at + done, size);
      done += size;
      from = 0;
    }
    return done;
  }

  /** Copies memory, from its byte `from` on, to `target`; what cannot be read is 0. */
  copyFrom(target: Uint8Array, at = 0, length: number = this.#length, from = 0): number {
    let done = 0;
    for (let index = 0; index < this.#count && done < length; index++) {
      const stretch = this.#lengths[index] ?? 0;
      if (from >= stretch) {
        from -= stretch;
        continue;
      }
      const size = Math.min(stretch - from, length - done);
      if (!this.#dma.read((this.#addresses[index] ?? 0) + from, target, at + done, size))
        target.fill(0, at + done, at + done + size);
      done += size;
      from = 0;
    }
    return done;
  }

  /** Whether all of it is RAM. */
  #map(vector: IoVector, write: boolean): boolean {
    for (let index = 0; index < this.#count; index++) {
      let address = this.#addresses[index] ?? 0;
      let left = this.#lengths[index] ?? 0;
      while (left > 0) {
        const ram = this.#dma.ramAt(address, left, write);
        if (ram === undefined) return false;
        const stretch = this.#dma.ramLength;
        vector.add(ram, this.#dma.ramOffset, stretch);
        address += stretch;
        left -= stretch;
      }
    }
    return true;
  }
}
