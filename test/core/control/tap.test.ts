import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { closeSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { openTap } from '../../../core/host/tap.ts';
import { QtestClient } from '../../../core/testing/traffic/qtest-port.ts';
import { inside, ip, noNamespace, runInNamespace } from '../net/in-namespace.ts';

t.setTimeout(180_000);

// A card on a tap in a network namespace of the test's own, whose kernel is the other end. The test runs itself in there.
const PROGRAM = fileURLToPath(new URL('../../../southbridge.js', import.meta.url));

const [HOST, CARD] = ['10.9.0.1', '10.9.0.2'];
const MAC = '52:54:00:00:00:09';
const ECHO_PORT = 7000;
/** One as large as Ethernet has them, and small ones. */
const ANSWERS = Array.from({ length: 40 }, (_, number) => Buffer.alloc(number === 0 ? 1472 : 20 + number, number));

const address = (text: string): number[] => text.split('.').map(Number);
const mac = Buffer.from(MAC.replaceAll(':', ''), 'hex');

/** What a driver does with a card: an 82540EM of a PC, by qtest (the Intel manual's sections 13.4 and 3). */
class CardDriver {
  static readonly #BAR = 0xe000_0000;
  static readonly #REG = { RCTL: 0x100, TCTL: 0x400, RDBAL: 0x2800, TDBAL: 0x3800 } as const;
  static readonly #RX_RING = 0x10_0000;
  static readonly #TX_RING = 0x10_4000;
  static readonly #TX_BUFFER = 0x10_8000;
  static readonly #RX_BUFFERS = 0x20_0000;
  static readonly #BUFFER_SIZE = 2048;
  static readonly #COUNT = 256;
  readonly #qtest: QtestClient;
  #sent = 0;
  #taken = 0;

  constructor(qtest: QtestClient) {
    this.#qtest = qtest;
  }

  /** @param slot the device's number on bus 0 */
  async start(slot: number): Promise<void> {
    const config = async (offset: number, value: number): Promise<void> => {
      await this.#qtest.command(`outl 0xcf8 ${(0x8000_0000 | (slot << 11) | offset) >>> 0}`);
      await this.#qtest.command(`outl 0xcfc ${value}`);
    };
    await config(0x10, CardDriver.#BAR);
    await config(0x04, 0x6);
    for (let index = 0; index < CardDriver.#COUNT; index++) {
      const buffer = CardDriver.#RX_BUFFERS + index * CardDriver.#BUFFER_SIZE;
      await this.#qtest.command(`writeq ${CardDriver.#RX_RING + index * 16} ${buffer}`);
    }
    for (const [base, ring] of [
      [CardDriver.#REG.RDBAL, CardDriver.#RX_RING],
      [CardDriver.#REG.TDBAL, CardDriver.#TX_RING],
    ] as const) {
      await this.#write(base, ring);
      await this.#write(base + 8, CardDriver.#COUNT * 16);
    }
    await this.#write(CardDriver.#REG.RDBAL + 0x18, CardDriver.#COUNT - 1);
    await this.#write(CardDriver.#REG.RCTL, 0x8002); // EN, BAM
    await this.#write(CardDriver.#REG.TCTL, 0x2); // EN
  }

  async send(frame: Buffer): Promise<void> {
    await this.#qtest.command(`write ${CardDriver.#TX_BUFFER} ${frame.length} 0x${frame.toString('hex')}`);
    const descriptor = CardDriver.#TX_RING + this.#sent * 16;
    await this.#qtest.command(`writeq ${descriptor} ${CardDriver.#TX_BUFFER}`);
    await this.#qtest.command(`writeq ${descriptor + 8} ${0x0b00_0000 + frame.length}`); // EOP, IFCS, RS
    this.#sent++;
    await this.#write(CardDriver.#REG.TDBAL + 0x18, this.#sent);
  }

  /** The next frame that has come, without its CRC. */
  async receive(): Promise<Buffer> {
    const descriptor = CardDriver.#RX_RING + this.#taken * 16;
    for (let attempt = 0; attempt < 2000; attempt++) {
      const written = Buffer.from((await this.#qtest.command(`read ${descriptor + 8} 8`)).slice(2), 'hex');
      if (((written[4] ?? 0) & 1) === 1) {
        const length = written.readUInt16LE(0) - 4;
        const buffer = CardDriver.#RX_BUFFERS + this.#taken++ * CardDriver.#BUFFER_SIZE;
        return Buffer.from((await this.#qtest.command(`read ${buffer} ${length}`)).slice(2), 'hex');
      }
      await new Promise(done => setTimeout(done, 10));
    }
    throw new Error('no frame has come');
  }

  #write(register: number, value: number): Promise<string> {
    return this.#qtest.command(`writel ${CardDriver.#BAR + register} ${value}`);
  }
}

/** The Internet checksum (RFC 1071) of all of `bytes`, 0 where they have a good one. */
function checksum(bytes: Buffer): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

const arpRequest = Buffer.concat([
  Buffer.from('ffffffffffff', 'hex'),
  mac,
  Buffer.from('08060001080006040001', 'hex'),
  mac,
  Buffer.from([...address(CARD), 0, 0, 0, 0, 0, 0, ...address(HOST)]),
]);

function datagram(destination: Buffer, payload: Buffer): Buffer {
  const ip = Buffer.alloc(20);
  ip.set([0x45, 0]);
  ip.writeUInt16BE(28 + payload.length, 2);
  ip.set([64, 17], 8);
  ip.set([...address(CARD), ...address(HOST)], 12);
  ip.writeUInt16BE(checksum(ip), 10);
  const udp = Buffer.alloc(8);
  udp.writeUInt16BE(ECHO_PORT, 0);
  udp.writeUInt16BE(ECHO_PORT, 2);
  udp.writeUInt16BE(8 + payload.length, 4);
  return Buffer.concat([destination, mac, Buffer.from([8, 0]), ip, udp, payload]);
}

interface Machine {
  readonly card: CardDriver;
  readonly process: ChildProcess;
}

async function machine(t: Test, folder: string, netdev: string, tap?: number): Promise<Machine> {
  const path = join(folder, 'qtest');
  const server = createServer().listen(path);
  await once(server, 'listening');
  const child = spawn(
    process.execPath,
    [
      ...[
        PROGRAM,
        '-M',
        'pc',
        '-accel',
        'qtest',
        '-nodefaults',
        '-display',
        'none',
        '-qtest',
        `unix:${path}`,
        '-qtest-log',
        '/dev/null',
      ],
      ...['-netdev', netdev, '-device', `e1000,netdev=n,mac=${MAC},addr=4`],
      ...['-object', `filter-dump,id=d,netdev=n,file=${join(folder, 'wire.pcap')}`],
    ],
    { stdio: ['ignore', 'inherit', 'inherit', tap ?? 'ignore'] },
  );
  t.teardown(() => child.kill());
  const gone = once(child, 'exit').then(([status]) => {
    throw new Error(`the machine has ended with ${status}`);
  });
  gone.catch(() => {});
  const [socket] = await Promise.race([once(server, 'connection'), gone]);
  server.close();
  const card = new CardDriver(QtestClient.over(socket));
  await card.start(4);
  return { card, process: child };
}

/** The kernel answers an ARP request; a program answers a large datagram with many small ones. */
async function converse(t: Test, card: CardDriver): Promise<void> {
  await card.send(arpRequest);
  const reply = await card.receive();
  t.same([reply.readUInt16BE(12), reply.readUInt16BE(20)], [0x0806, 2], 'an ARP reply');
  t.same([...reply.subarray(28, 32)], address(HOST));
  t.same(reply.subarray(0, 6), mac);

  const socket = createSocket('udp4');
  t.teardown(() => socket.close());
  socket.bind(ECHO_PORT, HOST);
  await once(socket, 'listening');
  const sent = Buffer.from(Array.from({ length: 1400 }, (_, index) => (index * 7) & 0xff));
  const arrived = once(socket, 'message');
  await card.send(datagram(reply.subarray(6, 12), sent));
  const [message] = await arrived;
  t.ok(sent.equals(message), 'what the card sent');

  for (const answer of ANSWERS) socket.send(answer, ECHO_PORT, CARD);
  const frames: Buffer[] = [];
  while (frames.length < ANSWERS.length) frames.push(await card.receive());
  const payloads = frames.map(frame => frame.subarray(42, 14 + frame.readUInt16BE(16)));
  t.ok(Buffer.concat(payloads).equals(Buffer.concat(ANSWERS)), 'what the program sent, in its order');
  t.same(
    payloads.map(payload => payload.length),
    ANSWERS.map(answer => answer.length),
  );
  for (const frame of frames) {
    const udp = frame.subarray(34, 14 + frame.readUInt16BE(16));
    const pseudoHeader = Buffer.from([...frame.subarray(26, 34), 0, 17, ...frame.subarray(38, 40)]);
    if (checksum(Buffer.concat([pseudoHeader, udp])) !== 0) t.fail(`checksum left to others: ${udp.toString('hex')}`);
  }
}

/** Length, protocol and direction of what was on the wire, by tshark. */
function captured(t: Test, file: string): void {
  const fields = ['frame.len', '_ws.col.Protocol', 'eth.src'].flatMap(field => ['-e', field]);
  // The port means something to others.
  const asData = ['-d', `udp.port==${ECHO_PORT},data`];
  const options = ['-n', ...asData, '-r', file, '-Y', 'arp or udp', '-T', 'fields', '-E', 'separator= ', ...fields];
  const { error, stdout } = spawnSync('tshark', options, { encoding: 'utf8' });
  if (error !== undefined) {
    t.pass('the capture', { skip: 'this host has no tshark' });
    return;
  }
  const lines = stdout.trim().split('\n');
  const fromCard = lines.filter(line => line.endsWith(MAC));
  t.same(fromCard, [`42 ARP ${MAC}`, `1442 UDP ${MAC}`], 'what the card sent');
  const others = lines.filter(line => !line.endsWith(MAC)).map(line => line.split(' ').slice(0, 2).join(' '));
  const answers = ANSWERS.map(answer => `${42 + answer.length} UDP`);
  t.same(others, ['42 ARP', ...answers], 'what the kernel sent, in its order');
  t.equal(lines[0], `42 ARP ${MAC}`, 'the request is first');
}

function folderOf(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-tap-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

const exists = (name: string): boolean => existsSync(`/proc/sys/net/ipv4/conf/${name}`);

if (!inside) {
  t.test('taps in a network namespace', { skip: noNamespace(), timeout: 150_000 }, t =>
    runInNamespace(t, import.meta.url, 3),
  );
} else {
  t.test('a tap that the machine makes, with its scripts; what a dump has of it', async t => {
    const folder = folderOf(t);
    const [up, down, went] = ['up', 'down', 'went'].map(name => join(folder, name)) as [string, string, string];
    writeFileSync(up, `#!/bin/sh\nip address add ${HOST}/24 dev "$1" && ip link set "$1" up\n`, { mode: 0o755 });
    writeFileSync(down, `#!/bin/sh\necho "$1" > ${went}\n`, { mode: 0o755 });
    const { card, process } = await machine(t, folder, `tap,id=n,ifname=sb0,script=${up},downscript=${down}`);
    t.ok(exists('sb0'));
    await converse(t, card);
    process.kill('SIGTERM');
    await once(process, 'exit');
    t.equal(readFileSync(went, 'utf8'), 'sb0\n', 'the script at the end');
    t.notOk(exists('sb0'), 'the interface went with the machine');
    captured(t, join(folder, 'wire.pcap'));
  });

  for (const vnetHeader of [false, true]) {
    t.test(`a tap by its descriptor, ${vnetHeader ? 'with' : 'without'} virtio headers`, async t => {
      const tap = openTap('', { vnetHeader, multiQueue: false });
      ip(t, 'address', 'add', `${HOST}/24`, 'dev', tap.name);
      ip(t, 'link', 'set', tap.name, 'up');
      const { card, process } = await machine(t, folderOf(t), 'tap,id=n,fd=3', tap.fd);
      closeSync(tap.fd);
      await converse(t, card);
      process.kill('SIGTERM');
      await once(process, 'exit');
      t.notOk(exists(tap.name), 'nobody else has it');
    });
  }
}
