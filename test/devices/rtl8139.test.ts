import t from 'tap';
import { ms } from '../../core/clock/units.ts';
import { frameChecksum } from '../../core/net/ethernet.ts';
import { type NetBackend, NetClient } from '../../core/net/net-client.ts';
import { bench } from '../../core/testing/bench.ts';
import { ISR, rtl8139Registers } from '../../devices/rtl8139/registers.ts';
import { rtl8139 } from '../../devices/rtl8139/rtl8139.ts';

const BUFFER = 0x1_0000;
const RING = 0x2000;
const OURS = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

function lab() {
  const frames: Buffer[] = [];
  const client = new NetClient('net0', 'test', {
    canReceive: () => true,
    receive: (frame, length) => frames.push(Buffer.from(frame.subarray(0, length))) > 0,
  });
  const backend: NetBackend = { id: 'net0', client, dispose() {} };
  const table = bench({ backends: { find: () => backend } });
  t.teardown(() => table.dispose());
  const card = table.pci(rtl8139, { netdev: 'net0' });
  return { table, card, regs: card.bar(0, rtl8139Registers), wire: client, frames, ram: table.ram.view };
}

function frame(destination: readonly number[], size: number): Buffer {
  const bytes = Buffer.from(Array.from({ length: size }, (_, at) => at & 0xff));
  Buffer.from(destination).copy(bytes);
  bytes.writeUInt16BE(0x0800, 12);
  return bytes;
}

t.test('the EEPROM has signature and address on its pins', async t => {
  const { regs } = lab();
  const read = (address: number): number => {
    regs.CR9346.value = 0x80;
    regs.CR9346.value = 0x88;
    for (const bit of [1, 1, 0, 0, 0, 0, 0, 0, 0].map((bit, at) => (at < 3 ? bit : (address >> (8 - at)) & 1))) {
      regs.CR9346.value = 0x88 | (bit << 1);
      regs.CR9346.value = 0x8c | (bit << 1);
    }
    let word = 0;
    for (let at = 0; at < 16; at++) {
      regs.CR9346.value = 0x88;
      regs.CR9346.value = 0x8c;
      word = (word << 1) | (regs.CR9346.value & 1);
    }
    regs.CR9346.value = 0;
    return word;
  };
  t.same([0, 1, 2, 7, 8, 9].map(read), [0x8129, 0x10ec, 0x8139, 0x5452, 0x1200, 0x5634]);
});

t.test('four descriptors send in turn; both windows show the registers', async t => {
  const { regs, card, table, frames } = lab();
  const memory = card.bar(1, rtl8139Registers);
  const bytes = frame([0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 90);
  table.ram.bytes.set(bytes, BUFFER);
  regs.CR.TE = true;
  regs.IMR.value = ISR.TOK;
  for (let index = 0; index < 5; index++) {
    memory.TSAD.at(index % 4).value = BUFFER;
    memory.TSD.at(index % 4).value = 90;
    t.equal(regs.TSD.at(index % 4).TOK, true);
  }
  t.same(frames, Array(5).fill(bytes));
  t.equal(card.intx.level, true);
  t.equal(regs.TSALL.value, 0xf00f);
  regs.ISR.value = 0xffff;
  t.equal(card.intx.level, false);
});

t.test('the receive buffer wraps; what is not read holds the wire up', async t => {
  const { regs, table, wire, ram } = lab();
  regs.RBSTART.value = BUFFER;
  regs.RCR.value = 0x0a;
  regs.CR.RE = true;
  let at = 0;
  for (let index = 0; index < 20; index++) {
    const bytes = frame(OURS, 1000 + index);
    t.equal(wire.send(bytes), true);
    const length = bytes.length + 4;
    t.equal(ram.getUint32(BUFFER + at, true), ((length << 16) | 0x4001) >>> 0, 'matched our address');
    const stored = Buffer.from(
      Array.from({ length }, (_, byte) => table.ram.bytes[BUFFER + ((at + 4 + byte) % 8192)] ?? 0),
    );
    t.same(stored.subarray(0, bytes.length), bytes);
    t.equal(stored.readUInt32LE(bytes.length), frameChecksum(bytes, 0, bytes.length));
    t.equal(regs.CR.BUFE, false);
    at = (at + 4 + length + 3) & ~3 & 8191;
    regs.CAPR.value = at - 16;
    t.equal(regs.CR.BUFE, true);
  }
  wire.send(frame([0x52, 0x54, 0, 9, 9, 9], 200));
  t.equal(regs.CR.BUFE, true, 'not for us');
  let taken = 0;
  while (wire.send(frame(OURS, 1400))) taken++;
  t.equal(taken, 5);
  regs.CAPR.value = ((at + 1408) & 8191) - 16;
  t.equal(wire.peer?.queued, 0, 'what waited has come');
});

t.test('C+ mode: segments and checksums out, tags and checksums in', async t => {
  const { regs, ram, table, wire, frames, card } = lab();
  const packet = Buffer.alloc(14 + 20 + 20 + 2500, 7);
  Buffer.from(OURS).copy(packet);
  packet.writeUInt16BE(0x0800, 12);
  packet.set([0x45, 0, (2540 >> 8) & 255, 2540 & 255, 0, 9, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], 14);
  packet.set([0, 80, 0, 81, 0, 0, 3, 0xe8, 0, 0, 0, 0, 0x50, 0x18, 0, 0, 0, 0, 0, 0], 34);
  table.ram.bytes.set(packet, BUFFER);
  // Two descriptors; large send with segments of 1000, and a tag.
  for (const [index, [flags, start, size]] of [
    [0xa800_0000, 0, 54],
    [0xd800_0000, 54, 2500],
  ].entries() as IterableIterator<[number, [number, number, number]]>) {
    ram.setUint32(RING + index * 16, (flags | (1000 << 16) | size) >>> 0, true);
    ram.setUint32(RING + index * 16 + 4, 0x2_0500, true);
    ram.setUint32(RING + index * 16 + 8, BUFFER + start, true);
  }
  regs.CPCR.value = 0x63;
  regs.TSAD.at(0).value = RING;
  regs.TSAD.at(1).value = 0;
  regs.CR.TE = true;
  regs.TPPOLL.value = 0x40;
  t.same(
    frames.map(each => [each.length, each.readUInt32BE(12), each.readUInt32BE(42), each[51]]),
    [
      [1058, 0x8100_0005, 1000, 0x10],
      [1058, 0x8100_0005, 2000, 0x10],
      [558, 0x8100_0005, 3000, 0x18],
    ],
  );
  t.equal(ram.getUint32(RING, true) >>> 31, 0, 'given back');
  // What has been sent comes back in: tag out, checksums good; then with a bit turned.
  const receive = RING + 0x100;
  for (let index = 0; index < 2; index++) {
    ram.setUint32(receive + index * 16, index === 1 ? 0xc000_0800 : 0x8000_0800, true);
    ram.setUint32(receive + index * 16 + 8, 0x2_0000 + index * 0x1000, true);
  }
  regs.RDSARL.value = receive;
  regs.RCR.value = 0x0b;
  regs.CR.RE = true;
  const [good] = frames;
  if (good === undefined) return;
  wire.send(good);
  t.equal(ram.getUint32(receive, true), 0x3001_0000 + 1058, 'TCP, checksums good');
  t.equal(ram.getUint32(receive + 4, true), 0x1_0500);
  t.equal(ram.getUint16(0x2_0000 + 12, false), 0x0800);
  good[500] = 99;
  wire.send(good);
  t.equal(ram.getUint32(receive + 16, true), 0x7001_2000 + 1058, 'TCP checksum wrong; end of ring kept');
  t.equal(regs.ISR.value & ISR.ROK, ISR.ROK);
  wire.send(good);
  t.equal(regs.MPC.value, 1, 'no descriptor');
  regs.TSD.at(1).value = 0;
  regs.TSD.at(0).value = 0x3_0008;
  t.equal(ram.getUint32(0x3_0000 + 28, true) & 0xffff, 1, 'missed packets among the tallies');
  t.equal(regs.TSD.at(0).value, 0x3_0000);
  t.equal(card.intx.level, false, 'nothing is unmasked');
});

t.test('the timer counts PCI clocks and interrupts', async t => {
  const { regs, table, card } = lab();
  regs.TCTR.value = 0;
  regs.IMR.value = ISR.TIMEOUT;
  regs.TIMERINT.value = 1_000_000;
  table.clock.advance(ms(10));
  t.equal(regs.TCTR.value, 333_333);
  t.equal(card.intx.level, false);
  table.clock.advance(ms(25));
  t.equal(card.intx.level, true);
});

t.test('hostile rings and buffers end', async t => {
  const { regs, table, wire } = lab();
  regs.CPCR.value = 0x63;
  regs.TSAD.at(0).value = 0xffff_fff0;
  regs.TSAD.at(1).value = 0xffff_ffff;
  regs.RDSARL.value = 0xffff_fff0;
  regs.RDSARH.value = 0xffff_ffff;
  regs.RBSTART.value = 0xffff_fff0;
  regs.RCR.value = 0xffff_ffff;
  regs.CR.value = 0x0c;
  table.ram.bytes.fill(0xff, RING, RING + 0x1000);
  for (const base of [RING, 0xffff_0000]) {
    regs.TSAD.at(0).value = base;
    regs.TSAD.at(1).value = 0;
    regs.RDSARL.value = base;
    regs.RDSARH.value = 0;
    regs.TPPOLL.value = 0xff;
    wire.send(frame(OURS, 60));
    wire.send(Buffer.alloc(9000, 0xff));
    wire.send(Buffer.alloc(3));
  }
  regs.CPCR.value = 0;
  for (let index = 0; index < 12; index++) wire.send(Buffer.alloc(8000, 0xff));
  t.ok(regs.MPC.value >= 0);
});
