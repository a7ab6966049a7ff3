import { CRTC, VBE, VBE_ENABLE, type VgaState } from './state.ts';
import type { BochsDisplay } from './vbe.ts';

/** How pixels lie in video memory, where that is an adapter's own affair. */
export interface VgaMode {
  /** Bits a pixel, packed; 0 where a plain VGA's registers tell. */
  readonly bpp: number;
  readonly width: number;
  readonly height: number;
  /** Bytes from one row to the next. */
  readonly pitch: number;
  /** Offset of the first pixel, in bytes. */
  readonly start: number;
  /** The row from which the picture starts again at offset 0. */
  readonly lineCompare: number;
  /** Whether a colour has eight bits a component in place of six. */
  readonly wideDac: boolean;
}

/** The mode that a VGA's own registers say (IBM VGA technical reference). */
export class PlainMode implements VgaMode {
  protected readonly s: VgaState;

  constructor(state: VgaState) {
    this.s = state;
  }

  get bpp(): number {
    return 0;
  }

  get width(): number {
    return (this.crtc(CRTC.H_DISPLAY_END) + 1) * 8;
  }

  get height(): number {
    const overflow = this.crtc(CRTC.OVERFLOW);
    return (this.crtc(CRTC.V_DISPLAY_END) | ((overflow & 0x02) << 7) | ((overflow & 0x40) << 3)) + 1;
  }

  get pitch(): number {
    return this.crtc(CRTC.OFFSET) << 3;
  }

  get start(): number {
    return ((this.crtc(CRTC.START_HIGH) << 8) | this.crtc(CRTC.START_LOW)) * 4;
  }

  get lineCompare(): number {
    return (
      this.crtc(CRTC.LINE_COMPARE) | ((this.crtc(CRTC.OVERFLOW) & 0x10) << 4) | ((this.crtc(CRTC.MAX_SCAN) & 0x40) << 3)
    );
  }

  get wideDac(): boolean {
    return false;
  }

  protected crtc(index: number): number {
    return this.s.crtc[index] ?? 0;
  }
}

/** A VGA whose modes the Bochs interface may set. */
export class BochsMode extends PlainMode {
  readonly #vbe: BochsDisplay;

  constructor(state: VgaState, vbe: BochsDisplay) {
    super(state);
    this.#vbe = vbe;
  }

  override get bpp(): number {
    return this.#vbe.enabled ? this.#vbe.read(VBE.BPP) : super.bpp;
  }

  override get width(): number {
    return this.#vbe.enabled ? (this.s.vbe[VBE.XRES] ?? 0) : super.width;
  }

  override get height(): number {
    return this.#vbe.enabled ? (this.s.vbe[VBE.YRES] ?? 0) : super.height;
  }

  override get pitch(): number {
    return this.#vbe.enabled ? this.#vbe.pitch : super.pitch;
  }

  override get start(): number {
    return this.#vbe.enabled ? this.#vbe.start : super.start;
  }

  override get lineCompare(): number {
    return this.#vbe.enabled ? 0xffff : super.lineCompare;
  }

  override get wideDac(): boolean {
    return ((this.s.vbe[VBE.ENABLE] ?? 0) & VBE_ENABLE.DAC_8BIT) !== 0;
  }
}
