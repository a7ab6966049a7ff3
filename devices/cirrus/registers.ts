import { field, type StateValues } from '../../core/state/fields.ts';
import { vgaState } from '../vga/state.ts';

/** Extended registers (CL-GD5446 technical reference manual, chapters 8 and 9): sequencer, graphics controller, CRTC. */
export const SR = {
  UNLOCK: 0x06,
  MODE: 0x07,
  DRAM: 0x0f,
  CURSOR_X: 0x10,
  CURSOR_Y: 0x11,
  CURSOR_ATTRIBUTES: 0x12,
  CURSOR_PATTERN: 0x13,
  SCRATCH_3: 0x15,
  CONFIGURATION: 0x17,
  LAST: 0x1f,
} as const;
export const SR7_SVGA = 0x01;
export const CURSOR = { SHOW: 0x01, HIDDEN_PALETTE: 0x02, LARGE: 0x04 } as const;
/** Registers of the blitter in memory: on, and in the frame buffer in place of at B8000h. */
export const SR17_MMIO = { MASK: 0x44, AT_B8000: 0x04, IN_FRAME_BUFFER: 0x44 } as const;

export const GR = {
  BACKGROUND: 0x00,
  FOREGROUND: 0x01,
  MODE: 0x05,
  BANK_0: 0x09,
  BANK_1: 0x0a,
  BANKING: 0x0b,
  BLT_WIDTH: 0x20,
  BLT_HEIGHT: 0x22,
  BLT_DEST_PITCH: 0x24,
  BLT_SOURCE_PITCH: 0x26,
  BLT_DEST: 0x28,
  BLT_DEST_HIGH: 0x2a,
  BLT_SOURCE: 0x2c,
  BLT_LEFT_SKIP: 0x2f,
  BLT_MODE: 0x30,
  BLT_STATUS: 0x31,
  BLT_ROP: 0x32,
  BLT_MODE_EXTENSIONS: 0x33,
  TRANSPARENT_LOW: 0x34,
  TRANSPARENT_HIGH: 0x35,
  END: 0x3a,
} as const;
export const BANKING = { DUAL: 0x01, BY_8: 0x02, EXTENDED_WRITES: 0x04, BY_16: 0x10, GRANULARITY_16K: 0x20 } as const;

export const CR = {
  MISCELLANEOUS: 0x1a,
  EXTENDED: 0x1b,
  OVERLAY: 0x1d,
  TOGGLE: 0x24,
  INDEX: 0x26,
  PART_ID: 0x27,
} as const;

/** Bytes that a blit may be wide, and so a row from the CPU. */
export const BLT_BUFFER = 8192;

export const cirrusState = {
  ...vgaState,
  sequencer: field.bytes(256),
  graphics: field.bytes(256),
  /** GR0 and GR1 as they were written, with all eight bits: the blitter's colours. */
  background: field.u8(),
  foreground: field.u8(),
  hiddenDacLock: field.u8(5),
  hiddenDac: field.u8(),
  hiddenPalette: field.bytes(48),
  cursorX: field.u16(),
  cursorY: field.u16(),
};
export type CirrusState = StateValues<typeof cirrusState>;

/** A blit that waits for the CPU to send its source. */
export const bltState = {
  width: field.u32(),
  height: field.u32(),
  destPitch: field.number(),
  sourcePitch: field.number(),
  dest: field.number(),
  source: field.number(),
  mode: field.u8(),
  extensions: field.u8(),
  rop: field.u8(),
  pixelBytes: field.u8(1),
  /** Bytes of the source that are still to come. */
  left: field.number(),
  filled: field.u32(),
  /** Bytes of {@link buffer} that make the next row; 0 while nothing is expected. */
  wanted: field.u32(),
  buffer: field.bytes(2 * BLT_BUFFER),
};
export type BltState = StateValues<typeof bltState>;
