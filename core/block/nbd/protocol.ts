import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { errno, IoError } from '../io-error.ts';

/** Names and numbers as in https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md */
export const INIT_MAGIC = 0x4e42444d41474943n;
export const OPTION_MAGIC = 0x49484156454f5054n;
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;
export const REQUEST_MAGIC = 0x25609513;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef;

export const handshakeFlag = { FIXED_NEWSTYLE: 1, NO_ZEROES: 2 } as const;

export const option = {
  EXPORT_NAME: 1,
  ABORT: 2,
  LIST: 3,
  STARTTLS: 5,
  INFO: 6,
  GO: 7,
  STRUCTURED_REPLY: 8,
  LIST_META_CONTEXT: 9,
  SET_META_CONTEXT: 10,
} as const;

export const reply = {
  ACK: 1,
  SERVER: 2,
  INFO: 3,
  META_CONTEXT: 4,
  ERR_UNSUP: 0x80000001,
  ERR_POLICY: 0x80000002,
  ERR_INVALID: 0x80000003,
  ERR_TLS_REQD: 0x80000005,
  ERR_UNKNOWN: 0x80000006,
  ERR_TOO_BIG: 0x80000009,
} as const;

export const info = { EXPORT: 0, NAME: 1, DESCRIPTION: 2, BLOCK_SIZE: 3 } as const;

export const transmissionFlag = {
  HAS_FLAGS: 1,
  READ_ONLY: 2,
  SEND_FLUSH: 4,
  SEND_FUA: 8,
  SEND_TRIM: 32,
  SEND_WRITE_ZEROES: 64,
  SEND_DF: 128,
  CAN_MULTI_CONN: 256,
  SEND_CACHE: 1024,
  SEND_FAST_ZERO: 2048,
} as const;

export const command = {
  READ: 0,
  WRITE: 1,
  DISC: 2,
  FLUSH: 3,
  TRIM: 4,
  CACHE: 5,
  WRITE_ZEROES: 6,
  BLOCK_STATUS: 7,
} as const;

export const commandFlag = { FUA: 1, NO_HOLE: 2, DF: 4, REQ_ONE: 8, FAST_ZERO: 16 } as const;

export const chunk = {
  NONE: 0,
  OFFSET_DATA: 1,
  OFFSET_HOLE: 2,
  BLOCK_STATUS: 5,
  ERROR: 0x8001,
  ERROR_OFFSET: 0x8002,
} as const;

export const CHUNK_DONE = 1;

/** Flags of an extent in the context `base:allocation`. */
export const extent = { HOLE: 1, ZERO: 2 } as const;

/** The longest payload of a request, in bytes. */
export const MAX_PAYLOAD = 32 << 20;
export const MAX_NAME = 4096;

const ERRORS = new Set<number>([
  errno.EPERM,
  errno.EIO,
  errno.ENOMEM,
  errno.EINVAL,
  errno.ENOSPC,
  errno.EOVERFLOW,
  errno.EOPNOTSUPP,
  errno.ESHUTDOWN,
]);

/** The error number to send for one of ours: the protocol knows only a few. */
export function wireError(number: number): number {
  if (ERRORS.has(number)) return number;
  if (number === errno.EROFS) return errno.EPERM;
  if (number === errno.EFBIG || number === errno.EDQUOT) return errno.ENOSPC;
  return number === 0 ? 0 : errno.EINVAL;
}

/** Bytes of a name that a message shows. */
const MAX_SHOWN_NAME = 80;

/** A name for a message: a long one is cut. */
export function shortName(name: string): string {
  const bytes = Buffer.from(name, 'utf8');
  return bytes.length < MAX_SHOWN_NAME ? name : `${bytes.toString('utf8', 0, MAX_SHOWN_NAME)}...`;
}

/** Makes a connection a TLS session; fails where the other side is nobody who may be spoken to. */
export type Secure = (stream: Duplex) => Promise<Duplex>;

/** A socket as a stream of bytes to be read piece by piece. */
export class Wire {
  #stream: Duplex;
  #chunks: Buffer[] = [];
  #available = 0;
  #closed = false;
  #waiting: (() => void) | undefined;
  readonly #onData = (data: Buffer): void => {
    this.#chunks.push(data);
    this.#available += data.length;
    // What is not asked for yet stays with the sender.
    if (this.#available > MAX_PAYLOAD + 65536) this.#stream.pause();
    this.#waiting?.();
  };
  readonly #onEnd = (): void => {
    this.#closed = true;
    this.#waiting?.();
  };

  constructor(socket: Socket) {
    this.#stream = socket.setNoDelay(true);
    this.#listen();
  }

  /**
   * Goes on in a TLS session over the same connection.
   *
   * @throws IoError EPROTO where the other side has not waited for it: what came in the clear is nobody's
   */
  async secure(secure: Secure): Promise<void> {
    const plain = this.#stream;
    plain.off('data', this.#onData).off('end', this.#onEnd).off('close', this.#onEnd).pause();
    if (this.#closed || this.#available > 0) throw new IoError(this.#closed ? errno.ECONNRESET : errno.EPROTO);
    const session = await secure(plain);
    this.#stream = session;
    this.#listen();
    if (this.#closed) session.destroy();
  }

  #listen(): void {
    this.#stream.on('data', this.#onData).on('end', this.#onEnd).on('close', this.#onEnd).on('error', this.#onEnd);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * The next `bytes` bytes.
   *
   * @throws IoError ECONNRESET where the other side went away
   */
  async read(bytes: number): Promise<Buffer> {
    while (this.#available < bytes) {
      if (this.#closed) throw new IoError(errno.ECONNRESET);
      this.#stream.resume();
      await new Promise<void>(resolve => {
        this.#waiting = resolve;
      });
      this.#waiting = undefined;
    }
    const [first] = this.#chunks;
    if (first !== undefined && first.length >= bytes) {
      this.#available -= bytes;
      if (first.length === bytes) this.#chunks.shift();
      else this.#chunks[0] = first.subarray(bytes);
      return first.subarray(0, bytes);
    }
    const result = Buffer.allocUnsafe(bytes);
    for (let done = 0; done < bytes; ) {
      const next = this.#chunks[0];
      if (next === undefined) throw new IoError(errno.EIO);
      const size = Math.min(next.length, bytes - done);
      next.copy(result, done, 0, size);
      done += size;
      if (size === next.length) this.#chunks.shift();
      else this.#chunks[0] = next.subarray(size);
    }
    this.#available -= bytes;
    return result;
  }

  /** Reads and forgets. */
  async skip(bytes: number): Promise<void> {
    for (let left = bytes; left > 0; ) {
      const size = Math.min(left, 1 << 20);
      await this.read(size);
      left -= size;
    }
  }

  /** Sends all of it, in one piece as far as possible. */
  send(...parts: Uint8Array[]): void {
    if (this.#closed || this.#stream.destroyed) return;
    this.#stream.cork();
    for (const part of parts) if (part.length > 0) this.#stream.write(part);
    this.#stream.uncork();
  }

  /** Waits until what was sent is on its way. */
  async drained(): Promise<void> {
    if (this.#closed || !this.#stream.writableNeedDrain) return;
    const stream = this.#stream;
    await new Promise<void>(resolve => {
      const done = (): void => {
        stream.off('drain', done).off('close', done);
        resolve();
      };
      stream.on('drain', done).on('close', done);
    });
  }

  /** Sends what is left, and that there is no more. */
  end(): void {
    this.#stream.end();
  }

  destroy(): void {
    this.#closed = true;
    this.#stream.destroy();
    this.#waiting?.();
  }
}
