import t from 'tap';
import { ms } from '../../core/clock/units.ts';
import { frameChecksum } from '../../core/net/ethernet.ts';
import { type NetBackend, NetClient } from '../../core/net/net-client.ts';
import { bench } from '../../core/testing/bench.ts';
import { CAUSE, MODE, OWN, RDES0, TDES1, tulipRegisters } from '../../devices/tulip/registers.ts';
import { tulip } from '../../devices/tulip/tulip.ts';

const [SEND, RECEIVE, BUFFERS, SETUP] = [0x1000, 0x2000, 0x1_0000, 0x8000];
const OURS = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
const END_OF_RING = 1 << 25;
const CHAINED = 1 << 24;

function lab() {
  const frames: Buffer[] = [];
  const client = new NetClient('net0', 'test', {
    canReceive: () => true,
    receive: (frame, length) => frames.push(Buffer.from(frame.subarray(0, length))) > 0,
  });
  const backend: NetBackend = { id: 'net0', client, dispose() {} };
  const table = bench({ backends: { find: () => backend } });
  t.teardown(() => table.dispose());
  const card = table.pci(tulip, { netdev: 'net0', mac: '52:54:00:12:34:56' });
  const ram = table.ram.view;
  const descriptor = (at: number, words: readonly number[]): void =>
    words.forEach((word, index) => ram.setUint32(at + 4 * index, word >>> 0, true));
  return {
    table,
    card,
    regs: card.bar(1, tulipRegisters),
    wire: client,
    frames,
    ram,
    bytes: table.ram.bytes,
    descriptor,
  };
}
type Lab = ReturnType<typeof lab>;

function frame(destination: readonly number[], size: number): Buffer {
  const bytes = Buffer.from(Array.from({ length: size }, (_, at) => (at * 7) & 0xff));
  Buffer.from(destination).copy(bytes);
  return bytes;
}

/** A setup frame with the addresses, each in three half words. */
function setUp(
  { regs, bytes, descriptor }: Lab,
  addresses: readonly (readonly number[])[],
  flags = 0,
  hash?: number,
): void {
  const setup = Buffer.alloc(192);
  for (let index = 0; index < 16; index++) {
    const address = addresses[index] ?? addresses[0] ?? [];
    address.forEach((byte, at) => setup.writeUInt8(byte, 12 * index + (at >> 1) * 4 + (at & 1)));
  }
  if (hash !== undefined) {
    setup.fill(0, 0, 128);
    setup.writeUInt16LE(1 << (hash & 15), (hash >> 4) * 4);
    addresses[0]?.forEach((byte, at) => setup.writeUInt8(byte, 156 + (at >> 1) * 4 + (at & 1)));
  }
  bytes.set(setup, SETUP);
  descriptor(SEND, [OWN, TDES1.SET | TDES1.IC | END_OF_RING | flags | 192, SETUP, 0]);
  regs.CSR4.value = SEND;
  regs.CSR6.value = MODE.ST | MODE.SR;
}

t.test('the serial ROM has the address and good checksums, on its pins', async t => {
  const { regs } = lab();
  const pins = (value: number): void => {
    regs.CSR9.value = 0x800 | value;
  };
  const read = (address: number): number => {
    pins(0);
    pins(1);
    for (let bit = 8; bit >= 0; bit--) {
      const data = (((0b110 << 6) | address) >> bit) & 1;
      for (const clock of [0, 2, 0]) pins(1 | clock | (data << 2));
    }
    let word = 0;
    for (let bit = 0; bit < 16; bit++) {
      pins(3);
      word = (word << 1) | ((regs.CSR9.value >> 3) & 1);
      pins(1);
    }
    return word;
  };
  const words = Uint16Array.from({ length: 64 }, (_, address) => read(address));
  const bytes = new Uint8Array(words.buffer);
  t.same([...bytes.subarray(20, 26)], OURS);
  t.equal(words[63], frameChecksum(bytes, 0, 126) & 0xffff);
  t.same([words[0], words[1]], [0x103c, 0x104f]);
  t.equal(bytes[0x1e + 3], 0x8d, 'a media block of type 3');
});

t.test('the transceiver answers on MDC and MDIO, and knows the link', async t => {
  const { regs, wire, card } = lab();
  const edge = (data: number, input = false): number => {
    const value = (input ? 1 << 18 : 0) | (data << 17);
    regs.CSR9.value = value;
    const seen = (regs.CSR9.value >>> 19) & 1;
    regs.CSR9.value = value | (1 << 16);
    return seen;
  };
  const command = (operation: number, phy: number, register: number): void => {
    for (let count = 0; count < 34; count++) edge(1);
    for (let bit = 13; bit >= 0; bit--) edge((((0b01 << 12) | (operation << 10) | (phy << 5) | register) >> bit) & 1);
  };
  // As Linux's driver reads: before each clock, two transitions, 16 bits, one idle.
  const read = (phy: number, register: number): number => {
    command(0b10, phy, register);
    let value = 0;
    for (let bit = 0; bit < 19; bit++) value = (value << 1) | edge(0, true);
    return (value >> 1) & 0xffff;
  };
  t.equal(read(1, 1) & 4, 4, 'link');
  t.equal(read(1, 2), 0x7810);
  t.equal(read(2, 2), 0xffff, 'nobody there');
  command(0b01, 1, 4);
  for (const bit of '10'.concat((0x01e1).toString(2).padStart(16, '0'))) edge(Number(bit));
  t.equal(read(1, 4) & 0x3fe0, 0x01e0);
  regs.CSR7.value = CAUSE.LC | (1 << 15);
  card.device.linkChanged(false);
  t.equal(read(1, 1) & 4, 0);
  t.equal(card.intx.level, false, "the transceiver's link is not one of the chip's own ports");
  t.ok(wire.peer !== undefined);
});

t.test('frames of several descriptors go out: rings, chains, big-endian ones; interrupts are told apart', async t => {
  const all = lab();
  const { regs, bytes, frames, ram, descriptor, card } = all;
  bytes.set(frame([255, 255, 255, 255, 255, 255], 200), BUFFERS);
  descriptor(SEND, [OWN, TDES1.FS | 50 | (30 << 11), BUFFERS, BUFFERS + 50]);
  descriptor(SEND + 16, [OWN, TDES1.LS | TDES1.IC | CHAINED | 120, BUFFERS + 80, SEND + 0x100]);
  descriptor(SEND + 0x100, [OWN, TDES1.FS | TDES1.LS | END_OF_RING | 64, BUFFERS, 0]);
  regs.CSR7.value = 0x1_0001;
  regs.CSR4.value = SEND;
  t.equal(frames.length, 0, 'stopped');
  regs.CSR6.value = MODE.ST;
  t.same(frames, [
    frame([255, 255, 255, 255, 255, 255], 200),
    frame([255, 255, 255, 255, 255, 255], 200).subarray(0, 64),
  ]);
  t.equal(ram.getUint32(SEND, true) & OWN, 0);
  t.equal(regs.CSR5.value & (CAUSE.TI | CAUSE.TU | (1 << 16)), CAUSE.TI | CAUSE.TU | (1 << 16));
  t.equal(card.intx.level, true);
  regs.CSR5.value = 0xffff_ffff;
  t.equal(card.intx.level, false);
  regs.CSR0.value = 1 << 20;
  for (const [index, word] of [OWN, TDES1.FS | TDES1.LS | END_OF_RING | 100, BUFFERS, 0].entries())
    ram.setUint32(SEND + 4 * index, word >>> 0, false);
  regs.CSR1.value = 1;
  t.equal(frames[2]?.length, 100, 'descriptors whose highest byte comes first');
  t.equal(ram.getUint32(SEND, false), 0);
});

t.test('what the filters take arrives with its checksum; a frame without a descriptor waits', async t => {
  const all = lab();
  const { regs, wire, ram, bytes, descriptor, table } = all;
  setUp(all, [OURS, [1, 0, 0x5e, 0, 0, 1]]);
  t.equal(ram.getUint32(SEND, true), 0x7fff_ffff);
  descriptor(RECEIVE, [OWN, 100 | (1000 << 11), BUFFERS, BUFFERS + 0x1000]);
  descriptor(RECEIVE + 16, [OWN, END_OF_RING | 2000, BUFFERS + 0x2000, 0]);
  regs.CSR3.value = RECEIVE;
  const sent = frame(OURS, 300);
  wire.send(frame([0x52, 0x54, 0, 1, 2, 3], 80));
  t.equal(ram.getUint32(RECEIVE, true), OWN, 'not ours');
  wire.send(sent);
  const status = ram.getUint32(RECEIVE, true);
  t.equal(status, RDES0.FS | RDES0.LS | (304 << 16));
  t.same(
    Buffer.concat([bytes.slice(BUFFERS, BUFFERS + 100), bytes.slice(BUFFERS + 0x1000, BUFFERS + 0x1000 + 200)]),
    sent,
  );
  t.equal(ram.getUint32(BUFFERS + 0x1000 + 200, true), frameChecksum(sent, 0, 300));
  wire.send(frame([1, 0, 0x5e, 0, 0, 1], 60));
  t.equal(ram.getUint32(RECEIVE + 16, true), RDES0.FS | RDES0.LS | RDES0.MF | (64 << 16));
  t.equal(wire.send(sent), false, 'no descriptor');
  t.equal(regs.CSR5.value & CAUSE.RU, CAUSE.RU);
  t.equal(regs.CSR5.RS, 4, 'suspended');
  ram.setUint32(RECEIVE, OWN, true);
  table.clock.advance(ms(2));
  t.equal(ram.getUint32(RECEIVE, true) & OWN, 0, 'the list is looked at again');
  setUp(all, [OURS], TDES1.FT1);
  ram.setUint32(RECEIVE + 16, OWN, true);
  wire.send(sent);
  t.equal(ram.getUint32(RECEIVE + 16, true), OWN, 'inverse filtering');
});

t.test('a hash table filters groups, with one address beside it', async t => {
  const all = lab();
  const { regs, wire, ram, descriptor } = all;
  const group = [1, 0, 0x5e, 0, 0, 1];
  let crc = 0xffff_ffff;
  for (const byte of group) {
    for (let bit = 0; bit < 8; bit++) crc = ((crc ^ (byte >> bit)) & 1) !== 0 ? (crc >>> 1) ^ 0xedb8_8320 : crc >>> 1;
  }
  setUp(all, [OURS], TDES1.FT0, crc & 0x1ff);
  const arrives = (destination: readonly number[]): boolean => {
    descriptor(RECEIVE, [OWN, END_OF_RING | 2000, BUFFERS, 0]);
    wire.send(frame(destination, 60));
    return (ram.getUint32(RECEIVE, true) & OWN) === 0;
  };
  regs.CSR3.value = RECEIVE;
  t.same([group, OURS, [1, 0, 0x5e, 0, 0, 2], [2, 0, 0, 0, 0, 1]].map(arrives), [true, true, false, false]);
  regs.CSR6.value = MODE.SR | MODE.PM;
  t.ok(arrives([1, 0, 0x5e, 0, 0, 2]), 'all groups');
  regs.CSR6.value = MODE.SR | MODE.PR;
  t.ok(arrives([2, 0, 0, 0, 0, 1]), 'everything');
});

t.test('loopback, the timer, a frame that is too long, a software reset', async t => {
  const all = lab();
  const { regs, ram, frames, bytes, descriptor, table } = all;
  setUp(all, [OURS]);
  bytes.set(frame(OURS, 100), BUFFERS);
  descriptor(SEND, [OWN, TDES1.FS | TDES1.LS | END_OF_RING | 100, BUFFERS, 0]);
  descriptor(RECEIVE, [OWN, END_OF_RING | 2000, BUFFERS + 0x1000, 0]);
  regs.CSR3.value = RECEIVE;
  regs.CSR6.value = MODE.SR | MODE.ST | (1 << 10);
  t.equal(frames.length, 0);
  t.equal(ram.getUint32(RECEIVE, true) >>> 16, 104);
  regs.CSR6.value = MODE.ST;
  descriptor(SEND, [OWN, TDES1.FS | 2047 | (2047 << 11), BUFFERS, BUFFERS]);
  descriptor(SEND + 16, [OWN, TDES1.LS | END_OF_RING | 100, BUFFERS, 0]);
  regs.CSR1.value = 1;
  t.equal(frames.length, 0, 'jabber');
  t.equal(ram.getUint32(SEND + 16, true) & OWN, 0);
  regs.CSR11.value = 0x1_0002;
  table.clock.advance(ms(0.2));
  t.equal(regs.CSR5.value & CAUSE.GTE, CAUSE.GTE);
  regs.CSR5.value = CAUSE.GTE;
  table.clock.advance(ms(0.2));
  t.equal(regs.CSR5.value & CAUSE.GTE, CAUSE.GTE, 'again and again');
  regs.CSR0.value = 1;
  t.equal(regs.CSR6.value, 0x3200_0040, 'software reset');
});
