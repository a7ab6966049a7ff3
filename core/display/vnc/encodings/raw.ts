import { ByteWriter } from '../byte-writer.ts';
import { DeflateStream } from '../deflate-stream.ts';
import type { PixelBlock, PixelFormat } from '../pixel-format.ts';
import { ENCODING } from '../protocol.ts';
import type { RectangleEncoder } from './encoder.ts';

/** Pixels as they are (RFC 6143, section 7.7.1). */
export class RawEncoder implements RectangleEncoder {
  readonly encoding = ENCODING.RAW;
  readonly maxWidth = Number.POSITIVE_INFINITY;
  readonly maxPixels = Number.POSITIVE_INFINITY;

  encode(out: ByteWriter, block: PixelBlock, format: PixelFormat): void {
    format.writeAll(out, block.pixels);
  }
}

/** Pixels as they are in one zlib stream. */
export class ZlibEncoder implements RectangleEncoder {
  readonly encoding = ENCODING.ZLIB;
  readonly maxWidth = Number.POSITIVE_INFINITY;
  readonly maxPixels = 1 << 20;
  readonly #stream = new DeflateStream();
  readonly #plain = new ByteWriter();

  encode(out: ByteWriter, block: PixelBlock, format: PixelFormat, level: number): void {
    this.#plain.clear();
    format.writeAll(this.#plain, block.pixels);
    const compressed = this.#stream.compress(this.#plain.written, level);
    out.u32(compressed.length).bytes(compressed);
  }
}
