import { crc32 } from 'node:zlib';
import { SouthbridgeError } from '../errors.ts';

const VERSION = 3;
const HEADER = 12;
const MAX_CHUNK = 64 * 2 ** 20;
/** What a stream begins with: which kind it is, then its version as u32. */
const PREAMBLE = 12;

/** The kinds of stream: a machine, and a further channel for its memory. */
export const STREAM = { machine: Buffer.from('SBRIDGE\0'), memory: Buffer.from('SBRMEM\0\0') } as const;

export const damaged = (what: string): SouthbridgeError =>
  new SouthbridgeError('ERR_STATE_FORMAT', `the machine's state ${what}`, 'make it again');

export function preamble(magic: Buffer): Buffer {
  return Buffer.concat([magic, Buffer.from(Uint32Array.of(VERSION).buffer)]);
}

/** One chunk: kind, length and CRC-32 of the contents as u32, then the contents. */
export function chunk(kind: number, contents: Buffer): Buffer {
  const header = Buffer.allocUnsafe(HEADER);
  header.writeUInt32LE(kind, 0);
  header.writeUInt32LE(contents.length, 4);
  header.writeUInt32LE(crc32(contents), 8);
  return Buffer.concat([header, contents]);
}

/** Takes a stream apart into its chunks. It is hostile input. */
export class ChunkReader {
  readonly #magic: Buffer | undefined;
  #started: boolean;
  #pending: Buffer = Buffer.alloc(0);

  /** @param magic what the stream begins with, one of {@link STREAM}; undefined in the middle of one */
  constructor(magic?: Buffer) {
    this.#magic = magic;
    this.#started = magic === undefined;
  }

  /**
   * Gives the chunks that `bytes` complete to `take`, which returns false where the rest has to wait: call again then, with no
   * bytes.
   *
   * @throws SouthbridgeError ERR_STATE_FORMAT, ERR_STATE_VERSION
   */
  feed(bytes: Buffer, take: (kind: number, contents: Buffer) => boolean): void {
    this.#pending = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
    let at = this.#started ? 0 : this.#begin();
    for (let more = this.#started; more && this.#pending.length - at >= HEADER; ) {
      const length = this.#pending.readUInt32LE(at + 4);
      if (length > MAX_CHUNK) throw damaged('is damaged: a piece is too long');
      if (this.#pending.length - at < HEADER + length) break;
      const contents = this.#pending.subarray(at + HEADER, at + HEADER + length);
      if (crc32(contents) !== this.#pending.readUInt32LE(at + 8)) throw damaged('was altered: a checksum is wrong');
      const kind = this.#pending.readUInt32LE(at);
      at += HEADER + length;
      more = take(kind, contents);
    }
    this.#pending = Buffer.from(this.#pending.subarray(at));
  }

  #begin(): number {
    const magic = this.#magic ?? Buffer.alloc(0);
    const known = Math.min(magic.length, this.#pending.length);
    if (!this.#pending.subarray(0, known).equals(magic.subarray(0, known)))
      throw damaged('is not a saved state of this program');
    if (this.#pending.length < PREAMBLE) return 0;
    const version = this.#pending.readUInt32LE(magic.length);
    if (version !== VERSION) {
      throw new SouthbridgeError(
        'ERR_STATE_VERSION',
        `the saved state is of version ${version}, this program reads version ${VERSION}`,
      );
    }
    this.#started = true;
    return PREAMBLE;
  }
}
