import type { Dma } from '../../../core/memory/dma.ts';
import { CONTROL, pointer, TRB, TRB_SIZE } from './registers.ts';

/** Link TRBs in a row: a ring may be nothing but links. */
const MAX_LINKS = 32;
/** TRBs of one transfer descriptor. */
export const MAX_TD_TRBS = 4096;

/** The TRBs of one transfer descriptor, or one command: a copy, so that the guest cannot change it meanwhile. */
export class TrbList {
  count = 0;
  #words = new Uint32Array(4 * 16);
  #addresses = new Float64Array(16);

  clear(): void {
    this.count = 0;
  }

  push(address: number, low: number, high: number, status: number, control: number): void {
    if (this.count === this.#addresses.length) this.#grow();
    const at = 4 * this.count;
    this.#words[at] = low;
    this.#words[at + 1] = high;
    this.#words[at + 2] = status;
    this.#words[at + 3] = control;
    this.#addresses[this.count++] = address;
  }

  /** Where TRB `index` is. */
  address(index: number): number {
    return this.#addresses[index] ?? 0;
  }

  low(index: number): number {
    return this.#words[4 * index] ?? 0;
  }

  high(index: number): number {
    return this.#words[4 * index + 1] ?? 0;
  }

  parameter(index: number): number {
    return pointer(this.low(index), this.high(index));
  }

  status(index: number): number {
    return this.#words[4 * index + 2] ?? 0;
  }

  control(index: number): number {
    return this.#words[4 * index + 3] ?? 0;
  }

  type(index: number): number {
    return CONTROL.type(this.control(index));
  }

  #grow(): void {
    const [words, addresses] = [this.#words, this.#addresses];
    this.#words = new Uint32Array(2 * words.length);
    this.#addresses = new Float64Array(2 * addresses.length);
    this.#words.set(words);
    this.#addresses.set(addresses);
  }
}

/** A transfer or command ring, as its consumer sees it (xHCI 1.1, section 4.9). */
export class Ring {
  dequeue = 0;
  cycle = true;

  start(dequeue: number, cycle: boolean): void {
    this.dequeue = dequeue;
    this.cycle = cycle;
  }

  /**
   * Takes the next transfer descriptor, or the next single TRB, into `list`. False where it is not all there yet, or where
   * the ring makes no sense: then nothing is taken.
   * @param chained whether TRBs that the chain bit or a control transfer binds together belong together
   */
  take(dma: Dma, list: TrbList, chained: boolean): boolean {
    let { dequeue, cycle } = this;
    let links = 0;
    let control = false;
    list.clear();
    while (list.count < MAX_TD_TRBS) {
      const word = dma.read32(dequeue + 12);
      if ((word & CONTROL.CYCLE) !== (cycle ? 1 : 0)) return false;
      const low = dma.read32(dequeue);
      const high = dma.read32(dequeue + 4);
      const type = CONTROL.type(word);
      if (type === TRB.LINK) {
        if (++links > MAX_LINKS) return false;
        dequeue = pointer(low & ~0xf, high);
        if ((word & CONTROL.TOGGLE_CYCLE) !== 0) cycle = !cycle;
        continue;
      }
      list.push(dequeue, low, high, dma.read32(dequeue + 8), word);
      dequeue += TRB_SIZE;
      // The stages of a control transfer are descriptors of their own, but one transfer.
      if (type === TRB.SETUP) control = true;
      else if (type === TRB.STATUS) control = false;
      if (chained && (control || (word & CONTROL.CHAIN) !== 0)) continue;
      this.dequeue = dequeue;
      this.cycle = cycle;
      return true;
    }
    return false;
  }
}
