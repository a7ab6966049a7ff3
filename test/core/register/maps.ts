import { bit, bits, choice, r8, r16, r32, r64, registerMap, tag } from '../../../core/register/register.ts';

/** The registers of a 16550 (National Semiconductor PC16550D, section 8): three offsets have two registers, one four. */
export const uart = registerMap('uart', {
  DLL: r8(0, {}, { when: 'LCR.DLAB', reset: 12, doc: 'divisor latch, low byte' }),
  RBR: r8(0, {}, { access: 'ro', doc: 'receiver buffer' }),
  THR: r8(0, {}, { access: 'wo', doc: 'transmitter holding register' }),
  DLM: r8(1, {}, { when: 'LCR.DLAB' }),
  IER: r8(1, { ERBFI: bit(0), ETBEI: bit(1), ELSI: bit(2), EDSSI: bit(3) }),
  IIR: r8(
    2,
    { IPN: bit(0), ID: choice(1, 3, { modem: 0, thre: 1, data: 2, line: 3, timeout: 6 }), FIFOS: bits(6, 2) },
    { access: 'ro', reset: 1 },
  ),
  FCR: r8(
    2,
    {
      EN: bit(0),
      RFR: bit(1, 'pulse'),
      TFR: bit(2, 'pulse'),
      DMA: tag(3),
      TRIGGER: choice(6, 2, { 1: 0, 4: 1, 8: 2, 14: 3 }),
    },
    { access: 'wo' },
  ),
  LCR: r8(3, {
    WLS: choice(0, 2, { five: 0, six: 1, seven: 2, eight: 3 }),
    STB: bit(2),
    PEN: bit(3),
    EPS: bit(4),
    SP: bit(5),
    BREAK: bit(6),
    DLAB: bit(7),
  }),
  MCR: r8(4, { DTR: bit(0), RTS: bit(1), OUT1: bit(2), OUT2: bit(3), LOOP: bit(4), AFE: tag(5) }),
  LSR: r8(
    5,
    {
      DR: bit(0),
      OE: bit(1, 'rc'),
      PE: bit(2, 'rc'),
      FE: bit(3, 'rc'),
      BI: bit(4, 'rc'),
      THRE: bit(5),
      TEMT: bit(6),
      ERR: bit(7),
    },
    { access: 'ro', reset: 0x60 },
  ),
  MSR: r8(6, { DELTA: bits(0, 4, 'rc'), CTS: bit(4), DSR: bit(5), RI: bit(6), DCD: bit(7) }, { access: 'ro' }),
  SCR: r8(7, {}, { sticky: true, doc: 'scratch' }),
});

/** One of everything that is not in a 16550. */
export const card = registerMap(
  'card',
  {
    CTRL: r32(
      0x00,
      {
        EN: bit(0),
        GO: bit(1, 'pulse'),
        SPEED: choice(8, 2, { slow: 0, fast: 1 }),
        LEVEL: bits(16, 8),
        FUSE: bit(31, 'w1s'),
      },
      { reset: 0x4000_0100 },
    ),
    CAUSE: r32(0x04, { RX: bit(0), TX: bit(1), LINK: bit(2, 'w0c'), MASK: bit(8, 'rw') }, { access: 'w1c' }),
    ID: r32(0x08, {}, { access: 'ro', reset: 0x8086_100e }),
    SHORT: r16(0x0c),
    WIDE: r64(0x10, { LOW: bits(0, 8), HIGH: bits(40, 8), DONE: bit(63, 'w1c') }, { reset: 0x8000_0000_0000_0001n }),
    BASE: r64(0x18),
    TABLE: r32(0x20, {}, { count: 4 }),
    PAIR_LO: r32(0x40, {}, { count: 4, stride: 8 }),
    PAIR_HI: r32(0x44, { AV: bit(31) }, { count: 4, stride: 8 }),
    BYTES: r8(0x60, {}, { count: 8, reset: 0xa5 }),
    RING: r64(0x70, {}, { count: 2 }),
  },
  { hole: 0xff },
);
