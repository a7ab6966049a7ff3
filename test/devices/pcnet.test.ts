import t from 'tap';
import { ms } from '../../core/clock/units.ts';
import { frameChecksum } from '../../core/net/ethernet.ts';
import { type NetBackend, NetClient } from '../../core/net/net-client.ts';
import { bench } from '../../core/testing/bench.ts';
import { pcnet } from '../../devices/pcnet/pcnet.ts';
import { BCR, CSR, DESCRIPTOR, MODE, STATUS } from '../../devices/pcnet/registers.ts';

const [BLOCK, RECEIVE, SEND, BUFFERS] = [0x1000, 0x2000, 0x3000, 0x1_0000];
const OURS = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
const EVERYONE = [255, 255, 255, 255, 255, 255];
const RING = 4;

function lab() {
  const frames: Buffer[] = [];
  const client = new NetClient('net0', 'test', {
    canReceive: () => true,
    receive: (frame, length) => frames.push(Buffer.from(frame.subarray(0, length))) > 0,
  });
  const backend: NetBackend = { id: 'net0', client, dispose() {} };
  const table = bench({ backends: { find: () => backend } });
  t.teardown(() => table.dispose());
  const card = table.pci(pcnet, { netdev: 'net0', mac: '52:54:00:12:34:56' });
  const io = card.port(0);
  const select = (number: number): void => io.write(0x12, 2, number);
  const csr = (number: number, value?: number): number => {
    select(number);
    if (value !== undefined) io.write(0x10, 2, value);
    return io.read(0x10, 2);
  };
  const bcr = (number: number, value?: number): number => {
    select(number);
    if (value !== undefined) io.write(0x16, 2, value);
    return io.read(0x16, 2);
  };
  return { table, card, io, csr, bcr, wire: client, frames, ram: table.ram.view, bytes: table.ram.bytes };
}
type Lab = ReturnType<typeof lab>;

function frame(destination: readonly number[], size: number): Buffer {
  const bytes = Buffer.from(Array.from({ length: size }, (_, at) => (at * 7) & 0xff));
  Buffer.from(destination).copy(bytes);
  return bytes;
}

/** Initializes in a software style, with rings of four that all are software's; group 01:00:5e:00:00:01 is taken. */
function start({ csr, bcr, ram }: Lab, style: number, mode = 0): void {
  bcr(BCR.SWS, style);
  ram.setUint16(BLOCK, mode, true);
  const long = style !== 0;
  const [padr, ladrf, rings] = long ? [4, 12, 20] : [2, 8, 16];
  if (long) ram.setUint16(BLOCK + 2, 0x2020, true);
  OURS.forEach((byte, at) => ram.setUint8(BLOCK + padr + at, byte));
  // The six highest bits of the register that makes the frame check sequence.
  let crc = 0xffff_ffff;
  for (const byte of [1, 0, 0x5e, 0, 0, 1]) {
    for (let bit = 0; bit < 8; bit++) crc = ((crc ^ (byte >> bit)) & 1) !== 0 ? (crc >>> 1) ^ 0xedb8_8320 : crc >>> 1;
  }
  const hash = crc >>> 26;
  for (let at = 0; at < 8; at++) ram.setUint8(BLOCK + ladrf + at, at === hash >> 3 ? 1 << (hash & 7) : 0);
  ram.setUint32(BLOCK + rings, (RECEIVE | (long ? 0 : 2 << 29)) >>> 0, true);
  ram.setUint32(BLOCK + rings + 4, (SEND | (long ? 0 : 2 << 29)) >>> 0, true);
  for (let at = 0; at < 16 * RING; at += 4) {
    ram.setUint32(RECEIVE + at, 0, true);
    ram.setUint32(SEND + at, 0, true);
  }
  csr(CSR.IADR_LOW, BLOCK);
  csr(CSR.IADR_HIGH, 0);
  csr(CSR.STATUS, STATUS.INIT);
  csr(CSR.STATUS, STATUS.IDON | STATUS.STRT | STATUS.IENA);
}

/** Gives a descriptor to the card, in any style. */
function give(
  ram: DataView<ArrayBufferLike>,
  style: number,
  ring: number,
  index: number,
  address: number,
  size: number,
  status = 0,
): void {
  const at = ring + index * (style === 0 ? 8 : 16);
  const count = (0x1_0000 - size) & 0xffff;
  const word = DESCRIPTOR.OWN | status;
  if (style === 0) {
    ram.setUint32(at + 4, count, true);
    ram.setUint32(at, (address | (word << 16)) >>> 0, true);
  } else {
    ram.setUint32(at + (style === 3 ? 8 : 0), address, true);
    ram.setUint32(at + (style === 3 ? 0 : 8), 0, true);
    ram.setUint32(at + 4, (count | (word << 16)) >>> 0, true);
  }
}

const statusOf = (ram: DataView<ArrayBufferLike>, style: number, ring: number, index: number): number =>
  style === 0 ? ram.getUint8(ring + index * 8 + 3) << 8 : ram.getUint16(ring + index * 16 + 6, true);

t.test('the address PROM, who the chip is, both widths of its window', async t => {
  const { io, csr, bcr } = lab();
  const prom = Array.from({ length: 16 }, (_, at) => io.read(at, 1));
  t.same(prom.slice(0, 6), OURS);
  t.same(prom.slice(14), [0x57, 0x57]);
  const sum = prom.reduce((total, byte, at) => (at === 12 || at === 13 ? total : total + byte), 0);
  t.equal((prom[12] ?? 0) | ((prom[13] ?? 0) << 8), sum);
  t.equal(csr(0), STATUS.STOP);
  t.same([csr(88), csr(89)], [0x1003, 0x0262]);
  t.equal(bcr(BCR.LNKST), 0x80c0, 'a link');
  bcr(BCR.SWS, 2);
  t.equal(csr(58), 0x0302, 'software style 2');
  io.write(0x10, 4, 0);
  t.equal(io.read(0x14, 2), 0xffff, 'double words only');
  io.write(0x14, 4, 88);
  t.equal(io.read(0x10, 4), 0x0262_1003);
  t.equal(io.read(0x18, 4), 0, 'software reset');
  t.equal(io.read(0x12, 2), 0, 'words again');
});

for (const style of [0, 2, 3]) {
  t.test(`software style ${style}: frames of several descriptors, both ways`, async t => {
    const all = lab();
    const { csr, wire, frames, ram, bytes, card } = all;
    start(all, style);
    t.equal(csr(0) & 0x1ff & ~STATUS.INTR, STATUS.INIT | STATUS.STRT | STATUS.TXON | STATUS.RXON | STATUS.IENA);
    const sent = frame(EVERYONE, 200);
    bytes.set(sent, BUFFERS);
    give(ram, style, SEND, 1, BUFFERS + 150, 50, DESCRIPTOR.ENP);
    give(ram, style, SEND, 0, BUFFERS, 150, DESCRIPTOR.STP);
    csr(0, STATUS.TDMD | STATUS.IENA);
    t.same(frames, [sent]);
    t.equal(statusOf(ram, style, SEND, 0), DESCRIPTOR.STP);
    t.equal(statusOf(ram, style, SEND, 1), DESCRIPTOR.ENP);
    t.equal(csr(0) & STATUS.TINT, STATUS.TINT);
    t.equal(card.intx.level, true);
    csr(0, STATUS.TINT | STATUS.IENA);
    t.equal(card.intx.level, false);

    t.equal(wire.send(frame(OURS, 100)), false, 'no descriptor: the frame waits');
    give(ram, style, RECEIVE, 1, BUFFERS + 0x1100, 100);
    give(ram, style, RECEIVE, 0, BUFFERS + 0x1000, 64);
    csr(0, STATUS.IENA);
    t.equal(statusOf(ram, style, RECEIVE, 0), DESCRIPTOR.STP);
    t.equal(statusOf(ram, style, RECEIVE, 1) & 0xff00, DESCRIPTOR.ENP);
    if (style !== 0) t.equal(statusOf(ram, style, RECEIVE, 1) & 0xff, DESCRIPTOR.PAM);
    const second = RECEIVE + (style === 0 ? 8 : 16);
    const count = style === 0 ? ram.getUint16(second + 6, true) : ram.getUint32(second + (style === 3 ? 0 : 8), true);
    t.equal(count, 104);
    const got = Buffer.concat([
      bytes.slice(BUFFERS + 0x1000, BUFFERS + 0x1040),
      bytes.slice(BUFFERS + 0x1100, BUFFERS + 0x1128),
    ]);
    t.same(got.subarray(0, 100), frame(OURS, 100));
    t.equal(got.readUInt32LE(100), frameChecksum(got, 0, 100));
    t.equal(csr(0) & STATUS.RINT, STATUS.RINT);
  });
}

t.test('filters: own address, groups by hash, broadcasts, everything; what has no end in the ring', async t => {
  const arrives = (mode: number, destination: readonly number[]): number => {
    const all = lab();
    start(all, 2, mode);
    give(all.ram, 2, RECEIVE, 0, BUFFERS, 1600);
    all.wire.send(frame(destination, 60));
    return statusOf(all.ram, 2, RECEIVE, 0);
  };
  const whole = DESCRIPTOR.STP | DESCRIPTOR.ENP;
  t.equal(arrives(0, OURS), whole | DESCRIPTOR.PAM);
  t.equal(arrives(0, EVERYONE), whole | DESCRIPTOR.BAM);
  t.equal(arrives(0, [1, 0, 0x5e, 0, 0, 1]), whole | DESCRIPTOR.LAFM);
  t.equal(arrives(0, [1, 0, 0x5e, 0, 0, 2]), DESCRIPTOR.OWN);
  t.equal(arrives(0, [2, 0, 0, 0, 0, 1]), DESCRIPTOR.OWN);
  t.equal(arrives(MODE.PROM, [2, 0, 0, 0, 0, 1]), whole);
  t.equal(arrives(MODE.DRCVPA, OURS), DESCRIPTOR.OWN);
  const all = lab();
  start(all, 2);
  give(all.ram, 2, RECEIVE, 0, BUFFERS, 64);
  all.wire.send(frame(OURS, 100));
  t.equal(statusOf(all.ram, 2, RECEIVE, 0), DESCRIPTOR.STP | DESCRIPTOR.ERR | DESCRIPTOR.OFLO | DESCRIPTOR.BUFF);
});

t.test('loopback, polling, a packet without its end, a link that is down, STOP', async t => {
  const all = lab();
  const { csr, bcr, ram, bytes, frames, table, card, wire } = all;
  start(all, 2, MODE.LOOP | MODE.INTL);
  bytes.set(frame(OURS, 100), BUFFERS);
  give(ram, 2, SEND, 0, BUFFERS, 100, DESCRIPTOR.STP | DESCRIPTOR.ENP);
  give(ram, 2, RECEIVE, 0, BUFFERS + 0x1000, 1600);
  csr(0, STATUS.TDMD | STATUS.IENA);
  t.same(Buffer.from(bytes.slice(BUFFERS + 0x1000, BUFFERS + 0x1000 + 100)), frame(OURS, 100));
  t.equal(frames.length, 0);
  csr(0, STATUS.STOP);
  t.equal(csr(0), STATUS.STOP);
  start(all, 2);
  give(ram, 2, SEND, 0, BUFFERS, 100, DESCRIPTOR.STP | DESCRIPTOR.ENP);
  table.clock.advance(ms(3));
  t.equal(frames.length, 1, 'found by polling');
  give(ram, 2, SEND, 1, BUFFERS, 100, DESCRIPTOR.STP);
  csr(0, STATUS.TDMD);
  t.equal(csr(0) & STATUS.TXON, 0, 'the transmitter stops');
  csr(0, STATUS.STOP);
  start(all, 2);
  wire.peer?.setLink(false);
  t.equal(bcr(BCR.LNKST), 0x00c0);
  give(ram, 2, SEND, 0, BUFFERS, 100, DESCRIPTOR.STP | DESCRIPTOR.ENP);
  csr(0, STATUS.TDMD);
  t.equal(statusOf(ram, 2, SEND, 0) & DESCRIPTOR.ERR, DESCRIPTOR.ERR);
  t.equal(csr(0) & (STATUS.CERR | STATUS.ERR), STATUS.CERR | STATUS.ERR);
  csr(CSR.FEATURES, 0x0195);
  csr(0, STATUS.IENA);
  t.equal(card.intx.level, true, "software's own interrupt");
});
