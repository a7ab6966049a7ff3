import { type MemoryReport, type PluggedMemory, refused } from '../../core/bus/memory-bus.ts';
import { type PropSet, prop } from '../../core/device/property.ts';
import type { MemoryBackend } from '../../core/memory/memory-backend.ts';
import { VirtioDevice, virtioProperties } from '../../core/virtio/virtio-device.ts';

/** What a device with memory for the guest is told. */
export const memoryProperties = {
  ...virtioProperties,
  memaddr: prop.u64({ default: 0n, help: 'physical address of the memory; 0 leaves it to the machine' }),
  memdev: prop.backend<MemoryBackend>('memory-backend', {
    typeName: 'link<memory-backend>',
    help: 'id of the memory backend',
  }),
};

/** What the PCI functions of such devices have not, as QEMU's have not. */
export const functionProperties = {
  vectors: prop.u32({ default: 0, listed: 'no' }),
  ioeventfd: prop.bit({ default: true, listed: 'no' }),
};

/** A virtio device whose business is memory of its own, which lies among the memory modules. */
export abstract class VirtioMemoryDevice<S extends PropSet = PropSet> extends VirtioDevice<S> implements PluggedMemory {
  abstract readonly backend: MemoryBackend | undefined;
  /** The address that the user asked for; 0 leaves it to the machine. */
  abstract readonly wanted: number;
  address = 0;
  abstract readonly plugged: number;
  abstract readonly report: MemoryReport;

  get span(): number {
    return this.backend?.size ?? 0;
  }

  /** The id of the function, which is what the user has named. */
  get userId(): string | undefined {
    return this.bus.owner?.id;
  }

  override get fixture(): string {
    return 'virtio based memory devices cannot be unplugged.';
  }

  /**
   * Finds the place, before anything else is looked at.
   *
   * @param blockSize bytes that address and size have to be multiples of, whatever the backend wants
   * @throws SouthbridgeError ERR_MEMORY_DEVICE
   */
  protected takePlace(blockSize: number): MemoryBackend {
    const { backend } = this;
    if (backend === undefined) throw refused("'memdev' property must be set");
    const bus = this.services.memoryBus();
    if (bus === undefined) throw refused('memory devices (e.g. for memory hotplug) are not supported by the machine');
    this.address = bus.placeFor(this.wanted, backend.size, Math.max(blockSize, backend.alignment));
    this.define('memaddr', 'uint64', () => this.address);
    this.define('memdev', 'link<memory-backend>', () => backend.path);
    return backend;
  }

  /** Shows the memory to the guest. */
  protected showMemory(backend: MemoryBackend): void {
    const bus = this.services.memoryBus();
    if (bus !== undefined) this.onUnrealize(bus.occupy(this, backend));
  }

  /** A property of the device that is its function's, too. */
  protected define(name: string, type: string, get: () => number | string, set?: (value: unknown) => void): void {
    const property = { name, type, get, ...(set !== undefined && { set }) };
    this.defineProperty(property);
    this.bus.owner?.defineProperty(property);
  }
}
