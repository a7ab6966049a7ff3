import { IsaBus } from '../../core/bus/isa.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { CFG } from '../../core/pci/config-space.ts';
import type { IntxRouter } from '../../core/pci/pci-bus.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { field } from '../../core/state/fields.ts';
import { AcpiCpuHotplug, acpiCpuHotplugState } from '../acpi-cpu-hotplug.ts';
import { AcpiMemoryHotplug, acpiMemoryHotplugState } from '../acpi-memory-hotplug.ts';
import { AcpiPciHotplug, acpiPciHotplugState } from '../acpi-pci-hotplug.ts';
import { AcpiPm, acpiPmState } from '../acpi-pm.ts';
import { AcpiNvdimm, acpiNvdimmState } from '../nvdimm/acpi-nvdimm.ts';
import type { IsaWiring } from '../piix3.ts';
import { GPE } from '../piix4-pm.ts';
import { Tco, tcoState } from './tco.ts';

/** Section numbers are those of Intel's ICH9 datasheet (316972), chapter 13, "LPC Interface Bridge". */

/** 13.1: configuration space. */
const PMBASE = 0x40;
const ACPI_CNTL = 0x44;
const PIRQA_ROUT = 0x60;
const PIRQE_ROUT = 0x68;
/** COM A, COM B, the parallel port and the floppy disk controller, from bit 0. */
const LPC_EN = 0x82;
const LPC_DEVICES = [0x3f8, 0x2f8, 0x378, 0x3f2] as const;
const GEN_PMCON_1 = 0xa0;
const SMI_LOCK = 1 << 4;
const RCBA = 0xf0;
const ACPI_EN = 0x80;
const PIRQ_NOT_ROUTED = 0x80;
const PIRQS = 8;
/** Interrupts that SCI may be, by ACPI_CNTL.SCI_IRQ_SEL. */
const SCI_IRQS: Readonly<Record<number, number>> = { 0: 9, 1: 10, 2: 11, 4: 20, 5: 21 };
const PIC_PINS = 16;

/** 13.8.3: power management I/O. */
const PM_SIZE = 128;
const GPE0 = { AT: 0x20, LENGTH: 16 } as const;
const SMI_AT = 0x30;
const SMI_EN = { TCO: 1 << 13, APMC: 1 << 5, GLOBAL: 1 << 0 } as const;
const TCO = { AT: 0x60, LENGTH: 32 } as const;

/** 10.1: chipset configuration registers, behind RCBA. */
const CHIPSET_SIZE = 0x4000;
const GCS = 0x3410;
const GCS_NO_REBOOT = 1 << 5;
/** Interrupt routes of devices 31 down to 25: where, and what of. */
const ROUTES: readonly (readonly [device: number, offset: number])[] = [
  [31, 0x3140],
  [29, 0x3144],
  [28, 0x3146],
  [27, 0x3148],
  [26, 0x314c],
  [25, 0x3150],
];
const ROUTE_DEFAULT = 0x3210;

const APM_COMMAND = 0xb2;
const ACPI_ENABLE = 0x02;
const ACPI_DISABLE = 0x03;
const RESET_CONTROL = 0xcf9;
const RCR_RESET_CPU = 0x04;
export const ICH9_PCI_HOTPLUG_BASE = 0xcc0;
const CPU_HOTPLUG_BASE = 0xcd8;

const properties = {
  noreboot: prop.bool({ default: true }),
  'smm-compat': prop.bool({ default: false }),
  'x-smi-broadcast': prop.bit({ default: true }),
  'x-smi-cpu-hotplug': prop.bit({ default: true }),
  'x-smi-cpu-hotunplug': prop.bit({ default: true }),
  disable_s3: prop.u8({ default: 0, listed: 'value' }),
  disable_s4: prop.u8({ default: 0, listed: 'value' }),
  s4_val: prop.u8({ default: 2, listed: 'value' }),
  enable_tco: prop.bool({ default: true, listed: 'value' }),
  'acpi-pci-hotplug-with-bridge-support': prop.bool({ default: true, listed: 'value' }),
  'memory-hotplug-support': prop.bool({ default: true, listed: 'value' }),
  'x-not-migrate-acpi-index': prop.bool({ default: false, listed: 'no' }),
} as const;

export interface LpcWiring extends IsaWiring {
  /** Whether the CPUs have system management mode. */
  readonly smm: boolean;
}

/** The LPC bridge of ICH9: interrupt routing, power management, the TCO watchdog, and the ISA devices' bus. */
export class Ich9Lpc extends PciDevice<typeof properties> implements IntxRouter {
  readonly #gpe = this.state(
    1,
    { status: field.bytes(GPE0.LENGTH / 2), enable: field.bytes(GPE0.LENGTH / 2) },
    { name: 'gpe' },
  );
  readonly #s = this.state(1, {
    pirqLevels: field.u8(),
    sci: field.bool(),
    apmCommand: field.u8(),
    apmStatus: field.u8(),
    smiEnable: field.u32(),
    smiStatus: field.u32(),
    resetControl: field.u8(),
  });
  readonly #chipset = this.state(1, { bytes: field.bytes(CHIPSET_SIZE) }, { name: 'chipset' });
  readonly #pm: AcpiPm = new AcpiPm(this.state(1, acpiPmState, { name: 'pm' }), {
    clock: this.clock,
    system: this.services.system,
    sci: this.#sciLine(),
    disableS3: this.props.disable_s3 !== 0,
    disableS4: this.props.disable_s4 !== 0,
    s4: this.props.s4_val,
    gpePending: () => this.#gpe.status.some((byte, index) => (byte & (this.#gpe.enable[index] ?? 0)) !== 0),
  });
  readonly #tco = new Tco(this.state(1, tcoState, { name: 'tco' }), {
    clock: this.clock,
    reboot: () => {
      const [low = 0] = this.#chipset.bytes.subarray(GCS);
      if (this.props.noreboot || (low & GCS_NO_REBOOT) !== 0) return false;
      this.services.system.watchdogExpired(this.typeName);
      return true;
    },
    smi: () => {
      if ((this.#s.smiEnable & SMI_EN.TCO) !== 0) this.log.unimplemented('system management interrupts');
    },
  });
  readonly pciHotplug = new AcpiPciHotplug(
    this.state(1, acpiPciHotplugState, { name: 'pci-hotplug', onReset: 'keep' }),
    {
      root: () => this.pciBus,
      rootSlots: false,
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
  readonly #pmRegion = MemoryRegion.container('ich9-pm', PM_SIZE);
  readonly #chipsetRegion = MemoryRegion.io('lpc-rcrb-mmio', CHIPSET_SIZE, {
    read: (offset, size) => {
      let value = 0;
      for (let at = 0; at < size; at++) value |= (this.#chipset.bytes[offset + at] ?? 0) << (8 * at);
      return value >>> 0;
    },
    write: (offset, size, value) => {
      for (let at = 0; at < size; at++) this.#chipset.bytes[offset + at] = value >>> (8 * at);
      this.#readRoutes();
    },
  });
  /** PIRQ of each device's four pins, 0 to 7 for A to H. */
  readonly #routes = Array.from({ length: 32 }, () => [0, 0, 0, 0]);
  readonly #levels = new Uint8Array(24);
  #interrupts: readonly ((level: boolean) => void)[] = [];
  isa: IsaBus | undefined;
  #smm = false;

  #sciLine() {
    const line = this.output('sci');
    line.connect(level => {
      this.#s.sci = level;
      this.#drive();
    });
    return line;
  }

  /** Makes the ISA bus; `irqs` are the 24 inputs of the interrupt controllers. */
  wire({ memory, io, dmaSpace, irqs, smm }: LpcWiring): IsaBus {
    this.#smm = smm;
    const isa = this.addBus(
      new IsaBus('isa.0', {
        services: this.services,
        home: this.pciBus.home,
        owner: this,
        memory,
        io,
        dmaSpace,
        irqs: irqs.slice(0, PIC_PINS),
      }),
    );
    this.#interrupts = irqs.map((line, gsi) => {
      if (gsi >= PIC_PINS) return level => line.set(level);
      const input = isa.irq(gsi, `lpc${gsi}`);
      return level => input.set(level);
    });
    this.isa = isa;
    return isa;
  }

  /** Sets bit `event` of GPE0 status. */
  raiseGpe(event: number): void {
    const at = event >> 3;
    this.#gpe.status[at] = (this.#gpe.status[at] ?? 0) | (1 << (event & 7));
    this.#pm.update();
  }

  /** What the guest reported of devices that it was told of, for QMP query-acpi-ospm-status. */
  ospmStatus() {
    return [...this.memoryHotplug.ospmStatus(), ...this.cpuHotplug.ospmStatus()];
  }

  protected override realize(): void {
    const { io } = this.pciBus;
    const bytes = { impl: { min: 1, max: 1 } } as const;
    for (const { offset, region } of this.#pm.regions()) this.#pmRegion.add(region, offset);
    this.#pmRegion.add(
      MemoryRegion.io(
        'acpi-gpe0',
        GPE0.LENGTH,
        { read: at => this.#gpeByte(at), write: (at, _size, value) => this.#writeGpe(at, value) },
        bytes,
      ),
      GPE0.AT,
    );
    this.#pmRegion.add(
      MemoryRegion.io(
        'acpi-smi',
        8,
        {
          read: at => (at === 0 ? this.#s.smiEnable : at === 4 ? this.#s.smiStatus : 0),
          write: (at, _size, value) => at === 0 && this.#writeSmiEnable(value),
        },
        { valid: { min: 4, max: 4 }, impl: { min: 4, max: 4 } },
      ),
      SMI_AT,
    );
    if (this.props.enable_tco)
      this.#pmRegion.add(MemoryRegion.io('sm-tco', TCO.LENGTH, this.#tco, { impl: { min: 1, max: 2 } }), TCO.AT);
    this.#pmRegion.setEnabled(false);
    this.#chipsetRegion.setEnabled(false);
    const apm = MemoryRegion.io(
      'apm-io',
      2,
      {
        read: at => (at === 0 ? this.#s.apmCommand : this.#s.apmStatus),
        write: (at, _size, value) => this.#writeApm(at, value),
      },
      bytes,
    );
    const reset = MemoryRegion.io(
      'lpc-reset-control',
      1,
      { read: () => this.#s.resetControl, write: (_at, _size, value) => this.#writeReset(value) },
      bytes,
    );
    const pciHotplug = this.pciHotplug.region();
    const cpuHotplug = this.cpuHotplug.region();
    io.add(this.#pmRegion, 0, 1);
    io.add(apm, APM_COMMAND, 0);
    io.add(reset, RESET_CONTROL, 1);
    io.add(pciHotplug, ICH9_PCI_HOTPLUG_BASE, 1);
    io.add(cpuHotplug, CPU_HOTPLUG_BASE, 1);
    this.pciBus.memory.add(this.#chipsetRegion, 0, 1);
    this.onUnrealize(() =>
      [this.#pmRegion, apm, reset, pciHotplug, cpuHotplug, this.#chipsetRegion].forEach(region =>
        region.parent?.remove(region),
      ),
    );
    this.onUnrealize(this.services.system.onPowerdown(() => this.#pm.pressPowerButton()));
    this.onUnrealize(this.services.system.onWakeup(reason => this.#pm.woken(reason)));
    const { config } = this;
    config.set16(CFG.STATUS, 0);
    config.writable.fill(0xff, PMBASE, PMBASE + 4);
    config.mask32(config.writable, PMBASE, 0xff80);
    config.mask32(config.writable, RCBA, 0xffff_c001);
  }

  protected override configWritten(offset: number, size: number): void {
    const touched = (at: number, length: number): boolean => offset < at + length && offset + size > at;
    if (touched(PMBASE, 4) || touched(ACPI_CNTL, 1)) this.#placePm();
    if (touched(RCBA, 4)) this.#placeChipset();
    if (touched(PIRQA_ROUT, 4) || touched(PIRQE_ROUT, 4)) this.#drive();
    if (touched(GEN_PMCON_1, 2) && (this.config.get16(GEN_PMCON_1) & SMI_LOCK) !== 0)
      this.config.writable[GEN_PMCON_1] = ~SMI_LOCK & 0xff;
  }

  protected override resetHold(): void {
    const { config } = this;
    config.set32(PMBASE, 1);
    config.set8(ACPI_CNTL, 0);
    for (let pirq = 0; pirq < 4; pirq++) {
      config.set8(PIRQA_ROUT + pirq, PIRQ_NOT_ROUTED);
      config.set8(PIRQE_ROUT + pirq, PIRQ_NOT_ROUTED);
    }
    config.set32(RCBA, 0);
    config.writable[GEN_PMCON_1] = 0xff;
    // Without system management mode firmware finds it set up already, and leaves it alone.
    this.#s.smiEnable = this.#smm ? 0 : SMI_EN.APMC;
    this.#tco.reset();
    const chipset = new DataView(this.#chipset.bytes.buffer, this.#chipset.bytes.byteOffset);
    for (const [, offset] of ROUTES) chipset.setUint16(offset, ROUTE_DEFAULT, true);
    chipset.setUint32(GCS, GCS_NO_REBOOT, true);
    this.#readRoutes();
    this.#placePm();
    this.#placeChipset();
    this.#pm.update();
  }

  /** LPC_EN: which devices are decoded (10.1.24), which is known once all have been plugged. */
  protected override resetExit(): void {
    const { children } = this.pciBus.io;
    let enabled = 0;
    for (const [bit, port] of LPC_DEVICES.entries())
      if (children.some(region => region.offset === port)) enabled |= 1 << bit;
    this.config.set8(LPC_EN, enabled);
    this.pciHotplug.reset();
  }

  protected override restored(): void {
    this.#tco.restored();
    this.#readRoutes();
    this.#placePm();
    this.#placeChipset();
    for (let gsi = 0; gsi < this.#levels.length; gsi++) this.#levels[gsi] = this.#level(gsi) ? 1 : 0;
  }

  #placePm(): void {
    const { config } = this;
    const base = (config.get8(ACPI_CNTL) & ACPI_EN) === 0 ? 0 : config.get32(PMBASE) & 0xff80;
    this.#pmRegion.setEnabled(base !== 0);
    this.#pmRegion.setOffset(base);
    this.#drive();
  }

  #placeChipset(): void {
    const value = this.config.get32(RCBA);
    this.#chipsetRegion.setOffset((value & 0xffff_c000) >>> 0);
    this.#chipsetRegion.setEnabled((value & 1) !== 0);
  }

  // Interrupts (10.1.25 to 10.1.31, and 13.1.17)

  /** Firmware's tables say the same: devices without a route of their own are spread over PIRQE to PIRQH. */
  #readRoutes(): void {
    for (const [device, pins] of this.#routes.entries())
      for (let pin = 0; pin < 4; pin++) pins[pin] = ((device + pin) % 4) + 4;
    const chipset = new DataView(this.#chipset.bytes.buffer, this.#chipset.bytes.byteOffset);
    for (const [device, offset] of ROUTES) {
      const route = chipset.getUint16(offset, true);
      const pins = this.#routes[device];
      if (pins !== undefined) for (let pin = 0; pin < 4; pin++) pins[pin] = (route >> (4 * pin)) & 7;
    }
    const bridge = this.#routes[30];
    if (bridge !== undefined) for (let pin = 0; pin < 4; pin++) bridge[pin] = pin + 4;
  }

  route(devfn: number, pin: number): number {
    return this.#routes[devfn >> 3]?.[pin] ?? pin;
  }

  setIrq(input: number, level: boolean): void {
    const mask = 1 << input;
    this.#s.pirqLevels = level ? this.#s.pirqLevels | mask : this.#s.pirqLevels & ~mask;
    this.#drive();
  }

  get #sciIrq(): number {
    return SCI_IRQS[this.config.get8(ACPI_CNTL) & 7] ?? -1;
  }

  /** A PIRQ is always input 16 and up of the I/O APIC, and an ISA interrupt where it is routed to one. */
  #level(gsi: number): boolean {
    const { pirqLevels } = this.#s;
    if (this.#s.sci && gsi === this.#sciIrq) return true;
    if (gsi >= PIC_PINS) return ((pirqLevels >> (gsi - PIC_PINS)) & 1) !== 0;
    for (let pirq = 0; pirq < PIRQS; pirq++) {
      if (((pirqLevels >> pirq) & 1) === 0) continue;
      const route = this.config.get8(pirq < 4 ? PIRQA_ROUT + pirq : PIRQE_ROUT + pirq - 4);
      if ((route & PIRQ_NOT_ROUTED) === 0 && (route & 0x0f) === gsi) return true;
    }
    return false;
  }

  #drive(): void {
    for (let gsi = 0; gsi < this.#levels.length; gsi++) {
      const level = this.#level(gsi);
      if (level === (this.#levels[gsi] !== 0)) continue;
      this.#levels[gsi] = level ? 1 : 0;
      this.#interrupts[gsi]?.(level);
    }
  }

  // Power management I/O

  #gpeByte(at: number): number {
    const half = GPE0.LENGTH / 2;
    return (at < half ? this.#gpe.status[at] : this.#gpe.enable[at - half]) ?? 0;
  }

  #writeGpe(at: number, value: number): void {
    const half = GPE0.LENGTH / 2;
    if (at < half) this.#gpe.status[at] = (this.#gpe.status[at] ?? 0) & ~value;
    else this.#gpe.enable[at - half] = value;
    this.#pm.update();
  }

  #writeSmiEnable(value: number): void {
    const kept =
      (this.#tco.locked ? SMI_EN.TCO : 0) | ((this.config.get16(GEN_PMCON_1) & SMI_LOCK) !== 0 ? SMI_EN.GLOBAL : 0);
    this.#s.smiEnable = ((this.#s.smiEnable & kept) | (value & ~kept)) >>> 0;
  }

  #writeApm(at: number, value: number): void {
    if (at === 1) {
      this.#s.apmStatus = value;
      return;
    }
    this.#s.apmCommand = value;
    if (value === ACPI_ENABLE) this.#pm.setAcpiEnabled(true);
    else if (value === ACPI_DISABLE) this.#pm.setAcpiEnabled(false);
  }

  /** 13.7.5: bit 2 resets. */
  #writeReset(value: number): void {
    if ((value & RCR_RESET_CPU) !== 0) this.services.system.requestReset('guest-reset');
    else this.#s.resetControl = value & 0x0a;
  }
}

export const ich9Lpc = deviceType({
  type: 'ICH9-LPC',
  summary: 'ICH9 LPC bridge',
  parents: ['pci-device', 'device'],
  category: 'bridge',
  userCreatable: false,
  hotpluggable: false,
  properties,
  pci: { vendor: 0x8086, device: 0x2918, revision: 2, class: 0x060100 },
  create: Ich9Lpc,
});
