import type { AddressSpace } from '../memory/address-space.ts';
import type { MemoryRegion } from '../memory/memory-region.ts';
import type { DeviceHome } from './bus.ts';
import { Bus } from './bus.ts';
import type { DeviceServices } from './services.ts';

/** The bus of what is soldered on: chips with fixed addresses, placed by the machine definition. */
export class SystemBus extends Bus {
  readonly memory: MemoryRegion;
  readonly io: MemoryRegion;
  readonly dmaSpace: AddressSpace;

  constructor(parts: {
    services: DeviceServices;
    home: DeviceHome;
    memory: MemoryRegion;
    io: MemoryRegion;
    dmaSpace: AddressSpace;
  }) {
    super('System', 'main-system-bus', parts);
    this.memory = parts.memory;
    this.io = parts.io;
    this.dmaSpace = parts.dmaSpace;
  }

  /** Buses that no chip provides: those of a test bench. */
  readonly owned: Bus[] = [];

  /** Takes `bus` as a part of the machine: reset and removed with it. */
  own<B extends Bus>(bus: B): B {
    this.owned.push(bus);
    return this.addChild(bus.busName, bus);
  }

  override resetPhase(phase: 'enter' | 'hold' | 'exit'): void {
    for (const bus of this.owned) bus.resetPhase(phase);
    super.resetPhase(phase);
  }

  override removeAll(): void {
    for (const bus of this.owned) bus.removeAll();
    super.removeAll();
  }
}
