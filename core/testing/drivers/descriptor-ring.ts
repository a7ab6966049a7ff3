import { SouthbridgeError } from '../../errors.ts';
import type { GuestRam } from '../../memory/guest-ram.ts';

export interface DescriptorRingParts {
  readonly ram: GuestRam;
  /** Where the ring is, in bytes. */
  readonly address: number;
  readonly entries: number;
  /** Bytes of a descriptor. */
  readonly size: number;
  /** Tells the device how far the driver has got: writes the tail register. */
  doorbell(tail: number): void;
  /** Whether the device is done with the descriptor at `at`: its DD bit. */
  done(view: DataView, at: number): boolean;
}

/**
 * The driver's side of a ring as network cards have it: descriptors in memory, the driver moves the tail, the device the
 * head. One descriptor stays free, so that a full ring and an empty one differ.
 */
export class DescriptorRing {
  readonly parts: DescriptorRingParts;
  /** The next descriptor that the driver fills. */
  #tail = 0;
  /** The oldest that the device has. */
  #oldest = 0;

  constructor(parts: DescriptorRingParts) {
    this.parts = parts;
    parts.ram.bytes.fill(0, parts.address, parts.address + parts.entries * parts.size);
  }

  /** Descriptors that the device has and the driver has not taken back. */
  get pending(): number {
    return (this.#tail - this.#oldest + this.parts.entries) % this.parts.entries;
  }

  get free(): number {
    return this.parts.entries - 1 - this.pending;
  }

  get tail(): number {
    return this.#tail;
  }

  /**
   * Gives the device descriptors without telling it; {@link kick} does.
   * @param fill writes the descriptor at `at`; the bytes are zero before
   * @throws SouthbridgeError ERR_RING_FULL
   */
  put(fill: (view: DataView, at: number) => void): number {
    const { ram, address, size, entries } = this.parts;
    if (this.free === 0) throw new SouthbridgeError('ERR_RING_FULL', `all ${entries - 1} descriptors are the device's`);
    const index = this.#tail;
    const at = address + index * size;
    ram.bytes.fill(0, at, at + size);
    fill(ram.view, at);
    this.#tail = (index + 1) % entries;
    return index;
  }

  kick(): void {
    this.parts.doorbell(this.#tail);
  }

  /** Takes back the oldest descriptor that the device is done with; gives its address in memory, or undefined. */
  take(): number | undefined {
    const { ram, address, size, entries, done } = this.parts;
    if (this.pending === 0) return undefined;
    const at = address + this.#oldest * size;
    if (!done(ram.view, at)) return undefined;
    this.#oldest = (this.#oldest + 1) % entries;
    return at;
  }
}
