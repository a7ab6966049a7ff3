import { field, type StateValues } from '../../core/state/fields.ts';
import { MDIC } from './registers.ts';

/** Registers of the PHY (IEEE 802.3 clause 22; Intel 8254x manual, section 13.2). */
const BMCR = 0;
const BMSR = 1;
const ANLPAR = 5;
const BMCR_BITS = { RESET: 1 << 15, LOOPBACK: 1 << 14, AUTONEG: 1 << 12, RESTART: 1 << 9 } as const;
const BMSR_BITS = { LINK: 1 << 2, AUTONEG_DONE: 1 << 5 } as const;
const ANLPAR_ACK = 1 << 14;
const REGISTERS = 32;
const PHY_ADDRESS = 1;

/** What each register reads at reset: a PHY that has found a gigabit partner. */
const RESET: Readonly<Record<number, number>> = {
  0: 0x1140,
  1: 0x796d,
  2: 0x0141,
  4: 0x0de1,
  5: 0x01e0,
  9: 0x0e00,
  10: 0x3c00,
  16: 0x0360,
  17: 0xac00,
  20: 0x0d60,
};
/** Which registers software may read and write. */
const READABLE = new Set([0, 1, 2, 3, 4, 5, 6, 9, 10, 15, 16, 17, 18, 19, 20, 21, 29, 30]);
const WRITABLE = new Set([0, 4, 9, 16, 18, 20, 29, 30]);

export const phyState = { registers: field.words(REGISTERS), negotiating: field.bool() };

/** The transceiver: link state and autonegotiation. */
export class Phy {
  readonly #s: StateValues<typeof phyState>;
  readonly #id2: number;
  readonly #negotiate: () => void;

  /** `negotiate` is called when autonegotiation is to begin. */
  constructor(state: StateValues<typeof phyState>, id2: number, negotiate: () => void) {
    this.#s = state;
    this.#id2 = id2;
    this.#negotiate = negotiate;
  }

  reset(): void {
    this.#s.registers.fill(0);
    for (const [register, value] of Object.entries(RESET)) this.#s.registers[Number(register)] = value;
    this.#s.registers[3] = this.#id2;
    this.#s.negotiating = false;
  }

  get loopback(): boolean {
    return (this.#get(BMCR) & BMCR_BITS.LOOPBACK) !== 0;
  }

  get autonegotiates(): boolean {
    return (this.#get(BMCR) & BMCR_BITS.AUTONEG) !== 0;
  }

  get negotiated(): boolean {
    return (this.#get(BMSR) & BMSR_BITS.AUTONEG_DONE) !== 0;
  }

  setLink(up: boolean): void {
    if (up) {
      this.#set(BMSR, this.#get(BMSR) | BMSR_BITS.LINK);
    } else {
      this.#set(BMSR, this.#get(BMSR) & ~(BMSR_BITS.LINK | BMSR_BITS.AUTONEG_DONE));
      this.#set(ANLPAR, this.#get(ANLPAR) & ~ANLPAR_ACK);
    }
  }

  finishNegotiation(): void {
    this.#set(ANLPAR, this.#get(ANLPAR) | ANLPAR_ACK);
    this.#set(BMSR, this.#get(BMSR) | BMSR_BITS.AUTONEG_DONE);
    this.setLink(true);
  }

  /** A command of the MDI control register: what the register reads afterwards (section 13.4.7). */
  access(command: number): number {
    const register = (command >>> MDIC.REG_SHIFT) & 0x1f;
    const data = command & MDIC.DATA;
    let result = command | MDIC.READY;
    if (((command >>> MDIC.PHY_SHIFT) & 0x1f) !== PHY_ADDRESS) return (result | MDIC.ERROR) >>> 0;
    if ((command & MDIC.READ) !== 0) {
      if (READABLE.has(register)) result = (result & ~MDIC.DATA) | this.#get(register);
      else result |= MDIC.ERROR;
    } else if ((command & MDIC.WRITE) !== 0) {
      if (!WRITABLE.has(register)) result |= MDIC.ERROR;
      else if (register === BMCR) this.#control(data);
      else this.#set(register, data);
    }
    return result >>> 0;
  }

  /** Reset and restart clear themselves. */
  #control(value: number): void {
    this.#set(BMCR, value & ~(0x3f | BMCR_BITS.RESET | BMCR_BITS.RESTART));
    if ((value & BMCR_BITS.RESET) !== 0) return;
    if (this.autonegotiates && (value & BMCR_BITS.RESTART) !== 0) this.#negotiate();
  }

  #get(register: number): number {
    return this.#s.registers[register] ?? 0;
  }

  #set(register: number, value: number): void {
    this.#s.registers[register] = value & 0xffff;
  }
}
