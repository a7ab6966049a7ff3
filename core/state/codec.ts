import { SouthbridgeError } from '../errors.ts';
import type { SavedValue } from './fields.ts';

/** Nothing that is saved nests deeper or holds more in one list. */
const MAX_DEPTH = 32;
const MAX_COUNT = 1 << 20;

const Tag = { NULL: 0, FALSE: 1, TRUE: 2, NUMBER: 3, BIGINT: 4, STRING: 5, BYTES: 6, LIST: 7, RECORD: 8 } as const;

const damaged = (what: string): SouthbridgeError =>
  new SouthbridgeError('ERR_STATE_FORMAT', `the saved state is damaged: ${what}`, 'make the snapshot again');

/** A value as bytes: a tag, then the contents, lengths as u32; numbers are doubles, bigints signed 64 bits or more in hexadecimal. */
export function encodeValue(value: SavedValue): Buffer {
  const pieces: Buffer[] = [];
  write(value, pieces);
  return Buffer.concat(pieces);
}

function head(tag: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(5);
  bytes[0] = tag;
  bytes.writeUInt32LE(length, 1);
  return bytes;
}

function write(value: SavedValue, pieces: Buffer[]): void {
  if (value === null) pieces.push(Buffer.of(Tag.NULL));
  else if (typeof value === 'boolean') pieces.push(Buffer.of(value ? Tag.TRUE : Tag.FALSE));
  else if (typeof value === 'number') {
    const bytes = Buffer.allocUnsafe(9);
    bytes[0] = Tag.NUMBER;
    bytes.writeDoubleLE(value, 1);
    pieces.push(bytes);
  } else if (typeof value === 'bigint') text(Tag.BIGINT, value.toString(16), pieces);
  else if (typeof value === 'string') text(Tag.STRING, value, pieces);
  else if (value instanceof Uint8Array) pieces.push(head(Tag.BYTES, value.length), Buffer.from(value));
  else if (Array.isArray(value)) {
    pieces.push(head(Tag.LIST, value.length));
    for (const item of value) write(item, pieces);
  } else {
    const entries = Object.entries(value);
    pieces.push(head(Tag.RECORD, entries.length));
    for (const [name, member] of entries) {
      text(Tag.STRING, name, pieces);
      write(member, pieces);
    }
  }
}

function text(tag: number, value: string, pieces: Buffer[]): void {
  const bytes = Buffer.from(value);
  pieces.push(head(tag, bytes.length), bytes);
}

/** @throws SouthbridgeError ERR_STATE_FORMAT where the bytes are not exactly one value */
export function decodeValue(bytes: Buffer): SavedValue {
  const reader = new Reader(bytes);
  const value = reader.value(0);
  if (!reader.done) throw damaged('something follows a value');
  return value;
}

class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.#at === this.#bytes.length;
  }

  value(depth: number): SavedValue {
    if (depth > MAX_DEPTH) throw damaged('it nests too deeply');
    const tag = this.#take(1)[0];
    switch (tag) {
      case Tag.NULL:
        return null;
      case Tag.FALSE:
        return false;
      case Tag.TRUE:
        return true;
      case Tag.NUMBER:
        return this.#take(8).readDoubleLE();
      case Tag.BIGINT:
        return this.#bigint();
      case Tag.STRING:
        return this.#take(this.#length()).toString();
      case Tag.BYTES:
        return Uint8Array.from(this.#take(this.#length()));
      case Tag.LIST:
        return Array.from({ length: this.#count() }, () => this.value(depth + 1));
      case Tag.RECORD: {
        const record: Record<string, SavedValue> = Object.create(null);
        for (let left = this.#count(); left > 0; left--) {
          const name = this.value(depth + 1);
          if (typeof name !== 'string' || name in record) throw damaged('a name of a record');
          record[name] = this.value(depth + 1);
        }
        return record;
      }
      default:
        throw damaged(`tag ${tag}`);
    }
  }

  #bigint(): bigint {
    const digits = this.#take(this.#length()).toString('latin1');
    const match = /^(-?)([0-9a-f]{1,64})$/.exec(digits);
    if (match === null) throw damaged('a number');
    const magnitude = BigInt(`0x${match[2]}`);
    return match[1] === '-' ? -magnitude : magnitude;
  }

  #count(): number {
    const count = this.#length();
    if (count > MAX_COUNT || count > this.#bytes.length - this.#at) throw damaged('a count');
    return count;
  }

  #length(): number {
    return this.#take(4).readUInt32LE();
  }

  #take(length: number): Buffer {
    if (length > this.#bytes.length - this.#at) throw damaged('it ends early');
    const piece = this.#bytes.subarray(this.#at, this.#at + length);
    this.#at += length;
    return piece;
  }
}
