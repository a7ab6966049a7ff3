/** The largest frame that QEMU's streams carry. */
export const LARGEST_FRAME = 68 * 1024;
const LENGTH_SIZE = 4;

/** A frame as it goes over a byte stream: its length before it, four bytes, the highest first. The result is the caller's. */
export function encodeFrame(frame: Uint8Array, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(LENGTH_SIZE + length);
  bytes.writeUInt32BE(length, 0);
  bytes.set(frame.subarray(0, length), LENGTH_SIZE);
  return bytes;
}

/** Finds the frames in a byte stream; only one that is cut between two pieces is copied. */
export class FrameDecoder {
  readonly #frame: (frame: Uint8Array, length: number) => void;
  #pending: Buffer = Buffer.alloc(0);

  /** @param frame told of each frame, which is only valid during the call */
  constructor(frame: (frame: Uint8Array, length: number) => void) {
    this.#frame = frame;
  }

  /** Takes the next piece. Returns false where it announces a frame that nobody sends: the stream is to be closed. */
  push(piece: Buffer): boolean {
    let bytes = this.#pending.length === 0 ? piece : Buffer.concat([this.#pending, piece]);
    while (bytes.length >= LENGTH_SIZE) {
      const length = bytes.readUInt32BE(0);
      if (length > LARGEST_FRAME) {
        this.reset();
        return false;
      }
      if (bytes.length < LENGTH_SIZE + length) break;
      if (length > 0) this.#frame(bytes.subarray(LENGTH_SIZE, LENGTH_SIZE + length), length);
      bytes = bytes.subarray(LENGTH_SIZE + length);
    }
    this.#pending = bytes.length === 0 ? bytes : Buffer.from(bytes);
    return true;
  }

  reset(): void {
    this.#pending = Buffer.alloc(0);
  }
}
