import { bit, bits, r8, r16, r32, registerMap, tag } from '../../core/register/register.ts';

const ro = { access: 'ro' } as const;

/** The registers of the RTL8139C+ (Realtek RTL8139C+ data sheet, chapter 5). */
export const rtl8139Registers = registerMap('rtl8139', {
  IDR: r8(0x00, {}, { count: 6, doc: 'Ethernet address' }),
  MAR: r8(0x08, {}, { count: 8, sticky: true, doc: 'Multicast filter' }),
  TSD: r32(
    0x10,
    {
      SIZE: bits(0, 13),
      OWN: bit(13),
      TUN: bit(14),
      TOK: bit(15),
      ERTXTH: bits(16, 6),
      RESERVED22: bits(22, 2),
      NCC: bits(24, 4),
      CDH: bit(28),
      OWC: bit(29),
      TABT: bit(30),
      CRS: bit(31),
    },
    { count: 4, reset: 0x2000, doc: 'Transmit status; in C+ mode the first two are the dump tally counter command' },
  ),
  TSAD: r32(
    0x20,
    {},
    { count: 4, doc: 'Transmit start address; in C+ mode those of the normal and the high priority ring' },
  ),
  RBSTART: r32(0x30, {}, { doc: 'Receive buffer start address' }),
  ERBCR: r16(0x34, {}, ro),
  ERSR: r8(0x36, {}, ro),
  CR: r8(0x37, { BUFE: bit(0, 'ro'), TE: bit(2), RE: bit(3), RST: bit(4, 'pulse') }),
  CAPR: r16(0x38, {}, { reset: 0xfff0, doc: 'Current address of packet read, less 16' }),
  CBR: r16(0x3a, {}, { access: 'ro', doc: 'Current buffer address' }),
  IMR: r16(0x3c),
  ISR: r16(0x3e, {}, { access: 'w1c' }),
  TCR: r32(0x40, {}, { reset: 0x7480_0000 }),
  RCR: r32(0x44),
  TCTR: r32(0x48, {}, { doc: 'Timer count, in PCI clocks' }),
  MPC: r32(0x4c, {}, { doc: 'Missed packets' }),
  CR9346: r8(0x50, {
    EEDO: bit(0, 'ro'),
    EEDI: bit(1),
    EESK: bit(2),
    EECS: bit(3),
    EEM: bits(6, 2),
  }),
  CONFIG0: r8(0x51),
  CONFIG1: r8(0x52, {}, { reset: 0x0c }),
  TIMERINT: r32(0x54),
  MSR: r8(0x58, {}, ro),
  CONFIG3: r8(0x59, {}, { reset: 0x01 }),
  CONFIG4: r8(0x5a, {}, { sticky: true }),
  HLTCLK: r8(0x5b),
  MULINT: r16(0x5c),
  RERID: r8(0x5e, {}, { access: 'ro', reset: 0x20 }),
  TSALL: r16(0x60, {}, { access: 'ro', doc: 'Transmit status of all descriptors' }),
  BMCR: r16(0x62, {}, { reset: 0x1000 }),
  BMSR: r16(0x64, {}, { reset: 0x7829 }),
  ANAR: r16(0x66, {}, { reset: 0x05e1 }),
  ANLPAR: r16(0x68, {}, { access: 'ro', reset: 0x05e1 }),
  ANER: r16(0x6a, {}, { reset: 0x0001 }),
  CSCR: r16(0x74, {}, { access: 'ro', reset: 0x0340 }),
  CONFIG5: r8(0xd8),
  TPPOLL: r8(0xd9, { NPQ: bit(6, 'pulse'), HPQ: tag(7) }),
  CPCR: r16(0xe0, { TE: bit(0), RE: bit(1), MULRW: bit(3), DAC: bit(4), RXCHKSUM: bit(5), RXVLAN: bit(6) }),
  RDSARL: r32(0xe4, {}, { doc: 'Receive descriptor start address' }),
  RDSARH: r32(0xe8),
  ETTHR: r8(0xec),
});

/** Interrupt status (section 5.7). */
export const ISR = {
  ROK: 1 << 0,
  TOK: 1 << 2,
  RXOVW: 1 << 4,
  /** Packet underrun, or the link has changed. */
  PUN: 1 << 5,
  TIMEOUT: 1 << 14,
} as const;

/** Receive configuration (section 5.9). */
export const RCR = { AAP: 1, APM: 2, AM: 4, AB: 8, WRAP: 1 << 7, RBLEN_SHIFT: 11 } as const;
/** Transmit configuration (section 5.8): loopback. */
export const TCR_LBK = 3 << 17;
/** Bits of BMCR (section 5.21). */
export const BMCR = { RESET: 1 << 15, RESTART: 1 << 9 } as const;
export const BMSR_LINK = 1 << 2;

/** What software may write. */
export const WRITABLE = {
  TSD: 0x003f_3fff,
  IMR: 0xe1ff,
  TCR: 0x030f_07f0,
  RCR: 0x0f03_ffbf,
  CONFIG0: 0x07,
  CONFIG1: 0xf3,
  CONFIG3: 0x70,
  CONFIG4: 0xf5,
  CONFIG5: 0x7f,
  MULINT: 0x0fff,
  BMSR: 0x00c0,
  CPCR: 0x007b,
} as const;
/** CR9346.EEM (section 5.11). */
export const EEM = { NORMAL: 0, AUTO_LOAD: 1, PROGRAMMING: 2, CONFIG_WRITE: 3 } as const;
