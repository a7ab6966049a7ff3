import { field, type StateValues } from '../../core/state/fields.ts';

const WORDS = 64;
const CHECKSUM_WORD = 0x3f;
/** All words of good contents add up to this (82574 datasheet, section 6.1.2). */
const CHECKSUM = 0xbaba;
const DEVICE_ID_WORDS = [11, 13] as const;
/** What the card is delivered with (section 6.1); addresses and device ids go in between. */
const CONTENTS = [
  0x0000, 0x0000, 0x0000, 0x0420, 0xf746, 0x2010, 0xffff, 0xffff, 0x0000, 0x0000, 0x026b, 0x0000, 0x8086, 0x0000,
  0x0000, 0x8058, 0x0000, 0x2001, 0x7e7c, 0xffff, 0x1000, 0x00c8, 0x0000, 0x2704, 0x6cc9, 0x3150, 0x070e, 0x460b,
  0x2d84, 0x0100, 0xf000, 0x0706, 0x6000, 0x0080, 0x0f04, 0x7fff, 0x4f01, 0xc600, 0x0000, 0x20ff, 0x0028, 0x0003,
  0x0000, 0x0000, 0x0000, 0x0003, 0x0000, 0xffff, 0x0100, 0xc000, 0x121c, 0xc007, 0xffff, 0xffff, 0xffff, 0xffff,
  0xffff, 0xffff, 0xffff, 0xffff, 0x0000, 0x0120, 0xffff, 0x0000,
] as const;
/** EERD and EEWR (section 10.2.2.3). */
const START = 1;
const DONE = 2;

export const nvmState = { words: field.words(WORDS) };

/** The memory that keeps the card's address and settings (section 6). */
export class Nvm {
  readonly #s: StateValues<typeof nvmState>;

  /** `state` is to be kept through resets. */
  constructor(state: StateValues<typeof nvmState>) {
    this.#s = state;
  }

  /** What the factory writes. */
  program(mac: Uint8Array, device: number): void {
    const { words } = this.#s;
    words.set(CONTENTS);
    for (let word = 0; word < 3; word++) words[word] = (mac[word * 2] ?? 0) | ((mac[word * 2 + 1] ?? 0) << 8);
    for (const word of DEVICE_ID_WORDS) words[word] = device;
    const sum = words.subarray(0, CHECKSUM_WORD).reduce((total, word) => total + word, 0);
    words[CHECKSUM_WORD] = (CHECKSUM - sum) & 0xffff;
  }

  /** What EERD holds after software has written `request` to it. */
  read(request: number): number {
    const address = (request >>> 2) & 0x3fff;
    if ((request & START) === 0 || address >= WORDS) return address << 2;
    return (((this.#s.words[address] ?? 0) << 16) | (address << 2) | DONE) >>> 0;
  }

  /** As {@link read}, of EEWR. */
  write(request: number): number {
    const address = (request >>> 2) & 0x3fff;
    const kept = request & 0xffff_0000;
    if ((request & START) === 0 || address >= WORDS) return (kept | (address << 2)) >>> 0;
    this.#s.words[address] = request >>> 16;
    return (kept | (address << 2) | DONE) >>> 0;
  }
}
