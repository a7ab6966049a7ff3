import { field, type StateValues } from '../../core/state/fields.ts';

const REGISTERS = 32;
const ADDRESS = 1;
const OPERATION = { WRITE: 0b01, READ: 0b10 } as const;
/** Bits of the operation and both addresses, of the turnaround, and of data. */
const HEADER_BITS = 12;
const TURNAROUND = 2;
const DATA_BITS = 16;
const BMSR = 1;
const LINK = 1 << 2;
/** A transceiver whose partner does 100 Mbit/s in full duplex (IEEE 802.3, section 22.2.4). */
const RESET: readonly (readonly [register: number, value: number])[] = [
  [0, 0x3100],
  [BMSR, 0xf02c],
  [2, 0x7810],
  [4, 0x0501],
  [5, 0x4181],
  [16, 0x0003],
  [18, 0x0001],
];
/** Bits that software may write, of the registers that have any. */
const WRITABLE: Readonly<Record<number, number>> = { 0: 0x7fff, 4: 0x3fe0, 16: 0xf000 };
const BMCR_COMMANDS = 0x8200;

export const miiState = {
  registers: field.words(REGISTERS),
  phase: field.oneOf(['idle', 'start', 'header', 'read', 'write'], 'idle'),
  shift: field.u32(),
  bits: field.u8(),
  register: field.u8(),
  addressed: field.bool(),
  clock: field.bool(),
  output: field.bool(true),
};

/** A transceiver on two wires (IEEE 802.3, section 22.2.4.5): frames of bits on rising edges of MDC. */
export class ManagedTransceiver {
  readonly #s: StateValues<typeof miiState>;

  constructor(state: StateValues<typeof miiState>) {
    this.#s = state;
  }

  reset(linkUp: boolean): void {
    const { registers } = this.#s;
    registers.fill(0);
    for (const [register, value] of RESET) registers[register] = value;
    this.setLink(linkUp);
  }

  setLink(up: boolean): void {
    const { registers } = this.#s;
    registers[BMSR] = up ? (registers[BMSR] ?? 0) | LINK : (registers[BMSR] ?? 0) & ~LINK;
  }

  /** What it drives the data wire to; high while nobody does. */
  get output(): boolean {
    return this.#s.output;
  }

  /** The clock and the data wire change; `data` is high where the card does not drive it. */
  setPins(clock: boolean, data: boolean): void {
    const s = this.#s;
    const rising = clock && !s.clock;
    s.clock = clock;
    if (rising) this.#clocked(data ? 1 : 0);
  }

  #clocked(bit: number): void {
    const s = this.#s;
    switch (s.phase) {
      case 'idle':
        s.output = true;
        if (bit === 0) s.phase = 'start';
        return;
      case 'start':
        s.phase = bit === 1 ? 'header' : 'idle';
        s.bits = 0;
        s.shift = 0;
        return;
      case 'read':
        this.#give();
        return;
      default:
        s.shift = (s.shift << 1) | bit;
        s.bits++;
        if (s.phase === 'header') this.#header();
        else if (s.bits === TURNAROUND + DATA_BITS) this.#write(s.shift & 0xffff);
    }
  }

  #header(): void {
    const s = this.#s;
    if (s.bits < HEADER_BITS) return;
    const operation = (s.shift >>> 10) & 3;
    s.addressed = ((s.shift >>> 5) & 0x1f) === ADDRESS;
    s.register = s.shift & 0x1f;
    s.phase = operation === OPERATION.READ ? 'read' : operation === OPERATION.WRITE ? 'write' : 'idle';
    s.bits = 0;
    s.shift = 0;
  }

  #give(): void {
    const s = this.#s;
    s.bits++;
    const at = TURNAROUND + DATA_BITS - 1 - s.bits;
    if (at < 0) {
      s.phase = 'idle';
      s.output = true;
    } else if (s.bits >= TURNAROUND && s.addressed) s.output = (((s.registers[s.register] ?? 0) >>> at) & 1) !== 0;
  }

  #write(value: number): void {
    const s = this.#s;
    s.phase = 'idle';
    if (!s.addressed) return;
    if (s.register === 0 && (value & BMCR_COMMANDS) !== 0) {
      // Reset and renegotiation are over at once.
      s.registers[0] = (value & BMCR_COMMANDS & 0x8000) !== 0 ? (RESET[0]?.[1] ?? 0) : value & ~BMCR_COMMANDS;
      return;
    }
    const writable = WRITABLE[s.register] ?? 0;
    s.registers[s.register] = ((s.registers[s.register] ?? 0) & ~writable) | (value & writable);
  }
}
