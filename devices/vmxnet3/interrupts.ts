import { field, type StateValues } from '../../core/state/fields.ts';
import { VECTORS } from './registers.ts';

export const interruptState = {
  /** A bit for each vector. */
  masked: field.u32(2 ** VECTORS - 1),
  pending: field.u32(),
  asserted: field.u32(),
};

/** What the interrupt unit needs of its card. */
export interface InterruptHost {
  /** Interrupts are messages now. */
  readonly messages: boolean;
  /** A vector that has interrupted is masked until the driver wants it again. */
  readonly autoMask: boolean;
  setPin(level: boolean): void;
  signal(vector: number): void;
}

/** Vectors with a mask each, as messages or on the pin. */
export class Interrupts {
  readonly #s: StateValues<typeof interruptState>;
  readonly #host: InterruptHost;

  constructor(state: StateValues<typeof interruptState>, host: InterruptHost) {
    this.#s = state;
    this.#host = host;
  }

  masked(vector: number): boolean {
    return ((this.#s.masked >>> vector) & 1) !== 0;
  }

  raise(vector: number): void {
    const host = this.#host;
    this.#s.pending |= 1 << vector;
    this.#update(vector);
    if (host.messages && host.autoMask) this.#s.masked |= 1 << vector;
  }

  mask(vector: number, masked: boolean): void {
    if (masked) this.#s.masked |= 1 << vector;
    else this.#s.masked &= ~(1 << vector);
    this.#update(vector);
  }

  /** The driver asks whether the pin is high because of this function, and takes that as seen. Only vector 0 has a pin. */
  take(): boolean {
    const s = this.#s;
    if ((s.asserted & 1) === 0) return false;
    s.pending &= ~1;
    if (this.#host.autoMask) s.masked |= 1;
    this.#update(0);
    return true;
  }

  reset(): void {
    Object.assign(this.#s, { masked: 2 ** VECTORS - 1, pending: 0, asserted: 0 });
    this.#host.setPin(false);
  }

  /** The pin stays high until the driver has taken the interrupt and nothing new has come. */
  #update(vector: number): void {
    const s = this.#s;
    const bit = 1 << vector;
    if ((s.asserted & bit) !== 0) {
      if ((s.pending & bit) !== 0 && !this.#host.messages) return;
      s.asserted &= ~bit;
      this.#host.setPin(s.asserted !== 0);
    }
    if ((s.pending & ~s.masked & bit) !== 0) {
      s.pending &= ~bit;
      if (this.#host.messages) this.#host.signal(vector);
      else {
        s.asserted |= bit;
        this.#host.setPin(true);
      }
    }
  }
}
