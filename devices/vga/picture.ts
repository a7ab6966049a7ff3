import type { Picture } from '../../core/display/screen.ts';
import { CRTC, GFX, SEQ, VBE, VBE_ENABLE, type VgaState } from './state.ts';
import type { BochsDisplay } from './vbe.ts';

const FONT_BANKS = [0, 0x4000, 0x8000, 0xc000, 0x2000, 0x6000, 0xa000, 0xe000] as const;
const MAX_PIXELS = 16_000 * 12_000;

/** Draws what a VGA shows: text, planes, packed pixels, or a mode of the Bochs interface. */
export class VgaPicture {
  readonly #s: VgaState;
  readonly #bytes: Uint8Array;
  readonly #vbe: BochsDisplay;

  constructor(state: VgaState, bytes: Uint8Array, vbe: BochsDisplay) {
    this.#s = state;
    this.#bytes = bytes;
    this.#vbe = vbe;
  }

  draw(): Picture {
    if (this.#vbe.enabled) return this.#drawBochs();
    if (this.#blank) return { width: 640, height: 480, rgb: new Uint8Array(640 * 480 * 3) };
    return this.#isText ? this.#drawText() : this.#drawGraphics();
  }

  /** The characters on the screen, where it shows text. */
  text(): string[] | undefined {
    if (this.#vbe.enabled || this.#blank || !this.#isText) return undefined;
    const { columns, rows } = this.#textSize;
    return Array.from({ length: rows }, (_, row) => {
      let line = '';
      for (let column = 0; column < columns; column++) {
        const code = this.#bytes[this.#cell(row, column)] ?? 0;
        line += code < 0x20 || code > 0x7e ? ' ' : String.fromCharCode(code);
      }
      return line.trimEnd();
    });
  }

  get #isText(): boolean {
    return ((this.#s.graphics[GFX.MISC] ?? 0) & 1) === 0;
  }

  /** The attribute controller shows nothing until software lets it have the palette. */
  get #blank(): boolean {
    return (this.#s.attributeIndex & 0x20) === 0;
  }

  #crtc(index: number): number {
    return this.#s.crtc[index] ?? 0;
  }

  get #height(): number {
    const overflow = this.#crtc(CRTC.OVERFLOW);
    return (this.#crtc(CRTC.V_DISPLAY_END) | ((overflow & 0x02) << 7) | ((overflow & 0x40) << 3)) + 1;
  }

  get #start(): number {
    return (this.#crtc(CRTC.START_HIGH) << 8) | this.#crtc(CRTC.START_LOW);
  }

  /** Colour of a palette entry, by way of the mask; 6 bits a component unless the Bochs interface says 8. */
  #colour(index: number, rgb: Uint8Array, at: number): void {
    const entry = (index & this.#s.dacMask) * 3;
    const wide = ((this.#s.vbe[VBE.ENABLE] ?? 0) & VBE_ENABLE.DAC_8BIT) !== 0;
    for (let part = 0; part < 3; part++) {
      const value = this.#s.palette[entry + part] ?? 0;
      rgb[at + part] = wide ? value : ((value & 0x3f) << 2) | ((value & 0x3f) >> 4);
    }
  }

  /** The palette index that the attribute controller makes of four bits. */
  #attributed(pixel: number): number {
    const { attribute } = this.#s;
    const mapped = attribute[pixel & 15] ?? 0;
    const select = attribute[0x14] ?? 0;
    return ((attribute[0x10] ?? 0) & 0x80) !== 0
      ? ((select & 0x0f) << 4) | (mapped & 0x0f)
      : ((select & 0x0c) << 4) | (mapped & 0x3f);
  }

  get #textSize(): { columns: number; rows: number; cellWidth: number; cellHeight: number } {
    const cellHeight = (this.#crtc(CRTC.MAX_SCAN) & 0x1f) + 1;
    const cellWidth = ((this.#s.sequencer[SEQ.CLOCKING] ?? 0) & 1) !== 0 ? 8 : 9;
    const double = (this.#crtc(CRTC.MAX_SCAN) & 0x80) !== 0 ? 2 : 1;
    return {
      columns: this.#crtc(CRTC.H_DISPLAY_END) + 1,
      rows: Math.max(1, Math.floor(this.#height / double / cellHeight)),
      cellWidth,
      cellHeight,
    };
  }

  /** Where the character of a cell is: in plane 0 of the odd/even memory. */
  #cell(row: number, column: number): number {
    const pitch = this.#crtc(CRTC.OFFSET) * 2;
    return (((this.#start + row * pitch + column) * 4) & 0x3_ffff) >>> 0;
  }

  #drawText(): Picture {
    const { columns, rows, cellWidth, cellHeight } = this.#textSize;
    const width = columns * cellWidth;
    const height = rows * cellHeight;
    const rgb = new Uint8Array(width * height * 3);
    const fonts = this.#s.sequencer[SEQ.FONT] ?? 0;
    const fontA = FONT_BANKS[((fonts >> 5) & 1) * 4 + ((fonts >> 2) & 3)] ?? 0;
    const fontB = FONT_BANKS[((fonts >> 4) & 1) * 4 + (fonts & 3)] ?? 0;
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const at = this.#cell(row, column);
        const code = this.#bytes[at] ?? 0;
        const attribute = this.#bytes[at + 1] ?? 0;
        const font = (attribute & 8) !== 0 ? fontA : fontB;
        const glyph = (font + code * 32) * 4 + 2;
        const wide = cellWidth === 9 && ((this.#s.attribute[0x10] ?? 0) & 4) !== 0 && code >= 0xc0 && code <= 0xdf;
        for (let y = 0; y < cellHeight; y++) {
          const line = this.#bytes[glyph + y * 4] ?? 0;
          for (let x = 0; x < cellWidth; x++) {
            const lit = x < 8 ? (line >> (7 - x)) & 1 : wide ? line & 1 : 0;
            this.#colour(
              this.#attributed(lit ? attribute & 15 : attribute >> 4),
              rgb,
              ((row * cellHeight + y) * width + column * cellWidth + x) * 3,
            );
          }
        }
      }
    }
    return { width, height, rgb };
  }

  #drawGraphics(): Picture {
    const shift = ((this.#s.graphics[GFX.MODE] ?? 0) >> 5) & 3;
    const packed = shift >= 2;
    const scan = this.#crtc(CRTC.MAX_SCAN);
    const double =
      (scan & 0x80) !== 0 || packed
        ? Math.max(1, ((scan & 0x80) !== 0 ? 2 : 1) * ((scan & 0x1f) + 1))
        : (scan & 0x1f) + 1;
    const width = (this.#crtc(CRTC.H_DISPLAY_END) + 1) * (packed ? 4 : 8);
    const height = Math.max(1, Math.floor(this.#height / double));
    const rgb = new Uint8Array(Math.min(MAX_PIXELS, width * height) * 3);
    const pitch = this.#crtc(CRTC.OFFSET) * 8;
    for (let y = 0; y < height; y++) {
      const line = this.#start * 4 + y * pitch;
      for (let x = 0; x < width; x++)
        this.#colour(
          packed ? (this.#bytes[(line + x) & 0x3_ffff] ?? 0) : this.#attributed(this.#planarPixel(line, x, shift)),
          rgb,
          (y * width + x) * 3,
        );
    }
    return { width, height, rgb };
  }

  #planarPixel(line: number, x: number, shift: number): number {
    if (shift === 1) {
      // Two bits a pixel, from planes 0 and 1 in turn: the CGA's way.
      const byte = this.#bytes[(line + (x >> 3) * 4 + ((x >> 2) & 1)) & 0x3_ffff] ?? 0;
      return (byte >> (6 - 2 * (x & 3))) & 3;
    }
    const at = (line + (x >> 3) * 4) & 0x3_ffff;
    let pixel = 0;
    for (let plane = 0; plane < 4; plane++) pixel |= (((this.#bytes[at + plane] ?? 0) >> (7 - (x & 7))) & 1) << plane;
    return pixel & (this.#s.attribute[0x12] ?? 0x0f);
  }

  #drawBochs(): Picture {
    const width = this.#s.vbe[VBE.XRES] ?? 8;
    const height = this.#s.vbe[VBE.YRES] ?? 1;
    const bpp = this.#s.vbe[VBE.BPP] ?? 8;
    const rgb = new Uint8Array(width * height * 3);
    const { pitch, start } = this.#vbe;
    for (let y = 0; y < height; y++) {
      const line = start + y * pitch;
      for (let x = 0; x < width; x++) this.#bochsPixel(line, x, bpp, rgb, (y * width + x) * 3);
    }
    return { width, height, rgb };
  }

  #bochsPixel(line: number, x: number, bpp: number, rgb: Uint8Array, at: number): void {
    const bytes = this.#bytes;
    if (bpp === 4) {
      this.#colour(this.#attributed(this.#planarPixel(line * 4, x, 0)), rgb, at);
    } else if (bpp === 8) {
      this.#colour(bytes[line + x] ?? 0, rgb, at);
    } else if (bpp <= 16) {
      const pixel = (bytes[line + 2 * x] ?? 0) | ((bytes[line + 2 * x + 1] ?? 0) << 8);
      const green = bpp === 15 ? (pixel >> 5) & 0x1f : (pixel >> 5) & 0x3f;
      rgb[at] = widen((pixel >> (bpp === 15 ? 10 : 11)) & 0x1f, 5);
      rgb[at + 1] = widen(green, bpp === 15 ? 5 : 6);
      rgb[at + 2] = widen(pixel & 0x1f, 5);
    } else {
      const source = line + x * (bpp === 24 ? 3 : 4);
      rgb[at] = bytes[source + 2] ?? 0;
      rgb[at + 1] = bytes[source + 1] ?? 0;
      rgb[at + 2] = bytes[source] ?? 0;
    }
  }
}

/** A component of `bits` bits as one of eight. */
function widen(value: number, bits: number): number {
  return (value << (8 - bits)) | (value >> (2 * bits - 8));
}
