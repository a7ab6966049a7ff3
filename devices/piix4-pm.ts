import { I2cBus } from '../core/bus/i2c.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { MemoryRegion } from '../core/memory/memory-region.ts';
import { CFG } from '../core/pci/config-space.ts';
import { PciDevice } from '../core/pci/pci-device.ts';
import { field } from '../core/state/fields.ts';
import { AcpiCpuHotplug, acpiCpuHotplugState } from './acpi-cpu-hotplug.ts';
import { AcpiMemoryHotplug, acpiMemoryHotplugState } from './acpi-memory-hotplug.ts';
import { AcpiPciHotplug, acpiPciHotplugState } from './acpi-pci-hotplug.ts';
import { AcpiPm, acpiPmState } from './acpi-pm.ts';
import { AcpiNvdimm, acpiNvdimmState } from './nvdimm/acpi-nvdimm.ts';
import { PmSmbus, pmSmbusState } from './pm-smbus.ts';

/** Offsets in configuration space (82371AB datasheet, section 7.1). */
const PMBASE = 0x40;
const DEVACTB = 0x58;
const APMC_EN = 0x02;
const PMREGMISC = 0x80;
const SMBBA = 0x90;
const SMBHSTCFG = 0xd2;

const PM_SIZE = 64;
const SMBUS_SIZE = 64;
/** SMI command and data (82371AB datasheet, section 7.2.1): firmware and the ACPI tables agree on the values. */
const APM_COMMAND = 0xb2;
const ACPI_ENABLE = 0xf1;
const ACPI_DISABLE = 0xf0;
/** QEMU's general-purpose events of this chip. */
const GPE_BASE = 0xafe0;
export const PCI_HOTPLUG_BASE = 0xae00;
const CPU_HOTPLUG_BASE = 0xaf00;
/** General-purpose events by what raises them. */
export const GPE = { pciHotplug: 1, cpuHotplug: 2, memoryHotplug: 3, nvdimmHotplug: 4, vmGenerationId: 5 } as const;

const properties = {
  smb_io_base: prop.u32({ default: 0 }),
  disable_s3: prop.u8({ default: 0 }),
  disable_s4: prop.u8({ default: 0 }),
  s4_val: prop.u8({ default: 2 }),
  'acpi-pci-hotplug-with-bridge-support': prop.bool({ default: true }),
  'acpi-root-pci-hotplug': prop.bool({ default: true }),
  'memory-hotplug-support': prop.bool({ default: true }),
  'smm-compat': prop.bool({ default: false }),
  'smm-enabled': prop.bool({ default: false }),
  'x-not-migrate-acpi-index': prop.bool({ default: false }),
};

/** Function 3 of the 82371AB: power management, general-purpose events and the SMBus host controller. */
export class Piix4Pm extends PciDevice<typeof properties> {
  readonly sci = this.output('sci');
  readonly #smi = this.output('smi', 'smi-irq');
  readonly smbus = this.addBus(new I2cBus('i2c', { services: this.services, home: this.pciBus.home, owner: this }));
  readonly #gpe = this.state(1, { status: field.u16(), enable: field.u16() }, { name: 'gpe' });
  readonly #apm = this.state(1, { command: field.u8(), status: field.u8() }, { name: 'apm' });
  readonly #pm = new AcpiPm(this.state(1, acpiPmState, { name: 'pm' }), {
    clock: this.clock,
    system: this.services.system,
    sci: this.sci,
    disableS3: this.props.disable_s3 !== 0,
    disableS4: this.props.disable_s4 !== 0,
    s4: this.props.s4_val,
    gpePending: () => (this.#gpe.status & this.#gpe.enable) !== 0,
  });
  /** Which buses take part in hotplug, and the guest's side of it. */
  readonly pciHotplug = new AcpiPciHotplug(
    this.state(1, acpiPciHotplugState, { name: 'pci-hotplug', onReset: 'keep' }),
    {
      root: () => this.pciBus,
      rootSlots: this.props['acpi-root-pci-hotplug'],
      bridges: this.props['acpi-pci-hotplug-with-bridge-support'],
      raise: () => this.raiseGpe(GPE.pciHotplug),
    },
  );
  readonly cpuHotplug = new AcpiCpuHotplug(
    this.state(1, acpiCpuHotplugState, { name: 'cpu-hotplug', onReset: 'keep' }),
    {
      system: this.services.system,
      raise: () => this.raiseGpe(GPE.cpuHotplug),
    },
  );
  readonly memoryHotplug = new AcpiMemoryHotplug(
    this.state(1, acpiMemoryHotplugState, { name: 'memory-hotplug', onReset: 'keep' }),
    {
      system: this.services.system,
      raise: () => this.raiseGpe(GPE.memoryHotplug),
    },
  );
  readonly nvdimm = new AcpiNvdimm(this.state(1, acpiNvdimmState, { name: 'nvdimm', onReset: 'keep' }), () =>
    this.raiseGpe(GPE.nvdimmHotplug),
  );
  readonly #smbusHost = new PmSmbus(this.state(1, pmSmbusState, { name: 'smbus' }), this.smbus);
  readonly #pmRegion = MemoryRegion.container('piix4-pm', PM_SIZE);
  readonly #smbusRegion = MemoryRegion.io('pm-smbus', SMBUS_SIZE, this.#smbusHost, { impl: { min: 1, max: 1 } });

  /** Sets bit `event` of GPE0 status: a hotplug controller has something to say. */
  raiseGpe(event: number): void {
    this.#gpe.status |= 1 << event;
    this.#pm.update();
  }

  /** What the guest reported of devices that it was told of, for QMP query-acpi-ospm-status. */
  ospmStatus() {
    return [...this.memoryHotplug.ospmStatus(), ...this.cpuHotplug.ospmStatus()];
  }

  protected override realize(): void {
    const { io } = this.pciBus;
    for (const { offset, region } of this.#pm.regions()) this.#pmRegion.add(region, offset);
    this.#pmRegion.setEnabled(false);
    this.#smbusRegion.setEnabled(false);
    const gpe = MemoryRegion.io(
      'acpi-gpe0',
      4,
      { read: offset => this.#readGpe(offset), write: (offset, _size, value) => this.#writeGpe(offset, value) },
      { impl: { min: 1, max: 1 } },
    );
    const apm = MemoryRegion.io(
      'apm-io',
      2,
      {
        read: offset => (offset === 0 ? this.#apm.command : this.#apm.status),
        write: (offset, _size, value) => this.#writeApm(offset, value),
      },
      { impl: { min: 1, max: 1 } },
    );
    io.add(this.#pmRegion, 0, 1);
    io.add(this.#smbusRegion, 0, 1);
    io.add(gpe, GPE_BASE);
    io.add(apm, APM_COMMAND);
    const pciHotplug = this.pciHotplug.region();
    const cpuHotplug = this.cpuHotplug.region();
    io.add(pciHotplug, PCI_HOTPLUG_BASE);
    io.add(cpuHotplug, CPU_HOTPLUG_BASE);
    this.onUnrealize(() =>
      [this.#pmRegion, this.#smbusRegion, gpe, apm, pciHotplug, cpuHotplug].forEach(region =>
        region.parent?.remove(region),
      ),
    );
    this.onUnrealize(this.services.system.onPowerdown(() => this.#pm.pressPowerButton()));
    this.onUnrealize(this.services.system.onWakeup(reason => this.#pm.woken(reason)));
    const { config } = this;
    config.set8(CFG.STATUS, 0x80);
    config.set8(CFG.STATUS + 1, 0x02);
    config.set8(0x09, 0x00);
    config.set32(SMBBA, this.props.smb_io_base | 1);
    config.set8(SMBHSTCFG, 0x09);
    this.#update();
  }

  protected override configWritten(offset: number, size: number): void {
    if (offset < PMREGMISC + 1 && offset + size > PMBASE) this.#update();
    if (offset < SMBHSTCFG + 1 && offset + size > SMBBA) this.#update();
  }

  protected override resetHold(): void {
    const { config } = this;
    config.set32(DEVACTB, 0);
    config.set32(PMBASE, 0x0000_0001);
    config.set8(PMREGMISC, 0);
    // No system management mode: firmware finds it set up already, and leaves it alone.
    if (!this.props['smm-enabled']) config.set8(DEVACTB + 3, APMC_EN);
    this.#update();
    this.#pm.update();
  }

  /** Ejects what was still to go, which no device may be in the middle of its reset for. */
  protected override resetExit(): void {
    this.#reportIsaDevices();
    this.pciHotplug.reset();
  }

  protected override restored(): void {
    this.#update();
  }

  #update(): void {
    const { config } = this;
    this.#pmRegion.setOffset(config.get32(PMBASE) & 0xffc0);
    this.#pmRegion.setEnabled((config.get8(PMREGMISC) & 1) !== 0);
    this.#smbusRegion.setOffset(config.get32(SMBBA) & 0xffc0);
    this.#smbusRegion.setEnabled((config.get8(SMBHSTCFG) & 1) !== 0);
  }

  /** DEVACTx: which serial and parallel ports are decoded (82371AB datasheet, section 7.1). */
  #reportIsaDevices(): void {
    const present = (port: number): boolean => this.pciBus.io.children.some(region => region.offset === port);
    this.config.set8(0x5f, (present(0x378) ? 0x80 : 0) | 0x10);
    this.config.set8(0x63, 0x60);
    this.config.set8(0x67, (present(0x3f8) ? 0x08 : 0) | (present(0x2f8) ? 0x90 : 0));
  }

  #readGpe(offset: number): number {
    return ((offset < 2 ? this.#gpe.status : this.#gpe.enable) >>> (8 * (offset & 1))) & 0xff;
  }

  #writeGpe(offset: number, value: number): void {
    const shift = 8 * (offset & 1);
    if (offset < 2) this.#gpe.status &= ~(value << shift);
    else this.#gpe.enable = (this.#gpe.enable & ~(0xff << shift)) | (value << shift);
    this.#pm.update();
  }

  #writeApm(offset: number, value: number): void {
    if (offset === 1) {
      this.#apm.status = value;
      return;
    }
    this.#apm.command = value;
    if (value === ACPI_ENABLE) this.#pm.setAcpiEnabled(true);
    else if (value === ACPI_DISABLE) this.#pm.setAcpiEnabled(false);
    if ((this.config.get8(DEVACTB + 3) & APMC_EN) !== 0) this.#smi.pulse();
  }
}

export const piix4Pm = deviceType({
  type: 'PIIX4_PM',
  summary: 'PM',
  parents: ['pci-device', 'device'],
  category: 'bridge',
  userCreatable: false,
  hotpluggable: false,
  properties,
  pci: { vendor: 0x8086, device: 0x7113, revision: 3, class: 0x068000, pin: 'A' },
  create: Piix4Pm,
});
