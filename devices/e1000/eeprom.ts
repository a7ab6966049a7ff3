import { field, type StateValues } from '../../core/state/fields.ts';
import { EECD } from './registers.ts';

const WORDS = 64;
const CHECKSUM_WORD = 0x3f;
/** All words of a good EEPROM add up to this (Intel 8254x software developer's manual, section 5.6.35). */
const CHECKSUM = 0xbaba;
const DEVICE_ID_WORDS = [11, 13] as const;
/** What Intel's cards are delivered with; addresses and device ids go in between. */
const CONTENTS = [
  0x0000, 0x0000, 0x0000, 0x0000, 0xffff, 0x0000, 0x0000, 0x0000, 0x3000, 0x1000, 0x6403, 0x0000, 0x8086, 0x0000,
  0x8086, 0x3040, 0x0008, 0x2000, 0x7e14, 0x0048, 0x1000, 0x00d8, 0x0000, 0x2700, 0x6cc9, 0x3150, 0x0722, 0x040b,
  0x0984, 0x0000, 0xc000, 0x0706, 0x1008, 0x0000, 0x0f04, 0x7fff, 0x4d01, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff,
  0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0x0100, 0x4000, 0x121c, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff,
  0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, 0x0000,
] as const;
/** A microwire read command: start bit, opcode 10, six address bits. */
const READ_OPCODE = 0b110;
const COMMAND_BITS = 9;

export const eepromState = {
  value: field.u32(),
  bitsIn: field.u32(),
  bitOut: field.u32(),
  reading: field.bool(),
  control: field.u16(),
};

/** The serial EEPROM behind EECD and EERD (section 5.3). */
export class Eeprom {
  readonly words: Uint16Array;
  readonly #s: StateValues<typeof eepromState>;

  constructor(state: StateValues<typeof eepromState>) {
    this.#s = state;
    this.words = Uint16Array.from(CONTENTS);
  }

  /** What makes a card itself: its address and its model. */
  program(mac: Uint8Array, device: number): void {
    for (let word = 0; word < 3; word++) this.words[word] = (mac[word * 2] ?? 0) | ((mac[word * 2 + 1] ?? 0) << 8);
    for (const word of DEVICE_ID_WORDS) this.words[word] = device;
    const sum = this.words.subarray(0, CHECKSUM_WORD).reduce((total, word) => total + word, 0);
    this.words[CHECKSUM_WORD] = CHECKSUM - sum;
  }

  /** EECD as software reads it: the grant follows the request, DO is what the part shifts out. */
  get control(): number {
    const s = this.#s;
    let value = EECD.PRESENT | EECD.GRANT | (s.control & (EECD.SK | EECD.CS | EECD.DI | EECD.FWE | EECD.REQUEST));
    const word = this.words[(s.bitOut >> 4) & (WORDS - 1)] ?? 0xffff;
    if (!s.reading || ((word >> ((s.bitOut & 0xf) ^ 0xf)) & 1) === 1) value |= EECD.DO;
    return value;
  }

  /** Software moves the pins: data in is taken on the rising edge of the clock, out on the falling one. */
  writeControl(value: number): void {
    const s = this.#s;
    const before = s.control;
    s.control = value & (EECD.SK | EECD.CS | EECD.DI | EECD.FWE | EECD.REQUEST);
    if ((value & EECD.CS) === 0) return;
    if ((before & EECD.CS) === 0) Object.assign(s, { value: 0, bitsIn: 0, bitOut: 0, reading: false });
    const edge = ((before ^ value) & EECD.SK) !== 0;
    if (!edge) return;
    if ((value & EECD.SK) === 0) {
      s.bitOut = (s.bitOut + 1) & 0x3ff;
      return;
    }
    s.value = ((s.value << 1) | ((value & EECD.DI) !== 0 ? 1 : 0)) & 0x1ff;
    s.bitsIn++;
    if (s.bitsIn === COMMAND_BITS && !s.reading) {
      s.bitOut = (((s.value & 0x3f) << 4) - 1) & 0x3ff;
      s.reading = s.value >> 6 === READ_OPCODE;
    }
  }

  /** EERD: the word whose address software wrote, with DONE. */
  readWord(request: number): number {
    const address = (request >>> 8) & 0xff;
    if ((request & 1) === 0) return request;
    return (((this.words[address] ?? 0) << 16) | 0x10 | (request & ~1)) >>> 0;
  }
}
