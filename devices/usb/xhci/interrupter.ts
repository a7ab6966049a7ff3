import type { Dma } from '../../../core/memory/dma.ts';
import type { Registers } from '../../../core/register/register.ts';
import { field, type StateValues } from '../../../core/state/fields.ts';
import { CC, CONTROL, highWord, lowWord, pointer, TRB, TRB_SIZE, type xhciRegisters } from './registers.ts';

const MIN_SEGMENT = 16;
const MAX_SEGMENT = 4096;

export const interrupterState = {
  start: field.number(),
  size: field.u16(),
  enqueue: field.u16(),
  cycle: field.bool(true),
};

/** What an interrupter needs of the controller. */
export interface InterrupterHost {
  readonly dma: Dma;
  readonly regs: Registers<typeof xhciRegisters>;
  /** The event ring makes no sense: host controller error. */
  die(): void;
  /** Interrupts where that is enabled. */
  raise(index: number): void;
}

/** An event ring of one segment, with its interrupt (xHCI 1.1, sections 4.9.4 and 4.17). */
export class Interrupter {
  readonly index: number;
  readonly #s: StateValues<typeof interrupterState>;
  readonly #host: InterrupterHost;
  readonly #trb = new Uint8Array(TRB_SIZE);
  readonly #words = new DataView(this.#trb.buffer);

  constructor(index: number, state: StateValues<typeof interrupterState>, host: InterrupterHost) {
    this.index = index;
    this.#s = state;
    this.#host = host;
  }

  reset(): void {
    Object.assign(this.#s, { start: 0, size: 0, enqueue: 0, cycle: true });
  }

  /** The segment table's address has been written: takes the ring's place from the table (section 6.5). */
  tableWritten(): void {
    const { dma, regs } = this.#host;
    const s = this.#s;
    const table = pointer(regs.ERSTBA_LOW.at(this.index).value, regs.ERSTBA_HIGH.at(this.index).value);
    const segments = regs.ERSTSZ.at(this.index).value;
    Object.assign(s, { start: 0, size: 0 });
    if (segments === 0 || table === 0) return;
    const size = dma.read32(table + 8) & 0xffff;
    if (segments !== 1 || size < MIN_SEGMENT || size > MAX_SEGMENT) {
      this.#host.die();
      return;
    }
    Object.assign(s, {
      start: pointer(dma.read32(table) & ~0x3f, dma.read32(table + 4)),
      size,
      enqueue: 0,
      cycle: true,
    });
  }

  /** Where the driver has got to, as an index; -1 where its pointer is outside the ring. */
  #dequeue(): number {
    const { regs } = this.#host;
    const { start, size } = this.#s;
    const at = pointer(regs.ERDP_LOW.at(this.index).value & ~0xf, regs.ERDP_HIGH.at(this.index).value);
    const index = Math.floor((at - start) / TRB_SIZE);
    return index >= 0 && index < size ? index : -1;
  }

  /** Whether the driver has events left to take. */
  get waiting(): boolean {
    const dequeue = this.#dequeue();
    return dequeue >= 0 && dequeue !== this.#s.enqueue;
  }

  /** Puts an event on the ring; `control` without cycle bit and type. */
  event(type: number, parameter: number, status: number, control: number): void {
    const dequeue = this.#dequeue();
    if (dequeue < 0) {
      this.#host.die();
      return;
    }
    const { enqueue, size } = this.#s;
    // Section 4.9.4: the last place but one is for the news that the ring is full.
    if ((enqueue + 2) % size === dequeue) this.#write(TRB.HOST_CONTROLLER, 0, CC.EVENT_RING_FULL << 24, 0);
    else if ((enqueue + 1) % size !== dequeue) this.#write(type, parameter, status, control);
    this.#host.raise(this.index);
  }

  #write(type: number, parameter: number, status: number, control: number): void {
    const s = this.#s;
    this.#words.setUint32(0, lowWord(parameter), true);
    this.#words.setUint32(4, highWord(parameter), true);
    this.#words.setUint32(8, status, true);
    this.#words.setUint32(12, control | (type << 10) | (s.cycle ? CONTROL.CYCLE : 0), true);
    if (!this.#host.dma.write(s.start + TRB_SIZE * s.enqueue, this.#trb)) this.#host.die();
    s.enqueue++;
    if (s.enqueue < s.size) return;
    s.enqueue = 0;
    s.cycle = !s.cycle;
  }
}
