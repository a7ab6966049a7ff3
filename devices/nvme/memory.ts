import type { Dma } from '../../core/memory/dma.ts';
import type { GuestRam } from '../../core/memory/guest-ram.ts';

/** Memory of the controller that commands may name by addresses of the host's choice (NVMe 1.4, sections 3.1.15 and 3.1.27). */
export interface Aperture {
  readonly ram: GuestRam;
  /** Where the host has put it, or undefined while commands do not see it. */
  base: number | undefined;
}

/** What the addresses in commands name: the host's memory, and the controller's own. */
export class ControllerMemory {
  readonly #dma: Dma;
  readonly #apertures: Aperture[] = [];
  /** What {@link ramAt} found. */
  ramOffset = 0;
  ramLength = 0;

  constructor(dma: Dma) {
    this.#dma = dma;
  }

  addAperture(aperture: Aperture): void {
    this.#apertures.push(aperture);
  }

  /** As {@link Dma.read}; false also where the address is beyond what a number holds. */
  read(address: number, target: Uint8Array, at: number, length: number): boolean {
    const own = this.#own(address, length);
    if (own === undefined) return Number.isSafeInteger(address) && this.#dma.read(address, target, at, length);
    target.set(own.bytes.subarray(this.ramOffset, this.ramOffset + length), at);
    return true;
  }

  write(address: number, source: Uint8Array, at: number, length: number): boolean {
    const own = this.#own(address, length);
    if (own === undefined) return Number.isSafeInteger(address) && this.#dma.write(address, source, at, length);
    own.bytes.set(source.subarray(at, at + length), this.ramOffset);
    return true;
  }

  /** As {@link Dma.ramAt}. */
  ramAt(address: number, length: number, write: boolean): GuestRam | undefined {
    const own = this.#own(address, length);
    if (own !== undefined) {
      this.ramLength = length;
      return own;
    }
    const ram = this.#dma.ramAt(address, length, write);
    this.ramOffset = this.#dma.ramOffset;
    this.ramLength = this.#dma.ramLength;
    return ram;
  }

  written(address: number, length: number): void {
    if (this.#own(address, length) === undefined) this.#dma.written(address, length);
  }

  #own(address: number, length: number): GuestRam | undefined {
    for (let index = 0; index < this.#apertures.length; index++) {
      const aperture = this.#apertures[index];
      if (aperture?.base === undefined || address < aperture.base) continue;
      this.ramOffset = address - aperture.base;
      if (this.ramOffset + length <= aperture.ram.size) return aperture.ram;
    }
    return undefined;
  }
}
