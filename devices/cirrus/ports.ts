import type { IoHandler } from '../../core/memory/memory-region.ts';
import { GRAPHICS_MASK, SEQUENCER_MASK, VgaPorts } from '../vga/ports.ts';
import type { Blitter } from './blitter.ts';
import { type CirrusState, CR, CURSOR, GR, SR } from './registers.ts';

const UNLOCKED = 0x12;
const LOCKED = 0x0f;
const HIDDEN_DAC_READS = 4;
const CRTC_STANDARD_LAST = 0x18;
const CRTC_WRITABLE_LAST = 0x1d;
/** What exists of the high bytes of sizes, pitches and addresses. */
const BLT_MASKS: Readonly<Record<number, number>> = { 33: 0x1f, 35: 0x1f, 37: 0x1f, 39: 0x1f, 42: 0x3f, 46: 0x3f };

/** Graphics registers by their offsets in the memory-mapped registers (section 9.1). */
const MAPPED: ReadonlyMap<number, number> = new Map([
  [0x00, 0x00],
  [0x01, 0x10],
  [0x02, 0x12],
  [0x03, 0x14],
  [0x04, 0x01],
  [0x05, 0x11],
  [0x06, 0x13],
  [0x07, 0x15],
  ...Array.from({ length: 11 }, (_, index): [number, number] => [0x08 + index, 0x20 + index]),
  [0x14, 0x2c],
  [0x15, 0x2d],
  [0x16, 0x2e],
  [0x17, 0x2f],
  [0x18, 0x30],
  [0x1a, 0x32],
  [0x1b, 0x33],
  [0x1c, 0x34],
  [0x1d, 0x35],
  [0x20, 0x38],
  [0x21, 0x39],
  [0x40, 0x31],
]);

/** The ports of a VGA with Cirrus Logic's extended registers behind their indices. Offsets count from 3B0h. */
export class CirrusPorts implements IoHandler {
  readonly #s: CirrusState;
  readonly #vga: VgaPorts;
  readonly #blitter: Blitter;
  /** Something has changed that decides how video memory is reached. */
  readonly #changed: () => void;

  constructor(state: CirrusState, blitter: Blitter, changed: () => void) {
    this.#s = state;
    this.#vga = new VgaPorts(state, () => {});
    this.#blitter = blitter;
    this.#changed = changed;
  }

  read(offset: number): number {
    const s = this.#s;
    if (this.#vga.elsewhere(0x3b0 + offset)) return 0xff;
    switch (0x3b0 + offset) {
      case 0x3c5:
        return this.#readSequencer();
      case 0x3c6:
        return this.#readHiddenDac();
      case 0x3c8:
        s.hiddenDacLock = 0;
        return s.dacWrite;
      case 0x3c9:
        return (s.sequencer[SR.CURSOR_ATTRIBUTES] ?? 0) & CURSOR.HIDDEN_PALETTE
          ? this.#readHiddenPalette()
          : this.#vga.read(offset);
      case 0x3cf:
        return this.readGraphics(s.graphicsIndex);
      case 0x3b5:
      case 0x3d5:
        return this.#readCrtc();
      default:
        return this.#vga.read(offset);
    }
  }

  write(offset: number, size: number, value: number): void {
    const s = this.#s;
    if (this.#vga.elsewhere(0x3b0 + offset)) return;
    switch (0x3b0 + offset) {
      case 0x3c4:
        s.sequencerIndex = value;
        break;
      case 0x3c5:
        this.#writeSequencer(value);
        break;
      case 0x3c6:
        if (s.hiddenDacLock === HIDDEN_DAC_READS) s.hiddenDac = value;
        s.hiddenDacLock = 0;
        break;
      case 0x3c9:
        if (((s.sequencer[SR.CURSOR_ATTRIBUTES] ?? 0) & CURSOR.HIDDEN_PALETTE) !== 0) this.#writeHiddenPalette(value);
        else this.#vga.write(offset, size, value);
        break;
      case 0x3ce:
        s.graphicsIndex = value;
        break;
      case 0x3cf:
        this.writeGraphics(s.graphicsIndex, value);
        break;
      case 0x3b5:
      case 0x3d5:
        if (s.crtcIndex <= CRTC_STANDARD_LAST) this.#vga.write(offset, size, value);
        else if (s.crtcIndex <= CRTC_WRITABLE_LAST) s.crtc[s.crtcIndex] = value;
        break;
      default:
        this.#vga.write(offset, size, value);
    }
  }

  /** The graphics registers of the blitter as memory, from offset 0. */
  readMapped(offset: number): number {
    const index = MAPPED.get(offset);
    return index === undefined ? 0xff : this.readGraphics(index);
  }

  writeMapped(offset: number, value: number): void {
    const index = MAPPED.get(offset);
    if (index !== undefined) this.writeGraphics(index, value);
  }

  readGraphics(index: number): number {
    const s = this.#s;
    if (index === GR.BACKGROUND) return s.background;
    if (index === GR.FOREGROUND) return s.foreground;
    return index < GR.END ? (s.graphics[index] ?? 0) : 0xff;
  }

  writeGraphics(index: number, value: number): void {
    const s = this.#s;
    if (index === GR.BACKGROUND) s.background = value;
    if (index === GR.FOREGROUND) s.foreground = value;
    if (index === GR.BLT_STATUS) {
      this.#blitter.writeStatus(value);
    } else if (index === GR.MODE) {
      s.graphics[index] = value & 0x7f;
      this.#changed();
    } else if (index <= 0x08) {
      s.graphics[index] = value & (GRAPHICS_MASK[index] ?? 0);
    } else if (index <= GR.BANKING) {
      s.graphics[index] = value;
      this.#changed();
    } else if (isWritable(index)) {
      s.graphics[index] = value & (BLT_MASKS[index] ?? 0xff);
      if (index === GR.BLT_DEST_HIGH) this.#blitter.destinationWritten();
    }
  }

  #readSequencer(): number {
    const { sequencerIndex: index, sequencer } = this.#s;
    // The low bits of a cursor's position are in the index.
    const low = index & 0x1f;
    if (index > SR.LAST && (low === SR.CURSOR_X || low === SR.CURSOR_Y)) return sequencer[low] ?? 0;
    return index <= SR.LAST ? (sequencer[index] ?? 0) : 0xff;
  }

  #writeSequencer(value: number): void {
    const s = this.#s;
    const index = s.sequencerIndex;
    const low = index & 0x1f;
    if (low === SR.CURSOR_X || low === SR.CURSOR_Y) {
      s.sequencer[low] = value;
      s[low === SR.CURSOR_X ? 'cursorX' : 'cursorY'] = (value << 3) | (index >> 5);
    } else if (index <= 4) {
      s.sequencer[index] = value & (SEQUENCER_MASK[index] ?? 0);
    } else if (index === SR.UNLOCK) {
      s.sequencer[index] = (value & 0x17) === UNLOCKED ? UNLOCKED : LOCKED;
    } else if (index === SR.CONFIGURATION) {
      s.sequencer[index] = ((s.sequencer[index] ?? 0) & 0x38) | (value & 0xc7);
      this.#changed();
    } else if (index >= SR.MODE && index <= SR.LAST) {
      s.sequencer[index] = value;
      if (index === SR.MODE) this.#changed();
    }
  }

  /** The fifth read in a row is that of the hidden DAC register (section 9.56). */
  #readHiddenDac(): number {
    const s = this.#s;
    if (++s.hiddenDacLock !== HIDDEN_DAC_READS + 1) {
      s.hiddenDacLock &= 0xff;
      return 0xff;
    }
    s.hiddenDacLock = 0;
    return s.hiddenDac;
  }

  #readHiddenPalette(): number {
    const s = this.#s;
    const value = s.hiddenPalette[(s.dacRead & 15) * 3 + s.dacSub] ?? 0;
    if (++s.dacSub === 3) {
      s.dacSub = 0;
      s.dacRead = (s.dacRead + 1) & 0xff;
    }
    return value;
  }

  #writeHiddenPalette(value: number): void {
    const s = this.#s;
    s.dacCache[s.dacSub] = value;
    if (++s.dacSub < 3) return;
    s.hiddenPalette.set(s.dacCache, (s.dacWrite & 15) * 3);
    s.dacSub = 0;
    s.dacWrite = (s.dacWrite + 1) & 0xff;
  }

  #readCrtc(): number {
    const s = this.#s;
    const index = s.crtcIndex;
    if (index === CR.TOGGLE) return s.attributeData ? 0x80 : 0;
    if (index === CR.INDEX) return s.attributeIndex & 0x3f;
    const known = index <= CRTC_WRITABLE_LAST || index === 0x22 || index === 0x25 || index === CR.PART_ID;
    return known ? (s.crtc[index] ?? 0) : 0xff;
  }
}

/** The second bytes of colours, and the registers of the blitter. */
const isWritable = (index: number): boolean =>
  (index >= 0x10 && index <= 0x15) ||
  (index >= 0x20 && index <= 0x35 && index !== 0x2b) ||
  index === 0x38 ||
  index === 0x39;
