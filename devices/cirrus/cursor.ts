import type { Surface } from '../../core/display/screen.ts';
import { type CirrusState, CURSOR, SR } from './registers.ts';

/** The patterns are in the last 16 KiB of video memory. */
const PATTERNS = 0x4000;
const PATTERN_STEP = 256;

/** Draws the hardware cursor of two bits a pixel into the picture: see through, inverted, and two colours (section 9.12). */
export function drawCursor(s: CirrusState, memory: Uint8Array, size: number, { width, height, pixels }: Surface): void {
  const attributes = s.sequencer[SR.CURSOR_ATTRIBUTES] ?? 0;
  if ((attributes & CURSOR.SHOW) === 0) return;
  const large = (attributes & CURSOR.LARGE) !== 0;
  const side = large ? 64 : 32;
  const select = (s.sequencer[SR.CURSOR_PATTERN] ?? 0) & (large ? 0x3c : 0x3f);
  const pattern = size - PATTERNS + select * PATTERN_STEP;
  // In a large pattern the planes take turns row by row, in a small one the second follows the first.
  const rowBytes = large ? 16 : 4;
  const second = large ? 8 : 128;
  const colours = [hiddenColour(s, 0), hiddenColour(s, 15)] as const;
  for (let y = 0; y < side && s.cursorY + y < height; y++) {
    const row = pattern + y * rowBytes;
    for (let x = 0; x < side && s.cursorX + x < width; x++) {
      const bit = 7 - (x & 7);
      const first = ((memory[row + (x >> 3)] ?? 0) >> bit) & 1;
      const other = ((memory[row + second + (x >> 3)] ?? 0) >> bit) & 1;
      const at = (s.cursorY + y) * width + s.cursorX + x;
      if (other !== 0) pixels[at] = colours[first === 0 ? 0 : 1];
      else if (first !== 0) pixels[at] = (pixels[at] ?? 0) ^ 0xff_ffff;
    }
  }
}

function hiddenColour({ hiddenPalette }: CirrusState, index: number): number {
  const part = (offset: number): number => {
    const value = (hiddenPalette[index * 3 + offset] ?? 0) & 0x3f;
    return (value << 2) | ((value & 1) * 3);
  };
  return (part(0) << 16) | (part(1) << 8) | part(2);
}
