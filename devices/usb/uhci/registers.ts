import { bit, bits, r8, r16, r32, registerMap } from '../../../core/register/register.ts';

export const PORT_COUNT = 2;
const NO_PORT = 0xff7f;

/** UHCI Design Guide 1.1, section 2.1. */
export const uhciRegisters = registerMap('uhci', {
  USBCMD: r16(0x00, {
    RS: bit(0),
    HCRESET: bit(1),
    GRESET: bit(2),
    EGSM: bit(3),
    FGR: bit(4),
    SWDBG: bit(5),
    CF: bit(6),
    MAXP: bit(7),
  }),
  USBSTS: r16(
    0x02,
    { USBINT: bit(0), USBERRINT: bit(1), RESUME: bit(2), HSE: bit(3), HCPE: bit(4), HALTED: bit(5) },
    { access: 'w1c', reset: 0x20 },
  ),
  USBINTR: r16(0x04, { TIMEOUT_CRC: bit(0), RESUME: bit(1), IOC: bit(2), SHORT_PACKET: bit(3) }),
  FRNUM: r16(0x06, { FRAME: bits(0, 11) }, { sticky: true }),
  FRBASEADD: r32(0x08, { BASE: bits(12, 20) }),
  SOFMOD: r8(0x0c, {}, { reset: 64 }),
  RESERVED: r16(0x0e, {}, { access: 'ro', reset: NO_PORT }),
  PORTSC: r16(
    0x10,
    {
      CONNECTED: bit(0, 'ro'),
      CONNECT_CHANGE: bit(1, 'w1c'),
      ENABLED: bit(2),
      ENABLE_CHANGE: bit(3, 'w1c'),
      LINE_STATUS: bits(4, 2, 'ro'),
      RESUME_DETECT: bit(6),
      ONE: bit(7, 'ro'),
      LOW_SPEED: bit(8, 'ro'),
      RESET: bit(9),
      SUSPEND: bit(12),
    },
    { count: PORT_COUNT, reset: 0x80 },
  ),
  NO_PORT: r16(0x14, {}, { access: 'ro', reset: NO_PORT, count: 6, doc: 'where further ports would be' }),
});

/** Link pointers (section 3.1 to 3.3). */
export const LINK = { TERMINATE: 1, QUEUE: 2, DEPTH_FIRST: 4, ADDRESS: ~0xf } as const;

/** Control and status of a transfer descriptor (section 3.2.2). */
export const TD = {
  ACTUAL_LENGTH: 0x7ff,
  TIMEOUT: 1 << 18,
  NAK: 1 << 19,
  BABBLE: 1 << 20,
  STALLED: 1 << 22,
  ACTIVE: 1 << 23,
  IOC: 1 << 24,
  ISOCHRONOUS: 1 << 25,
  ERROR_COUNT: 3 << 27,
  SHORT_PACKET: 1 << 29,
} as const;

/** Token of a transfer descriptor (section 3.2.3): the endpoint that it is for, and its length. */
export const TOKEN = {
  PID: 0xff,
  address: (token: number): number => (token >>> 8) & 0x7f,
  endpoint: (token: number): number => (token >>> 15) & 0xf,
  /** The field is a length less 1; 7ffh stands for 0. */
  length: (token: number): number => ((token >>> 21) + 1) & 0x7ff,
  /** What tells one pipe from another. Endpoint 0 takes every PID. */
  pipe: (token: number): number => ((token & 0x7_8000) === 0 ? token & 0x7_ff00 : token & 0x7_ffff),
} as const;

/** Why a frame interrupts at its end. */
export const CAUSE = { COMPLETE: 1, SHORT: 2 } as const;
