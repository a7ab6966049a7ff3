import { createHash } from 'node:crypto';
import t from 'tap';
import { qtest } from '../../core/accel/qtest/accelerator.ts';
import { IsaDevice } from '../../core/bus/isa.ts';
import { Device } from '../../core/device/device.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { IrqLine } from '../../core/irq/line.ts';
import { Machine } from '../../core/machine/machine.ts';
import { DEFAULT_CONFIG, type MachineConfig } from '../../core/machine/machine-config.ts';
import { machineType } from '../../core/machine/machine-type.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import type { AcpiPciHotplug } from '../../devices/acpi-pci-hotplug.ts';
import { floppy } from '../../devices/floppy/drive.ts';
import { isaFdc } from '../../devices/floppy/fdc.ts';
import { fwCfgIo } from '../../devices/fw-cfg.ts';
import { i440fx, i440fxHost } from '../../devices/i440fx.ts';
import { i8257 } from '../../devices/i8257.ts';
import { piix3 } from '../../devices/piix3.ts';
import { Piix4Pm, piix4Pm } from '../../devices/piix4-pm.ts';
import { PcFirmware, PIIX4_PM } from '../../machines/firmware/pc-firmware.ts';
import { findFloppies } from '../../machines/floppies.ts';

const MIB = 2 ** 20;

/** Stands for the ISA devices of a PC that this test needs no behaviour of. */
class Silent extends IsaDevice {}
const silent = (type: string) => deviceType({ type, summary: 'stands in', bus: 'ISA', create: Silent });
class SilentSystem extends Device {}
class SilentPci extends PciDevice {}
const silentPci = (type: string, pciClass: number, hotpluggable = false, properties = {}) =>
  deviceType({
    type,
    summary: 'stands in',
    hotpluggable,
    properties,
    pci: { vendor: 0x1234, device: 1, class: pciClass },
    create: SilentPci,
  });

interface Lab {
  readonly machine: Machine;
  readonly hotplug: AcpiPciHotplug;
}

function lab(config: Partial<MachineConfig> = {}, build: (machine: Machine) => void = () => {}): Lab {
  let hotplug: AcpiPciHotplug | undefined;
  const type = machineType({
    type: 'firmware-lab',
    summary: 'the skeleton of a PC',
    build(machine) {
      const ram = MemoryRegion.ram(machine.allocateRam('pc.ram', 128 * MIB));
      machine.memoryRoot.add(ram, 0);
      const host = machine.system.plug(i440fxHost);
      const pci = host.wire({ route: () => 0, setIrq: () => {} });
      pci.plug(i440fx, { addr: '00.0' });
      const bridge = pci.plug(piix3, { addr: '01.0', multifunction: true });
      const irqs = Array.from({ length: 16 }, (_, irq) => new IrqLine(`irq${irq}`));
      const isa = bridge.wire({ memory: host.pciMemory, io: machine.ioRoot, dmaSpace: machine.memory, irqs });
      for (const name of ['mc146818rtc', 'isa-serial', 'isa-parallel']) isa.plug(silent(name));
      isa.dmaChannels = isa.plug(i8257, { base: 0x00, 'page-base': 0x80, 'pageh-base': -1, dshift: 0 }).channels;
      isa.plug(isaFdc).cable.plug(floppy, { unit: 0 });
      isa.plug(silent('i8042'));
      pci.plug(silentPci('piix3-ide', 0x010180), { addr: '01.1' });
      const pm = pci.plug(piix4Pm, { addr: '01.3' });
      pci.plug(silentPci('VGA', 0x030000), { addr: '02.0' });
      machine.system.plug(deviceType({ type: 'hpet', summary: 'stands in', create: SilentSystem }));
      const fwCfg = machine.system.plug(fwCfgIo);
      hotplug = pm.pciHotplug;
      new PcFirmware({
        machine,
        fwCfg: fwCfg.content,
        pm: {
          ...PIIX4_PM,
          pciHotplug: { base: 0xae00, root: true, bridges: true },
          sleep: { s3: true, s4: true, s4Value: 2 },
        },
        rootBus: pci,
        hotplug: pm.pciHotplug,
        ram: { low: 128 * MIB, high: 0 },
        cpus: [{ apicId: 0, present: true }],
        cpuid: { version: 0x6_0fb1, features: 0x078b_fbfd, amd: true },
        smm: true,
        product: 'Standard PC (i440FX + PIIX, 1996)',
        version: 'pc-i440fx-7.2',
        hole64Size: 2 ** 31,
      });
      build(machine);
    },
  });
  const machine = new Machine({ type, config: { ...DEFAULT_CONFIG, ...config }, accelerator: qtest }).build();
  t.teardown(() => machine.dispose());
  machine.resetDevices();
  if (hotplug === undefined) throw new Error('no hotplug controller');
  return { machine, hotplug };
}

/** Reads a file as firmware does: through the ports. */
function readFile(machine: Machine, name: string): Buffer {
  const { ports } = machine;
  const bytes = (length: number): Buffer => Buffer.from(Array.from({ length }, () => ports.read(0x511, 1)));
  ports.write(0x510, 2, 0x19);
  const count = bytes(4).readUInt32BE();
  for (let index = 0; index < count; index++) {
    const entry = bytes(64);
    if (entry.toString('latin1', 8).replace(/\0.*$/s, '') !== name) continue;
    ports.write(0x510, 2, entry.readUInt16BE(4));
    return bytes(entry.readUInt32BE(0));
  }
  throw new Error(`there is no file ${name}`);
}

/** The tables in the file, by signature, with checksums as a system would find them. */
function tables(file: Buffer): Map<string, Buffer> {
  const found = new Map<string, Buffer>();
  for (let at = 64; at + 36 <= file.length && file.readUInt32LE(at) !== 0; ) {
    const table = Buffer.from(file.subarray(at, at + file.readUInt32LE(at + 4)));
    table[9] = -table.reduce((sum, byte) => sum + byte, 0) & 0xff;
    found.set(table.toString('latin1', 0, 4), table);
    at += table.length;
  }
  return found;
}

t.test("a PC's tables are QEMU's, read through the ports", async t => {
  const { machine } = lab();
  const found = tables(readFile(machine, 'etc/acpi/tables'));
  t.same([...found.keys()], ['DSDT', 'FACP', 'APIC', 'HPET', 'WAET', 'RSDT']);
  const digest = createHash('sha256')
    .update(found.get('DSDT') ?? '')
    .digest('hex');
  t.equal(digest.slice(0, 16), '1e3994163b13db39');
  t.equal(found.get('FACP')?.readUInt32LE(56), 0x600);
  t.equal(readFile(machine, 'etc/smbios/smbios-tables').length, 0x141);
  t.equal(readFile(machine, 'etc/system-states').toString('hex'), '800000818280');
});

t.test('the DSDT has the floppy drives that there are', async t => {
  const dsdt = (machine: Machine): string =>
    tables(readFile(machine, 'etc/acpi/tables')).get('DSDT')?.toString('latin1') ?? '';
  t.match(dsdt(lab().machine), 'FLPA');
  const bare = lab({}, machine => {
    const controller = findFloppies(machine);
    for (const drive of controller?.cable.devices ?? []) controller?.cable.unplug(drive);
  });
  t.match(dsdt(bare.machine), 'FDC0');
  t.notMatch(dsdt(bare.machine), 'FLPA');
});

t.test('tables are built anew when the firmware asks after a reset, and only then', async t => {
  const { machine } = lab();
  const bus = machine.findBus('pci.0');
  const wide = deviceType({
    type: 'wide',
    summary: 'a 64-bit BAR',
    pci: { vendor: 1, device: 1, class: 0xff0000 },
    bars: { 0: { size: 0x4000, wide: true } },
    create: class extends PciDevice {
      protected override realize(): void {
        this.bar(0, { read: () => 0, write: () => {} });
      }
    },
  });
  const card = bus?.plug(wide, { addr: '05.0' });
  if (!(card instanceof PciDevice)) throw new Error('no card');
  const hole = (): number => {
    const dsdt = tables(readFile(machine, 'etc/acpi/tables')).get('DSDT') ?? Buffer.alloc(0);
    const qword = dsdt.indexOf(Buffer.from([0x8a, 0x2b, 0x00]));
    return Number(dsdt.readBigUInt64LE(qword + 14));
  };
  t.equal(hole(), 4 * 2 ** 30);
  card.configWrite(0x14, 4, 0x80);
  card.configWrite(0x04, 2, 2);
  t.equal(hole(), 4 * 2 ** 30, 'not again before a reset');
  machine.resetDevices();
  card.configWrite(0x14, 4, 0x80);
  card.configWrite(0x04, 2, 2);
  t.equal(hole(), 0x80_0000_0000);
});

t.test('boot order names devices by their paths', async t => {
  const nic = silentPci('nic', 0x020000, true, { bootindex: prop.i32({ default: -1 }) });
  const { machine } = lab({ boot: { strict: true } }, machine => {
    machine.findBus('pci.0')?.plug(nic, { addr: '03.0' }, { bootindex: 1 });
    machine.findBus('pci.0')?.plug(nic, { addr: '04.1' }, { bootindex: 0 });
  });
  t.equal(
    readFile(machine, 'bootorder').toString('latin1'),
    '/pci@i0cf8/ethernet@4,1/ethernet-phy@0\n/pci@i0cf8/ethernet@3/ethernet-phy@0\nHALT\0',
  );
});

t.test('user files and the -boot options arrive', async t => {
  const { machine } = lab({
    fwCfg: [{ name: 'opt/org.test/x', contents: Buffer.from('hi') }],
    boot: { splashTimeMs: 12, rebootTimeoutMs: 15, menu: true },
    smbios: [{ type: '1', serial: 'S-1' }],
  });
  t.equal(readFile(machine, 'opt/org.test/x').toString(), 'hi');
  t.equal(readFile(machine, 'etc/boot-fail-wait').readUInt32LE(), 15);
  t.equal(readFile(machine, 'etc/boot-menu-wait').readUInt16LE(), 12);
  t.ok(readFile(machine, 'etc/smbios/smbios-tables').includes('S-1'));
});

t.test('the hotplug controller tells of arrivals and ejects on the word of the guest', async t => {
  const { machine, hotplug } = lab();
  const { ports } = machine;
  const bus = machine.findBus('pci.0');
  const nic = silentPci('nic', 0x020000, true);
  const card = bus?.plug(nic, { addr: '06.0', 'acpi-index': 7 });
  if (!(card instanceof PciDevice)) throw new Error('no card');
  hotplug.plugged(card);
  t.equal(ports.read(0xae00, 4), 1 << 6);
  t.equal(ports.read(0xae00, 4), 0, 'reading clears');
  t.equal(ports.read(0xae0c, 4), 0xffff_fff8 >>> 0, 'slots 0 to 2 stay');
  ports.write(0xae14, 4, 1 << 6);
  t.equal(ports.read(0xae14, 4), 7);
  let gone = false;
  hotplug.requestUnplug(card, () => {
    gone = true;
    bus?.unplug(card);
  });
  t.equal(ports.read(0xae04, 4), 1 << 6);
  ports.write(0xae10, 4, 5);
  ports.write(0xae08, 4, 1 << 6);
  t.equal(gone, false, 'another bus');
  ports.write(0xae10, 4, 0);
  ports.write(0xae08, 4, 1 << 6);
  t.equal(gone, true);
  t.equal(ports.read(0xae04, 4), 0);
  ports.write(0xae10, 4, 0xffff_ffff);
  t.equal(ports.read(0xae00, 4), 0, 'no such bus');
});

t.test('the CPU hotplug controller begins as a bitmap and turns into registers', async t => {
  const { machine } = lab();
  const { ports } = machine;
  const pm = [...machine.devices()].find(device => device instanceof Piix4Pm);
  if (pm === undefined) throw new Error('no power management');
  const ejected: number[] = [];
  pm.cpuHotplug.wire(
    [
      { apicId: 0, present: true },
      { apicId: 1, present: true },
      { apicId: 2, present: false },
    ],
    cpu => ejected.push(cpu),
  );
  t.equal(ports.read(0xaf00, 1), 3);
  ports.write(0xaf00, 4, 0);
  t.equal(ports.read(0xaf04, 1), 1, 'the boot CPU is there');
  pm.cpuHotplug.plugged(1);
  ports.write(0xaf05, 1, 0);
  t.equal(ports.read(0xaf08, 4), 1, 'CPU 1 has an event');
  t.equal(ports.read(0xaf04, 1), 3);
  ports.write(0xaf04, 1, 2);
  t.equal(ports.read(0xaf04, 1), 1);
  ports.write(0xaf04, 1, 8);
  ports.write(0xaf00, 4, 0);
  ports.write(0xaf04, 1, 8);
  t.same(ejected, [1], 'the boot CPU stays');
  const events: unknown[] = [];
  machine.listen((event, data) => events.push([event, data]));
  ports.write(0xaf00, 4, 1);
  ports.write(0xaf05, 1, 1);
  ports.write(0xaf08, 4, 0x103);
  ports.write(0xaf05, 1, 2);
  ports.write(0xaf08, 4, 0x84);
  t.same(events, [['ACPI_DEVICE_OST', { info: { slot: '1', 'slot-type': 'CPU', source: 0x103, status: 0x84 } }]]);
  ports.write(0xaf00, 4, 99);
  t.equal(ports.read(0xaf04, 1), 0, 'no such CPU');
});
