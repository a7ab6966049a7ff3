import type { Dma } from '../../core/memory/dma.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { DESCRIPTOR } from './layout.ts';

export const ringState = {
  address: field.number(),
  size: field.u16(),
  next: field.u16(),
  generation: field.u8(1),
};

/** Descriptors that both sides go round. Whose one is, its generation bit says: it changes each time round. */
export class Ring {
  readonly #s: StateValues<typeof ringState>;

  constructor(state: StateValues<typeof ringState>) {
    this.#s = state;
  }

  /** Begins anew at the first descriptor, with generation 1. */
  start(address: number, size: number): void {
    Object.assign(this.#s, { address, size, next: 0, generation: 1 });
  }

  get size(): number {
    return this.#s.size;
  }

  /** The index of the descriptor that is next. */
  get next(): number {
    return this.#s.next;
  }

  get generation(): number {
    return this.#s.generation;
  }

  get address(): number {
    return this.#s.address + this.#s.next * DESCRIPTOR;
  }

  advance(): void {
    const s = this.#s;
    s.next++;
    if (s.next < s.size) return;
    s.next = 0;
    s.generation ^= 1;
  }

  /** Goes back to where it was. */
  rewind(next: number, generation: number): void {
    this.#s.next = next;
    this.#s.generation = generation;
  }

  /** Nothing in it is of a generation yet. */
  clear(dma: Dma): void {
    dma.write(this.#s.address, new Uint8Array(this.#s.size * DESCRIPTOR));
  }
}
