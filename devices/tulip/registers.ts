import { bit, bits, r32, registerMap } from '../../core/register/register.ts';

const STRIDE = 8;
const csr = (number: number): number => number * STRIDE;

/** The command and status registers (Intel 21143 hardware reference manual, section 3.2). */
export const tulipRegisters = registerMap('tulip', {
  CSR0: r32(csr(0), {}, { reset: 0xfe00_0000, doc: 'Bus mode' }),
  CSR1: r32(csr(1), {}, { reset: 0xffff_ffff, doc: 'Transmit poll demand' }),
  CSR2: r32(csr(2), {}, { reset: 0xffff_ffff, doc: 'Receive poll demand' }),
  CSR3: r32(csr(3), {}, { doc: 'Receive list base address' }),
  CSR4: r32(csr(4), {}, { doc: 'Transmit list base address' }),
  CSR5: r32(
    csr(5),
    {
      CAUSES: bits(0, 17),
      RS: bits(17, 3),
      TS: bits(20, 3),
      EB: bits(23, 3),
      GPI: bit(26),
      LC: bit(27),
      TOP: bits(28, 4),
    },
    { reset: 0xf000_0000, doc: 'Status' },
  ),
  CSR6: r32(csr(6), {}, { reset: 0x3200_0040, doc: 'Operation mode' }),
  CSR7: r32(csr(7), {}, { reset: 0xf3fe_0000, doc: 'Interrupt enable' }),
  CSR8: r32(csr(8), {}, { access: 'ro', reset: 0xe000_0000, doc: 'Missed frames and overflow counter' }),
  CSR9: r32(csr(9), {}, { reset: 0xfff4_83ff, doc: 'Boot ROM, serial ROM and MII management' }),
  CSR10: r32(csr(10), {}, { doc: 'Boot ROM programming address' }),
  CSR11: r32(
    csr(11),
    { TIMER: bits(0, 16), CON: bit(16), HIGH: bits(17, 15) },
    { reset: 0xfffe_0000, doc: 'General-purpose timer' },
  ),
  CSR12: r32(csr(12), {}, { reset: 0x0000_00c6, doc: 'SIA status' }),
  CSR13: r32(csr(13), {}, { reset: 0xffff_0000, doc: 'SIA connectivity' }),
  CSR14: r32(csr(14), {}, { reset: 0xffff_ffff, doc: 'SIA transmit and receive' }),
  CSR15: r32(csr(15), {}, { reset: 0x8ff0_0000, doc: 'SIA and general-purpose port' }),
});

/** CSR0: software reset, and descriptors whose highest byte comes first. */
export const BUS = { SWR: 1, SKIP_SHIFT: 2, SKIP_MASK: 0x1f, DBO: 1 << 20 } as const;

/** Causes in CSR5 (section 3.2.2.5). */
export const CAUSE = {
  TI: 1 << 0,
  TU: 1 << 2,
  RI: 1 << 6,
  RU: 1 << 7,
  GTE: 1 << 11,
  ERI: 1 << 14,
  LC: 1 << 27,
} as const;
export const NORMAL_SUMMARY = 1 << 16;
export const ABNORMAL_SUMMARY = 1 << 15;
/** Which causes either summary is of, where they are enabled. */
export const NORMAL = CAUSE.TI | CAUSE.TU | CAUSE.RI | CAUSE.GTE | CAUSE.ERI;
export const ABNORMAL = 0x0c00_37ba;
export const CLEARED_BY_ONES = NORMAL | ABNORMAL | NORMAL_SUMMARY | ABNORMAL_SUMMARY;

/** States of the two processes, as CSR5 shows them. */
export const RECEIVE = { STOPPED: 0, WAITING: 3, SUSPENDED: 4 } as const;
export const TRANSMIT = { STOPPED: 0, SUSPENDED: 6 } as const;

/** CSR6: start and stop, promiscuous modes, loopback. */
export const MODE = { SR: 1 << 1, PR: 1 << 6, PM: 1 << 7, LOOPBACK: 3 << 10, ST: 1 << 13, RA: 1 << 30 } as const;

/** CSR9: the serial ROM's pins, and those of MII management. */
export const ROM = { CS: 1, SK: 2, DI: 4, DO: 8, SELECT: 1 << 11 } as const;
export const MII = { MDC: 1 << 16, MDO: 1 << 17, INPUT: 1 << 18, MDI: 1 << 19 } as const;

/** CSR12: negotiation is complete; neither 10 nor 100 Mbit/s has a link; what ones clear. */
export const SIA = { NEGOTIATED: 5 << 12, NO_LINK: 6, CLEARED_BY_ONES: 0x0301 } as const;

/** The first word of a receive descriptor (section 4.2.1.1), and of a transmit descriptor (section 4.2.2.1). */
export const OWN = 0x8000_0000;
export const RDES0 = {
  LS: 1 << 8,
  FS: 1 << 9,
  MF: 1 << 10,
  DE: 1 << 14,
  ES: 1 << 15,
  LENGTH_SHIFT: 16,
  FF: 1 << 30,
} as const;
/** The second word: sizes of both buffers, and the list's shape; these are at the same place in both kinds. */
export const DES1 = { SIZE: 0x7ff, SECOND_SHIFT: 11, CHAINED: 1 << 24, END_OF_RING: 1 << 25 } as const;
/** What only a transmit descriptor's says (section 4.2.2.2). */
export const TDES1 = { FT0: 1 << 22, SET: 1 << 27, FT1: 1 << 28, FS: 1 << 29, LS: 1 << 30, IC: 1 << 31 } as const;
