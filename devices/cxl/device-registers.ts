/** Registers of a memory device (CXL 2.0, section 8.2.8): what it has, its state, and a mailbox for commands. */
import { bit, bits, choice, r32, r64, registerMap } from '../../core/register/register.ts';

/** The BAR: as much as all structures together take, as a power of two. */
export const DEVICE_BLOCK_SIZE = 0x1000;
/** 8.2.8.4: bytes of a command's payload. */
const PAYLOAD_SHIFT = 11;
export const PAYLOAD_SIZE = 1 << PAYLOAD_SHIFT;

const STATUS = { at: 0x80, size: 0x08 } as const;
const MAILBOX = { at: STATUS.at + STATUS.size, size: 0x20 + PAYLOAD_SIZE } as const;
const MEMORY_DEVICE = { at: MAILBOX.at + MAILBOX.size, size: 0x08 } as const;

const CAPABILITY = { STATUS: 0x0001, MAILBOX: 0x0002, MEMORY_DEVICE: 0x4000 } as const;
const VERSION = 1;
const CAPABILITY_COUNT = 3n;

/** 8.2.8.2: a header says where the registers of a capability are, and how many bytes they take. */
function capability(at: number, id: number, place: { readonly at: number; readonly size: number }) {
  const reset = (BigInt(place.at) << 32n) | BigInt(id | (VERSION << 16));
  return {
    header: r64(at, { ID: bits(0, 16), VERSION: bits(16, 8), OFFSET: bits(32, 32) }, { access: 'ro', reset }),
    length: r64(at + 8, { LENGTH: bits(0, 32) }, { access: 'ro', reset: BigInt(place.size) }),
  };
}

const headers = {
  status: capability(0x10, CAPABILITY.STATUS, STATUS),
  mailbox: capability(0x20, CAPABILITY.MAILBOX, MAILBOX),
  memory: capability(0x30, CAPABILITY.MEMORY_DEVICE, MEMORY_DEVICE),
} as const;

export const memoryDeviceRegisters = registerMap('cxl-device', {
  CAPABILITY_ARRAY: r64(
    0x00,
    { ID: bits(0, 16), VERSION: bits(16, 8), COUNT: bits(32, 16) },
    { access: 'ro', reset: (CAPABILITY_COUNT << 32n) | (BigInt(VERSION) << 16n), doc: '8.2.8.1' },
  ),
  STATUS_HEADER: headers.status.header,
  STATUS_LENGTH: headers.status.length,
  MAILBOX_HEADER: headers.mailbox.header,
  MAILBOX_LENGTH: headers.mailbox.length,
  MEMORY_HEADER: headers.memory.header,
  MEMORY_LENGTH: headers.memory.length,
  EVENT_STATUS: r64(
    STATUS.at,
    { INFORMATIONAL: bit(0), WARNING: bit(1), FAILURE: bit(2), FATAL: bit(3) },
    { access: 'ro', doc: '8.2.8.3.1' },
  ),
  MAILBOX_CAPABILITIES: r32(
    MAILBOX.at + 0x00,
    { PAYLOAD_SIZE: bits(0, 5), DOORBELL_INTERRUPT: bit(5), BACKGROUND_INTERRUPT: bit(6), MESSAGE: bits(7, 4) },
    { access: 'ro', reset: PAYLOAD_SHIFT, doc: '8.2.8.4.3' },
  ),
  MAILBOX_CONTROL: r32(
    MAILBOX.at + 0x04,
    { DOORBELL: bit(0), DOORBELL_INTERRUPT: bit(1), BACKGROUND_INTERRUPT: bit(2) },
    { doc: '8.2.8.4.4' },
  ),
  COMMAND: r64(
    MAILBOX.at + 0x08,
    { OPCODE: bits(0, 16), LENGTH: bits(16, 16), LENGTH_HIGH: bits(32, 4) },
    { doc: '8.2.8.4.5' },
  ),
  MAILBOX_STATUS: r64(
    MAILBOX.at + 0x10,
    { BACKGROUND: bit(0), RETURN_CODE: bits(32, 16), VENDOR_CODE: bits(48, 16) },
    { access: 'ro', doc: '8.2.8.4.6' },
  ),
  BACKGROUND_STATUS: r64(
    MAILBOX.at + 0x18,
    { OPCODE: bits(0, 16), PERCENTAGE: bits(16, 7), RETURN_CODE: bits(32, 16), VENDOR_CODE: bits(48, 16) },
    { access: 'ro', doc: '8.2.8.4.7' },
  ),
  PAYLOAD: r32(MAILBOX.at + 0x20, {}, { count: PAYLOAD_SIZE / 4, doc: '8.2.8.4.8' }),
  MEMORY_DEVICE_STATUS: r64(
    MEMORY_DEVICE.at,
    {
      FATAL: bit(0),
      FIRMWARE_HALT: bit(1),
      MEDIA: choice(2, 2, { notReady: 0, ready: 1, error: 2, disabled: 3 }),
      MAILBOX_READY: bit(4),
      RESET_NEEDED: choice(5, 3, { none: 0, cold: 1, warm: 2, hot: 3, cxl: 4 }),
    },
    { access: 'ro', reset: (1 << 2) | (1 << 4), doc: '8.2.8.5.1.1' },
  ),
});
