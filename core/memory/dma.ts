import type { AddressSpace } from './address-space.ts';
import type { GuestRam } from './guest-ram.ts';
import type { IoHandler } from './memory-region.ts';

/** A stretch of guest RAM that host code may read or write in place, until guest code runs again. */
export interface DmaWindow {
  readonly bytes: Uint8Array<ArrayBufferLike>;
  /** Where in `bytes` the stretch begins. */
  readonly offset: number;
  readonly length: number;
}

/** What stands between a device and memory, and says what its addresses mean: an IOMMU. */
export interface DmaTranslator {
  /** Where `address` is in memory; -1, and the guest is told, where the device may not. Holds for {@link span} bytes. */
  translate(address: number, write: boolean): number;
  readonly span: number;
  /** Takes a write of 32 bits that is an interrupt; answers false where it is a write like others. */
  message?(address: number, data: number): boolean;
}

/** How deep device accesses may nest: one device's register write may make another do DMA, but not for ever. */
const MAX_NESTING = 8;

/**
 * One device's way to memory. Addresses are bus addresses in bytes, exact to 2^53; values are little-endian. Every method
 * answers false, or all ones, where the device may not master the bus or nothing is there; none throws. While a device's own
 * access is under way, what it would cause at its own registers is dropped (DMA to itself).
 */
export class Dma {
  readonly #space: AddressSpace;
  /** PCI's bus-master enable (PCI 3.0, section 6.2.2); always on for other buses. */
  enabled = true;
  /** Set by fault injection: makes an access fail. */
  fault: ((address: number, length: number, write: boolean) => boolean) | undefined;
  /** What {@link ramAt} found: where in the RAM the address is, and for how many bytes it goes on. */
  ramOffset = 0;
  ramLength = 0;
  #active = false;
  /** For words that are not all in one stretch of RAM. */
  #bytes = new Uint8Array(0);
  #translator: DmaTranslator | undefined;
  #translating = true;
  /** The translator while it is to be asked. */
  #through: DmaTranslator | undefined;
  static #nesting = 0;

  constructor(space: AddressSpace) {
    this.#space = space;
  }

  /** Set by the bus where an IOMMU is in the way. */
  set translator(translator: DmaTranslator | undefined) {
    this.#translator = translator;
    this.#through = this.#translating ? translator : undefined;
  }

  /** Off for a device that has been told to go around the IOMMU. */
  set translating(on: boolean) {
    this.#translating = on;
    this.#through = on ? this.#translator : undefined;
  }

  /** True while this device's own transfer runs: its registers then ignore accesses, so that it cannot re-enter itself. */
  get active(): boolean {
    return this.#active;
  }

  read8(address: number): number {
    return this.#read(address, 1);
  }

  read16(address: number): number {
    return this.#read(address, 2);
  }

  read32(address: number): number {
    return this.#read(address, 4);
  }

  /** A 64-bit address that lies in memory. */
  readAddress(address: number): number {
    return this.read32(address) + this.read32(address + 4) * 2 ** 32;
  }

  write8(address: number, value: number): boolean {
    return this.#write(address, 1, value);
  }

  write16(address: number, value: number): boolean {
    return this.#write(address, 2, value);
  }

  write32(address: number, value: number): boolean {
    return this.#write(address, 4, value);
  }

  /** Sends an interrupt, which an IOMMU sees also of a device that goes around it. */
  message(address: number, data: number): void {
    const translator = this.#translator;
    if (!this.enabled || translator?.message?.(address, data) === true) return;
    if (translator === undefined) this.#space.write(address, 4, data);
    else this.#writeThrough(translator, address, 4, data);
  }

  /** Fills `target` from `at` with `length` bytes of memory. */
  read(address: number, target: Uint8Array, at = 0, length = target.length - at): boolean {
    if (!this.#enter(address, length, false)) return false;
    try {
      if (this.#through === undefined) return this.#space.readBytes(address, target, at, length);
      return this.#pieces(this.#through, address, length, false, (memory, done, piece) =>
        this.#space.readBytes(memory, target, at + done, piece),
      );
    } finally {
      this.#leave();
    }
  }

  /** Reads `target.length` 32-bit words: a descriptor, copied once before it is looked at. */
  readWords(address: number, target: Uint32Array): boolean {
    const size = target.length * 4;
    const ram = this.#active ? undefined : this.ramAt(address, size, false);
    if (ram !== undefined && this.ramLength === size) {
      const { view } = ram;
      for (let index = 0, at = this.ramOffset; index < target.length; index++, at += 4)
        target[index] = view.getUint32(at, true);
      return true;
    }
    this.#bytes = this.#bytes.length < size ? new Uint8Array(size) : this.#bytes;
    if (!this.read(address, this.#bytes, 0, size)) return false;
    const view = new DataView(this.#bytes.buffer);
    for (let index = 0; index < target.length; index++) target[index] = view.getUint32(index * 4, true);
    return true;
  }

  /** Writes `length` bytes of `source` from `at` to memory. */
  write(address: number, source: Uint8Array, at = 0, length = source.length - at): boolean {
    if (!this.#enter(address, length, true)) return false;
    try {
      if (this.#through === undefined) return this.#space.writeBytes(address, source, at, length);
      return this.#pieces(this.#through, address, length, true, (memory, done, piece) =>
        this.#space.writeBytes(memory, source, at + done, piece),
      );
    } finally {
      this.#leave();
    }
  }

  /**
   * The RAM behind `address`, for transfers without a copy; shorter than `length` where the stretch ends sooner, undefined
   * where it is not RAM. After writing call {@link written}. Never keep one across a call that may run the guest.
   */
  window(address: number, length: number, write: boolean): DmaWindow | undefined {
    const ram = this.ramAt(address, length, write);
    return ram === undefined ? undefined : { bytes: ram.bytes, offset: this.ramOffset, length: this.ramLength };
  }

  /**
   * As {@link window}, for rings of descriptors: nothing is allocated. The place is in {@link ramOffset} and
   * {@link ramLength} until the next call.
   */
  ramAt(address: number, length: number, write: boolean): GuestRam | undefined {
    if (!this.enabled || (this.fault !== undefined && this.fault(address, length, write))) return undefined;
    const through = this.#through;
    let memory = address;
    let limit = length;
    if (through !== undefined) {
      memory = through.translate(address, write);
      if (memory < 0) return undefined;
      if (through.span < limit) limit = through.span;
    }
    const range = this.#space.find(memory);
    const ram = range?.region.ram;
    if (range === undefined || ram === undefined || !range.region.readsDirectly) return undefined;
    if (write && (range.readonly || !range.region.writesDirectly)) return undefined;
    const left = range.end - memory;
    this.ramOffset = memory - range.start + range.offset;
    this.ramLength = limit < left ? limit : left;
    return ram;
  }

  /** Tells whoever must know (translated code, dirty pages) that a window was written. */
  written(address: number, length: number): void {
    if (this.#through === undefined) this.#space.ramWritten?.(address, length);
    else
      this.#pieces(this.#through, address, length, true, (memory, _done, piece) => {
        this.#space.ramWritten?.(memory, piece);
        return true;
      });
  }

  /** Does something to each piece that is one in memory too, until it fails or one may not be reached. */
  #pieces(
    through: DmaTranslator,
    address: number,
    length: number,
    write: boolean,
    move: (memory: number, done: number, piece: number) => boolean,
  ): boolean {
    for (let done = 0; done < length; ) {
      const memory = through.translate(address + done, write);
      if (memory < 0) return false;
      const piece = Math.min(length - done, through.span);
      if (!move(memory, done, piece)) return false;
      done += piece;
    }
    return true;
  }

  #read(address: number, size: number): number {
    if (!this.#enter(address, size, false)) return size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff;
    const value = this.#through === undefined ? this.#space.read(address, size) : this.#readThrough(address, size);
    this.#leave();
    return value;
  }

  #write(address: number, size: number, value: number): boolean {
    if (!this.#enter(address, size, true)) return false;
    let done = true;
    if (this.#through === undefined) this.#space.write(address, size, value);
    else if (size !== 4 || this.#through.message?.(address, value) !== true)
      done = this.#writeThrough(this.#through, address, size, value);
    this.#leave();
    return done;
  }

  #readThrough(address: number, size: number): number {
    let value = 0;
    const whole =
      this.#through !== undefined &&
      this.#pieces(this.#through, address, size, false, (memory, done, piece) => {
        if (piece === size) value = this.#space.read(memory, size);
        else for (let at = 0; at < piece; at++) value |= this.#space.read(memory + at, 1) << (8 * (done + at));
        return true;
      });
    return whole ? value >>> 0 : size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff;
  }

  #writeThrough(through: DmaTranslator, address: number, size: number, value: number): boolean {
    return this.#pieces(through, address, size, true, (memory, done, piece) => {
      if (piece === size) this.#space.write(memory, size, value);
      else for (let at = 0; at < piece; at++) this.#space.write(memory + at, 1, (value >>> (8 * (done + at))) & 0xff);
      return true;
    });
  }

  #enter(address: number, length: number, write: boolean): boolean {
    if (!this.enabled || this.#active || Dma.#nesting >= MAX_NESTING) return false;
    if (this.fault !== undefined && this.fault(address, length, write)) return false;
    this.#active = true;
    Dma.#nesting++;
    return true;
  }

  #leave(): void {
    this.#active = false;
    Dma.#nesting--;
  }
}

/** Registers that ignore what the device's own DMA would do to them. */
export const shielded = (dma: Dma, handler: IoHandler): IoHandler => ({
  read: (offset, size) => (dma.active ? 0 : handler.read(offset, size)),
  write: (offset, size, value) => {
    if (!dma.active) handler.write(offset, size, value);
  },
});
