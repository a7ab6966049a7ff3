const SPACE = 0x20;
const LF = 0x0a;

/**
 * The words of one request line, parsed where they lie: no strings are made for what is a number. Words are separated by
 * single spaces.
 */
export class Words {
  #bytes: Buffer = Buffer.alloc(0);
  #at = 0;
  #end = 0;
  /** Upper 32 bits of the number last read. */
  high = 0;
  /** Lower 32 bits of it. */
  low = 0;
  /** False once a number was expected and none was there. */
  valid = true;

  /** Starts on the line in `bytes` from `start` to `end`. */
  start(bytes: Buffer, start: number, end: number): void {
    this.#bytes = bytes;
    this.#at = start;
    this.#end = end;
    this.valid = true;
  }

  get done(): boolean {
    return this.#at >= this.#end;
  }

  /** The next word as text; empty where there is none. */
  text(): string {
    const start = this.#at;
    const end = this.#wordEnd();
    return this.#bytes.toString('latin1', start, end);
  }

  /** The next word where it lies: for long hexadecimal data. */
  raw(): Buffer {
    const start = this.#at;
    return this.#bytes.subarray(start, this.#wordEnd());
  }

  /** The next word as `strtoull(word, 0)`: its value as a number, and exactly in `high` and `low`. */
  number(): number {
    const bytes = this.#bytes;
    let at = this.#at;
    const end = this.#wordEnd();
    const negative = bytes[at] === 0x2d;
    if (negative || bytes[at] === 0x2b) at++;
    let radix = 10;
    if (bytes[at] === 0x30 && end - at > 1) {
      radix = ((bytes[at + 1] ?? 0) | 0x20) === 0x78 ? 16 : 8;
      at += radix === 16 ? 2 : 1;
    }
    if (at >= end) this.valid = false;
    let high = 0;
    let low = 0;
    for (; at < end; at++) {
      const digit = digitOf(bytes[at] ?? 0);
      if (digit >= radix) {
        this.valid = false;
        break;
      }
      low = low * radix + digit;
      high = high * radix + Math.floor(low / 0x1_0000_0000);
      low %= 0x1_0000_0000;
      if (high > 0xffff_ffff) {
        this.valid = false;
        break;
      }
    }
    if (negative) {
      low = -low >>> 0;
      high = (~high + (low === 0 ? 1 : 0)) >>> 0;
    }
    this.high = high >>> 0;
    this.low = low >>> 0;
    return this.high * 0x1_0000_0000 + this.low;
  }

  #wordEnd(): number {
    const bytes = this.#bytes;
    let at = this.#at;
    while (at < this.#end && bytes[at] !== SPACE && bytes[at] !== LF) at++;
    this.#at = at + 1;
    return at;
  }
}

function digitOf(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30;
  const letter = byte | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : 99;
}
