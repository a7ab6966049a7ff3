import { IoVector } from '../block/io-vector.ts';
import type { Dma } from '../memory/dma.ts';

/**
 * A buffer that the driver has made available: what the device may read (`out`) and what it may write (`in`). The pieces
 * are guest RAM itself. An element belongs to its queue, which uses it again once it has been pushed.
 */
export class VirtqueueElement {
  /** Head of the chain in a split ring, buffer id in a packed one. */
  index = 0;
  /** Descriptors that it takes in a packed ring. */
  descriptors = 1;
  /** Where a packed ring has its first descriptor. */
  position = 0;
  readonly out = new IoVector();
  readonly in = new IoVector();
  /** Descriptors on either side, which a device sees as they were before adjacent ones were joined. */
  outCount = 0;
  inCount = 0;
  /** Bus addresses and lengths of the pieces: those of `out`, and those of `in`. */
  readonly #outAddresses: number[] = [];
  readonly #outLengths: number[] = [];
  readonly #inAddresses: number[] = [];
  readonly #inLengths: number[] = [];

  /** Bytes of the driver's first buffer on either side. */
  get firstOut(): number {
    return this.outCount === 0 ? 0 : (this.#outLengths[0] ?? 0);
  }

  get firstIn(): number {
    return this.inCount === 0 ? 0 : (this.#inLengths[0] ?? 0);
  }

  clear(): void {
    this.out.clear();
    this.in.clear();
    this.outCount = 0;
    this.inCount = 0;
    this.descriptors = 1;
  }

  /** Adds a stretch of bus addresses to either side. False where it is not all RAM. */
  map(dma: Dma, address: number, length: number, writable: boolean): boolean {
    const vector = writable ? this.in : this.out;
    for (let at = address, left = length; left > 0; ) {
      const ram = dma.ramAt(at, left, writable);
      if (ram === undefined) return false;
      const stretch = dma.ramLength;
      vector.add(ram, dma.ramOffset, stretch);
      left -= stretch;
      at += stretch;
    }
    if (writable) {
      this.#inAddresses[this.inCount] = address;
      this.#inLengths[this.inCount] = length;
      this.inCount++;
    } else {
      this.#outAddresses[this.outCount] = address;
      this.#outLengths[this.outCount] = length;
      this.outCount++;
    }
    return true;
  }

  /** The driver has taken the buffer back: what is still to come from the host goes nowhere. */
  revoke(): void {
    this.in.clear();
  }

  /** The device has written the first `length` bytes of `in`. */
  written(dma: Dma, length: number): void {
    for (let index = 0, left = length; index < this.inCount && left > 0; index++) {
      const size = Math.min(left, this.#inLengths[index] ?? 0);
      dma.written(this.#inAddresses[index] ?? 0, size);
      left -= size;
    }
  }

  /** Copies out what the driver has given, up to `length` bytes. Returns how many there were. */
  read(target: Uint8Array, from = 0, length: number = target.length): number {
    const available = Math.max(0, Math.min(length, this.out.length - from));
    this.out.gather(from, target, 0, available);
    return available;
  }

  /** Copies to the driver's buffer, as much as fits. Returns how many bytes did. */
  write(source: Uint8Array, to = 0, start = 0, length: number = source.length - start): number {
    const room = Math.max(0, Math.min(length, this.in.length - to));
    this.in.scatter(to, source, start, room);
    return room;
  }
}
