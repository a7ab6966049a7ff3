/**
 * QEMU's ACPI controller for CPU hotplug (docs/specs/acpi_cpu_hotplug), which PIIX4 and ICH9 power management contain. It
 * begins as a bitmap of the CPUs that are there, and turns into registers once the guest writes zero to the first byte.
 */
import type { SystemControl } from '../core/device/services.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { MemoryRegion } from '../core/memory/memory-region.ts';
import { field, type StateValues } from '../core/state/fields.ts';

/** Registers once the guest has switched over. */
const SELECTOR = 0x0;
const FLAGS = 0x4;
const COMMAND = 0x5;
const DATA = 0x8;
const REGISTERS = 12;
/** Bytes of the bitmap: CPUs with APIC ids up to 255. */
const BITMAP = 32;
const MAX_CPUS = 288;

const ENABLED = 1 << 0;
const INSERTED = 1 << 1;
const REMOVING = 1 << 2;
const EJECT = 1 << 3;
const FIRMWARE_EJECT = 1 << 4;
const EVENTS = INSERTED | REMOVING | FIRMWARE_EJECT;

const NEXT_WITH_EVENT = 0;
const OST_EVENT = 1;
const OST_STATUS = 2;
const CPU_ID = 3;
const COMMANDS = 4;

export const acpiCpuHotplugState = {
  legacy: field.bool(true),
  selector: field.u32(),
  command: field.u8(),
  /** INSERTED, REMOVING and FIRMWARE_EJECT of each CPU. */
  events: field.words(MAX_CPUS),
  ostEvents: field.words(MAX_CPUS),
  ostStatus: field.words(MAX_CPUS),
};

/** One possible CPU. */
export interface CpuSlot {
  readonly apicId: number;
  readonly present: boolean;
}

export interface AcpiCpuHotplugOptions {
  readonly system: SystemControl;
  /** Raises the general-purpose event. */
  readonly raise: () => void;
}

export class AcpiCpuHotplug {
  readonly #s: StateValues<typeof acpiCpuHotplugState>;
  readonly #options: AcpiCpuHotplugOptions;
  #slots: readonly CpuSlot[] = [{ apicId: 0, present: true }];
  #eject: ((cpu: number) => void) | undefined;

  constructor(state: StateValues<typeof acpiCpuHotplugState>, options: AcpiCpuHotplugOptions) {
    this.#s = state;
    this.#options = options;
  }

  /** The possible CPUs in order of their numbers. @param eject takes a CPU out; absent where none can go */
  wire(slots: readonly CpuSlot[], eject?: (cpu: number) => void): void {
    this.#slots = slots.slice(0, MAX_CPUS);
    this.#eject = eject;
    if (this.#slots.some(slot => slot.apicId >= BITMAP * 8)) this.#s.legacy = false;
  }

  region(): MemoryRegion {
    return MemoryRegion.io(
      'acpi-cpu-hotplug',
      BITMAP,
      {
        read: (offset, size) => (this.#s.legacy ? this.#readBitmap(offset, size) : this.#read(offset, size)),
        write: (offset, _size, value) => this.#write(offset, value),
      },
      { impl: { min: 1, max: 4, unaligned: true } },
    );
  }

  /** CPU number `cpu` has come while the guest ran. */
  plugged(cpu: number): void {
    this.#s.events[cpu] = (this.#s.events[cpu] ?? 0) | INSERTED;
    this.#options.raise();
  }

  /**
   * Asks the guest to let CPU number `cpu` go.
   * @throws SouthbridgeError ERR_HOTPLUG before the guest has switched over: the bitmap has no way to ask
   */
  requestUnplug(cpu: number, type: string): void {
    if (this.#s.legacy)
      throw new SouthbridgeError(
        'ERR_HOTPLUG',
        `acpi: device unplug request for not supported device type: ${type}`,
        'wait until an operating system with ACPI has started',
      );
    this.#s.events[cpu] = (this.#s.events[cpu] ?? 0) | REMOVING;
    this.#options.raise();
  }

  /** What the guest last reported of each CPU (`_OST`); nothing before it has switched over. */
  ospmStatus(): {
    readonly slot: string;
    readonly 'slot-type': 'CPU';
    readonly source: number;
    readonly status: number;
  }[] {
    return this.#s.legacy ? [] : this.#slots.map((_, cpu) => this.#report(cpu));
  }

  #report(cpu: number) {
    const source = this.#s.ostEvents[cpu] ?? 0;
    return { slot: String(cpu), 'slot-type': 'CPU', source, status: this.#s.ostStatus[cpu] ?? 0 } as const;
  }

  #readBitmap(offset: number, size: number): number {
    let value = 0;
    for (const slot of this.#slots) {
      const bit = slot.apicId - 8 * offset;
      if (slot.present && bit >= 0 && bit < 8 * size) value += 2 ** bit;
    }
    return value;
  }

  #read(offset: number, size: number): number {
    if (offset >= REGISTERS) return allOnes(size);
    const { selector, command } = this.#s;
    const slot = this.#slots[selector];
    if (slot === undefined) return 0;
    if (offset === FLAGS) return (slot.present ? ENABLED : 0) | (this.#s.events[selector] ?? 0);
    if (offset !== DATA) return 0;
    return command === NEXT_WITH_EVENT ? selector : command === CPU_ID ? slot.apicId : 0;
  }

  #write(offset: number, value: number): void {
    if (this.#s.legacy) {
      if (offset !== 0 || value !== 0) return;
      this.#s.legacy = false;
    }
    const cpu = this.#s.selector;
    if (offset === SELECTOR) this.#s.selector = value;
    else if (cpu >= this.#slots.length) return;
    else if (offset === FLAGS) this.#writeFlags(cpu, value);
    else if (offset === COMMAND) this.#writeCommand(cpu, value);
    else if (offset === DATA) this.#writeData(cpu, value);
  }

  #writeFlags(cpu: number, value: number): void {
    const events = this.#s.events[cpu] ?? 0;
    if ((value & INSERTED) !== 0) {
      this.#s.events[cpu] = events & ~INSERTED;
    } else if ((value & REMOVING) !== 0) {
      this.#s.events[cpu] = events & ~REMOVING;
    } else if (cpu !== 0 && this.#slots[cpu]?.present === true) {
      // The boot CPU stays.
      if ((value & EJECT) !== 0) {
        this.#s.events[cpu] = events & ~FIRMWARE_EJECT;
        this.#eject?.(cpu);
      } else if ((value & FIRMWARE_EJECT) !== 0) {
        this.#s.events[cpu] = events | FIRMWARE_EJECT;
      }
    }
  }

  #writeCommand(cpu: number, value: number): void {
    if (value >= COMMANDS) return;
    this.#s.command = value;
    if (value !== NEXT_WITH_EVENT) return;
    for (let step = 0; step < this.#slots.length; step++) {
      const candidate = (cpu + step) % this.#slots.length;
      if (((this.#s.events[candidate] ?? 0) & EVENTS) === 0) continue;
      this.#s.selector = candidate;
      return;
    }
  }

  #writeData(cpu: number, value: number): void {
    if (this.#s.command === OST_EVENT) {
      this.#s.ostEvents[cpu] = value;
    } else if (this.#s.command === OST_STATUS) {
      this.#s.ostStatus[cpu] = value;
      this.#options.system.emit('ACPI_DEVICE_OST', { info: this.#report(cpu) });
    }
  }
}

const allOnes = (size: number): number => (size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff);
