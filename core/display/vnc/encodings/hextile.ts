import type { ByteWriter } from '../byte-writer.ts';
import type { PixelBlock, PixelFormat } from '../pixel-format.ts';
import { ENCODING } from '../protocol.ts';
import type { RectangleEncoder } from './encoder.ts';

const TILE = 16;
const RAW = 1;
const BACKGROUND = 2;
const FOREGROUND = 4;
const ANY_SUBRECTS = 8;
const COLOURED = 16;
const MAX_SUBRECTS = 255;

/** Tiles of 16 by 16, each a background with rectangles on it (RFC 6143, section 7.7.4). */
export class HextileEncoder implements RectangleEncoder {
  readonly encoding = ENCODING.HEXTILE;
  readonly maxWidth = Number.POSITIVE_INFINITY;
  readonly maxPixels = Number.POSITIVE_INFINITY;
  /** What the client has from the tile before, in this rectangle. */
  #background = -1;
  #foreground = -1;

  encode(out: ByteWriter, block: PixelBlock, format: PixelFormat): void {
    this.#background = -1;
    this.#foreground = -1;
    for (let y = 0; y < block.height; y += TILE) {
      for (let x = 0; x < block.width; x += TILE) this.#tile(out, block, format, x, y);
    }
  }

  #tile(out: ByteWriter, block: PixelBlock, format: PixelFormat, x0: number, y0: number): void {
    const width = Math.min(TILE, block.width - x0);
    const height = Math.min(TILE, block.height - y0);
    const at = (x: number, y: number): number => block.pixels[(y0 + y) * block.width + x0 + x] ?? 0;
    const { background, foreground, more } = this.#colours(width, height, at);
    const rectangles = background === foreground ? [] : findRectangles(width, height, background, at);
    const each = 2 + (more ? format.bytes : 0);
    if (rectangles.length > MAX_SUBRECTS || rectangles.length * each >= width * height * format.bytes) {
      out.u8(RAW);
      for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) format.write(out, at(x, y));
      this.#background = -1;
      this.#foreground = -1;
      return;
    }
    let flags = 0;
    if (background !== this.#background) flags |= BACKGROUND;
    if (rectangles.length > 0) flags |= ANY_SUBRECTS | (more ? COLOURED : 0);
    if (rectangles.length > 0 && !more && foreground !== this.#foreground) flags |= FOREGROUND;
    out.u8(flags);
    if ((flags & BACKGROUND) !== 0) format.write(out, background);
    if ((flags & FOREGROUND) !== 0) format.write(out, foreground);
    this.#background = background;
    if (more) this.#foreground = -1;
    else if (rectangles.length > 0) this.#foreground = foreground;
    if (rectangles.length === 0) return;
    out.u8(rectangles.length);
    for (const { x, y, width: w, height: h, colour } of rectangles) {
      if (more) format.write(out, colour);
      out.u8((x << 4) | y).u8(((w - 1) << 4) | (h - 1));
    }
  }

  /** The most frequent of a tile's first two colours is the background; `more` says that there are others. */
  #colours(
    width: number,
    height: number,
    at: (x: number, y: number) => number,
  ): { background: number; foreground: number; more: boolean } {
    const first = at(0, 0);
    let second = first;
    let firsts = 0;
    let seconds = 0;
    let more = false;
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const pixel = at(x, y);
        if (pixel === first) firsts++;
        else if (seconds === 0 || pixel === second) {
          second = pixel;
          seconds++;
        } else more = true;
      }
    }
    return firsts >= seconds
      ? { background: first, foreground: second, more }
      : { background: second, foreground: first, more };
  }
}

interface Rectangle {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  readonly colour: number;
}

/** What differs from the background, as rectangles of one colour each, as wide and then as high as they get. */
function findRectangles(
  width: number,
  height: number,
  background: number,
  at: (x: number, y: number) => number,
): Rectangle[] {
  const done = new Uint8Array(width * height);
  const found: Rectangle[] = [];
  const free = (x: number, y: number, colour: number): boolean => done[y * width + x] === 0 && at(x, y) === colour;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const colour = at(x, y);
      if (colour === background || done[y * width + x] !== 0) continue;
      let w = 1;
      while (x + w < width && free(x + w, y, colour)) w++;
      let h = 1;
      while (y + h < height && Array.from({ length: w }, (_, i) => i).every(i => free(x + i, y + h, colour))) h++;
      for (let row = 0; row < h; row++) done.fill(1, (y + row) * width + x, (y + row) * width + x + w);
      found.push({ x, y, width: w, height: h, colour });
      if (found.length > MAX_SUBRECTS) return found;
    }
  }
  return found;
}
