import fc from 'fast-check';
import t from 'tap';
import { COMMON } from '../../core/virtio/pci-registers.ts';
import { ALL_FEATURES, FEATURE, NetDriver, packet, TestWire } from './virtio-net-lab.ts';

const CTRL = { RX: 0, ANNOUNCE: 3, MQ: 4, OFFLOADS: 5 } as const;
const MQ = { PAIRS: 0, RSS: 1, HASH: 2 } as const;
const HASH = { IPV4: 1, TCPV4: 2, IPV6: 8, TCPV6: 16 } as const;
const le16 = (value: number): number[] => [value & 0xff, value >>> 8];
const le32 = (value: number): number[] => [...le16(value & 0xffff), ...le16(value >>> 16)];

/** The key and the packets that Microsoft has published with their hashes ("Verifying the RSS Hash Calculation"). */
const KEY = Buffer.from('6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa', 'hex');
const ip6 = (text: string): number[] => {
  const [head = '', tail = ''] = text.split('::');
  const groups = (part: string): number[] =>
    part === ''
      ? []
      : part.split(':').flatMap(group => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 0xff]);
  const [front, back] = [groups(head), groups(tail)];
  return [...front, ...new Array<number>(16 - front.length - back.length).fill(0), ...back];
};
const VECTORS = [
  {
    source: [66, 9, 149, 187],
    destination: [161, 142, 100, 80],
    ports: [2794, 1766],
    addresses: 0x323e_8fc2,
    tcp: 0x51cc_c178,
  },
  {
    source: [199, 92, 111, 2],
    destination: [65, 69, 140, 83],
    ports: [14230, 4739],
    addresses: 0xd718_262a,
    tcp: 0xc626_b0ea,
  },
  {
    source: ip6('3ffe:2501:200:1fff::7'),
    destination: ip6('3ffe:2501:200:3::1'),
    ports: [2794, 1766],
    addresses: 0x2cc1_8cd5,
    tcp: 0x4020_7d3d,
  },
] as const;

const rssConfig = (
  types: number,
  table: readonly number[],
  unclassified: number,
  pairs: number,
  key = KEY,
): number[] => [
  ...le32(types),
  ...le16(table.length - 1),
  ...le16(unclassified),
  ...table.flatMap(le16),
  ...le16(pairs),
  key.length,
  ...key,
];

t.test('a wire of plain frames: nothing that needs headers is offered', async t => {
  const net = new NetDriver(t, new TestWire(), { mq: 'on', rss: 'on', hash: 'on' });
  const { offered } = net.driver;
  for (const name of ['CSUM', 'GUEST_CSUM', 'GUEST_TSO4', 'GUEST_UFO', 'HOST_TSO4', 'HASH_REPORT'] as const) {
    t.equal(offered & FEATURE[name], 0n, name);
  }
  t.equal(offered & (FEATURE.MQ | FEATURE.RSS), FEATURE.MQ | FEATURE.RSS);
  net.start(ALL_FEATURES);
  t.equal(net.command(CTRL.OFFLOADS, 0, [0, 0, 0, 0, 0, 0, 0, 0]), 1, 'there is nothing to switch');
});

t.test('frames with headers go through as they are, both ways; the driver says what it takes', async t => {
  const wire = new TestWire({ headers: true, ufo: false });
  const net = new NetDriver(t, wire);
  t.equal(net.driver.offered & (FEATURE.GUEST_UFO | FEATURE.HOST_UFO), 0n, 'a backend without UFO');
  const features = net.start(ALL_FEATURES & ~FEATURE.GUEST_TSO6, 1, 32);
  t.ok(features & FEATURE.GUEST_TSO4);
  t.same(wire.headerLengths.at(-1), 12);
  t.same(wire.offloads.at(-1), { csum: true, tso4: true, tso6: false, ecn: true, ufo: false });
  const header = Buffer.from([1, 1, 54, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0]);
  const large = packet({ source: [10, 0, 0, 1], destination: [10, 0, 0, 2], protocol: 'tcp', payload: 30_000 });
  net.send(0, large, header);
  t.same(wire.sent[0]?.[0], Buffer.concat([header, large]));
  t.ok(wire.give(0, Buffer.concat([header, large])));
  const got = net.receive();
  t.same(got?.frame, large);
  t.equal(got?.header.readUInt16LE(10), 15, '30 KiB in buffers of 2 KiB');
  t.same(got?.header.subarray(0, 10), header.subarray(0, 10));

  const set = (bits: number, high = 0): number | undefined =>
    net.command(CTRL.OFFLOADS, 0, [...le32(bits), ...le32(high)]);
  t.equal(set(1 << 1), 0);
  t.same(wire.offloads.at(-1), { csum: true, tso4: false, tso6: false, ecn: false, ufo: false });
  t.equal(set((1 << 1) | (1 << 8)), 1, 'what was not accepted cannot be switched on');
  t.equal(set(0, 1), 1);
  t.equal(net.command(CTRL.OFFLOADS, 0, [0]), 1, 'a short command');
  t.equal(net.command(CTRL.OFFLOADS, 1, le32(0)), 1);
  net.driver.status = 0;
  t.equal(wire.headerLengths.at(-1), 10, 'as a legacy driver has it');
  t.same(wire.offloads.at(-1), { csum: false, tso4: false, tso6: false, ecn: false, ufo: false });
});

t.test('a DHCP answer whose checksum is still to come gets it', async t => {
  const wire = new TestWire({ headers: true });
  const net = new NetDriver(t, wire);
  net.start(ALL_FEATURES);
  const answer = packet({
    source: [10, 0, 2, 2],
    destination: [10, 0, 2, 15],
    ports: [67, 68],
    protocol: 'udp',
    payload: 300,
  });
  wire.give(0, Buffer.concat([Buffer.from([1, 0, 0, 0, 0, 0, 34, 0, 6, 0, 0, 0]), answer]));
  const got = net.receive();
  t.equal(got?.header[0], 0);
  const sum = got?.frame.readUInt16BE(40) ?? 0;
  t.not(sum, 0);
  // Over the pseudo header and the datagram, the checksum in it included, the sum is all ones (RFC 768).
  const udp = got?.frame.subarray(34) ?? Buffer.alloc(0);
  const all = Buffer.concat([got?.frame.subarray(26, 34) ?? udp, Buffer.from([0, 17]), udp.subarray(4, 6), udp]);
  let total = 0;
  for (let at = 0; at < all.length; at += 2) total += all.readUInt16BE(at);
  while (total > 0xffff) total = (total & 0xffff) + (total >>> 16);
  t.equal(total, 0xffff);
});

t.test('where the control queue is depends on MQ; pairs are used as the driver says', async t => {
  const wire = new TestWire({ queues: 4 });
  const net = new NetDriver(t, wire, { mq: 'on' });
  const count = (): number => net.driver.port.read(COMMON.NUM_QUEUES, 2);
  t.equal(count(), 3, 'before anything is accepted, as QEMU has it');
  t.equal(net.driver.readConfig(8, 2), 4);
  net.start(ALL_FEATURES);
  t.equal(count(), 9);
  net.start(ALL_FEATURES & ~FEATURE.MQ);
  t.equal(count(), 3);
  t.same(wire.attached, [true, false, false, false]);
  t.equal(net.command(CTRL.RX, 0, [1]), 0, 'the third queue takes commands');
  t.equal(net.command(CTRL.MQ, MQ.PAIRS, le16(1)), 1);
  net.driver.status = 0;
  t.equal(count(), 3);

  net.start(ALL_FEATURES, 4);
  t.same(wire.attached, [true, false, false, false]);
  t.equal(net.command(CTRL.MQ, MQ.PAIRS, le16(3)), 0);
  t.same(wire.attached, [true, true, true, false]);
  for (const [pairs, answer] of [
    [0, 1],
    [5, 1],
    [0x8001, 1],
    [4, 0],
  ] as const) {
    t.equal(net.command(CTRL.MQ, MQ.PAIRS, le16(pairs)), answer, `${pairs} pairs`);
  }
  for (let pair = 0; pair < 4; pair++) {
    const frame = packet({ source: [10, 0, 0, pair], destination: [10, 0, 0, 9], protocol: 'udp' });
    net.send(pair, frame);
    t.same(wire.sent[pair], [frame], `what pair ${pair} sends goes out on its queue`);
    wire.give(pair, frame);
    t.match(net.receive(), { pair, frame });
  }
  t.equal(net.command(CTRL.MQ, MQ.PAIRS, le16(1)), 0);
  t.equal(wire.give(2, packet({ source: [1, 2, 3, 4], destination: [5, 6, 7, 8], protocol: 'udp' })), false);
  t.equal(net.receive(), undefined, 'a pair that is not used gets nothing');
});

t.test('RSS: the published hashes choose the pair, and are reported', async t => {
  const wire = new TestWire({ queues: 4, headers: true });
  const net = new NetDriver(t, wire, { mq: 'on', rss: 'on', hash: 'on' });
  net.start(ALL_FEATURES, 4, 32);
  t.equal(wire.headerLengths.at(-1), 20);
  t.same([net.driver.readConfig(17, 1), net.driver.readConfig(18, 2), net.driver.readConfig(20, 4)], [40, 128, 0x1ff]);
  const table = Array.from({ length: 128 }, (_, entry) => (entry * 7) % 4);
  const config = (types: number): number | undefined => net.command(CTRL.MQ, MQ.RSS, rssConfig(types, table, 2, 4));
  const given = (frame: Buffer): { pair: number | undefined; hash: number | undefined; report: number | undefined } => {
    wire.give(0, Buffer.concat([Buffer.alloc(20), frame]));
    const got = net.receive();
    t.same(got?.frame, frame);
    return { pair: got?.pair, hash: got?.header.readUInt32LE(12), report: got?.header.readUInt16LE(16) };
  };
  for (const { source, destination, ports, addresses, tcp } of VECTORS) {
    const isV4 = source.length === 4;
    const frame = packet({ source, destination, ports: [ports[0], ports[1]], protocol: 'tcp' });
    t.equal(config(HASH.IPV4 | HASH.IPV6), 0);
    t.same(given(frame), { pair: table[addresses & 127], hash: addresses, report: isV4 ? 1 : 4 });
    t.equal(config(HASH.IPV4 | HASH.TCPV4 | HASH.IPV6 | HASH.TCPV6), 0);
    t.same(given(frame), { pair: table[tcp & 127], hash: tcp, report: isV4 ? 2 : 5 });
  }
  const arp = Buffer.concat([Buffer.alloc(12, 0xff), Buffer.from([8, 6]), Buffer.alloc(46)]);
  t.same(given(arp), { pair: 2, hash: 0, report: 0 }, 'what has no hash goes where the driver said');

  // State goes along.
  const saved = net.lab.machine.devices();
  const states = [...saved].map(device => [device, device.save()] as const);
  net.lab.machine.stop('paused');
  for (const [device] of states) device.reset();
  for (const [device, state] of states) device.restore(state);
  net.lab.machine.start();
  const [vector] = VECTORS;
  const frame = packet({ ...vector, ports: [2794, 1766], protocol: 'tcp' });
  t.same(given(frame), { pair: table[vector.tcp & 127], hash: vector.tcp, report: 2 });

  t.equal(net.command(CTRL.MQ, MQ.HASH, rssConfig(HASH.IPV4, [0], 0, 0)), 0, 'hashes alone');
  t.same(given(frame), { pair: 0, hash: vector.addresses, report: 1 });
  for (const [what, bytes] of [
    ['three entries', rssConfig(1, [0, 1, 2], 0, 4)],
    ['too many entries', rssConfig(1, new Array<number>(256).fill(0), 0, 4)],
    ['no such pair for the rest', rssConfig(1, [0], 4, 4)],
    ['too many pairs', rssConfig(1, [0], 0, 5)],
    ['no pairs', rssConfig(1, [0], 0, 0)],
    ['a long key', rssConfig(1, [0], 0, 4, Buffer.concat([KEY, KEY]))],
    ['no key', rssConfig(1, [0], 0, 4, Buffer.alloc(0))],
    ['cut short', rssConfig(1, [0], 0, 4).slice(0, -1)],
  ] as const) {
    t.equal(net.command(CTRL.MQ, MQ.RSS, bytes), 1, what);
    t.same(given(frame), { pair: 0, hash: 0, report: 0 }, 'and no hashes are left');
  }
  t.equal(net.command(CTRL.MQ, MQ.RSS, rssConfig(0, [0], 0, 4, Buffer.alloc(0))), 0, 'switched off');
  t.equal(net.command(CTRL.MQ, MQ.RSS, rssConfig(HASH.IPV4, [99], 0, 4)), 0);
  wire.give(0, Buffer.concat([Buffer.alloc(20), frame]));
  t.equal(net.receive(), undefined, 'a pair that is not there: the frame is lost');
});

t.test('a frame waits for buffers of the pair that its hash chooses', async t => {
  const wire = new TestWire({ queues: 2 });
  const net = new NetDriver(t, wire, { mq: 'on', rss: 'on' });
  net.start(ALL_FEATURES, 2, 0);
  net.command(CTRL.MQ, MQ.RSS, rssConfig(HASH.IPV4, [1], 0, 2));
  const frame = packet({ source: [1, 2, 3, 4], destination: [5, 6, 7, 8], protocol: 'udp' });
  t.equal(wire.give(0, frame), false, 'it has to wait');
  let drained = false;
  wire.client.onDrained(() => {
    drained = true;
  });
  net.post(0, 1);
  t.notOk(drained);
  net.post(1, 1);
  t.ok(drained);
  t.match(net.receive(), { pair: 1, frame });
});

t.test('announcements are asked for, seen and acknowledged', async t => {
  const net = new NetDriver(t, new TestWire());
  net.start(ALL_FEATURES);
  t.equal(net.command(CTRL.ANNOUNCE, 0, []), 1, 'nobody has asked');
  for (const card of net.lab.machine.services.netCards.all) card.receiver.announce?.();
  t.equal(net.driver.readConfig(6, 2), 3);
  t.equal(net.command(CTRL.ANNOUNCE, 0, []), 0);
  t.equal(net.driver.readConfig(6, 2), 1);
});

t.test('tx=timer waits for more frames; a second kick ends the wait', async t => {
  const wire = new TestWire();
  const net = new NetDriver(t, wire, { tx: 'timer', 'x-txtimer': 1000 });
  net.start(ALL_FEATURES);
  const frame = packet({ source: [1, 2, 3, 4], destination: [5, 6, 7, 8], protocol: 'udp' });
  net.send(0, frame);
  t.equal(wire.sent[0]?.length, 0);
  net.lab.clock.advance(1000);
  t.equal(wire.sent[0]?.length, 1);
  net.send(0, frame);
  net.send(0, frame);
  t.equal(wire.sent[0]?.length, 3);
});

t.test('whatever a driver says on the control queue, and whatever comes on the wire, the card goes on', async t => {
  const wire = new TestWire({ queues: 3, headers: true });
  const net = new NetDriver(t, wire, { mq: 'on', rss: 'on', hash: 'on' });
  net.start(ALL_FEATURES, 3, 4);
  const mark = net.driver.allocate(0);
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 7 }),
      fc.integer({ min: 0, max: 6 }),
      fc.uint8Array({ maxLength: 400 }),
      fc.uint8Array({ minLength: 1, maxLength: 300 }),
      (kind, command, argument, frame) => {
        net.driver.rewind(mark);
        const answer = net.command(kind, command, argument);
        wire.give(0, frame);
        while (net.receive() !== undefined);
        net.post(0, 1);
        return answer === 0 || answer === 1;
      },
    ),
    { numRuns: 400, seed: 5 },
  );
  t.equal(net.driver.status & 0x40, 0, 'it never asked to be reset');
});
