import t from 'tap';
import { us } from '../../core/clock/units.ts';
import { type NetBackend, NetClient } from '../../core/net/net-client.ts';
import { bench } from '../../core/testing/bench.ts';
import { e1000 } from '../../devices/e1000/e1000.ts';
import { CTRL, e1000Registers, INT } from '../../devices/e1000/registers.ts';

const RING = 0x1000;
const BUFFERS = 0x1_0000;
const RING_BYTES = 128;

function lab() {
  const frames: Buffer[] = [];
  const client = new NetClient('net0', 'test', {
    canReceive: () => true,
    receive: (frame, length) => frames.push(Buffer.from(frame.subarray(0, length))) > 0,
  });
  const backend: NetBackend = { id: 'net0', client, dispose() {} };
  const table = bench({ backends: { find: () => backend } });
  t.teardown(() => table.dispose());
  const card = table.pci(e1000, { netdev: 'net0' });
  return { table, card, regs: card.bar(0, e1000Registers), wire: client, frames, ram: table.ram.view };
}

/** An Ethernet frame to `destination` of `size` bytes. */
function frame(destination: number[], size: number): Buffer {
  const bytes = Buffer.alloc(size, 0x5a);
  Buffer.from(destination).copy(bytes);
  bytes.writeUInt16BE(0x0800, 12);
  return bytes;
}

const OURS = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

t.test('the EEPROM has the address and a good checksum, by EERD and by its pins', async t => {
  const { regs } = lab();
  const words = Array.from({ length: 64 }, (_, address) => {
    regs.EERD.value = (address << 8) | 1;
    return regs.EERD.value >>> 16;
  });
  t.same(words.slice(0, 3), [0x5452, 0x1200, 0x5634]);
  t.equal(words.reduce((sum, word) => sum + word, 0) & 0xffff, 0xbaba);
  const clock = (value: number): void => {
    regs.EECD.value = value;
    regs.EECD.value = value | 1;
    regs.EECD.value = value;
  };
  regs.EECD.value = 0;
  regs.EECD.value = 2;
  for (const bit of [1, 1, 0, 0, 0, 0, 0, 0, 1]) clock(2 | (bit << 2));
  let word = 0;
  for (let at = 0; at < 16; at++) {
    regs.EECD.value = 3;
    word = (word << 1) | ((regs.EECD.value >> 3) & 1);
    regs.EECD.value = 2;
  }
  t.equal(word, 0x1200, 'word 1');
});

t.test('a legacy descriptor sends a frame and reports', async t => {
  const { regs, ram, frames, table, card } = lab();
  const bytes = frame([0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 100);
  table.ram.bytes.set(bytes, BUFFERS);
  ram.setUint32(RING, BUFFERS, true);
  ram.setUint32(RING + 8, 0x0900_0000 | 100, true);
  regs.TDBAL.value = RING;
  regs.TDLEN.value = RING_BYTES;
  regs.IMS.value = INT.TXDW;
  regs.TCTL.value = 2;
  regs.TDT.value = 1;
  t.same(frames, [bytes]);
  t.equal(regs.TDH.value, 1);
  t.equal(ram.getUint8(RING + 12) & 1, 1, 'descriptor done');
  t.equal(card.intx.level, true);
  t.equal(regs.ICR.value & INT.TXDW, INT.TXDW);
  t.equal(card.intx.level, false, 'reading ICR acknowledges');
  t.equal(regs.GPTC.value, 1);
  t.equal(regs.GPTC.value, 0, 'statistics clear on being read');
});

t.test('a doorbell for more than a turn: the rest follows with time, or at once where time stands still', async t => {
  for (const still of [false, true]) {
    const { regs, ram, table, frames } = lab();
    for (let index = 0; index < 63; index++) {
      ram.setUint32(RING + index * 16, BUFFERS, true);
      ram.setUint32(RING + index * 16 + 8, 0x0100_ffff, true);
    }
    regs.TDBAL.value = RING;
    regs.TDLEN.value = 64 * 16;
    regs.TCTL.value = 2;
    regs.TDT.value = 63;
    const first = frames.length;
    t.ok(first > 16 && first < 63, `${first} in the first turn`);
    t.equal(regs.TDH.value, first);
    if (still) table.clock.settle();
    else table.clock.advance(us(1));
    t.equal(frames.length, 63);
    t.equal(regs.TDH.value, 63);
    table.clock.settle();
    table.clock.advance(us(10));
    t.equal(frames.length, 63, 'nothing is sent twice');
  }
});

t.test('frames for the card arrive, others do not; a full ring keeps them waiting', async t => {
  const { regs, ram, wire, card, table } = lab();
  for (let index = 0; index < 8; index++) ram.setUint32(RING + index * 16, BUFFERS + index * 2048, true);
  regs.RDBAL.value = RING;
  regs.RDLEN.value = RING_BYTES;
  regs.RDT.value = 2;
  regs.RCTL.value = 0x8002;
  regs.IMS.value = INT.RXT0;
  t.equal(wire.send(frame([0x52, 0x54, 0, 1, 2, 3], 80)), true, 'not ours: filtered');
  t.equal(regs.RDH.value, 0);
  t.equal(wire.send(frame(OURS, 80)), true);
  t.equal(regs.RDH.value, 1);
  t.equal(ram.getUint16(RING + 8, true), 84, 'length with CRC');
  t.equal(ram.getUint8(RING + 12) & 3, 3, 'done, end of packet');
  t.equal(card.intx.level, true);
  t.same(Buffer.from(table.ram.bytes.subarray(BUFFERS, BUFFERS + 80)), frame(OURS, 80));
  wire.send(frame(OURS, 60));
  t.equal(wire.send(frame(OURS, 61)), false, 'no descriptor left');
  regs.RDT.value = 4;
  t.equal(regs.RDH.value, 3, 'the frame that waited has come');
});

t.test('the tag of a virtual LAN goes into the descriptor', async t => {
  const { regs, ram, wire, table } = lab();
  for (let index = 0; index < 8; index++) ram.setUint32(RING + index * 16, BUFFERS + index * 2048, true);
  regs.RDBAL.value = RING;
  regs.RDLEN.value = RING_BYTES;
  regs.RDT.value = 7;
  regs.RCTL.value = 0x8002;
  regs.CTRL.value |= CTRL.VME;
  const whole = frame(OURS, 200);
  wire.send(Buffer.concat([whole.subarray(0, 12), Buffer.from([0x81, 0, 0x21, 0x23]), whole.subarray(12)]));
  t.equal(ram.getUint16(RING + 8, true), 204, 'length with CRC, without the tag');
  t.equal(ram.getUint8(RING + 12) & 0xb, 0xb, 'done, end of packet, it had a tag');
  t.equal(ram.getUint16(RING + 14, true), 0x2123);
  t.same(Buffer.from(table.ram.bytes.subarray(BUFFERS, BUFFERS + 200)), whole);
});

t.test('segmentation makes frames of one large packet', async t => {
  const { regs, ram, frames, table } = lab();
  const header = Buffer.alloc(54);
  Buffer.from(OURS).copy(header);
  header.writeUInt16BE(0x0800, 12);
  header[14] = 0x45;
  header[23] = 6;
  header.writeUInt32BE(1000, 38);
  header[46] = 0x50;
  header[47] = 0x18;
  table.ram.bytes.set(header, BUFFERS);
  table.ram.bytes.fill(7, BUFFERS + 54, BUFFERS + 54 + 2500);
  // Context: IP at 14 (checksum 24, end 33), TCP at 34 (checksum 50), MSS 1000, header 54.
  ram.setUint32(RING, 14 | (24 << 8) | (33 << 16), true);
  ram.setUint32(RING + 4, 34 | (50 << 8), true);
  ram.setUint32(RING + 8, (0x2700_0000 | 2500) >>> 0, true);
  ram.setUint32(RING + 12, (54 << 8) | (1000 << 16), true);
  ram.setUint32(RING + 16, BUFFERS, true);
  ram.setUint32(RING + 24, (0x2d10_0000 | 2554) >>> 0, true);
  ram.setUint32(RING + 28, 0x0300, true);
  regs.TDBAL.value = RING;
  regs.TDLEN.value = RING_BYTES;
  regs.TCTL.value = 2;
  regs.TDT.value = 2;
  t.same(
    frames.map(each => each.length),
    [1054, 1054, 554],
  );
  t.same(
    frames.map(each => each.readUInt32BE(38)),
    [1000, 2000, 3000],
    'sequence numbers',
  );
  t.same(
    frames.map(each => each[47]),
    [0x10, 0x10, 0x18],
    'PSH in the last only',
  );
  for (const each of frames) {
    let sum = 0;
    for (let at = 14; at < 34; at += 2) sum += each.readUInt16BE(at);
    t.equal((sum & 0xffff) + (sum >>> 16), 0xffff, 'IP checksum');
  }
});

t.test('hostile rings end', async t => {
  const { regs, table } = lab();
  regs.TDBAL.value = RING;
  regs.TDLEN.value = RING_BYTES;
  regs.TCTL.value = 2;
  regs.TDH.value = 0xffff;
  regs.TDT.value = 0xfffe;
  regs.TDH.value = 3;
  regs.TDT.value = 0x7fff;
  regs.RDLEN.value = 0;
  regs.RCTL.value = 0x8002;
  table.clock.advance(us(10));
  t.ok(regs.STATUS.FD);
});
