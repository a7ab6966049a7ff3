/** Interrupt remapping (chapter 5): messages name an entry of a table, which says where they go and from whom they may come. */
import type { Dma } from '../../core/memory/dma.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { FAULT, type Fault, INTERRUPT_RANGE } from './tables.ts';

const ENTRY_SIZE = 16;

/** The address of a message in remappable format (section 5.1.2.2). */
const MESSAGE = { INDEX_HIGH: 1 << 2, SUBHANDLE_VALID: 1 << 3, REMAPPABLE: 1 << 4, KEPT: 3 } as const;
const SUBHANDLE = 0xffff;

/** Words 0 to 2 of an entry (section 9.10). */
const ENTRY = {
  PRESENT: 1 << 0,
  FPD: 1 << 1,
  LOGICAL: 1 << 2,
  HINT: 1 << 3,
  LEVEL: 1 << 4,
  RESERVED: 0xff00_f000,
} as const;
/** SVT: whether the requester is compared with SID, or its bus with the two in it. SQ: which bits are left out. */
const VALIDATE = { NONE: 0, REQUESTER: 1, BUS: 2 } as const;
const COMPARED = [0xffff, 0xfffb, 0xfff9, 0xfff8] as const;

export const interruptState = { table: field.number(), entries: field.u32() } as const;

export class InterruptTable {
  readonly #dma: Dma;
  readonly #state: StateValues<typeof interruptState>;
  readonly #words = new Uint32Array(4);
  /** What the message is to be, and which entry said so. */
  address = 0;
  data = 0;
  index = 0;
  /** The entry's faults are not to be recorded. */
  faultsDisabled = false;

  constructor(dma: Dma, state: StateValues<typeof interruptState>) {
    this.#dma = dma;
    this.#state = state;
  }

  /** IRTA.S entries, as a power of two. */
  place(table: number, order: number): void {
    Object.assign(this.#state, { table, entries: 2 ** (order + 1) });
  }

  /** Section 5.1.4: the message that `source` has sent, as it is to go on. */
  remap(source: number, address: number, data: number): Fault {
    this.address = address;
    this.data = data;
    if ((address & MESSAGE.REMAPPABLE) === 0) return FAULT.NONE;
    const subhandle = (address & MESSAGE.SUBHANDLE_VALID) !== 0;
    const handle = ((address >>> 5) & 0x7fff) | ((address & MESSAGE.INDEX_HIGH) !== 0 ? 0x8000 : 0);
    this.index = (handle + (subhandle ? data & SUBHANDLE : 0)) & 0xffff;
    this.faultsDisabled = false;
    const { table, entries } = this.#state;
    if (this.index >= entries) return FAULT.INDEX_BEYOND;
    if (!this.#dma.readWords(table + this.index * ENTRY_SIZE, this.#words)) return FAULT.INTERRUPTS_UNREACHABLE;
    const low = this.#words[0] ?? 0;
    const destination = this.#words[1] ?? 0;
    const verify = this.#words[2] ?? 0;
    this.faultsDisabled = (low & ENTRY.FPD) !== 0;
    if ((low & ENTRY.PRESENT) === 0) return FAULT.INTERRUPT_NOT_PRESENT;
    if ((low & ENTRY.RESERVED) !== 0 || verify >>> 20 !== 0 || this.#words[3] !== 0) return FAULT.INTERRUPT_RESERVED;
    if (!mayCome(source, verify)) return FAULT.INTERRUPT_SOURCE;
    if (subhandle && data >>> 16 !== 0) return FAULT.REQUEST_RESERVED;
    // An xAPIC's identity is in bits 8 to 15.
    const flags = ((low & ENTRY.HINT) !== 0 ? 1 << 3 : 0) | ((low & ENTRY.LOGICAL) !== 0 ? 1 << 2 : 0);
    this.address = INTERRUPT_RANGE.start + ((((destination >>> 8) & 0xff) << 12) | flags | (address & MESSAGE.KEPT));
    const vector = (low >>> 16) & 0xff;
    const delivery = (low >>> 5) & 7;
    this.data = vector | (delivery << 8) | (1 << 14) | ((low & ENTRY.LEVEL) !== 0 ? 1 << 15 : 0);
    return FAULT.NONE;
  }
}

function mayCome(source: number, verify: number): boolean {
  const expected = verify & 0xffff;
  const type = (verify >>> 18) & 3;
  if (type === VALIDATE.NONE) return true;
  if (type === VALIDATE.REQUESTER) {
    const mask = COMPARED[(verify >>> 16) & 3] ?? 0xffff;
    return (source & mask) === (expected & mask);
  }
  const bus = source >>> 8;
  return type === VALIDATE.BUS && bus >= (expected & 0xff) && bus <= expected >>> 8;
}
