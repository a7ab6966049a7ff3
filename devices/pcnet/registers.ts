/** Registers and descriptors of AMD's PCnet-PCI II (Am79C970A data sheet). They are reached by number, through RAP. */

/** The window (section "I/O resources"): after the address PROM, in steps of words or of double words. */
export const WINDOW = { RDP: 0, RAP: 1, RESET: 2, BDP: 3 } as const;
export const PROM_SIZE = 16;

/** Control and status registers by their numbers. */
export const CSR = {
  STATUS: 0,
  IADR_LOW: 1,
  IADR_HIGH: 2,
  MASKS: 3,
  FEATURES: 4,
  EXTENDED: 5,
  RING_LENGTHS: 6,
  LADRF: 8,
  PADR: 12,
  MODE: 15,
  IADR_LOW_ALIAS: 16,
  IADR_HIGH_ALIAS: 17,
  BADR: 24,
  CRDA: 28,
  BADX: 30,
  CXDA: 34,
  POLL: 46,
  PINT: 47,
  SOFTWARE_STYLE: 58,
  RCVRC: 72,
  XMTRC: 74,
  RCVRL: 76,
  XMTRL: 78,
  FIFO: 80,
  CHIP_ID_LOW: 88,
  CHIP_ID_HIGH: 89,
  BUS_TIMEOUT: 100,
  CSR103: 103,
  MISSED: 112,
  COLLISIONS: 114,
} as const;

/** CSR0. */
export const STATUS = {
  INIT: 0x0001,
  STRT: 0x0002,
  STOP: 0x0004,
  TDMD: 0x0008,
  TXON: 0x0010,
  RXON: 0x0020,
  IENA: 0x0040,
  INTR: 0x0080,
  IDON: 0x0100,
  TINT: 0x0200,
  RINT: 0x0400,
  MISS: 0x1000,
  CERR: 0x2000,
  ERR: 0x8000,
  /** Causes, which ones clear and CSR3 masks. */
  CAUSES: 0x5f00,
  CLEARED_BY_ONES: 0x7f00,
  /** Any of these makes ERR. */
  ERRORS: 0x7800,
} as const;
/** CSR3, CSR4 and CSR5, as far as they do something here. */
export const DXSUFLO = 0x0040;
export const FEATURE = { TXSTRT: 0x0008, UINT: 0x0040, UINTCMD: 0x0080, APAD_XMT: 0x0800, DPOLL: 0x1000 } as const;
export const FEATURE_CAUSES = { CLEARED_BY_ONES: 0x026a, MASKS: 0x0115 } as const;
export const EXTENDED = {
  SPND: 0x0001,
  LTINTEN: 0x4000,
  TOKINTD: 0x8000,
  CLEARED_BY_ONES: 0x0a90,
  MASKED: 0x0048,
  ALWAYS: 0x0500,
} as const;
/** CSR15. */
export const MODE = {
  DRX: 0x0001,
  DTX: 0x0002,
  LOOP: 0x0004,
  INTL: 0x0040,
  DRCVPA: 0x2000,
  DRCVBC: 0x4000,
  PROM: 0x8000,
  KEPT_BY_RESET: 0x21c4,
} as const;

/** CSRs with their values after a software reset. */
export const CSR_RESET: readonly (readonly [number: number, value: number])[] = [
  [CSR.STATUS, STATUS.STOP],
  [CSR.MASKS, 0],
  [CSR.FEATURES, 0x0115],
  [CSR.EXTENDED, 0],
  [CSR.RING_LENGTHS, 0],
  [CSR.RCVRC, 1],
  [CSR.XMTRC, 1],
  [CSR.RCVRL, 1],
  [CSR.XMTRL, 1],
  [CSR.FIFO, 0x1410],
  [CSR.CHIP_ID_LOW, 0x1003],
  [CSR.CHIP_ID_HIGH, 0x0262],
  [CSR.BUS_TIMEOUT, 0x0200],
  [CSR.CSR103, 0x0105],
  [CSR.MISSED, 0],
  [CSR.COLLISIONS, 0],
];
/** CSRs that are plain storage for software: addresses and counts of the rings, filters, polling. */
export const isPlain = (number: number): boolean =>
  number === CSR.IADR_LOW ||
  number === CSR.IADR_HIGH ||
  number === CSR.MASKS ||
  (number >= CSR.LADRF && number <= CSR.MODE) ||
  (number >= 18 && number <= CSR.PINT) ||
  number === CSR.RCVRC ||
  number === CSR.XMTRC;

/** Bus configuration registers by their numbers. */
export const BCR = { MC: 2, LNKST: 4, LED3: 7, FDC: 9, BSBC: 18, EECAS: 19, SWS: 20, PLAT: 22 } as const;
export const BCR_COUNT = 32;
export const BCR_RESET: readonly (readonly [number: number, value: number])[] = [
  [0, 0x0005],
  [1, 0x0005],
  [BCR.MC, 0x0002],
  [BCR.LNKST, 0x00c0],
  [5, 0x0084],
  [6, 0x0088],
  [BCR.LED3, 0x0090],
  [BCR.FDC, 0x0000],
  [BCR.BSBC, 0x9001],
  [BCR.EECAS, 0x0002],
  [BCR.SWS, 0x0200],
  [BCR.PLAT, 0xff06],
];
export const BCR_WRITABLE: ReadonlySet<number> = new Set([
  BCR.MC,
  4,
  5,
  6,
  7,
  BCR.FDC,
  BCR.BSBC,
  BCR.EECAS,
  BCR.SWS,
  BCR.PLAT,
]);
/** BCR2: the address PROM can be written. BCR4 to 7: an output is on; link status is shown. BCR18: double word accesses. */
export const APROMWE = 0x0100;
export const LED = { OUTPUT: 0x8000, LINK: 0x0040 } as const;
export const DWIO = 0x0080;
/** BCR20: the software style, and what follows of it. */
export const STYLE = { MASK: 0x00ff, SSIZE32: 0x0100, CSRPCNET: 0x0200 } as const;

/** Status of descriptors (sections "Receive descriptors" and "Transmit descriptors"). */
export const DESCRIPTOR = {
  OWN: 0x8000,
  ERR: 0x4000,
  OFLO: 0x1000,
  BUFF: 0x0400,
  STP: 0x0200,
  ENP: 0x0100,
  PAM: 0x0040,
  LAFM: 0x0020,
  BAM: 0x0010,
  LTINT: 0x1000,
} as const;
/** The third word of a transmit descriptor. */
export const FAILED = { LCAR: 0x0800_0000, UFLO: 0x4000_0000, BUFF: 0x8000_0000 } as const;
