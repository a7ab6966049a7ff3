/** What every PC has on its ISA bus, whatever the chipset: timers, clock, keyboard, DMA, serial and parallel ports. */
import type { IsaBus } from '../core/bus/isa.ts';
import { type PropValues, prop } from '../core/device/property.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { uuidOctets } from '../core/firmware/machine-items.ts';
import type { Machine } from '../core/machine/machine.ts';
import { type IoHandler, MemoryRegion } from '../core/memory/memory-region.ts';
import type { IntxRouter } from '../core/pci/pci-bus.ts';
import { i8042 } from '../devices/i8042.ts';
import { i8254 } from '../devices/i8254.ts';
import { i8257 } from '../devices/i8257.ts';
import { isaParallel } from '../devices/isa-parallel.ts';
import { isaSerial } from '../devices/isa-serial.ts';
import { type Mc146818Rtc, mc146818rtc } from '../devices/mc146818rtc.ts';
import { pcSpeaker } from '../devices/pc-speaker.ts';
import { port92 } from '../devices/port92.ts';
import type { Ps2Mouse } from '../devices/ps2-mouse.ts';
import { vmmouse } from '../devices/vmmouse.ts';
import { vmport } from '../devices/vmport.ts';
import { cxlOptions } from './cxl.ts';
import type { NvdimmOptions } from './firmware/install.ts';
import { fillCmos, installBootOrder, setCpuCount } from './pc-cmos.ts';
import { plugHpet } from './pc-hpet.ts';
import type { PcInterrupts } from './pc-interrupts.ts';
import type { PcRamLayout } from './pc-memory.ts';

/** Where firmware says how far it has come; nobody looks. */
const POST_CODE: IoHandler = { read: () => 0xffff_ffff, write: () => {} };
/** What the coprocessor's error line raises, and a write to port F0h lowers (82371SB, 2.5.5.7). */
const FERR_IRQ = 13;

/** Options of every PC (QEMU's `-machine pc,...`). */
export const pcOptions = {
  'max-ram-below-4g': prop.size({ default: 0 }),
  'max-fw-size': prop.size({ default: 8 * 2 ** 20, help: 'bytes of system firmware in flash' }),
  pflash0: prop.string({ help: 'drive or node with the system firmware' }),
  pflash1: prop.string({ help: 'drive or node with the variables of the firmware' }),
  acpi: prop.onOffAuto({ default: 'auto' }),
  'fd-bootchk': prop.bool({ default: true, help: 'whether a floppy must have a boot signature' }),
  hpet: prop.bool({ default: true }),
  i8042: prop.bool({ default: true }),
  'pcspk-audiodev': prop.string({ help: 'audio backend of the speaker' }),
  pit: prop.bool({ default: true }),
  sata: prop.bool({ default: true }),
  smbus: prop.bool({ default: true }),
  smm: prop.onOffAuto({ default: 'auto' }),
  vmport: prop.onOffAuto({ default: 'auto' }),
  usb: prop.bool({ default: false }),
  graphics: prop.bool({ default: true }),
  'default-bus-bypass-iommu': prop.bool({ default: false }),
  'dump-guest-core': prop.bool({ default: true }),
  'mem-merge': prop.bool({ default: true }),
  'kernel-irqchip': prop.string(),
  'memory-backend': prop.string(),
  nvdimm: prop.bool({ default: false, help: 'whether memory modules may keep their contents' }),
  'nvdimm-persistence': prop.string({ help: 'cpu or mem-ctrl: what sees to it that writes are kept' }),
  hmat: prop.bool({ default: false }),
  ...cxlOptions,
  'suppress-vmdesc': prop.bool({ default: false }),
  'smbios-entry-point-type': prop.enum(['32', '64'], { default: '32', typeName: 'SmbiosEntryPointType' }),
  'x-oem-id': prop.string(),
  'x-oem-table-id': prop.string(),
};

/**
 * Plugs it all in, and fills CMOS.
 * @param hpetRoutes inputs of the I/O APIC that the HPET can reach
 */
export function plugBoard(
  machine: Machine,
  isa: IsaBus,
  interrupts: PcInterrupts,
  options: PropValues<typeof pcOptions>,
  layout: PcRamLayout,
  hpetRoutes: number,
): Mc146818Rtc {
  const { config } = machine;
  const timers = options.hpet ? plugHpet(machine, isa, interrupts, hpetRoutes) : undefined;
  const rtc = isa.plug(mc146818rtc, { base_year: 0, 'x-clock': config.rtc.clock });
  rtc.setTime(startTime(machine), () => Date.now());
  fillCmos(rtc, layout, machine.cpuCount);
  machine.cpus.onChange(() => setCpuCount(rtc, machine.guestCpuCount));
  installBootOrder(machine, rtc, options['fd-bootchk']);

  timers?.takeRtc(rtc.interrupt);
  if (!machine.acceleratorPit) {
    const pit = isa.plug(i8254, { iobase: 0x40 });
    const timerInput = isa.irq(0, 'pit');
    pit.interrupt.connect(level => timerInput.set(level));
    timers?.takePit(pit);
    const audiodev = options['pcspk-audiodev'];
    isa.plug(pcSpeaker, {}, audiodev === undefined ? {} : { audiodev }).pit = pit;
  }
  machine.ioRoot.add(MemoryRegion.io('ioport80', 1, POST_CODE), 0x80);
  machine.ioRoot.add(
    MemoryRegion.io('ioportF0', 1, { ...POST_CODE, write: () => interrupts.lines[FERR_IRQ]?.lower() }),
    0xf0,
  );
  plugDmaControllers(isa);
  if (options.i8042) {
    const keyboardController = isa.plug(i8042);
    if (options.vmport !== 'off') plugVmwarePort(machine, isa, keyboardController.mouse);
  }
  isa.plug(port92);
  config.serials.forEach((chardev, index) => {
    if (chardev !== undefined) isa.plug(isaSerial, { index }, { chardev });
  });

  config.parallels.forEach((chardev, index) => {
    if (chardev !== undefined) isa.plug(isaParallel, { index }, { chardev });
  });
  return rtc;
}

/** Some guests ask the hypervisor through it; those with a driver for its pointer need no tablet. */
function plugVmwarePort(machine: Machine, isa: IsaBus, mouse: Ps2Mouse): void {
  const port = isa.plug(vmport);
  port.host = {
    uuid: uuidOctets(machine.config.uuid),
    hasX2apic: () => machine.cpus.slots.slots[0]?.cpu?.resolved.features.has('x2apic') ?? false,
  };
  isa.plug(vmmouse).connect(port, mouse);
}

/** Channels 0 to 3 move bytes, 4 to 7 words. */
function plugDmaControllers(isa: IsaBus): void {
  const bytes = isa.plug(i8257, { base: 0x00, 'page-base': 0x80, 'pageh-base': -1, dshift: 0 });
  const words = isa.plug(i8257, { base: 0xc0, 'page-base': 0x88, 'pageh-base': -1, dshift: 1 });
  isa.dmaChannels = [...bytes.channels, ...words.channels];
}

/** The router of PCI interrupts is a device on the bus that it serves, so it comes after the bus. */
export class LateRouter implements IntxRouter {
  router: IntxRouter | undefined;

  route(devfn: number, pin: number): number {
    return this.router?.route(devfn, pin) ?? pin;
  }

  setIrq(input: number, level: boolean): void {
    this.router?.setIrq(input, level);
  }
}

/** What the real-time clock shows at the start, in milliseconds since 1970. */
export function startTime(machine: Machine): number {
  const { base } = machine.config.rtc;
  if (typeof base === 'number') return base;
  const now = Date.now();
  return base === 'utc' ? now : now - new Date(now).getTimezoneOffset() * 60_000;
}

/**
 * Persistent memory, where the machine may have any.
 *
 * @throws SouthbridgeError ERR_PROPERTY_VALUE for a persistence that there is not
 */
export function nvdimmOptions(options: PropValues<typeof pcOptions>): NvdimmOptions | undefined {
  const persistence = options['nvdimm-persistence'];
  if (persistence !== undefined && persistence !== 'cpu' && persistence !== 'mem-ctrl')
    throw new SouthbridgeError(
      'ERR_PROPERTY_VALUE',
      `-machine nvdimm-persistence=${persistence}: unsupported option`,
      "use 'cpu' or 'mem-ctrl'",
    );
  return options.nvdimm ? { persistence } : undefined;
}

/**
 * Whether the machine has system management mode: `smm=auto` where the accelerator has it.
 *
 * @throws SouthbridgeError ERR_SMM for `smm=on` where it has not
 */
export function hasSmm(machine: Machine, smm: 'on' | 'off' | 'auto'): boolean {
  const { name, caps } = machine.accelerator;
  const available = caps.smm ?? false;
  if (smm === 'on' && !available)
    throw new SouthbridgeError(
      'ERR_SMM',
      `System Management Mode not supported by accelerator '${name}'`,
      'use smm=auto or smm=off',
    );
  return smm !== 'off' && available;
}
