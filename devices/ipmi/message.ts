/** Messages of the Intelligent Platform Management Interface (IPMI 2.0 revision 1.1). */

/** The longest message: what QEMU's interfaces take. */
export const MAX_MESSAGE = 300;

/** Network function codes of requests (table 5-1); a response has the next higher one. */
export const NETFN = { CHASSIS: 0x00, SENSOR_EVENT: 0x04, APP: 0x06, STORAGE: 0x0a } as const;

/** Completion codes (table 5-2). */
export const COMPLETION = {
  OK: 0x00,
  INVALID_COMMAND: 0xc1,
  INVALID_FOR_LUN: 0xc2,
  TIMEOUT: 0xc3,
  OUT_OF_SPACE: 0xc4,
  INVALID_RESERVATION: 0xc5,
  DATA_TRUNCATED: 0xc6,
  DATA_LENGTH_INVALID: 0xc7,
  PARAMETER_OUT_OF_RANGE: 0xc9,
  CANNOT_RETURN_BYTES: 0xca,
  NOT_PRESENT: 0xcb,
  INVALID_DATA_FIELD: 0xcc,
  INITIALIZING: 0xd2,
  NOT_SUPPORTED: 0xd5,
} as const;

/** Bytes in front of a request's data: network function with LUN, command. */
export const REQUEST_HEADER = 2;
/** The bit that makes a response's network function of a request's. */
export const RESPONSE_BIT = 1 << 2;

/** A request as a command sees it. Bytes behind its end read as 0. */
export class Request {
  /** Network function and LUN, as sent. */
  readonly target: number;
  readonly command: number;
  readonly data: Uint8Array;

  constructor(message: Uint8Array) {
    this.target = message[0] ?? 0;
    this.command = message[1] ?? 0;
    this.data = message.subarray(REQUEST_HEADER);
  }

  u8(at: number): number {
    return this.data[at] ?? 0;
  }

  u16(at: number): number {
    return this.u8(at) | (this.u8(at + 1) << 8);
  }

  u32(at: number): number {
    return (this.u16(at) | (this.u16(at + 2) << 16)) >>> 0;
  }
}

/** A response under construction. */
export class Response {
  readonly #bytes = new Uint8Array(MAX_MESSAGE);
  #length = 3;

  constructor(target: number, command: number) {
    this.#bytes[0] = target | RESPONSE_BIT;
    this.#bytes[1] = command;
  }

  /** Bytes that can still be added. */
  get room(): number {
    return MAX_MESSAGE - this.#length;
  }

  u8(...values: readonly number[]): this {
    return this.add(values);
  }

  u16(value: number): this {
    return this.u8(value, value >>> 8);
  }

  u24(value: number): this {
    return this.u8(value, value >>> 8, value >>> 16);
  }

  u32(value: number): this {
    return this.u16(value).u16(value >>> 16);
  }

  add(bytes: ArrayLike<number>): this {
    if (bytes.length > this.room) return this;
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
    return this;
  }

  /** The whole message. One that says that something went wrong says nothing else. */
  finish(completion: number): Uint8Array {
    this.#bytes[2] = completion;
    return this.#bytes.subarray(0, completion === COMPLETION.OK ? this.#length : 3);
  }
}

/** What makes the sum of `bytes` and itself 0 (section 5.6, and IPMB 1.0 section 2.3). */
export function checksum(bytes: Uint8Array): number {
  return -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff;
}
