import { CRTC, GFX, VBE, VBE_ENABLE, VBE_ID5, type VgaState } from './state.ts';

const MAX_WIDTH = 16_000;
const MAX_HEIGHT = 12_000;
const MAX_BPP = 32;
const BANK_SIZE = 0x1_0000;

/** The Bochs display interface: modes that no VGA has, by eleven 16-bit registers. */
export class BochsDisplay {
  readonly #s: VgaState;
  readonly #memorySize: number;
  readonly #clear: (bytes: number) => void;

  constructor(state: VgaState, memorySize: number, clear: (bytes: number) => void) {
    this.#s = state;
    this.#memorySize = memorySize;
    this.#clear = clear;
  }

  reset(): void {
    this.#s.vbe.fill(0);
    this.#s.vbe[VBE.ID] = VBE_ID5;
  }

  get enabled(): boolean {
    return (this.#register(VBE.ENABLE) & VBE_ENABLE.ENABLED) !== 0;
  }

  get bankOffset(): number {
    return this.enabled ? this.#register(VBE.BANK) * BANK_SIZE : 0;
  }

  /** Bytes from one row to the next. */
  get pitch(): number {
    const bpp = this.#register(VBE.BPP);
    return bpp === 4 ? this.#register(VBE.VIRT_WIDTH) >> 1 : this.#register(VBE.VIRT_WIDTH) * ((bpp + 7) >> 3);
  }

  /** Offset of the first pixel. */
  get start(): number {
    const bpp = this.#register(VBE.BPP);
    const x = this.#register(VBE.X_OFFSET);
    return this.#register(VBE.Y_OFFSET) * this.pitch + (bpp === 4 ? x >> 1 : x * ((bpp + 7) >> 3));
  }

  read(index: number): number {
    if (index === VBE.MEMORY_64K) return this.#memorySize / BANK_SIZE;
    if (index > VBE.Y_OFFSET) return 0;
    if ((this.#register(VBE.ENABLE) & VBE_ENABLE.GETCAPS) !== 0) {
      if (index === VBE.XRES) return MAX_WIDTH;
      if (index === VBE.YRES) return MAX_HEIGHT;
      if (index === VBE.BPP) return MAX_BPP;
    }
    return this.#register(index);
  }

  write(index: number, value: number): void {
    if (index > VBE.Y_OFFSET) return;
    const { vbe } = this.#s;
    if (index === VBE.ID) {
      if (value >= 0xb0c0 && value <= VBE_ID5) vbe[VBE.ID] = value;
      return;
    }
    if (index === VBE.ENABLE) {
      this.#enable(value);
      return;
    }
    if (index === VBE.BANK) {
      vbe[VBE.BANK] = value % (this.#memorySize / BANK_SIZE);
      return;
    }
    vbe[index] = value;
    if (!this.enabled) return;
    this.#fit();
    this.updateVga();
  }

  /**
   * Sets the VGA's own registers for a mode of this interface: software that knows only those sees a packed mode. The VGA calls it
   * after each write of its registers too.
   */
  updateVga(): void {
    if (!this.enabled) return;
    const { graphics, crtc } = this.#s;
    const set = (index: number, keep: number, bits: number): void => {
      crtc[index] = ((crtc[index] ?? 0) & keep) | bits;
    };
    const bottom = this.#register(VBE.YRES) - 1;
    graphics[GFX.MISC] = ((graphics[GFX.MISC] ?? 0) & ~0x0c) | 0x05;
    graphics[GFX.MODE] = ((graphics[GFX.MODE] ?? 0) & ~0x60) | (this.#register(VBE.BPP) === 4 ? 0 : 0x40);
    set(CRTC.MODE, 0xff, 0x03);
    set(CRTC.OFFSET, 0, this.pitch >> 3);
    set(CRTC.H_DISPLAY_END, 0, (this.#register(VBE.XRES) >> 3) - 1);
    set(CRTC.V_DISPLAY_END, 0, bottom);
    set(CRTC.OVERFLOW, ~0x42, ((bottom >> 7) & 0x02) | ((bottom >> 3) & 0x40) | 0x10);
    set(CRTC.LINE_COMPARE, 0, 0xff);
    set(CRTC.MAX_SCAN, ~0x9f, 0x40);
  }

  /** Whether the window at A0000h shows packed pixels. */
  get linear(): boolean {
    return this.enabled && this.#register(VBE.BPP) !== 4;
  }

  #enable(value: number): void {
    const { vbe } = this.#s;
    const on = (value & VBE_ENABLE.ENABLED) !== 0 && !this.enabled;
    if (on) {
      Object.assign(vbe, { [VBE.VIRT_WIDTH]: 0, [VBE.X_OFFSET]: 0, [VBE.Y_OFFSET]: 0 });
      vbe[VBE.ENABLE] = value;
      this.#fit();
      this.updateVga();
      if ((value & VBE_ENABLE.NO_CLEAR) === 0) this.#clear(this.#register(VBE.YRES) * this.pitch);
    } else if ((value & VBE_ENABLE.ENABLED) === 0) {
      vbe[VBE.BANK] = 0;
    }
    vbe[VBE.ENABLE] = value;
  }

  /** Keeps the picture inside video memory, whatever the guest asks for. */
  #fit(): void {
    const { vbe } = this.#s;
    const bpp = this.#register(VBE.BPP);
    if (![4, 8, 15, 16, 24, 32].includes(bpp)) vbe[VBE.BPP] = 8;
    const width = Math.min(MAX_WIDTH, Math.max(8, this.#register(VBE.XRES) & ~7));
    vbe[VBE.XRES] = width;
    vbe[VBE.VIRT_WIDTH] = Math.min(MAX_WIDTH, Math.max(this.#register(VBE.VIRT_WIDTH) & ~7, width));
    const rows = Math.floor(this.#memorySize / Math.max(1, this.pitch));
    vbe[VBE.YRES] = Math.min(MAX_HEIGHT, rows, Math.max(1, this.#register(VBE.YRES)));
    vbe[VBE.VIRT_HEIGHT] = rows & 0xffff;
    if (this.start + this.#register(VBE.YRES) * this.pitch > this.#memorySize) {
      vbe[VBE.X_OFFSET] = 0;
      vbe[VBE.Y_OFFSET] = 0;
    }
  }

  #register(index: number): number {
    return this.#s.vbe[index] ?? 0;
  }
}
