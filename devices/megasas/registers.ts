/**
 * The firmware interface of LSI's MegaRAID SAS adapters (MFI), as public drivers have it: LSI's SAS1078 and SAS2108 register
 * definitions, and the frames of Linux's megaraid_sas and FreeBSD's mfi. Little-endian throughout.
 */

/** Message unit registers, 32 bits each. */
export const REG = {
  /** Outbound message 0: the firmware's state, on the first adapters. */
  OMSG0: 0x18,
  /** Inbound doorbell. */
  IDB: 0x20,
  /** Outbound interrupt status and mask. */
  OSTS: 0x30,
  OMSK: 0x34,
  /** Inbound queue port: the address of a frame below 4 GiB, with its size. */
  IQP: 0x40,
  /** Outbound doorbell clear. */
  ODCR0: 0xa0,
  /** Outbound scratch pads: the firmware's state, and how many reply queues there may be. */
  OSP0: 0xb0,
  OSP1: 0xb4,
  /** Inbound queue port for 64-bit addresses. The low half starts the frame. */
  IQPL: 0xc0,
  IQPH: 0xc4,
  /** Host diagnostic, and the sequence that unlocks it. */
  DIAG: 0xf8,
  SEQ: 0xfc,
} as const;

/** The firmware's state, in bits 28 to 31 of its status; what else is there. */
export const STATE = { READY: 0xb, OPERATIONAL: 0xc, FAULT: 0xf } as const;
export const STATE_SHIFT = 28;
export const MSIX_SUPPORTED = 1 << 26;
export const MAX_SGE_SHIFT = 16;

export const DOORBELL = { ABORT: 1 << 0, READY: 1 << 1, STOP: 1 << 5 } as const;

export const DIAG = { RESET_ADAPTER: 1 << 2, WRITE_ENABLE: 1 << 7 } as const;
export const DIAG_KEY = [0x00, 0x04, 0x0b, 0x02, 0x07, 0x0d] as const;

/** All interrupts are masked. */
export const MASK_ALL = 0xffff_ffff;

/** An address written to a queue port: bits of the frame's size below it. */
export const FRAME_ALIGNMENT = 32;

/** Commands of frames. */
export const FRAME = {
  INIT: 0,
  LD_READ: 1,
  LD_WRITE: 2,
  LD_SCSI: 3,
  PD_SCSI: 4,
  DIRECT: 5,
  ABORT: 6,
} as const;

export const FLAG = {
  /** The host looks at the frame itself. */
  NOT_IN_REPLY_QUEUE: 1 << 0,
  SGL64: 1 << 1,
  SENSE64: 1 << 2,
  IEEE_SGL: 1 << 5,
} as const;

/** The header that all frames have, and what follows it. */
export const HEADER = {
  COMMAND: 0,
  SENSE_LENGTH: 1,
  STATUS: 2,
  SCSI_STATUS: 3,
  TARGET: 4,
  LUN: 5,
  CDB_LENGTH: 6,
  SGE_COUNT: 7,
  CONTEXT: 8,
  FLAGS: 16,
  DATA_LENGTH: 20,
} as const;
export const INIT = { QUEUES: 24 } as const;
export const IO = { SENSE: 24, LBA: 32, SGL: 40 } as const;
export const PASS = { SENSE: 24, CDB: 32, SGL: 48 } as const;
export const DIRECT = { OPCODE: 24, MAILBOX: 28, SGL: 40 } as const;
export const ABORT = { CONTEXT: 24, ADDRESS: 32 } as const;

/** Where the host has its queues (INIT). */
export const QUEUES = { FLAGS: 0, ENTRIES: 4, REPLY: 8, PRODUCER: 16, CONSUMER: 24, SIZE: 32 } as const;
export const QUEUES_CONTEXT64 = 1 << 1;

/** Elements of the three kinds of scatter gather lists. */
export const SGE32 = { SIZE: 8, LENGTH: 4 } as const;
export const SGE64 = { SIZE: 12, LENGTH: 8 } as const;
export const SGE_IEEE = { SIZE: 16, LENGTH: 8 } as const;
export const MAX_SGE = 128;
/** A frame with as long a list as there may be. */
export const FRAME_BYTES = MAX_SGE * SGE_IEEE.SIZE;

/** How a frame ended. */
export const STATUS = {
  OK: 0x00,
  INVALID_COMMAND: 0x01,
  INVALID_PARAMETER: 0x03,
  ABORT_NOT_POSSIBLE: 0x05,
  DEVICE_NOT_FOUND: 0x0c,
  FLUSH_FAILED: 0x15,
  MEMORY_NOT_AVAILABLE: 0x20,
  SCSI_DONE_WITH_ERROR: 0x2d,
  SCSI_IO_FAILED: 0x2e,
} as const;
/** It has not ended yet. */
export const PENDING = -1;

/** Opcodes of direct commands. */
export const DCMD = {
  CTRL_GET_INFO: 0x0101_0000,
  CTRL_GET_PROPERTIES: 0x0102_0100,
  CTRL_SET_PROPERTIES: 0x0102_0200,
  CTRL_EVENT_GETINFO: 0x0104_0100,
  CTRL_EVENT_WAIT: 0x0104_0500,
  CTRL_SHUTDOWN: 0x0105_0000,
  CTRL_GET_TIME: 0x0108_0101,
  CTRL_BIOS_DATA_GET: 0x010c_0100,
  CTRL_MFC_DEFAULTS_GET: 0x010e_0201,
  CTRL_CACHE_FLUSH: 0x0110_1000,
  PD_GET_LIST: 0x0201_0000,
  PD_LIST_QUERY: 0x0201_0100,
  PD_GET_INFO: 0x0202_0000,
  LD_GET_LIST: 0x0301_0000,
  LD_LIST_QUERY: 0x0301_0100,
  LD_GET_INFO: 0x0302_0000,
  CFG_READ: 0x0401_0000,
  CLUSTER_RESET_LD: 0x0801_0200,
} as const;

export const PD_QUERY_ALL = 0;
export const LD_QUERY = { ALL: 0, EXPOSED_TO_HOST: 1 } as const;

/** Logical drives, and drives in JBOD mode. */
export const MAX_LOGICAL = 64;
export const MAX_PHYSICAL = 240;

/** Events that a host may wait for. */
export const EVENT = {
  PD_INSERTED: 0x005b,
  PD_REMOVED: 0x0070,
  LD_CREATED: 0x008a,
  LD_DELETED: 0x008b,
} as const;
export const EVENT_ARGUMENT = { LD: 2, PD: 10 } as const;
export const LOCALE = { LD: 0x0001, PD: 0x0002 } as const;
