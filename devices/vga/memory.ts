import type { IoHandler } from '../../core/memory/memory-region.ts';
import { GFX, MEMORY_MODE, SEQ, type VgaState } from './state.ts';

const WINDOW = 0x2_0000;
/** Four bits, one for each plane, as a byte each. */
const SPREAD = Uint32Array.from({ length: 16 }, (_, planes) =>
  [0, 1, 2, 3].reduce((word, plane) => word + ((planes >> plane) & 1) * 0xff * 2 ** (8 * plane), 0),
);

/**
 * The window at A0000h: the memory as the graphics controller shows it (FreeVGA, "Accessing the VGA Display Memory"). Planes lie
 * interleaved in video memory, a byte each of four.
 */
export class VgaMemory implements IoHandler {
  readonly #s: VgaState;
  readonly #bytes: Uint8Array;
  readonly #view: DataView<ArrayBufferLike>;
  /** Where the window begins in a banked mode of the Bochs interface, in bytes. */
  bank = 0;
  /** In packed modes of the Bochs interface all planes are in a row, whatever the sequencer says. */
  linear = false;

  constructor(state: VgaState, bytes: Uint8Array, view: DataView<ArrayBufferLike>) {
    this.#s = state;
    this.#bytes = bytes;
    this.#view = view;
  }

  read(offset: number): number {
    const s = this.#s;
    const address = this.#address(offset);
    if (address < 0) return 0xff;
    if (this.#chain4()) return this.#bytes[address] ?? 0xff;
    const mode = s.graphics[GFX.MODE] ?? 0;
    if ((mode & 0x10) !== 0) {
      const plane = ((s.graphics[GFX.READ_MAP] ?? 0) & 2) | (address & 1);
      return this.#bytes[((address & ~1) << 1) | plane] ?? 0xff;
    }
    const at = address * 4;
    if (at + 4 > this.#bytes.length) return 0xff;
    s.latch = this.#view.getUint32(at, true);
    if ((mode & 0x08) === 0) return (s.latch >>> (8 * ((s.graphics[GFX.READ_MAP] ?? 0) & 3))) & 0xff;
    // Read mode 1: which pixels have the colour to compare with.
    const care = SPREAD[(s.graphics[GFX.COMPARE_MASK] ?? 0) & 15] ?? 0;
    const different = (s.latch ^ (SPREAD[(s.graphics[GFX.COMPARE] ?? 0) & 15] ?? 0)) & care;
    const folded = different | (different >>> 16);
    return ~(folded | (folded >>> 8)) & 0xff;
  }

  write(offset: number, _size: number, value: number): void {
    const s = this.#s;
    const address = this.#address(offset);
    if (address < 0) return;
    const planes = (s.sequencer[SEQ.PLANE_WRITE] ?? 0) & 15;
    if (this.#chain4()) {
      if (this.linear || (planes & (1 << (address & 3))) !== 0) this.#bytes[address] = value;
      return;
    }
    const mode = s.graphics[GFX.MODE] ?? 0;
    if ((mode & 0x10) !== 0) {
      const plane = ((s.graphics[GFX.READ_MAP] ?? 0) & 2) | (address & 1);
      if ((planes & (1 << plane)) !== 0) this.#bytes[((address & ~1) << 1) | plane] = value;
      return;
    }
    const at = address * 4;
    if (at + 4 > this.#bytes.length) return;
    const word = this.#compose(mode & 3, value);
    const writable = SPREAD[planes] ?? 0;
    this.#view.setUint32(at, ((this.#view.getUint32(at, true) & ~writable) | (word & writable)) >>> 0, true);
  }

  /** What the four planes get, by write mode (FreeVGA, "Write Modes"). */
  #compose(mode: number, value: number): number {
    const s = this.#s;
    const rotate = s.graphics[GFX.ROTATE] ?? 0;
    const setReset = SPREAD[(s.graphics[GFX.SET_RESET] ?? 0) & 15] ?? 0;
    let bitMask = s.graphics[GFX.BIT_MASK] ?? 0;
    let word: number;
    if (mode === 1) return s.latch;
    const turned = ((value >> (rotate & 7)) | (value << (8 - (rotate & 7)))) & 0xff;
    if (mode === 0) {
      const enabled = SPREAD[(s.graphics[GFX.ENABLE_SET_RESET] ?? 0) & 15] ?? 0;
      word = (repeat(turned) & ~enabled) | (setReset & enabled);
    } else if (mode === 2) {
      word = SPREAD[value & 15] ?? 0;
    } else {
      bitMask &= turned;
      word = setReset;
    }
    switch ((rotate >> 3) & 3) {
      case 1:
        word &= s.latch;
        break;
      case 2:
        word |= s.latch;
        break;
      case 3:
        word ^= s.latch;
        break;
      default:
        break;
    }
    const mask = repeat(bitMask);
    return (word & mask) | (s.latch & ~mask);
  }

  #chain4(): boolean {
    return this.linear || ((this.#s.sequencer[SEQ.MEMORY_MODE] ?? 0) & MEMORY_MODE.CHAIN4) !== 0;
  }

  /** The address within video memory for `offset` from A0000h, or -1 outside the window that is mapped now. */
  #address(offset: number): number {
    const within = offset & (WINDOW - 1);
    switch (((this.#s.graphics[GFX.MISC] ?? 0) >> 2) & 3) {
      case 0:
        return within;
      case 1:
        return within >= 0x1_0000 ? -1 : within + this.bank;
      case 2:
        return within >= 0x1_0000 && within < 0x1_8000 ? within - 0x1_0000 : -1;
      default:
        return within >= 0x1_8000 ? within - 0x1_8000 : -1;
    }
  }
}

function repeat(byte: number): number {
  return (byte * 0x0101_0101) >>> 0;
}
