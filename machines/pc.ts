import type { IsaBus } from '../core/bus/isa.ts';
import { type PropValues, prop } from '../core/device/property.ts';
import type { Machine } from '../core/machine/machine.ts';
import { machineType } from '../core/machine/machine-type.ts';
import type { IntxRouter } from '../core/pci/pci-bus.ts';
import { piix3Ide } from '../devices/ide/piix-ide.ts';
import { fwCfgIo } from '../devices/fw-cfg.ts';
import { i440fx, i440fxHost } from '../devices/i440fx.ts';
import { i8257 } from '../devices/i8257.ts';
import { isaParallel } from '../devices/isa-parallel.ts';
import { i8254 } from '../devices/i8254.ts';
import { isaSerial } from '../devices/isa-serial.ts';
import { mc146818rtc } from '../devices/mc146818rtc.ts';
import { pcSpeaker } from '../devices/pc-speaker.ts';
import { type Piix3, piix3 } from '../devices/piix3.ts';
import { PCI_HOTPLUG_BASE, piix4Pm } from '../devices/piix4-pm.ts';
import { i8042 } from '../devices/i8042.ts';
import { port92 } from '../devices/port92.ts';
import { vga } from '../devices/vga/vga.ts';
import { smbusEeprom } from '../devices/smbus-eeprom.ts';
import { installPcFirmware } from './firmware/install.ts';
import { PIIX4_PM } from './firmware/pc-firmware.ts';
import { fillCmos, installBootOrder, installDiskTypes } from './pc-cmos.ts';
import { plugHpet } from './pc-hpet.ts';
import { findFloppies, plugFloppies } from './floppies.ts';
import { plugIdeDrives } from './ide-drives.ts';
import { PcInterrupts } from './pc-interrupts.ts';
import { i440fxRamLayout, mapPcFirmware, mapPcRam } from './pc-memory.ts';

const SCI_IRQ = 9;
/** Inputs that the HPET can reach on i440FX: only the timer's own. */
const HPET_ROUTES = 1 << 2;
const SMBUS_BASE = 0xb100;
const EEPROM_COUNT = 8;
const EEPROM_BASE = 0x50;

/** Options of every PC (QEMU's `-machine pc,...`). */
export const pcOptions = {
  'max-ram-below-4g': prop.size({ default: 0 }),
  acpi: prop.onOffAuto({ default: 'auto' }),
  'fd-bootchk': prop.bool({ default: true, help: 'whether a floppy must have a boot signature' }),
  hpet: prop.bool({ default: true }),
  i8042: prop.bool({ default: true }),
  pit: prop.bool({ default: true }),
  sata: prop.bool({ default: true }),
  smbus: prop.bool({ default: true }),
  smm: prop.onOffAuto({ default: 'auto' }),
  vmport: prop.onOffAuto({ default: 'auto' }),
  usb: prop.bool({ default: false }),
  graphics: prop.bool({ default: true }),
  'dump-guest-core': prop.bool({ default: true }),
  'mem-merge': prop.bool({ default: true }),
  'kernel-irqchip': prop.string(),
  'memory-backend': prop.string(),
  nvdimm: prop.bool({ default: false }),
  hmat: prop.bool({ default: false }),
  'suppress-vmdesc': prop.bool({ default: false }),
  'smbios-entry-point-type': prop.enum(['32', '64'], { default: '32', typeName: 'SmbiosEntryPointType' }),
  'x-oem-id': prop.string(),
  'x-oem-table-id': prop.string(),
};

/** A PC of the i440FX chipset. */
function build(machine: Machine, options: PropValues<typeof pcOptions>): void {
  const { config, system } = machine;
  const layout = i440fxRamLayout(config, 0xe000_0000);
  const ram = mapPcRam(machine, layout);
  const interrupts = new PcInterrupts(machine);

  const pirq = new LateRouter();
  const host = system.plug(i440fxHost);
  host.parent?.removeChild(host);
  machine.object.addChild('i440fx', host);
  const pci = host.wire(pirq);
  const bridge = pci.plug(i440fx, { addr: '00.0' });
  bridge.wire(machine.memoryRoot, ram.lowRegion, host.pciMemory);
  bridge.setCorebootRamSize(layout.below4g);
  mapPcFirmware(machine, host.pciMemory, config.bios ?? 'bios-256k.bin');

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

  const timers = options.hpet ? plugHpet(machine, isa, interrupts, HPET_ROUTES) : undefined;
  const rtc = isa.plug(mc146818rtc, { base_year: 2000, 'x-clock': config.rtc.clock });
  rtc.setTime(startTime(machine), () => Date.now());
  fillCmos(rtc, layout, config.cpus.cpus);
  installBootOrder(machine, rtc, options['fd-bootchk']);

  timers?.takeRtc(rtc.interrupt);
  if (!machine.acceleratorPit) {
    const pit = isa.plug(i8254, { iobase: 0x40 });
    const timerInput = isa.irq(0, 'pit');
    pit.interrupt.connect(level => timerInput.set(level));
    timers?.takePit(pit);
    isa.plug(pcSpeaker).pit = pit;
  }
  plugDmaControllers(isa);
  if (options.i8042) isa.plug(i8042);
  isa.plug(port92);
  config.serials.forEach((chardev, index) => {
    if (chardev !== undefined) isa.plug(isaSerial, { index }, { chardev });
  });

  config.parallels.forEach((chardev, index) => {
    if (chardev !== undefined) isa.plug(isaParallel, { index }, { chardev });
  });

  if (config.vga === 'std') machine.adoptRam(pci.plug(vga).videoMemory);

  const pm = pci.plug(piix4Pm, { addr: '01.3' }, { smb_io_base: SMBUS_BASE });
  const sci = isa.irq(SCI_IRQ, 'sci');
  pm.sci.connect(level => sci.set(level));
  for (let index = 0; index < EEPROM_COUNT; index++) pm.smbus.plug(smbusEeprom, { address: EEPROM_BASE + index });

  const ide = pci.plug(piix3Ide, { addr: '01.1' });
  plugIdeDrives(config.drives, ide.ideBuses);
  const floppies = plugFloppies(machine, isa);
  installDiskTypes(machine, rtc, ide.ideBuses, () => floppies ?? findFloppies(machine));

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
    smm: options.smm !== 'off',
    hmat: options.hmat,
  });
}

/** Channels 0 to 3 move bytes, 4 to 7 words. */
function plugDmaControllers(isa: IsaBus): void {
  const bytes = isa.plug(i8257, { base: 0x00, 'page-base': 0x80, 'pageh-base': 0x480, dshift: 0 });
  const words = isa.plug(i8257, { base: 0xc0, 'page-base': 0x88, 'pageh-base': 0x488, dshift: 1 });
  isa.dmaChannels = [...bytes.channels, ...words.channels];
}

/** The router of PCI interrupts is a device on the bus that it serves, so it comes after the bus. */
class LateRouter implements IntxRouter {
  router: Piix3 | undefined;

  route(devfn: number, pin: number): number {
    return this.router?.route(devfn, pin) ?? pin;
  }

  setIrq(input: number, level: boolean): void {
    this.router?.setIrq(input, level);
  }
}

/** What the real-time clock shows at the start, in milliseconds since 1970. */
function startTime(machine: Machine): number {
  const { base } = machine.config.rtc;
  if (typeof base === 'number') return base;
  const now = Date.now();
  return base === 'utc' ? now : now - new Date(now).getTimezoneOffset() * 60_000;
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
