import t, { type Test } from 'tap';
import { AudioBackend } from '../../../core/audio/backend.ts';
import { bench } from '../../../core/testing/bench.ts';
import { UsbBus } from '../../../core/usb/bus.ts';
import { usbAudio } from '../../../devices/usb/audio/usb-audio.ts';
import { piix3UsbUhci } from '../../../devices/usb/uhci/uhci.ts';
import { UsbHost } from './usb-host.ts';

const OUT = 1;
const SET_INTERFACE = 0x010b;
const GET_CUR = 0xa181;
const SET_CUR = 0x2101;
const UNIT = 0x0200;
const MUTE = 0x0100;
const volume = (channel: number): number => 0x0200 | channel;
const MS = 1_000_000;

function speaker(t: Test, options: { multi?: boolean; buffer?: number } = {}) {
  const heard: number[] = [];
  const backend = new AudioBackend('out', 'none');
  let playing = false;
  backend.listen({
    format: { format: 's16', channels: 2, frequency: 48_000 },
    playing: on => {
      playing = on;
    },
    samples: bytes => {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      for (let at = 0; at < bytes.length; at += 2) heard.push(view.getInt16(at, true));
    },
  });
  const lab = bench({ backends: { find: () => backend } });
  t.teardown(() => lab.dispose());
  const bus = lab.pci(piix3UsbUhci).device.buses.find(candidate => candidate instanceof UsbBus);
  const device = bus?.plug(usbAudio, {}, { audiodev: 'out', ...options }, 'speaker');
  if (device === undefined) throw new TypeError('there is no speaker');
  return { lab, heard, device, playing: () => playing, host: new UsbHost(device) };
}

/** A millisecond of samples that are all the same on each side. */
function packet(left: number, right: number, channels = 2): Buffer {
  const bytes = Buffer.alloc(96 * channels);
  for (let frame = 0; frame < 48; frame++) {
    bytes.writeInt16LE(left, 2 * frame * channels);
    bytes.writeInt16LE(right, 2 * frame * channels + 2);
  }
  return bytes;
}

const gain = (sample: number, step: number): number => Math.round((sample * step) / 255);

t.test('what is sent is heard, at the pace of the guest', async t => {
  const { lab, heard, host, playing, device } = speaker(t);
  t.equal(host.out(OUT, packet(1, 1)), 'stall', 'the stream is off');
  host.request(SET_INTERFACE, 1, 1);
  t.ok(playing());
  for (let count = 0; count < 20; count++) t.equal(host.out(OUT, packet(1000, -1000)), 'success');
  host.out(OUT, Buffer.alloc(100));
  lab.clock.advance(10 * MS);
  t.equal(heard.length, 2 * 480);
  t.same(new Set(heard), new Set([gain(1000, 240), gain(-1000, 240)]), 'at 0 dB, which is 240 of 255');
  heard.length = 0;
  const saved = device.save();
  lab.clock.advance(10 * MS);
  t.equal(heard.length, 2 * 480);
  heard.length = 0;
  device.restore(saved);
  lab.clock.advance(10 * MS);
  t.equal(heard.length, 2 * 480, 'what waits is saved');
  heard.length = 0;
  lab.clock.advance(10 * MS);
  t.equal(heard.length, 0, 'there is no more');
  for (let count = 0; count < 40; count++) host.out(OUT, packet(5, 5));
  lab.clock.advance(10 * MS);
  lab.clock.advance(10 * MS);
  lab.clock.advance(10 * MS);
  lab.clock.advance(10 * MS);
  t.equal(heard.length, 2 * 32 * 48, 'more than 32 packets do not wait');
  host.request(SET_INTERFACE, 0, 1);
  t.notOk(playing());
  t.equal(host.in(1), 'stall');
});

t.test('mute and volumes', async t => {
  const { lab, heard, host } = speaker(t);
  t.same(host.request(GET_CUR, volume(1), UNIT, 2), Buffer.from([0, 0]), '0 dB');
  t.same(host.request(0xa182, volume(1), UNIT, 2), Buffer.from([0x01, 0x80]));
  t.same(host.request(0xa183, volume(2), UNIT, 2), Buffer.from([0x00, 0x08]));
  t.same(host.request(0xa184, volume(2), UNIT, 2), Buffer.from([0x88, 0x00]));
  t.same(host.request(GET_CUR, MUTE, UNIT, 1), Buffer.from([0]));
  host.request(SET_CUR, volume(1), UNIT, Buffer.from([0x00, 0xc0]));
  host.request(SET_CUR, volume(2), UNIT, Buffer.from([0x00, 0x80]));
  t.same(host.request(GET_CUR, volume(2), UNIT, 2), Buffer.from([0x00, 0x80]), 'silence');
  host.request(SET_INTERFACE, 1, 1);
  for (let count = 0; count < 10; count++) host.out(OUT, packet(10_000, 10_000));
  lab.clock.advance(10 * MS);
  t.same([...new Set(heard)], [gain(10_000, 120), 0]);
  heard.length = 0;
  host.request(SET_CUR, MUTE, UNIT, Buffer.from([1]));
  t.same(host.request(GET_CUR, MUTE, UNIT, 1), Buffer.from([1]));
  for (let count = 0; count < 10; count++) host.out(OUT, packet(10_000, 10_000));
  lab.clock.advance(10 * MS);
  t.same([...new Set(heard)].map(Math.abs), [0]);
  for (const [name, request, value, index] of [
    ['the master has no volume', GET_CUR, volume(0), UNIT],
    ['there is no third channel', GET_CUR, volume(3), UNIT],
    ['bass', GET_CUR, 0x0300, UNIT],
    ['another unit', GET_CUR, MUTE, 0x0300],
    ['the least of being mute', 0xa182, MUTE, UNIT],
  ] as const)
    t.equal(host.request(request, value, index, 2), 'stall', name);
  t.equal(host.request(0x2102, volume(1), UNIT, Buffer.from([0, 0])), 'stall', 'the range is fixed');
});

t.test('six and eight channels, of which two are heard', async t => {
  const { lab, heard, host } = speaker(t, { multi: true, buffer: 96 * 8 * 4 });
  const descriptor = host.request(0x8006, 0x0200, 0, 1000);
  t.equal(
    typeof descriptor !== 'string' && descriptor.readUInt16LE(2),
    typeof descriptor !== 'string' && descriptor.length,
  );
  t.same(host.request(GET_CUR, volume(8), UNIT, 2), Buffer.from([0, 0]));
  for (const [setting, channels, room] of [
    [2, 6, 5],
    [3, 8, 4],
  ] as const) {
    host.request(SET_INTERFACE, setting, 1);
    for (let count = 0; count < 10; count++) host.out(OUT, packet(100, 200, channels));
    lab.clock.advance(10 * MS);
    t.equal(heard.length, 2 * 48 * room, 'as much as there is room for');
    t.same([...new Set(heard)], [gain(100, 240), gain(200, 240)]);
    heard.length = 0;
  }
  const two = speaker(t);
  t.equal(two.host.request(SET_INTERFACE, 2, 1), 'stall');
});
