import t from 'tap';
import { ms } from '../../core/clock/units.ts';
import { fold, sumWords } from '../../core/net/checksum.ts';
import { type NetBackend, NetClient } from '../../core/net/net-client.ts';
import { Packet } from '../../core/net/packet.ts';
import { bench } from '../../core/testing/bench.ts';
import { FEATURE, MAGIC, OFFLOAD, QUEUE, RSS, RXC, RXD, SHARED, TXD } from '../../devices/vmxnet3/layout.ts';
import { COMMAND, deviceRegisters, EVENT, LINK, queueRegisters } from '../../devices/vmxnet3/registers.ts';
import { vmxnet3 } from '../../devices/vmxnet3/vmxnet3.ts';

const OURS = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
const EVERYONE = [255, 255, 255, 255, 255, 255];
const [CONFIG, DESCRIPTIONS, HASHING] = [0x1000, 0x2000, 0x1800];
const [TX, TX_DONE, RX, BODIES, RX_DONE] = [0x3000, 0x4000, 0x5000, 0x6000, 0x7000];
/** From one queue's rings to the next's. */
const APART = 0x8000;
const BUFFERS = 0x10_0000;
const RING = 32;

interface SetUp {
  readonly queues?: number;
  readonly features?: number;
  readonly autoMask?: boolean;
  readonly mode?: number;
  readonly mtu?: number;
}

function lab() {
  const frames: Buffer[] = [];
  const client = new NetClient('net0', 'test', {
    canReceive: () => true,
    receive: (frame, length) => frames.push(Buffer.from(frame.subarray(0, length))) > 0,
  });
  const backend: NetBackend = { id: 'net0', client, dispose() {} };
  const table = bench({ backends: { find: () => backend } });
  t.teardown(() => table.dispose());
  const card = table.pci(vmxnet3, { netdev: 'net0', mac: '52:54:00:12:34:56' });
  const queues = card.bar(0, queueRegisters);
  const device = card.bar(1, deviceRegisters);
  const ram = table.ram.view;
  const { bytes } = table.ram;
  const command = (value: number): number => {
    device.CMD.value = value;
    return device.CMD.value;
  };
  /** Describes the queues to the card, and starts it. */
  const start = ({
    queues: count = 1,
    features = 0,
    autoMask = false,
    mode = 0x1f,
    mtu = 1500,
  }: SetUp = {}): number => {
    bytes.fill(0, CONFIG, BUFFERS);
    ram.setUint32(CONFIG + SHARED.MAGIC, MAGIC, true);
    ram.setUint32(CONFIG + SHARED.GUEST, 1 << 2, true);
    ram.setUint32(CONFIG + SHARED.FEATURES, features, true);
    ram.setUint32(CONFIG + SHARED.QUEUES, DESCRIPTIONS, true);
    ram.setUint32(CONFIG + SHARED.MTU, mtu, true);
    ram.setUint8(CONFIG + SHARED.TX_QUEUES, count);
    ram.setUint8(CONFIG + SHARED.RX_QUEUES, count);
    ram.setUint8(CONFIG + SHARED.AUTO_MASK, autoMask ? 1 : 0);
    ram.setUint8(CONFIG + SHARED.EVENT_VECTOR, 2 * count);
    ram.setUint32(CONFIG + SHARED.RX_MODE, mode, true);
    ram.setUint32(CONFIG + SHARED.RSS_LENGTH, RSS.BYTES, true);
    ram.setUint32(CONFIG + SHARED.RSS, HASHING, true);
    for (let queue = 0; queue < count; queue++) {
      const sends = DESCRIPTIONS + queue * QUEUE.SIZE;
      ram.setUint32(sends + QUEUE.RINGS, TX + queue * APART, true);
      ram.setUint32(sends + QUEUE.COMPLETIONS, TX_DONE + queue * APART, true);
      ram.setUint32(sends + QUEUE.RING_SIZES, RING, true);
      ram.setUint32(sends + QUEUE.COMPLETIONS_SIZE, RING, true);
      ram.setUint8(sends + QUEUE.VECTOR, queue);
      const receives = DESCRIPTIONS + (count + queue) * QUEUE.SIZE;
      ram.setUint32(receives + QUEUE.RINGS, RX + queue * APART, true);
      ram.setUint32(receives + QUEUE.RINGS + 8, BODIES + queue * APART, true);
      ram.setUint32(receives + QUEUE.COMPLETIONS, RX_DONE + queue * APART, true);
      ram.setUint32(receives + QUEUE.RING_SIZES, RING, true);
      ram.setUint32(receives + QUEUE.RING_SIZES + 4, RING, true);
      ram.setUint32(receives + QUEUE.COMPLETIONS_SIZE, 2 * RING, true);
      ram.setUint8(receives + QUEUE.VECTOR, count + queue);
    }
    device.DSAL.value = CONFIG;
    device.DSAH.value = 0;
    return command(COMMAND.ACTIVATE_DEV);
  };
  /** Puts a piece of a packet into the transmit ring. */
  const put = (at: number, address: number, length: number, fourth: number, offset = 0, generation = 1): void => {
    const descriptor = TX + at * 16;
    ram.setUint32(descriptor, address, true);
    ram.setUint32(descriptor + 4, 0, true);
    ram.setUint32(descriptor + 12, fourth >>> 0, true);
    const third = (length & TXD.LENGTH) | (generation << TXD.GENERATION_SHIFT) | (offset << TXD.OFFSET_SHIFT);
    ram.setUint32(descriptor + 8, third >>> 0, true);
  };
  /** Gives the card a buffer. */
  const bring = (ring: number, at: number, address: number, length: number, kind = 0, generation = 1): void => {
    ram.setUint32(ring + at * 16, address, true);
    ram.setUint32(ring + at * 16 + 8, ((length & RXD.LENGTH) | kind | (generation << 31)) >>> 0, true);
  };
  const words = (at: number): number[] => [0, 4, 8, 12].map(offset => ram.getUint32(at + offset, true));
  return { table, card, queues, device, ram, bytes, frames, wire: client, command, start, put, bring, words };
}

function frame(destination: readonly number[], size: number, ...rest: readonly number[]): Buffer {
  const bytes = Buffer.from(Array.from({ length: size }, (_, at) => (at * 7) & 0xff));
  Buffer.from([...destination, 0x52, 0x54, 0, 1, 2, 3, ...rest]).copy(bytes);
  return bytes.subarray(0, size);
}

/** TCP over IPv4 with `payload` bytes, all checksums right. */
function tcp(payload: number, from = 1): Buffer {
  const bytes = frame(OURS, 54 + payload, 0x08, 0x00);
  bytes.set([0x45, 0, 0, 0, 0, 7, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, from, 10, 0, 0, 2], 14);
  bytes.writeUInt16BE(40 + payload, 16);
  bytes.set([0x12, 0x34, 0, 80, 0, 0, 3, 0xe8, 0, 0, 0, 0, 0x50, 0x18, 0x20, 0, 0, 0, 0, 0], 34);
  const packet = new Packet();
  packet.parse(bytes, bytes.length);
  packet.putNetworkChecksum(bytes);
  packet.putTransportChecksum(bytes);
  return bytes;
}

t.test('who it is, and what it refuses', async t => {
  const { device, command, start, ram } = lab();
  t.same([device.VRRS.value, device.UVRS.value, device.MACL.value, device.MACH.value], [1, 1, 0x1200_5452, 0x5634]);
  t.equal(command(COMMAND.ACTIVATE_DEV), 1, 'no shared memory');
  t.equal(start({ mtu: 20 }), 1, 'an MTU that nobody can use');
  t.equal(start({ queues: 9 }), 1, 'too many queues');
  t.equal(start(), 0);
  t.equal(command(COMMAND.GET_LINK), LINK.SPEED | LINK.UP);
  t.equal(ram.getUint32(DESCRIPTIONS + QUEUE.THRESHOLD, true), 1);
  command(COMMAND.QUIESCE_DEV);
  ram.setUint8(DESCRIPTIONS + QUEUE.VECTOR, 25);
  t.equal(command(COMMAND.ACTIVATE_DEV), 1, 'a vector that there is not');
  t.equal(start(), 0);
  device.MACL.value = 0x0403_0201;
  device.MACH.value = 0x0605;
  t.same([device.MACL.value, device.MACH.value], [0x0403_0201, 0x0605]);
  command(COMMAND.RESET_DEV);
  t.equal(command(COMMAND.ACTIVATE_DEV), 1, 'it knows of no shared memory any more');
  t.equal(start(), 0);
  t.same([device.MACL.value, device.MACH.value], [0x1200_5452, 0x5634], 'and has the address it was delivered with');
});

t.test('packets of pieces, round the ring; what is not complete waits; errors are completed and counted', async t => {
  const { queues, device, command, start, put, ram, bytes, frames, words, card } = lab();
  start();
  bytes.set(frame(EVERYONE, 200), BUFFERS);
  queues.IMR.at(0).value = 0;
  put(0, BUFFERS, 150, 0);
  queues.TXPROD.at(0).value = 1;
  t.same(frames, [], 'its end is missing');
  put(1, BUFFERS + 150, 50, TXD.END);
  queues.TXPROD.at(0).value = 2;
  t.same(frames, [frame(EVERYONE, 200)]);
  t.same(words(TX_DONE), [1, 0, 0, 0x8000_0000]);
  t.equal(card.intx.level, true);
  t.equal(device.ICR.value, 1);
  t.equal(card.intx.level, false, 'taken');
  t.equal(device.ICR.value, 0);
  for (let at = 2; at < RING; at++) put(at, BUFFERS, 60 + at, TXD.END);
  queues.TXPROD.at(0).value = 0;
  t.equal(frames.length, RING - 1);
  put(0, BUFFERS, 70, TXD.END, 0, 0);
  put(1, BUFFERS, 10, TXD.END, 0, 0);
  queues.TXPROD.at(0).value = 1;
  t.equal(frames.length, RING, 'the other generation; one is too short');
  t.same(words(TX_DONE + (RING - 1) * 16), [0, 0, 0, 0x8000_0000], 'the last completion of the first round');
  t.same(words(TX_DONE), [1, 0, 0, 0], 'and the first of the next');
  command(COMMAND.GET_STATS);
  const counter = (which: number): number => ram.getUint32(DESCRIPTIONS + QUEUE.STATISTICS + 8 * which, true);
  t.same([counter(6), counter(8)], [RING, 1], 'to everyone, and errors');
  put(2, 0xffff_0000, 100, TXD.END, 0, 0);
  queues.TXPROD.at(0).value = 3;
  t.equal(frames.length, RING, 'memory that is not there');
  queues.TXPROD.at(5).value = 1;
  t.equal(frames.length, RING, 'a queue that is not there');
});

t.test('tags, checksums and segments', async t => {
  const { queues, start, put, bytes, frames } = lab();
  start();
  const packet = new Packet();
  const whole = tcp(100);
  const offloaded = Buffer.from(whole);
  // As a driver leaves it: the sum of the pseudo-header is in the checksum's place.
  offloaded.writeUInt16BE(~fold(sumWords(whole, 26, 34) + 6 + 120) & 0xffff, 50);
  bytes.set(offloaded, BUFFERS);
  const checksum = (OFFLOAD.CHECKSUM << TXD.OFFLOAD_SHIFT) | 34;
  put(0, BUFFERS, whole.length, TXD.END | checksum, 50);
  put(1, BUFFERS, whole.length, TXD.END | checksum | TXD.TAG | (0x2123 << TXD.TAG_SHIFT), 50);
  put(2, BUFFERS, whole.length, TXD.END | checksum, 153);
  queues.TXPROD.at(0).value = 3;
  t.same(frames[0], whole);
  const tagged = Buffer.concat([whole.subarray(0, 12), Buffer.from([0x81, 0, 0x21, 0x23]), whole.subarray(12)]);
  t.same(frames[1], tagged);
  t.equal(frames.length, 2, 'a checksum that is to go behind the packet');
  frames.length = 0;
  const large = tcp(3000);
  large.fill(0, 50, 52);
  bytes.set(large, BUFFERS);
  const segments = (OFFLOAD.SEGMENTS << TXD.OFFLOAD_SHIFT) | 54;
  put(3, BUFFERS, large.length, TXD.END | segments, 1000);
  put(4, BUFFERS, large.length, TXD.END | segments, 0);
  put(5, BUFFERS, 54, TXD.END | segments, 1000);
  queues.TXPROD.at(0).value = 6;
  t.same(
    frames.map(({ length }) => length),
    [1054, 1054, 1054, 54],
    'there are no segments of no size; a packet without data is one',
  );
  frames.length = 3;
  t.same(Buffer.concat(frames.map(segment => segment.subarray(54))), large.subarray(54));
  for (const [index, segment] of frames.entries()) {
    packet.parse(segment, segment.length);
    t.ok(packet.networkChecksumGood(segment) && packet.transportChecksumGood(segment));
    t.equal(segment.readUInt32BE(38), 1000 + index * 1000);
  }
});

t.test('frames go into a head and bodies; no buffers, and the driver is asked to say when there are', async t => {
  const { queues, start, bring, ram, bytes, wire, words, table } = lab();
  start();
  bring(RX, 0, BUFFERS, 128);
  bring(RX, 1, BUFFERS + 0x1000, 128, RXD.BODY);
  bring(BODIES, 0, BUFFERS + 0x2000, 128, RXD.BODY);
  const sent = frame(OURS, 300);
  t.equal(wire.send(sent), true);
  t.same(words(RX_DONE), [RXC.START, 0, 128, (RXC.TYPE | 0x8000_0000) >>> 0]);
  t.same(words(RX_DONE + 16).slice(0, 3), [1, 0, 128]);
  t.same(words(RX_DONE + 32).slice(0, 3), [RXC.END | (1 << RXC.RING_SHIFT) | RXC.NO_CHECKSUM, 0, 44]);
  const parts = [0, 0x1000, 0x2000].map(at => bytes.slice(BUFFERS + at, BUFFERS + at + 128));
  t.same(Buffer.concat(parts).subarray(0, 300), sent);
  t.equal(ram.getUint8(DESCRIPTIONS + QUEUE.SIZE + QUEUE.CONTROL), 0);
  bring(RX, 2, BUFFERS, 64);
  t.equal(wire.send(sent), false, 'half of it has room');
  t.equal(wire.send(frame(OURS, 61)), false, 'and this has to wait behind it');
  t.equal(ram.getUint8(DESCRIPTIONS + QUEUE.SIZE + QUEUE.CONTROL), 1);
  bring(RX, 3, BUFFERS + 0x3000, 200, RXD.BODY);
  bring(RX, 4, BUFFERS + 0x4000, 200, RXD.BODY);
  bring(RX, 5, BUFFERS + 0x5000, 200);
  queues.RXPROD.at(0).value = 6;
  t.same(words(RX_DONE + 5 * 16).slice(0, 3), [4 | RXC.END | RXC.NO_CHECKSUM, 0, 36]);
  t.same(words(RX_DONE + 6 * 16).slice(0, 3), [(5 | RXC.START | RXC.END | RXC.NO_CHECKSUM) >>> 0, 0, 61]);
  t.equal(ram.getUint8(DESCRIPTIONS + QUEUE.SIZE + QUEUE.CONTROL), 0, 'it need not say any more');
  t.equal(wire.send(frame(OURS, 62)), false);
  bring(RX, 6, BUFFERS, 1000);
  table.clock.advance(ms(10));
  t.equal(words(RX_DONE + 7 * 16)[2], 62, 'a driver that does not say is looked after');
});

t.test('more buffers than one frame may have: what fits, and an error', async t => {
  const { start, bring, wire, words, ram, command } = lab();
  start();
  command(COMMAND.QUIESCE_DEV);
  ram.setUint16(CONFIG + SHARED.MAX_RX_FRAGMENTS, 2, true);
  t.equal(command(COMMAND.ACTIVATE_DEV), 0);
  bring(RX, 0, BUFFERS, 64);
  for (let at = 0; at < 4; at++) bring(BODIES, at, BUFFERS + 0x1000, 64, RXD.BODY);
  t.equal(wire.send(frame(OURS, 300)), true);
  t.equal(words(RX_DONE + 16)[2], 64 | RXC.ERROR);
  command(COMMAND.GET_STATS);
  t.equal(ram.getUint32(DESCRIPTIONS + QUEUE.SIZE + QUEUE.STATISTICS + 8 * 9, true), 1);
});

t.test('filters: modes, groups, networks; tags and checksums', async t => {
  const { start, bring, wire, words, ram, bytes, command, device } = lab();
  start({ mode: 0x7, features: FEATURE.RXVLAN | FEATURE.RXCSUM });
  for (let at = 0; at < RING; at++) bring(RX, at, BUFFERS + at * 2048, 1600);
  ram.setUint32(CONFIG + SHARED.VLANS, 1 << 5, true);
  ram.setUint16(CONFIG + SHARED.GROUPS_LENGTH, 6, true);
  ram.setUint32(CONFIG + SHARED.GROUPS, BUFFERS - 16, true);
  [1, 0, 0x5e, 0, 0, 2].forEach((byte, at) => ram.setUint8(BUFFERS - 16 + at, byte));
  command(COMMAND.UPDATE_MAC_FILTERS);
  command(COMMAND.UPDATE_VLAN_FILTERS);
  let next = 0;
  const arrives = (sent: Buffer): number[] | undefined => {
    wire.send(sent);
    const completion = words(RX_DONE + next * 16);
    if ((completion[3] ?? 0) >>> 31 === 0) return undefined;
    next++;
    return completion;
  };
  t.ok(arrives(frame(OURS, 60)));
  t.ok(arrives(frame(EVERYONE, 60)));
  t.notOk(arrives(frame([2, 0, 0, 0, 0, 1], 60)));
  t.notOk(arrives(frame([1, 0, 0x5e, 0, 0, 1], 60)));
  t.ok(arrives(frame([1, 0, 0x5e, 0, 0, 2], 60)));
  const tagged = frame(OURS, 100, 0x81, 0, 0x20, 5);
  t.equal(arrives(tagged)?.[2], 96 | RXC.TAG | (0x2005 << RXC.TAG_SHIFT));
  t.same(
    Buffer.from(bytes.subarray(BUFFERS + 3 * 2048, BUFFERS + 3 * 2048 + 96)),
    Buffer.concat([tagged.subarray(0, 12), tagged.subarray(16)]),
    'the fourth buffer, without the tag',
  );
  t.notOk(arrives(frame(OURS, 100, 0x81, 0, 0x20, 6)));
  t.equal(arrives(frame(OURS, 20))?.[2], 60, 'padded');
  const good = RXC.FRAME_GOOD | RXC.IPV4 | RXC.TCP | RXC.NETWORK_GOOD;
  const status = (sent: Buffer): number => (arrives(sent)?.[3] ?? 0) & 0xff_ffff;
  t.equal(status(tcp(10)), good | RXC.TRANSPORT_GOOD);
  const wrong = tcp(10);
  wrong[60] = 0x99;
  t.equal(status(wrong), good);
  ram.setUint32(CONFIG + SHARED.RX_MODE, 0x10, true);
  command(COMMAND.UPDATE_RX_MODE);
  t.ok(arrives(frame([2, 0, 0, 0, 0, 1], 60)), 'promiscuous');
  ram.setUint32(CONFIG + SHARED.RX_MODE, 0x1, true);
  command(COMMAND.UPDATE_RX_MODE);
  device.MACL.value = 0x0000_0002;
  device.MACH.value = 0x0100;
  t.ok(arrives(frame([2, 0, 0, 0, 0, 1], 60)), 'an address of its own');
  t.notOk(arrives(frame(EVERYONE, 60)));
});

t.test('two queues, chosen by a published hash; messages mask themselves', async t => {
  const { start, bring, wire, words, ram, queues, card, table, put, bytes } = lab();
  card.enableMsix();
  start({ queues: 2, autoMask: true });
  // The key and two of the addresses with ports of Microsoft's "Verifying the RSS Hash Calculation".
  const key = Buffer.from('6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa', 'hex');
  ram.setUint16(HASHING + RSS.TYPES, 0xf, true);
  ram.setUint16(HASHING + RSS.FUNCTION, RSS.TOEPLITZ, true);
  ram.setUint16(HASHING + RSS.KEY_LENGTH, 40, true);
  ram.setUint16(HASHING + RSS.TABLE_LENGTH, 4, true);
  bytes.set(key, HASHING + RSS.KEY);
  bytes.set([0, 0, 1, 0], HASHING + RSS.TABLE);
  ram.setUint32(CONFIG + SHARED.FEATURES, FEATURE.RSS, true);
  card.bar(1, deviceRegisters).CMD.value = COMMAND.UPDATE_FEATURE;
  for (const queue of [0, 1]) for (let at = 0; at < 4; at++) bring(RX + queue * APART, at, BUFFERS, 1600);
  for (const vector of [0, 1, 2, 3, 4]) queues.IMR.at(vector).value = 0;
  const published = (bytes: readonly number[], ports: readonly number[]): Buffer => {
    const packet = tcp(10);
    packet.set(bytes, 26);
    packet.writeUInt16BE(ports[0] ?? 0, 34);
    packet.writeUInt16BE(ports[1] ?? 0, 36);
    return packet;
  };
  wire.send(published([66, 9, 149, 187, 161, 142, 100, 80], [2794, 1766]));
  wire.send(published([199, 92, 111, 2, 65, 69, 140, 83], [14230, 4739]));
  const hashes = [RX_DONE, RX_DONE + APART].flatMap(ring => [0, 1].map(at => words(ring + at * 16)[1] ?? 0));
  t.same(hashes.filter(hash => hash !== 0).sort(), [0x51cc_c178, 0xc626_b0ea].sort());
  for (const hash of [0x51cc_c178, 0xc626_b0ea]) {
    const queue = hash % 4 === 2 ? 1 : 0;
    t.ok(
      [0, 1].some(at => words(RX_DONE + queue * APART + at * 16)[1] === hash),
      `in queue ${queue}`,
    );
  }
  const told = table.messages.map(({ data }) => data);
  t.ok(told.length > 0 && told.every(data => data === 0x42 || data === 0x43), `told by ${told}`);
  const vector = (told[0] ?? 0) - 0x40;
  t.equal(queues.IMR.at(vector).value, 1, 'masked until the driver wants it');
  wire.send(published([66, 9, 149, 187, 161, 142, 100, 80], [2794, 1766]));
  wire.send(published([199, 92, 111, 2, 65, 69, 140, 83], [14230, 4739]));
  t.equal(table.messages.length, told.length, 'once');
  queues.IMR.at(vector).value = 0;
  t.equal(table.messages.length, told.length + 1, 'what came meanwhile');
  bytes.set(frame(EVERYONE, 60), BUFFERS + 0x8000);
  put(APART / 16, BUFFERS + 0x8000, 60, TXD.END);
  queues.TXPROD.at(1).value = 1;
  t.equal(table.messages.at(-1)?.data, 0x41, "the second transmit queue's");
  wire.peer?.setLink(false);
  t.equal(table.messages.at(-1)?.data, 0x44, 'the link went down');
  t.equal(ram.getUint32(CONFIG + SHARED.EVENTS, true), EVENT.LINK);
  card.bar(1, deviceRegisters).ECR.value = EVENT.LINK;
  t.equal(ram.getUint32(CONFIG + SHARED.EVENTS, true), 0);
});
