import { bit, bits, r8, r16, r32, registerMap } from '../../core/register/register.ts';

/** The control and status registers of the 8255x (Intel 8255x 10/100 Mbps Ethernet controller family manual, section 6.3). */
export const eepro100Registers = registerMap('eepro100', {
  STATUS: r8(0x00, { RUS: bits(2, 4), CUS: bits(6, 2) }, { access: 'ro' }),
  ACK: r8(0x01, {}, { access: 'w1c', doc: 'Interrupt causes' }),
  COMMAND: r8(0x02, {}, { doc: 'Commands to the receive and the command unit' }),
  MASK: r8(0x03, {
    M: bit(0),
    SI: bit(1, 'pulse'),
    FCP: bit(2),
    ER: bit(3),
    RNR: bit(4),
    CNA: bit(5),
    FR: bit(6),
    CX: bit(7),
  }),
  POINTER: r32(0x04, {}, { doc: 'General pointer' }),
  PORT: r32(0x08),
  FLASH: r16(0x0c),
  EEPROM: r16(0x0e, { SK: bit(0), CS: bit(1), DI: bit(2), DO: bit(3, 'ro') }),
  MDI: r32(0x10, {}, { reset: 0x0020_0000 }),
  RX_BYTES: r32(0x14, {}, { doc: 'Receive DMA byte count' }),
  FLOW: r8(0x18, {}, { count: 3 }),
  PMDR: r8(0x1b, {}, { access: 'ro' }),
  GENERAL_CONTROL: r8(0x1c),
  GENERAL_STATUS: r8(0x1d, {}, { access: 'ro', reset: 0x07 }),
});

/** States of the command and the receive unit (section 6.3.2). */
export const CU = { IDLE: 0, SUSPENDED: 1, ACTIVE: 2 } as const;
export const RU = { IDLE: 0, SUSPENDED: 1, NO_RESOURCES: 2, READY: 4 } as const;
/** Commands to them (section 6.3.3). */
export const CU_COMMAND = {
  NOP: 0x00,
  START: 0x10,
  RESUME: 0x20,
  STATISTICS_ADDRESS: 0x40,
  DUMP: 0x50,
  BASE: 0x60,
  DUMP_AND_RESET: 0x70,
} as const;
export const RU_COMMAND = { NOP: 0, START: 1, RESUME: 2, ABORT: 4, BASE: 6 } as const;
/** Interrupt causes, as in ACK. */
export const CAUSE = { SWI: 0x04, MDI: 0x08, RNR: 0x10, CNA: 0x20, FR: 0x40, CX: 0x80 } as const;
/** PORT's selections (section 6.3.4). */
export const PORT = { SOFTWARE_RESET: 0, SELF_TEST: 1, SELECTIVE_RESET: 2 } as const;
