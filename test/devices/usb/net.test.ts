import t, { type Test } from 'tap';
import { NetClient } from '../../../core/net/net-client.ts';
import { bench } from '../../../core/testing/bench.ts';
import { UsbBus } from '../../../core/usb/bus.ts';
import { usbNet } from '../../../devices/usb/net/usb-net.ts';
import { piix3UsbUhci } from '../../../devices/usb/uhci/uhci.ts';
import { UsbHost } from './usb-host.ts';

const STATUS = 1;
const DATA = 2;
const SEND = 0x2100;
const FETCH = 0xa101;
const SET_FILTER = 0x2143;

function card(t: Test, configuration: number) {
  const received: Buffer[] = [];
  const client = new NetClient('wire', 'wire', {
    canReceive: () => true,
    receive: (frame, length) => {
      received.push(Buffer.from(frame.subarray(0, length)));
      return true;
    },
  });
  const lab = bench({ backends: { find: () => ({ client }) } });
  t.teardown(() => lab.dispose());
  const bus = lab.pci(piix3UsbUhci).device.buses.find(candidate => candidate instanceof UsbBus);
  const device = bus?.plug(usbNet, {}, { netdev: 'wire', mac: '52:54:00:12:34:56' }, 'card');
  if (device === undefined) throw new TypeError('there is no card');
  return { received, client, device, host: new UsbHost(device, configuration) };
}

const words = (...values: readonly number[]): Buffer => {
  const bytes = Buffer.alloc(4 * values.length);
  values.forEach((value, index) => bytes.writeUInt32LE(value >>> 0, 4 * index));
  return bytes;
};
const frame = (length: number, byte = 0xab): Buffer => Buffer.alloc(length, byte);

/** An RNDIS message with a frame. */
const packet = (contents: Buffer): Buffer =>
  Buffer.concat([words(1, 44 + contents.length, 36, contents.length, 0, 0, 0, 0, 0, 0, 0), contents]);

t.test('Ethernet of the communication class', async t => {
  const { received, client, host, device } = card(t, 1);
  const mac = host.request(0x8006, 0x0303, 0x0409, 255);
  t.equal(typeof mac !== 'string' && mac.toString('utf16le', 2), '525400123456', 'the address is a string');
  t.same(host.in(STATUS, 16), Buffer.from([0xa1, 0, 1, 0, 1, 0, 0, 0]), 'connected');
  t.equal(host.in(STATUS, 7), 'stall');
  t.equal(host.in(DATA), 'nak');
  for (const length of [60, 64, 1514]) {
    for (let at = 0; at < length; at += 64) host.out(DATA, frame(length).subarray(at, at + 64));
    if (length % 64 === 0) host.out(DATA, Buffer.alloc(0));
    t.same(received.pop(), frame(length), `${length} bytes go out`);
    t.ok(client.send(frame(length, 0xcd)));
    const pieces: Buffer[] = [];
    for (let piece = host.in(DATA); typeof piece !== 'string'; piece = host.in(DATA)) {
      pieces.push(piece);
      if (piece.length < 64) break;
    }
    t.same(Buffer.concat(pieces), frame(length, 0xcd), `${length} bytes come in`);
    t.equal(host.in(DATA), 'nak');
  }
  client.send(frame(60, 1));
  client.send(frame(60, 2));
  const saved = device.save();
  t.same(host.in(DATA), frame(60, 1));
  t.same(host.in(DATA), frame(60, 2), 'the second has waited');
  device.restore(saved);
  t.same(host.in(DATA), frame(60, 1), 'what waits for the host is saved');
  t.same(host.request(SET_FILTER, 0xf), Buffer.alloc(0));
  t.equal(host.request(SEND, 0, 0, words(2, 24, 1, 1, 0, 0x4000)), 'stall', 'there is no RNDIS in this configuration');
  t.equal(host.request(FETCH, 0, 0, 100), 'stall');
  t.equal(host.out(STATUS, frame(8)), 'stall');
  t.equal(host.in(3), 'stall');
  host.out(DATA, frame(4096));
  host.out(DATA, frame(1));
  t.equal(received.pop()?.length, 2048, 'what does not fit is cut off');
});

t.test('RNDIS: the control pipe', async t => {
  const { host, client } = card(t, 2);
  const ask = (message: Buffer): Buffer | string => {
    const sent = host.request(SEND, 0, 0, message);
    return typeof sent === 'string' ? sent : host.request(FETCH, 0, 0, 1025);
  };
  const query = (oid: number): string => {
    const answer = ask(words(4, 28, 7, oid, 0, 20, 0, 0));
    return typeof answer === 'string' ? answer : answer.toString('hex', 24);
  };
  t.equal(host.in(STATUS, 16), 'nak', 'nothing has been asked');
  t.same(host.request(FETCH, 0, 0, 100), Buffer.from([0]));
  host.request(SEND, 0, 0, words(2, 24, 5, 1, 0, 0x4000));
  t.same(host.in(STATUS, 16), Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]), 'an answer waits');
  t.same(host.request(FETCH, 0, 0, 100), words(0x8000_0002, 52, 5, 0, 1, 0, 1, 0, 1, 1580, 0, 0, 0));
  t.equal(query(0x0101_0101), '525400123456');
  t.equal(query(0x0001_010d), Buffer.from('QEMU USB RNDIS Net\0').toString('hex'));
  t.equal(query(0x0001_0106), words(1514).toString('hex'));
  t.equal(query(0x0001_0107), words(1_000_000).toString('hex'));
  t.equal(query(0x0001_0114), words(0).toString('hex'));
  t.equal(query(0x0001_0101).length, 28 * 8);
  t.equal(query(0x1234_5678), '', 'nothing is known of that');
  t.ok(client.send(frame(60)), 'taken, and lost');
  t.equal(host.in(DATA), 'nak');
  const set = (oid: number, value: Buffer): Buffer | string =>
    ask(Buffer.concat([words(5, 28 + value.length, 9, oid, value.length, 20, 0), value]));
  t.same(set(0x0001_010e, words(0x2d)), words(0x8000_0005, 16, 9, 0));
  t.equal(query(0x0001_010e), words(0x2d).toString('hex'));
  t.same(set(0x0101_0103, frame(6)), words(0x8000_0005, 16, 9, 0));
  t.same(set(0x0001_0107, words(1)), words(0x8000_0005, 16, 9, 0xc000_00bb));
  t.same(ask(words(8, 12, 11)), words(0x8000_0008, 16, 11, 0));
  t.same(ask(words(6, 12, 0)), words(0x8000_0006, 16, 0, 1));
  for (const [name, message] of Object.entries({
    'an unknown type': words(77, 12, 1),
    'a short one': words(8, 8),
    'a query without a place': words(4, 12, 1),
    'a value beyond the message': words(5, 28, 1, 0x0001_010e, 4, 20, 0),
    'a value at the end of the world': words(5, 32, 1, 0x0001_010e, 0xffff_ffff, 20, 0, 1),
    'a filter of a byte': Buffer.concat([words(5, 29, 1, 0x0001_010e, 1, 20, 0), Buffer.from([1])]),
  }))
    t.equal(ask(message), 'stall', name);
  t.equal(host.request(SEND, 1, 0, words(8, 12, 11)), 'stall');
  for (let count = 0; count < 16; count++) host.request(SEND, 0, 0, words(8, 12, count));
  t.equal(host.request(SEND, 0, 0, words(8, 12, 16)), 'stall', 'too many answers wait');
  t.equal(host.request(SET_FILTER, 0xf), 'stall', 'that is for the other configuration');
});

t.test('RNDIS: frames', async t => {
  const { host, client, received } = card(t, 2);
  host.request(SEND, 0, 0, words(2, 24, 5, 1, 0, 0x4000));
  host.request(SEND, 0, 0, words(5, 32, 9, 0x0001_010e, 4, 20, 0, 0x2d));
  t.ok(client.send(frame(100)));
  t.same(host.in(DATA, 512), packet(frame(100)));
  host.out(DATA, packet(frame(60)));
  t.same(received.pop(), frame(60));
  const two = Buffer.concat([packet(frame(70, 1)), packet(frame(80, 2))]);
  for (let at = 0; at < two.length; at += 64) host.out(DATA, two.subarray(at, at + 64));
  t.same(received.splice(0), [frame(70, 1), frame(80, 2)], 'two in a row');
  for (const [name, message] of Object.entries({
    'a message of no length': words(1, 0),
    'a message longer than can be': words(1, 0xffff_ffff),
    'another type': Buffer.concat([words(9, 60), frame(52)]),
    'a frame beyond its message': Buffer.concat([words(1, 60, 36, 100, 0, 0, 0, 0, 0, 0, 0), frame(16)]),
    'a frame from nowhere': Buffer.concat([words(1, 60, 0xffff_fff0, 16, 0, 0, 0, 0, 0, 0, 0), frame(16)]),
  })) {
    host.out(DATA, message);
    t.same(received, [], name);
  }
  host.out(DATA, packet(frame(60)));
  t.same(received.pop(), frame(60), 'and it goes on');
});
