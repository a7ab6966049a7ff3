import { copyFrame, get32 } from './ethernet.ts';

/** The largest frame that QEMU's streams carry. */
export const LARGEST_FRAME = 68 * 1024;
export const LENGTH_SIZE = 4;

/** A frame as it goes over a byte stream: its length before it, four bytes, the highest first. The result is the caller's. */
export function encodeFrame(frame: Uint8Array, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(LENGTH_SIZE + length);
  putFrame(bytes, 0, frame, length);
  return bytes;
}

/** As {@link encodeFrame}, into `bytes` from `at`. Returns where it ends. */
export function putFrame(bytes: Buffer, at: number, frame: Uint8Array, length: number): number {
  bytes.writeUInt32BE(length, at);
  copyFrame(frame, 0, bytes, at + LENGTH_SIZE, length);
  return at + LENGTH_SIZE + length;
}

const EMPTY: Uint8Array = new Uint8Array(0);

/** Finds the frames in a byte stream; only one that is cut between two pieces is copied. */
export class FrameDecoder {
  readonly #frame: (frame: Uint8Array, length: number) => boolean;
  /** Not a Buffer: views of those cost three times as much. */
  #bytes = EMPTY;
  #at = 0;
  #held = false;
  #busy = false;

  /**
   * @param frame told of each frame, which is only valid during the call. Where it returns false no more come until
   * {@link goOn}; what is pushed meanwhile waits.
   */
  constructor(frame: (frame: Uint8Array, length: number) => boolean) {
    this.#frame = frame;
  }

  /** Takes the next piece. Returns false where it announces a frame that nobody sends: the stream is to be closed. */
  push(piece: Buffer): boolean {
    const left = this.#bytes.length - this.#at;
    const bytes = left === 0 ? piece : Buffer.concat([this.#bytes.subarray(this.#at), piece]);
    this.#bytes = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#at = 0;
    return this.#held || this.#busy || this.#decode();
  }

  /** More frames are wanted again. Returns as {@link push}. */
  goOn(): boolean {
    this.#held = false;
    return this.#busy || this.#decode();
  }

  reset(): void {
    this.#bytes = EMPTY;
    this.#at = 0;
    this.#held = false;
  }

  #decode(): boolean {
    this.#busy = true;
    while (!this.#held && this.#bytes.length - this.#at >= LENGTH_SIZE) {
      const bytes = this.#bytes;
      const start = this.#at + LENGTH_SIZE;
      const length = get32(bytes, this.#at);
      if (length > LARGEST_FRAME) {
        this.#busy = false;
        this.reset();
        return false;
      }
      if (bytes.length - start < length) break;
      this.#at = start + length;
      if (length > 0 && this.#frame(bytes.subarray(start, start + length), length) === false) this.#held = true;
    }
    this.#busy = false;
    return true;
  }
}
