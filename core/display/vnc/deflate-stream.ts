import { constants, deflateRawSync } from 'node:zlib';

/** Header of a zlib stream (RFC 1950): deflate with a window of 32 KiB. */
const HEADER = Uint8Array.of(0x78, 0x01);

/**
 * One zlib stream that goes on from rectangle to rectangle, as encodings with compression need. Each piece ends on a byte and
 * refers to nothing before it, so the stream keeps no window between rectangles and costs no memory while nothing is sent.
 */
export class DeflateStream {
  #started = false;

  compress(bytes: Uint8Array, level: number): Uint8Array {
    const piece = deflateRawSync(bytes, { level, finishFlush: constants.Z_SYNC_FLUSH });
    if (this.#started) return piece;
    this.#started = true;
    return Buffer.concat([HEADER, piece]);
  }
}
