import type { IoHandler } from '../../core/memory/memory-region.ts';
import { CRTC, type VgaState } from './state.ts';

/** Which bits of the indexed registers exist. */
export const SEQUENCER_MASK = [0x03, 0x3d, 0x0f, 0x3f, 0x0e, 0x00, 0x00, 0xff] as const;
export const GRAPHICS_MASK = [0x0f, 0x0f, 0x0f, 0x1f, 0x03, 0x7b, 0x0f, 0x0f, 0xff, 0, 0, 0, 0, 0, 0, 0] as const;
const MISC_COLOUR = 0x01;
const PROTECT = 0x80;
const STATUS_RETRACE = 0x09;

/** Ports 3B0h to 3DFh (IBM VGA technical reference). Offsets count from 3B0h. */
export class VgaPorts implements IoHandler {
  readonly #s: VgaState;
  /** Something that the memory window or the picture depends on has changed. */
  readonly #changed: () => void;

  constructor(state: VgaState, changed: () => void) {
    this.#s = state;
    this.#changed = changed;
  }

  read(offset: number): number {
    const port = 0x3b0 + offset;
    const s = this.#s;
    if (this.elsewhere(port)) return 0xff;
    switch (port) {
      case 0x3c0:
        return s.attributeData ? 0 : s.attributeIndex;
      case 0x3c1:
        return s.attribute[s.attributeIndex & 0x1f] ?? 0;
      case 0x3c2:
        return 0; // input status 0: no interrupt, switches open
      case 0x3c4:
        return s.sequencerIndex;
      case 0x3c5:
        return s.sequencer[s.sequencerIndex] ?? 0;
      case 0x3c6:
        return 0; // the pixel mask cannot be read back, as on QEMU's
      case 0x3c7:
        return s.dacState;
      case 0x3c8:
        return s.dacWrite;
      case 0x3c9:
        return this.#readDac();
      case 0x3ca:
        return s.feature;
      case 0x3cc:
        return s.misc;
      case 0x3ce:
        return s.graphicsIndex;
      case 0x3cf:
        return s.graphics[s.graphicsIndex & 0x0f] ?? 0;
      case 0x3b4:
      case 0x3d4:
        return s.crtcIndex;
      case 0x3b5:
      case 0x3d5:
        return s.crtc[s.crtcIndex] ?? 0;
      case 0x3ba:
      case 0x3da:
        // Retrace comes and goes with each look at it; the attribute controller expects an index again.
        s.attributeData = false;
        s.status1 ^= STATUS_RETRACE;
        return s.status1;
      default:
        return 0;
    }
  }

  write(offset: number, _size: number, value: number): void {
    const port = 0x3b0 + offset;
    const s = this.#s;
    if (this.elsewhere(port)) return;
    switch (port) {
      case 0x3c0:
        this.#writeAttribute(value);
        break;
      case 0x3c2:
        s.misc = value & ~0x10;
        break;
      case 0x3c4:
        s.sequencerIndex = value & 7;
        break;
      case 0x3c5:
        s.sequencer[s.sequencerIndex] = value & (SEQUENCER_MASK[s.sequencerIndex] ?? 0);
        break;
      case 0x3c6:
        s.dacMask = value;
        break;
      case 0x3c7:
        Object.assign(s, { dacRead: value, dacSub: 0, dacState: 3 });
        break;
      case 0x3c8:
        Object.assign(s, { dacWrite: value, dacSub: 0, dacState: 0 });
        break;
      case 0x3c9:
        this.#writeDac(value);
        break;
      case 0x3ce:
        s.graphicsIndex = value & 0x0f;
        break;
      case 0x3cf:
        s.graphics[s.graphicsIndex] = value & (GRAPHICS_MASK[s.graphicsIndex] ?? 0);
        break;
      case 0x3b4:
      case 0x3d4:
        s.crtcIndex = value;
        break;
      case 0x3b5:
      case 0x3d5:
        this.#writeCrtc(value);
        break;
      case 0x3ba:
      case 0x3da:
        s.feature = value & 0x10;
        break;
      default:
        break;
    }
    this.#changed();
  }

  /** The CRTC is at 3Bxh for monochrome and at 3Dxh for colour, never at both. */
  elsewhere(port: number): boolean {
    return (this.#s.misc & MISC_COLOUR) !== 0 ? port >= 0x3b0 && port <= 0x3bf : port >= 0x3d0 && port <= 0x3df;
  }

  #writeAttribute(value: number): void {
    const s = this.#s;
    if (!s.attributeData) {
      s.attributeIndex = value & 0x3f;
    } else {
      const index = s.attributeIndex & 0x1f;
      if (index < 16) s.attribute[index] = value & 0x3f;
      else if (index === 0x10) s.attribute[index] = value & ~0x10;
      else if (index === 0x12) s.attribute[index] = value & ~0xc0;
      else if (index === 0x13 || index === 0x14) s.attribute[index] = value & 0x0f;
      else if (index === 0x11) s.attribute[index] = value;
    }
    s.attributeData = !s.attributeData;
  }

  #writeCrtc(value: number): void {
    const s = this.#s;
    const isProtected = ((s.crtc[CRTC.V_RETRACE_END] ?? 0) & PROTECT) !== 0 && s.crtcIndex <= CRTC.OVERFLOW;
    if (!isProtected) s.crtc[s.crtcIndex] = value;
    // Bit 8 of line compare can always be written.
    else if (s.crtcIndex === CRTC.OVERFLOW)
      s.crtc[CRTC.OVERFLOW] = ((s.crtc[CRTC.OVERFLOW] ?? 0) & ~0x10) | (value & 0x10);
  }

  #readDac(): number {
    const s = this.#s;
    const value = s.palette[s.dacRead * 3 + s.dacSub] ?? 0;
    if (++s.dacSub === 3) {
      s.dacSub = 0;
      s.dacRead = (s.dacRead + 1) & 0xff;
    }
    return value;
  }

  #writeDac(value: number): void {
    const s = this.#s;
    s.dacCache[s.dacSub] = value;
    if (++s.dacSub < 3) return;
    s.palette.set(s.dacCache, s.dacWrite * 3);
    s.dacSub = 0;
    s.dacWrite = (s.dacWrite + 1) & 0xff;
  }
}
