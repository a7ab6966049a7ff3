import { Bus, type DeviceHome } from '../device/bus.ts';
import type { Device } from '../device/device.ts';
import type { DeviceServices } from '../device/services.ts';
import { SouthbridgeError } from '../errors.ts';
import type { AddressSpace } from '../memory/address-space.ts';
import type { DmaTranslator } from '../memory/dma.ts';
import type { MemoryRegion } from '../memory/memory-region.ts';
import { PciDevice } from './pci-device.ts';

const SLOT_COUNT = 32;
const FUNCTIONS = 8;

/** Who takes the interrupts of a bus: the host bridge's router, or the bridge above. */
export interface IntxRouter {
  /** The router's input for interrupt pin `pin` (0 to 3) of `devfn`. */
  route(devfn: number, pin: number): number;
  setIrq(input: number, level: boolean): void;
}

/** Who must be asked before a device comes or goes while the guest runs (ACPI or native hotplug). */
export interface HotplugController {
  plugged(device: PciDevice): void;
  /** Asks the guest to let go; `done` is called once it has. Throws where the slot cannot do it. */
  requestUnplug(device: PciDevice, done: () => void): void;
}

/** Gives each function a view of memory of its own. */
export interface Iommu {
  /** The function that it is itself; undefined for a part of the chipset. */
  readonly function: PciDevice | undefined;
  translatorFor(device: PciDevice): DmaTranslator;
}

export interface PciBusParts {
  readonly services: DeviceServices;
  readonly home: DeviceHome;
  readonly owner?: Device | undefined;
  /** Where memory BARs appear. */
  readonly memory: MemoryRegion;
  /** Where I/O BARs appear. */
  readonly io: MemoryRegion;
  /** What functions see as bus masters. */
  readonly dmaSpace: AddressSpace;
  readonly router: IntxRouter;
  readonly express?: boolean;
  /** Compute Express Link: PCI Express that devices with memory share with processors. */
  readonly cxl?: boolean;
  /** First device number that may be given out automatically. */
  readonly firstSlot?: number;
  /** Device numbers there are: 32, or 1 below an Express port. */
  readonly slots?: number;
  /** Of a root bus: an IOMMU leaves its functions alone. */
  readonly bypassIommu?: boolean;
}

/** A PCI or PCI Express bus: 32 devices of 8 functions. */
export class PciBus extends Bus {
  readonly memory: MemoryRegion;
  readonly io: MemoryRegion;
  readonly dmaSpace: AddressSpace;
  readonly router: IntxRouter;
  readonly express: boolean;
  readonly cxl: boolean;
  hotplugController: HotplugController | undefined;
  /** NUMA nodes of a machine whose root bus this is, and where there may be other root buses beside it. */
  numaNodes: number | undefined;
  readonly bypassIommu: boolean;
  readonly #expanders: PciBus[] = [];
  #iommu: Iommu | undefined;
  readonly #functions: (PciDevice | undefined)[] = new Array(SLOT_COUNT * FUNCTIONS).fill(undefined);
  readonly #inputLevels: number[] = [];
  readonly #firstSlot: number;
  readonly #slots: number;

  constructor(busName: string, parts: PciBusParts) {
    super('PCI', busName, parts);
    this.memory = parts.memory;
    this.io = parts.io;
    this.dmaSpace = parts.dmaSpace;
    this.router = parts.router;
    this.cxl = parts.cxl ?? false;
    this.express = parts.express ?? this.cxl;
    this.#firstSlot = parts.firstSlot ?? 0;
    this.#slots = parts.slots ?? SLOT_COUNT;
    this.bypassIommu = parts.bypassIommu ?? false;
  }

  override get typeChain(): readonly string[] {
    const pci = ['PCI', 'bus', 'object'];
    if (!this.express) return pci;
    return this.cxl ? ['CXL', 'PCIE', ...pci] : ['PCIE', ...pci];
  }

  /** The bridge that this one is behind; undefined for a root. */
  get bridge(): PciDevice | undefined {
    return this.owner instanceof PciDevice ? this.owner : undefined;
  }

  /** The bus that this one is below, or itself. */
  get root(): PciBus {
    return this.bridge?.pciBus.root ?? this;
  }

  /** What translates for all functions below this root; undefined for nothing. */
  get iommu(): Iommu | undefined {
    return this.#iommu;
  }

  set iommu(iommu: Iommu | undefined) {
    this.#iommu = iommu;
    this.#translate(this.bypassIommu ? undefined : iommu);
    for (const bus of this.#expanders) bus.iommu = iommu;
  }

  /** Root buses beside this one, with numbers of their own, in the order in which they came. */
  get expanders(): readonly PciBus[] {
    return this.#expanders;
  }

  /** Sends configuration cycles to `bus` as well, until what is returned is called. */
  addExpander(bus: PciBus): () => void {
    this.#expanders.push(bus);
    bus.iommu = this.#iommu;
    return () => {
      this.#expanders.splice(this.#expanders.indexOf(bus), 1);
      bus.iommu = undefined;
    };
  }

  #translate(iommu: Iommu | undefined): void {
    for (const device of this.functions) {
      device.dma.translator = iommu?.translatorFor(device);
      const below = device.secondaryBus;
      if (below !== undefined) below.#translate(iommu);
    }
  }

  /** The bus number that software has given it; 0 for the root. */
  get number(): number {
    return this.owner instanceof PciDevice ? this.owner.secondaryBusNumber : 0;
  }

  /** The functions in order of their numbers. */
  get functions(): readonly PciDevice[] {
    return this.#functions.filter(candidate => candidate !== undefined);
  }

  /** The function at `devfn` (device number * 8 + function), if it answers. */
  function(devfn: number): PciDevice | undefined {
    return this.#functions[devfn];
  }

  /** The function that `number` and `devfn` address, here or behind a bridge. */
  find(number: number, devfn: number): PciDevice | undefined {
    if (number === this.number) return this.#functions[devfn];
    for (const candidate of this.#functions) {
      const below = candidate?.secondaryBus;
      if (candidate === undefined || below === undefined) continue;
      if (
        number >= candidate.secondaryBusNumber &&
        number <= candidate.subordinateBusNumber &&
        candidate.secondaryBusNumber > 0
      )
        return below.find(number, devfn);
    }
    for (const bus of this.#expanders) {
      const found = bus.find(number, devfn);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /** Level of pin `pin` of `devfn`, wire-ORed with the others on the same input. */
  setIntx(devfn: number, pin: number, level: boolean): void {
    const input = this.router.route(devfn, pin);
    const before = this.#inputLevels[input] ?? 0;
    const now = before + (level ? 1 : -1);
    this.#inputLevels[input] = now;
    if (before === 0 || now === 0) this.router.setIrq(input, now > 0);
  }

  /** Levels are recomputed from the functions' pins after a snapshot was loaded. */
  restoreIntx(): void {
    this.#inputLevels.fill(0);
    for (const candidate of this.#functions) {
      if (candidate === undefined || candidate.intxPin < 0 || !candidate.intxLevel) continue;
      const input = this.router.route(candidate.devfn, candidate.intxPin);
      this.#inputLevels[input] = (this.#inputLevels[input] ?? 0) + 1;
    }
  }

  /** Takes the function away from software's view without unplugging it (a bridge, a slot without power). */
  override addressOf(device: Device): string | undefined {
    return device instanceof PciDevice ? device.devfn.toString(16) : undefined;
  }

  protected override attached(device: Device): void {
    if (!(device instanceof PciDevice)) return;
    const devfn = device.requestedAddress < 0 ? this.#freeSlot(device) : device.requestedAddress;
    this.#claim(device, devfn);
    const { root } = this;
    device.dma.translator = root.bypassIommu ? undefined : root.iommu?.translatorFor(device);
  }

  protected override detached(device: Device): void {
    if (device instanceof PciDevice && this.#functions[device.devfn] === device)
      this.#functions[device.devfn] = undefined;
  }

  #claim(device: PciDevice, devfn: number): void {
    const holder = this.#functions[devfn];
    const slot = devfn >> 3;
    if (holder !== undefined) {
      throw new SouthbridgeError(
        'ERR_BUS_ADDRESS',
        `PCI: slot ${slot} function ${devfn & 7} not available for ${device.typeName}, in use by ${holder.typeName},id=${holder.id ?? '(null)'}`,
        'give it another addr=',
      );
    }
    if (slot >= this.#slots) {
      throw new SouthbridgeError(
        'ERR_BUS_ADDRESS',
        `PCI: slot ${slot} is not valid for ${device.typeName}, parent device only allows plugging into slot 0.`,
      );
    }
    const first = this.#functions[devfn & ~7];
    if ((devfn & 7) !== 0 && first !== undefined && !first.multifunction) {
      throw new SouthbridgeError(
        'ERR_BUS_ADDRESS',
        `PCI: ${slot.toString(16)}.0 indicates single function, but ${slot.toString(16)}.${devfn & 7} is already populated.`,
        `give the device at ${slot.toString(16)}.0 multifunction=on`,
      );
    }
    this.#functions[devfn] = device;
    device.setAddress(devfn);
  }

  #freeSlot(device: PciDevice): number {
    for (let slot = this.#firstSlot; slot < this.#slots; slot++) {
      if (this.#functions[slot * FUNCTIONS] === undefined && !this.#reserved(slot)) return slot * FUNCTIONS;
    }
    throw new SouthbridgeError(
      'ERR_BUS_FULL',
      `PCI: no slot/function available for ${device.typeName}, all in use or reserved`,
    );
  }

  #reserved(slot: number): boolean {
    for (let at = 1; at < FUNCTIONS; at++) if (this.#functions[slot * FUNCTIONS + at] !== undefined) return true;
    return false;
  }
}
