import t, { type Test } from 'tap';
import { Chardev, type SerialParameters } from '../../../core/char/chardev.ts';
import { bench } from '../../../core/testing/bench.ts';
import { UsbBus } from '../../../core/usb/bus.ts';
import { usbSerial } from '../../../devices/usb/serial/usb-serial.ts';
import { piix3UsbUhci } from '../../../devices/usb/uhci/uhci.ts';
import { UsbHost } from './usb-host.ts';

const IN = 1;
const OUT = 2;
const NO_LINES = 0xb1;

/** Somebody at the other end of the line. */
class Peer extends Chardev {
  sent = '';
  room = Number.POSITIVE_INFINITY;
  parameters: SerialParameters | undefined;
  outputs: { readonly dtr: boolean; readonly rts: boolean } | undefined;
  breaks: boolean[] = [];

  readonly filename = 'peer';

  override dispose(): void {}

  protected override transmit(bytes: Uint8Array): number {
    const taken = Math.min(this.room, bytes.length);
    this.room -= taken;
    this.sent += Buffer.from(bytes.subarray(0, taken)).toString('latin1');
    return taken;
  }

  override setParameters(parameters: SerialParameters): void {
    this.parameters = parameters;
  }

  override setOutputs(lines: { readonly dtr: boolean; readonly rts: boolean }): void {
    this.outputs = lines;
  }

  override setBreak(on: boolean): void {
    this.breaks.push(on);
  }

  come(): void {
    this.opened();
  }

  go(): void {
    this.closed();
  }

  say(text: string): void {
    this.push(Buffer.from(text, 'latin1'));
  }
}

function port(t: Test, options: { open?: boolean; plugged?: boolean } = {}) {
  const peer = new Peer('line');
  if (options.open ?? true) peer.come();
  const lab = bench({ backends: { find: () => peer } });
  t.teardown(() => lab.dispose());
  const bus = lab.pci(piix3UsbUhci).device.buses.find(candidate => candidate instanceof UsbBus);
  const device = bus?.plug(usbSerial, {}, { chardev: 'line', 'always-plugged': options.plugged ?? false }, 'serial');
  if (device === undefined) throw new TypeError('there is no port');
  return { peer, device, host: new UsbHost(device) };
}

t.test('bytes go both ways; what is received has a status in front of each packet', async t => {
  const { peer, host } = port(t);
  t.equal(host.out(OUT, Buffer.from('hello')), 'success');
  t.equal(peer.sent, 'hello');
  t.equal(host.in(IN), 'nak', 'nothing has come');
  peer.say('answer');
  t.equal(host.in(IN, 2), 'nak', 'there is no room for more than the status');
  t.same(host.in(IN), Buffer.from([NO_LINES, 0, ...Buffer.from('answer')]));
  peer.say('x'.repeat(100));
  const packets = host.in(IN, 512);
  t.same(packets, Buffer.from([NO_LINES, 0, ...Buffer.alloc(62, 'x'), NO_LINES, 0, ...Buffer.alloc(38, 'x')]));
  peer.say('y'.repeat(1000));
  let received = 0;
  for (let packet = host.in(IN); typeof packet !== 'string'; packet = host.in(IN)) received += packet.length - 2;
  t.equal(received, 1000, 'what does not fit waits at the other end');
  peer.sendBreak();
  t.same(host.in(IN), Buffer.from([NO_LINES, 0x10]), 'a break');
  t.equal(host.in(OUT), 'stall');
  t.equal(host.out(IN, Buffer.from('x')), 'stall');
});

t.test('the guest waits while the other end takes nothing', async t => {
  const { peer, host } = port(t);
  peer.room = 3;
  t.equal(host.out(OUT, Buffer.from('abcdefgh')), 'success');
  peer.room = 0;
  t.equal(host.out(OUT, Buffer.from('more')), 'nak');
  peer.room = 1000;
  peer.drained();
  t.match(peer.sent, /^abc.*efgh$/);
  t.equal(host.out(OUT, Buffer.from('more')), 'success');
});

t.test("FTDI's requests", async t => {
  const { peer, host } = port(t);
  t.same(host.request(0xc005, 0, 0, 2), Buffer.from([NO_LINES, 0x60]), 'modem and line status');
  for (const [value, index, speed] of [
    [0x4138, 0, 9600],
    [26, 0, 115_384],
    [0, 0, 3_000_000],
    [1, 0, 2_000_000],
    [0xc000 | 52, 1, 56_737],
  ] as const) {
    host.request(0x4003, value, index);
    t.equal(peer.parameters?.speed, speed);
  }
  host.request(0x4004, 0x1207);
  t.match(peer.parameters, { parity: 'even', dataBits: 7, stopBits: 2 });
  host.request(0x4004, 0x0105);
  t.match(peer.parameters, { parity: 'odd', dataBits: 8, stopBits: 1 });
  t.equal(host.request(0x4004, 0x0308), 'stall', 'marks');
  t.equal(host.request(0x4004, 0x0808), 'stall', 'one and a half stop bits');
  host.request(0x4004, 0x4008);
  host.request(0x4004, 0x0008);
  t.same(peer.breaks.slice(-2), [true, false]);
  host.request(0x4001, 0x0303);
  t.same(peer.outputs, { dtr: true, rts: true });
  host.request(0x4001, 0x0100);
  t.same(peer.outputs, { dtr: false, rts: true });
  host.request(0x4009, 16);
  t.same(host.request(0xc00a, 0, 0, 1), Buffer.from([16]));
  for (const request of [0x4006, 0x4007, 0x4002]) t.not(host.request(request, 0x1311, 0x400), 'stall');
  peer.say('lost');
  host.request(0x4000, 1);
  t.equal(host.in(IN), 'nak', 'the receiver is empty');
  t.equal(host.request(0x40ff), 'stall');
  t.equal(host.request(0xc0ff, 0, 0, 2), 'stall');
});

t.test('it comes and goes with whoever opens the chardev', async t => {
  const { peer, device } = port(t, { open: false });
  t.notOk(device.attached);
  peer.come();
  t.ok(device.attached);
  peer.go();
  t.notOk(device.attached);
  const always = port(t, { open: false, plugged: true });
  t.ok(always.device.attached);
  always.peer.come();
  always.peer.go();
  t.ok(always.device.attached);
});

t.test('what has been received is saved', async t => {
  const { peer, host, device } = port(t);
  peer.say('kept');
  const saved = device.save();
  host.in(IN);
  device.restore(saved);
  t.same(host.in(IN), Buffer.from([NO_LINES, 0, ...Buffer.from('kept')]));
});

t.test('a port without a line', async t => {
  const lab = bench();
  t.teardown(() => lab.dispose());
  const bus = lab.pci(piix3UsbUhci).device.buses.find(candidate => candidate instanceof UsbBus);
  t.throws(() => bus?.plug(usbSerial, {}, {}), { message: 'Property chardev is required' });
});
