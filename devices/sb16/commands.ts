/** What the DSP's commands do things to. */
export interface DspHost {
  /** Major in the upper byte. */
  readonly version: number;
  speaker: boolean;
  testRegister: number;
  /** Bytes between two interrupts of auto-initializing 8-bit transfers. */
  block: number;
  answer(...bytes: readonly number[]): void;
  setRate(hertz: number): void;
  setTimeConstant(constant: number): void;
  interrupt(wide: boolean): void;
  /** Interrupts after so many samples of nothing. */
  silence(samples: number): void;
  start8(options: { readonly length?: number; readonly input: boolean; readonly highSpeed?: boolean }): void;
  startGeneric(command: number, mode: number, samples: number): void;
  pause(wide: boolean, paused: boolean): void;
  finish(wide: boolean): void;
  resumeAuto(wide: boolean): void;
}

interface DspCommand {
  /** Bytes that follow it. */
  readonly bytes: number;
  run(dsp: DspHost, first: number, second: number, third: number, code: number): void;
}

const COPYRIGHT = 'COPYRIGHT (C) CREATIVE TECHNOLOGY LTD, 1992.\0';
const count = (low: number, high: number): number => low + high * 256 + 1;
const nothing = (): void => {};

/** Commands by code (SB16 programming guide, chapter 6); those of ADPCM, which has no converter here, only take their data. */
export const DSP_COMMANDS: ReadonlyMap<number, DspCommand> = new Map<number, DspCommand>([
  // The signal processor of later cards: none answers.
  [0x03, { bytes: 0, run: dsp => dsp.answer(0x10) }],
  [0x04, { bytes: 1, run: nothing }],
  [0x05, { bytes: 2, run: nothing }],
  [0x08, { bytes: 0, run: nothing }],
  [0x09, { bytes: 0, run: dsp => dsp.answer(0xf8) }],
  [0x0e, { bytes: 2, run: nothing }],
  [0x0f, { bytes: 1, run: dsp => dsp.answer(0) }],
  // Direct mode, sample by sample.
  [0x10, { bytes: 1, run: nothing }],
  [0x20, { bytes: 0, run: dsp => dsp.answer(0x80) }],
  // 8-bit transfers.
  [0x14, { bytes: 2, run: (dsp, low, high) => dsp.start8({ length: count(low, high), input: false }) }],
  [0x1c, { bytes: 0, run: dsp => dsp.start8({ input: false }) }],
  [0x24, { bytes: 2, run: (dsp, low, high) => dsp.start8({ length: count(low, high), input: true }) }],
  [0x2c, { bytes: 0, run: dsp => dsp.start8({ input: true }) }],
  [0x90, { bytes: 0, run: dsp => dsp.start8({ input: false, highSpeed: true }) }],
  [0x91, { bytes: 0, run: dsp => dsp.start8({ length: dsp.block, input: false, highSpeed: true }) }],
  [0x99, { bytes: 0, run: dsp => dsp.start8({ length: dsp.block, input: true, highSpeed: true }) }],
  [0x98, { bytes: 0, run: dsp => dsp.start8({ input: true, highSpeed: true }) }],
  [0x35, { bytes: 0, run: nothing }],
  [0x38, { bytes: 1, run: nothing }],
  // Rates and sizes.
  [0x40, { bytes: 1, run: (dsp, constant) => dsp.setTimeConstant(constant) }],
  [0x41, { bytes: 2, run: (dsp, high, low) => dsp.setRate(high * 256 + low) }],
  [0x42, { bytes: 2, run: (dsp, high, low) => dsp.setRate(high * 256 + low) }],
  [0x45, { bytes: 0, run: dsp => dsp.resumeAuto(false) }],
  [0x47, { bytes: 0, run: dsp => dsp.resumeAuto(true) }],
  [
    0x48,
    {
      bytes: 2,
      run: (dsp, low, high) => {
        dsp.block = count(low, high);
      },
    },
  ],
  [0x80, { bytes: 2, run: (dsp, low, high) => dsp.silence(count(low, high)) }],
  // ADPCM.
  ...[0x16, 0x17, 0x74, 0x75, 0x76, 0x77].map((code): [number, DspCommand] => [code, { bytes: 2, run: nothing }]),
  ...[0x1f, 0x7d, 0x7f].map((code): [number, DspCommand] => [code, { bytes: 0, run: nothing }]),
  // The SB Pro's input in mono and stereo.
  [0xa0, { bytes: 0, run: nothing }],
  [0xa8, { bytes: 0, run: nothing }],
  // The SB16's transfers: a mode, and samples less one.
  ...Array.from({ length: 0x20 }, (_, index): [number, DspCommand] => [
    0xb0 + index,
    { bytes: 3, run: (dsp, mode, low, high, code) => dsp.startGeneric(code, mode, count(low, high)) },
  ]),
  [0xd0, { bytes: 0, run: dsp => dsp.pause(false, true) }],
  [
    0xd1,
    {
      bytes: 0,
      run: dsp => {
        dsp.speaker = true;
      },
    },
  ],
  [
    0xd3,
    {
      bytes: 0,
      run: dsp => {
        dsp.speaker = false;
      },
    },
  ],
  [0xd4, { bytes: 0, run: dsp => dsp.pause(false, false) }],
  [0xd5, { bytes: 0, run: dsp => dsp.pause(true, true) }],
  [0xd6, { bytes: 0, run: dsp => dsp.pause(true, false) }],
  [0xd8, { bytes: 0, run: dsp => dsp.answer(dsp.speaker ? 0xff : 0) }],
  [0xd9, { bytes: 0, run: dsp => dsp.finish(true) }],
  [0xda, { bytes: 0, run: dsp => dsp.finish(false) }],
  // Identification and tests.
  [0xe0, { bytes: 1, run: (dsp, value) => dsp.answer(~value & 0xff) }],
  [0xe1, { bytes: 0, run: dsp => dsp.answer(dsp.version >> 8, dsp.version & 0xff) }],
  [0xe2, { bytes: 1, run: nothing }],
  [0xe3, { bytes: 0, run: dsp => dsp.answer(...Buffer.from(COPYRIGHT, 'latin1')) }],
  [
    0xe4,
    {
      bytes: 1,
      run: (dsp, value) => {
        dsp.testRegister = value;
      },
    },
  ],
  [0xe7, { bytes: 0, run: nothing }],
  [0xe8, { bytes: 0, run: dsp => dsp.answer(dsp.testRegister) }],
  [0xf2, { bytes: 0, run: dsp => dsp.interrupt(false) }],
  [0xf3, { bytes: 0, run: dsp => dsp.interrupt(true) }],
  [0xf8, { bytes: 0, run: dsp => dsp.answer(0) }],
  [0xf9, { bytes: 1, run: (dsp, index) => dsp.answer(INTERNALS.get(index) ?? 0) }],
  [0xfa, { bytes: 0, run: dsp => dsp.answer(0) }],
  [0xfc, { bytes: 0, run: dsp => dsp.answer(0) }],
]);

/** Internal memory that drivers look at to tell cards apart. */
const INTERNALS: ReadonlyMap<number, number> = new Map([
  [0x0e, 0xff],
  [0x0f, 0x07],
  [0x37, 0x38],
]);
