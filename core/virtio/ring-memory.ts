import type { Dma } from '../memory/dma.ts';

/** One area of a virtqueue in guest memory. Little-endian; a ring is usually RAM, but nothing forces a driver to keep to that. */
export class RingMemory {
  /** Bus address; 0 while the driver has not set it. */
  address = 0;
  readonly #dma: Dma;

  constructor(dma: Dma) {
    this.#dma = dma;
  }

  get16(offset: number): number {
    const at = this.address + offset;
    const ram = this.#dma.ramAt(at, 2, false);
    return ram === undefined || this.#dma.ramLength < 2
      ? this.#dma.read16(at)
      : ram.view.getUint16(this.#dma.ramOffset, true);
  }

  get32(offset: number): number {
    const at = this.address + offset;
    const ram = this.#dma.ramAt(at, 4, false);
    return ram === undefined || this.#dma.ramLength < 4
      ? this.#dma.read32(at)
      : ram.view.getUint32(this.#dma.ramOffset, true);
  }

  put16(offset: number, value: number): void {
    const at = this.address + offset;
    const ram = this.#dma.ramAt(at, 2, true);
    if (ram === undefined || this.#dma.ramLength < 2) {
      this.#dma.write16(at, value);
      return;
    }
    ram.view.setUint16(this.#dma.ramOffset, value, true);
    this.#dma.written(at, 2);
  }

  put32(offset: number, value: number): void {
    const at = this.address + offset;
    const ram = this.#dma.ramAt(at, 4, true);
    if (ram === undefined || this.#dma.ramLength < 4) {
      this.#dma.write32(at, value);
      return;
    }
    ram.view.setUint32(this.#dma.ramOffset, value, true);
    this.#dma.written(at, 4);
  }

  /** Two words, of which the first is at `offset`: an entry of a used ring. */
  putPair(offset: number, first: number, second: number): void {
    const at = this.address + offset;
    const dma = this.#dma;
    const ram = dma.ramAt(at, 8, true);
    if (ram === undefined || dma.ramLength < 8) {
      dma.write32(at, first);
      dma.write32(at + 4, second);
      return;
    }
    const { view } = ram;
    view.setUint32(dma.ramOffset, first, true);
    view.setUint32(dma.ramOffset + 4, second, true);
    dma.written(at, 8);
  }
}

/** A descriptor's fields, copied out of guest memory once so that the driver cannot change them between check and use. */
export class Descriptor {
  address = 0;
  length = 0;
  flags = 0;
  /** The next descriptor of a split ring's chain. */
  next = 0;
  /** The buffer id of a packed ring's descriptor. */
  id = 0;
  readonly #dma: Dma;

  constructor(dma: Dma) {
    this.#dma = dma;
  }

  /** Both kinds of descriptors have 16 bytes (virtio 1.2, sections 2.7.5 and 2.8.13). False where there is no memory. */
  load(address: number, packed: boolean): boolean {
    const dma = this.#dma;
    const ram = dma.ramAt(address, 16, false);
    let word: number;
    if (ram !== undefined && dma.ramLength === 16) {
      const at = dma.ramOffset;
      const { view } = ram;
      this.address = view.getUint32(at + 4, true) * 0x1_0000_0000 + view.getUint32(at, true);
      this.length = view.getUint32(at + 8, true);
      word = view.getUint32(at + 12, true);
    } else {
      this.address = dma.readAddress(address);
      this.length = dma.read32(address + 8);
      word = dma.read32(address + 12);
    }
    if (packed) {
      this.id = word & 0xffff;
      this.flags = word >>> 16;
    } else {
      this.flags = word & 0xffff;
      this.next = word >>> 16;
    }
    return true;
  }
}
