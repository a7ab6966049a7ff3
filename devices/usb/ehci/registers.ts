import { bit, bits, r8, r16, r32, registerMap } from '../../../core/register/register.ts';

export const PORT_COUNT = 6;
/** Bytes of capability registers, after which the operational ones begin. */
const CAPLENGTH = 0x20;
/** Whole frames may be cached; extended capabilities at 68h in configuration space. */
const HCCPARAMS = 0x6880;

/** EHCI 1.0, sections 2.2 and 2.3. */
export const ehciRegisters = registerMap('ehci', {
  CAPLENGTH: r8(0x00, {}, { access: 'ro', reset: CAPLENGTH }),
  HCIVERSION: r16(0x02, {}, { access: 'ro', reset: 0x0100 }),
  HCSPARAMS: r32(
    0x04,
    { N_PORTS: bits(0, 4), PPC: bit(4), PRR: bit(7), N_PCC: bits(8, 4), N_CC: bits(12, 4) },
    { access: 'ro', reset: PORT_COUNT, sticky: true },
  ),
  HCCPARAMS: r32(0x08, {}, { access: 'ro', reset: HCCPARAMS }),
  USBCMD: r32(
    CAPLENGTH,
    {
      RS: bit(0),
      HCRESET: bit(1, 'pulse'),
      FRAME_LIST_SIZE: bits(2, 2, 'ro', 'always 1024 entries'),
      PERIODIC_ENABLE: bit(4),
      ASYNC_ENABLE: bit(5),
      DOORBELL: bit(6, 'w1s', 'interrupt on async advance'),
      LIGHT_RESET: bit(7),
      PARK_COUNT: bits(8, 2),
      PARK_ENABLE: bit(11),
      INTERRUPT_THRESHOLD: bits(16, 8),
    },
    { reset: 8 << 16 },
  ),
  USBSTS: r32(
    CAPLENGTH + 0x04,
    {
      INT: bit(0, 'w1c'),
      ERROR: bit(1, 'w1c'),
      PORT_CHANGE: bit(2, 'w1c'),
      ROLLOVER: bit(3, 'w1c'),
      HOST_ERROR: bit(4, 'w1c'),
      ASYNC_ADVANCE: bit(5, 'w1c'),
      HALTED: bit(12),
      RECLAMATION: bit(13),
      PERIODIC: bit(14),
      ASYNC: bit(15),
    },
    { access: 'ro', reset: 0x1000 },
  ),
  USBINTR: r32(CAPLENGTH + 0x08, {
    INT: bit(0),
    ERROR: bit(1),
    PORT_CHANGE: bit(2),
    ROLLOVER: bit(3),
    HOST_ERROR: bit(4),
    ASYNC_ADVANCE: bit(5),
  }),
  FRINDEX: r32(CAPLENGTH + 0x0c, { INDEX: bits(0, 14) }),
  CTRLDSSEGMENT: r32(CAPLENGTH + 0x10),
  PERIODICLISTBASE: r32(CAPLENGTH + 0x14),
  ASYNCLISTADDR: r32(CAPLENGTH + 0x18),
  CONFIGFLAG: r32(CAPLENGTH + 0x40, { CF: bit(0) }),
  PORTSC: r32(
    CAPLENGTH + 0x44,
    {
      CONNECTED: bit(0, 'ro'),
      CONNECT_CHANGE: bit(1, 'w1c'),
      ENABLED: bit(2, 'w0c', 'software may only disable'),
      ENABLE_CHANGE: bit(3, 'w1c'),
      OVER_CURRENT: bit(4, 'ro'),
      OVER_CURRENT_CHANGE: bit(5, 'w1c'),
      FORCE_RESUME: bit(6),
      SUSPEND: bit(7),
      RESET: bit(8),
      LINE_STATUS: bits(10, 2, 'ro'),
      POWER: bit(12, 'ro'),
      OWNER: bit(13),
      WAKE_ON_CONNECT: bit(20),
      WAKE_ON_DISCONNECT: bit(21),
      WAKE_ON_OVER_CURRENT: bit(22),
    },
    { count: PORT_COUNT, reset: 0x1000 },
  ),
});

/** Link pointers (section 3): to what kind of thing, and where. */
export const LINK = {
  TERMINATE: 1,
  address: (link: number): number => (link & ~0x1f) >>> 0,
  kind: (link: number): number => (link >>> 1) & 3,
} as const;
export const KIND = { ISOCHRONOUS: 0, QUEUE: 1, SPLIT_ISOCHRONOUS: 2, FSTN: 3 } as const;

/** Words of a queue head (section 3.6); from CURRENT on it is the controller's. */
export const QH = {
  LINK: 0,
  CHARACTERISTICS: 1,
  CAPABILITIES: 2,
  CURRENT: 3,
  NEXT: 4,
  ALTERNATE: 5,
  TOKEN: 6,
  BUFFERS: 7,
  WORDS: 12,
} as const;
export const CHARACTERISTICS = {
  ENDPOINT_MASK: 0xf7f,
  TOGGLE_FROM_QTD: 1 << 14,
  HEAD: 1 << 15,
  device: (word: number): number => word & 0x7f,
  endpoint: (word: number): number => (word >>> 8) & 0xf,
  maxPacket: (word: number): number => (word >>> 16) & 0x7ff,
  nakReload: (word: number): number => word >>> 28,
} as const;
/** Transactions in a microframe (section 3.6.2). */
export const multiplier = (capabilities: number): number => capabilities >>> 30;

/** Words of a transfer descriptor (section 3.5). */
export const QTD = { NEXT: 0, ALTERNATE: 1, TOKEN: 2, BUFFERS: 3, WORDS: 8 } as const;
export const BUFFER_COUNT = 5;
export const PAGE = 4096;

/** Token of a transfer descriptor (section 3.5.3). */
export const TOKEN = {
  PING: 1 << 0,
  TRANSACTION_ERROR: 1 << 3,
  BABBLE: 1 << 4,
  HALTED: 1 << 6,
  ACTIVE: 1 << 7,
  ERROR_COUNT: 3 << 10,
  IOC: 1 << 15,
  TOGGLE: 1 << 31,
  pid: (token: number): number => (token >>> 8) & 3,
  page: (token: number): number => (token >>> 12) & 7,
  withPage: (token: number, page: number): number => (token & ~0x7000) | ((page & 7) << 12),
  bytes: (token: number): number => (token >>> 16) & 0x7fff,
  withBytes: (token: number, bytes: number): number => (token & ~0x7fff_0000) | (bytes << 16),
} as const;
