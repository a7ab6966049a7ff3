import t from 'tap';
import { bench } from '../../../core/testing/bench.ts';
import { UsbBus } from '../../../core/usb/bus.ts';
import { usbWacomTablet } from '../../../devices/usb/hid/wacom.ts';
import { piix3UsbUhci } from '../../../devices/usb/uhci/uhci.ts';
import { UsbHost } from './usb-host.ts';

const GET_REPORT = 0xa101;
const GET_IDLE = 0xa102;
const SET_MODE = 0x2109;
const SET_IDLE = 0x210a;

t.test('a mouse until it is told to be a tablet', async t => {
  const lab = bench();
  t.teardown(() => lab.dispose());
  lab.machine.start();
  const bus = lab.pci(piix3UsbUhci).device.buses.find(candidate => candidate instanceof UsbBus);
  const device = bus?.plug(usbWacomTablet, {}, {}, 'wacom');
  if (device === undefined) throw new TypeError('there is no tablet');
  const host = new UsbHost(device);
  const { input } = lab.machine.services;

  t.equal((host.request(0x8106, 0x2200, 0, 255) as Buffer).length, 110, 'its report descriptor');
  t.same(host.in(1), Buffer.from([0, 0, 0, 0]), 'the first report says that nothing has happened');
  t.equal(host.in(1), 'nak');
  input.send([
    { kind: 'relative', axis: 'x', value: 200 },
    { kind: 'relative', axis: 'y', value: -5 },
    { kind: 'button', button: 'right', down: true },
    { kind: 'button', button: 'wheel-down', down: true },
  ]);
  t.same(host.in(1), Buffer.from([2, 127, 0xfb, 1]));
  t.equal(host.in(1), 'nak', 'what is left of a movement waits for the next one');
  t.same(host.request(GET_REPORT, 0x100, 0, 4), Buffer.from([2, 73, 0, 0]));
  t.same(host.request(GET_REPORT, 0x100, 0, 3), Buffer.from([2, 0, 0]));

  host.request(SET_IDLE, 0x0500);
  t.same(host.request(GET_IDLE, 0, 0, 1), Buffer.from([5]));
  t.same(host.in(1), Buffer.from([2, 0, 0, 0]), 'it repeats itself');
  host.request(SET_IDLE, 0);

  host.request(SET_MODE, 0x0302, 0, Buffer.from([2, 2]));
  t.equal(input.absolute, false, 'nobody listens yet');
  host.request(GET_REPORT, 0x200, 0, 8);
  t.equal(input.absolute, true);
  input.send([
    { kind: 'absolute', axis: 'x', value: 0x7fff },
    { kind: 'absolute', axis: 'y', value: 0x4000 },
    { kind: 'button', button: 'right', down: false },
    { kind: 'button', button: 'left', down: true },
  ]);
  t.same(host.in(1), Buffer.from([2, 0xb0, 0x13, 0x62, 0x07, 0, 0]), 'pressed');
  input.send([
    { kind: 'button', button: 'left', down: false },
    { kind: 'button', button: 'middle', down: true },
  ]);
  const saved = device.save();
  t.same(host.in(1), Buffer.from([2, 0xb0, 0x13, 0x62, 0x07, 0x20, 0]), 'the eraser');
  device.restore(saved);
  t.same(host.in(1), Buffer.from([2, 0xb0, 0x13, 0x62, 0x07, 0x20, 0]), 'again, after a restore');
  input.send([{ kind: 'button', button: 'middle', down: false }]);
  t.same(host.in(1), Buffer.from([2, 0xb0, 0x13, 0x62, 0x07, 0, 0x81]), 'let go');
  input.send([{ kind: 'absolute', axis: 'x', value: 0 }]);
  t.same(host.in(1, 6), Buffer.alloc(0), 'there is no room');
  t.equal(host.in(2), 'stall');
  t.equal(host.out(1, Buffer.from([0])), 'stall');
  t.equal(host.request(0x21ff), 'stall');

  device.resetSignal();
  t.equal(device.attached, true);
});
