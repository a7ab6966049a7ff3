import { bit, bits, r32, r64, registerMap } from '../../core/register/register.ts';

/** Section numbers are those of Intel's Virtualization Technology for Directed I/O specification, revision 3.4 (D51397-014). */

/** Where a Q35 machine has it, and how much of it answers there. */
export const IOMMU_BASE = 0xfed9_0000;
export const REGISTERS_SIZE = 0x230;

/** 64-bit addresses of pages: the halves of a register hold what is above bit 11. */
const page = { ADDRESS: bits(12, 20), ADDRESS_HIGH: bits(32, 32) } as const;

/** Section 11.4. The capabilities come with the device. */
export const intelIommuRegisters = registerMap('intel-iommu', {
  VER: r32(0x00, { MIN: bits(0, 4), MAX: bits(4, 4) }, { access: 'ro', reset: 0x10 }),
  CAP: r64(
    0x08,
    {
      ND: bits(0, 3),
      AFL: bit(3),
      RWBF: bit(4),
      PLMR: bit(5),
      PHMR: bit(6),
      CM: bit(7),
      SAGAW: bits(8, 5),
      MGAW: bits(16, 6),
      ZLR: bit(22),
      FRO_LOW: bits(24, 8),
      FRO_HIGH: bits(32, 2),
      SLLPS: bits(34, 4),
      PSI: bit(39),
      NFR: bits(40, 8),
      MAMV: bits(48, 6),
      DWD: bit(54),
      DRD: bit(55),
    },
    { access: 'ro' },
  ),
  ECAP: r64(
    0x10,
    {
      C: bit(0),
      QI: bit(1),
      DT: bit(2),
      IR: bit(3),
      EIM: bit(4),
      PT: bit(6),
      SC: bit(7),
      IRO: bits(8, 10),
      MHMV: bits(20, 4),
    },
    { access: 'ro' },
  ),
  GCMD: r32(
    0x18,
    {
      CFI: bit(23),
      SIRTP: bit(24),
      IRE: bit(25),
      QIE: bit(26),
      WBF: bit(27),
      EAFL: bit(28),
      SFL: bit(29),
      SRTP: bit(30),
      TE: bit(31),
    },
    { access: 'wo' },
  ),
  GSTS: r32(
    0x1c,
    {
      CFIS: bit(23),
      IRTPS: bit(24),
      IRES: bit(25),
      QIES: bit(26),
      WBFS: bit(27),
      AFLS: bit(28),
      FLS: bit(29),
      RTPS: bit(30),
      TES: bit(31),
    },
    { access: 'ro' },
  ),
  RTADDR: r64(0x20, { TTM: bits(10, 2), ...page }),
  CCMD: r64(0x28, {
    DID: bits(0, 16),
    SID: bits(16, 16, 'wo'),
    FM: bits(32, 2, 'wo'),
    CAIG: bits(59, 2, 'ro'),
    CIRG: bits(61, 2),
    ICC: bit(63),
  }),
  FSTS: r32(0x34, { PFO: bit(0, 'w1c'), PPF: bit(1), IQE: bit(4, 'w1c'), FRI: bits(8, 8) }, { access: 'ro' }),
  FECTL: r32(0x38, { IP: bit(30, 'ro'), IM: bit(31) }, { reset: 0x8000_0000 }),
  FEDATA: r32(0x3c, { IMD: bits(0, 16) }),
  FEADDR: r32(0x40, { MA: bits(2, 30) }),
  FEUADDR: r32(0x44, {}, { access: 'ro', doc: 'the upper half, where there are extended interrupt modes' }),
  PMEN: r32(0x64, {}, { access: 'ro', doc: 'there are no protected memory regions' }),
  IQH: r32(0x80, { QH: bits(4, 15) }, { access: 'ro', doc: 'the upper half is reserved' }),
  IQT: r32(0x88, { QT: bits(4, 15) }, { doc: 'the upper half is reserved' }),
  IQA: r64(0x90, { QS: bits(0, 3), DW: bit(11), ...page }),
  ICS: r32(0x9c, { IWC: bit(0, 'w1c') }),
  IECTL: r32(0xa0, { IP: bit(30, 'ro'), IM: bit(31) }, { reset: 0x8000_0000 }),
  IEDATA: r32(0xa4),
  IEADDR: r32(0xa8, { MA: bits(2, 30) }),
  IEUADDR: r32(0xac, {}, { access: 'ro', doc: 'the upper half, where there are extended interrupt modes' }),
  IRTA: r64(0xb8, { S: bits(0, 4), EIME: bit(11), ...page }),
  IVA: r64(0xf0, { AM: bits(0, 6), IH: bit(6), ...page }, { access: 'wo' }),
  IOTLB: r64(0xf8, {
    DID: bits(32, 16),
    DW: bit(48),
    DR: bit(49),
    IAIG: bits(57, 2, 'ro'),
    IIRG: bits(60, 2),
    IVT: bit(63),
  }),
  FRCD: r64(0x220, { FI: bits(12, 20), FI_HIGH: bits(32, 32) }, { access: 'ro' }),
  FRCD_HIGH: r64(0x228, { SID: bits(0, 16), FR: bits(32, 8), T: bit(62), F: bit(63, 'w1c') }, { access: 'ro' }),
});

/** CCMD.CIRG and CCMD.CAIG, IOTLB.IIRG and IOTLB.IAIG: what is invalidated, and what was. */
export const GRANULARITY = { GLOBAL: 1, DOMAIN: 2, DEVICE: 3, PAGE: 3 } as const;
