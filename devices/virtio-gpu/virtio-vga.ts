import { type DeviceContext, deviceType } from '../../core/device/device-type.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { VIRTIO_ID } from '../../core/virtio/features.ts';
import {
  VirtioPci,
  type VirtioPciKind,
  type VirtioPciPlaces,
  virtioPciProperties,
} from '../../core/virtio/virtio-pci.ts';
import { VgaAdapter, videoMemorySize } from '../vga/adapter.ts';
import { vgaState } from '../vga/state.ts';
import { gpuProperties, VirtioGpu, virtioGpuDevice } from './virtio-gpu.ts';

const VIDEO_MEMORY_MIB = 8;
const MEMORY_BAR = 0;

/** The structures lie at the end of BAR 2, whose beginning is the VGA's as on a standard VGA; without pages they are closer. */
const places = (paged: boolean): VirtioPciPlaces => ({
  modernBar: 2,
  msixBar: 4,
  modernIoBar: 5,
  ...(paged
    ? { common: 0x3f_d000, isr: 0x3f_e000, device: 0x3f_f000, notify: 0x40_0000, area: 0x1000 }
    : { common: 0x1000, isr: 0x1800, device: 0x2000, notify: 0x3000, area: 0x800 }),
});

const kind: VirtioPciKind = {
  backend: virtioGpuDevice,
  virtioId: VIRTIO_ID.GPU,
  class: 0x03_0000,
  rom: 'vgabios-virtio.bin',
  flavour: 'generic',
  vectors: () => 3,
  places,
};

/** A virtio GPU that is a VGA until its driver takes over. */
class VirtioVga extends VirtioPci {
  readonly #vga = new VgaAdapter(this.state(1, vgaState, { name: 'vga' }), videoMemorySize(VIDEO_MEMORY_MIB));

  constructor(context: DeviceContext<typeof virtioPciProperties>) {
    super(context, kind);
  }

  protected override realize(): void {
    super.realize();
    const { ram } = this.#vga;
    this.bar(MEMORY_BAR, MemoryRegion.ram(ram), { size: ram.size, prefetchable: true });
    this.onUnrealize(this.services.guestRam(ram));
    this.onUnrealize(this.#vga.mapLegacy(this.pciBus));
    this.#vga.addRegisters(this.modernBar, { extended: true });
    if (this.device instanceof VirtioGpu) this.device.fallback = this.#vga;
  }

  protected override resetHold(): void {
    super.resetHold();
    this.#vga.reset();
  }

  protected override restored(): void {
    super.restored();
    this.#vga.restored();
  }
}

export const virtioVga = deviceType({
  type: 'virtio-vga',
  summary: 'GPU without 3D (virtio), and a VGA',
  category: 'display',
  parents: ['virtio-vga-base', 'virtio-pci', 'pci-device', 'device'],
  hotpluggable: false,
  properties: { ...gpuProperties, ...virtioPciProperties } as typeof virtioPciProperties,
  pci: { vendor: 0x1af4, device: 0x1050, class: 0x03_0000, pin: 'A' },
  create: VirtioVga,
});
