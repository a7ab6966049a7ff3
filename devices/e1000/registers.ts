import { bit, bits, r32, registerMap } from '../../core/register/register.ts';

const ro = { access: 'ro' } as const;
const wo = { access: 'wo' } as const;
/** Statistics clear on being read (Intel 8254x software developer's manual, section 13.7). */
const statistic = { access: 'rc' } as const;

/** The registers of the 82540EM (Intel 8254x software developer's manual, table 13-2). */
export const e1000Registers = registerMap('e1000', {
  CTRL: r32(0x00000, {}, { reset: 0x0014_0240 }),
  STATUS: r32(0x00008, { FD: bit(0), LU: bit(1), TXOFF: bit(4), SPEED: bits(6, 2), ASDV: bits(8, 2), MTXCKOK: bit(10), PCI66: bit(11), BUS64: bit(12), GIO_MASTER: bit(19), RESERVED31: bit(31) }, { access: 'ro', reset: 0x8008_0783 }),
  EECD: r32(0x00010),
  EERD: r32(0x00014),
  CTRL_EXT: r32(0x00018),
  FLA: r32(0x0001c),
  MDIC: r32(0x00020),
  FCAL: r32(0x00028),
  FCAH: r32(0x0002c),
  FCT: r32(0x00030),
  VET: r32(0x00038, {}, { reset: 0x8100 }),
  ICR: r32(0x000c0),
  ITR: r32(0x000c4, {}, {}),
  ICS: r32(0x000c8, {}, wo),
  IMS: r32(0x000d0),
  IMC: r32(0x000d8, {}, wo),
  RCTL: r32(0x00100),
  FCTTV: r32(0x00170),
  TXCW: r32(0x00178),
  RXCW: r32(0x00180, {}, ro),
  TCTL: r32(0x00400),
  TIPG: r32(0x00410),
  AIT: r32(0x00458),
  LEDCTL: r32(0x00e00, {}, { reset: 0x602 }),
  PBA: r32(0x01000, {}, { reset: 0x0010_0030 }),
  FCRTL: r32(0x02160),
  FCRTH: r32(0x02168),
  RDFH: r32(0x02410), RDFT: r32(0x02418), RDFHS: r32(0x02420), RDFTS: r32(0x02428), RDFPC: r32(0x02430),
  RDBAL: r32(0x02800),
  RDBAH: r32(0x02804),
  RDLEN: r32(0x02808),
  RDH: r32(0x02810),
  RDT: r32(0x02818),
  RDTR: r32(0x02820),
  RXDCTL: r32(0x02828),
  RADV: r32(0x0282c),
  RSRPD: r32(0x02c00),
  TDFH: r32(0x03410), TDFT: r32(0x03418), TDFHS: r32(0x03420), TDFTS: r32(0x03428), TDFPC: r32(0x03430),
  TDBAL: r32(0x03800),
  TDBAH: r32(0x03804),
  TDLEN: r32(0x03808),
  TDH: r32(0x03810),
  TDT: r32(0x03818),
  TIDV: r32(0x03820),
  TXDCTL: r32(0x03828),
  TADV: r32(0x0382c),
  TSPMT: r32(0x03830),
  CRCERRS: r32(0x04000, {}, statistic),
  ERRORS: r32(0x04004, {}, { access: 'rc', count: 14 }),
  XONRXC: r32(0x04048, {}, statistic), XONTXC: r32(0x0404c, {}, statistic), XOFFRXC: r32(0x04050, {}, statistic), XOFFTXC: r32(0x04054, {}, statistic), FCRUC: r32(0x04058, {}, statistic),
  PRC64: r32(0x0405c, {}, statistic), PRC127: r32(0x04060, {}, statistic), PRC255: r32(0x04064, {}, statistic), PRC511: r32(0x04068, {}, statistic), PRC1023: r32(0x0406c, {}, statistic), PRC1522: r32(0x04070, {}, statistic),
  GPRC: r32(0x04074, {}, statistic), BPRC: r32(0x04078, {}, statistic), MPRC: r32(0x0407c, {}, statistic), GPTC: r32(0x04080, {}, statistic),
  GORCL: r32(0x04088, {}, statistic), GORCH: r32(0x0408c, {}, statistic), GOTCL: r32(0x04090, {}, statistic), GOTCH: r32(0x04094, {}, statistic),
  RNBC: r32(0x040a0, {}, statistic), RUC: r32(0x040a4, {}, statistic), RFC: r32(0x040a8, {}, statistic), ROC: r32(0x040ac, {}, statistic), RJC: r32(0x040b0, {}, statistic),
  MGTPRC: r32(0x040b4, {}, statistic), MGTPDC: r32(0x040b8, {}, statistic), MGTPTC: r32(0x040bc, {}, statistic),
  TORL: r32(0x040c0, {}, statistic), TORH: r32(0x040c4, {}, statistic), TOTL: r32(0x040c8, {}, statistic), TOTH: r32(0x040cc, {}, statistic),
  TPR: r32(0x040d0, {}, statistic), TPT: r32(0x040d4, {}, statistic),
  PTC64: r32(0x040d8, {}, statistic), PTC127: r32(0x040dc, {}, statistic), PTC255: r32(0x040e0, {}, statistic), PTC511: r32(0x040e4, {}, statistic), PTC1023: r32(0x040e8, {}, statistic), PTC1522: r32(0x040ec, {}, statistic),
  MPTC: r32(0x040f0, {}, statistic), BPTC: r32(0x040f4, {}, statistic), TSCTC: r32(0x040f8, {}, statistic), TSCTFC: r32(0x040fc, {}, statistic),
  RXCSUM: r32(0x05000),
  MTA: r32(0x05200, {}, { count: 128, doc: 'Multicast table' }),
  RA: r32(0x05400, {}, { count: 32, doc: 'Receive addresses, low and high' }),
  VFTA: r32(0x05600, {}, { count: 128, doc: 'VLAN filter table' }),
  WUC: r32(0x05800), WUFC: r32(0x05808), WUS: r32(0x05810), MANC: r32(0x05820, {}, { reset: 0x0022_2300 }), IPAV: r32(0x05838),
  IP4AT: r32(0x05840, {}, { count: 7 }), IP6AT: r32(0x05880, {}, { count: 4 }), WUPL: r32(0x05900), WUPM: r32(0x05a00, {}, { count: 32 }), SWSM: r32(0x05b50),
  FFLT: r32(0x05f00, {}, { count: 7 }), FFMT: r32(0x09000, {}, { count: 255 }), FFVT: r32(0x09800, {}, { count: 255 }),
  PBM: r32(0x10000, {}, { count: 0x4000, doc: 'Packet buffer memory' }),
});

/** Device control (section 13.4.1). */
export const CTRL = { SLU: 1 << 6, RST: 1 << 26, VME: 1 << 30 } as const;
/** Receive control (section 13.4.22). */
export const RCTL = {
  EN: 1 << 1, SBP: 1 << 2, UPE: 1 << 3, MPE: 1 << 4, LPE: 1 << 5, LBM: 3 << 6, RDMTS_SHIFT: 8, MO_SHIFT: 12, BAM: 1 << 15, BSIZE_SHIFT: 16, VFE: 1 << 18, BSEX: 1 << 25, SECRC: 1 << 26,
} as const;
export const TCTL_EN = 1 << 1;
/** Interrupt causes (section 13.4.17). */
export const INT = { TXDW: 1 << 0, TXQE: 1 << 1, LSC: 1 << 2, RXDMT0: 1 << 4, RXO: 1 << 6, RXT0: 1 << 7, MDAC: 1 << 9, TXD_LOW: 1 << 15 } as const;
/** EEPROM/flash control (section 13.4.3). */
export const EECD = { SK: 1, CS: 2, DI: 4, DO: 8, FWE: 0x30, REQUEST: 0x40, GRANT: 0x80, PRESENT: 0x100 } as const;
/** MDI control (section 13.4.7). */
export const MDIC = { DATA: 0xffff, REG_SHIFT: 16, PHY_SHIFT: 21, WRITE: 1 << 26, READ: 1 << 27, READY: 1 << 28, INT_ENABLE: 1 << 29, ERROR: 1 << 30 } as const;
