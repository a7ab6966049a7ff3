/** Reads off a machine what its ACPI tables say of CPUs and devices. */
import { IsaBus } from '../../core/bus/isa.ts';
import type { Bus } from '../../core/device/bus.ts';
import type { Device } from '../../core/device/device.ts';
import type { AcpiCpu } from '../../core/firmware/acpi-tables.ts';
import type { Aml, Body } from '../../core/firmware/aml.ts';
import type { ExpanderFacts } from '../../core/firmware/dsdt-expander.ts';
import {
  appleSmc,
  type FloppyDriveKind,
  floppyController,
  ipmiInterface,
  keyboardAndMouse,
  parallelPort,
  pvpanic,
  realTimeClock,
  serialPort,
} from '../../core/firmware/dsdt-isa.ts';
import {
  type AcpiPciBus,
  type AcpiPciDevice,
  ich9Bridge,
  piix3Bridge,
  vgaSleepStates,
} from '../../core/firmware/dsdt-pci.ts';
import { type AddressRange, joined } from '../../core/firmware/ranges.ts';
import { type TpmFacts, tpmDevice } from '../../core/firmware/tpm.ts';
import type { Machine } from '../../core/machine/machine.ts';
import { ExpanderBus } from '../../core/pci/expander-bus.ts';
import { PciBridge } from '../../core/pci/pci-bridge.ts';
import type { PciBus } from '../../core/pci/pci-bus.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { FloppyController } from '../../devices/floppy/fdc.ts';
import { isDescribed } from '../../devices/ipmi/bmc.ts';
import { TpmCrb } from '../../devices/tpm/tpm-crb.ts';
import { TpmTis } from '../../devices/tpm/tpm-tis.ts';

/** The machine's CPU slots, whose occupancy may change. */
export function possibleCpus(machine: Machine): AcpiCpu[] {
  return machine.cpus.slots.slots.map(slot => ({
    apicId: slot.apicId,
    get present() {
      return machine.runsCpu(slot);
    },
    ...(slot.nodeId !== undefined && { node: slot.nodeId }),
  }));
}

function numberProp(device: Device, name: string, otherwise: number): number {
  const props: Readonly<Record<string, unknown>> = device.props;
  const value = props[name];
  return typeof value === 'number' ? value : otherwise;
}

const COM_PORTS = [0x3f8, 0x2f8, 0x3e8, 0x2e8];
const COM_IRQS = [4, 3, 4, 3];
const LPT_PORTS = [0x378, 0x278, 0x3bc];
const NO_PORT = 0xffff_ffff;

/** Index, ports and interrupt of a serial or parallel port, with the PC's own where the user chose none. */
function portFacts(device: Device, ports: readonly number[], irqs: readonly number[], sibling: number) {
  const given = numberProp(device, 'index', NO_PORT);
  const iobase = numberProp(device, 'iobase', NO_PORT);
  const known = ports.indexOf(iobase);
  const index = given < ports.length ? given : known >= 0 ? known : sibling;
  return {
    index,
    iobase: iobase === NO_PORT ? (ports[index] ?? 0) : iobase,
    irq: numberProp(device, 'irq', NO_PORT) >= 16 ? (irqs[index] ?? 0) : numberProp(device, 'irq', 0),
  };
}

/** Drives A and B as the controller has them by now. */
function floppyDrives(controller: FloppyController): (FloppyDriveKind | undefined)[] {
  return [0, 1].map(unit => {
    const type = controller.driveType(unit);
    return type === 'none' || type === 'auto' ? undefined : type;
  });
}

/** How QEMU's order of building a PC's own ISA devices shows in its DSDT, first to last. */
const BUILT_IN_ORDER = ['i8042', 'isa-fdc', 'isa-parallel', 'isa-serial', 'mc146818rtc'];

function isaDevice(device: Device, sibling: number): Aml | undefined {
  switch (device.type.type) {
    case 'i8042':
      return keyboardAndMouse({
        kbdIrq: numberProp(device, 'kbd-irq', 1),
        mouseIrq: numberProp(device, 'mouse-irq', 12),
      });
    case 'isa-serial':
      return serialPort(portFacts(device, COM_PORTS, COM_IRQS, sibling));
    case 'isa-parallel':
      return parallelPort(portFacts(device, LPT_PORTS, [7, 7, 7], sibling));
    case 'mc146818rtc':
      return realTimeClock({ iobase: numberProp(device, 'iobase', 0x70), irq: numberProp(device, 'irq', 8) });
    case 'isa-fdc':
      return floppyController({
        iobase: numberProp(device, 'iobase', 0x3f0),
        irq: numberProp(device, 'irq', 6),
        dma: numberProp(device, 'dma', 2),
        drives: device instanceof FloppyController ? floppyDrives(device) : [],
      });
    case 'pvpanic':
      return pvpanic(numberProp(device, 'ioport', 0x505));
    case 'isa-ipmi-kcs':
    case 'isa-ipmi-bt':
      return ipmiBody(device);
    case 'tpm-tis':
      return tpmBody(device);
    case 'isa-applesmc':
      return appleSmc(numberProp(device, 'iobase', 0x300));
    default:
      return undefined;
  }
}

/** What the tables say of a TPM; undefined where the device is none. */
export function tpmFacts(device: Device): TpmFacts | undefined {
  if (!(device instanceof TpmTis || device instanceof TpmCrb)) return undefined;
  const { tpmdev, ppi } = device.props;
  return tpmdev && { model: device.model, version: tpmdev.version, ppi };
}

function tpmBody(device: Device): Aml | undefined {
  const facts = tpmFacts(device);
  return facts && tpmDevice(facts);
}

/** All devices on a bus and behind it. */
function* devicesBelow(bus: Bus): Generator<Device> {
  for (const device of bus.devices) {
    yield device;
    for (const below of device.buses) yield* devicesBelow(below);
  }
}

/** An interface to a BMC, numbered from 1 among all of the machine's. */
function ipmiBody(device: Device): Aml | undefined {
  if (!isDescribed(device)) return undefined;
  let { bus } = device;
  while (bus.owner !== undefined) bus = bus.owner.bus;
  const number = [...devicesBelow(bus)].filter(isDescribed).findIndex(other => other === device);
  return ipmiInterface({ ...device.ipmi, uid: number + 1 });
}

/** What the devices on an ISA bus say of themselves: those that the user added first, then the machine's own. */
export function isaBody(isa: IsaBus): Body {
  const counts = new Map<string, number>();
  const described = isa.devices.map(device => {
    const sibling = counts.get(device.type.type) ?? 0;
    counts.set(device.type.type, sibling + 1);
    const own = device.parent?.name === 'unattached';
    const rank = own ? BUILT_IN_ORDER.indexOf(device.type.type) : -1;
    return { rank, aml: isaDevice(device, sibling) };
  });
  return described
    .reverse()
    .toSorted((a, b) => a.rank - b.rank)
    .map(({ aml }) => aml);
}

/** What a PCI function itself has to say. */
function pciBody(device: PciDevice): Body | undefined {
  switch (device.type.type) {
    case 'PIIX3':
    case 'PIIX3-xen':
      return piix3Bridge(isaBehind(device));
    case 'ICH9-LPC':
      return ich9Bridge(isaBehind(device));
    case 'ICH9-SMB':
    case 'ICH9 SMB':
      return device.buses.flatMap(bus => bus.devices.map(ipmiBody));
    case 'VGA':
    case 'secondary-vga':
      return vgaSleepStates();
    default:
      return undefined;
  }
}

function isaBehind(device: Device): Body {
  const isa = device.buses.find(bus => bus instanceof IsaBus);
  return isa instanceof IsaBus ? isaBody(isa) : [];
}

/** What the hotplug controller knows of buses and devices. */
export interface HotplugKnowledge {
  bsel(bus: PciBus): number | undefined;
  cameLater(device: PciDevice): boolean;
}

/** A PCI bus and what is behind its bridges. */
export function describeBus(bus: PciBus, hotplug: HotplugKnowledge | undefined): AcpiPciBus {
  const bsel = hotplug?.bsel(bus);
  return {
    ...(bsel !== undefined && { bsel }),
    express: bus.express,
    devices: bus.devices.filter(device => device instanceof PciDevice).map(device => describeDevice(device, hotplug)),
  };
}

function describeDevice(device: PciDevice, hotplug: HotplugKnowledge | undefined): AcpiPciDevice {
  const aml = pciBody(device);
  const { secondaryBus } = device;
  return {
    devfn: device.devfn,
    hotpluggable: device.type.hotpluggable,
    hotplugged: hotplug?.cameLater(device) ?? false,
    ...(secondaryBus !== undefined && { secondary: describeBus(secondaryBus, hotplug) }),
    ...(aml !== undefined && { aml }),
  };
}

/** The last bus below a root bus. */
export function lastBusOf(bus: PciBus): number {
  return Math.max(bus.number, ...bus.functions.map(({ subordinateBusNumber }) => subordinateBusNumber));
}

/** The root buses of expander bridges, with the addresses that firmware has given to what is on them. */
export function describeExpanders(root: PciBus): ExpanderFacts[] {
  return root.expanders
    .filter(bus => bus instanceof ExpanderBus)
    .reverse()
    .map(bus => ({
      number: bus.number,
      lastBus: lastBusOf(bus),
      link: bus.link,
      ...(bus.numaNode !== undefined && { numaNode: bus.numaNode }),
      windows: windowsOf(bus),
    }));
}

function windowsOf(bus: PciBus): ExpanderFacts['windows'] {
  const windows: Record<keyof ExpanderFacts['windows'], AddressRange[]> = { io: [], memory: [], memory64: [] };
  const add = (space: 'io' | 'memory', min: number, max: number): void => {
    // Address 0 is what nobody has programmed.
    if (min <= 0 || min > max) return;
    windows[space === 'memory' && max >= FOUR_GIB ? 'memory64' : space].push({ min, max });
  };
  for (const device of bus.functions) {
    for (const bar of device.bars)
      if (bar !== undefined)
        add(bar.declaration.space ?? 'memory', bar.address, bar.address + bar.declaration.size - 1);
    if (!(device instanceof PciBridge)) continue;
    const { io, memory, prefetch } = device.windows;
    add('io', io.base, io.limit);
    add('memory', memory.base, memory.limit);
    add('memory', prefetch.base, prefetch.limit);
  }
  return { io: joined(windows.io), memory: joined(windows.memory), memory64: joined(windows.memory64) };
}

const FOUR_GIB = 2 ** 32;
const PREFETCH_BASE = 0x24;
const PREFETCH_LIMIT = 0x26;
const PREFETCH_BASE_HIGH = 0x28;
const PREFETCH_LIMIT_HIGH = 0x2c;

/** Where above 4 GiB the firmware put the BARs and bridge windows of a root bus; undefined where nowhere. */
export function window64(bus: PciBus): AddressRange | undefined {
  let found: AddressRange | undefined;
  const extend = (from: number, max: number): void => {
    const min = Math.max(from, FOUR_GIB);
    if (max < min) return;
    found = { min: Math.min(found?.min ?? min, min), max: Math.max(found?.max ?? max, max) };
  };
  for (const device of bus.functions) {
    if (device.secondaryBus !== undefined) {
      const { config } = device;
      const base = (config.get16(PREFETCH_BASE) & 0xfff0) * 0x1_0000 + config.get32(PREFETCH_BASE_HIGH) * FOUR_GIB;
      const limit =
        (config.get16(PREFETCH_LIMIT) & 0xfff0) * 0x1_0000 + 0xf_ffff + config.get32(PREFETCH_LIMIT_HIGH) * FOUR_GIB;
      extend(base, limit);
    }
    for (const bar of device.bars) {
      if (bar?.declaration.wide === true && bar.address >= 0)
        extend(bar.address, bar.address + bar.declaration.size - 1);
    }
  }
  return found;
}
