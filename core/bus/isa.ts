import { Bus, type DeviceHome } from '../device/bus.ts';
import { Device } from '../device/device.ts';
import type { DeviceContext } from '../device/device-type.ts';
import type { PropSet } from '../device/property.ts';
import type { DeviceServices } from '../device/services.ts';
import { SouthbridgeError } from '../errors.ts';
import { type IrqLine, WiredOr } from '../irq/line.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import { Dma } from '../memory/dma.ts';
import { type IoHandler, type IoOptions, MemoryRegion } from '../memory/memory-region.ts';

export const ISA_IRQS = 16;

/**
 * A device's side of one 8237 channel. The controller calls `transfer` while DREQ is high and the channel unmasked: the device
 * moves bytes between itself and `position`..`size` of the programmed block, and returns the new position.
 */
export type DmaTransfer = (channel: IsaDmaChannel, position: number, size: number) => number;

/** One channel of the ISA DMA controllers, as a device uses it. */
export interface IsaDmaChannel {
  readonly number: number;
  /** Whether the channel has been set to auto-initialize. */
  readonly autoInit: boolean;
  register(transfer: DmaTransfer): void;
  /** Raises or drops DREQ. */
  request(level: boolean): void;
  /** Copies from memory at `position` of the block into `target`. */
  readMemory(target: Uint8Array, at: number, position: number, length: number): void;
  writeMemory(source: Uint8Array, at: number, position: number, length: number): void;
}

export interface IsaBusParts {
  readonly services: DeviceServices;
  readonly home: DeviceHome;
  readonly owner?: Device | undefined;
  readonly memory: MemoryRegion;
  readonly io: MemoryRegion;
  readonly dmaSpace: AddressSpace;
  /** Where the 16 interrupt requests go. */
  readonly irqs: readonly IrqLine[];
}

/** The ISA bus: ports, memory below 16 MiB, 16 interrupt requests, 8 DMA channels. */
export class IsaBus extends Bus {
  readonly memory: MemoryRegion;
  readonly io: MemoryRegion;
  readonly dmaSpace: AddressSpace;
  readonly #wires: readonly WiredOr[];
  /** Set by the DMA controllers once they are there. */
  dmaChannels: readonly IsaDmaChannel[] = [];

  constructor(busName: string, parts: IsaBusParts) {
    super('ISA', busName, parts);
    this.memory = parts.memory;
    this.io = parts.io;
    this.dmaSpace = parts.dmaSpace;
    this.#wires = parts.irqs.map(line => new WiredOr(line));
  }

  /** How many interrupt requests there are. */
  get irqCount(): number {
    return this.#wires.length;
  }

  /** One more source of interrupt request `irq`. */
  irq(irq: number, name: string): IrqLine {
    const wire = this.#wires[irq];
    if (wire === undefined) {
      throw new SouthbridgeError(
        'ERR_ISA_IRQ',
        `${name} asks for ISA IRQ ${irq}`,
        `the bus has IRQ 0 to ${this.#wires.length - 1}`,
      );
    }
    return wire.input(name);
  }

  dmaChannel(number: number, name: string): IsaDmaChannel | undefined {
    if (number < 0) return undefined;
    const channel = this.dmaChannels[number];
    if (channel === undefined)
      throw new SouthbridgeError('ERR_ISA_DMA', `${name} asks for ISA DMA channel ${number}, which is not there`);
    return channel;
  }
}

/** A device on the ISA bus. */
export abstract class IsaDevice<S extends PropSet = PropSet> extends Device<S> {
  readonly isaBus: IsaBus;
  readonly dma: Dma;
  readonly #regions: MemoryRegion[] = [];

  constructor(context: DeviceContext<S>) {
    super(context);
    if (!(context.bus instanceof IsaBus)) {
      throw new SouthbridgeError(
        'ERR_DEVICE_TYPE',
        `'${context.type.type}' is an ISA device; its type must say bus: 'ISA'`,
      );
    }
    this.isaBus = context.bus;
    this.dma = new Dma(context.bus.dmaSpace);
  }

  /** Wires output `line` to interrupt request `irq`. */
  protected connectIrq(line: IrqLine, irq: number): void {
    const input = this.isaBus.irq(irq, `${this.typeName}.${line.name}`);
    line.connect(level => input.set(level));
  }

  /** Decodes `size` ports from `base`. Returns the region, so that the device can move or disable it. */
  protected ports(base: number, size: number, handler: IoHandler, io?: IoOptions, name = this.typeName): MemoryRegion {
    return this.#map(this.isaBus.io, base, MemoryRegion.io(name, size, handler, io));
  }

  protected memoryWindow(base: number, region: MemoryRegion, priority = 1): MemoryRegion {
    return this.#map(this.isaBus.memory, base, region, priority);
  }

  override detach(): void {
    for (const region of this.#regions.splice(0)) region.parent?.remove(region);
    super.detach();
  }

  #map(space: MemoryRegion, base: number, region: MemoryRegion, priority?: number): MemoryRegion {
    space.add(region, base, priority);
    this.#regions.push(region);
    return region;
  }
}
