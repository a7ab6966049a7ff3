import type { StateValues } from '../../core/state/fields.ts';
import { field } from '../../core/state/fields.ts';

/** CT1745 (SB16 programming guide, chapter 4): registers by number. */
const MIXER = {
  RESET: 0x00,
  VOICE: 0x04,
  MASTER: 0x22,
  MIDI: 0x26,
  MASTER_LEFT: 0x30,
  MASTER_RIGHT: 0x31,
  VOICE_LEFT: 0x32,
  VOICE_RIGHT: 0x33,
  MIDI_LEFT: 0x34,
  MIDI_RIGHT: 0x35,
  LAST_LEVEL: 0x47,
  INTERRUPT_SETUP: 0x80,
  DMA_SETUP: 0x81,
  INTERRUPT_STATUS: 0x82,
} as const;
/** The SB Pro's registers, left in the upper half and right in the lower, and those of the CT1745 that are the same. */
const PRO_PAIRS: ReadonlyMap<number, readonly [left: number, right: number]> = new Map([
  [MIXER.VOICE, [MIXER.VOICE_LEFT, MIXER.VOICE_RIGHT]],
  [MIXER.MASTER, [MIXER.MASTER_LEFT, MIXER.MASTER_RIGHT]],
  [MIXER.MIDI, [MIXER.MIDI_LEFT, MIXER.MIDI_RIGHT]],
]);
const IRQ_BITS: ReadonlyMap<number, number> = new Map([
  [2, 1],
  [9, 1],
  [5, 2],
  [7, 4],
  [10, 8],
]);
/** Level 24 of 31: -14 dB. */
const DEFAULT_LEVEL = 24 << 3;
const LEVELS = 31;
const DB_PER_LEVEL = 2;
export const MIXER_REGISTERS = 256;

export const mixerState = { index: field.u8(), registers: field.buffer(MIXER_REGISTERS) } as const;

/** What the card's settings are, which no software changes: they are jumpers here. */
export interface Sb16Settings {
  readonly irq: number;
  readonly dma: number;
  readonly dma16: number;
}

export class Mixer {
  readonly #s: StateValues<typeof mixerState>;
  readonly #settings: Sb16Settings;
  readonly #interruptStatus: () => number;

  constructor(state: StateValues<typeof mixerState>, settings: Sb16Settings, interruptStatus: () => number) {
    this.#s = state;
    this.#settings = settings;
    this.#interruptStatus = interruptStatus;
    this.reset();
  }

  reset(): void {
    const registers = new Uint8Array(MIXER_REGISTERS);
    for (let level = MIXER.MASTER_LEFT; level <= MIXER.MIDI_RIGHT; level++) registers[level] = DEFAULT_LEVEL;
    // Outputs: line, CD and microphone; inputs the same on their sides (section 4.3).
    registers.set([0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x1f, 0x15, 0x0b], 0x36);
    registers.set([0x00, 0x00, 0x00, 0x00, 0x00, 0x80, 0x80, 0x80, 0x80], 0x3f);
    this.#s.registers = registers;
  }

  read(): number {
    const { index, registers } = this.#s;
    const { irq, dma, dma16 } = this.#settings;
    const pair = PRO_PAIRS.get(index);
    if (pair !== undefined) {
      const [left, right] = pair;
      return ((registers[left] ?? 0) & 0xf0) | ((registers[right] ?? 0) >> 4);
    }
    switch (index) {
      case MIXER.INTERRUPT_SETUP:
        return IRQ_BITS.get(irq) ?? 0;
      case MIXER.DMA_SETUP:
        return (1 << dma) | (1 << dma16);
      case MIXER.INTERRUPT_STATUS:
        return this.#interruptStatus();
      default:
        return registers[index] ?? 0xff;
    }
  }

  write(value: number): void {
    const { index, registers } = this.#s;
    const pair = PRO_PAIRS.get(index);
    if (index === MIXER.RESET) {
      this.reset();
    } else if (pair !== undefined) {
      // Four bits of level, and the fifth follows the fourth.
      const [left, right] = pair;
      registers[left] = (value & 0xf0) | 0x08;
      registers[right] = ((value & 0x0f) << 4) | 0x08;
    } else if (index < MIXER.INTERRUPT_SETUP) {
      registers[index] = value;
    }
  }

  /** How loud the voice is on both sides, from 0 to 1. */
  gains(): readonly [left: number, right: number] {
    return [this.#gain(MIXER.MASTER_LEFT, MIXER.VOICE_LEFT), this.#gain(MIXER.MASTER_RIGHT, MIXER.VOICE_RIGHT)];
  }

  #gain(...levels: readonly number[]): number {
    let decibels = 0;
    for (const index of levels) {
      const level = (this.#s.registers[index] ?? 0) >> 3;
      if (level === 0) return 0;
      decibels += (LEVELS - level) * DB_PER_LEVEL;
    }
    return 10 ** (-decibels / 20);
  }
}
