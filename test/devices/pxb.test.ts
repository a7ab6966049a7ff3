import t from 'tap';
import { ExpanderBus } from '../../core/pci/expander-bus.ts';
import { PciBus } from '../../core/pci/pci-bus.ts';
import { bench } from '../../core/testing/bench.ts';
import { edu } from '../../devices/edu.ts';
import { pciBridge } from '../../devices/pci-bridges.ts';
import { RunningProgram, runToEnd } from '../core/control/program.ts';

t.test('interrupts arrive as if the function that stands for the bus were not there', async t => {
  const lab = bench();
  const host = lab.pci(edu).device;
  const { services, home, memory, io, dmaSpace } = host.pciBus;
  const raised: [number, boolean][] = [];
  const root = new PciBus('pci.0', {
    ...{ services, home, memory, io, dmaSpace },
    router: {
      route: (devfn, pin) => (pin + (devfn >> 3)) & 3,
      setIrq: (input, level) => raised.push([input, level]),
    },
  });
  for (const slot of [2, 5, 7]) {
    const seat = root.plug(edu, { addr: `${slot}.0` });
    const bus = new ExpanderBus(`p${slot}`, {
      ...{ root, function: seat, host, number: 0x10 * slot, link: 'pci', numaNode: undefined, bypassIommu: false },
    });
    const leave = bus.join();
    raised.length = 0;
    bus.setIntx(1 << 3, 2, true);
    bus.setIntx(1 << 3, 2, false);
    t.same(raised, [
      [3, true],
      [3, false],
    ]);
    t.throws(() => bus.plug(edu), { message: 'PCI: Only PCI/PCIe bridges can be plugged into pxb' });
    const bridge = bus.plug(pciBridge);
    t.equal(root.find(0x10 * slot, 0), bridge);
    leave();
    t.equal(root.find(0x10 * slot, 0), undefined);
  }
});

t.test('buses, their numbers, and how firmware finds them', async t => {
  const program = await RunningProgram.start(
    ...['-machine', 'pc', '-nodefaults', '-m', '64M'],
    ...['-object', 'memory-backend-ram,id=m0,size=64M', '-numa', 'node,memdev=m0'],
    ...['-device', 'pxb,id=p1,bus_nr=0x40,numa_node=0,addr=8', '-device', 'edu,bus=p1,addr=2'],
    ...['-device', 'pxb,id=p2,bus_nr=0x20,bus=pci.0', '-device', 'virtio-blk-pci,bus=p2,drive=d,bootindex=1'],
    ...['-drive', 'if=none,id=d,driver=null-co,read-zeroes=on'],
  );
  t.teardown(() => program.stop());
  await program.execute('qmp_capabilities');
  t.match(await program.execute('query-pci'), {
    return: [
      { bus: 0x20, devices: [{ bus: 0x20, slot: 0, class_info: { desc: 'PCI bridge' } }] },
      { bus: 0x40, devices: [{ bus: 0x40, slot: 0, class_info: { desc: 'PCI bridge' } }] },
      { bus: 0 },
    ],
  });
  const fwCfg = async (name: string): Promise<Buffer> => {
    const read = async (selector: number, size: number): Promise<Buffer> => {
      await program.command(`outw 0x510 ${selector}`);
      const bytes = Buffer.alloc(size);
      for (let at = 0; at < size; at++) bytes[at] = Number((await program.command('inb 0x511')).split(' ')[1]);
      return bytes;
    };
    const directory = await read(0x19, 4 + 64 * 40);
    for (let at = 4; at < directory.length; at += 64) {
      const entry = directory.subarray(at, at + 64);
      if (entry.toString('latin1', 8).replace(/\0.*$/s, '') === name)
        return read(entry.readUInt16BE(4), entry.readUInt32BE(0));
    }
    throw new Error(`no file ${name}`);
  };
  t.same(await fwCfg('etc/extra-pci-roots'), Buffer.from([2, 0, 0, 0, 0, 0, 0, 0]));
  t.equal((await fwCfg('bootorder')).toString('latin1'), '/pci@i0cf8,1/pci-bridge@0/scsi@1/disk@0,0\0');
});

t.test('what is refused', async t => {
  const refused = async (message: string, ...args: readonly string[]): Promise<void> => {
    const { code, errors } = await runToEnd('-nodefaults', ...args);
    t.equal(code, 1);
    t.match(errors, message);
  };
  await refused('pxb devices cannot reside on a PCIe bus', '-machine', 'q35', '-device', 'pxb,bus_nr=8');
  await refused('pxb-pcie devices cannot reside on a PCI bus', '-machine', 'pc', '-device', 'pxb-pcie,bus_nr=8');
  await refused('Illegal numa node 3', '-machine', 'pc', '-device', 'pxb,bus_nr=8,numa_node=3');
  await refused(
    'NUMA is not supported by this machine-type',
    ...['-machine', 'microvm,pcie=on', '-device', 'pxb-pcie,bus_nr=8'],
  );
  await refused(
    'Bus 8 is already in use',
    ...['-machine', 'pc', '-device', 'pxb,bus_nr=8', '-device', 'pxb,bus_nr=8,bus=pci.0'],
  );
  await refused(
    'PXB devices can be attached only to root bus',
    ...['-machine', 'pc', '-device', 'pci-bridge,id=b,chassis_nr=1', '-device', 'pxb,bus_nr=8,bus=b'],
  );
});
