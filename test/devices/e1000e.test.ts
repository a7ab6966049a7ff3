import t from 'tap';
import { ms, us } from '../../core/clock/units.ts';
import { type NetBackend, NetClient } from '../../core/net/net-client.ts';
import { Packet } from '../../core/net/packet.ts';
import { ToeplitzHash } from '../../core/net/rss.ts';
import { bench } from '../../core/testing/bench.ts';
import { e1000e } from '../../devices/e1000e/e1000e.ts';
import { CTRL, CTRL_EXT, e1000eRegisters, INT, MRQC, RCTL, RFCTL, RXCSUM } from '../../devices/e1000e/registers.ts';

const RING = 0x1000;
const BUFFERS = 0x1_0000;
const RING_BYTES = 256;
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
  const card = table.pci(e1000e, { netdev: 'net0' });
  return { table, card, regs: card.bar(0, e1000eRegisters), wire: client, frames, ram: table.ram.view };
}

/** TCP over IPv4 from 66.9.149.187:2794 to 161.142.100.80:1766: the first of Microsoft's examples of hashes. */
function tcp(size: number, flags = 0x10): Buffer {
  const bytes = Buffer.alloc(54 + size, 0x33);
  Buffer.from(OURS).copy(bytes);
  bytes.writeUInt16BE(0x0800, 12);
  bytes.set([0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, 6, 0, 0, 66, 9, 149, 187, 161, 142, 100, 80], 14);
  bytes.writeUInt16BE(40 + size, 16);
  bytes.set([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0], 34);
  bytes.writeUInt16BE(2794, 34);
  bytes.writeUInt16BE(1766, 36);
  const packet = new Packet();
  packet.parse(bytes, bytes.length);
  packet.putNetworkChecksum(bytes);
  packet.putTransportChecksum(bytes);
  return bytes;
}

const KEY = Buffer.from('6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa', 'hex');

t.test("hashes are those of Microsoft's examples", async t => {
  const hash = new ToeplitzHash(KEY);
  const packet = new Packet();
  const bytes = tcp(0);
  packet.parse(bytes, bytes.length);
  t.equal(hash.of(packet, bytes, 'addresses-and-ports'), 0x51ccc178);
  t.equal(hash.of(packet, bytes, 'addresses'), 0x323e8fc2);
});

t.test('the NVM has the address and a good checksum; registers answer at their old places', async t => {
  const { regs, card } = lab();
  const words = Array.from({ length: 64 }, (_, address) => {
    regs.EERD.value = (address << 2) | 1;
    return regs.EERD.value >>> 16;
  });
  t.same(words.slice(0, 3), [0x5452, 0x1200, 0x5634]);
  t.equal(words.reduce((sum, word) => sum + word, 0) & 0xffff, 0xbaba);
  regs.RDBAL.at(0).value = 0x1230;
  t.equal(card.port(0).read(0x110, 4), 0x1230);
  card.port(2).write(0, 4, 0x2800);
  t.equal(card.port(2).read(4, 4), 0x1230);
  regs.SWSM.value = 0;
  t.equal(regs.SWSM.value, 0);
  t.equal(regs.SWSM.value, 1, 'reading takes the semaphore');
});

t.test('MSI-X: vectors by cause, throttled, cleared by themselves', async t => {
  const { regs, card, table, ram } = lab();
  const bar = card.port(3);
  for (let vector = 0; vector < 5; vector++) {
    bar.write(vector * 16, 4, 0xfee0_0000);
    bar.write(vector * 16 + 8, 4, 0x40 + vector);
    bar.write(vector * 16 + 12, 4, 0);
  }
  card.writeConfig(0xa2, 2, 0x8000);
  regs.IVAR.value = 0x8_0a98 | (0xb << 16);
  regs.EIAC.value = INT.TXQ0;
  regs.IMS.value = 0x1ff_ffff;
  regs.TDBAL.at(0).value = RING;
  regs.TDLEN.at(0).value = RING_BYTES;
  regs.TCTL.value = 2;
  const send = (at: number): void => {
    ram.setUint32(RING + at * 16, BUFFERS, true);
    ram.setUint32(RING + at * 16 + 8, (0x0b00_0000 | 60) >>> 0, true);
    regs.TDT.at(0).value = at + 1;
  };
  send(0);
  t.same(
    table.messages.map(({ data }) => data).filter(data => data === 0x42),
    [0x42],
    'TXQ0 has vector 2',
  );
  t.equal(regs.ICR.value & INT.TXQ0, 0, 'cleared by EIAC');
  t.equal(regs.IMS.value & INT.TXQ0, 0, 'and masked');
  regs.IMS.value = INT.TXQ0;
  send(1);
  t.equal(table.messages.filter(({ data }) => data === 0x42).length, 1, 'throttled');
  table.clock.advance(us(200));
  t.equal(table.messages.filter(({ data }) => data === 0x42).length, 2);
  regs.CTRL_EXT.value = CTRL_EXT.PBA_CLR;
  regs.PBACLR.value = 0x1f;
  t.equal(bar.read(0x2000, 4), 0);
});

// As Linux has it since 4.17: the vector of other causes does not clear itself.
t.test('MSI-X: each change of the link is told of where software reads ICR', async t => {
  const { regs, card, table, wire } = lab();
  const bar = card.port(3);
  bar.write(0, 4, 0xfee0_0000);
  bar.write(8, 4, 0x40);
  bar.write(12, 4, 0);
  card.writeConfig(0xa2, 2, 0x8000);
  regs.IVAR.value = 0x0008_0000;
  regs.EIAC.value = 0;
  regs.IMS.value = INT.OTHER | INT.LSC;
  const told = (): number => table.messageCount(0x40);
  for (const [up, count] of [
    [false, 1],
    [true, 2],
    [false, 3],
  ] as const) {
    wire.peer?.setLink(up);
    table.clock.advance(ms(1000));
    t.equal(told(), count, up ? 'up' : 'down');
    t.ok(regs.ICR.value & INT.LSC);
    t.notOk(regs.ICR.value & INT.LSC, 'read, and so acknowledged');
  }
  regs.IMC.value = INT.OTHER | INT.LSC;
  regs.IMS.value = INT.RXQ0;
  wire.peer?.setLink(true);
  table.clock.advance(ms(1000));
  t.ok(regs.ICR.value & INT.LSC);
  t.ok(regs.ICR.value & INT.LSC, 'a cause that is masked, while others are not, stays');
});

t.test('extended descriptors tell type, checksums and hash; RSS chooses the queue', async t => {
  const { regs, ram, wire, table } = lab();
  for (let queue = 0; queue < 2; queue++) {
    for (let index = 0; index < 8; index++) {
      ram.setUint32(RING + queue * 0x100 + index * 16, BUFFERS + queue * 0x8000 + index * 2048, true);
    }
    regs.RDBAL.at(queue).value = RING + queue * 0x100;
    regs.RDLEN.at(queue).value = 128;
    regs.RDT.at(queue).value = 7;
  }
  regs.RFCTL.value = RFCTL.EXTEN;
  regs.RXCSUM.value = RXCSUM.IPOFLD | RXCSUM.TUOFLD;
  regs.RCTL.value = RCTL.EN | 0x8000;
  const bytes = tcp(100);
  wire.send(bytes);
  t.equal(ram.getUint32(RING + 8, true), 0x0002_8263, 'done, end, IP and TCP checked, ACK, identification, IPv4 TCP');
  t.equal(ram.getUint16(RING + 12, true), 154 + 4);
  t.equal(ram.getUint16(RING + 4, true), 0x1234);
  t.same(Buffer.from(table.ram.bytes.subarray(BUFFERS, BUFFERS + 154)), bytes);
  bytes[100] = 0;
  wire.send(bytes);
  t.equal(ram.getUint32(RING + 16 + 8, true), 0x2002_8263, 'wrong TCP checksum');
  KEY.forEach((_, at) => {
    if (at % 4 === 0) regs.RSSRK.at(at / 4).value = KEY.readUInt32LE(at);
  });
  for (let word = 0; word < 32; word++) regs.RETA.at(word).value = 0x8080_8080;
  regs.MRQC.value = MRQC.RSS | MRQC.TCPIPV4;
  regs.RXCSUM.value |= RXCSUM.PCSD;
  wire.send(tcp(10));
  t.equal(regs.RDH.at(1).value, 1, 'second queue');
  t.equal(ram.getUint32(RING + 0x100, true), 0x101);
  t.equal(ram.getUint32(RING + 0x104, true), 0x51ccc178);
});

t.test('the tag of a virtual LAN goes into the descriptor', async t => {
  const { regs, ram, wire, table } = lab();
  for (let index = 0; index < 8; index++) ram.setUint32(RING + index * 16, BUFFERS + index * 2048, true);
  regs.RDBAL.at(0).value = RING;
  regs.RDLEN.at(0).value = 128;
  regs.RDT.at(0).value = 7;
  regs.RCTL.value = RCTL.EN | 0x8000;
  regs.CTRL.value |= CTRL.VME;
  const whole = tcp(100);
  wire.send(Buffer.concat([whole.subarray(0, 12), Buffer.from([0x81, 0, 0x21, 0x23]), whole.subarray(12)]));
  t.equal(ram.getUint16(RING + 8, true), 154 + 4, 'length with CRC, without the tag');
  t.equal(ram.getUint8(RING + 12) & 0xb, 0xb, 'done, end of packet, it had a tag');
  t.equal(ram.getUint16(RING + 14, true), 0x2123);
  t.same(Buffer.from(table.ram.bytes.subarray(BUFFERS, BUFFERS + 154)), whole);
});

t.test('packet split: headers apart from data, over two descriptors', async t => {
  const { regs, ram, wire, table } = lab();
  for (let index = 0; index < 4; index++) {
    for (let buffer = 0; buffer < 4; buffer++) {
      ram.setUint32(RING + index * 32 + buffer * 8, BUFFERS + index * 0x4000 + buffer * 0x1000, true);
      ram.setUint32(RING + index * 32 + buffer * 8 + 4, 0, true);
    }
  }
  regs.RDBAL.at(0).value = RING;
  regs.RDLEN.at(0).value = 128;
  regs.RDT.at(0).value = 6;
  regs.PSRCTL.value = 1 | (1 << 8) | (1 << 16);
  regs.RFCTL.value = RFCTL.EXTEN;
  regs.RCTL.value = RCTL.EN | 0x8000 | RCTL.DTYP_PS | RCTL.SECRC | RCTL.LPE;
  const bytes = tcp(3000);
  t.equal(wire.send(bytes), true);
  t.equal(ram.getUint16(RING + 12, true), 54, 'headers');
  t.equal(ram.getUint16(RING + 16, true), 0x8000 | 54);
  t.same(
    [1, 2].map(index => ram.getUint16(RING + 16 + index * 2, true)),
    [1024, 1024],
  );
  t.equal(ram.getUint32(RING + 8, true) & 3, 1, 'not the last');
  t.equal(ram.getUint32(RING + 32 + 8, true) & 3, 3);
  const ramBytes = table.ram.bytes;
  const parts = [
    ramBytes.subarray(BUFFERS, BUFFERS + 54),
    ramBytes.subarray(BUFFERS + 0x1000, BUFFERS + 0x1400),
    ramBytes.subarray(BUFFERS + 0x2000, BUFFERS + 0x2400),
    ramBytes.subarray(BUFFERS + 0x5000, BUFFERS + 0x5000 + ram.getUint16(RING + 32 + 18, true)),
  ];
  t.same(Buffer.concat(parts).subarray(0, 54 + 2048), bytes.subarray(0, 54 + 2048));
  t.equal(ram.getUint16(RING + 32 + 12, true), 0, 'the first buffer of the second stays empty');
});

t.test('hostile rings end', async t => {
  const { regs, wire, table } = lab();
  table.ram.bytes.fill(0xff, RING, RING + 0x1000);
  regs.IVAR.value = 0xffff_ffff;
  for (const control of [0xffff_ffff, RCTL.EN | RCTL.DTYP_PS, RCTL.EN]) {
    for (const head of [0, 0xffff]) {
      for (const queue of [0, 1]) {
        regs.TDBAL.at(queue).value = RING;
        regs.TDLEN.at(queue).value = RING_BYTES;
        regs.TDH.at(queue).value = head;
        regs.TCTL.value = 0xffff_ffff;
        regs.TDT.at(queue).value = 15;
        regs.TDT.at(queue).value = 0xffff;
        regs.RDBAL.at(queue).value = RING;
        regs.RDLEN.at(queue).value = RING_BYTES;
        regs.RDH.at(queue).value = head;
        regs.RDT.at(queue).value = 14;
      }
      regs.PSRCTL.value = 0x3f3f_3f7f;
      regs.RFCTL.value = 0xffff_ffff;
      regs.MRQC.value = 0xffff_ffff;
      regs.RXCSUM.value = 0xffff_ffff;
      regs.RCTL.value = control;
      for (const size of [1, 59, 60, 1514, 9000, 60_000]) wire.send(Buffer.alloc(size, 0xff));
      wire.send(tcp(1000, 0xff));
    }
  }
  t.ok(regs.STATUS.FD);
});
