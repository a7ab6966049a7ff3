/** Registers, commands and status of NVM Express 1.4; section numbers are its. */

import { bit, bits, r32, r64, registerMap } from '../../core/register/register.ts';

/** Memory page sizes of 2^(12 + MPS): 4 KiB to 64 KiB. */
export const MPSMAX = 4;
/** Of any queue, less one. */
export const MQES = 0x7ff;

/** Controller registers (section 3.1). Doorbells follow at 0x1000. */
export const nvmeRegisters = registerMap('nvme', {
  CAP: r64(
    0x00,
    {
      MQES: bits(0, 16),
      CQR: bit(16),
      TO: bits(24, 8),
      CSS: bits(37, 8),
      MPSMIN: bits(48, 4),
      MPSMAX: bits(52, 4),
      PMRS: bit(56),
      CMBS: bit(57),
    },
    {
      access: 'ro',
      // Contiguous queues, 7.5 s to get ready; the NVM command set, I/O command sets, and no I/O at all.
      reset: BigInt(MQES) | (1n << 16n) | (0xfn << 24n) | (0b1100_0001n << 37n) | (BigInt(MPSMAX) << 52n),
      sticky: true,
    },
  ),
  VS: r32(0x08, {}, { access: 'ro', reset: 0x0001_0400 }),
  INTMS: r32(0x0c),
  INTMC: r32(0x10),
  CC: r32(0x14, {
    EN: bit(0),
    CSS: bits(4, 3),
    MPS: bits(7, 4),
    AMS: bits(11, 3),
    SHN: bits(14, 2),
    IOSQES: bits(16, 4),
    IOCQES: bits(20, 4),
  }),
  CSTS: r32(0x1c, { RDY: bit(0), CFS: bit(1), SHST: bits(2, 2), NSSRO: bit(4), PP: bit(5) }, { access: 'ro' }),
  NSSR: r32(0x20, {}, { access: 'ro', doc: 'no subsystem reset: CAP.NSSRS is 0' }),
  AQA: r32(0x24, { ASQS: bits(0, 12), ACQS: bits(16, 12) }),
  ASQ: r64(0x28),
  ACQ: r64(0x30),
  CMBLOC: r32(0x38, {}, { access: 'ro' }),
  CMBSZ: r32(0x3c, {}, { access: 'ro' }),
  CMBMSC: r64(0x50, {}, { doc: 'address, and in bits 0 and 1 CRE and CMSE' }),
  CMBSTS: r32(0x58, { CBAI: bit(0) }, { access: 'ro' }),
  PMRCAP: r32(
    0xe00,
    { RDS: bit(3), WDS: bit(4), BIR: bits(5, 3), PMRWBM: bits(10, 4), CMSS: bit(24) },
    { access: 'ro', sticky: true },
  ),
  PMRCTL: r32(0xe04, { EN: bit(0) }),
  PMRSTS: r32(0xe08, { NRDY: bit(8), CBAI: bit(12) }, { access: 'ro' }),
  PMREBS: r32(0xe0c, {}, { access: 'ro' }),
  PMRSWTP: r32(0xe10, {}, { access: 'ro' }),
  PMRMSCL: r32(0xe14, {}, { doc: 'address, and in bit 1 CMSE' }),
  PMRMSCU: r32(0xe18),
});

export const REGISTERS_SIZE = 0x1000;
/** Bytes of the doorbells of a pair of queues (section 3.1.24; CAP.DSTRD is 0). */
export const DOORBELLS_SIZE = 8;

/** CC.CSS (section 3.1.5): which I/O commands there are. */
export const CSS = { NVM: 0, ALL: 6, ADMIN_ONLY: 7 } as const;
/** CSTS.SHST (section 3.1.6). */
export const SHUTDOWN_COMPLETE = 2;
/** Sizes of queue entries, as powers of two (section 4.1). */
export const SQES = 6;
export const CQES = 4;

export const NSID_BROADCAST = 0xffff_ffff;
/** Of qualified names (NVMe 1.4, section 7.9). */
export const NQN_PREFIX = 'nqn.2019-08.org.qemu:';
export const MAX_NAMESPACES = 256;
/** Kinds of I/O command sets. */
export const CSI = { NVM: 0, ZONED: 2 } as const;

/** Offsets in a command (section 4.2). */
export const COMMAND = {
  SIZE: 64,
  OPCODE: 0,
  FLAGS: 1,
  CID: 2,
  NSID: 4,
  PRP1: 24,
  PRP2: 32,
  CDW10: 40,
  CDW11: 44,
  CDW12: 48,
  CDW13: 52,
  CDW14: 56,
} as const;
/** In the flags: fused operations, and what describes the data. */
export const FUSE = 0b11;
export const PSDT_SHIFT = 6;

/** Offsets in a completion (section 4.6). */
export const COMPLETION = { SIZE: 16, DW0: 0, DW1: 4, SQHD: 8, SQID: 10, CID: 12, STATUS: 14 } as const;

/** Admin commands (section 5). */
export const ADMIN = {
  DELETE_SQ: 0x00,
  CREATE_SQ: 0x01,
  GET_LOG_PAGE: 0x02,
  DELETE_CQ: 0x04,
  CREATE_CQ: 0x05,
  IDENTIFY: 0x06,
  ABORT: 0x08,
  SET_FEATURES: 0x09,
  GET_FEATURES: 0x0a,
  ASYNC_EVENT: 0x0c,
  NAMESPACE_ATTACHMENT: 0x15,
} as const;

/** Commands of the NVM command set (section 6). */
export const IO = {
  FLUSH: 0x00,
  WRITE: 0x01,
  READ: 0x02,
  COMPARE: 0x05,
  WRITE_ZEROES: 0x08,
  DATASET_MANAGEMENT: 0x09,
  VERIFY: 0x0c,
} as const;

/** Status code type and status code (section 4.6.1). */
export const STATUS = {
  SUCCESS: 0x000,
  INVALID_OPCODE: 0x001,
  INVALID_FIELD: 0x002,
  DATA_TRANSFER_ERROR: 0x004,
  INTERNAL_ERROR: 0x006,
  INVALID_NSID: 0x00b,
  SEQUENCE_ERROR: 0x00c,
  INVALID_SGL_SEGMENT: 0x00d,
  INVALID_SGL_COUNT: 0x00e,
  INVALID_SGL_LENGTH: 0x00f,
  INVALID_SGL_TYPE: 0x011,
  INVALID_PRP_OFFSET: 0x013,
  COMMAND_SET_REJECTED: 0x02b,
  LBA_RANGE: 0x080,
  INVALID_CQID: 0x100,
  INVALID_QID: 0x101,
  INVALID_QUEUE_SIZE: 0x102,
  ASYNC_EVENT_LIMIT: 0x105,
  INVALID_VECTOR: 0x108,
  INVALID_QUEUE_DELETION: 0x10c,
  FEATURE_NOT_SAVEABLE: 0x10d,
  FEATURE_NOT_CHANGEABLE: 0x10e,
  FEATURE_NOT_PER_NAMESPACE: 0x10f,
  ALREADY_ATTACHED: 0x118,
  NAMESPACE_PRIVATE: 0x119,
  NOT_ATTACHED: 0x11a,
  CONTROLLER_LIST_INVALID: 0x11c,
  WRITE_FAULT: 0x280,
  UNRECOVERED_READ: 0x281,
  COMPARE_FAILURE: 0x285,
} as const;
/** Do not retry. */
export const DNR = 0x4000;
/** The command ends later. */
export const PENDING = -1;

/** Kinds of asynchronous events, and what happened (section 5.2). */
export const EVENT = {
  ERROR: 0,
  SMART: 1,
  NOTICE: 2,
  INVALID_DOORBELL: 0,
  INVALID_DOORBELL_VALUE: 1,
  RELIABILITY: 0,
  TEMPERATURE: 1,
  SPARE: 2,
  NAMESPACE_CHANGED: 0,
} as const;
/** Asynchronous event configuration (section 5.21.1.11): changes of namespaces. */
export const NOTIFY_NAMESPACE = 1 << 8;

/** Log pages (section 5.14.1). */
export const LOG = { ERROR: 1, SMART: 2, FIRMWARE: 3, CHANGED_NAMESPACES: 4, EFFECTS: 5 } as const;

/** Composite temperature in kelvin: what it is, and the thresholds. */
export const KELVIN = { CURRENT: 0x143, WARNING: 0x157, CRITICAL: 0x175 } as const;
/** Critical warnings (section 5.14.1.2). */
export const WARNING = { SPARE: 1, TEMPERATURE: 2, RELIABILITY: 4, READ_ONLY: 8, VOLATILE: 16, PMR: 32 } as const;
