/** Registers of a host controller (SD Host Controller Simplified Specification 3.00, section 2.2), in words of 32 bits. */
export const REG = {
  SDMA_ADDRESS: 0x00,
  /** Block size and boundary, block count. */
  BLOCK: 0x04,
  ARGUMENT: 0x08,
  /** Transfer mode, command. */
  COMMAND: 0x0c,
  RESPONSE: 0x10,
  BUFFER: 0x20,
  PRESENT: 0x24,
  /** Host control 1, power, block gap, wakeup. */
  CONTROL: 0x28,
  /** Clock, timeout, software reset. */
  CLOCK: 0x2c,
  /** Normal status, error status; then what is shown of them, and what interrupts. */
  STATUS: 0x30,
  STATUS_ENABLE: 0x34,
  SIGNAL_ENABLE: 0x38,
  /** Auto CMD error status, host control 2. */
  CONTROL2: 0x3c,
  CAPABILITIES: 0x40,
  CURRENT: 0x48,
  FORCE: 0x50,
  ADMA_ERROR: 0x54,
  ADMA_ADDRESS: 0x58,
  /** Slot interrupt status, version. */
  SLOT: 0xfc,
} as const;

export const MODE = {
  DMA: 1 << 0,
  COUNT: 1 << 1,
  AUTO_CMD12: 1 << 2,
  READ: 1 << 4,
  MULTI: 1 << 5,
  WRITABLE: 0x37,
} as const;

/** The command register. */
export const COMMAND = { RESPONSE: 3, RESPONSE_BUSY: 3, DATA: 1 << 5, TYPE: 3 << 6, ABORT: 3 << 6 } as const;

/** Present state. */
export const PRESENT = {
  COMMAND_INHIBIT: 1 << 0,
  DATA_INHIBIT: 1 << 1,
  DATA_ACTIVE: 1 << 2,
  WRITING: 1 << 8,
  READING: 1 << 9,
  SPACE: 1 << 10,
  DATA: 1 << 11,
  CARD: 1 << 16,
  WRITABLE: 1 << 19,
  /** With a card, and without: inserted, stable, levels of the lines. */
  INSERTED: 0x01ff_0000,
  EMPTY: 0x01fa_0000,
  DATA_LEVEL_SHIFT: 20,
  COMMAND_LEVEL: 1 << 24,
} as const;
export const TRANSFER_STATE =
  PRESENT.READING | PRESENT.WRITING | PRESENT.DATA_ACTIVE | PRESENT.DATA_INHIBIT | PRESENT.SPACE | PRESENT.DATA;

/** Ways of DMA in host control 1. */
export const DMA = { MASK: 3 << 3, SDMA: 0, ADMA1: 1 << 3, ADMA2: 2 << 3, ADMA2_64: 3 << 3 } as const;

export const POWER_ON = 1;
export const GAP = { STOP: 1 << 0, CONTINUE: 1 << 1 } as const;
export const WAKE = { INSERTED: 1 << 1, REMOVED: 1 << 2 } as const;
export const CLOCK = { ENABLE: 1 << 0, STABLE: 1 << 1, CARD: 1 << 2, ON: 7 } as const;
export const RESET = { ALL: 1, COMMAND: 2, DATA: 4 } as const;

/** Normal interrupt status. */
export const NORMAL = {
  COMMAND: 1 << 0,
  TRANSFER: 1 << 1,
  GAP: 1 << 2,
  DMA: 1 << 3,
  WRITE_READY: 1 << 4,
  READ_READY: 1 << 5,
  INSERTED: 1 << 6,
  REMOVED: 1 << 7,
  CARD: 1 << 8,
  ERROR: 1 << 15,
} as const;

/** Error interrupt status. */
export const ERROR = { COMMAND_TIMEOUT: 1 << 0, DATA_TIMEOUT: 1 << 4, AUTO_CMD: 1 << 8, ADMA: 1 << 9 } as const;

export const CONTROL2 = { TUNE: 1 << 6, TUNED: 1 << 7 } as const;

/** Capabilities, of the low word. */
export const CAPABILITY = { ADMA2: 1 << 19, ADMA1: 1 << 20, SDMA: 1 << 22, WIDE: 1 << 28 } as const;

/** Descriptors of ADMA2 (section 1.13): attributes. */
export const ATTRIBUTE = {
  VALID: 1,
  END: 2,
  INTERRUPT: 4,
  ACTION: 0x30,
  SET_LENGTH: 0x10,
  TRANSFER: 0x20,
  LINK: 0x30,
} as const;
export const ADMA_ERROR = { FETCH: 1, TRANSFER: 3, STATE: 3, LENGTH_MISMATCH: 4 } as const;
