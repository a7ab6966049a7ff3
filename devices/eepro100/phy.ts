import { field, type StateValues } from '../../core/state/fields.ts';

const REGISTERS = 32;
const PHY_ADDRESS = 1;
const OPERATION = { WRITE: 1, READ: 2 } as const;
const READY = 1 << 28;
const CONTROL = { RESET: 1 << 15, RESTART: 1 << 9 } as const;
const STATUS = { LINK: 1 << 2, AUTONEG_DONE: 1 << 5 } as const;
const LAST_REGISTER = 6;
/** Intel's 82555 with a partner that does all of 10 and 100 Mbit/s (IEEE 802.3, section 22.2.4). */
const RESET = [0x3000, 0x782d, 0x02a8, 0x0154, 0x05e1, 0x41fe, 0x0001] as const;
/** Bits that software cannot change. */
const FIXED = [0x0000, 0xffff, 0xffff, 0xffff, 0xc01f, 0xffff, 0xffff] as const;

export const phyState = { registers: field.words(REGISTERS) };

/** The transceiver behind the MDI control register (section 6.3.6). */
export class Phy {
  readonly #s: StateValues<typeof phyState>;

  constructor(state: StateValues<typeof phyState>) {
    this.#s = state;
  }

  reset(linkUp: boolean): void {
    this.#s.registers.fill(0);
    this.#s.registers.set(RESET);
    this.setLink(linkUp);
  }

  setLink(up: boolean): void {
    const status = this.#s.registers[1] ?? 0;
    const both = STATUS.LINK | STATUS.AUTONEG_DONE;
    this.#s.registers[1] = up ? status | both : status & ~both;
  }

  /** Carries out a command: what the register reads afterwards. */
  access(command: number): number {
    const register = (command >>> 16) & 0x1f;
    const operation = (command >>> 26) & 3;
    const known = ((command >>> 21) & 0x1f) === PHY_ADDRESS && register <= LAST_REGISTER;
    let data = 0;
    if (known && operation === OPERATION.WRITE) {
      this.#write(register, command & 0xffff);
      data = command & 0xffff;
    } else if (known && operation === OPERATION.READ) data = this.#s.registers[register] ?? 0;
    return ((command & 0xffff_0000) | data | READY) >>> 0;
  }

  #write(register: number, value: number): void {
    if (register === 0 && (value & CONTROL.RESET) !== 0) {
      this.#s.registers[0] = RESET[0];
      return;
    }
    const fixed = FIXED[register] ?? 0xffff;
    const kept = register === 0 ? value & ~CONTROL.RESTART : value;
    this.#s.registers[register] = ((this.#s.registers[register] ?? 0) & fixed) | (kept & ~fixed & 0xffff);
  }
}
