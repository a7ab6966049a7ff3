import type { PropValues } from '../core/device/property.ts';
import type { Machine } from '../core/machine/machine.ts';
import { type MachineType, machineType } from '../core/machine/machine-type.ts';
import type { PciBus } from '../core/pci/pci-bus.ts';
import { ich9Ahci } from '../devices/ahci/ahci.ts';
import { e1000e } from '../devices/e1000e/e1000e.ts';
import { fwCfgIo } from '../devices/fw-cfg.ts';
import { ICH9_PCI_HOTPLUG_BASE, ich9Lpc } from '../devices/ich9/lpc.ts';
import { ich9Smbus } from '../devices/ich9/smbus.ts';
import { mch, q35Host } from '../devices/q35.ts';
import { smbusEeprom } from '../devices/smbus-eeprom.ts';
import { ich9UsbEhci1 } from '../devices/usb/ehci/ehci.ts';
import { ich9UsbUhci1, ich9UsbUhci2, ich9UsbUhci3 } from '../devices/usb/uhci/uhci.ts';
import { openCxl } from './cxl.ts';
import { installPcFirmware } from './firmware/install.ts';
import { ICH9_PM } from './firmware/pc-firmware.ts';
import { findFloppies, plugFloppies } from './floppies.ts';
import { plugIdeDrives } from './ide-drives.ts';
import { plugNics } from './nics.ts';
import { hasSmm, LateRouter, nvdimmOptions, pcOptions, plugBoard } from './pc-board.ts';
import { installDiskTypes } from './pc-cmos.ts';
import { PcInterrupts } from './pc-interrupts.ts';
import { mapPcFirmware, mapPcRam, openMemorySlots, pcRamLayout } from './pc-memory.ts';
import { plugVga } from './vga.ts';

/** The hole for PCI below 4 GiB is 1.25 GiB, unless all RAM fits below 2.75 GiB. */
const LOW_RAM_LIMIT = 0xb000_0000;
const LOW_RAM_SPLIT = 0x8000_0000;
/** Inputs that the HPET can reach: 2, 8, 16 to 23. */
const HPET_ROUTES = 0x00ff_0104;
const EEPROM_COUNT = 8;
const EEPROM_BASE = 0x50;

/** A PC of the Q35 chipset. */
function build(machine: Machine, options: PropValues<typeof pcOptions>): void {
  const { config, system } = machine;
  const layout = pcRamLayout(config.ramSize, LOW_RAM_LIMIT, LOW_RAM_SPLIT);
  const ram = mapPcRam(machine, layout);
  openMemorySlots(machine, layout);
  const interrupts = new PcInterrupts(machine);

  const pirq = new LateRouter();
  const host = system.plug(q35Host, {}, { 'bypass-iommu': options['default-bus-bypass-iommu'] });
  host.parent?.removeChild(host);
  machine.object.addChild('q35', host);
  const pci = host.wire(pirq);
  pci.numaNodes = machine.numa.nodes.length;
  const cxl = openCxl(machine, pci, options);
  pci.plug(mch, { addr: '00.0' }).wire(host, machine.memoryRoot, ram.lowRegion, layout.below4g);
  mapPcFirmware(machine, host.pciMemory);

  const lpc = pci.plug(ich9Lpc, { addr: '1f.0', multifunction: true });
  pirq.router = lpc;
  const isa = lpc.wire({
    memory: host.pciMemory,
    io: machine.ioRoot,
    dmaSpace: machine.memory,
    irqs: interrupts.lines,
    smm: hasSmm(machine, options.smm),
  });
  interrupts.plugControllers(isa);
  interrupts.plugIoApic(host);
  const rtc = plugBoard(machine, isa, interrupts, options, layout, HPET_ROUTES);
  plugVga(config.vga, pci);
  plugNics(config.nics, pci, e1000e);

  const sata = options.sata ? pci.plug(ich9Ahci, { addr: '1f.2', multifunction: true }).ideBuses : [];
  plugIdeDrives(config.drives, sata);
  if (options.usb) plugUsb(pci);
  const smbus = options.smbus ? pci.plug(ich9Smbus, { addr: '1f.3', multifunction: true }).smbus : undefined;
  for (let index = 0; index < EEPROM_COUNT; index++) smbus?.plug(smbusEeprom, { address: EEPROM_BASE + index });

  const floppies = config.drives.some(drive => drive.interface === 'floppy') ? plugFloppies(machine, isa) : undefined;
  installDiskTypes(machine, rtc, sata.slice(0, 2), () => floppies ?? findFloppies(machine));

  const { props } = lpc;
  installPcFirmware({
    machine,
    fwCfg: system.plug(fwCfgIo).content,
    pm: lpc,
    chipset: ICH9_PM,
    sleep: { s3: props.disable_s3 === 0, s4: props.disable_s4 === 0, s4Value: props.s4_val },
    pciHotplug: { base: ICH9_PCI_HOTPLUG_BASE, root: false, bridges: props['acpi-pci-hotplug-with-bridge-support'] },
    rootBus: pci,
    ram: layout,
    smm: options.smm !== 'off' || props['smm-compat'],
    hmat: options.hmat,
    nvdimm: nvdimmOptions(options),
    cxl,
    mcfg: () => host.mmconfig,
  });
}

/** Device 1d.0 of the ICH9: an EHCI controller with three companions. */
function plugUsb(pci: PciBus): void {
  const { buses } = pci.plug(ich9UsbEhci1, { addr: '1d.7', multifunction: true });
  for (const [index, companion] of [ich9UsbUhci1, ich9UsbUhci2, ich9UsbUhci3].entries()) {
    const place = { addr: `1d.${index}`, multifunction: true };
    pci.plug(companion, place, { masterbus: buses[0]?.busName, firstport: 2 * index });
  }
}

/** Versions of the machine type, newest first, and what each differs in from the one before. */
const versions = [
  ['7.2', []],
  ['6.2', []],
  ['5.2', []],
  ['5.0', []],
  ['4.1', [{ driver: 'mch', property: 'smbase-smram', value: 'off' }]],
] as const;

function version(number: (typeof versions)[number][0]): MachineType {
  const index = versions.findIndex(([name]) => name === number);
  return machineType({
    type: `pc-q35-${number}`,
    summary: 'Standard PC (Q35 + ICH9, 2009)',
    aliases: index === 0 ? ['q35'] : [],
    maxCpus: 288,
    defaultRamId: 'pc.ram',
    parents: ['generic-pc-machine', 'x86-machine'],
    defaults: { serial: true, parallel: true, floppy: false, cdrom: true, vga: 'std', nic: 'e1000e', ideUnits: 1 },
    options: pcOptions,
    globals: versions.slice(0, index + 1).flatMap(([, globals]) => globals),
    lowRam: config => pcRamLayout(config.ramSize, LOW_RAM_LIMIT, LOW_RAM_SPLIT).below4g,
    build,
  });
}

export const q35 = version('7.2');
export const q35v62 = version('6.2');
export const q35v52 = version('5.2');
export const q35v50 = version('5.0');
export const q35v41 = version('4.1');
