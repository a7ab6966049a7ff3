import { bit, bits, choice, r32, registerMap } from '../../../core/register/register.ts';

export const MAX_PORTS = 15;

/** OHCI 1.0a, chapter 7. */
export const ohciRegisters = registerMap(
  'ohci',
  {
    HcRevision: r32(0x00, {}, { access: 'ro', reset: 0x10 }),
    HcControl: r32(0x04, {
      CBSR: bits(0, 2),
      PLE: bit(2),
      IE: bit(3),
      CLE: bit(4),
      BLE: bit(5),
      HCFS: choice(6, 2, { reset: 0, resume: 1, operational: 2, suspend: 3 }),
      IR: bit(8),
      RWC: bit(9),
      RWE: bit(10),
    }),
    HcCommandStatus: r32(
      0x08,
      { HCR: bit(0), CLF: bit(1), BLF: bit(2), OCR: bit(3), SOC: bits(16, 2, 'ro') },
      { access: 'w1s' },
    ),
    HcInterruptStatus: r32(
      0x0c,
      { SO: bit(0), WDH: bit(1), SF: bit(2), RD: bit(3), UE: bit(4), FNO: bit(5), RHSC: bit(6), OC: bit(30) },
      { access: 'w1c' },
    ),
    HcInterruptEnable: r32(
      0x10,
      {
        SO: bit(0),
        WDH: bit(1),
        SF: bit(2),
        RD: bit(3),
        UE: bit(4),
        FNO: bit(5),
        RHSC: bit(6),
        OC: bit(30),
        MIE: bit(31),
      },
      { access: 'w1s', reset: 0x8000_0000 },
    ),
    HcInterruptDisable: r32(0x14, {}, { doc: 'clears bits of HcInterruptEnable, and reads as that' }),
    HcHCCA: r32(0x18, { HCCA: bits(8, 24) }),
    HcPeriodCurrentED: r32(0x1c, {}, { access: 'ro' }),
    HcControlHeadED: r32(0x20, { ED: bits(4, 28) }),
    HcControlCurrentED: r32(0x24, { ED: bits(4, 28) }),
    HcBulkHeadED: r32(0x28, { ED: bits(4, 28) }),
    HcBulkCurrentED: r32(0x2c, { ED: bits(4, 28) }),
    HcDoneHead: r32(0x30, {}, { access: 'ro' }),
    HcFmInterval: r32(0x34, { FI: bits(0, 14), FSMPS: bits(16, 15), FIT: bit(31) }, { reset: 0x2778_2edf }),
    HcFmRemaining: r32(0x38, { FR: bits(0, 14), FRT: bit(31) }, { access: 'ro' }),
    HcFmNumber: r32(0x3c, { FN: bits(0, 16) }, { access: 'ro' }),
    HcPeriodicStart: r32(0x40, { PS: bits(0, 16) }),
    HcLSThreshold: r32(0x44, { LST: bits(0, 16) }, { reset: 0x628 }),
    HcRhDescriptorA: r32(0x48, { NDP: bits(0, 8), NPS: bit(9) }, { access: 'ro', reset: 0x200, sticky: true }),
    HcRhDescriptorB: r32(0x4c, {}, { access: 'ro' }),
    HcRhStatus: r32(0x50, { DRWE: bit(15, 'ro') }, { doc: 'commands to the root hub; what it shows is the model' }),
    HcRhPortStatus: r32(
      0x54,
      {
        CCS: bit(0),
        PES: bit(1),
        PSS: bit(2),
        POCI: bit(3),
        PRS: bit(4),
        PPS: bit(8),
        LSDA: bit(9),
        CSC: bit(16),
        PESC: bit(17),
        PSSC: bit(18),
        OCIC: bit(19),
        PRSC: bit(20),
      },
      { access: 'ro', count: MAX_PORTS },
    ),
  },
  { hole: 0xff },
);

/** Endpoint descriptor (section 4.2). */
export const ED = {
  SKIP: 1 << 14,
  ISOCHRONOUS: 1 << 15,
  /** In the head pointer: halted, and the data toggle. */
  HALTED: 1,
  CARRY: 2,
  address: (flags: number): number => flags & 0x7f,
  endpoint: (flags: number): number => (flags >> 7) & 0xf,
  direction: (flags: number): number => (flags >> 11) & 3,
} as const;

/** Transfer descriptor (section 4.3). */
export const TD = {
  ROUNDING: 1 << 18,
  TOGGLE: 1 << 24,
  TOGGLE_OWN: 1 << 25,
  ERROR_COUNT: 3 << 26,
  direction: (flags: number): number => (flags >> 19) & 3,
  delay: (flags: number): number => (flags >> 21) & 7,
  withCode: (flags: number, code: number): number => ((flags & 0x0fff_ffff) | (code << 28)) >>> 0,
} as const;

/** Completion codes (table 4-7). */
export const CC = {
  NO_ERROR: 0,
  STALL: 4,
  NOT_RESPONDING: 5,
  UNEXPECTED_PID: 7,
  DATA_OVERRUN: 8,
  DATA_UNDERRUN: 9,
} as const;

export const ADDRESS = ~0xf;
/** Host controller communications area (section 4.4). */
export const HCCA = { INTERRUPT_TABLE: 0, ENTRIES: 32, FRAME_NUMBER: 0x80, DONE_HEAD: 0x84 } as const;
