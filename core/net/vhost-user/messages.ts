/** The vhost-user protocol (QEMU's docs/interop/vhost-user.rst), as its front end speaks it. Fields are little-endian. */
import type { FdExchange } from '../../char/chardev.ts';
import type { SharedRange } from '../../memory/shared-memory.ts';

export const REQUEST = {
  GET_FEATURES: 1,
  SET_FEATURES: 2,
  SET_OWNER: 3,
  SET_MEM_TABLE: 5,
  SET_LOG_BASE: 6,
  SET_VRING_NUM: 8,
  SET_VRING_ADDR: 9,
  SET_VRING_BASE: 10,
  GET_VRING_BASE: 11,
  SET_VRING_KICK: 12,
  SET_VRING_CALL: 13,
  GET_PROTOCOL_FEATURES: 15,
  SET_PROTOCOL_FEATURES: 16,
  GET_QUEUE_NUM: 17,
  SET_VRING_ENABLE: 18,
  SEND_RARP: 19,
  NET_SET_MTU: 20,
} as const;

/** Bit of the features that says that there are protocol features. */
export const F_PROTOCOL_FEATURES = 1n << 30n;
/** Bit of the features that has the back end log where it writes. */
export const F_LOG_ALL = 1n << 26n;
export const PROTOCOL_F = { MQ: 1n << 0n, LOG_SHMFD: 1n << 1n, RARP: 1n << 2n, NET_MTU: 1n << 4n } as const;

const HEADER = 12;
const VERSION = 1;
const VERSION_MASK = 3;
const REPLY = 4;
export const REGIONS_MAX = 8;
const REGION = 32;
/** Of a ring's address: that its used part is logged too. */
const RING_LOGGED = 1;
const PAYLOAD_MAX = 8 + REGIONS_MAX * REGION;
/**
 * What we call our own addresses of guest memory: rings are named by them, and the back end finds them in the memory table. It need
 * not be where the memory is; only 0 must not be anything.
 */
const USER_BASE = 0x4000_0000_0000n;

/** Says and asks. What fails, fails because the other side has gone: the connection is closed then. */
export class VhostUserMessages {
  readonly #exchange: FdExchange;
  readonly #bytes = Buffer.alloc(HEADER + PAYLOAD_MAX);

  constructor(exchange: FdExchange) {
    this.#exchange = exchange;
  }

  plain(request: number): boolean {
    return this.#send(request, 0);
  }

  setNumber(request: number, value: bigint, fds: readonly number[] = []): boolean {
    this.#bytes.writeBigUInt64LE(value, HEADER);
    return this.#send(request, 8, fds);
  }

  /** struct vhost_vring_state. */
  setRing(request: number, index: number, value: number): boolean {
    this.#bytes.writeUInt32LE(index, HEADER);
    this.#bytes.writeUInt32LE(value >>> 0, HEADER + 4);
    return this.#send(request, 8);
  }

  /** struct vhost_vring_addr. */
  setRingAddresses(
    index: number,
    ring: { readonly desc: number; readonly used: number; readonly avail: number },
    logged: boolean,
  ): boolean {
    this.#bytes.fill(0, HEADER, HEADER + 40);
    this.#bytes.writeUInt32LE(index, HEADER);
    if (logged) {
      this.#bytes.writeUInt32LE(RING_LOGGED, HEADER + 4);
      this.#bytes.writeBigUInt64LE(BigInt(ring.used), HEADER + 32);
    }
    for (const [place, address] of [ring.desc, ring.used, ring.avail].entries()) {
      this.#bytes.writeBigUInt64LE(USER_BASE + BigInt(address), HEADER + 8 + place * 8);
    }
    return this.#send(REQUEST.SET_VRING_ADDR, 40);
  }

  setMemory(ranges: readonly SharedRange[]): boolean {
    this.#bytes.writeUInt32LE(ranges.length, HEADER);
    this.#bytes.writeUInt32LE(0, HEADER + 4);
    for (const [index, { address, size, offset }] of ranges.entries()) {
      const at = HEADER + 8 + index * REGION;
      this.#bytes.writeBigUInt64LE(BigInt(address), at);
      this.#bytes.writeBigUInt64LE(BigInt(size), at + 8);
      this.#bytes.writeBigUInt64LE(USER_BASE + BigInt(address), at + 16);
      this.#bytes.writeBigUInt64LE(BigInt(offset), at + 24);
    }
    const fds = ranges.map(({ fd }) => fd);
    return this.#send(REQUEST.SET_MEM_TABLE, 8 + ranges.length * REGION, fds);
  }

  /** The log: a file of `size` bytes, a bit for each page of 4 KiB of guest memory. True when the back end has it. */
  setLog(fd: number, size: number): boolean {
    this.#bytes.writeBigUInt64LE(BigInt(size), HEADER);
    this.#bytes.writeBigUInt64LE(0n, HEADER + 8);
    // Some answer with a number, and some with nothing.
    return this.#send(REQUEST.SET_LOG_BASE, 16, [fd]) && this.#receive(REQUEST.SET_LOG_BASE, 8, 0);
  }

  /** An answer of 64 bits; undefined where none comes, or another one. */
  getNumber(request: number): bigint | undefined {
    return this.#send(request, 0) && this.#receive(request, 8) ? this.#bytes.readBigUInt64LE(HEADER) : undefined;
  }

  /** GET_VRING_BASE, which also stops the ring. */
  getRingBase(index: number): number | undefined {
    const asked = this.setRing(REQUEST.GET_VRING_BASE, index, 0) && this.#receive(REQUEST.GET_VRING_BASE, 8);
    return asked ? this.#bytes.readUInt32LE(HEADER + 4) : undefined;
  }

  #send(request: number, size: number, fds: readonly number[] = []): boolean {
    this.#bytes.writeUInt32LE(request, 0);
    this.#bytes.writeUInt32LE(VERSION, 4);
    this.#bytes.writeUInt32LE(size, 8);
    return this.#exchange.sendNow(this.#bytes.subarray(0, HEADER + size), fds);
  }

  #receive(request: number, ...sizes: readonly number[]): boolean {
    if (!this.#exchange.readNow(this.#bytes.subarray(0, HEADER))) return false;
    const flags = this.#bytes.readUInt32LE(4);
    const size = this.#bytes.readUInt32LE(8);
    const fits =
      this.#bytes.readUInt32LE(0) === request &&
      (flags & (VERSION_MASK | REPLY)) === (VERSION | REPLY) &&
      sizes.includes(size);
    return fits && this.#exchange.readNow(this.#bytes.subarray(HEADER, HEADER + size));
  }
}
