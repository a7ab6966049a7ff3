import type { IoVector } from '../../core/block/io-vector.ts';
import { COUNT_SIZE, HEADER_SIZE, T } from './protocol.ts';

/** What of a request is looked at: all but the data of a write, which stays in the guest's memory. */
const REQUEST_MAX = 0x1_0000;
const REPLY_MAX = 0x1_0000;

/** A request as it was when it came: copied once, read from front to back. Whatever is missing makes it malformed. */
export class Request {
  readonly #bytes = Buffer.alloc(REQUEST_MAX);
  readonly #view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset);
  #length = 0;
  at = 0;
  malformed = false;

  load(message: IoVector): void {
    this.#length = Math.min(message.length, REQUEST_MAX);
    message.gather(0, this.#bytes, 0, this.#length);
    this.at = HEADER_SIZE;
    this.malformed = this.#length < HEADER_SIZE;
  }

  get type(): number {
    return this.#view.getUint8(4);
  }

  get tag(): number {
    return this.#view.getUint16(5, true);
  }

  u8(): number {
    return this.#has(1) ? this.#view.getUint8(this.at++) : 0;
  }

  u16(): number {
    if (!this.#has(2)) return 0;
    this.at += 2;
    return this.#view.getUint16(this.at - 2, true);
  }

  u32(): number {
    if (!this.#has(4)) return 0;
    this.at += 4;
    return this.#view.getUint32(this.at - 4, true);
  }

  /** An offset or a size. What no number can hold becomes one that no file has. */
  u64(): number {
    const low = this.u32();
    return this.u32() * 2 ** 32 + low;
  }

  /** A string: bytes, one character each. */
  text(): string {
    const length = this.u16();
    if (!this.#has(length)) return '';
    this.at += length;
    return this.#bytes.toString('latin1', this.at - length, this.at);
  }

  #has(size: number): boolean {
    if (this.at + size <= this.#length) return true;
    this.malformed = true;
    return false;
  }
}

/** An answer, written from front to back behind room for its header. */
export class Reply {
  readonly #bytes = Buffer.alloc(REPLY_MAX);
  readonly #view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset);
  length = HEADER_SIZE;
  /** Bytes that have been put into the guest's memory already, behind what is here. */
  data = 0;

  begin(): void {
    this.length = HEADER_SIZE;
    this.data = 0;
  }

  u8(value: number): this {
    this.#view.setUint8(this.length, value);
    this.length += 1;
    return this;
  }

  u16(value: number): this {
    this.#view.setUint16(this.length, value, true);
    this.length += 2;
    return this;
  }

  u32(value: number): this {
    this.#view.setUint32(this.length, value, true);
    this.length += 4;
    return this;
  }

  u64(value: number): this {
    return this.u32(value % 2 ** 32).u32(value / 2 ** 32);
  }

  text(value: string): this {
    this.u16(value.length);
    this.length += this.#bytes.write(value, this.length, 'latin1');
    return this;
  }

  /** Bytes that still fit, into an answer of at most `limit`. */
  room(limit: number): number {
    return Math.min(limit, REPLY_MAX) - this.length;
  }

  /** Puts the number of bytes since `at` where the count before them belongs. */
  count(at: number): void {
    this.#view.setUint32(at - COUNT_SIZE, this.length - at, true);
  }

  /** The answer to `request`: Rlerror where `error` is one. Returns how long it is in the guest's buffer. */
  finish(request: Request, error: number, into: IoVector): number {
    if (error !== 0) {
      this.begin();
      this.u32(error);
    }
    const size = this.length + this.data;
    this.#view.setUint32(0, size, true);
    this.#view.setUint8(4, (error !== 0 ? T.LERROR : request.type) + 1);
    this.#view.setUint16(5, request.tag, true);
    if (size > into.length) return 0;
    into.scatter(0, this.#bytes, 0, this.length);
    return size;
  }
}
