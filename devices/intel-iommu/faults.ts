import type { Registers } from '../../core/register/register.ts';
import type { intelIommuRegisters } from './registers.ts';
import { FAULT, type Fault, PAGE_MASK } from './tables.ts';

const TWO_32 = 2 ** 32;
/** In the upper half of FRCD_HIGH. */
const F = 0x8000_0000;
const T = 0x4000_0000;
/** FSTS: PFO, PPF and IQE. */
const PENDING = 0b1_0011;

/** Section 7.1.3: those that a context entry can keep from being recorded. */
const QUALIFIED: ReadonlySet<Fault> = new Set([
  FAULT.CONTEXT_NOT_PRESENT,
  FAULT.CONTEXT_INVALID,
  FAULT.BEYOND_WIDTH,
  FAULT.NOT_WRITABLE,
  FAULT.NOT_READABLE,
  FAULT.TABLE_UNREACHABLE,
  FAULT.ENTRY_RESERVED,
  FAULT.INTERRUPT_RANGE,
  FAULT.INTERRUPT_NOT_PRESENT,
  FAULT.INTERRUPT_RESERVED,
  FAULT.INTERRUPT_SOURCE,
]);

/** Sends what FEADDR and FEDATA, or IEADDR and IEDATA, hold. */
export type EventSender = (address: number, data: number) => void;

/** Primary fault logging with one recording register (section 7.2.1), and the two events that interrupt (7.3, 6.5.4). */
export class Events {
  readonly #regs: Registers<typeof intelIommuRegisters>;
  readonly #send: EventSender;

  constructor(regs: Registers<typeof intelIommuRegisters>, send: EventSender) {
    this.#regs = regs;
    this.#send = send;
  }

  record(fault: Fault, source: number, address: number, write: boolean, disabled: boolean): void {
    const { FSTS, FRCD, FRCD_HIGH } = this.#regs;
    if ((disabled && QUALIFIED.has(fault)) || FSTS.PFO) return;
    if (FRCD_HIGH.F) {
      // Another one of the same requester is one and the same to software.
      if (FRCD_HIGH.SID !== source) FSTS.PFO = true;
      return;
    }
    const before = FSTS.value;
    FRCD.low = (address & PAGE_MASK) >>> 0;
    FRCD.high = Math.floor(address / TWO_32);
    FRCD_HIGH.low = source;
    FRCD_HIGH.high = (F | (write ? 0 : T) | fault) >>> 0;
    FSTS.FRI = 0;
    FSTS.PPF = true;
    this.#faultEvent(before);
  }

  /** Section 6.5.2.10. */
  queueError(): void {
    const { FSTS } = this.#regs;
    const before = FSTS.value;
    FSTS.IQE = true;
    this.#faultEvent(before);
  }

  /** FSTS.PPF is what the recording registers say. */
  recordsChanged(): void {
    this.#regs.FSTS.PPF = this.#regs.FRCD_HIGH.F;
    this.statusWritten();
  }

  /** Section 11.4.7.1: the event is no longer pending once software has seen to all that there was. */
  statusWritten(): void {
    const { FSTS, FECTL } = this.#regs;
    if (!FSTS.PFO && !FSTS.PPF && !FSTS.IQE) FECTL.IP = false;
  }

  /** Section 11.4.7.2: what was held back goes out once the mask is off. */
  faultControlWritten(): void {
    const { FECTL, FEADDR, FEDATA } = this.#regs;
    if (!FECTL.IP || FECTL.IM) return;
    FECTL.IP = false;
    this.#send(FEADDR.value, FEDATA.value);
  }

  /** Of several conditions the first one interrupts. */
  #faultEvent(before: number): void {
    if ((before & PENDING) !== 0) return;
    this.#regs.FECTL.IP = true;
    this.faultControlWritten();
  }

  /** Section 6.5.4: a wait descriptor asked to be told. */
  completed(): void {
    const { ICS, IECTL } = this.#regs;
    if (ICS.IWC) return;
    ICS.IWC = true;
    IECTL.IP = true;
    this.completionControlWritten();
  }

  completionStatusWritten(): void {
    const { ICS, IECTL } = this.#regs;
    if (!ICS.IWC) IECTL.IP = false;
  }

  completionControlWritten(): void {
    const { IECTL, IEADDR, IEDATA } = this.#regs;
    if (!IECTL.IP || IECTL.IM) return;
    IECTL.IP = false;
    this.#send(IEADDR.value, IEDATA.value);
  }
}
