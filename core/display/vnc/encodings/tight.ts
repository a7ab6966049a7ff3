import { ByteWriter } from '../byte-writer.ts';
import { DeflateStream } from '../deflate-stream.ts';
import type { PixelBlock, PixelFormat } from '../pixel-format.ts';
import { ENCODING } from '../protocol.ts';
import type { RectangleEncoder } from './encoder.ts';
import { paletteOf } from './palette.ts';

/** Compression control: fill, or basic with a stream's number in bits 4 and 5 and a filter that is named. */
const FILL = 0x80;
const EXPLICIT_FILTER = 0x40;
const FILTER_PALETTE = 1;
const STREAM = { FULL_COLOUR: 0, TWO_COLOURS: 1, INDEXED: 2 } as const;
/** Less than this is sent as it is. */
const MIN_TO_COMPRESS = 12;
const MAX_COLOURS = 256;

/** Fill, palettes and full colour in zlib streams of their own ("RFB protocol", Tight encoding), without JPEG. */
export class TightEncoder implements RectangleEncoder {
  readonly encoding = ENCODING.TIGHT;
  readonly maxWidth = 2048;
  readonly maxPixels = 1 << 16;
  readonly #streams = [new DeflateStream(), new DeflateStream(), new DeflateStream()] as const;
  readonly #plain = new ByteWriter();

  encode(out: ByteWriter, block: PixelBlock, format: PixelFormat, level: number): void {
    const limit = format.bytes === 1 ? 2 : Math.min(MAX_COLOURS, Math.max(2, block.pixels.length >> 3));
    const palette = paletteOf(block.pixels, limit);
    this.#plain.clear();
    if (palette === undefined) {
      for (const pixel of block.pixels) format.writeTight(this.#plain, pixel);
      out.u8(STREAM.FULL_COLOUR << 4);
      this.#data(out, STREAM.FULL_COLOUR, level);
    } else if (palette.size === 1) {
      out.u8(FILL);
      format.writeTight(out, block.pixels[0] ?? 0);
    } else {
      const stream = palette.size === 2 ? STREAM.TWO_COLOURS : STREAM.INDEXED;
      out
        .u8(EXPLICIT_FILTER | (stream << 4))
        .u8(FILTER_PALETTE)
        .u8(palette.size - 1);
      for (const colour of palette.keys()) format.writeTight(out, colour);
      if (palette.size === 2) this.#writeBits(block, palette);
      else for (const pixel of block.pixels) this.#plain.u8(palette.get(pixel) ?? 0);
      this.#data(out, stream, level);
    }
  }

  /** A bit a pixel, the first the highest, each row from a new byte. */
  #writeBits(block: PixelBlock, palette: ReadonlyMap<number, number>): void {
    for (let y = 0; y < block.height; y++) {
      for (let x = 0; x < block.width; x += 8) {
        let byte = 0;
        for (let bit = 0; bit < 8 && x + bit < block.width; bit++)
          byte |= (palette.get(block.pixels[y * block.width + x + bit] ?? 0) ?? 0) << (7 - bit);
        this.#plain.u8(byte);
      }
    }
  }

  #data(out: ByteWriter, stream: 0 | 1 | 2, level: number): void {
    if (this.#plain.length < MIN_TO_COMPRESS) {
      out.bytes(this.#plain.written);
      return;
    }
    const compressed = this.#streams[stream].compress(this.#plain.written, level);
    writeCompactLength(out, compressed.length);
    out.bytes(compressed);
  }
}

/** Seven bits, seven bits, eight bits, as many as are needed. */
function writeCompactLength(out: ByteWriter, length: number): void {
  if (length < 0x80) out.u8(length);
  else if (length < 0x4000) out.u8((length & 0x7f) | 0x80).u8(length >> 7);
  else
    out
      .u8((length & 0x7f) | 0x80)
      .u8(((length >> 7) & 0x7f) | 0x80)
      .u8(length >> 14);
}
