import { bit, bits, r8, r16, r32, registerMap } from '../../core/register/register.ts';

export const STREAMS = 8;
/** The first four streams are for input. */
export const FIRST_OUTPUT = 4;
const STRIDE = { count: STREAMS, stride: 0x20 } as const;
const WRITABLE_15 = { VALUE: bits(0, 15) } as const;

/** High Definition Audio Specification 1.0a, chapter 3. */
export const hdaRegisters = registerMap('intel-hda', {
  GCAP: r16(0x00, {}, { access: 'ro', reset: 0x4401, doc: '4 output and 4 input streams, 64-bit addresses' }),
  VMIN: r8(0x02, {}, { access: 'ro' }),
  VMAJ: r8(0x03, {}, { access: 'ro', reset: 1 }),
  OUTPAY: r16(0x04, {}, { access: 'ro', reset: 0x3c }),
  INPAY: r16(0x06, {}, { access: 'ro', reset: 0x1d }),
  GCTL: r32(0x08, { CRST: bit(0), FCNTRL: bit(1), UNSOL: bit(8) }),
  WAKEEN: r16(0x0c, WRITABLE_15),
  STATESTS: r16(0x0e, { SDIWAKE: bits(0, 15, 'w1c') }),
  INTCTL: r32(0x20, { SIE: bits(0, 8), CIE: bit(30), GIE: bit(31) }),
  INTSTS: r32(0x24, { SIS: bits(0, 8), CIS: bit(30), GIS: bit(31) }, { access: 'ro' }),
  WALCLK: r32(0x30, {}, { access: 'ro' }),
  CORBLBASE: r32(0x40, { BASE: bits(7, 25) }),
  CORBUBASE: r32(0x44),
  CORBWP: r16(0x48, { WP: bits(0, 8) }),
  CORBRP: r16(0x4a, { RP: bits(0, 8), RST: bit(15) }),
  CORBCTL: r8(0x4c, { MEIE: bit(0), RUN: bit(1) }),
  CORBSTS: r8(0x4d, { MEI: bit(0, 'w1c') }),
  CORBSIZE: r8(0x4e, {}, { access: 'ro', reset: 0x42 }),
  RIRBLBASE: r32(0x50, { BASE: bits(7, 25) }),
  RIRBUBASE: r32(0x54),
  RIRBWP: r16(0x58, { WP: bits(0, 8, 'ro'), RST: bit(15, 'pulse') }),
  RINTCNT: r16(0x5a, { N: bits(0, 8) }),
  RIRBCTL: r8(0x5c, { RINTCTL: bit(0), RUN: bit(1), OIC: bit(2) }),
  RIRBSTS: r8(0x5d, { RINTFL: bit(0, 'w1c'), OIS: bit(2, 'w1c') }),
  RIRBSIZE: r8(0x5e, {}, { access: 'ro', reset: 0x42 }),
  ICOI: r32(0x60),
  IRII: r32(0x64, {}, { access: 'ro' }),
  ICIS: r16(0x68, { ICB: bit(0), IRV: bit(1, 'w1c'), IRRADD: bits(4, 4, 'ro') }),
  DPLBASE: r32(0x70, { ENABLE: bit(0), BASE: bits(7, 25) }),
  DPUBASE: r32(0x74),
  SDCTL: r32(
    0x80,
    {
      SRST: bit(0),
      RUN: bit(1),
      IOCE: bit(2),
      FEIE: bit(3),
      DEIE: bit(4),
      STRIPE: bits(16, 2),
      TP: bit(18),
      DIR: bit(19),
      STRM: bits(20, 4),
      BCIS: bit(26, 'w1c'),
      FIFOE: bit(27, 'w1c'),
      DESE: bit(28, 'w1c'),
      FIFORDY: bit(29, 'ro'),
    },
    { ...STRIDE, reset: 0x2000_0000, doc: 'SDnCTL with SDnSTS in bits 24 to 31' },
  ),
  SDLPIB: r32(0x84, {}, { ...STRIDE, access: 'ro' }),
  SDCBL: r32(0x88, {}, STRIDE),
  SDLVI: r16(0x8c, { LVI: bits(0, 8) }, STRIDE),
  SDFIFOS: r16(0x90, {}, { ...STRIDE, access: 'ro', reset: 0x100 }),
  SDFMT: r16(0x92, { CHAN: bits(0, 4), BITS: bits(4, 3), DIV: bits(8, 3), MULT: bits(11, 3), BASE: bit(14) }, STRIDE),
  SDBDPL: r32(0x98, { BASE: bits(7, 25) }, STRIDE),
  SDBDPU: r32(0x9c, {}, STRIDE),
});
