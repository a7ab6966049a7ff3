/** Messages of Remote NDIS (Microsoft, [MS-RNDIS]); all numbers little-endian, offsets counted from a message's third word. */
import { MAX_FRAME } from './description.ts';

const MESSAGE = { PACKET: 1, INITIALIZE: 2, HALT: 3, QUERY: 4, SET: 5, RESET: 6, KEEPALIVE: 8 } as const;
const COMPLETE = 0x8000_0000;
const STATUS = { SUCCESS: 0, NOT_SUPPORTED: 0xc000_00bb } as const;

const TYPE = 0;
const LENGTH = 4;
const REQUEST_ID = 8;
const OID_AT = 12;
const BUFFER_LENGTH = 16;
const BUFFER_OFFSET = 20;
const OFFSET_BASE = 8;
/** The least that a message takes, and a request for a value. */
const HEADER = 12;
const REQUEST_SIZE = 28;

export const PACKET_HEADER = 44;
const DATA_OFFSET = 8;
const DATA_LENGTH = 12;
const MAX_TRANSFER = MAX_FRAME + PACKET_HEADER + 22;
const MAX_TOTAL = 1558;

/** Objects (section 2.2 of MS-RNDIS and NDIS 5, "OIDs"). */
const OID = {
  SUPPORTED_LIST: 0x0001_0101,
  HARDWARE_STATUS: 0x0001_0102,
  MEDIA_SUPPORTED: 0x0001_0103,
  MEDIA_IN_USE: 0x0001_0104,
  MAXIMUM_FRAME_SIZE: 0x0001_0106,
  LINK_SPEED: 0x0001_0107,
  TRANSMIT_BLOCK_SIZE: 0x0001_010a,
  RECEIVE_BLOCK_SIZE: 0x0001_010b,
  VENDOR_ID: 0x0001_010c,
  VENDOR_DESCRIPTION: 0x0001_010d,
  CURRENT_PACKET_FILTER: 0x0001_010e,
  MAXIMUM_TOTAL_SIZE: 0x0001_0111,
  MAC_OPTIONS: 0x0001_0113,
  MEDIA_CONNECT_STATUS: 0x0001_0114,
  VENDOR_DRIVER_VERSION: 0x0001_0116,
  PHYSICAL_MEDIUM: 0x0001_0202,
  XMIT_OK: 0x0002_0101,
  RCV_OK: 0x0002_0102,
  XMIT_ERROR: 0x0002_0103,
  RCV_ERROR: 0x0002_0104,
  RCV_NO_BUFFER: 0x0002_0105,
  PERMANENT_ADDRESS: 0x0101_0101,
  CURRENT_ADDRESS: 0x0101_0102,
  MULTICAST_LIST: 0x0101_0103,
  MAXIMUM_LIST_SIZE: 0x0101_0104,
  ADDRESS_OPTIONS: 0x0101_0105,
  RCV_ERROR_ALIGNMENT: 0x0102_0101,
  XMIT_ONE_COLLISION: 0x0102_0102,
  XMIT_MORE_COLLISIONS: 0x0102_0103,
} as const;

/** In the list of what is supported, in its order; MAC_OPTIONS is answered without being there. */
const SUPPORTED = [
  OID.SUPPORTED_LIST,
  OID.HARDWARE_STATUS,
  OID.MEDIA_SUPPORTED,
  OID.MEDIA_IN_USE,
  OID.MAXIMUM_FRAME_SIZE,
  OID.LINK_SPEED,
  OID.TRANSMIT_BLOCK_SIZE,
  OID.RECEIVE_BLOCK_SIZE,
  OID.VENDOR_ID,
  OID.VENDOR_DESCRIPTION,
  OID.VENDOR_DRIVER_VERSION,
  OID.CURRENT_PACKET_FILTER,
  OID.MAXIMUM_TOTAL_SIZE,
  OID.MEDIA_CONNECT_STATUS,
  OID.PHYSICAL_MEDIUM,
  OID.XMIT_OK,
  OID.RCV_OK,
  OID.XMIT_ERROR,
  OID.RCV_ERROR,
  OID.RCV_NO_BUFFER,
  OID.PERMANENT_ADDRESS,
  OID.CURRENT_ADDRESS,
  OID.MULTICAST_LIST,
  OID.ADDRESS_OPTIONS,
  OID.MAXIMUM_LIST_SIZE,
  OID.RCV_ERROR_ALIGNMENT,
  OID.XMIT_ONE_COLLISION,
  OID.XMIT_MORE_COLLISIONS,
] as const;

/** Receives are serialized; full duplex. */
const MAC_OPTIONS = (1 << 1) | (1 << 4);
/** Hundreds of bits a second. */
const LINK_SPEED = 1_000_000;

const words = (...values: readonly number[]): Buffer => {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, index) => bytes.writeUInt32LE(value >>> 0, 4 * index));
  return bytes;
};

/** What the messages are about, which the device saves. */
export interface RndisState {
  initialized: boolean;
  /** Kinds of frames that the host wants; with 0 it wants none. */
  filter: number;
}

/** What comes of a message: an answer, none, or `stall` where it makes no sense. `reset` forgets all other answers. */
export interface Outcome {
  readonly answer?: Buffer;
  readonly reset?: boolean;
}

/** Acts upon a message of the control pipe. */
export function control(message: Buffer, state: RndisState, mac: Uint8Array): Outcome | 'stall' {
  if (message.length < HEADER) return 'stall';
  const id = message.readUInt32LE(REQUEST_ID);
  const type = message.readUInt32LE(TYPE);
  switch (type) {
    case MESSAGE.INITIALIZE:
      state.initialized = true;
      state.filter = 0;
      // Version 1.0, connectionless, Ethernet, one packet a transfer.
      return { answer: completion(type, words(id, STATUS.SUCCESS, 1, 0, 1, 0, 1, MAX_TRANSFER, 0, 0, 0)) };
    case MESSAGE.HALT:
      state.initialized = false;
      return {};
    case MESSAGE.QUERY:
    case MESSAGE.SET: {
      const buffer = bufferOf(message);
      if (buffer === undefined) return 'stall';
      const oid = message.readUInt32LE(OID_AT);
      if (type === MESSAGE.QUERY) return { answer: queryComplete(id, query(oid, state, mac)) };
      const set = change(oid, buffer, state);
      if (set === undefined) return 'stall';
      return { answer: completion(type, words(id, set ? STATUS.SUCCESS : STATUS.NOT_SUPPORTED)) };
    }
    case MESSAGE.RESET:
      return { answer: completion(type, words(STATUS.SUCCESS, 1)), reset: true };
    case MESSAGE.KEEPALIVE:
      return { answer: completion(type, words(id, STATUS.SUCCESS)) };
    default:
      return 'stall';
  }
}

function completion(type: number, body: Buffer): Buffer {
  return Buffer.concat([words(type | COMPLETE, OFFSET_BASE + body.length), body]);
}

function queryComplete(id: number, value: Buffer): Buffer {
  const offset = value.length === 0 ? 0 : 16;
  return completion(MESSAGE.QUERY, Buffer.concat([words(id, STATUS.SUCCESS, value.length, offset), value]));
}

/** The value that comes with a request; undefined where it is not within the message. */
function bufferOf(message: Buffer): Buffer | undefined {
  if (message.length < REQUEST_SIZE) return undefined;
  const offset = message.readUInt32LE(BUFFER_OFFSET) + OFFSET_BASE;
  const length = message.readUInt32LE(BUFFER_LENGTH);
  if (offset >= message.length || offset + length > message.length) return undefined;
  return message.subarray(offset, offset + length);
}

/** False where there is no such object to be set, undefined where the value is too short. */
function change(oid: number, value: Buffer, state: RndisState): boolean | undefined {
  if (oid === OID.MULTICAST_LIST) return true;
  if (oid !== OID.CURRENT_PACKET_FILTER) return false;
  if (value.length < 4) return undefined;
  state.filter = value.readUInt32LE(0) & 0xffff;
  return true;
}

/** Nothing, and no failure, for what is not known. */
function query(oid: number, state: RndisState, mac: Uint8Array): Buffer {
  switch (oid) {
    case OID.SUPPORTED_LIST:
      return words(...SUPPORTED);
    case OID.MAXIMUM_FRAME_SIZE:
    case OID.TRANSMIT_BLOCK_SIZE:
    case OID.RECEIVE_BLOCK_SIZE:
      return words(MAX_FRAME);
    case OID.LINK_SPEED:
      return words(LINK_SPEED);
    case OID.VENDOR_ID:
      return words(0x1234);
    case OID.VENDOR_DESCRIPTION:
      return Buffer.from('QEMU USB RNDIS Net\0', 'latin1');
    case OID.VENDOR_DRIVER_VERSION:
    case OID.MAXIMUM_LIST_SIZE:
      return words(1);
    case OID.CURRENT_PACKET_FILTER:
      return words(state.filter);
    case OID.MAXIMUM_TOTAL_SIZE:
      return words(MAX_TOTAL);
    case OID.MAC_OPTIONS:
      return words(MAC_OPTIONS);
    case OID.PERMANENT_ADDRESS:
    case OID.CURRENT_ADDRESS:
      return Buffer.from(mac);
    case OID.MULTICAST_LIST:
      return words(0xe000_0000);
    case OID.ADDRESS_OPTIONS:
      return Buffer.alloc(0);
    // Ready, Ethernet, connected; nothing is counted.
    case OID.HARDWARE_STATUS:
    case OID.MEDIA_SUPPORTED:
    case OID.MEDIA_IN_USE:
    case OID.MEDIA_CONNECT_STATUS:
    case OID.PHYSICAL_MEDIUM:
    case OID.XMIT_OK:
    case OID.RCV_OK:
    case OID.XMIT_ERROR:
    case OID.RCV_ERROR:
    case OID.RCV_NO_BUFFER:
    case OID.RCV_ERROR_ALIGNMENT:
    case OID.XMIT_ONE_COLLISION:
    case OID.XMIT_MORE_COLLISIONS:
      return words(0);
    default:
      return Buffer.alloc(0);
  }
}

/** Puts the header of a frame of `length` bytes in front of it. */
export function packetHeader(target: DataView, length: number): void {
  for (let at = 0; at < PACKET_HEADER; at += 4) target.setUint32(at, 0, true);
  target.setUint32(TYPE, MESSAGE.PACKET, true);
  target.setUint32(LENGTH, PACKET_HEADER + length, true);
  target.setUint32(DATA_OFFSET, PACKET_HEADER - OFFSET_BASE, true);
  target.setUint32(DATA_LENGTH, length, true);
}

/** Bytes of the message that `bytes` begin with; 0 where that cannot be told yet, -1 where it can be none. */
export function messageLength(bytes: DataView, length: number): number {
  if (length < OFFSET_BASE) return 0;
  const size = bytes.getUint32(LENGTH, true);
  return size < OFFSET_BASE || size > bytes.byteLength ? -1 : size;
}

/** Where the frame is in a message of `size` bytes; -1 where it has none. */
export function frameOffset(bytes: DataView, size: number): number {
  if (size < PACKET_HEADER || bytes.getUint32(TYPE, true) !== MESSAGE.PACKET) return -1;
  const offset = bytes.getUint32(DATA_OFFSET, true) + OFFSET_BASE;
  const length = frameLength(bytes);
  return offset < size && length < size && offset + length <= size ? offset : -1;
}

export const frameLength = (bytes: DataView): number => bytes.getUint32(DATA_LENGTH, true);
