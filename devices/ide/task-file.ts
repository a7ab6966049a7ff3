/** The ATA task file: registers, status bits and commands (ATA/ATAPI-6, T13/1410D; section numbers are its). */

/** Command block registers by offset; ATA/ATAPI-6 section 7. */
export const REG = {
  DATA: 0,
  /** Error when read, Features when written. */
  ERROR: 1,
  COUNT: 2,
  LBA_LOW: 3,
  LBA_MID: 4,
  LBA_HIGH: 5,
  DEVICE: 6,
  /** Status when read, Command when written. */
  STATUS: 7,
} as const;

/** Section 7.15. */
export const STATUS = { ERR: 0x01, INDEX: 0x02, DRQ: 0x08, DSC: 0x10, DF: 0x20, DRDY: 0x40, BSY: 0x80 } as const;
/** Section 7.9. */
export const ERROR = { ABRT: 0x04, MCR: 0x08, IDNF: 0x10, MC: 0x20, UNC: 0x40, ICRC: 0x80 } as const;
/** Interrupt reason of packet commands, in the Count register (section 7.6 and 8.23). */
export const REASON = { CD: 0x01, IO: 0x02, MASK: 0x07 } as const;
/** Section 7.7. */
export const DEVICE = { HEAD: 0x0f, DEV: 0x10, LBA: 0x40, OBSOLETE: 0xa0 } as const;
/** Section 7.8. */
export const CONTROL = { NIEN: 0x02, SRST: 0x04, HOB: 0x80 } as const;

export const SECTOR = 512;
export const MAX_MULTIPLE = 16;

/** Section 8; the obsolete spellings are ATA-3's. */
export const COMMAND = {
  DATA_SET_MANAGEMENT: 0x06,
  DEVICE_RESET: 0x08,
  RECALIBRATE: 0x10,
  READ_SECTORS: 0x20,
  READ_SECTORS_ONCE: 0x21,
  READ_SECTORS_EXT: 0x24,
  READ_DMA_EXT: 0x25,
  READ_NATIVE_MAX_EXT: 0x27,
  READ_MULTIPLE_EXT: 0x29,
  WRITE_SECTORS: 0x30,
  WRITE_SECTORS_ONCE: 0x31,
  WRITE_SECTORS_EXT: 0x34,
  WRITE_DMA_EXT: 0x35,
  WRITE_MULTIPLE_EXT: 0x39,
  WRITE_VERIFY: 0x3c,
  VERIFY: 0x40,
  VERIFY_ONCE: 0x41,
  VERIFY_EXT: 0x42,
  SEEK: 0x70,
  EXECUTE_DIAGNOSTIC: 0x90,
  INITIALIZE_PARAMETERS: 0x91,
  STANDBY_IMMEDIATE_OLD: 0x94,
  IDLE_IMMEDIATE_OLD: 0x95,
  STANDBY_OLD: 0x96,
  IDLE_OLD: 0x97,
  CHECK_POWER_OLD: 0x98,
  SLEEP_OLD: 0x99,
  PACKET: 0xa0,
  IDENTIFY_PACKET: 0xa1,
  SMART: 0xb0,
  READ_MULTIPLE: 0xc4,
  WRITE_MULTIPLE: 0xc5,
  SET_MULTIPLE: 0xc6,
  READ_DMA: 0xc8,
  READ_DMA_ONCE: 0xc9,
  WRITE_DMA: 0xca,
  WRITE_DMA_ONCE: 0xcb,
  STANDBY_IMMEDIATE: 0xe0,
  IDLE_IMMEDIATE: 0xe1,
  STANDBY: 0xe2,
  IDLE: 0xe3,
  CHECK_POWER: 0xe5,
  SLEEP: 0xe6,
  FLUSH_CACHE: 0xe7,
  FLUSH_CACHE_EXT: 0xea,
  IDENTIFY: 0xec,
  SECURITY_FREEZE_LOCK: 0xf5,
  SET_FEATURES: 0xef,
  READ_NATIVE_MAX: 0xf8,
} as const;
