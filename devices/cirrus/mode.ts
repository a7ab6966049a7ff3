import { PlainMode } from '../vga/mode.ts';
import { CRTC } from '../vga/state.ts';
import { type CirrusState, CR, SR, SR7_SVGA } from './registers.ts';

const DEPTH = { MASK: 0x0e, BITS_8: 0x00, BITS_16_DOUBLE: 0x02, BITS_24: 0x04, BITS_16: 0x06, BITS_32: 0x08 } as const;
const HIDDEN_DAC_565 = 1;

/** The mode that a CL-GD5446's registers say: the VGA's, with more bits, and packed pixels (SR7). */
export class CirrusMode extends PlainMode {
  readonly #s: CirrusState;

  constructor(state: CirrusState) {
    super(state);
    this.#s = state;
  }

  override get bpp(): number {
    const mode = this.#s.sequencer[SR.MODE] ?? 0;
    if ((mode & SR7_SVGA) === 0) return 0;
    switch (mode & DEPTH.MASK) {
      case DEPTH.BITS_16:
      case DEPTH.BITS_16_DOUBLE:
        return (this.#s.hiddenDac & 0x0f) === HIDDEN_DAC_565 ? 16 : 15;
      case DEPTH.BITS_24:
        return 24;
      case DEPTH.BITS_32:
        return 32;
      default:
        return 8;
    }
  }

  override get height(): number {
    return super.height * ((this.crtc(CR.MISCELLANEOUS) & 1) !== 0 ? 2 : 1);
  }

  override get pitch(): number {
    return (this.crtc(CRTC.OFFSET) | ((this.crtc(CR.EXTENDED) & 0x10) << 4)) << 3;
  }

  override get start(): number {
    const extended = this.crtc(CR.EXTENDED);
    const high = ((extended & 0x01) << 16) | ((extended & 0x0c) << 15) | ((this.crtc(CR.OVERLAY) & 0x80) << 12);
    return ((this.crtc(CRTC.START_HIGH) << 8) | this.crtc(CRTC.START_LOW) | high) * 4;
  }
}
