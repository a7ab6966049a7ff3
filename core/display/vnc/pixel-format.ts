import type { Surface } from '../screen.ts';
import type { ByteWriter } from './byte-writer.ts';

interface Component {
  readonly max: number;
  readonly shift: number;
}

/** A rectangle of pixels in a client's format, a word each, row by row. */
export interface PixelBlock {
  readonly width: number;
  readonly height: number;
  readonly pixels: Uint32Array;
}

const bitsOf = (max: number): number => 32 - Math.clz32(max);

/** How a client wants its pixels (RFC 6143, section 7.4). */
export class PixelFormat {
  /** Bytes a pixel: 1, 2 or 4. */
  readonly bytes: number;
  readonly bigEndian: boolean;
  readonly red: Component;
  readonly green: Component;
  readonly blue: Component;
  /** Whether a pixel is 0x00RRGGBB, least significant byte first, as surfaces have it. */
  readonly native: boolean;

  constructor(bytes: number, bigEndian: boolean, red: Component, green: Component, blue: Component) {
    this.bytes = bytes;
    this.bigEndian = bigEndian;
    this.red = red;
    this.green = green;
    this.blue = blue;
    this.native = bytes === 4 && !bigEndian && this.#eight && red.shift === 16 && green.shift === 8 && blue.shift === 0;
  }

  static default(): PixelFormat {
    return new PixelFormat(4, false, { max: 255, shift: 16 }, { max: 255, shift: 8 }, { max: 255, shift: 0 });
  }

  /** For clients that want a palette: one with three bits of red and green and two of blue. */
  static palette(): PixelFormat {
    return new PixelFormat(1, false, { max: 7, shift: 0 }, { max: 7, shift: 3 }, { max: 3, shift: 6 });
  }

  get #eight(): boolean {
    return this.red.max === 255 && this.green.max === 255 && this.blue.max === 255;
  }

  /** Whether Tight sends its pixels as three bytes: 32 bits with eight a component. */
  get packed24(): boolean {
    return this.bytes === 4 && this.#eight;
  }

  /** Bytes of the three that ZRLE sends of a pixel, and the first of them; undefined where it sends all. */
  get compact(): 'low' | 'high' | undefined {
    if (this.bytes !== 4) return undefined;
    const parts = [this.red, this.green, this.blue];
    if (parts.every(({ max, shift }) => shift + bitsOf(max) <= 24)) return 'low';
    return parts.every(({ shift }) => shift >= 8) ? 'high' : undefined;
  }

  /** A pixel of a surface in this format. */
  convert(pixel: number): number {
    const { red, green, blue } = this;
    const part = (value: number, { max, shift }: Component): number => ((value << bitsOf(max)) >> 8) << shift;
    return (part((pixel >>> 16) & 255, red) | part((pixel >>> 8) & 255, green) | part(pixel & 255, blue)) >>> 0;
  }

  /** A rectangle of `surface` in this format. */
  block(surface: Surface, x: number, y: number, width: number, height: number): PixelBlock {
    const pixels = new Uint32Array(width * height);
    for (let row = 0; row < height; row++) {
      const from = (y + row) * surface.width + x;
      const to = row * width;
      if (this.native) {
        pixels.set(surface.pixels.subarray(from, from + width), to);
        continue;
      }
      let last = -1;
      let converted = 0;
      for (let column = 0; column < width; column++) {
        const pixel = surface.pixels[from + column] ?? 0;
        if (pixel !== last) {
          last = pixel;
          converted = this.convert(pixel);
        }
        pixels[to + column] = converted;
      }
    }
    return { width, height, pixels };
  }

  /** Writes one pixel of this format. */
  write(out: ByteWriter, pixel: number): void {
    if (this.bytes === 1) out.u8(pixel);
    else if (this.bytes === 2) out.u16(this.bigEndian ? pixel : swap16(pixel));
    else out.u32(this.bigEndian ? pixel : swap32(pixel));
  }

  /** Writes pixels of this format. */
  writeAll(out: ByteWriter, pixels: Uint32Array): void {
    if (this.native) out.bytes(new Uint8Array(pixels.buffer, pixels.byteOffset, pixels.byteLength));
    else for (const pixel of pixels) this.write(out, pixel);
  }

  /** Writes a pixel as Tight does (its TPIXEL). */
  writeTight(out: ByteWriter, pixel: number): void {
    if (!this.packed24) this.write(out, pixel);
    else
      out
        .u8(pixel >>> this.red.shift)
        .u8(pixel >>> this.green.shift)
        .u8(pixel >>> this.blue.shift);
  }

  /** Writes a pixel as ZRLE does (RFC 6143, section 7.7.5: CPIXEL). */
  writeCompact(out: ByteWriter, pixel: number): void {
    const { compact } = this;
    if (compact === undefined) {
      this.write(out, pixel);
      return;
    }
    const three = compact === 'low' ? pixel : pixel >>> 8;
    if (this.bigEndian)
      out
        .u8(three >>> 16)
        .u8(three >>> 8)
        .u8(three);
    else
      out
        .u8(three)
        .u8(three >>> 8)
        .u8(three >>> 16);
  }

  /** Writes the format itself, of 16 bytes. */
  describe(out: ByteWriter): void {
    out
      .u8(this.bytes * 8)
      .u8(this.bytes === 4 ? 24 : this.bytes * 8)
      .u8(this.bigEndian ? 1 : 0)
      .u8(1);
    out.u16(this.red.max).u16(this.green.max).u16(this.blue.max);
    out.u8(this.red.shift).u8(this.green.shift).u8(this.blue.shift).zeros(3);
  }

  /** The 256 colours of a palette's entries, of 16 bits a component. */
  writeColourMap(out: ByteWriter): void {
    for (let index = 0; index < 256; index++) {
      for (const { max, shift } of [this.red, this.green, this.blue])
        out.u16(((index >> shift) & max) << (16 - bitsOf(max)));
    }
  }
}

const swap16 = (value: number): number => ((value & 0xff) << 8) | ((value >>> 8) & 0xff);
const swap32 = (value: number): number => ((swap16(value) << 16) | swap16(value >>> 16)) >>> 0;
