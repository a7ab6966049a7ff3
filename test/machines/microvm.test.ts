import t from 'tap';
import { qtest } from '../../core/accel/qtest/accelerator.ts';
import { NullChardev } from '../../core/char/simple.ts';
import { Machine } from '../../core/machine/machine.ts';
import { DEFAULT_CONFIG } from '../../core/machine/machine-config.ts';
import { VirtioBus } from '../../core/virtio/virtio-bus.ts';
import { virtioBalloonDevice } from '../../devices/virtio-balloon.ts';
import { microvm } from '../../machines/microvm.ts';

const MIB = 2 ** 20;
const BIOS_END = 2 ** 32;

function start(options: Record<string, string> = {}): Machine {
  const machine = new Machine({
    type: microvm,
    config: { ...DEFAULT_CONFIG, ramSize: 128 * MIB, options, serials: ['serial0'] },
    accelerator: qtest,
    backends: { find: (_kind, id) => new NullChardev(id) },
    romImage: () => new Uint8Array(0x1_0000).fill(0x5a),
  }).build();
  t.teardown(() => machine.dispose());
  machine.resetDevices();
  return machine;
}

t.test('eight transports, the third with a device', async t => {
  const machine = start();
  const bus = machine.findBus({ name: 'virtio-mmio-bus.2' });
  if (!(bus instanceof VirtioBus)) throw new TypeError('there is no virtio-mmio-bus.2');
  bus.plug(virtioBalloonDevice);
  const windows = Array.from({ length: 9 }, (_, index) => 0xfeb0_0000 + index * 512);
  const magic = 0x7472_6976;
  const found = windows.map(base => machine.memory.read(base, 4) === magic);
  t.same(found, [true, true, true, true, true, true, true, true, false]);
  const ids = windows.slice(0, 4).map(base => machine.memory.read(base + 8, 4));
  t.same(ids, [0, 0, 5, 0], 'a memory balloon');
});

t.test('the serial port, and what options leave out', async t => {
  const scratch = (machine: Machine): number => {
    machine.ports.write(0x3ff, 1, 0x5a);
    return machine.ports.read(0x3ff, 1);
  };
  t.equal(scratch(start()), 0x5a);
  t.equal(scratch(start({ 'isa-serial': 'off' })), 0xff);
  const types = (machine: Machine): string[] => [...machine.devices()].map(device => device.typeName);
  const optional = ['isa-i8259', 'isa-pit', 'mc146818rtc'];
  t.same(
    optional.filter(type => types(start()).includes(type)),
    optional,
  );
  const bare = types(start({ pic: 'off', pit: 'off', rtc: 'off' }));
  t.same(
    optional.filter(type => bare.includes(type)),
    [],
  );
});

t.test('firmware lies in memory that it can write, until the next reset', async t => {
  const machine = start();
  t.equal(machine.memory.read(0xf_fff0, 1), 0x5a);
  machine.memory.write(0xf_fff0, 1, 0xa5);
  t.equal(machine.memory.read(BIOS_END - 16, 1), 0xa5);
  machine.resetDevices();
  t.equal(machine.memory.read(BIOS_END - 16, 1), 0x5a);
});
