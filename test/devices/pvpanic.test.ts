import t from 'tap';
import { qtest } from '../../core/accel/qtest/accelerator.ts';
import { IsaBus } from '../../core/bus/isa.ts';
import { FwCfg } from '../../core/firmware/fw-cfg.ts';
import { IrqLine } from '../../core/irq/line.ts';
import { Machine } from '../../core/machine/machine.ts';
import { DEFAULT_CONFIG } from '../../core/machine/machine-config.ts';
import { machineType } from '../../core/machine/machine-type.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import { pvpanic } from '../../devices/pvpanic.ts';
import { vmgenid } from '../../devices/vmgenid.ts';

function lab(build: (machine: Machine) => void): Machine {
  const type = machineType({
    type: 'panic-lab',
    summary: 'RAM and one device',
    build(machine) {
      machine.memoryRoot.add(MemoryRegion.ram(machine.allocateRam('ram', 0x1_0000)), 0);
      build(machine);
    },
  });
  const machine = new Machine({ type, config: DEFAULT_CONFIG, accelerator: qtest, random: () => 0.5 }).build();
  t.teardown(() => machine.dispose());
  return machine;
}

t.test('a panic stops the machine and tells why', async t => {
  const machine = lab(machine => {
    const { services, home, memoryRoot: memory, ioRoot: io, memory: dmaSpace } = machine;
    const irqs = Array.from({ length: 16 }, (_, irq) => new IrqLine(`irq${irq}`));
    new IsaBus('isa.0', { services, home, memory, io, dmaSpace, irqs }).plug(pvpanic);
  });
  const events: [string, unknown][] = [];
  machine.listen((event, data) => events.push([event, data['action']]));
  t.equal(machine.ports.read(0x505, 1), 3);
  machine.ports.write(0x505, 1, 0x80);
  t.same(events, [], 'an unknown event is nothing');
  machine.ports.write(0x505, 1, 2);
  machine.ports.write(0x505, 1, 1);
  t.same(events.slice(0, 2), [
    ['GUEST_CRASHLOADED', 'run'],
    ['GUEST_PANICKED', 'pause'],
  ]);
  t.equal(machine.ports.read(0x505, 1), 3, 'nothing was stored');
});

t.test('the generation id follows the machine through a snapshot', async t => {
  const make = (guid: string) => {
    const machine = lab(() => {});
    const device = machine.system.plug(vmgenid, {}, { guid });
    const fwCfg = new FwCfg({ dma: true });
    device.addFiles(fwCfg);
    const pulses: boolean[] = [];
    device.changed.connect(level => pulses.push(level));
    return { machine, device, fwCfg, pulses };
  };
  const before = make('324e6eaf-d1d1-4bf6-bf41-b9bb6c91fb87');
  const files = before.fwCfg.files().map(file => file.name);
  t.same(files, ['etc/vmgenid_addr', 'etc/vmgenid_guid']);
  t.equal(
    Buffer.from(before.fwCfg.file('etc/vmgenid_guid') ?? []).toString('hex', 40, 56),
    'af6e4e32d1d1f64bbf41b9bb6c91fb87',
  );

  before.machine.memory.write(0x100, 4, 0);
  const request = Buffer.from('00200018000000080000000000000200', 'hex'); // select file 0x20, write 8 bytes from 0x200
  before.machine.memory.writeBytes(0x100, request, 0, 16);
  before.machine.memory.write(0x200, 4, 0x4028);
  const { memory } = before.machine;
  before.fwCfg.dma(0x100, {
    read: (address, into) => memory.readBytes(address, into, 0, into.length),
    write: (address, from) => memory.writeBytes(address, from, 0, from.length),
  });
  const saved = before.device.save();
  t.match(saved, { sections: { state: { values: { addressLow: 0x4028 } } } });

  const after = make('auto');
  t.match(after.device.guid, /^80808080-8080-4080-8080-808080808080$/);
  after.device.restore(saved);
  after.machine.clocks.virtual.advance(1);
  t.equal(after.machine.memory.read(0x4028, 4), 0x80808080, 'the new id is in the guest');
  t.same(after.pulses, [true, false]);
  after.device.reset();
  t.equal(
    Buffer.from(after.fwCfg.file('etc/vmgenid_addr') ?? []).toString('hex'),
    '00'.repeat(8),
    'a reset forgets where',
  );
});
