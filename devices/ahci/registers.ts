/** Registers and structures of the Serial ATA Advanced Host Controller Interface 1.3.1; section numbers are its. */

/** Generic host control (section 3.1), by offset. */
export const HBA = { CAP: 0x00, GHC: 0x04, IS: 0x08, PI: 0x0c, VS: 0x10 } as const;
export const PORTS_AT = 0x100;
export const PORT_SIZE = 0x80;
export const SLOTS = 32;

/** Section 3.1.1: AHCI only, no staggered spin-up; generation 1 speed. */
const CAP = { SLOTS_SHIFT: 8, SAM: 1 << 18, GEN1: 1 << 20, NCQ: 1 << 30, WIDE: 0x8000_0000 } as const;
export const capabilities = (ports: number): number =>
  ((ports - 1) | ((SLOTS - 1) << CAP.SLOTS_SHIFT) | CAP.SAM | CAP.GEN1 | CAP.NCQ | CAP.WIDE) >>> 0;
/** Section 3.1.2. */
export const GHC = { RESET: 1, INTERRUPTS: 2, WRITABLE: 3, AHCI: 0x8000_0000 } as const;
export const VERSION = 0x0001_0000;

/** Port registers (section 3.3), by offset. */
export const PORT = {
  CLB: 0x00,
  CLBU: 0x04,
  FB: 0x08,
  FBU: 0x0c,
  IS: 0x10,
  IE: 0x14,
  CMD: 0x18,
  TFD: 0x20,
  SIG: 0x24,
  SSTS: 0x28,
  SCTL: 0x2c,
  SERR: 0x30,
  SACT: 0x34,
  CI: 0x38,
} as const;

/** PxIS and PxIE (section 3.3.5). */
export const INTERRUPT = {
  DHRS: 1 << 0,
  PSS: 1 << 1,
  SDBS: 1 << 3,
  OFS: 1 << 24,
  HBFS: 1 << 29,
  TFES: 1 << 30,
} as const;
export const INTERRUPT_ENABLES = 0xfdc0_00ff;

/** PxCMD (section 3.3.7). */
export const COMMAND = {
  ST: 1 << 0,
  SUD: 1 << 1,
  POD: 1 << 2,
  FRE: 1 << 4,
  FR: 1 << 14,
  CR: 1 << 15,
  READ_ONLY: 0x007d_ffe0,
  ICC: 0xf000_0000,
} as const;

/** PxSSTS with a device: present and talking, generation 1, active (section 3.3.10). */
export const LINK_UP = 0x113;
/** DET of PxSCTL (section 3.3.11). */
export const DETECT = { MASK: 0xf, RESET: 1 } as const;
/** PxTFD and PxSIG until the device has sent its first FIS. */
export const NO_TASK_FILE = 0x7f;
export const NO_SIGNATURE = 0xffff_ffff;

/** Command header (section 4.2.2). */
export const HEADER = { SIZE: 32, TRANSFERRED: 4 } as const;
export const OPTION = { ATAPI: 1 << 5, WRITE: 1 << 6, CLEAR_BUSY: 1 << 10 } as const;
/** Command table (section 4.2.3). */
export const TABLE = {
  PACKET: 0x40,
  PACKET_SIZE: 16,
  REGIONS: 0x80,
  REGION_SIZE: 16,
  REGION_LENGTH: 0x3f_ffff,
} as const;

/** Frame information structures (Serial ATA 3.2, section 10.5). */
export const FIS = {
  REGISTER_TO_DEVICE: 0x27,
  REGISTER_TO_HOST: 0x34,
  PIO_SETUP: 0x5f,
  SET_DEVICE_BITS: 0xa1,
} as const;
export const FIS_SIZE = 20;
/** Flags in byte 1. */
export const FIS_FLAG = { INTERRUPT: 1 << 6, COMMAND: 1 << 7, RESERVED: 0x7f } as const;
/** Where the port puts them (section 4.2.1). */
export const RECEIVED = { PIO_SETUP: 0x20, REGISTER: 0x40, SET_DEVICE_BITS: 0x58 } as const;

/** Queued commands (Serial ATA 3.2, section 13.6.3.2): one that may be carried out, and all there are. */
export const QUEUED = { READ: 0x60, WRITE: 0x61 } as const;
export const isQueued = (command: number): boolean =>
  command === 0x60 || command === 0x61 || (command >= 0x63 && command <= 0x65);
