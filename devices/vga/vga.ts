import { deviceType } from '../../core/device/device-type.ts';
import { type PropValues, prop } from '../../core/device/property.ts';
import type { ScreenSource, Surface } from '../../core/display/screen.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { edidProperties, VGA_MMIO_SIZE, VgaAdapter, videoMemorySize } from './adapter.ts';
import { vgaState } from './state.ts';

const secondaryProperties = {
  vgamem_mb: prop.u32({ default: 16, help: 'video memory in MiB, a power of two' }),
  'qemu-extended-regs': prop.bit({ default: true }),
  edid: prop.bit({ default: true }),
  ...edidProperties,
};
const properties = {
  ...secondaryProperties,
  mmio: prop.bit({ default: true }),
  'global-vmstate': prop.bool({ default: false }),
};

/** A VGA with the Bochs display interface that is only reached through its base address registers: a second screen. */
class SecondaryVga<S extends typeof secondaryProperties = typeof secondaryProperties>
  extends PciDevice<S>
  implements ScreenSource
{
  protected readonly adapter = new VgaAdapter(this.state(1, vgaState), videoMemorySize(this.#own.vgamem_mb));
  readonly head = 0;
  readonly polled = true;

  get #own(): PropValues<typeof secondaryProperties> {
    return this.props as PropValues<typeof secondaryProperties>;
  }

  get device(): string | undefined {
    return this.id;
  }

  draw(surface: Surface): Surface {
    return this.adapter.draw(surface);
  }

  text(): readonly string[] | undefined {
    return this.adapter.text();
  }

  protected override realize(): void {
    const { ram } = this.adapter;
    this.bar(0, MemoryRegion.ram(ram), { size: ram.size, prefetchable: true });
    this.onUnrealize(this.services.guestRam(ram));
    if (this.hasRegisters) this.#addRegisters();
    const screen = this.services.displays.add(this);
    this.onUnrealize(() => this.services.displays.remove(screen));
  }

  protected get hasRegisters(): boolean {
    return true;
  }

  protected override resetHold(): void {
    this.adapter.reset();
  }

  protected override restored(): void {
    this.adapter.restored();
  }

  #addRegisters(): void {
    const props = this.#own;
    const bar = MemoryRegion.container('vga.mmio', VGA_MMIO_SIZE);
    const extended = props['qemu-extended-regs'];
    this.adapter.addRegisters(bar, { extended, ...(props.edid && { monitor: props }) });
    this.bar(2, bar, { size: VGA_MMIO_SIZE });
    if (extended) this.config.set8(0x08, 2);
  }
}

/** QEMU's standard VGA: the same with a VGA's ports and memory window. */
export class StdVga extends SecondaryVga<typeof properties> {
  protected override realize(): void {
    super.realize();
    this.onUnrealize(this.adapter.mapLegacy(this.pciBus));
  }

  protected override get hasRegisters(): boolean {
    return this.props.mmio;
  }
}

const parents = ['pci-vga', 'pci-device', 'device'];

export const vga = deviceType({
  type: 'VGA',
  summary: 'Standard VGA with the Bochs display interface',
  category: 'display',
  parents,
  hotpluggable: false,
  properties,
  pci: { vendor: 0x1234, device: 0x1111, class: 0x030000, rom: 'vgabios-stdvga.bin' },
  create: StdVga,
});

export const secondaryVga = deviceType({
  type: 'secondary-vga',
  summary: 'Standard VGA without its ports, for a second screen',
  category: 'display',
  parents,
  properties: secondaryProperties,
  pci: { vendor: 0x1234, device: 0x1111, class: 0x038000 },
  create: SecondaryVga,
});
