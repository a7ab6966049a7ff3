import { field, type StateValues } from '../../core/state/fields.ts';
import { BLOCK, GROUP, STANDARD_MAX } from './card-registers.ts';

/** Section numbers are those of the SD Physical Layer Simplified Specification 3.01. */

/** States (section 4.1), as CURRENT_STATE shows them. */
export const STATE = {
  IDLE: 0,
  READY: 1,
  IDENTIFICATION: 2,
  STANDBY: 3,
  TRANSFER: 4,
  SENDING: 5,
  RECEIVING: 6,
  PROGRAMMING: 7,
  DISCONNECTED: 8,
  INACTIVE: 15,
} as const;

/** Card status (section 4.10.1). */
export const CSR = {
  APP_CMD: 1 << 5,
  READY_FOR_DATA: 1 << 8,
  STATE_SHIFT: 9,
  STATE: 0xf << 9,
  WP_ERASE_SKIP: 1 << 15,
  CSD_OVERWRITE: 1 << 16,
  ERROR: 1 << 19,
  CARD_ECC_FAILED: 1 << 21,
  ILLEGAL_COMMAND: 1 << 22,
  LOCK_UNLOCK_FAILED: 1 << 24,
  CARD_IS_LOCKED: 1 << 25,
  WP_VIOLATION: 1 << 26,
  ERASE_SEQ_ERROR: 1 << 28,
  BLOCK_LEN_ERROR: 1 << 29,
  ADDRESS_ERROR: 1 << 30,
  OUT_OF_RANGE: 2 ** 31,
} as const;
/** Bits that are over once they have been told, and that end with the next valid command. */
export const CLEARED_BY_READ = 0xfd39_e028;
export const CLEARED_BY_COMMAND = CSR.STATE | CSR.ILLEGAL_COMMAND | (1 << 23);

/** OCR (section 5.1): 2.7 to 3.6 V. */
export const OCR = { VOLTAGES: 0x00ff_8000, WINDOW: 0x00ff_ffff, HIGH_CAPACITY: 1 << 30, POWERED_UP: 2 ** 31 } as const;

export const NO_ADDRESS = 0xffff_ffff;
export const PASSWORD_MAX = 16;

export const cardFields = {
  state: field.u8(),
  ocr: field.u32(OCR.VOLTAGES),
  status: field.u32(CSR.READY_FOR_DATA),
  address: field.u16(),
  acceptedVoltage: field.u32(),
  /** The last command, and whether the next is an application command. */
  command: field.u8(),
  application: field.bool(),
  appCommand: field.bool(),
  blockLength: field.u32(BLOCK),
  blocksLeft: field.u32(),
  eraseStart: field.u32(NO_ADDRESS),
  eraseEnd: field.u32(NO_ADDRESS),
  busWidth: field.u8(),
  functions: field.list(field.u8(), 6),
  /** Data phase: where it is, how far, and how many blocks were written. */
  at: field.number(),
  offset: field.u32(),
  loaded: field.bool(),
  written: field.u32(),
  data: field.bytes(BLOCK),
} as const;

/** What stays when the card is told to go idle. */
export const keptFields = {
  cid: field.bytes(16),
  csd: field.bytes(16),
  password: field.buffer(PASSWORD_MAX),
  groups: field.bytes(STANDARD_MAX / GROUP / 8),
} as const;

export type CardValues = StateValues<typeof cardFields>;
export type KeptValues = StateValues<typeof keptFields>;
