import { field, type StateValues } from '../core/state/fields.ts';

const WORDS = 64;
const ADDRESS_BITS = 6;
const WORD_BITS = 16;
/** A start bit is waited for; then two bits of operation and the address come in. */
const COMMAND_BITS = 2 + ADDRESS_BITS;
const OPERATION = { EXTENDED: 0b00, WRITE: 0b01, READ: 0b10, ERASE: 0b11 } as const;
/** What the highest address bits of an extended operation mean. */
const EXTENDED = { WRITE_DISABLE: 0b00, WRITE_ALL: 0b01, ERASE_ALL: 0b10, WRITE_ENABLE: 0b11 } as const;

export const microwireState = {
  contents: field.words(WORDS),
  phase: field.oneOf(['standby', 'start', 'command', 'read', 'write', 'write-all', 'done'], 'standby'),
  shift: field.u32(),
  bits: field.u8(),
  address: field.u8(),
  clock: field.bool(),
  output: field.bool(true),
  writable: field.bool(),
};

/** A serial EEPROM of 64 words on three wires (93C46 datasheet): what network cards keep their addresses in. */
export class MicrowireEeprom {
  readonly #s: StateValues<typeof microwireState>;

  /** `state` is to be kept through resets: the part is on its own. */
  constructor(state: StateValues<typeof microwireState>) {
    this.#s = state;
  }

  read(address: number): number {
    return this.#s.contents[address & (WORDS - 1)] ?? 0;
  }

  /** What the factory writes. */
  program(address: number, word: number): void {
    this.#s.contents[address & (WORDS - 1)] = word & 0xffff;
  }

  /** Pin DO: high unless the part drives it. */
  get output(): boolean {
    return this.#s.phase === 'standby' || this.#s.output;
  }

  /** Pins CS, SK and DI change; data are taken and given on rising edges of the clock. */
  setPins(select: boolean, clock: boolean, data: boolean): void {
    const s = this.#s;
    const rising = clock && !s.clock;
    s.clock = clock;
    if (!select) {
      s.phase = 'standby';
      s.output = true;
      return;
    }
    if (s.phase === 'standby') this.#await();
    if (rising) this.#clocked(data ? 1 : 0);
  }

  #await(): void {
    const s = this.#s;
    s.phase = 'start';
    s.bits = 0;
    s.shift = 0;
    s.output = true;
  }

  #clocked(bit: number): void {
    const s = this.#s;
    if (s.phase === 'read') {
      s.output = ((this.read(s.address) >>> (WORD_BITS - 1 - s.bits)) & 1) !== 0;
      if (++s.bits < WORD_BITS) return;
      // The next word follows as long as the clock does.
      s.bits = 0;
      s.address = (s.address + 1) & (WORDS - 1);
      return;
    }
    if (s.phase === 'start') {
      if (bit !== 0) s.phase = 'command';
      return;
    }
    if (s.phase === 'done' || s.phase === 'standby') return;
    s.shift = ((s.shift << 1) | bit) & 0xffff;
    s.bits++;
    if (s.phase === 'command') {
      if (s.bits === COMMAND_BITS) this.#command(s.shift >>> ADDRESS_BITS, s.shift & (WORDS - 1));
    } else if (s.bits === WORD_BITS) {
      if (s.phase === 'write') this.#store(s.address, s.shift);
      else for (let address = 0; address < WORDS; address++) this.#store(address, s.shift);
      s.phase = 'done';
      s.output = true;
    }
  }

  #command(operation: number, address: number): void {
    const s = this.#s;
    s.address = address;
    s.bits = 0;
    s.shift = 0;
    s.phase = 'done';
    if (operation === OPERATION.READ) {
      // A zero stands before the data.
      s.phase = 'read';
      s.output = false;
    } else if (operation === OPERATION.WRITE) {
      s.phase = 'write';
    } else if (operation === OPERATION.ERASE) {
      this.#store(address, 0xffff);
    } else this.#extended(address >>> (ADDRESS_BITS - 2));
  }

  #extended(operation: number): void {
    const s = this.#s;
    if (operation === EXTENDED.WRITE_ALL) s.phase = 'write-all';
    else if (operation === EXTENDED.WRITE_ENABLE) s.writable = true;
    else if (operation === EXTENDED.WRITE_DISABLE) s.writable = false;
    else for (let address = 0; address < WORDS; address++) this.#store(address, 0xffff);
  }

  #store(address: number, word: number): void {
    if (this.#s.writable) this.program(address, word);
  }
}
