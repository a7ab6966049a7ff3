import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { IsaBus } from '../core/bus/isa.ts';
import { type PropValues, prop } from '../core/device/property.ts';
import { DEFAULT_OEM, LOADER_FILE, RSDP_FILE, TABLES_FILE } from '../core/firmware/acpi-blob.ts';
import type { AcpiFiles } from '../core/firmware/acpi-build.ts';
import type { BootDevice } from '../core/firmware/boot-order.ts';
import type { PcieHostFacts } from '../core/firmware/dsdt-microvm.ts';
import { E820_FILE, type E820Entry, e820File } from '../core/firmware/e820.ts';
import { FW_CFG_KEYS, type FwCfg } from '../core/firmware/fw-cfg.ts';
import { addCommonItems, refreshBootFiles } from '../core/firmware/machine-items.ts';
import { placeSegments } from '../core/loader/boot.ts';
import { E820 } from '../core/loader/image.ts';
import { bootRom, firmwareKernel } from '../core/loader/kernel.ts';
import type { Machine } from '../core/machine/machine.ts';
import type { MachineConfig } from '../core/machine/machine-config.ts';
import { machineType } from '../core/machine/machine-type.ts';
import type { VirtioMmio } from '../core/virtio/virtio-mmio.ts';
import { acpiGed, GED_POWER_BUTTON } from '../devices/acpi-ged.ts';
import { FW_CFG_PORT, fwCfgIo } from '../devices/fw-cfg.ts';
import { gpexHost } from '../devices/gpex.ts';
import { i8254 } from '../devices/i8254.ts';
import { IOAPIC_PINS } from '../devices/ioapic.ts';
import { isaSerial } from '../devices/isa-serial.ts';
import { mc146818rtc } from '../devices/mc146818rtc.ts';
import { sysbusXhci } from '../devices/usb/xhci/sysbus-xhci.ts';
import { virtioMmio } from '../devices/virtio-mmio.ts';
import { initrdFile, kernelFile } from './firmware/boot-files.ts';
import { biosGeometries, bootDevices } from './firmware/boot-path.ts';
import { describeMicrovm, type MicrovmAcpiParts } from './firmware/microvm-acpi.ts';
import { startTime } from './pc-board.ts';
import { fillMemorySizes } from './pc-cmos.ts';
import { PcInterrupts } from './pc-interrupts.ts';
import { mapPcRam, mapWritableFirmware, type PcRamLayout, pcRamLayout } from './pc-memory.ts';

const GIB = 2 ** 30;
const LOW_RAM = 3 * GIB;
const VIRTIO_BASE = 0xfeb0_0000;
const VIRTIO_WINDOW = 512;
const GED = { events: 0xfea0_0000, registers: 0xfea0_0200, gsi: 9 } as const;
const XHCI = { base: 0xfe90_0000, gsi: 10 } as const;
const PCIE_ECAM = { base: 0xe000_0000, size: 0x1000_0000 } as const;
/** Of a CPU that says nothing of it. */
const MIN_PHYSICAL_BITS = 36;
const PCIE_MMIO = { base: 0xc000_0000, size: 0x2000_0000 } as const;

/** Which interrupt inputs are whose. */
interface Wiring {
  readonly ioApics: 1 | 2;
  readonly virtio: { readonly first: number; readonly count: number };
  readonly pcie: number;
}
const WITHOUT_ACPI: Wiring = { ioApics: 1, virtio: { first: 5, count: 8 }, pcie: 0 };
const WITH_ACPI: Wiring = { ioApics: 1, virtio: { first: 16, count: 8 }, pcie: 12 };
const WITH_IOAPIC2: Wiring = { ioApics: 2, virtio: { first: IOAPIC_PINS, count: IOAPIC_PINS }, pcie: 16 };

/** Options of QEMU's `-machine microvm`. */
const options = {
  acpi: prop.onOffAuto({ default: 'auto' }),
  pic: prop.onOffAuto({ default: 'auto' }),
  pit: prop.onOffAuto({ default: 'auto' }),
  rtc: prop.onOffAuto({ default: 'auto', help: 'Enable MC146818 RTC' }),
  pcie: prop.onOffAuto({ default: 'auto', help: 'Enable PCIe' }),
  ioapic2: prop.onOffAuto({ default: 'auto', help: 'Enable second IO-APIC' }),
  'isa-serial': prop.bool({ default: true, help: 'Set off to disable the instantiation an ISA serial port' }),
  'x-option-roms': prop.bool({ default: true, help: 'Set off to disable loading option ROMs' }),
  'auto-kernel-cmdline': prop.bool({
    default: true,
    help: 'Set off to disable adding virtio-mmio devices to the kernel cmdline',
  }),
  usb: prop.bool({ default: false }),
  graphics: prop.bool({ default: true }),
  'x-oem-id': prop.string({ default: DEFAULT_OEM.id }),
  'x-oem-table-id': prop.string({ default: DEFAULT_OEM.tableId }),
  'dump-guest-core': prop.bool({ default: true }),
  'mem-merge': prop.bool({ default: true }),
  'kernel-irqchip': prop.string(),
  'memory-backend': prop.string(),
};
type Options = PropValues<typeof options>;

const ramLayout = (config: MachineConfig): PcRamLayout => pcRamLayout(config.ramSize, LOW_RAM, LOW_RAM);

/** The accelerator's interrupt controllers have one I/O APIC, so that a second is there for who asks for it. */
function wiring(machine: Machine, options: Options): Wiring {
  if (options.acpi === 'off') return WITHOUT_ACPI;
  const second = options.ioapic2 === 'on' || (options.ioapic2 === 'auto' && !machine.acceleratorIrqchip);
  return second ? WITH_IOAPIC2 : WITH_ACPI;
}

/** As little of a PC as Linux needs, with virtio devices in memory instead of PCI. */
function build(machine: Machine, options: Options): void {
  const { config, system, services, home } = machine;
  const layout = ramLayout(config);
  const ram = mapPcRam(machine, layout);
  const wires = wiring(machine, options);
  const interrupts = new PcInterrupts(machine, wires.ioApics);
  const isa = system.own(
    new IsaBus('isa.0', {
      services,
      home,
      memory: machine.memoryRoot,
      io: machine.ioRoot,
      dmaSpace: machine.memory,
      irqs: interrupts.lines.slice(0, 16),
    }),
  );
  interrupts.plugIoApic(machine.object);
  if (wires.ioApics === 2) interrupts.plugSecondIoApic();
  const transports = Array.from({ length: wires.virtio.count }, (_, index) =>
    plugTransport(machine, isa, interrupts, wires.virtio.first, index),
  );
  const fwCfg = system.plug(fwCfgIo).content;
  const acpi = options.acpi !== 'off' && {
    machine,
    oem: { id: options['x-oem-id'], tableId: options['x-oem-table-id'] },
    fwCfg: { iobase: FW_CFG_PORT, dma: fwCfg.dmaEnabled },
    isa,
    ged: GED,
    virtio: transports,
    ioApics: wires.ioApics,
    ...plugReduced(machine, interrupts, wires, options),
  };

  if (options.pic !== 'off') interrupts.plugControllers(isa);
  if (options.pit !== 'off' && !machine.acceleratorPit) {
    const timerInput = isa.irq(0, 'pit');
    isa.plug(i8254, { iobase: 0x40 }).interrupt.connect(level => timerInput.set(level));
  }
  // KVM guests have its clock.
  if (options.rtc === 'on' || (options.rtc === 'auto' && machine.accelerator.name !== 'kvm')) {
    const rtc = isa.plug(mc146818rtc, { base_year: 0, 'x-clock': config.rtc.clock });
    rtc.setTime(startTime(machine), () => Date.now());
    fillMemorySizes(rtc, layout);
  }
  const [chardev] = config.serials;
  if (options['isa-serial'] && chardev !== undefined) isa.plug(isaSerial, { index: 0 }, { chardev });

  mapWritableFirmware(machine, ram, config.bios ?? (options.acpi === 'off' ? 'qboot.rom' : 'bios-microvm.bin'));
  const firmware = installFirmware(machine, fwCfg, layout, options);
  let complete = false;
  machine.onReset(() => {
    // Only what the command line plugged in is there for tables and the kernel's arguments: nothing looks again.
    if (!complete) {
      if (acpi !== false) addTables(fwCfg, describeMicrovm(acpi));
      else if (config.kernel !== undefined && options['auto-kernel-cmdline'])
        setCommandLine(fwCfg, (config.append ?? '') + transportArguments(transports));
    }
    complete = true;
    firmware.refresh();
  });
}

interface Transport {
  readonly transport: VirtioMmio;
  readonly base: number;
  readonly gsi: number;
}

function plugTransport(
  machine: Machine,
  isa: IsaBus,
  interrupts: PcInterrupts,
  firstGsi: number,
  index: number,
): Transport {
  const transport = machine.system.plug(virtioMmio);
  const base = VIRTIO_BASE + index * VIRTIO_WINDOW;
  const gsi = firstGsi + index;
  machine.memoryRoot.add(transport.region, base);
  // An input of the ISA bus may be another device's, too: the clock's is the fourth transport's.
  const input = gsi < isa.irqCount ? isa.irq(gsi, `virtio-mmio.${index}`) : interrupts.lines[gsi];
  transport.irq.connect(level => input?.set(level));
  return { transport, base, gsi };
}

/** What a hardware-reduced machine has instead of fixed hardware, and what only tables can describe. */
function plugReduced(
  machine: Machine,
  interrupts: PcInterrupts,
  wires: Wiring,
  options: Options,
): Pick<MicrovmAcpiParts, 'xhci' | 'pcie'> {
  const { system, memoryRoot } = machine;
  const ged = system.plug(acpiGed, { 'ged-event': GED_POWER_BUTTON });
  memoryRoot.add(ged.events, GED.events);
  memoryRoot.add(ged.registers, GED.registers);
  ged.irq.connect(level => interrupts.lines[GED.gsi]?.set(level));
  if (options.usb) {
    const xhci = system.plug(sysbusXhci, {}, { intrs: 1, p2: 8, p3: 8 });
    memoryRoot.add(xhci.region, XHCI.base);
    xhci.interrupts[0]?.connect(level => interrupts.lines[XHCI.gsi]?.set(level));
  }
  return {
    ...(options.usb && { xhci: XHCI }),
    ...(options.pcie === 'on' && { pcie: plugPcie(machine, interrupts, wires.pcie) }),
  };
}

/** The host takes the topmost quarter of the CPU's address space. */
function plugPcie(machine: Machine, interrupts: PcInterrupts, gsi: number): PcieHostFacts {
  const end = 2 ** (machine.cpus.plugged[0]?.cpu?.physicalBits ?? MIN_PHYSICAL_BITS);
  const wide = { base: (end / 4) * 3, size: end / 4 };
  const host = machine.system.plug(gpexHost);
  host.wire({ ecam: PCIE_ECAM, mmio: [PCIE_MMIO, wide] });
  for (const [index, line] of host.interrupts.entries())
    line.connect(level => interrupts.lines[gsi + index]?.set(level));
  const range = ({ base, size }: { readonly base: number; readonly size: number }) => ({
    min: base,
    max: base + size - 1,
  });
  return { ecam: PCIE_ECAM, mmio32: range(PCIE_MMIO), mmio64: range(wide), gsi };
}

function addTables(fwCfg: FwCfg, files: AcpiFiles): void {
  fwCfg.addFile(TABLES_FILE, files.tables);
  fwCfg.addFile(LOADER_FILE, files.loader);
  fwCfg.addFile(RSDP_FILE, files.rsdp);
}

/** Fills fw_cfg. */
function installFirmware(machine: Machine, fwCfg: FwCfg, layout: PcRamLayout, options: Options): { refresh(): void } {
  const { config } = machine;
  addCommonItems(fwCfg, {
    ...(config.uuid !== undefined && { uuid: config.uuid }),
    ramSize: config.ramSize,
    graphics: config.graphics,
    cpus: machine.cpuCount,
    boot: {
      menu: config.boot.menu ?? false,
      ...(config.boot.splashTimeMs !== undefined && { splashTimeMs: config.boot.splashTimeMs }),
      ...(config.boot.rebootTimeoutMs !== undefined && { rebootTimeoutMs: config.boot.rebootTimeoutMs }),
      ...(config.boot.splash !== undefined && { splash: readFileSync(config.boot.splash) }),
    },
  });
  fwCfg.setNumber(FW_CFG_KEYS.MAX_CPUS, machine.cpus.slots.slots.length, 2);
  fwCfg.setNumber(FW_CFG_KEYS.IRQ0_OVERRIDE, 1, 4);
  const ram: E820Entry[] = [{ base: 0, length: layout.below4g, type: 'ram' }];
  if (layout.above4g > 0) ram.push({ base: 4 * GIB, length: layout.above4g, type: 'ram' });
  fwCfg.addFile(E820_FILE, e820File(ram));

  const roms: BootDevice[] = [];
  const addRom = (file: string, bootIndex: number, image: Uint8Array): void => {
    if (!options['x-option-roms']) return;
    const name = `genroms/${basename(file)}`;
    fwCfg.addFile(name, image);
    if (bootIndex >= 0) roms.push({ index: bootIndex, path: `/rom@${name}` });
  };
  addKernel(machine, fwCfg, ram, addRom);
  for (const { file, bootIndex } of config.optionRoms) addRom(file, bootIndex, machine.services.romImage(file));
  for (const file of config.fwCfg) fwCfg.addFile(file.name, file.contents);

  return {
    refresh: () =>
      refreshBootFiles(fwCfg, [...roms, ...bootDevices(machine)], config.boot.strict ?? false, biosGeometries(machine)),
  };
}

type AddRom = (file: string, bootIndex: number, image: Uint8Array) => void;

/** `-kernel`, as firmware boots it. */
function addKernel(machine: Machine, fwCfg: FwCfg, ram: readonly E820Entry[], addRom: AddRom): void {
  const { kernel, initrd, append } = machine.config;
  if (kernel === undefined) return;
  const boot = firmwareKernel(kernelFile(kernel), {
    memory: ram.map(({ base, length }) => ({ address: base, size: length, type: E820.RAM })),
    kernelName: kernel,
    ...(append !== undefined && { commandLine: append }),
    ...(initrd !== undefined && { initrd: initrdFile(initrd) }),
  });
  for (const item of boot.items) fwCfg.setItem(item.selector, item.bytes);
  if (boot.segments.length > 0) machine.onReset(() => placeSegments(machine.memory, boot.segments));
  addRom(boot.rom, 0, bootRom(boot.rom));
}

/** Where the transports with a device are, in the words of Linux's virtio_mmio driver. */
function transportArguments(transports: readonly Transport[]): string {
  return transports
    .filter(({ transport }) => transport.device !== undefined)
    .map(({ base, gsi }) => ` virtio_mmio.device=${VIRTIO_WINDOW}@0x${base.toString(16)}:${gsi}`)
    .join('');
}

function setCommandLine(fwCfg: FwCfg, commandLine: string): void {
  const bytes = Buffer.from(`${commandLine}\0`);
  fwCfg.setNumber(FW_CFG_KEYS.CMDLINE_SIZE, bytes.length, 4);
  fwCfg.setItem(FW_CFG_KEYS.CMDLINE_DATA, bytes);
}

export const microvm = machineType({
  type: 'microvm',
  summary: 'microvm (i386)',
  maxCpus: 288,
  defaultRamId: 'microvm.ram',
  parents: ['x86-machine'],
  defaults: { serial: true, ideUnits: 1 },
  options,
  lowRam: config => ramLayout(config).below4g,
  build,
});
