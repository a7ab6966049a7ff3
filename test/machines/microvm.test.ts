import t from 'tap';
import { qtest } from '../../core/accel/qtest/accelerator.ts';
import { NullChardev } from '../../core/char/simple.ts';
import { Machine } from '../../core/machine/machine.ts';
import { DEFAULT_CONFIG } from '../../core/machine/machine-config.ts';
import { PciBus } from '../../core/pci/pci-bus.ts';
import { UsbBus } from '../../core/usb/bus.ts';
import { VirtioBus } from '../../core/virtio/virtio-bus.ts';
import { VirtioMmio } from '../../core/virtio/virtio-mmio.ts';
import { edu } from '../../devices/edu.ts';
import { usbKbd } from '../../devices/usb/hid/keyboard.ts';
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

t.test('24 transports, the third with a device', async t => {
  const machine = start();
  const bus = machine.findBus('virtio-mmio-bus.2');
  if (!(bus instanceof VirtioBus)) throw new TypeError('there is no virtio-mmio-bus.2');
  bus.plug(virtioBalloonDevice);
  const windows = Array.from({ length: 25 }, (_, index) => 0xfeb0_0000 + index * 512);
  const magic = 0x7472_6976;
  const found = windows.map(base => machine.memory.read(base, 4) === magic);
  t.same(found, [...new Array<boolean>(24).fill(true), false]);
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

t.test('without ACPI, or with one I/O APIC, there are eight transports', async t => {
  const count = (options: Record<string, string>): number =>
    [...start(options).devices()].filter(device => device.typeName === 'virtio-mmio').length;
  t.equal(count({ acpi: 'off' }), 8);
  t.equal(count({ ioapic2: 'off' }), 8);
});

t.test('interrupts of transports reach the second I/O APIC, the first of them its pin 0', async t => {
  const machine = start();
  const messages: number[] = [];
  machine.vm.injectMsi = (_address, data) => messages.push(data);
  const set = (pin: number, vector: number): void => {
    machine.memory.write(0xfec1_0000, 4, 0x10 + 2 * pin);
    machine.memory.write(0xfec1_0010, 4, (1 << 15) | vector);
  };
  const transports = [...machine.devices()].filter(device => device instanceof VirtioMmio);
  set(0, 0x41);
  set(23, 0x58);
  transports[0]?.irq.set(true);
  transports[23]?.irq.set(true);
  t.same(
    messages.map(data => data & 0xff),
    [0x41, 0x58],
  );
});

t.test('the generic event device: power button, power off, reset', async t => {
  const machine = start();
  machine.power.start();
  const EVENTS = 0xfea0_0000;
  const REGISTERS = 0xfea0_0200;
  t.equal(machine.memory.read(EVENTS, 4), 0);
  machine.power.pressPowerButton();
  t.equal(machine.memory.read(EVENTS, 4), 2, 'the power button');
  t.equal(machine.memory.read(EVENTS, 4), 0, 'reading forgets it');
  const events: string[] = [];
  machine.listen(event => events.push(event));
  machine.memory.write(REGISTERS + 2, 1, 0x41);
  machine.memory.write(REGISTERS, 1, (5 << 2) | 0);
  await new Promise(setImmediate);
  t.notOk(
    events.includes('RESET') || events.includes('SHUTDOWN'),
    'neither the wrong value nor the missing SLP_EN does anything',
  );
  machine.memory.write(REGISTERS + 2, 1, 0x42);
  await new Promise(setImmediate);
  t.ok(events.includes('RESET'));
  machine.memory.write(REGISTERS, 1, (5 << 2) | (1 << 5));
  await new Promise(setImmediate);
  t.ok(events.includes('SHUTDOWN'));
});

t.test('PCI Express: configuration space in memory, windows, interrupts 16 to 19', async t => {
  const machine = start({ pcie: 'on' });
  const bus = machine.findBus('pcie.0');
  if (!(bus instanceof PciBus)) throw new TypeError('there is no pcie.0');
  t.equal(machine.memory.read(0xe000_0000, 4), 0x0008_1b36);
  bus.plug(edu, { addr: '02.0' });
  const config = 0xe000_0000 + (2 << 15);
  t.equal(machine.memory.read(config, 4), 0x11e8_1234);
  machine.memory.write(config + 0x10, 4, 0xc000_0000);
  machine.memory.write(config + 4, 2, 2);
  t.equal(machine.memory.read(0xc000_0000, 4), 0x0100_00ed, "the device's registers in the window");
  machine.vm.injectMsi = (_address, data) => messages.push(data & 0xff);
  const messages: number[] = [];
  // INTA of device 2 is input 16 + (2 + 0) % 4, on the first chip.
  machine.memory.write(0xfec0_0000, 4, 0x10 + 2 * 18);
  machine.memory.write(0xfec0_0010, 4, (1 << 15) | 0x62);
  machine.memory.write(0xc000_0060, 4, 1);
  t.same(messages, [0x62]);
});

t.test('usb=on: an xHCI controller at its place, whose events arrive at input 10', async t => {
  const machine = start({ usb: 'on' });
  const { memory } = machine;
  const BASE = 0xfe90_0000;
  const OPERATIONAL = BASE + 0x40;
  const PORTSC = OPERATIONAL + 0x400;
  const INTERRUPTER = BASE + 0x1000 + 0x20;
  const [EVENTS, TABLE] = [0x10_0000, 0x10_1000];
  t.equal(memory.read(BASE, 4), 0x0100_0040);
  t.equal(memory.read(BASE + 4, 4), 0x1000_0140, '64 slots, one interrupter, 8 ports of each kind');
  const messages: number[] = [];
  machine.vm.injectMsi = (_address, data) => messages.push(data & 0xff);
  memory.write(0xfec0_0000, 4, 0x10 + 2 * 10);
  memory.write(0xfec0_0010, 4, (1 << 15) | 0x55);

  memory.write(TABLE, 4, EVENTS);
  memory.write(TABLE + 8, 4, 16);
  memory.write(INTERRUPTER + 0x08, 4, 1);
  memory.write(INTERRUPTER + 0x18, 4, EVENTS);
  memory.write(INTERRUPTER + 0x10, 4, TABLE);
  memory.write(INTERRUPTER + 0x14, 4, 0);
  memory.write(INTERRUPTER, 4, 2);
  memory.write(OPERATIONAL, 4, 0b101);
  t.same(messages, []);
  const bus = machine.findBus('usb-bus.0');
  if (!(bus instanceof UsbBus)) throw new TypeError('there is no usb-bus.0');
  bus.plug(usbKbd);
  // Ports of SuperSpeed come first.
  t.equal(memory.read(PORTSC + 8 * 16, 4) & 1, 1, 'something is connected');
  t.equal((memory.read(EVENTS + 12, 4) >>> 10) & 0x3f, 34, 'a port status change event');
  t.equal(memory.read(EVENTS + 4 - 1, 1), 9, 'of the ninth port');
  t.same(messages, [0x55]);

  memory.write(INTERRUPTER, 4, 3);
  memory.write(0xfec0_0010, 4, (1 << 15) | 0x56);
  t.same(messages, [0x55], 'acknowledged: the line is low');
});
