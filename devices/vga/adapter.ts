import { type PropValues, prop } from '../../core/device/property.ts';
import { edid } from '../../core/display/edid.ts';
import type { Surface } from '../../core/display/screen.ts';
import { SharedRam } from '../../core/memory/guest-ram.ts';
import { type IoHandler, MemoryRegion } from '../../core/memory/memory-region.ts';
import type { PciBus } from '../../core/pci/pci-bus.ts';
import { VgaMemory } from './memory.ts';
import { BochsMode } from './mode.ts';
import { VgaPicture } from './picture.ts';
import { VgaPorts } from './ports.ts';
import type { VgaState } from './state.ts';
import { BochsDisplay } from './vbe.ts';

const MIB = 2 ** 20;
const LEGACY_BASE = 0xa_0000;
const LEGACY_SIZE = 0x2_0000;
/** What the registers in memory show: EDID, the VGA's ports from 3C0h, the Bochs registers, QEMU's own. */
export const VGA_MMIO_SIZE = 0x1000;
export const VGA_MMIO = { EDID: 0x000, PORTS: 0x400, BOCHS: 0x500, QEMU: 0x600 } as const;
const QEMU_ENDIAN_LITTLE = 0x1e1e_1e1e;
/** QEMU's own registers: their size, and the order of bytes in a pixel. */
export const QEMU_REGISTERS: IoHandler = {
  read: offset => (offset === 0 ? 8 : QEMU_ENDIAN_LITTLE),
  write: () => {},
};
const BYTES = { impl: { min: 1, max: 1 } };

/** The monitor that an adapter pretends to have. */
export const edidProperties = {
  xres: prop.u32({ default: 0 }),
  yres: prop.u32({ default: 0 }),
  xmax: prop.u32({ default: 0 }),
  ymax: prop.u32({ default: 0 }),
  refresh_rate: prop.u32({ default: 0 }),
} as const;

/** Bytes of video memory that so many MiB mean: a power of two, as a base address register needs. */
export const videoMemorySize = (mib: number): number =>
  2 ** Math.ceil(Math.log2(Math.min(512, Math.max(1, mib)))) * MIB;

/** A VGA with the Bochs display interface, wherever it is plugged in: what the PCI functions and virtio-vga share. */
export class VgaAdapter {
  readonly ram: SharedRam;
  readonly #s: VgaState;
  readonly #vbe: BochsDisplay;
  readonly #ports: VgaPorts;
  readonly #window: VgaMemory;
  readonly #picture: VgaPicture;

  /** @param vbeSize bytes of the video memory that modes may use; default: all */
  constructor(state: VgaState, memorySize: number, vbeSize = memorySize) {
    this.#s = state;
    this.ram = new SharedRam('vga.vram', memorySize);
    this.#vbe = new BochsDisplay(state, vbeSize, bytes => this.ram.bytes.fill(0, 0, bytes));
    this.#ports = new VgaPorts(state, () => this.#vbe.updateVga());
    this.#window = new VgaMemory(state, this.ram.bytes, this.ram.view);
    this.#picture = new VgaPicture(state, this.ram.view, new BochsMode(state, this.#vbe));
  }

  draw(surface: Surface): Surface {
    return this.#picture.draw(surface);
  }

  text(): readonly string[] | undefined {
    return this.#picture.text();
  }

  reset(): void {
    this.#vbe.reset();
    this.restored();
  }

  /** The registers have changed as a whole: what follows from them is brought up to date. */
  restored(): void {
    this.#window.bank = this.#vbe.bankOffset;
    this.#window.linear = this.#vbe.linear;
  }

  /** Ports 3B0h to 3DFh and 1CEh, and the window at A0000h. Returns what takes them away again. */
  mapLegacy({ io, memory }: PciBus): () => void {
    const ports = MemoryRegion.io('vga', 0x30, this.#ports, BYTES);
    const bochs = MemoryRegion.io(
      'vbe',
      4,
      {
        read: offset => this.#readBochsPort(offset),
        write: (offset, _size, value) => this.#writeBochsPort(offset, value),
      },
      { impl: { min: 2, max: 2, unaligned: true } },
    );
    const window = MemoryRegion.io('vga-lowmem', LEGACY_SIZE, this.#window, BYTES);
    io.add(ports, 0x3b0, 1);
    io.add(bochs, 0x1ce, 1);
    memory.add(window, LEGACY_BASE, 1);
    return () => {
      for (const region of [ports, bochs, window]) region.parent?.remove(region);
    };
  }

  /** Adds the registers to `bar`, from its offset 0. */
  addRegisters(bar: MemoryRegion, options: { extended: boolean; monitor?: PropValues<typeof edidProperties> }): void {
    const ports = this.#ports;
    const forward = {
      read: (offset: number) => ports.read(offset + 0x10),
      write: (offset: number, size: number, value: number) => ports.write(offset + 0x10, size, value),
    };
    bar.add(MemoryRegion.io('vga ioports remapped', 0x20, forward, BYTES), VGA_MMIO.PORTS);
    const bochs = {
      read: (offset: number) => this.#vbe.read(offset >> 1),
      write: (offset: number, _size: number, value: number) => this.#writeBochs(offset >> 1, value),
    };
    bar.add(MemoryRegion.io('bochs dispi interface', 0x16, bochs, { impl: { min: 2, max: 2 } }), VGA_MMIO.BOCHS);
    if (options.extended) {
      bar.add(MemoryRegion.io('qemu extended regs', 8, QEMU_REGISTERS, { impl: { min: 4, max: 4 } }), VGA_MMIO.QEMU);
    }
    if (options.monitor !== undefined) bar.add(edidRegion(options.monitor), VGA_MMIO.EDID);
  }

  /** Port 1CEh is the index; the data is at 1CFh, or at 1D0h for those who want it aligned. */
  #readBochsPort(offset: number): number {
    return offset === 0 ? this.#s.vbeIndex : this.#vbe.read(this.#s.vbeIndex);
  }

  #writeBochsPort(offset: number, value: number): void {
    if (offset === 0) this.#s.vbeIndex = value;
    else this.#writeBochs(this.#s.vbeIndex, value);
  }

  #writeBochs(index: number, value: number): void {
    this.#vbe.write(index, value);
    this.restored();
  }
}

/** The monitor's EDID as memory. */
export function edidRegion(monitor: PropValues<typeof edidProperties>): MemoryRegion {
  const bytes = edid({
    width: monitor.xres || 1280,
    height: monitor.yres || 800,
    maxWidth: monitor.xmax,
    maxHeight: monitor.ymax,
    refreshRate: monitor.refresh_rate,
  });
  const handler = { read: (offset: number) => bytes[offset] ?? 0, write: () => {} };
  return MemoryRegion.io('edid', VGA_MMIO.PORTS - VGA_MMIO.EDID, handler, BYTES);
}
