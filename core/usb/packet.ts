import type { UsbEndpoint } from './endpoint.ts';

/** Token packet identifiers (USB 2.0, table 8-1). */
export const PID = { OUT: 0xe1, IN: 0x69, SETUP: 0x2d } as const;
export type Pid = (typeof PID)[keyof typeof PID];

export function isPid(value: number): value is Pid {
  return value === PID.OUT || value === PID.IN || value === PID.SETUP;
}

/**
 * How a packet went. `async`: the device finishes it later; `nak`: try again; `removed`: given back undone, because a packet
 * before it on the endpoint failed.
 */
export type PacketStatus = 'success' | 'async' | 'nak' | 'stall' | 'babble' | 'io-error' | 'no-device' | 'removed';

/** Who is told that an `async` packet is finished: the host controller that it is from. */
export interface PacketOwner {
  packetDone(packet: UsbPacket): void;
}

const INITIAL_SIZE = 64;
const LOOP_BYTES = 64;
/** What a controller may ask for at once; longer transfers are more than one packet. */
export const MAX_PACKET_BYTES = 16 * 2 ** 20;

/** One transaction, or one stage of a transfer, with its data. Controllers keep and reuse them. */
export class UsbPacket {
  readonly owner: PacketOwner;
  pid: Pid = PID.IN;
  endpoint: UsbEndpoint | undefined;
  stream = 0;
  status: PacketStatus = 'success';
  /** The bytes going out, or room for those coming in; only the first {@link size} count. */
  data = new Uint8Array(INITIAL_SIZE);
  size = 0;
  /** Bytes that the device has taken or given. */
  transferred = 0;
  /** A shorter answer stops the endpoint's queue. */
  shortNotOk = false;
  /** A whole control transfer in one packet, as xHCI makes them: {@link setup} is its request. */
  whole = false;
  readonly setup = new Uint8Array(8);
  /** In the hands of the device or in its endpoint's queue. */
  inFlight = false;
  /** The device has seen it; false while it waits behind others. */
  started = false;

  constructor(owner: PacketOwner) {
    this.owner = owner;
  }

  /** Makes the packet ready for a transaction with room for `size` bytes, whose contents are then the caller's to fill. */
  prepare(pid: Pid, endpoint: UsbEndpoint, size: number): void {
    this.pid = pid;
    this.endpoint = endpoint;
    this.stream = 0;
    this.status = 'success';
    this.size = Math.min(size, MAX_PACKET_BYTES);
    this.transferred = 0;
    this.shortNotOk = false;
    this.whole = false;
    if (this.data.length < this.size) this.data = new Uint8Array(2 ** Math.ceil(Math.log2(this.size)));
  }

  /** Room, or bytes, that are left. */
  get left(): number {
    return this.size - this.transferred;
  }

  /** The device's answer: as many of `length` bytes of `source` from `at` as there is room for. Returns how many. */
  put(source: Uint8Array, at: number, length: number): number {
    const count = Math.min(length, this.left);
    copy(source, at, this.data, this.transferred, count);
    this.transferred += count;
    return count;
  }

  /** The next bytes of what the host sent, at most `length`, to `target` from `at`. Returns how many. */
  take(target: Uint8Array, at: number, length: number): number {
    const count = Math.min(length, this.left);
    copy(this.data, this.transferred, target, at, count);
    this.transferred += count;
    return count;
  }

  /** Answers zeros for what is left. Returns how many. */
  pad(): number {
    const count = this.left;
    this.data.fill(0, this.transferred, this.size);
    this.transferred = this.size;
    return count;
  }
}

/** Short copies are cheaper byte by byte than by way of a view. */
function copy(source: Uint8Array, from: number, target: Uint8Array, to: number, count: number): void {
  if (count > LOOP_BYTES) target.set(source.subarray(from, from + count), to);
  else for (let index = 0; index < count; index++) target[to + index] = source[from + index] ?? 0;
}
