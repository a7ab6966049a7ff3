import { Bus } from './bus.ts';
import type { Device } from './device.ts';
import type { DeviceHome } from './bus.ts';
import type { DeviceServices } from './services.ts';
import type { MemoryRegion } from '../memory/memory-region.ts';
import type { AddressSpace } from '../memory/address-space.ts';

/** The bus of what is soldered on: chips with fixed addresses, placed by the machine definition. */
export class SystemBus extends Bus {
  readonly memory: MemoryRegion;
  readonly io: MemoryRegion;
  readonly dmaSpace: AddressSpace;

  constructor(parts: { services: DeviceServices; home: DeviceHome; memory: MemoryRegion; io: MemoryRegion; dmaSpace: AddressSpace }) {
    super('System', 'main-system-bus', parts);
    this.memory = parts.memory;
    this.io = parts.io;
    this.dmaSpace = parts.dmaSpace;
  }

  protected override attached(device: Device): void {
    void device;
  }
}
