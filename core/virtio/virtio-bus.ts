import { Bus, type DeviceHome } from '../device/bus.ts';
import type { Device } from '../device/device.ts';
import type { DeviceServices } from '../device/services.ts';
import type { Dma } from '../memory/dma.ts';
import { VirtioDevice } from './virtio-device.ts';

/** How a virtio device reaches its driver: PCI, MMIO (virtio 1.2, section 4). */
export interface VirtioTransport {
  readonly dma: Dma;
  /** Features that the transport adds to what the device offers. */
  transportFeatures(): bigint;
  /** The ISR status has changed: interrupt through `vector`, where there are vectors. */
  interrupt(vector: number): void;
  /** The device is there, with its queues and its configuration. */
  plugged(device: VirtioDevice): void;
}

/** The one device behind a transport is the transport's child in the object tree. */
class Backend implements DeviceHome {
  readonly #owner: Device;

  constructor(owner: Device) {
    this.#owner = owner;
  }

  adopt(device: Device): void {
    this.#owner.addChild('virtio-backend', device);
  }

  disown(device: Device): void {
    this.#owner.removeChild(device);
  }
}

/** Between a transport and its device. */
export class VirtioBus extends Bus {
  readonly transport: VirtioTransport;

  constructor(
    busName: string,
    transport: VirtioTransport,
    parts: { readonly services: DeviceServices; readonly owner: Device; readonly home?: DeviceHome },
  ) {
    const typeName = parts.owner.typeName === 'virtio-mmio' ? 'virtio-mmio-bus' : 'virtio-pci-bus';
    super('virtio-bus', busName, { home: parts.home ?? new Backend(parts.owner), typeName, ...parts });
    this.transport = transport;
  }

  /** There is one device behind a transport. */
  override addressOf(): string {
    return 'virtio';
  }

  override get typeChain(): readonly string[] {
    return [this.typeName, 'virtio-bus', 'bus', 'object'];
  }

  override get full(): boolean {
    return this.devices.length > 0;
  }

  get device(): VirtioDevice | undefined {
    const [device] = this.devices;
    return device instanceof VirtioDevice ? device : undefined;
  }
}
