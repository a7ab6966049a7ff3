import { bit, bits, r8, r32, registerMap } from '../../core/register/register.ts';

/** Register set of the LSI53C895A (LSI53C895A PCI to Ultra2 SCSI Controller Technical Manual, chapter 4). */
export const lsiRegisters = registerMap(
  'lsi53c895a',
  {
    SCNTL0: r8(0x00, {}, { reset: 0xc0, doc: 'SCSI control 0' }),
    SCNTL1: r8(0x01, {}, { doc: 'SCSI control 1' }),
    SCNTL2: r8(0x02, {}, { doc: 'SCSI control 2' }),
    SCNTL3: r8(0x03, {}, { doc: 'SCSI control 3: clock conversion' }),
    SCID: r8(0x04, {}, { reset: 0x07, doc: 'own SCSI id' }),
    SXFER: r8(0x05, {}, { doc: 'SCSI transfer' }),
    SDID: r8(0x06, { ID: bits(0, 4) }, { doc: 'destination id' }),
    GPREG: r8(0x07, {}, { access: 'ro', reset: 0x7f, sticky: true, doc: 'general purpose pins' }),
    SFBR: r8(0x08, {}, { sticky: true, doc: 'first byte received' }),
    SOCL: r8(0x09, {}, { access: 'ro', doc: 'SCSI output control latch' }),
    SSID: r8(0x0a, { ID: bits(0, 4), VAL: bit(7) }, { access: 'ro', doc: 'who has selected the chip' }),
    SBCL: r8(0x0b, {}, { access: 'ro', doc: 'SCSI bus control lines' }),
    DSTAT: r8(0x0c, {}, { access: 'ro', doc: 'DMA status; reading clears' }),
    SSTAT0: r8(0x0d, {}, { access: 'ro', doc: 'SCSI status 0' }),
    SSTAT1: r8(0x0e, {}, { access: 'ro', doc: 'SCSI status 1: the phase' }),
    SSTAT2: r8(0x0f, {}, { access: 'ro', doc: 'SCSI status 2' }),
    DSA: r32(0x10, {}, { doc: 'data structure address' }),
    ISTAT0: r8(0x14, {}, { doc: 'interrupt status 0' }),
    ISTAT1: r8(0x15, {}, { access: 'ro', doc: 'interrupt status 1' }),
    MBOX0: r8(0x16, {}, { doc: 'mailbox 0' }),
    MBOX1: r8(0x17, {}, { doc: 'mailbox 1' }),
    CTEST0: r8(0x18, {}, { access: 'ro', reset: 0xff, doc: 'chip test 0' }),
    CTEST1: r8(0x19, {}, { access: 'ro', doc: 'chip test 1: FIFO' }),
    CTEST2: r8(0x1a, {}, { reset: 0x01, doc: 'chip test 2; reading clears SIGP' }),
    CTEST3: r8(0x1b, { LOW: bits(0, 4), V: bits(4, 4, 'ro') }, { doc: 'chip test 3' }),
    TEMP: r32(0x1c, {}, { doc: 'return address of a call' }),
    DFIFO: r8(0x20, {}, { access: 'ro', doc: 'DMA FIFO' }),
    CTEST4: r8(0x21, {}, { doc: 'chip test 4' }),
    CTEST5: r8(0x22, {}, { doc: 'chip test 5' }),
    CTEST6: r8(0x23, {}, { access: 'ro', doc: 'chip test 6' }),
    DBC: r32(
      0x24,
      { COUNT: bits(0, 24), DCMD: bits(24, 8, 'ro') },
      { reset: 0x4000_0000, doc: 'DMA byte count, command' },
    ),
    DNAD: r32(0x28, {}, { doc: 'DMA next address' }),
    DSP: r32(0x2c, {}, { doc: 'SCRIPTS pointer; writing starts' }),
    DSPS: r32(0x30, {}, { doc: 'second word of the instruction' }),
    SCRATCHA: r32(0x34, {}, { doc: 'scratch A' }),
    DMODE: r8(0x38, {}, { doc: 'DMA mode' }),
    DIEN: r8(0x39, {}, { doc: 'DMA interrupt enable' }),
    SBR: r8(0x3a, {}, { doc: 'scratch byte' }),
    DCNTL: r8(0x3b, {}, { doc: 'DMA control' }),
    ADDER: r32(0x3c, {}, { access: 'ro', sticky: true, doc: 'sum of the address adder' }),
    SIEN0: r8(0x40, {}, { doc: 'SCSI interrupt enable 0' }),
    SIEN1: r8(0x41, {}, { doc: 'SCSI interrupt enable 1' }),
    SIST0: r8(0x42, {}, { access: 'ro', doc: 'SCSI interrupt status 0; reading clears' }),
    SIST1: r8(0x43, {}, { access: 'ro', doc: 'SCSI interrupt status 1; reading clears' }),
    MACNTL: r8(0x46, {}, { access: 'ro', reset: 0x0f, doc: 'memory access control' }),
    GPCNTL: r8(0x47, {}, { access: 'ro', reset: 0x0f, doc: 'general purpose pin control' }),
    STIME0: r8(0x48, {}, { doc: 'SCSI timer 0' }),
    STIME1: r8(0x49, {}, { access: 'wo', doc: 'SCSI timer 1' }),
    RESPID0: r8(0x4a, {}, { reset: 0x80, doc: 'ids that are answered to, 0 to 7' }),
    RESPID1: r8(0x4b, {}, { doc: 'ids that are answered to, 8 to 15' }),
    STEST1: r8(0x4d, {}, { doc: 'SCSI test 1' }),
    STEST2: r8(0x4e, {}, { doc: 'SCSI test 2' }),
    STEST3: r8(0x4f, {}, { doc: 'SCSI test 3' }),
    SIDL: r8(0x50, {}, { access: 'ro', doc: 'SCSI input data latch' }),
    STEST4: r8(0x52, {}, { access: 'ro', reset: 0xe0, doc: 'SCSI test 4: bus mode and locked PLL' }),
    CCNTL0: r8(0x56, {}, { doc: 'chip control 0' }),
    CCNTL1: r8(0x57, {}, { doc: 'chip control 1' }),
    SBDL: r8(0x58, {}, { access: 'ro', doc: 'SCSI bus data lines' }),
    SBDLH: r8(0x59, {}, { access: 'ro' }),
    SCRATCH: r32(0x5c, {}, { count: 17, doc: 'scratch B to R' }),
    MMRS: r32(0xa0, {}, { doc: 'upper address of memory move reads' }),
    MMWS: r32(0xa4, {}, { doc: 'upper address of memory move writes' }),
    SFS: r32(0xa8, {}, { doc: 'upper address of SCRIPTS fetches' }),
    DRS: r32(0xac, {}, { doc: 'upper address of DSA-relative accesses' }),
    SBMS: r32(0xb0, {}, { doc: 'upper address of block moves, static' }),
    DBMS: r32(0xb4, {}, { doc: 'upper address of block moves, dynamic' }),
    DNAD64: r32(0xb8, {}, { doc: 'DMA next address, upper' }),
    PMJAD1: r32(0xc0, {}, { doc: 'phase mismatch jump address 1' }),
    PMJAD2: r32(0xc4, {}, { doc: 'phase mismatch jump address 2' }),
    RBC: r32(0xc8, {}, { doc: 'remaining byte count' }),
    UA: r32(0xcc, {}, { doc: 'updated address' }),
    IA: r32(0xd4, {}, { doc: 'instruction address' }),
    SBC: r32(0xd8, {}, { doc: 'SCSI byte count' }),
    CSBC: r32(0xdc, {}, { doc: 'cumulative SCSI byte count' }),
  },
  { hole: 0xff },
);

export const REGISTER_SPACE = 0x100;

export const SCNTL1 = { SST: 0x01, IARB: 0x02, RST: 0x08, CON: 0x10 } as const;
export const SCNTL2 = { WSR: 0x01, WSS: 0x08 } as const;
/** Enables the response to reselection. */
export const SCID_RRE = 0x60;
export const SBCL = { ATN: 0x08, BSY: 0x20, ACK: 0x40, REQ: 0x80 } as const;
export const DSTAT = { IID: 0x01, SIR: 0x04, SSI: 0x08, ABRT: 0x10, DFE: 0x80 } as const;
export const SSTAT0 = { RST: 0x02, WOA: 0x04 } as const;
/** No initiator is connected. */
export const SSTAT2_LDSC = 0x02;
export const ISTAT0 = { DIP: 0x01, SIP: 0x02, INTF: 0x04, SIGP: 0x20, SRST: 0x40, ABRT: 0x80, HOST: 0xf0 } as const;
export const ISTAT1_SRUN = 0x02;
export const CTEST2 = { DACK: 0x01, PCICIE: 0x08, CM: 0x10, SIGP: 0x40 } as const;
export const DMODE = { MAN: 0x01, DIOM: 0x10, SIOM: 0x20 } as const;
export const DCNTL = { COM: 0x01, STD: 0x04, SSM: 0x10, PFF: 0x40 } as const;
export const SIST0 = { RST: 0x02, UDC: 0x04, RSL: 0x10, SEL: 0x20, CMP: 0x40, MA: 0x80 } as const;
export const SIST1 = { HTH: 0x01, GEN: 0x02, STO: 0x04 } as const;
export const CCNTL0 = { PMJCTL: 0x40, ENPMJ: 0x80 } as const;
export const CCNTL1 = { EN64DBMV: 0x01, EN64TIBMV: 0x02, TIMOD64: 0x04 } as const;

/** The phases of the bus (SCSI-2, section 5.2), as SSTAT1 and SCRIPTS instructions have them. */
export const PHASE = {
  DATA_OUT: 0,
  DATA_IN: 1,
  COMMAND: 2,
  STATUS: 3,
  MESSAGE_OUT: 6,
  MESSAGE_IN: 7,
  MASK: 7,
} as const;
