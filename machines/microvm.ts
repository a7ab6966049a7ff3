import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { IsaBus } from '../core/bus/isa.ts';
import { type PropValues, prop } from '../core/device/property.ts';
import type { BootDevice } from '../core/firmware/boot-order.ts';
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
import { fwCfgIo } from '../devices/fw-cfg.ts';
import { i8254 } from '../devices/i8254.ts';
import { isaSerial } from '../devices/isa-serial.ts';
import { mc146818rtc } from '../devices/mc146818rtc.ts';
import { virtioMmio } from '../devices/virtio-mmio.ts';
import { biosGeometries, bootDevices } from './firmware/boot-path.ts';
import { startTime } from './pc-board.ts';
import { fillMemorySizes } from './pc-cmos.ts';
import { PcInterrupts } from './pc-interrupts.ts';
import { mapPcRam, mapWritableFirmware, type PcRamLayout, pcRamLayout } from './pc-memory.ts';

const GIB = 2 ** 30;
const LOW_RAM = 3 * GIB;
const VIRTIO_BASE = 0xfeb0_0000;
const VIRTIO_WINDOW = 512;
/** Without ACPI there are eight transports, on inputs 5 to 12. */
const VIRTIO_TRANSPORTS = 8;
const VIRTIO_IRQ = 5;

/**
 * Options of QEMU's `-machine microvm`. There is no generic event device, so that the machine has no ACPI tables whatever
 * `acpi` says, and with them neither PCI Express nor a second I/O APIC: transports are on the kernel's command line.
 * `acpi=off` still chooses the firmware.
 */
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
  'dump-guest-core': prop.bool({ default: true }),
  'mem-merge': prop.bool({ default: true }),
  'kernel-irqchip': prop.string(),
  'memory-backend': prop.string(),
};
type Options = PropValues<typeof options>;

const ramLayout = (config: MachineConfig): PcRamLayout => pcRamLayout(config.ramSize, LOW_RAM, LOW_RAM);

/** As little of a PC as Linux needs, with virtio devices in memory instead of PCI. */
function build(machine: Machine, options: Options): void {
  const { config, system, services, home } = machine;
  const layout = ramLayout(config);
  mapPcRam(machine, layout);
  const interrupts = new PcInterrupts(machine);
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
  const transports = Array.from({ length: VIRTIO_TRANSPORTS }, (_, index) => plugTransport(machine, isa, index));

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

  mapWritableFirmware(machine, config.bios ?? (options.acpi === 'off' ? 'qboot.rom' : 'bios-microvm.bin'));
  installFirmware(machine, system.plug(fwCfgIo).content, layout, options, transports);
}

function plugTransport(machine: Machine, isa: IsaBus, index: number): VirtioMmio {
  const transport = machine.system.plug(virtioMmio);
  machine.memoryRoot.add(transport.region, VIRTIO_BASE + index * VIRTIO_WINDOW);
  // The input may be an ISA device's, too: the clock's is the fourth transport's.
  const input = isa.irq(VIRTIO_IRQ + index, `virtio-mmio.${index}`);
  transport.irq.connect(level => input.set(level));
  return transport;
}

/** Fills fw_cfg. */
function installFirmware(
  machine: Machine,
  fwCfg: FwCfg,
  layout: PcRamLayout,
  options: Options,
  transports: readonly VirtioMmio[],
): void {
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

  let complete = false;
  machine.onReset(() => {
    if (!complete && config.kernel !== undefined && options['auto-kernel-cmdline']) {
      setCommandLine(fwCfg, (config.append ?? '') + transportArguments(transports));
    }
    // Only what the command line plugged in is there for the kernel: it does not look again.
    complete = true;
    refreshBootFiles(fwCfg, [...roms, ...bootDevices(machine)], config.boot.strict ?? false, biosGeometries(machine));
  });
}

type AddRom = (file: string, bootIndex: number, image: Uint8Array) => void;

/** `-kernel`, as firmware boots it. */
function addKernel(machine: Machine, fwCfg: FwCfg, ram: readonly E820Entry[], addRom: AddRom): void {
  const { kernel, initrd, append } = machine.config;
  if (kernel === undefined) return;
  const boot = firmwareKernel(readFileSync(kernel), {
    memory: ram.map(({ base, length }) => ({ address: base, size: length, type: E820.RAM })),
    kernelName: kernel,
    ...(append !== undefined && { commandLine: append }),
    ...(initrd !== undefined && { initrd: readFileSync(initrd) }),
  });
  for (const item of boot.items) fwCfg.setItem(item.selector, item.bytes);
  if (boot.segments.length > 0) machine.onReset(() => placeSegments(machine.memory, boot.segments));
  addRom(boot.rom, 0, bootRom(boot.rom));
}

/** Where the transports with a device are, in the words of Linux's virtio_mmio driver. */
function transportArguments(transports: readonly VirtioMmio[]): string {
  return transports
    .map((transport, index) => {
      const address = (VIRTIO_BASE + index * VIRTIO_WINDOW).toString(16);
      return transport.device === undefined ? '' : ` virtio_mmio.device=512@0x${address}:${VIRTIO_IRQ + index}`;
    })
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
