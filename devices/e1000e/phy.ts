import { field, type StateValues } from '../../core/state/fields.ts';

const REGISTERS = 32;
const PAGES = 7;
/** Registers of every page (IEEE 802.3 clause 22; 82574 datasheet, section 10.2.10). */
const CONTROL = 0;
const STATUS = 1;
const PARTNER = 5;
const PAGE = 22;
const OEM_BITS = 25;
const CONTROL_BITS = { RESET: 1 << 15, LOOPBACK: 1 << 14, AUTONEG: 1 << 12, RESTART: 1 << 9 } as const;
const STATUS_BITS = { LINK: 1 << 2, AUTONEG_DONE: 1 << 5 } as const;
const PARTNER_ACK = 1 << 14;
const OEM_RESTART = 1 << 10;
const PHY_ADDRESS = 1;
/** MDI control (section 10.2.2.7). */
const MDIC = { DATA: 0xffff, WRITE: 1 << 26, READ: 1 << 27, READY: 1 << 28, ERROR: 1 << 30 } as const;

type Numbers = Readonly<Record<number, number>>;

/** What each page's registers read at reset. */
const RESET: Readonly<Record<number, Numbers>> = {
  0: {
    0: 0x1140,
    1: 0x794d,
    2: 0x0141,
    3: 0x0cb1,
    4: 0x0de1,
    5: 0x07e0,
    6: 0x0004,
    7: 0x2001,
    9: 0x0f00,
    10: 0x3c00,
    15: 0x3000,
    16: 0x3360,
    17: 0xac08,
  },
  2: { 16: 0x0088, 21: 0x1046 },
  3: { 18: 0x4005 },
};
/** These are the same on every page. */
const COMMON = new Set([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, PAGE]);
const COMMON_WRITABLE = new Set([0, 4, 7, 9, PAGE]);
/** Further registers of each page, and which of them can be written. */
const READABLE: Readonly<Record<number, ReadonlySet<number>>> = {
  0: new Set([16, 17, 18, 19, 20, 21, OEM_BITS, 26, 29, 30]),
  2: new Set([16, 18, 19, 21]),
  3: new Set([16, 17, 18, 19]),
  5: new Set([20, 21]),
  6: new Set([17]),
};
const WRITABLE: Readonly<Record<number, ReadonlySet<number>>> = {
  0: new Set([16, 18, 20, OEM_BITS, 26, 29, 30]),
  2: new Set([16, 18, 21]),
  3: new Set([16, 17, 18, 19]),
};

export const phyState = { registers: field.words(REGISTERS * PAGES) };

/** The 82574's transceiver, whose registers are on pages. */
export class Phy {
  readonly #s: StateValues<typeof phyState>;
  readonly #negotiate: () => void;

  /** `negotiate` is called when autonegotiation is to begin. */
  constructor(state: StateValues<typeof phyState>, negotiate: () => void) {
    this.#s = state;
    this.#negotiate = negotiate;
  }

  reset(): void {
    this.#s.registers.fill(0);
    for (const [page, registers] of Object.entries(RESET)) {
      for (const [register, value] of Object.entries(registers)) this.#set(Number(page), Number(register), value);
    }
  }

  get loopback(): boolean {
    return (this.#get(0, CONTROL) & CONTROL_BITS.LOOPBACK) !== 0;
  }

  get autonegotiates(): boolean {
    return (this.#get(0, CONTROL) & CONTROL_BITS.AUTONEG) !== 0;
  }

  get negotiated(): boolean {
    return (this.#get(0, STATUS) & STATUS_BITS.AUTONEG_DONE) !== 0;
  }

  setLink(up: boolean): void {
    const status = this.#get(0, STATUS);
    if (up) {
      this.#set(0, STATUS, status | STATUS_BITS.LINK);
      return;
    }
    this.#set(0, STATUS, status & ~(STATUS_BITS.LINK | STATUS_BITS.AUTONEG_DONE));
    this.#set(0, PARTNER, this.#get(0, PARTNER) & ~PARTNER_ACK);
  }

  finishNegotiation(): void {
    this.#set(0, PARTNER, this.#get(0, PARTNER) | PARTNER_ACK);
    this.#set(0, STATUS, this.#get(0, STATUS) | STATUS_BITS.AUTONEG_DONE);
    this.setLink(true);
  }

  /** A command of the MDI control register: what the register reads afterwards. `previous` is what it read before. */
  access(command: number, previous: number): number {
    const register = (command >>> 16) & 0x1f;
    if (((command >>> 21) & 0x1f) !== PHY_ADDRESS) return (previous | MDIC.ERROR | MDIC.READY) >>> 0;
    const page = COMMON.has(register) ? 0 : this.#get(0, PAGE);
    const allowed = (common: ReadonlySet<number>, own: ReadonlySet<number> | undefined): boolean =>
      COMMON.has(register) ? common.has(register) : (own?.has(register) ?? false);
    let result = command | MDIC.READY;
    if ((command & MDIC.READ) !== 0) {
      if (allowed(COMMON, READABLE[page])) result = (result & ~MDIC.DATA) | this.#get(page, register);
      else result |= MDIC.ERROR;
    } else if ((command & MDIC.WRITE) !== 0) {
      if (allowed(COMMON_WRITABLE, WRITABLE[page])) this.#write(page, register, command & MDIC.DATA);
      else result |= MDIC.ERROR;
    }
    return result >>> 0;
  }

  /** Reset and restart clear themselves. */
  #write(page: number, register: number, data: number): void {
    if (page === 0 && register === CONTROL) {
      this.#set(0, CONTROL, data & ~(0x3f | CONTROL_BITS.RESET | CONTROL_BITS.RESTART));
      if ((data & CONTROL_BITS.RESTART) !== 0 && this.autonegotiates) this.#negotiate();
    } else if (page === 0 && register === PAGE) {
      this.#set(0, PAGE, data & 0x7f);
    } else if (page === 0 && register === OEM_BITS) {
      this.#set(0, OEM_BITS, data & ~OEM_RESTART);
      if ((data & OEM_RESTART) !== 0) this.#negotiate();
    } else {
      this.#set(page, register, data);
    }
  }

  #get(page: number, register: number): number {
    return this.#s.registers[page * REGISTERS + register] ?? 0;
  }

  #set(page: number, register: number, value: number): void {
    if (page < PAGES) this.#s.registers[page * REGISTERS + register] = value & 0xffff;
  }
}
