import { field, type StateValues } from '../../core/state/fields.ts';

/** The registers of a VGA (IBM VGA technical reference; FreeVGA), as bytes behind their index registers. */
export const vgaState = {
  misc: field.u8(),
  feature: field.u8(),
  status1: field.u8(),
  sequencerIndex: field.u8(),
  sequencer: field.bytes(8),
  graphicsIndex: field.u8(),
  graphics: field.bytes(16),
  attributeIndex: field.u8(),
  attribute: field.bytes(32),
  attributeData: field.bool(),
  crtcIndex: field.u8(),
  crtc: field.bytes(256),
  dacState: field.u8(),
  dacSub: field.u8(),
  dacRead: field.u8(),
  dacWrite: field.u8(),
  dacMask: field.u8(0xff),
  dacCache: field.bytes(3),
  palette: field.bytes(768),
  latch: field.u32(),
  vbeIndex: field.u16(),
  vbe: field.words(10),
};
export type VgaState = StateValues<typeof vgaState>;

export const SEQ = { RESET: 0, CLOCKING: 1, PLANE_WRITE: 2, FONT: 3, MEMORY_MODE: 4 } as const;
export const MEMORY_MODE = { EXTENDED: 2, SEQUENTIAL: 4, CHAIN4: 8 } as const;
export const GFX = {
  SET_RESET: 0,
  ENABLE_SET_RESET: 1,
  COMPARE: 2,
  ROTATE: 3,
  READ_MAP: 4,
  MODE: 5,
  MISC: 6,
  COMPARE_MASK: 7,
  BIT_MASK: 8,
} as const;
export const CRTC = {
  H_TOTAL: 0,
  H_DISPLAY_END: 1,
  OVERFLOW: 7,
  PRESET_ROW: 8,
  MAX_SCAN: 9,
  CURSOR_START: 10,
  CURSOR_END: 11,
  START_HIGH: 12,
  START_LOW: 13,
  CURSOR_HIGH: 14,
  CURSOR_LOW: 15,
  V_RETRACE_END: 17,
  V_DISPLAY_END: 18,
  OFFSET: 19,
  MODE: 23,
  LINE_COMPARE: 24,
} as const;

/** Registers of the Bochs display interface. */
export const VBE = {
  ID: 0,
  XRES: 1,
  YRES: 2,
  BPP: 3,
  ENABLE: 4,
  BANK: 5,
  VIRT_WIDTH: 6,
  VIRT_HEIGHT: 7,
  X_OFFSET: 8,
  Y_OFFSET: 9,
  MEMORY_64K: 10,
} as const;
export const VBE_ENABLE = { ENABLED: 0x01, GETCAPS: 0x02, DAC_8BIT: 0x20, LINEAR: 0x40, NO_CLEAR: 0x80 } as const;
export const VBE_ID5 = 0xb0c5;
