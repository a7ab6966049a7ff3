/**
 * QEMU's ACPI controller for memory hotplug (docs/specs/acpi_mem_hotplug), which PIIX4 and ICH9 power management contain: the
 * guest selects a slot, and reads and writes what concerns the DIMM in it.
 */
import type { MemoryBus, MemoryDevice, MemoryHotplugController } from '../core/bus/memory-bus.ts';
import type { SystemControl } from '../core/device/services.ts';
import { MemoryRegion } from '../core/memory/memory-region.ts';
import { field, type StateValues } from '../core/state/fields.ts';

export const MEMORY_HOTPLUG_BASE = 0xa00;
const SIZE = 0x18;
const MAX_SLOTS = 256;

/** Registers as they are read. */
const ADDRESS_LOW = 0x00;
const ADDRESS_HIGH = 0x04;
const LENGTH_LOW = 0x08;
const LENGTH_HIGH = 0x0c;
const PROXIMITY = 0x10;
/** As they are written. */
const SELECTOR = 0x00;
const OST_EVENT = 0x04;
const OST_STATUS = 0x08;
/** Both ways. */
const FLAGS = 0x14;

const ENABLED = 1 << 0;
const INSERTED = 1 << 1;
const REMOVING = 1 << 2;
const EJECT = 1 << 3;

export const acpiMemoryHotplugState = {
  selector: field.u32(),
  /** INSERTED and REMOVING of each slot. */
  events: field.words(MAX_SLOTS),
  ostEvents: field.words(MAX_SLOTS),
  ostStatus: field.words(MAX_SLOTS),
};

export interface AcpiMemoryHotplugOptions {
  readonly system: SystemControl;
  /** Raises the general-purpose event. */
  readonly raise: () => void;
}

export class AcpiMemoryHotplug implements MemoryHotplugController {
  readonly #s: StateValues<typeof acpiMemoryHotplugState>;
  readonly #options: AcpiMemoryHotplugOptions;
  readonly #leaving = new Map<MemoryDevice, () => void>();
  #bus: MemoryBus | undefined;

  constructor(state: StateValues<typeof acpiMemoryHotplugState>, options: AcpiMemoryHotplugOptions) {
    this.#s = state;
    this.#options = options;
  }

  /** Takes over the modules of `bus`; without slots there are no registers. */
  wire(bus: MemoryBus, io: MemoryRegion): void {
    this.#bus = bus;
    bus.controllers.set('dimm', this);
    if (bus.slotCount > 0) io.add(this.#region(), MEMORY_HOTPLUG_BASE);
  }

  plugged({ slot }: MemoryDevice): void {
    this.#s.events[slot] = (this.#s.events[slot] ?? 0) | INSERTED;
    this.#options.raise();
  }

  requestUnplug(dimm: MemoryDevice, done: () => void): void {
    this.#leaving.set(dimm, done);
    this.#s.events[dimm.slot] = (this.#s.events[dimm.slot] ?? 0) | REMOVING;
    this.#options.raise();
  }

  /** What the guest last reported of each slot (`_OST`). */
  ospmStatus() {
    return Array.from({ length: this.#bus?.slotCount ?? 0 }, (_, slot) => this.#report(slot));
  }

  #report(slot: number) {
    const id = this.#dimmAt(slot)?.id;
    return {
      ...(id !== undefined && { device: id }),
      slot: String(slot),
      'slot-type': 'DIMM',
      source: this.#s.ostEvents[slot] ?? 0,
      status: this.#s.ostStatus[slot] ?? 0,
    } as const;
  }

  #region(): MemoryRegion {
    return MemoryRegion.io(
      'acpi-mem-hotplug',
      SIZE,
      { read: offset => this.#read(offset), write: (offset, _size, value) => this.#write(offset, value) },
      { valid: { min: 1, max: 4 }, impl: { min: 1, max: 4 } },
    );
  }

  /** Modules that keep their contents take slots too, but are none of these registers' business. */
  #dimmAt(slot: number): MemoryDevice | undefined {
    const device = this.#bus?.dimmAt(slot);
    return device?.kind === 'dimm' ? device : undefined;
  }

  #read(offset: number): number {
    const { selector } = this.#s;
    if (this.#bus === undefined || selector >= this.#bus.slotCount) return 0;
    const dimm = this.#dimmAt(selector);
    switch (offset) {
      case ADDRESS_LOW:
        return (dimm?.address ?? 0) >>> 0;
      case ADDRESS_HIGH:
        return Math.floor((dimm?.address ?? 0) / 2 ** 32);
      case LENGTH_LOW:
        return (dimm?.size ?? 0) >>> 0;
      case LENGTH_HIGH:
        return Math.floor((dimm?.size ?? 0) / 2 ** 32);
      case PROXIMITY:
        return dimm?.node ?? 0;
      case FLAGS:
        return (dimm !== undefined ? ENABLED : 0) | (this.#s.events[selector] ?? 0);
      default:
        return 0xffff_ffff;
    }
  }

  #write(offset: number, value: number): void {
    if (offset === SELECTOR) {
      this.#s.selector = value;
      return;
    }
    const { selector } = this.#s;
    if (selector >= (this.#bus?.slotCount ?? 0)) return;
    if (offset === OST_EVENT) {
      this.#s.ostEvents[selector] = value;
    } else if (offset === OST_STATUS) {
      this.#s.ostStatus[selector] = value;
      this.#options.system.emit('ACPI_DEVICE_OST', { info: this.#report(selector) });
    } else if (offset === FLAGS) {
      this.#writeFlags(selector, value);
    }
  }

  #writeFlags(slot: number, value: number): void {
    const events = this.#s.events[slot] ?? 0;
    if ((value & INSERTED) !== 0) this.#s.events[slot] = events & ~INSERTED;
    else if ((value & REMOVING) !== 0) this.#s.events[slot] = events & ~REMOVING;
    else if ((value & EJECT) !== 0) this.#eject(slot);
  }

  /** A guest may also eject what nobody asked for. */
  #eject(slot: number): void {
    const bus = this.#bus;
    const dimm = this.#dimmAt(slot);
    if (bus === undefined || dimm === undefined) return;
    const done = this.#leaving.get(dimm);
    this.#leaving.delete(dimm);
    if (done !== undefined) {
      done();
      return;
    }
    const { id, path } = dimm;
    bus.unplug(dimm);
    this.#options.system.emit('DEVICE_DELETED', { ...(id !== undefined && { device: id }), path });
  }
}
