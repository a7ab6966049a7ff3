/** QEMU's ACPI controller for PCI hotplug (docs/specs/acpi_pci_hotplug), which PIIX4 and ICH9 power management contain. */
import type { Device } from '../core/device/device.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { MemoryRegion } from '../core/memory/memory-region.ts';
import type { HotplugController, PciBus } from '../core/pci/pci-bus.ts';
import type { PciDevice } from '../core/pci/pci-device.ts';
import { field, type StateValues } from '../core/state/fields.ts';

/** Registers, all of 32 bits. */
const UP = 0x00;
const DOWN = 0x04;
const EJECT = 0x08;
const REMOVABLE = 0x0c;
const SELECT = 0x10;
const ACPI_INDEX = 0x14;
export const PCI_HOTPLUG_SIZE = 0x18;

const MAX_BUSES = 256;
const SLOT_OF_DEVFN = 3;

export const acpiPciHotplugState = {
  select: field.u32(),
  acpiIndex: field.u32(),
  /** Slots with a device that the guest has not seen, by bus. */
  up: field.words(MAX_BUSES),
  /** Slots with a device that is to go. */
  down: field.words(MAX_BUSES),
};

export interface AcpiPciHotplugOptions {
  readonly root: () => PciBus;
  /** Slots of the root bus take part. */
  readonly rootSlots: boolean;
  /** Slots behind bridges that were there at power-on take part. */
  readonly bridges: boolean;
  /** Raises the general-purpose event. */
  readonly raise: () => void;
}

/** Tells the guest which slots have news, and ejects on its word. Numbers the buses that take part on the first reset. */
export class AcpiPciHotplug implements HotplugController {
  readonly #s: StateValues<typeof acpiPciHotplugState>;
  readonly #options: AcpiPciHotplugOptions;
  readonly #buses: PciBus[] = [];
  readonly #removable = new Uint32Array(MAX_BUSES);
  readonly #unplugging = new Map<PciDevice, () => void>();
  readonly #later = new WeakSet<PciDevice>();
  #numbered = false;

  constructor(state: StateValues<typeof acpiPciHotplugState>, options: AcpiPciHotplugOptions) {
    this.#s = state;
    this.#options = options;
  }

  region(): MemoryRegion {
    return MemoryRegion.io(
      'acpi-pci-hotplug',
      PCI_HOTPLUG_SIZE,
      { read: offset => this.#read(offset), write: (offset, _size, value) => this.#write(offset, value) },
      { valid: { min: 4, max: 4 }, impl: { min: 4, max: 4 } },
    );
  }

  /** The number by which the guest selects `bus`; undefined where its slots do not take part. */
  bsel(bus: PciBus): number | undefined {
    const index = this.#buses.indexOf(bus);
    return index < 0 ? undefined : index;
  }

  /** Carries out pending removals; what is there now is the firmware's to find. */
  reset(): void {
    if (!this.#numbered) {
      this.#numbered = true;
      this.#number(this.#options.root(), this.#options.rootSlots);
    }
    this.#buses.forEach((bus, index) => {
      this.#eject(index, this.#s.down[index] ?? 0);
      let removable = 0xffff_ffff;
      for (const device of bus.functions) {
        if (!this.#canGo(device)) removable &= ~(1 << (device.devfn >> SLOT_OF_DEVFN));
      }
      this.#removable[index] = removable >>> 0;
    });
  }

  /** Whether the device was plugged in while the guest ran. */
  cameLater(device: PciDevice): boolean {
    return this.#later.has(device);
  }

  plugged(device: PciDevice): void {
    const index = this.#indexOf(device);
    this.#later.add(device);
    this.#s.up[index] = ((this.#s.up[index] ?? 0) | this.#slot(device)) >>> 0;
    this.#options.raise();
  }

  requestUnplug(device: PciDevice, done: () => void): void {
    const index = this.#indexOf(device);
    this.#unplugging.set(device, done);
    this.#s.down[index] = ((this.#s.down[index] ?? 0) | this.#slot(device)) >>> 0;
    this.#options.raise();
  }

  /** Depth first; of the bridges on one bus the last that was made comes first. */
  #number(bus: PciBus, takesPart: boolean): void {
    if (takesPart && this.#buses.length < MAX_BUSES) {
      this.#buses.push(bus);
      bus.hotplugController = this;
    }
    if (!this.#options.bridges) return;
    for (const device of [...bus.devices].reverse()) {
      const below = secondaryBus(device);
      if (below !== undefined) this.#number(below, true);
    }
  }

  #indexOf(device: PciDevice): number {
    const index = this.#buses.indexOf(device.pciBus);
    if (index >= 0) return index;
    throw new SouthbridgeError('ERR_HOTPLUG', "Unsupported bus. Bus doesn't have property 'acpi-pcihp-bsel' set");
  }

  #slot(device: PciDevice): number {
    return (1 << (device.devfn >> SLOT_OF_DEVFN)) >>> 0;
  }

  /** Bridges that were there at power-on, and types that are soldered on, stay. */
  #canGo(device: PciDevice): boolean {
    return device.type.hotpluggable && (device.secondaryBus === undefined || this.#later.has(device));
  }

  #eject(index: number, slots: number): void {
    const bus = this.#buses[index];
    if (bus === undefined) return;
    this.#s.down[index] = ((this.#s.down[index] ?? 0) & ~slots) >>> 0;
    this.#s.up[index] = ((this.#s.up[index] ?? 0) & ~slots) >>> 0;
    for (const device of bus.functions) {
      if ((this.#slot(device) & slots) === 0 || !this.#canGo(device)) continue;
      const done = this.#unplugging.get(device);
      this.#unplugging.delete(device);
      if (done !== undefined) done();
      else bus.unplug(device);
    }
  }

  #read(offset: number): number {
    const { select } = this.#s;
    if (select >= MAX_BUSES) return 0;
    switch (offset) {
      case UP: {
        const slots = this.#s.up[select] ?? 0;
        if (this.#options.bridges) this.#s.up[select] = 0;
        return slots;
      }
      case DOWN:
        return this.#s.down[select] ?? 0;
      case REMOVABLE:
        return this.#removable[select] ?? 0;
      case SELECT:
        return select;
      case ACPI_INDEX: {
        const index = this.#s.acpiIndex;
        this.#s.acpiIndex = 0;
        return index;
      }
      default:
        return 0;
    }
  }

  #write(offset: number, value: number): void {
    this.#s.acpiIndex = 0;
    const { select } = this.#s;
    if (offset === SELECT) {
      this.#s.select = this.#options.bridges ? value : 0;
    } else if (select < MAX_BUSES && value !== 0) {
      const lowest = (value & -value) >>> 0;
      if (offset === EJECT) this.#eject(select, lowest);
      else if (offset === ACPI_INDEX) this.#s.acpiIndex = this.#indexOfSlot(select, lowest);
    }
  }

  /** What the user gave as `acpi-index` for the device in a slot; 0 for nothing. */
  #indexOfSlot(select: number, slot: number): number {
    const device = this.#buses[select]?.functions.find(candidate => this.#slot(candidate) === slot);
    const props: Readonly<Record<string, unknown>> = device?.props ?? {};
    const index = props['acpi-index'];
    return typeof index === 'number' ? index : 0;
  }
}

function secondaryBus(device: Device): PciBus | undefined {
  return 'secondaryBus' in device ? (device as PciDevice).secondaryBus : undefined;
}
