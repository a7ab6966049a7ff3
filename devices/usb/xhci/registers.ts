import { bit, bits, r32, registerMap } from '../../../core/register/register.ts';

export const MAX_PORTS = 30;
export const MAX_INTERRUPTERS = 16;
export const MAX_SLOTS = 64;
export const ENDPOINTS = 31;

const OPERATIONAL = 0x40;
const PORTS = OPERATIONAL + 0x400;
const RUNTIME = 0x1000;
const INTERRUPTERS = RUNTIME + 0x20;
export const DOORBELLS = 0x2000;
export const MSIX_TABLE = 0x3000;
export const MSIX_PENDING = 0x3800;
export const MEMORY_SIZE = 0x4000;
const INTERRUPTER_SIZE = 0x20;
const USB_NAME = 0x2042_5355;

/** xHCI 1.1, sections 5.3 to 5.6 and 7.2. What depends on the numbers of ports and slots is filled in when they are known. */
export const xhciRegisters = registerMap('xhci', {
  CAPLENGTH: r32(0x00, {}, { access: 'ro', reset: 0x0100_0000 | OPERATIONAL }),
  HCSPARAMS1: r32(
    0x04,
    { MAX_SLOTS: bits(0, 8), MAX_INTRS: bits(8, 11), MAX_PORTS: bits(24, 8) },
    { access: 'ro', sticky: true },
  ),
  HCSPARAMS2: r32(0x08, {}, { access: 'ro', reset: 0x0f, doc: 'one event ring segment' }),
  HCSPARAMS3: r32(0x0c, {}, { access: 'ro' }),
  HCCPARAMS1: r32(
    0x10,
    { AC64: bit(0), MAX_PSA_SIZE: bits(12, 4), XECP: bits(16, 16) },
    { access: 'ro', reset: 0x0008_0001, sticky: true },
  ),
  DBOFF: r32(0x14, {}, { access: 'ro', reset: DOORBELLS }),
  RTSOFF: r32(0x18, {}, { access: 'ro', reset: RUNTIME }),
  USB2_PROTOCOL: r32(0x20, {}, { access: 'ro', reset: 0x0200_0402 }),
  USB2_NAME: r32(0x24, {}, { access: 'ro', reset: USB_NAME }),
  USB2_PORTS: r32(0x28, { OFFSET: bits(0, 8), COUNT: bits(8, 8) }, { access: 'ro', sticky: true }),
  USB3_PROTOCOL: r32(0x30, {}, { access: 'ro', reset: 0x0300_0002 }),
  USB3_NAME: r32(0x34, {}, { access: 'ro', reset: USB_NAME }),
  USB3_PORTS: r32(0x38, { OFFSET: bits(0, 8), COUNT: bits(8, 8) }, { access: 'ro', sticky: true }),

  USBCMD: r32(OPERATIONAL, {
    RS: bit(0),
    HCRST: bit(1, 'pulse'),
    INTE: bit(2),
    HSEE: bit(3),
    CSS: bit(8, 'pulse'),
    CRS: bit(9, 'pulse'),
    EWE: bit(10),
    EU3S: bit(11),
  }),
  USBSTS: r32(
    OPERATIONAL + 0x04,
    {
      HCH: bit(0, 'ro'),
      HSE: bit(2),
      EINT: bit(3),
      PCD: bit(4),
      SSS: bit(8, 'ro'),
      RSS: bit(9, 'ro'),
      SRE: bit(10),
      CNR: bit(11, 'ro'),
      HCE: bit(12, 'ro'),
    },
    { access: 'w1c', reset: 1 },
  ),
  PAGESIZE: r32(OPERATIONAL + 0x08, {}, { access: 'ro', reset: 1 }),
  DNCTRL: r32(OPERATIONAL + 0x14, { N: bits(0, 16) }),
  CRCR_LOW: r32(OPERATIONAL + 0x18, {
    RCS: bit(0),
    CS: bit(1, 'pulse'),
    CA: bit(2, 'pulse'),
    CRR: bit(3, 'ro'),
    POINTER: bits(6, 26),
  }),
  CRCR_HIGH: r32(OPERATIONAL + 0x1c),
  DCBAAP_LOW: r32(OPERATIONAL + 0x30, { POINTER: bits(6, 26) }),
  DCBAAP_HIGH: r32(OPERATIONAL + 0x34),
  CONFIG: r32(OPERATIONAL + 0x38, { MAX_SLOTS_ENABLED: bits(0, 8) }),
  PORTSC: r32(
    PORTS,
    {
      CCS: bit(0, 'ro'),
      PED: bit(1, 'w1c'),
      OCA: bit(3, 'ro'),
      PR: bit(4, 'pulse'),
      PLS: bits(5, 4, 'ro', 'written where LWS is'),
      PP: bit(9),
      SPEED: bits(10, 4, 'ro'),
      PIC: bits(14, 2, 'ro'),
      LWS: bit(16, 'pulse'),
      CSC: bit(17, 'w1c'),
      PEC: bit(18, 'w1c'),
      WRC: bit(19, 'w1c'),
      OCC: bit(20, 'w1c'),
      PRC: bit(21, 'w1c'),
      PLC: bit(22, 'w1c'),
      CEC: bit(23, 'w1c'),
      CAS: bit(24, 'ro'),
      WCE: bit(25),
      WDE: bit(26),
      WOE: bit(27),
      DR: bit(30, 'ro'),
      WPR: bit(31, 'pulse'),
    },
    { count: MAX_PORTS, stride: 0x10 },
  ),

  MFINDEX: r32(RUNTIME, { INDEX: bits(0, 14) }, { access: 'ro' }),
  IMAN: r32(INTERRUPTERS, { IP: bit(0, 'w1c'), IE: bit(1) }, { count: MAX_INTERRUPTERS, stride: INTERRUPTER_SIZE }),
  IMOD: r32(INTERRUPTERS + 0x04, {}, { count: MAX_INTERRUPTERS, stride: INTERRUPTER_SIZE }),
  ERSTSZ: r32(INTERRUPTERS + 0x08, { SIZE: bits(0, 16) }, { count: MAX_INTERRUPTERS, stride: INTERRUPTER_SIZE }),
  ERSTBA_LOW: r32(INTERRUPTERS + 0x10, { POINTER: bits(4, 28) }, { count: MAX_INTERRUPTERS, stride: INTERRUPTER_SIZE }),
  ERSTBA_HIGH: r32(INTERRUPTERS + 0x14, {}, { count: MAX_INTERRUPTERS, stride: INTERRUPTER_SIZE }),
  ERDP_LOW: r32(
    INTERRUPTERS + 0x18,
    { DESI: bits(0, 3), EHB: bit(3, 'w1c'), POINTER: bits(4, 28) },
    { count: MAX_INTERRUPTERS, stride: INTERRUPTER_SIZE },
  ),
  ERDP_HIGH: r32(INTERRUPTERS + 0x1c, {}, { count: MAX_INTERRUPTERS, stride: INTERRUPTER_SIZE }),

  DOORBELL: r32(DOORBELLS, { TARGET: bits(0, 8), STREAM: bits(16, 16) }, { access: 'pulse', count: MAX_SLOTS + 1 }),
});

/** Raw bits of PORTSC. */
export const PORT = {
  RESET: 1 << 4,
  STROBE: 1 << 16,
  WARM_RESET: 1 << 31,
  PLS: (value: number) => (value >> 5) & 0xf,
} as const;

/** Link states (table 5-27). */
export const PLS = { U0: 0, U3: 3, RX_DETECT: 5, POLLING: 7, RESUME: 15 } as const;
/** Default speed identifiers (table 7-13). */
export const SPEED_ID = { full: 1, low: 2, high: 3, super: 4 } as const;

/** TRB types (table 6-91). */
export const TRB = {
  NORMAL: 1,
  SETUP: 2,
  DATA: 3,
  STATUS: 4,
  ISOCH: 5,
  LINK: 6,
  EVENT_DATA: 7,
  NO_OP: 8,
  ENABLE_SLOT: 9,
  DISABLE_SLOT: 10,
  ADDRESS_DEVICE: 11,
  CONFIGURE_ENDPOINT: 12,
  EVALUATE_CONTEXT: 13,
  RESET_ENDPOINT: 14,
  STOP_ENDPOINT: 15,
  SET_TR_DEQUEUE: 16,
  RESET_DEVICE: 17,
  GET_PORT_BANDWIDTH: 21,
  NO_OP_COMMAND: 23,
  TRANSFER_EVENT: 32,
  COMMAND_COMPLETION: 33,
  PORT_STATUS_CHANGE: 34,
  HOST_CONTROLLER: 37,
  MFINDEX_WRAP: 39,
  NEC_REPLY: 48,
  NEC_FIRMWARE_REVISION: 49,
  NEC_CHALLENGE_RESPONSE: 50,
} as const;
export const TRB_SIZE = 16;
/** Control words of TRBs. */
export const CONTROL = {
  CYCLE: 1 << 0,
  TOGGLE_CYCLE: 1 << 1,
  SHORT_INTERRUPT: 1 << 2,
  EVENT_DATA: 1 << 2,
  CHAIN: 1 << 4,
  IOC: 1 << 5,
  IMMEDIATE: 1 << 6,
  /** Block set address request, deconfigure. */
  BIT9: 1 << 9,
  IN: 1 << 16,
  START_ASAP: 1 << 31,
  type: (control: number): number => (control >>> 10) & 0x3f,
  endpoint: (control: number): number => (control >>> 16) & 0x1f,
  frame: (control: number): number => (control >>> 20) & 0x7ff,
  slot: (control: number): number => control >>> 24,
} as const;
export const LENGTH_MASK = 0x1_ffff;
export const interrupterOf = (status: number): number => status >>> 22;

/** Completion codes (table 6-90). */
export const CC = {
  SUCCESS: 1,
  BABBLE: 3,
  TRANSACTION_ERROR: 4,
  TRB_ERROR: 5,
  STALL: 6,
  RESOURCE_ERROR: 7,
  NO_SLOTS: 9,
  INVALID_STREAM_TYPE: 10,
  SLOT_NOT_ENABLED: 11,
  ENDPOINT_NOT_ENABLED: 12,
  SHORT_PACKET: 13,
  RING_UNDERRUN: 14,
  RING_OVERRUN: 15,
  CONTEXT_STATE: 19,
  EVENT_RING_FULL: 21,
  COMMAND_RING_STOPPED: 24,
  STOPPED: 26,
  INVALID_STREAM_ID: 34,
} as const;

/** Endpoint types (table 6-9) and states (section 4.8.3). */
export const EP_TYPE = {
  ISOCH_OUT: 1,
  BULK_OUT: 2,
  INTERRUPT_OUT: 3,
  CONTROL: 4,
  ISOCH_IN: 5,
  BULK_IN: 6,
  INTERRUPT_IN: 7,
} as const;
export const EP_STATE = { DISABLED: 0, RUNNING: 1, HALTED: 2, STOPPED: 3 } as const;
/** Slot states (table 6-7). */
export const SLOT_STATE = { DEFAULT: 1, ADDRESSED: 2, CONFIGURED: 3 } as const;

/** A 64-bit pointer in two words; exact as far as memory goes. */
export const pointer = (low: number, high: number): number => high * 2 ** 32 + (low >>> 0);
export const lowWord = (address: number): number => address >>> 0;
export const highWord = (address: number): number => Math.floor(address / 2 ** 32) >>> 0;
