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

/** Bytes of the stream that are held at once, of which several frames are. */
const CAPACITY = 0x4_0000;

/** Finds the frames in a byte stream. */
export class FrameDecoder {
  readonly #frame: (frame: Uint8Array, length: number) => boolean;
  /** Not a Buffer: views of those cost three times as much. */
  #bytes: Uint8Array = new Uint8Array(0);
  /** What of them has not been looked at yet. */
  #at = 0;
  #end = 0;
  #held = false;
  #busy = false;

  /**
   * @param frame told of each frame, which is only valid during the call. Where it returns false no more come until
   * {@link goOn}; what is pushed meanwhile waits.
   */
  constructor(frame: (frame: Uint8Array, length: number) => boolean) {
    this.#frame = frame;
  }

  /** Where the next bytes of the stream may be put, for {@link filled}: room for one frame at least. */
  space(): Uint8Array {
    this.#makeRoom(LENGTH_SIZE + LARGEST_FRAME);
    return this.#bytes.subarray(this.#end);
  }

  /** `count` bytes are in the space. Returns false where they announce a frame that nobody sends: the stream is to be closed. */
  filled(count: number): boolean {
    this.#end += count;
    return this.#held || this.#busy || this.#decode();
  }

  /** Takes the next piece. Returns as {@link filled}. */
  push(piece: Uint8Array): boolean {
    this.#makeRoom(piece.length);
    this.#bytes.set(piece, this.#end);
    return this.filled(piece.length);
  }

  /** More frames are wanted again. Returns as {@link filled}. */
  goOn(): boolean {
    this.#held = false;
    return this.#busy || this.#decode();
  }

  reset(): void {
    this.#at = 0;
    this.#end = 0;
    this.#held = false;
  }

  /** A frame that is being told of stays where it is. */
  #makeRoom(count: number): void {
    if (this.#end + count <= this.#bytes.length) return;
    const left = this.#bytes.subarray(this.#at, this.#end);
    if (this.#busy || left.length + count > this.#bytes.length) {
      this.#bytes = new Uint8Array(Math.max(CAPACITY, left.length + count));
    }
    this.#bytes.set(left);
    this.#at = 0;
    this.#end = left.length;
  }

  #decode(): boolean {
    this.#busy = true;
    while (!this.#held && this.#end - this.#at >= LENGTH_SIZE) {
      const bytes = this.#bytes;
      const start = this.#at + LENGTH_SIZE;
      const length = get32(bytes, this.#at);
      if (length > LARGEST_FRAME) {
        this.#busy = false;
        this.reset();
        return false;
      }
      if (this.#end - start < length) break;
      this.#at = start + length;
      if (length > 0 && this.#frame(bytes.subarray(start, start + length), length) === false) this.#held = true;
    }
    this.#busy = false;
    if (this.#at === this.#end) {
      this.#at = 0;
      this.#end = 0;
    }
    return true;
  }
}
