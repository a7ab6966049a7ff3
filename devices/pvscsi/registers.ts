import { bit, r32, registerMap } from '../../core/register/register.ts';

const wo = { access: 'wo' } as const;
const ro = { access: 'ro' } as const;

/** The pages of the registers, BAR 0. Names are those of VMware's interface (Linux, drivers/scsi/vmw_pvscsi.h). */
export const pvscsiRegisters = registerMap('pvscsi', {
  COMMAND: r32(0x0000, {}, { ...wo, doc: 'Begins a command' }),
  COMMAND_DATA: r32(0x0004, {}, { ...wo, doc: 'The next word of the command that was begun' }),
  COMMAND_STATUS: r32(0x0008, {}, { ...ro, doc: 'What became of the command' }),
  LAST_STS: r32(0x0100, {}, { ...ro, count: 4, doc: 'Not used' }),
  INTR_STATUS: r32(
    0x100c,
    { CMPL_0: bit(0), CMPL_1: bit(1), MSG_0: bit(2), MSG_1: bit(3) },
    { access: 'w1c', doc: 'Causes of an interrupt: completions, messages' },
  ),
  INTR_MASK: r32(0x2010, {}, { doc: 'Causes that interrupt' }),
  KICK_NON_RW_IO: r32(0x3014, {}, { ...wo, doc: 'There are requests' }),
  DEBUG: r32(0x3018, {}, { ...wo, doc: 'Takes anything' }),
  KICK_RW_IO: r32(0x4018, {}, { ...wo, doc: 'There are requests that read or write blocks' }),
});

export const SPACE_SIZE = 0x8000;

export const COMMAND = {
  NONE: 0,
  ADAPTER_RESET: 1,
  ISSUE_SCSI: 2,
  SETUP_RINGS: 3,
  RESET_BUS: 4,
  RESET_DEVICE: 5,
  ABORT_CMD: 6,
  CONFIG: 7,
  SETUP_MSG_RING: 8,
  DEVICE_UNPLUG: 9,
} as const;

/** Words of data that make a command whole, by its number. */
export const COMMAND_WORDS: readonly number[] = [0, 0, 0, 132, 0, 3, 4, 6, 34, 0];
export const DATA_WORDS = 132;

export const COMMAND_STATUS = { SUCCEEDED: 0, FAILED: 0xffff_ffff, NOT_ENOUGH_DATA: 0xffff_fffe } as const;

/** Words of a command's data: SETUP_RINGS, SETUP_MSG_RING, RESET_DEVICE, ABORT_CMD. */
export const SETUP = { REQUEST_PAGES: 0, COMPLETION_PAGES: 1, STATE: 2, REQUESTS: 4, COMPLETIONS: 68 } as const;
export const SETUP_MESSAGES = { PAGES: 0, MESSAGES: 2 } as const;
export const RESET_DEVICE = { TARGET: 0, LUN: 1 } as const;
export const ABORT = { CONTEXT: 0 } as const;

export const RINGS = { PAGES_MAX: 32, MESSAGE_PAGES_MAX: 16, REQUESTS_MAX: 1024 } as const;
export const PAGE = 4096;

/** The page where driver and device tell each other how far they are. */
export const STATE = {
  REQUEST_PRODUCER: 0,
  REQUEST_CONSUMER: 4,
  REQUEST_ENTRIES_LOG2: 8,
  COMPLETION_PRODUCER: 12,
  COMPLETION_CONSUMER: 16,
  COMPLETION_ENTRIES_LOG2: 20,
  MESSAGE_PRODUCER: 128,
  MESSAGE_CONSUMER: 132,
  MESSAGE_ENTRIES_LOG2: 136,
} as const;

export const REQUEST = {
  BYTES: 128,
  CONTEXT: 0,
  DATA: 8,
  DATA_LENGTH: 16,
  SENSE: 24,
  SENSE_LENGTH: 32,
  FLAGS: 36,
  CDB: 40,
  CDB_MAX: 16,
  CDB_LENGTH: 56,
  LUN: 57,
  BUS: 66,
  TARGET: 67,
} as const;

export const REQUEST_FLAG = { SG_LIST: 1 << 0, TO_HOST: 1 << 3, TO_DEVICE: 1 << 4 } as const;

/** An element of a list: where the data is, or, as a link of a chain, where the list goes on. */
export const ELEMENT = { BYTES: 16, WORDS: 4, MAX: 2048, CHAIN: 1 << 0 } as const;

export const COMPLETION = {
  BYTES: 32,
  CONTEXT: 0,
  DATA_LENGTH: 8,
  SENSE_LENGTH: 16,
  HOST_STATUS: 20,
  SCSI_STATUS: 22,
} as const;

/** How the adapter got on, beside the status of the device. */
export const HOST_STATUS = {
  SUCCESS: 0x00,
  SELECTION_TIMEOUT: 0x11,
  DATA_RUN: 0x12,
  BAD_MESSAGE: 0x1d,
  BUS_RESET: 0x25,
  ABORT_QUEUE: 0x26,
} as const;

export const MESSAGE = { BYTES: 128, TYPE: 0, BUS: 4, TARGET: 8, LUN: 12 } as const;
export const MESSAGE_TYPE = { DEVICE_ADDED: 0, DEVICE_REMOVED: 1 } as const;

/** Targets; their logical units are in the first level of the LUN, whose other bytes are 0. */
export const TARGET_MAX = 64;
