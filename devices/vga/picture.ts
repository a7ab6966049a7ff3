import { blankSurface, fitted, type Surface } from '../../core/display/screen.ts';
import type { VgaMode } from './mode.ts';
import { rowReader } from './pixels.ts';
import { CRTC, GFX, SEQ, type VgaState } from './state.ts';

const FONT_BANKS = [0, 0x4000, 0x8000, 0xc000, 0x2000, 0x6000, 0xa000, 0xe000] as const;
const BLANK = { width: 640, height: 480 } as const;
const MAX_WIDTH = 16_000;
const MAX_HEIGHT = 12_000;
/** How the graphics controller makes pixels of the planes (graphics mode register, bits 5 and 6). */
const SHIFT = { PLANES: 0, CGA: 1 } as const;

/** Draws what a VGA shows: text, planes, or packed pixels. A cursor in text does not blink: who watches is not kept awake. */
export class VgaPicture {
  readonly #s: VgaState;
  readonly #memory: DataView<ArrayBufferLike>;
  readonly #mode: VgaMode;
  /** The colours of the palette, and of the attribute controller's sixteen. */
  readonly #palette = new Uint32Array(256);
  readonly #sixteen = new Uint32Array(16);

  constructor(state: VgaState, memory: DataView<ArrayBufferLike>, mode: VgaMode) {
    this.#s = state;
    this.#memory = memory;
    this.#mode = mode;
  }

  draw(surface: Surface): Surface {
    if (this.#blank) return this.#drawBlank(surface);
    this.#readPalette();
    return this.#isText ? this.#drawText(surface) : this.#drawGraphics(surface);
  }

  /** The characters on the screen, where it shows text. */
  text(): string[] | undefined {
    if (this.#blank || !this.#isText) return undefined;
    const { columns, rows } = this.#textSize;
    return Array.from({ length: rows }, (_, row) => {
      let line = '';
      for (let column = 0; column < columns; column++) {
        const code = this.#byte(this.#cell(row, column));
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

  #byte(address: number): number {
    return address < this.#memory.byteLength ? this.#memory.getUint8(address) : 0;
  }

  #drawBlank(surface: Surface): Surface {
    const fits = surface.width > 1 ? surface : blankSurface(BLANK.width, BLANK.height);
    fits.pixels.fill(0);
    return fits;
  }

  /** What the palette and the attribute controller make of a pixel. */
  #readPalette(): void {
    const { palette, attribute, dacMask } = this.#s;
    const wide = this.#mode.wideDac;
    for (let index = 0; index < 256; index++) {
      const entry = (index & dacMask) * 3;
      this.#palette[index] =
        (component(palette[entry] ?? 0, wide) << 16) |
        (component(palette[entry + 1] ?? 0, wide) << 8) |
        component(palette[entry + 2] ?? 0, wide);
    }
    const select = attribute[0x14] ?? 0;
    const wholeSelect = ((attribute[0x10] ?? 0) & 0x80) !== 0;
    for (let index = 0; index < 16; index++) {
      const mapped = attribute[index] ?? 0;
      const colour = wholeSelect ? ((select & 0x0f) << 4) | (mapped & 0x0f) : ((select & 0x0c) << 4) | (mapped & 0x3f);
      this.#sixteen[index] = this.#palette[colour] ?? 0;
    }
  }

  get #textSize(): { columns: number; rows: number; cellWidth: number; cellHeight: number } {
    const cellHeight = (this.#crtc(CRTC.MAX_SCAN) & 0x1f) + 1;
    const clocking = this.#s.sequencer[SEQ.CLOCKING] ?? 0;
    const cellWidth = (clocking & 8) !== 0 ? 16 : (clocking & 1) !== 0 ? 8 : 9;
    const double = (this.#crtc(CRTC.MAX_SCAN) & 0x80) !== 0 ? 2 : 1;
    return {
      columns: this.#crtc(CRTC.H_DISPLAY_END) + 1,
      rows: Math.max(1, Math.floor(this.#mode.height / double / cellHeight)),
      cellWidth,
      cellHeight,
    };
  }

  /** Where the character of a cell is: in plane 0 of the odd/even memory. */
  #cell(row: number, column: number): number {
    return this.#mode.start + row * this.#mode.pitch + column * 4;
  }

  #drawText(surface: Surface): Surface {
    const { columns, rows, cellWidth, cellHeight } = this.#textSize;
    const fit = fitted(surface, columns * cellWidth, rows * cellHeight);
    const fonts = this.#s.sequencer[SEQ.FONT] ?? 0;
    const fontA = FONT_BANKS[((fonts >> 5) & 1) * 4 + ((fonts >> 2) & 3)] ?? 0;
    const fontB = FONT_BANKS[((fonts >> 4) & 1) * 4 + (fonts & 3)] ?? 0;
    const lineGraphics = cellWidth === 9 && ((this.#s.attribute[0x10] ?? 0) & 4) !== 0;
    const double = cellWidth === 16 ? 1 : 0;
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const at = this.#cell(row, column);
        const code = this.#byte(at);
        const attribute = this.#byte(at + 1);
        const glyph = (((attribute & 8) !== 0 ? fontA : fontB) + code * 32) * 4 + 2;
        const foreground = this.#sixteen[attribute & 15] ?? 0;
        const background = this.#sixteen[attribute >> 4] ?? 0;
        const ninth = lineGraphics && code >= 0xc0 && code <= 0xdf;
        for (let y = 0; y < cellHeight; y++) {
          const line = this.#byte(glyph + y * 4);
          const start = (row * cellHeight + y) * fit.width + column * cellWidth;
          for (let x = 0; x < cellWidth; x++) {
            const lit =
              cellWidth === 9 && x === 8 ? ninth && (line & 1) !== 0 : ((line >> (7 - (x >> double))) & 1) !== 0;
            fit.pixels[start + x] = lit ? foreground : background;
          }
        }
      }
    }
    this.#drawTextCursor(fit, columns, rows, cellWidth, cellHeight);
    return fit;
  }

  #drawTextCursor(fit: Surface, columns: number, rows: number, cellWidth: number, cellHeight: number): void {
    const start = this.#crtc(CRTC.CURSOR_START);
    if ((start & 0x20) !== 0) return;
    const address = ((this.#crtc(CRTC.CURSOR_HIGH) << 8) | this.#crtc(CRTC.CURSOR_LOW)) * 4 - this.#mode.start;
    const row = Math.floor(address / Math.max(1, this.#mode.pitch));
    const column = (address - row * this.#mode.pitch) / 4;
    if (address < 0 || row >= rows || column >= columns) return;
    const colour = this.#sixteen[this.#byte(this.#cell(row, column) + 1) & 15] ?? 0;
    const last = Math.min(this.#crtc(CRTC.CURSOR_END) & 0x1f, cellHeight - 1);
    for (let y = start & 0x1f; y <= last; y++) {
      const at = (row * cellHeight + y) * fit.width + column * cellWidth;
      fit.pixels.fill(colour, at, at + cellWidth);
    }
  }

  /**
   * Row by row, as the CRTC counts: rows shown several times, the addressing of a CGA's and a Hercules' memory, and the row at
   * which the picture starts again (FreeVGA, "CRTC registers").
   */
  #drawGraphics(surface: Surface): Surface {
    const { bpp, pitch, start, lineCompare } = this.#mode;
    const shift = ((this.#s.graphics[GFX.MODE] ?? 0) >> 5) & 3;
    const half = ((this.#s.sequencer[SEQ.CLOCKING] ?? 0) & 8) !== 0;
    const packed = bpp !== 0 && bpp !== 4;
    const width = Math.min(MAX_WIDTH, this.#mode.width * (half && !packed && shift < 2 ? 2 : 1));
    const height = Math.min(MAX_HEIGHT, this.#mode.height);
    const fit = fitted(surface, width, height);
    const mode = this.#crtc(CRTC.MODE);
    const scan = this.#crtc(CRTC.MAX_SCAN);
    const doubled = scan >> 7;
    const repeats = packed ? 0 : shift === SHIFT.CGA ? doubled : (((scan & 0x1f) + 1) << doubled) - 1;
    const countMask = (mode & 3) ^ 3;
    let line = start;
    let count = 0;
    let left = repeats;
    for (let y = 0; y < height; y++) {
      let at = line;
      if (!packed) {
        if ((mode & 1) === 0) {
          const bit = 14 + ((mode >> 6) & 1);
          at = (at & ~(1 << bit)) | ((count & 1) << bit);
        }
        if ((mode & 2) === 0) at = (at & ~0x8000) | ((count & 2) << 14);
      }
      this.#drawRow(fit, y, at, shift, half);
      if (left === 0) {
        if (packed || (count & countMask) === countMask) line += pitch;
        count++;
        left = repeats;
      } else {
        left--;
      }
      if (y === lineCompare) line = 0;
    }
    return fit;
  }

  #drawRow(fit: Surface, y: number, line: number, shift: number, half: boolean): void {
    const { bpp } = this.#mode;
    const at = y * fit.width;
    const reader = rowReader(bpp);
    if (reader !== undefined) {
      const bytes = (bpp + 7) >> 3;
      const seen = Math.max(0, Math.min(fit.width, Math.floor((this.#memory.byteLength - line) / bytes)));
      reader(this.#memory, line, fit.pixels, at, seen);
      fit.pixels.fill(0, at + seen, at + fit.width);
    } else if (bpp === 8) {
      for (let x = 0; x < fit.width; x++) fit.pixels[at + x] = this.#palette[this.#byte(line + x)] ?? 0;
    } else if (bpp === 0 && shift > SHIFT.CGA) {
      // 256 colours, each pixel for two columns.
      for (let x = 0; x < fit.width; x++) fit.pixels[at + x] = this.#palette[this.#byte(line + (x >> 1))] ?? 0;
    } else {
      const mask = (this.#s.attribute[0x12] ?? 0x0f) & 15;
      for (let x = 0; x < fit.width; x++) {
        const pixel = half ? x >> 1 : x;
        const value = shift === SHIFT.CGA ? this.#cgaPixel(line, pixel) : this.#planarPixel(line, pixel);
        fit.pixels[at + x] = this.#sixteen[value & mask] ?? 0;
      }
    }
  }

  /** Two bits of planes 0 and 2, then of planes 1 and 3. */
  #cgaPixel(line: number, x: number): number {
    const at = line + (x >> 3) * 4 + ((x >> 2) & 1);
    const bit = 6 - 2 * (x & 3);
    return ((this.#byte(at) >> bit) & 3) | (((this.#byte(at + 2) >> bit) & 3) << 2);
  }

  /** A bit of each plane. */
  #planarPixel(line: number, x: number): number {
    const at = line + (x >> 3) * 4;
    const bit = 7 - (x & 7);
    let pixel = 0;
    for (let plane = 0; plane < 4; plane++) pixel |= ((this.#byte(at + plane) >> bit) & 1) << plane;
    return pixel;
  }
}

/** A component of the palette with eight bits: of six, the lowest is repeated. */
function component(value: number, wide: boolean): number {
  if (wide) return value;
  return ((value & 0x3f) << 2) | ((value & 1) * 3);
}
