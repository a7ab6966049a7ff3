import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import type { Picture, Screen } from '../../core/display/screen.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { SharedRam } from '../../core/memory/guest-ram.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { edidBlock } from './edid.ts';
import { VgaMemory } from './memory.ts';
import { VgaPicture } from './picture.ts';
import { VgaPorts } from './ports.ts';
import { vgaState } from './state.ts';
import { BochsDisplay } from './vbe.ts';

const MIB = 2 ** 20;
const LEGACY_BASE = 0xa_0000;
const LEGACY_SIZE = 0x2_0000;
/** What the MMIO BAR shows: EDID, the VGA's ports from 3C0h, the Bochs registers, QEMU's own. */
const MMIO_SIZE = 0x1000;
const MMIO = { EDID: 0x000, PORTS: 0x400, BOCHS: 0x500, QEMU: 0x600 } as const;
const QEMU_ENDIAN_LITTLE = 0x1e1e_1e1e;
const BYTES = { impl: { min: 1, max: 1 } };

const properties = {
  vgamem_mb: prop.u32({ default: 16, help: 'video memory in MiB, a power of two' }),
  mmio: prop.bit({ default: true }),
  'qemu-extended-regs': prop.bit({ default: true }),
  edid: prop.bit({ default: true }),
  xres: prop.u32({ default: 0 }),
  yres: prop.u32({ default: 0 }),
  xmax: prop.u32({ default: 0 }),
  ymax: prop.u32({ default: 0 }),
  refresh_rate: prop.u32({ default: 0 }),
  'global-vmstate': prop.bool({ default: false }),
};

/** QEMU's standard VGA: a VGA with the Bochs display interface. */
export class StdVga extends PciDevice<typeof properties> implements Screen {
  readonly #s = this.state(1, vgaState);
  readonly #ram = new SharedRam('vga.vram', vramSize(this.props.vgamem_mb));
  readonly #vbe = new BochsDisplay(this.#s, this.#ram.size, bytes => this.#ram.bytes.fill(0, 0, bytes));
  readonly #ports = new VgaPorts(this.#s, () => {});
  readonly #window = new VgaMemory(this.#s, this.#ram.bytes, this.#ram.view);
  readonly #picture = new VgaPicture(this.#s, this.#ram.bytes, this.#vbe);

  picture(): Picture {
    return this.#picture.draw();
  }

  text(): readonly string[] | undefined {
    return this.#picture.text();
  }

  /** Video memory is saved with the guest's RAM. */
  get videoMemory(): SharedRam {
    return this.#ram;
  }

  protected override realize(): void {
    const { io, memory } = this.pciBus;
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
    this.onUnrealize(() => [ports, bochs, window].forEach(region => region.parent?.remove(region)));
    this.bar(0, MemoryRegion.ram(this.#ram), { size: this.#ram.size, prefetchable: true });
    if (this.props.mmio) this.bar(2, this.#mmio(), { size: MMIO_SIZE });
    this.onUnrealize(this.services.displays.register(this));
  }

  protected override resetHold(): void {
    this.#vbe.reset();
    this.#window.bank = 0;
  }

  protected override restored(): void {
    this.#window.bank = this.#vbe.bankOffset;
  }

  #mmio(): MemoryRegion {
    const bar = MemoryRegion.container('vga.mmio', MMIO_SIZE);
    const ports = this.#ports;
    const forward = {
      read: (offset: number) => ports.read(offset + 0x10),
      write: (offset: number, size: number, value: number) => ports.write(offset + 0x10, size, value),
    };
    bar.add(MemoryRegion.io('vga ioports remapped', 0x20, forward, BYTES), MMIO.PORTS);
    const bochs = {
      read: (offset: number) => this.#vbe.read(offset >> 1),
      write: (offset: number, _size: number, value: number) => this.#writeBochs(offset >> 1, value),
    };
    bar.add(MemoryRegion.io('bochs dispi interface', 0x16, bochs, { impl: { min: 2, max: 2 } }), MMIO.BOCHS);
    if (this.props['qemu-extended-regs']) {
      const extended = { read: (offset: number) => (offset === 0 ? 8 : QEMU_ENDIAN_LITTLE), write: () => {} };
      bar.add(MemoryRegion.io('qemu extended regs', 8, extended, { impl: { min: 4, max: 4 } }), MMIO.QEMU);
    }
    if (this.props.edid) {
      const edid = edidBlock(this.props.xres || 1280, this.props.yres || 800);
      bar.add(
        MemoryRegion.io('edid', MMIO.PORTS - MMIO.EDID, { read: offset => edid[offset] ?? 0, write: () => {} }, BYTES),
        MMIO.EDID,
      );
    }
    return bar;
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
    this.#window.bank = this.#vbe.bankOffset;
  }
}

/** @throws SouthbridgeError ERR_PROPERTY_RANGE */
function vramSize(mib: number): number {
  if (mib >= 1 && mib <= 512 && Number.isInteger(Math.log2(mib))) return mib * MIB;
  throw new SouthbridgeError(
    'ERR_PROPERTY_RANGE',
    `Property 'VGA.vgamem_mb' doesn't take value '${mib}'`,
    'it takes a power of two from 1 to 512',
  );
}

export const vga = deviceType({
  type: 'VGA',
  summary: 'Standard VGA with the Bochs display interface',
  category: 'display',
  parents: ['pci-vga', 'pci-device', 'device'],
  hotpluggable: false,
  properties,
  pci: { vendor: 0x1234, device: 0x1111, revision: 2, class: 0x030000, rom: 'vgabios-stdvga.bin' },
  create: StdVga,
});
