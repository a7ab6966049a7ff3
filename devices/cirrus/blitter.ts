import { BLT_BUFFER, type BltState, type CirrusState, GR } from './registers.ts';

const MODE = {
  BACKWARDS: 0x01,
  TO_SYSTEM: 0x02,
  FROM_SYSTEM: 0x04,
  TRANSPARENT: 0x08,
  WIDTH: 0x30,
  PATTERN: 0x40,
  EXPAND: 0x80,
} as const;
const EXTENSION = { DWORDS: 0x01, INVERT: 0x02, SOLID: 0x04 } as const;
const STATUS = { BUSY: 0x01, START: 0x02, RESET: 0x04, FIFO: 0x10, AUTOSTART: 0x80 } as const;

type Rop = (dest: number, source: number) => number;

/** Raster operations by their codes (section 9.33). A code of none leaves the destination as it is. */
const ROPS: ReadonlyMap<number, Rop> = new Map<number, Rop>([
  [0x00, () => 0],
  [0x05, (d, s) => s & d],
  [0x06, d => d],
  [0x09, (d, s) => s & ~d],
  [0x0b, d => ~d],
  [0x0d, (_, s) => s],
  [0x0e, () => 0xff],
  [0x50, (d, s) => ~s & d],
  [0x59, (d, s) => s ^ d],
  [0x6d, (d, s) => s | d],
  [0x90, (d, s) => ~s | ~d],
  [0x95, (d, s) => ~(s ^ d)],
  [0xad, (d, s) => s | ~d],
  [0xd0, (_, s) => ~s],
  [0xd6, (d, s) => ~s | d],
  [0xda, (d, s) => ~s & ~d],
]);
const NO_ROP: Rop = d => d;

/** The bit-block transfer engine (section 9, GR20 to GR39): copies, patterns, expansion of bits to colours, and fills. */
export class Blitter {
  readonly #s: CirrusState;
  readonly #b: BltState;
  readonly #memory: Uint8Array;
  readonly #mask: number;
  /** Without it, software has to do all by itself. */
  readonly #enabled: boolean;
  readonly #bpp: () => number;
  /** It begins or ceases to take what the CPU writes to video memory. */
  readonly #changed: () => void;
  #rop: Rop = NO_ROP;
  /** The colours of a one and of a zero. */
  #foreground = 0;
  #background = 0;

  /** @param size bytes of video memory, a power of two */
  constructor(
    state: CirrusState,
    blt: BltState,
    memory: Uint8Array,
    size: number,
    hooks: { readonly enabled: boolean; bpp: () => number; changed: () => void },
  ) {
    this.#s = state;
    this.#b = blt;
    this.#memory = memory;
    this.#mask = size - 1;
    this.#enabled = hooks.enabled;
    this.#bpp = hooks.bpp;
    this.#changed = hooks.changed;
  }

  /** Whether it waits for the CPU. */
  get takesWrites(): boolean {
    return this.#b.wanted > 0;
  }

  /** GR31: start, and reset. */
  writeStatus(value: number): void {
    const { graphics } = this.#s;
    const before = graphics[GR.BLT_STATUS] ?? 0;
    graphics[GR.BLT_STATUS] = value;
    if ((before & STATUS.RESET) !== 0 && (value & STATUS.RESET) === 0) this.reset();
    else if ((before & STATUS.START) === 0 && (value & STATUS.START) !== 0) this.start();
  }

  /** GR2A has been written: the last byte of the destination. */
  destinationWritten(): void {
    if (((this.#s.graphics[GR.BLT_STATUS] ?? 0) & STATUS.AUTOSTART) !== 0) this.start();
  }

  reset(): void {
    const { graphics } = this.#s;
    graphics[GR.BLT_STATUS] = (graphics[GR.BLT_STATUS] ?? 0) & ~(STATUS.START | STATUS.BUSY | STATUS.FIFO);
    const waited = this.takesWrites;
    Object.assign(this.#b, { left: 0, filled: 0, wanted: 0 });
    if (waited) this.#changed();
  }

  restored(): void {
    this.#latchColours();
  }

  /** A byte of the source from the CPU. */
  take(byte: number): void {
    const b = this.#b;
    b.buffer[b.filled++] = byte;
    if (b.filled >= b.wanted) this.#row();
  }

  start(): void {
    if (!this.#enabled) {
      this.reset();
      return;
    }
    const { graphics } = this.#s;
    const word = (at: number): number => (graphics[at] ?? 0) | ((graphics[at + 1] ?? 0) << 8);
    const b = this.#b;
    graphics[GR.BLT_STATUS] = (graphics[GR.BLT_STATUS] ?? 0) | STATUS.BUSY;
    const mode = graphics[GR.BLT_MODE] ?? 0;
    Object.assign(b, {
      width: word(GR.BLT_WIDTH) + 1,
      height: word(GR.BLT_HEIGHT) + 1,
      destPitch: word(GR.BLT_DEST_PITCH),
      sourcePitch: word(GR.BLT_SOURCE_PITCH),
      dest: (word(GR.BLT_DEST) | ((graphics[GR.BLT_DEST_HIGH] ?? 0) << 16)) & this.#mask,
      source: (word(GR.BLT_SOURCE) | ((graphics[GR.BLT_SOURCE + 2] ?? 0) << 16)) & this.#mask,
      mode: mode & ~MODE.WIDTH,
      extensions: graphics[GR.BLT_MODE_EXTENSIONS] ?? 0,
      rop: graphics[GR.BLT_ROP] ?? 0,
      pixelBytes: ((mode & MODE.WIDTH) >> 4) + 1,
      left: 0,
      filled: 0,
      wanted: 0,
    });
    this.#latchColours();
    if (!this.#begin()) this.reset();
  }

  #latchColours(): void {
    const { graphics, foreground, background } = this.#s;
    const bytes = (low: number, first: number): number =>
      (low |
        ((graphics[first] ?? 0) << 8) |
        ((graphics[first + 2] ?? 0) << 16) |
        ((graphics[first + 4] ?? 0) << 24)) >>>
      0;
    this.#foreground = bytes(foreground, 0x11);
    this.#background = bytes(background, 0x10);
    this.#rop = ROPS.get(this.#b.rop) ?? NO_ROP;
  }

  /** Starts what has been latched. False where it is finished already, or cannot be. */
  #begin(): boolean {
    const b = this.#b;
    const has = (bits: number): boolean => (b.mode & bits) === bits;
    if (has(MODE.FROM_SYSTEM | MODE.TO_SYSTEM) || !this.#fits(b.destPitch, b.dest, has(MODE.BACKWARDS))) return false;
    const solid = (b.extensions & EXTENSION.SOLID) !== 0;
    const special = MODE.TO_SYSTEM | MODE.TRANSPARENT | MODE.PATTERN | MODE.EXPAND;
    if (solid && (b.mode & special) === (MODE.PATTERN | MODE.EXPAND)) {
      this.#fill();
      return false;
    }
    if (has(MODE.TO_SYSTEM)) return false;
    if (has(MODE.FROM_SYSTEM)) return this.#awaitSource();
    if (has(MODE.PATTERN)) {
      const size = this.#bpp() <= 8 ? 64 : this.#bpp() <= 16 ? 128 : 256;
      const row = b.source & 7;
      this.#pattern(this.#memory, b.source & ~(size - 1) & this.#mask, this.#mask, row);
    } else if (has(MODE.EXPAND)) {
      this.#expand(this.#memory, b.source, this.#mask, b.height);
    } else if (this.#fits(b.sourcePitch, b.source, has(MODE.BACKWARDS))) {
      this.#copy();
    }
    return false;
  }

  /** Whether all rows from `start` are within video memory, and no wider than the engine takes. */
  #fits(pitch: number, start: number, backwards: boolean): boolean {
    const { width, height } = this.#b;
    if (width > BLT_BUFFER || pitch === 0) return false;
    if (backwards) return start - (height - 1) * pitch - width >= -1;
    return start + (height - 1) * pitch + width <= this.#mask + 1;
  }

  // The source comes from the CPU, row by row

  #awaitSource(): boolean {
    const b = this.#b;
    b.mode &= ~MODE.FROM_SYSTEM;
    const expand = (b.mode & MODE.EXPAND) !== 0;
    if ((b.mode & MODE.PATTERN) !== 0) {
      b.sourcePitch = expand ? 8 : 64 * b.pixelBytes;
      b.left = b.sourcePitch;
    } else {
      const pixels = Math.floor(b.width / b.pixelBytes);
      if (!expand) b.sourcePitch = (b.width + 3) & ~3;
      else b.sourcePitch = (b.extensions & EXTENSION.DWORDS) !== 0 ? ((pixels + 31) >> 5) * 4 : (pixels + 7) >> 3;
      b.left = b.sourcePitch * b.height;
    }
    if (b.sourcePitch <= 0 || b.sourcePitch > BLT_BUFFER) return false;
    b.wanted = b.sourcePitch;
    this.#changed();
    return true;
  }

  /** The buffer holds a row, or the pattern. */
  #row(): void {
    const b = this.#b;
    if ((b.mode & MODE.PATTERN) !== 0) {
      this.#pattern(b.buffer, 0, BLT_BUFFER - 1, b.source & 7);
      this.reset();
      return;
    }
    if ((b.mode & MODE.EXPAND) !== 0) this.#expand(b.buffer, 0, BLT_BUFFER - 1, 1);
    else this.#copyRow(b.buffer, 0, BLT_BUFFER - 1, b.dest, 1);
    b.dest += b.destPitch;
    b.left -= b.sourcePitch;
    b.filled = 0;
    if (b.left <= 0) this.reset();
  }

  // The operations. Sources are addressed modulo a power of two

  #put(address: number, colour: number): void {
    for (let byte = 0; byte < this.#b.pixelBytes; byte++) {
      const at = (address + byte) & this.#mask;
      this.#memory[at] = this.#rop(this.#memory[at] ?? 0, (colour >>> (8 * byte)) & 0xff);
    }
  }

  /** Bytes at the left that stay as they are, and pixels of the source that are passed over for them (GR2F). */
  #leftSkip(): { readonly bytes: number; readonly pixels: number } {
    const skip = this.#s.graphics[GR.BLT_LEFT_SKIP] ?? 0;
    const { pixelBytes } = this.#b;
    if (pixelBytes === 3) return { bytes: skip & 0x1f, pixels: Math.floor((skip & 0x1f) / 3) };
    return { bytes: (skip & 7) * pixelBytes, pixels: skip & 7 };
  }

  #fill(): void {
    const { width, height, dest, destPitch, pixelBytes } = this.#b;
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x += pixelBytes) this.#put(dest + y * destPitch + x, this.#foreground);
  }

  /** A bit a pixel, each row from a new byte. */
  #expand(source: Uint8Array, from: number, mask: number, height: number): void {
    const { width, dest, destPitch, pixelBytes, mode, extensions } = this.#b;
    const transparent = (mode & MODE.TRANSPARENT) !== 0;
    const inverted = transparent && (extensions & EXTENSION.INVERT) !== 0;
    const skip = this.#leftSkip();
    let at = from;
    for (let y = 0; y < height; y++) {
      let bit = skip.pixels;
      let bits = source[at++ & mask] ?? 0;
      for (let x = skip.bytes; x < width; x += pixelBytes, bit++) {
        if (bit === 8) {
          bit = 0;
          bits = source[at++ & mask] ?? 0;
        }
        this.#putBit(dest + y * destPitch + x, ((bits >> (7 - bit)) & 1) !== 0, transparent, inverted);
      }
    }
  }

  #putBit(address: number, one: boolean, transparent: boolean, inverted: boolean): void {
    if (!transparent) this.#put(address, one ? this.#foreground : this.#background);
    else if (one !== inverted) this.#put(address, inverted ? this.#background : this.#foreground);
  }

  /** Eight by eight pixels, or bits, again and again; `row` is the one that comes first. */
  #pattern(source: Uint8Array, from: number, mask: number, row: number): void {
    const { width, height, dest, destPitch, pixelBytes, mode, extensions } = this.#b;
    const transparent = (mode & MODE.TRANSPARENT) !== 0;
    const inverted = transparent && (extensions & EXTENSION.INVERT) !== 0;
    const expand = (mode & MODE.EXPAND) !== 0;
    const skip = this.#leftSkip();
    const pitch = pixelBytes === 3 ? 32 : 8 * pixelBytes;
    for (let y = 0; y < height; y++) {
      const line = (row + y) & 7;
      let column = skip.pixels & 7;
      for (let x = skip.bytes; x < width; x += pixelBytes) {
        const address = dest + y * destPitch + x;
        if (expand) {
          const bits = source[(from + line) & mask] ?? 0;
          this.#putBit(address, ((bits >> (7 - column)) & 1) !== 0, transparent, inverted);
        } else {
          const at = from + line * pitch + column * pixelBytes;
          let colour = 0;
          for (let byte = 0; byte < pixelBytes; byte++) colour |= (source[(at + byte) & mask] ?? 0) << (8 * byte);
          this.#put(address, colour);
        }
        column = (column + 1) & 7;
      }
    }
  }

  #copy(): void {
    const { width, height, dest, source, destPitch, sourcePitch, mode } = this.#b;
    const step = (mode & MODE.BACKWARDS) !== 0 ? -1 : 1;
    // Rows that reach into the next one are no rectangle.
    if (height > 1 && (destPitch < width || sourcePitch < width)) return;
    for (let y = 0; y < height; y++)
      this.#copyRow(this.#memory, source + step * y * sourcePitch, this.#mask, dest + step * y * destPitch, step);
  }

  #copyRow(source: Uint8Array, from: number, mask: number, dest: number, step: 1 | -1): void {
    const { width, pixelBytes, mode } = this.#b;
    if ((mode & MODE.TRANSPARENT) !== 0) {
      if (pixelBytes <= 2) this.#copyTransparent(source, from, mask, dest, step);
      return;
    }
    for (let x = 0; x < width; x++) {
      const to = (dest + step * x) & this.#mask;
      this.#memory[to] = this.#rop(this.#memory[to] ?? 0, source[(from + step * x) & mask] ?? 0);
    }
  }

  /** Pixels whose result is the transparent colour are left out; of eight or sixteen bits only. */
  #copyTransparent(source: Uint8Array, from: number, mask: number, dest: number, step: 1 | -1): void {
    const { width, pixelBytes } = this.#b;
    const { graphics } = this.#s;
    const low = graphics[GR.TRANSPARENT_LOW] ?? 0;
    const high = graphics[GR.TRANSPARENT_HIGH] ?? 0;
    const result = (x: number): number =>
      this.#rop(this.#memory[(dest + step * x) & this.#mask] ?? 0, source[(from + step * x) & mask] ?? 0) & 0xff;
    for (let x = 0; x < width; x += pixelBytes) {
      const first = result(x);
      if (pixelBytes === 1) {
        if (first !== low) this.#memory[(dest + step * x) & this.#mask] = first;
        continue;
      }
      const second = result(x + 1);
      // Backwards, the high byte comes first.
      const isTransparent = step > 0 ? first === low && second === high : first === high && second === low;
      if (isTransparent) continue;
      this.#memory[(dest + step * x) & this.#mask] = first;
      this.#memory[(dest + step * (x + 1)) & this.#mask] = second;
    }
  }
}
