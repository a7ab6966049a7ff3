import { bit, bits, r8, registerMap } from '../../core/register/register.ts';

const read = { access: 'ro' } as const;
const write = { access: 'wo' } as const;
const page0 = { when: 'CR.PAGE=0' } as const;
const page1 = { when: 'CR.PAGE=1' } as const;
const page2 = { when: 'CR.PAGE=2' } as const;
const page3 = { when: 'CR.PAGE=3' } as const;

/** The registers of the DP8390 and of Realtek's RTL8029AS, which is one on PCI (DP8390D data sheet, section 10; RTL8029AS, section 5). */
export const dp8390Registers = registerMap('ne2000', {
  CR: r8(0x0, { STP: bit(0), STA: bit(1), TXP: bit(2), RD: bits(3, 3), PAGE: bits(6, 2) }, { reset: 0x01 }),
  PSTART: r8(0x1, {}, { ...write, ...page0, sticky: true }),
  PSTOP: r8(0x2, {}, { ...write, ...page0, sticky: true }),
  BNRY: r8(0x3, {}, { ...page0, sticky: true }),
  TSR: r8(0x4, {}, { ...read, ...page0 }),
  TPSR: r8(0x4, {}, { ...write, ...page0 }),
  TBCR: r8(0x5, {}, { ...write, ...page0, count: 2 }),
  ISR: r8(0x7, {}, { ...page0, reset: 0x80 }),
  CRDA: r8(0x8, {}, { ...read, ...page0, count: 2, doc: 'Current remote DMA address' }),
  RSAR: r8(0x8, {}, { ...write, ...page0, count: 2, doc: 'Remote start address' }),
  ID: r8(0xa, {}, { ...read, ...page0, count: 2, doc: "Realtek's signature" }),
  RBCR: r8(0xa, {}, { ...write, ...page0, count: 2, doc: 'Remote byte count' }),
  RSR: r8(0xc, {}, { ...read, ...page0 }),
  RCR: r8(0xc, {}, { ...write, ...page0, sticky: true }),
  TCR: r8(0xd, {}, { ...write, ...page0 }),
  DCR: r8(0xe, { WTS: bit(0), OTHER: bits(1, 7) }, { ...write, ...page0, sticky: true }),
  IMR: r8(0xf, {}, { ...write, ...page0 }),
  PAR: r8(0x1, {}, { ...page1, count: 6, sticky: true, doc: 'Physical address' }),
  CURR: r8(0x7, {}, { ...page1, sticky: true, doc: 'Current page' }),
  MAR: r8(0x8, {}, { ...page1, count: 8, sticky: true, doc: 'Multicast filter' }),
  PSTART_READ: r8(0x1, {}, { ...read, ...page2 }),
  PSTOP_READ: r8(0x2, {}, { ...read, ...page2 }),
  CONFIG0: r8(0x3, {}, { ...read, ...page3 }),
  CONFIG2: r8(0x5, {}, { ...read, ...page3, reset: 0x40 }),
  CONFIG3: r8(0x6, {}, { ...read, ...page3, reset: 0x40 }),
});

/** CR.RD: the remote DMA command. */
export const REMOTE = { READ: 1, WRITE: 2 } as const;
export const ISR = { PRX: 0x01, PTX: 0x02, RDC: 0x40, RST: 0x80 } as const;
export const RCR = { AB: 0x04, AM: 0x08, PRO: 0x10 } as const;
export const RSR = { PRX: 0x01, PHY: 0x20 } as const;
export const TSR_PTX = 0x01;
