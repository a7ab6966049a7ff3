import type { IoHandler } from '../../core/memory/memory-region.ts';
import type { VgaMemory } from '../vga/memory.ts';
import type { Blitter } from './blitter.ts';
import type { CirrusPorts } from './ports.ts';
import { BANKING, type CirrusState, GR, SR, SR7_SVGA, SR17_MMIO } from './registers.ts';

const BANK = 0x8000;
const WINDOW = 0x1_0000;
const MAPPED = { start: 0x1_8000, size: 0x100 } as const;

/** Video memory as the CPU reaches it: by the window at A0000h in two banks, and as a whole. */
export class CirrusMemory {
  readonly #s: CirrusState;
  readonly #bytes: Uint8Array;
  readonly #size: number;
  readonly #vga: VgaMemory;
  readonly #ports: CirrusPorts;
  readonly #blitter: Blitter;

  constructor(
    state: CirrusState,
    bytes: Uint8Array,
    size: number,
    parts: { vga: VgaMemory; ports: CirrusPorts; blitter: Blitter },
  ) {
    this.#s = state;
    this.#bytes = bytes;
    this.#size = size;
    this.#vga = parts.vga;
    this.#ports = parts.ports;
    this.#blitter = parts.blitter;
  }

  /** Whether the frame buffer is no more than memory now. */
  get isPlain(): boolean {
    if (this.#mapsRegisters() || this.#blitter.takesWrites || this.#shift() > 0) return false;
    return !this.#expandsWrites();
  }

  /** The window at A0000h. */
  readonly window: IoHandler = {
    read: offset => {
      if (!this.#isSvga()) return this.#vga.read(offset);
      if (offset >= WINDOW)
        return this.#mappedOffset(offset) < 0 ? 0xff : this.#ports.readMapped(this.#mappedOffset(offset));
      const at = this.#banked(offset);
      return at < 0 ? 0xff : (this.#bytes[(at << this.#shift()) & (this.#size - 1)] ?? 0);
    },
    write: (offset, size, value) => {
      if (!this.#isSvga()) this.#vga.write(offset, size, value);
      else if (offset >= WINDOW) {
        if (this.#mappedOffset(offset) >= 0) this.#ports.writeMapped(this.#mappedOffset(offset), value);
      } else if (this.#blitter.takesWrites) this.#blitter.take(value);
      else {
        const at = this.#banked(offset);
        if (at >= 0) this.#store(at, value);
      }
    },
  };

  /** The frame buffer, where it is more than memory. */
  readonly linear: IoHandler = {
    read: offset => {
      const at = offset & (this.#size - 1);
      if (this.#mapsRegisters() && at >= this.#size - MAPPED.size) return this.#ports.readMapped(at & 0xff);
      return this.#bytes[(at << this.#shift()) & (this.#size - 1)] ?? 0;
    },
    write: (offset, _size, value) => {
      const at = offset & (this.#size - 1);
      if (this.#mapsRegisters() && at >= this.#size - MAPPED.size) this.#ports.writeMapped(at & 0xff, value);
      else if (this.#blitter.takesWrites) this.#blitter.take(value);
      else this.#store(at, value);
    },
  };

  /** The aperture through which the CPU sends the source of a blit. */
  readonly source: IoHandler = {
    read: () => 0xff,
    write: (_offset, _size, value) => {
      if (this.#blitter.takesWrites) this.#blitter.take(value);
    },
  };

  #isSvga(): boolean {
    return ((this.#s.sequencer[SR.MODE] ?? 0) & SR7_SVGA) !== 0;
  }

  #banking(): number {
    return this.#s.graphics[GR.BANKING] ?? 0;
  }

  #mapsRegisters(): boolean {
    return ((this.#s.sequencer[SR.CONFIGURATION] ?? 0) & SR17_MMIO.MASK) === SR17_MMIO.IN_FRAME_BUFFER;
  }

  /** A byte of the CPU's stands for eight pixels (write modes 4 and 5). */
  #expandsWrites(): boolean {
    const mode = (this.#s.graphics[GR.MODE] ?? 0) & 7;
    return (mode === 4 || mode === 5) && (this.#banking() & BANKING.EXTENDED_WRITES) !== 0;
  }

  /** Addresses count groups of eight or sixteen bytes. */
  #shift(): number {
    const by16 = BANKING.BY_16 | BANKING.EXTENDED_WRITES;
    return (this.#banking() & by16) === by16 ? 4 : (this.#banking() & BANKING.BY_8) !== 0 ? 3 : 0;
  }

  /** The address in video memory for an offset in the window, or -1 beyond its end. */
  #banked(offset: number): number {
    const { graphics } = this.#s;
    const dual = (this.#banking() & BANKING.DUAL) !== 0;
    const bank = offset >= BANK ? 1 : 0;
    const number = graphics[dual ? GR.BANK_0 + bank : GR.BANK_0] ?? 0;
    const base = number << ((this.#banking() & BANKING.GRANULARITY_16K) !== 0 ? 14 : 12);
    const at = base + (dual ? offset % BANK : offset);
    return at < this.#size ? at : -1;
  }

  /** The offset in the registers at B8000h, or -1 where there are none. */
  #mappedOffset(offset: number): number {
    if (((this.#s.sequencer[SR.CONFIGURATION] ?? 0) & SR17_MMIO.MASK) !== SR17_MMIO.AT_B8000) return -1;
    return offset >= MAPPED.start && offset < MAPPED.start + MAPPED.size ? offset & 0xff : -1;
  }

  #store(at: number, value: number): void {
    const s = this.#s;
    const address = (at << this.#shift()) & (this.#size - 1);
    if (!this.#expandsWrites()) {
      this.#bytes[address] = value;
      return;
    }
    const wide = this.#shift() === 4;
    const both = ((s.graphics[GR.MODE] ?? 0) & 7) === 5;
    for (let bit = 0; bit < 8; bit++) {
      const one = ((value >> (7 - bit)) & 1) !== 0;
      if (!one && !both) continue;
      const to = (address + bit * (wide ? 2 : 1)) & (this.#size - 1);
      this.#bytes[to] = one ? s.foreground : s.background;
      if (wide) this.#bytes[to + 1] = s.graphics[one ? 0x11 : 0x10] ?? 0;
    }
  }
}
