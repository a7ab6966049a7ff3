import { Device } from '../core/device/device.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { MemoryRegion } from '../core/memory/memory-region.ts';
import { field } from '../core/state/fields.ts';

/** Registers of a hardware-reduced machine (ACPI 6.4, sections 4.8.3.6 and 4.8.3.7). */
export const GED_REGISTERS = { SLEEP_CONTROL: 0, SLEEP_STATUS: 1, RESET: 2 } as const;
const REGISTERS_SIZE = 3;
export const GED_RESET_VALUE = 0x42;
const SLP_TYP_SHIFT = 2;
const SLP_TYP_MASK = 7;
const SLP_EN = 1 << 5;
const SLP_TYP_S5 = 5;

const EVENTS_SIZE = 4;
export const GED_POWER_BUTTON = 1 << 1;

const properties = { 'ged-event': prop.u32({ default: 0, help: 'events that the tables describe, a bit each' }) };

/**
 * The Generic Event Device (ACPI 6.4, section 5.6.9) as QEMU makes it: one interrupt for all events, a register that says which
 * they are, and the registers that sleep and reset a machine that has no fixed hardware.
 */
export class AcpiGed extends Device<typeof properties> {
  readonly irq = this.output('irq', 'sysbus-irq');
  readonly #s = this.state(1, { events: field.u32() }, { onReset: 'keep' });
  /** Which events there were; reading forgets them. */
  readonly events = MemoryRegion.io(
    'acpi-ged',
    EVENTS_SIZE,
    { read: () => this.#takeEvents(), write: () => {} },
    { valid: { min: 4, max: 4 } },
  );
  readonly registers = MemoryRegion.io(
    'acpi-ged-regs',
    REGISTERS_SIZE,
    { read: () => 0, write: (offset, _size, value) => this.#write(offset, value) },
    { valid: { max: 1 } },
  );

  override get mappedRegions(): readonly { readonly offset: number; readonly size: number }[] {
    return [this.events, this.registers]
      .filter(region => region.parent !== undefined)
      .map(({ offset, size }) => ({ offset, size }));
  }

  protected override realize(): void {
    this.onUnrealize(this.services.system.onPowerdown(() => this.#raise(GED_POWER_BUTTON)));
    this.onUnrealize(() => {
      for (const region of [this.events, this.registers]) region.parent?.remove(region);
    });
  }

  #raise(event: number): void {
    if ((this.props['ged-event'] & event) === 0) return;
    this.#s.events |= event;
    this.irq.pulse();
  }

  #takeEvents(): number {
    const { events } = this.#s;
    this.#s.events = 0;
    return events;
  }

  #write(offset: number, value: number): void {
    const { system } = this.services;
    switch (offset) {
      case GED_REGISTERS.SLEEP_CONTROL:
        if ((value & SLP_EN) !== 0 && ((value >>> SLP_TYP_SHIFT) & SLP_TYP_MASK) === SLP_TYP_S5)
          system.requestShutdown('guest-shutdown');
        break;
      case GED_REGISTERS.RESET:
        if (value === GED_RESET_VALUE) system.requestReset('guest-reset');
        break;
    }
  }
}

export const acpiGed = deviceType({
  type: 'acpi-ged-x86',
  summary: 'ACPI Generic Event Device',
  bus: 'System',
  category: 'misc',
  parents: ['acpi-ged', 'sys-bus-device', 'device'],
  userCreatable: false,
  properties,
  create: AcpiGed,
});
