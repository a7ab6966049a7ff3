import t from 'tap';
import type { DeviceType } from '../../core/device/device-type.ts';
import { type NetBackend, NetClient } from '../../core/net/net-client.ts';
import { bench } from '../../core/testing/bench.ts';
import { i82559c } from '../../devices/eepro100/eepro100.ts';
import { eepro100Registers } from '../../devices/eepro100/registers.ts';
import { ne2kPci } from '../../devices/ne2000/ne2000.ts';

const OURS = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

function lab(type: DeviceType) {
  const frames: Buffer[] = [];
  const client = new NetClient('net0', 'test', {
    canReceive: () => true,
    receive: (frame, length) => frames.push(Buffer.from(frame.subarray(0, length))) > 0,
  });
  const backend: NetBackend = { id: 'net0', client, dispose() {} };
  const table = bench({ backends: { find: () => backend } });
  t.teardown(() => table.dispose());
  const card = table.pci(type, { netdev: 'net0' });
  return { table, card, wire: client, frames, ram: table.ram.view };
}

function frame(destination: readonly number[], size: number): Buffer {
  const bytes = Buffer.from(Array.from({ length: size }, (_, at) => (at * 7) & 0xff));
  Buffer.from(destination).copy(bytes);
  return bytes;
}

t.test('NE2000: address PROM, ring with its wrap, transmission, interrupts', async t => {
  const { card, wire, frames } = lab(ne2kPci);
  const io = card.port(0);
  const out = (port: number, value: number): void => io.write(port, 1, value);
  const remote = (address: number, length: number, command: number): void => {
    out(0, 0x22);
    out(0x8, address & 0xff);
    out(0x9, address >> 8);
    out(0xa, length & 0xff);
    out(0xb, length >> 8);
    out(0, command);
  };
  const readBlock = (address: number, length: number): Buffer => {
    remote(address, length, 0x0a);
    return Buffer.from(Array.from({ length }, () => io.read(0x10, 1)));
  };
  io.read(0x1f, 1);
  t.equal(io.read(0x7, 1) & 0x80, 0x80, 'reset');
  out(0, 0x21);
  t.same([...readBlock(0, 32)].filter((_, at) => at % 2 === 0).slice(0, 6), OURS);
  t.same([io.read(0xa, 1), io.read(0xb, 1)], [0x50, 0x43], "the RTL8029's signature");
  out(0, 0x21);
  out(0x1, 0x46);
  out(0x2, 0x60);
  out(0x3, 0x46);
  out(0xc, 0x04);
  out(0, 0x61);
  out(0x7, 0x47);
  out(0, 0x22);
  out(0xf, 0x01);
  out(0x7, 0x7f);
  let current = 0x47;
  for (let index = 0; index < 8; index++) {
    const bytes = frame(OURS, 1000 + index);
    wire.send(bytes);
    t.equal(card.intx.level, true);
    out(0x7, 0xff);
    t.equal(card.intx.level, false);
    const header = readBlock(current * 256, 4);
    t.equal(header.readUInt16LE(2), bytes.length + 4);
    const first = Math.min(bytes.length, (0x60 - current) * 256 - 4);
    const stored = Buffer.concat([
      readBlock(current * 256 + 4, first),
      first < bytes.length ? readBlock(0x4600, bytes.length - first) : Buffer.alloc(0),
    ]);
    t.ok(stored.equals(bytes), `frame ${index}`);
    current = header[1] ?? 0;
    out(0, 0x22);
    out(0x3, current === 0x46 ? 0x5f : current - 1);
  }
  let taken = 0;
  while (wire.send(frame(OURS, 1500))) taken++;
  t.ok(taken >= 2 && taken < 8, 'a full ring keeps frames waiting');
  const message = frame([0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 60);
  remote(0x4000, message.length, 0x12);
  for (const byte of message) io.write(0x10, 1, byte);
  out(0x4, 0x40);
  out(0x5, message.length);
  out(0x6, 0);
  out(0, 0x26);
  t.same(frames, [message]);
  t.equal(io.read(0x4, 1), 1);
});

t.test('8255x: command list, flexible transmission, receive frame area, statistics', async t => {
  const { card, wire, frames, ram, table } = lab(i82559c);
  const regs = card.bar(0, eepro100Registers);
  const block = 0x2000;
  const entry = (at: number, command: number, link: number): void => {
    ram.setUint32(at, command << 16, true);
    ram.setUint32(at + 4, link, true);
  };
  entry(block, 2, 0x40);
  table.ram.bytes.set(
    [22, 8, 0, 0, 0, 0, 0x32, 3, 1, 0, 0x2e, 0, 0x60, 0, 0xf2, 0x48, 0, 0x40, 0xf2, 0x80, 0x3f, 5],
    block + 8,
  );
  entry(block + 0x40, 1, 0x80);
  table.ram.bytes.set([2, 4, 6, 8, 10, 12], block + 0x48);
  entry(block + 0x80, 0xe00c, 0);
  ram.setUint32(block + 0x88, block + 0x100, true);
  ram.setUint32(block + 0x8c, 0x0200_0000, true);
  const bytes = frame([0xff, 0xff, 0xff, 0xff, 0xff, 0xff], 200);
  table.ram.bytes.set(bytes, 0x3000);
  ram.setUint32(block + 0x100, 0x3000, true);
  ram.setUint32(block + 0x104, 100, true);
  ram.setUint32(block + 0x108, 0x3064, true);
  ram.setUint32(block + 0x10c, 0x1_0064, true);
  regs.POINTER.value = block;
  regs.COMMAND.value = 0x60;
  regs.POINTER.value = 0;
  regs.COMMAND.value = 0x10;
  t.same(frames, [bytes]);
  t.same(
    [0, 0x40, 0x80].map(at => ram.getUint16(block + at, true)),
    [0xa000, 0xa000, 0xa000],
    'complete and good',
  );
  t.equal(regs.STATUS.CUS, 0, 'idle at the end of the list');
  t.equal(regs.ACK.value, 0xa0);
  t.equal(card.intx.level, true);
  regs.ACK.value = 0xff;
  t.equal(card.intx.level, false);
  // Two receive frame descriptors, the second the last.
  const area = 0x4000;
  ram.setUint32(area + 4, 0x800, true);
  ram.setUint32(area + 12, 0x0600_0000, true);
  ram.setUint32(area + 0x800, 0x8000_0000, true);
  ram.setUint32(area + 0x80c, 0x0600_0000, true);
  regs.POINTER.value = area;
  regs.COMMAND.value = 6;
  regs.POINTER.value = 0;
  regs.COMMAND.value = 1;
  wire.send(frame(OURS, 90));
  t.equal(ram.getUint16(area, true), 0, 'the address has been set to another');
  const ours = frame([2, 4, 6, 8, 10, 12], 90);
  wire.send(ours);
  t.equal(ram.getUint16(area, true), 0xa000);
  t.equal(ram.getUint16(area + 12, true), 90);
  t.ok(ours.equals(table.ram.bytes.subarray(area + 16, area + 106)));
  wire.send(ours);
  t.equal(regs.STATUS.RUS, 2, 'no resources');
  wire.send(ours);
  regs.POINTER.value = 0x5000;
  regs.COMMAND.value = 0x40;
  regs.COMMAND.value = 0x70;
  t.same(
    [0, 36, 48, 64].map(at => ram.getUint32(0x5000 + at, true)),
    [1, 2, 1, 0xa007],
  );
  regs.MDI.value = 0x0821_0000;
  t.equal(regs.MDI.value & 0xffff, 0x782d);
});

t.test('hostile lists end', async t => {
  const { card, wire, ram, table } = lab(i82559c);
  const regs = card.bar(0, eepro100Registers);
  table.ram.bytes.fill(0xff, 0x2000, 0x3000);
  for (let action = 0; action < 16; action++) {
    ram.setUint32(0x2000, action << 16, true);
    ram.setUint32(0x2004, 0x2000, true);
    regs.POINTER.value = 0x2000;
    regs.COMMAND.value = 0x11;
    regs.COMMAND.value = 0x21;
    wire.send(frame(OURS, 1500));
  }
  regs.POINTER.value = 0xffff_fff0;
  regs.COMMAND.value = 0x11;
  for (let command = 0; command < 256; command++) regs.COMMAND.value = command;
  wire.send(frame(OURS, 60));
  const ne2000 = lab(ne2kPci);
  const io = ne2000.card.port(0);
  for (let value = 0; value < 4096; value++)
    io.write(value & 0x1f, 1 << ((value >> 5) % 3), (value * 2_654_435_761) >>> 8);
  ne2000.wire.send(Buffer.alloc(9000, 1));
  t.ok(regs.GENERAL_STATUS.value === 7);
});
