import { bit, bits, r8, r16, r32, registerMap, tag } from '../../core/register/register.ts';

const endian = { BIG_ENDIAN: bit(24) } as const;

/** The local configuration registers of the PLX PCI 9030 (data book, section 10.4), as the TPCI200's EEPROM sets them. */
export const pci9030Registers = registerMap('pci9030', {
  LAS0RR: r32(0x00, {}, { access: 'ro', reset: 0x0fff_ff00, doc: 'Local address space 0: range' }),
  LAS1RR: r32(0x04, {}, { access: 'ro', reset: 0x0fff_fc00, doc: 'Local address space 1: range' }),
  LAS2RR: r32(0x08, {}, { access: 'ro', reset: 0x0e00_0000, doc: 'Local address space 2: range' }),
  LAS3RR: r32(0x0c, {}, { access: 'ro', reset: 0x0f00_0000, doc: 'Local address space 3: range' }),
  EROMRR: r32(0x10, {}, { access: 'ro', doc: 'Expansion ROM: range' }),
  LAS0BA: r32(0x14, {}, { access: 'ro', reset: 0x0800_0001, doc: 'Local address space 0: local base address' }),
  LAS1BA: r32(0x18, {}, { access: 'ro', reset: 0x0400_0001, doc: 'Local address space 1: local base address' }),
  LAS2BA: r32(0x1c, {}, { access: 'ro', reset: 0x0000_0001, doc: 'Local address space 2: local base address' }),
  LAS3BA: r32(0x20, {}, { access: 'ro', reset: 0x0200_0001, doc: 'Local address space 3: local base address' }),
  EROMBA: r32(0x24, {}, { access: 'ro', doc: 'Expansion ROM: local base address' }),
  LAS0BRD: r32(0x28, endian, { reset: 0xd441_60a0, doc: 'Local address space 0: bus region descriptor' }),
  LAS1BRD: r32(0x2c, endian, { reset: 0x1441_20a2, doc: 'Local address space 1: bus region descriptor' }),
  LAS2BRD: r32(0x30, endian, { reset: 0x1441_20a2, doc: 'Local address space 2: bus region descriptor' }),
  LAS3BRD: r32(0x34, {}, { access: 'ro', reset: 0x1401_20a2, doc: 'Local address space 3: bus region descriptor' }),
  EROMBRD: r32(0x38, {}, { access: 'ro', doc: 'Expansion ROM: bus region descriptor' }),
  CS0BASE: r32(0x3c, {}, { access: 'ro', reset: 0x0800_0081, doc: 'Chip select 0' }),
  CS1BASE: r32(0x40, {}, { access: 'ro', reset: 0x0400_0201, doc: 'Chip select 1' }),
  CS2BASE: r32(0x44, {}, { access: 'ro', reset: 0x0100_0001, doc: 'Chip select 2' }),
  CS3BASE: r32(0x48, {}, { access: 'ro', reset: 0x0280_0001, doc: 'Chip select 3' }),
  INTCSR: r16(0x4c, {}, { access: 'ro', reset: 0x0041, doc: 'Interrupt control and status' }),
  PROT_AREA: r16(0x4e, {}, { access: 'ro', doc: "Serial EEPROM's write-protected area" }),
  CNTRL: r32(
    0x50,
    {},
    { access: 'ro', reset: 0x007a_4000, doc: 'Target response, serial EEPROM, initialization control' },
  ),
  GPIOC: r32(0x54, {}, { access: 'ro', reset: 0x0224_9252, doc: 'General-purpose I/O control' }),
});

/** The carrier's own registers, in local space 0 (TPCI200 User Manual, "Register Description"). */
export const tpci200Registers = registerMap('tpci200', {
  REVISION_ID: r16(0x00, {}, { access: 'ro' }),
  IP_CONTROL: r16(
    0x02,
    {
      CLKRATE: bit(0),
      RECOVER: bit(1),
      TIME_INT: bit(2),
      ERR_INT: bit(3),
      INT0_EDGE: bit(4),
      INT1_EDGE: bit(5),
      INT0_ENABLE: bit(6),
      INT1_ENABLE: bit(7),
    },
    { count: 4, doc: 'One for each slot' },
  ),
  IP_RESET: r16(0x0a, { SLOTS: tag(0, 4) }, { access: 'wo' }),
  IP_STATUS: r16(
    0x0c,
    { INT: bits(0, 8), ERROR: bits(8, 4), TIMEOUT: bits(12, 4) },
    { doc: 'Two interrupt requests of each slot, then its error and its time-out; writing 1 clears' },
  ),
});

const perChannel = { count: 8, stride: 8 } as const;
const perBlock = { count: 4, stride: 16 } as const;

/** The octal UART (SCC2698B data sheet, table 1), by register number: eight a channel, two channels a block. */
export const scc2698Registers = registerMap('scc2698', {
  MR: r8(0x0, {}, { ...perChannel, doc: 'Mode: MR1, and from its first access on MR2' }),
  SR: r8(
    0x1,
    {
      RXRDY: bit(0),
      FFULL: bit(1),
      TXRDY: bit(2),
      TXEMT: bit(3),
      OVERRUN: bit(4),
      PARITY: bit(5),
      FRAMING: bit(6),
      BREAK: bit(7),
    },
    { ...perChannel, doc: 'Status (read), clock select (write)' },
  ),
  CR: r8(
    0x2,
    { ENABLE_RX: bit(0), DISABLE_RX: bit(1), ENABLE_TX: bit(2), DISABLE_TX: bit(3), COMMAND: bits(4, 4) },
    { ...perChannel, access: 'wo', doc: 'Command' },
  ),
  RHR: r8(0x3, {}, { ...perChannel, doc: 'Receiver holding (read), transmitter holding (write)' }),
  ACR: r8(0x4, {}, { ...perBlock, access: 'wo', doc: 'Auxiliary control' }),
  ISR: r8(
    0x5,
    {
      TXRDYA: bit(0),
      RXRDYA: bit(1),
      BREAKA: bit(2),
      COUNTER: bit(3),
      TXRDYB: bit(4),
      RXRDYB: bit(5),
      BREAKB: bit(6),
      INPUT: bit(7),
    },
    { ...perBlock, doc: 'Interrupt status (read), interrupt mask (write)' },
  ),
  OPCR: r8(0xd, {}, { ...perBlock, access: 'wo', doc: 'Output port configuration' }),
});
