import type { PropValues } from '../core/device/property.ts';
import type { Machine } from '../core/machine/machine.ts';
import { machineType } from '../core/machine/machine-type.ts';
import { e1000 } from '../devices/e1000/e1000.ts';
import { fwCfgIo } from '../devices/fw-cfg.ts';
import { i440fx, i440fxHost } from '../devices/i440fx.ts';
import { piix3Ide } from '../devices/ide/piix-ide.ts';
import { piix3 } from '../devices/piix3.ts';
import { PCI_HOTPLUG_BASE, piix4Pm } from '../devices/piix4-pm.ts';
import { smbusEeprom } from '../devices/smbus-eeprom.ts';
import { piix3UsbUhci } from '../devices/usb/uhci/uhci.ts';
import { openCxl } from './cxl.ts';
import { installPcFirmware } from './firmware/install.ts';
import { PIIX4_PM } from './firmware/pc-firmware.ts';
import { plugFloppies } from './floppies.ts';
import { plugIdeDrives } from './ide-drives.ts';
import { plugNics } from './nics.ts';
import { hasSmm, LateRouter, nvdimmOptions, pcOptions, plugBoard } from './pc-board.ts';
import { installDiskTypes } from './pc-cmos.ts';
import { PcInterrupts } from './pc-interrupts.ts';
import { i440fxRamLayout, mapPcFirmware, mapPcRam, openMemorySlots } from './pc-memory.ts';
import { plugVga } from './vga.ts';

const SCI_IRQ = 9;
/** Inputs that the HPET can reach on i440FX: only the timer's own. */
const HPET_ROUTES = 1 << 2;
const SMBUS_BASE = 0xb100;
const EEPROM_COUNT = 8;
const EEPROM_BASE = 0x50;

/** A PC of the i440FX chipset. */
function build(machine: Machine, options: PropValues<typeof pcOptions>): void {
  const { config, system } = machine;
  const layout = i440fxRamLayout(config, 0xe000_0000);
  const ram = mapPcRam(machine, layout);
  openMemorySlots(machine, layout);
  const interrupts = new PcInterrupts(machine);

  const pirq = new LateRouter();
  const host = system.plug(i440fxHost, {}, { 'bypass-iommu': options['default-bus-bypass-iommu'] });
  host.parent?.removeChild(host);
  machine.object.addChild('i440fx', host);
  const pci = host.wire(pirq);
  pci.numaNodes = machine.numa.nodes.length;
  const cxl = openCxl(machine, pci, options);
  const bridge = pci.plug(i440fx, { addr: '00.0' });
  bridge.wire(machine.memoryRoot, ram.lowRegion, host.pciMemory);
  bridge.setCorebootRamSize(layout.below4g);
  mapPcFirmware(machine, host.pciMemory);

  const southbridge = pci.plug(piix3, { addr: '01.0', multifunction: true });
  pirq.router = southbridge;
  const isa = southbridge.wire({
    memory: host.pciMemory,
    io: machine.ioRoot,
    dmaSpace: machine.memory,
    irqs: interrupts.lines.slice(0, 16),
  });
  interrupts.plugControllers(isa);
  interrupts.plugIoApic(host);

  const rtc = plugBoard(machine, isa, interrupts, options, layout, HPET_ROUTES);

  plugVga(config.vga, pci);
  plugNics(config.nics, pci, e1000);

  if (options.usb) pci.plug(piix3UsbUhci, { addr: '01.2' });
  const pm = pci.plug(
    piix4Pm,
    { addr: '01.3' },
    { smb_io_base: SMBUS_BASE, 'smm-enabled': hasSmm(machine, options.smm) },
  );
  const sci = isa.irq(SCI_IRQ, 'sci');
  pm.sci.connect(level => sci.set(level));
  for (let index = 0; index < EEPROM_COUNT; index++) pm.smbus.plug(smbusEeprom, { address: EEPROM_BASE + index });

  const ide = pci.plug(piix3Ide, { addr: '01.1' });
  plugIdeDrives(config.drives, ide.ideBuses);
  const floppies = plugFloppies(machine, isa);
  installDiskTypes(machine, rtc, ide.ideBuses, () => floppies);

  const { props } = pm;
  installPcFirmware({
    machine,
    fwCfg: system.plug(fwCfgIo).content,
    pm,
    chipset: PIIX4_PM,
    sleep: { s3: props.disable_s3 === 0, s4: props.disable_s4 === 0, s4Value: props.s4_val },
    pciHotplug: {
      base: PCI_HOTPLUG_BASE,
      root: props['acpi-root-pci-hotplug'],
      bridges: props['acpi-pci-hotplug-with-bridge-support'],
    },
    rootBus: pci,
    ram: layout,
    smm: options.smm !== 'off' || props['smm-compat'],
    hmat: options.hmat,
    nvdimm: nvdimmOptions(options),
    cxl,
  });
}

export const pc = machineType({
  type: 'pc-i440fx-7.2',
  summary: 'Standard PC (i440FX + PIIX, 1996)',
  aliases: ['pc'],
  isDefault: true,
  maxCpus: 255,
  defaultRamId: 'pc.ram',
  parents: ['generic-pc-machine', 'x86-machine'],
  defaults: { serial: true, parallel: true, floppy: true, cdrom: true, vga: 'std', nic: 'e1000' },
  options: pcOptions,
  lowRam: config => i440fxRamLayout(config, 0xe000_0000).below4g,
  build,
});
