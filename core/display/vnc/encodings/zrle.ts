import { ByteWriter } from '../byte-writer.ts';
import { DeflateStream } from '../deflate-stream.ts';
import type { PixelBlock, PixelFormat } from '../pixel-format.ts';
import { ENCODING } from '../protocol.ts';
import type { RectangleEncoder } from './encoder.ts';
import { paletteOf } from './palette.ts';

const TILE = 64;
const RAW = 0;
const SOLID = 1;
const PLAIN_RLE = 128;
const PALETTE_RLE = 128;
const MAX_PACKED = 16;
const MAX_PALETTE = 127;

/** Tiles of 64 by 64 with palettes and runs, all in one zlib stream (RFC 6143, section 7.7.6). */
export class ZrleEncoder implements RectangleEncoder {
  readonly encoding = ENCODING.ZRLE;
  readonly maxWidth = Number.POSITIVE_INFINITY;
  readonly maxPixels = 1 << 20;
  readonly #stream = new DeflateStream();
  readonly #plain = new ByteWriter();

  encode(out: ByteWriter, block: PixelBlock, format: PixelFormat, level: number): void {
    this.#plain.clear();
    for (let y = 0; y < block.height; y += TILE) {
      for (let x = 0; x < block.width; x += TILE) this.#tile(cut(block, x, y), format);
    }
    const compressed = this.#stream.compress(this.#plain.written, level);
    out.u32(compressed.length).bytes(compressed);
  }

  /** Whichever of the forms is the shortest. */
  #tile(tile: PixelBlock, format: PixelFormat): void {
    const out = this.#plain;
    const { pixels } = tile;
    const palette = paletteOf(pixels, MAX_PALETTE);
    const pixelBytes = format.compact === undefined ? format.bytes : 3;
    const { runs, singles, bytes: lengthBytes } = countRuns(pixels);
    const raw = pixels.length * pixelBytes;
    const plainRle = runs * pixelBytes + lengthBytes;
    if (palette === undefined) {
      if (plainRle < raw) this.#plainRle(pixels, format);
      else {
        out.u8(RAW);
        for (const pixel of pixels) format.writeCompact(out, pixel);
      }
      return;
    }
    if (palette.size === 1) {
      out.u8(SOLID);
      format.writeCompact(out, pixels[0] ?? 0);
      return;
    }
    const table = palette.size * pixelBytes;
    const paletteRle = table + runs + lengthBytes - singles;
    const bits = palette.size === 2 ? 1 : palette.size <= 4 ? 2 : 4;
    const packed =
      palette.size > MAX_PACKED ? Number.POSITIVE_INFINITY : table + Math.ceil((tile.width * bits) / 8) * tile.height;
    const least = Math.min(raw, plainRle, paletteRle, packed);
    if (least === packed) this.#packed(tile, palette, bits, format);
    else if (least === paletteRle) this.#paletteRle(pixels, palette, format);
    else if (least === plainRle) this.#plainRle(pixels, format);
    else {
      out.u8(RAW);
      for (const pixel of pixels) format.writeCompact(out, pixel);
    }
  }

  #packed(tile: PixelBlock, palette: ReadonlyMap<number, number>, bits: number, format: PixelFormat): void {
    const out = this.#plain;
    out.u8(palette.size);
    for (const colour of palette.keys()) format.writeCompact(out, colour);
    for (let y = 0; y < tile.height; y++) {
      let byte = 0;
      let filled = 0;
      for (let x = 0; x < tile.width; x++) {
        byte = (byte << bits) | (palette.get(tile.pixels[y * tile.width + x] ?? 0) ?? 0);
        filled += bits;
        if (filled === 8) {
          out.u8(byte);
          byte = 0;
          filled = 0;
        }
      }
      if (filled > 0) out.u8(byte << (8 - filled));
    }
  }

  #paletteRle(pixels: Uint32Array, palette: ReadonlyMap<number, number>, format: PixelFormat): void {
    const out = this.#plain;
    out.u8(PALETTE_RLE | palette.size);
    for (const colour of palette.keys()) format.writeCompact(out, colour);
    eachRun(pixels, (pixel, length) => {
      const index = palette.get(pixel) ?? 0;
      if (length === 1) out.u8(index);
      else {
        out.u8(index | 0x80);
        writeRunLength(out, length);
      }
    });
  }

  #plainRle(pixels: Uint32Array, format: PixelFormat): void {
    const out = this.#plain;
    out.u8(PLAIN_RLE);
    eachRun(pixels, (pixel, length) => {
      format.writeCompact(out, pixel);
      writeRunLength(out, length);
    });
  }
}

function cut(block: PixelBlock, x: number, y: number): PixelBlock {
  const width = Math.min(TILE, block.width - x);
  const height = Math.min(TILE, block.height - y);
  const pixels = new Uint32Array(width * height);
  for (let row = 0; row < height; row++) {
    const from = (y + row) * block.width + x;
    pixels.set(block.pixels.subarray(from, from + width), row * width);
  }
  return { width, height, pixels };
}

function eachRun(pixels: Uint32Array, run: (pixel: number, length: number) => void): void {
  for (let start = 0; start < pixels.length; ) {
    const pixel = pixels[start] ?? 0;
    let end = start + 1;
    while (end < pixels.length && pixels[end] === pixel) end++;
    run(pixel, end - start);
    start = end;
  }
}

function countRuns(pixels: Uint32Array): { runs: number; singles: number; bytes: number } {
  const count = { runs: 0, singles: 0, bytes: 0 };
  eachRun(pixels, (_, length) => {
    count.runs++;
    if (length === 1) count.singles++;
    count.bytes += Math.floor((length - 1) / 255) + 1;
  });
  return count;
}

/** One less than the length, as a sum of bytes of which all but the last are 255. */
function writeRunLength(out: ByteWriter, length: number): void {
  let left = length - 1;
  for (; left >= 255; left -= 255) out.u8(255);
  out.u8(left);
}
