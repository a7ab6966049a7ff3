/** What holds for any descriptors and commands of a driver, sane or not. */
import fc from 'fast-check';
import t from 'tap';
import { type NetBackend, NetClient } from '../../core/net/net-client.ts';
import { bench } from '../../core/testing/bench.ts';
import { e1000 } from '../../devices/e1000/e1000.ts';
import { e1000Registers } from '../../devices/e1000/registers.ts';
import { e1000e } from '../../devices/e1000e/e1000e.ts';
import { ALL_FEATURES, FEATURE, NetDriver, TestWire } from './virtio-net-lab.ts';

const [RING, BUFFERS] = [0x1000, 0x1_0000];
const byte = fc.integer({ min: 0, max: 255 });
const word = fc.integer({ min: 0, max: 0xffff });

for (const type of [e1000, e1000e]) {
  const frames: Buffer[] = [];
  const client = new NetClient('net0', 'test', {
    canReceive: () => true,
    receive: (frame, length) => frames.push(Buffer.from(frame.subarray(0, length))) > 0,
  });
  const backend: NetBackend = { id: 'net0', client, dispose() {} };
  const table = bench({ backends: { find: () => backend } });
  t.teardown(() => table.dispose());
  const card = table.pci(type, { netdev: 'net0' });
  // The 82574 has these registers at the same places.
  const regs = card.bar(0, e1000Registers);
  const ram = table.ram.view;
  for (let at = 0; at < 0x1_0000; at++) table.ram.bytes[BUFFERS + at] = at * 7 + (at >> 8);
  regs.TDBAL.value = RING;
  regs.TDLEN.value = 128;
  /** Sends `length` bytes by a context and one data descriptor. */
  const send = (setup: number, layer4: number, lower: number, upper: number, length: number): Buffer[] => {
    frames.length = 0;
    regs.TCTL.value = 0;
    regs.TDH.value = 0;
    regs.TDT.value = 0;
    regs.TCTL.value = 2;
    [setup, layer4, lower, upper].forEach((value, at) => ram.setUint32(RING + 4 * at, value >>> 0, true));
    ram.setUint32(RING + 16, BUFFERS, true);
    ram.setUint32(RING + 20, 0, true);
    ram.setUint32(RING + 24, (0x2d10_0000 | length) >>> 0, true);
    ram.setUint32(RING + 28, 0x300, true);
    regs.TDT.value = 2;
    table.clock.settle();
    return [...frames];
  };

  t.test(`${type.type}: segments are as long as they may be, and hold all data once`, async t => {
    fc.assert(
      fc.property(
        fc.integer({ min: 54, max: 120 }),
        fc.integer({ min: 16, max: 9000 }),
        fc.nat(60_000),
        (header, mss, data) => {
          const sent = send(
            14 | (24 << 8) | (33 << 16),
            34 | (50 << 8),
            (0x2700_0000 | data) >>> 0,
            (header << 8) | (mss << 16),
            header + data,
          );
          const expected = table.ram.bytes.slice(BUFFERS + header, BUFFERS + header + data);
          const got = Buffer.concat(sent.map(frame => frame.subarray(header)));
          return (
            got.equals(expected) &&
            sent.length === Math.max(1, Math.ceil(data / mss)) &&
            sent.every(({ length }, index) => length === header + Math.min(mss, data - index * mss))
          );
        },
      ),
      { numRuns: 60 },
    );
    t.pass();
  });

  t.test(`${type.type}: any context, header longer than the packet, no segment size, checksums beyond it`, async t => {
    fc.assert(
      fc.property(
        fc.tuple(byte, byte, word),
        fc.tuple(byte, byte, word),
        fc.tuple(fc.nat(0xf_ffff), byte, word),
        fc.nat(70_000),
        fc.boolean(),
        ([ipcss, ipcso, ipcse], [tucss, tucso, tucse], [payload, header, mss], length, segments) => {
          const sent = send(
            ipcss | (ipcso << 8) | (ipcse << 16),
            tucss | (tucso << 8) | (tucse << 16),
            (segments ? 0x2700_0000 : 0x2300_0000) | payload,
            (header << 8) | (mss << 16),
            length,
          );
          return (
            regs.TDH.value === 2 &&
            (ram.getUint32(RING + 28, true) & 1) === 1 &&
            sent.length <= 4097 &&
            sent.every(frame => frame.length <= 0x1_0000)
          );
        },
      ),
      { numRuns: 120 },
    );
    t.pass();
  });
}

t.test('virtio-net: any command is answered, once, and the card goes on', async t => {
  const wire = new TestWire({ queues: 4 });
  const net = new NetDriver(t, wire, { mq: true, rss: true, hash: true });
  net.start(ALL_FEATURES & ~FEATURE.GUEST_ANNOUNCE, 4, 4);
  const pair = fc.tuple(fc.integer({ min: 0, max: 7 }), fc.integer({ min: 0, max: 7 }));
  const counted = fc
    .tuple(fc.nat(70), fc.array(byte, { maxLength: 420 }))
    .map(([count, rest]) => [count, 0, 0, 0, ...rest]);
  const scaling = fc
    .tuple(fc.nat(0x1ff), word, word, fc.array(byte, { maxLength: 300 }))
    .map(([types, mask, unclassified, rest]) => [
      ...[types & 0xff, types >> 8, 0, 0, mask & 0xff, mask >> 8, unclassified & 0xff, unclassified >> 8],
      ...rest,
    ]);
  const argument = fc.oneof(fc.array(byte, { maxLength: 64 }), counted, scaling);
  fc.assert(
    fc.property(pair, argument, ([kind, command], bytes) => {
      net.driver.ram.bytes.fill(0, 0, 0);
      const answer = net.command(kind, command, bytes);
      return answer === 0 || answer === 1;
    }),
    { numRuns: 150 },
  );
  t.equal(net.command(4, 0, [2, 0]), 0, 'two pairs: it works still');
});
