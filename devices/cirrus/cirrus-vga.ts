import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import type { ScreenSource, Surface } from '../../core/display/screen.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { SharedRam } from '../../core/memory/guest-ram.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { VgaMemory } from '../vga/memory.ts';
import { VgaPicture } from '../vga/picture.ts';
import { Blitter } from './blitter.ts';
import { drawCursor } from './cursor.ts';
import { CirrusMemory } from './memory.ts';
import { CirrusMode } from './mode.ts';
import { CirrusPorts } from './ports.ts';
import { bltState, CR, cirrusState, SR } from './registers.ts';

const MIB = 2 ** 20;
/** The chip reaches 4 MiB, however much video memory there is. */
const CHIP_MEMORY = 4 * MIB;
const PART_ID = 0xb8;
const BAR0 = { SIZE: 32 * MIB, BLT_SOURCE: 16 * MIB, BLT_SOURCE_SIZE: 4 * MIB } as const;
const BAR1 = { SIZE: 0x1000, REGISTERS: 0x100 } as const;
const LEGACY_BASE = 0xa_0000;
const LEGACY_SIZE = 0x2_0000;
const BYTES = { impl: { min: 1, max: 1 } };

const properties = {
  vgamem_mb: prop.u32({ default: 4 }),
  blitter: prop.bool({ default: true }),
  'global-vmstate': prop.bool({ default: false }),
};

/** Cirrus Logic CL-GD5446: a VGA with packed modes, a blitter and a hardware cursor. */
class CirrusVga extends PciDevice<typeof properties> implements ScreenSource {
  readonly head = 0;
  readonly polled = true;
  readonly #s = this.state(1, cirrusState);
  readonly #blt = this.state(1, bltState, { name: 'blt' });
  readonly #ram = new SharedRam('vga.vram', memorySize(this.props.vgamem_mb));
  readonly #mode = new CirrusMode(this.#s);
  readonly #picture = new VgaPicture(this.#s, this.#ram.view, this.#mode);
  readonly #blitter: Blitter = new Blitter(this.#s, this.#blt, this.#ram.bytes, CHIP_MEMORY, {
    enabled: this.props.blitter,
    bpp: () => this.#mode.bpp,
    changed: () => this.#mapFrameBuffer(),
  });
  readonly #ports = new CirrusPorts(this.#s, this.#blitter, () => this.#mapFrameBuffer());
  readonly #memory: CirrusMemory = new CirrusMemory(this.#s, this.#ram.bytes, CHIP_MEMORY, {
    vga: new VgaMemory(this.#s, this.#ram.bytes, this.#ram.view),
    ports: this.#ports,
    blitter: this.#blitter,
  });
  readonly #frameBuffer = MemoryRegion.ram(this.#ram);

  get device(): string | undefined {
    return this.id;
  }

  draw(surface: Surface): Surface {
    const drawn = this.#picture.draw(surface);
    drawCursor(this.#s, this.#ram.bytes, CHIP_MEMORY, drawn);
    return drawn;
  }

  text(): readonly string[] | undefined {
    return this.#picture.text();
  }

  protected override realize(): void {
    const { io, memory } = this.pciBus;
    const ports = MemoryRegion.io('cirrus-io', 0x30, this.#ports, BYTES);
    const window = MemoryRegion.io('cirrus-low-memory', LEGACY_SIZE, this.#memory.window, BYTES);
    io.add(ports, 0x3b0, 1);
    memory.add(window, LEGACY_BASE, 1);
    this.onUnrealize(() => [ports, window].forEach(region => region.parent?.remove(region)));
    this.bar(0, this.#frameBufferBar(), { size: BAR0.SIZE, prefetchable: true });
    this.bar(1, this.#registerBar(), { size: BAR1.SIZE });
    this.onUnrealize(this.services.guestRam(this.#ram));
    const screen = this.services.displays.add(this);
    this.onUnrealize(() => this.services.displays.remove(screen));
  }

  protected override resetHold(): void {
    const { sequencer, graphics, crtc } = this.#s;
    sequencer[SR.UNLOCK] = 0x0f;
    sequencer[0x1f] = 0x2d; // memory clock
    graphics[0x18] = 0x0f;
    sequencer[SR.DRAM] = 0x98;
    sequencer[SR.CONFIGURATION] = 0x20; // on a PCI bus
    sequencer[SR.SCRATCH_3] = 0x04; // 4 MiB
    crtc[CR.PART_ID] = PART_ID;
    this.#frameBuffer.setEnabled(false);
  }

  protected override restored(): void {
    this.#blitter.restored();
    this.#mapFrameBuffer();
  }

  #frameBufferBar(): MemoryRegion {
    const bar = MemoryRegion.container('cirrus-pci-bar0', BAR0.SIZE);
    bar.add(MemoryRegion.io('cirrus-linear-io', this.#ram.size, this.#memory.linear, BYTES), 0, 0);
    bar.add(
      MemoryRegion.io('cirrus-bitblt-mmio', BAR0.BLT_SOURCE_SIZE, this.#memory.source, BYTES),
      BAR0.BLT_SOURCE,
      0,
    );
    bar.add(this.#frameBuffer, 0, 1);
    this.#frameBuffer.setEnabled(false);
    return bar;
  }

  /** The ports from 3C0h, and from 100h the blitter's registers. */
  #registerBar(): MemoryRegion {
    const ports = this.#ports;
    const handler = {
      read: (offset: number) =>
        offset >= BAR1.REGISTERS ? ports.readMapped(offset - BAR1.REGISTERS) : ports.read(offset + 0x10),
      write: (offset: number, size: number, value: number) => {
        if (offset >= BAR1.REGISTERS) ports.writeMapped(offset - BAR1.REGISTERS, value);
        else ports.write(offset + 0x10, size, value);
      },
    };
    return MemoryRegion.io('cirrus-mmio', BAR1.SIZE, handler, BYTES);
  }

  /** While the frame buffer is no more than memory, the CPU reaches it without us. */
  #mapFrameBuffer(): void {
    this.#frameBuffer.setEnabled(this.#memory.isPlain);
  }
}

/** @throws SouthbridgeError ERR_PROPERTY_VALUE with QEMU's words */
function memorySize(mib: number): number {
  if (mib === 4 || mib === 8 || mib === 16) return mib * MIB;
  throw new SouthbridgeError('ERR_PROPERTY_VALUE', `Invalid cirrus_vga ram size '${mib}'`);
}

export const cirrusVga = deviceType({
  type: 'cirrus-vga',
  summary: 'Cirrus Logic CL-GD5446',
  category: 'display',
  parents: ['pci-device', 'device'],
  hotpluggable: false,
  properties,
  pci: { vendor: 0x1013, device: PART_ID, class: 0x03_0000, rom: 'vgabios-cirrus.bin' },
  create: CirrusVga,
});
