import { spawn } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { Slirp } from '../../../core/host/slirp.ts';
import { noSlirp } from './libslirp.ts';

const GUEST_MAC = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const GUEST_IP = [10, 0, 2, 15];
const HOST_IP = [10, 0, 2, 2];
const UDP = 17;
const TCP = 6;
const ICMP = 1;

const be16 = (value: number): number[] => [(value >> 8) & 255, value & 255];
const be32 = (value: number): number[] => [...be16(value >>> 16), ...be16(value)];

/** The Internet checksum (RFC 1071). */
function checksum(bytes: readonly number[]): number {
  let sum = 0;
  for (let index = 0; index < bytes.length; index += 2) sum += ((bytes[index] ?? 0) << 8) | (bytes[index + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

function ethernet(to: readonly number[], type: number, payload: readonly number[]): Uint8Array {
  return Uint8Array.from([...to, ...GUEST_MAC, ...be16(type), ...payload]);
}

function ip(protocol: number, from: readonly number[], to: readonly number[], payload: readonly number[]): number[] {
  const header = [0x45, 0, ...be16(20 + payload.length), 0, 1, 0, 0, 64, protocol, 0, 0, ...from, ...to];
  header.splice(10, 2, ...be16(checksum(header)));
  return [...header, ...payload];
}

/** With the pseudo header's checksum at `at`. */
function transport(protocol: number, to: readonly number[], segment: number[], at: number): number[] {
  const sum = checksum([...GUEST_IP, ...to, 0, protocol, ...be16(segment.length), ...segment]);
  segment.splice(at, 2, ...be16(sum));
  return ip(protocol, GUEST_IP, to, segment);
}

function ping(identifier: number): number[] {
  const message = [8, 0, 0, 0, ...be16(identifier), 0, 1, ...Array(8).fill(7)];
  message.splice(2, 2, ...be16(checksum(message)));
  return ip(ICMP, GUEST_IP, HOST_IP, message);
}

interface Network {
  readonly slirp: Slirp;
  readonly gatewayMac: number[];
  /** Resolves with the next frame that matches. */
  next(match: (frame: Buffer) => boolean): Promise<Buffer>;
  send(type: number, payload: readonly number[], to?: readonly number[]): void;
}

async function network(config = {}): Promise<Network> {
  const waiting: { match: (frame: Buffer) => boolean; done: (frame: Buffer) => void }[] = [];
  const slirp = new Slirp(config, {
    frame: (bytes, length) => {
      const frame = Buffer.from(bytes.subarray(0, length));
      const index = waiting.findIndex(entry => entry.match(frame));
      if (index >= 0) for (const entry of waiting.splice(index, 1)) entry.done(frame);
    },
  });
  const next = (match: (frame: Buffer) => boolean): Promise<Buffer> =>
    new Promise(done => waiting.push({ match, done }));
  const input = (frame: Uint8Array): void => slirp.input(frame, frame.length);
  const arp = next(frame => frame.readUInt16BE(12) === 0x0806);
  input(
    ethernet(Array(6).fill(0xff), 0x0806, [
      0,
      1,
      8,
      0,
      6,
      4,
      0,
      1,
      ...GUEST_MAC,
      ...GUEST_IP,
      0,
      0,
      0,
      0,
      0,
      0,
      ...HOST_IP,
    ]),
  );
  const gatewayMac = [...(await arp).subarray(22, 28)];
  return { slirp, gatewayMac, next, send: (type, payload, to = gatewayMac) => input(ethernet(to, type, payload)) };
}

/** A libslirp network keeps no process alive, so the test does while it waits. */
function held<T>(promise: Promise<T>): Promise<T> {
  const timer = setTimeout(() => {}, 20_000);
  return promise.finally(() => clearTimeout(timer));
}

t.test('the gateway answers ARP, and UDP reaches a socket of the host and comes back', { skip: noSlirp }, async t => {
  const net = await network();
  t.teardown(() => net.slirp.close());
  const server = createSocket('udp4', (message, from) =>
    server.send(message.toString().toUpperCase(), from.port, from.address),
  );
  t.teardown(() => server.close());
  server.bind(0, '127.0.0.1');
  await once(server, 'listening');
  const reply = net.next(frame => frame[23] === UDP);
  const text = [...Buffer.from('hello!')];
  net.send(
    0x0800,
    transport(
      UDP,
      HOST_IP,
      [...be16(4000), ...be16(server.address().port), ...be16(8 + text.length), 0, 0, ...text],
      6,
    ),
  );
  const frame = await held(reply);
  t.equal(frame.subarray(42, 48).toString(), 'HELLO!');
  t.match(net.slirp.connectionInfo(), /UDP/);
});

t.test('TCP from the guest is a connection of the host', { skip: noSlirp }, async t => {
  const net = await network();
  t.teardown(() => net.slirp.close());
  const server = createServer(socket => socket.end('welcome'));
  t.teardown(() => server.close());
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
  const segment = (sequence: number, ack: number, flags: number): number[] =>
    transport(
      TCP,
      HOST_IP,
      [...be16(5000), ...be16(port), ...be32(sequence), ...be32(ack), 0x50, flags, ...be16(8192), 0, 0, 0, 0],
      16,
    );
  const isTcp =
    (flags: number) =>
    (frame: Buffer): boolean =>
      frame[23] === TCP && ((frame[47] ?? 0) & flags) === flags;
  const synAck = net.next(isTcp(0x12));
  net.send(0x0800, segment(1000, 0, 0x02));
  const answered = await held(synAck);
  const theirs = answered.readUInt32BE(38);
  t.equal(answered.readUInt32BE(42), 1001);
  const data = net.next(frame => isTcp(0x10)(frame) && frame.length > 54 && frame.subarray(54).includes('welcome'));
  net.send(0x0800, segment(1001, theirs + 1, 0x10));
  t.equal((await held(data)).subarray(54, 61).toString(), 'welcome');
});

/** Listens with room for one connection, and takes none. Says its port. */
const DEAF = `
  const server = require('node:net').createServer();
  server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
    require('node:fs').writeSync(1, String(server.address().port));
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
  });`;

t.test('a connection that is refused only after a while', { skip: noSlirp }, async t => {
  const net = await network();
  t.teardown(() => net.slirp.close());
  const listener = spawn(process.execPath, ['-e', DEAF], { stdio: ['ignore', 'pipe', 'inherit'] });
  t.teardown(() => listener.kill('SIGKILL'));
  const [text] = (await once(listener.stdout, 'data')) as [Buffer];
  const port = Number(text.toString());
  // Once its room is taken, the kernel does not answer any more; and when it is gone, the next attempt is refused.
  for (let count = 0; count < 4; count++) {
    const client = connect(port, '127.0.0.1').on('error', () => {});
    t.teardown(() => client.destroy());
  }
  await held(sleep(100));
  const segment = [...be16(5000), ...be16(port), ...be32(1000), ...be32(0), 0x50, 0x02, ...be16(8192), 0, 0, 0, 0];
  const reset = net.next(frame => frame[23] === TCP && ((frame[47] ?? 0) & 0x04) !== 0);
  net.send(0x0800, transport(TCP, HOST_IP, segment, 16));
  await held(sleep(100));
  t.match(net.slirp.connectionInfo(), /SYN_RCVD|SYN_SENT|CLOSED/, 'it connects still');
  listener.kill('SIGKILL');
  t.equal((await held(reset)).readUInt16BE(34), port, 'refused');
});

t.test('what is answered while the stack sends waits until it is done', { skip: noSlirp }, async t => {
  const net = await network();
  t.teardown(() => net.slirp.close());
  const replies: Buffer[] = [];
  let echoes = 0;
  const answers = (frame: Buffer): boolean => {
    if (frame[23] !== ICMP) return false;
    replies.push(frame);
    // From within the stack's own call.
    if (++echoes < 20) net.send(0x0800, ping(echoes));
    return echoes === 20;
  };
  const last = net.next(answers);
  net.send(0x0800, ping(0));
  await held(last);
  t.same(
    replies.map(frame => frame.readUInt16BE(38)),
    Array.from({ length: 20 }, (_, index) => index),
  );
});

t.test('a forwarded port of the host opens a connection in the guest', { skip: noSlirp }, async t => {
  const net = await network();
  t.teardown(() => net.slirp.close());
  // A free port, found and given back.
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
  t.equal(net.slirp.addHostForward('tcp', '127.0.0.1', port, '', 22), false, 'the port is taken');
  probe.close();
  await once(probe, 'close');
  t.equal(net.slirp.addHostForward('tcp', '127.0.0.1', port, '', 22), true);
  const syn = net.next(frame => frame[23] === TCP && frame[47] === 0x02);
  const client = connect(port, '127.0.0.1');
  client.on('error', () => {});
  t.teardown(() => client.destroy());
  t.equal((await held(syn)).readUInt16BE(36), 22);
  t.equal(net.slirp.removeHostForward('tcp', '127.0.0.1', port), true);
  t.equal(net.slirp.removeHostForward('tcp', '127.0.0.1', port), false);
});

t.test('TFTP serves a folder', { skip: noSlirp }, async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-tftp-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'boot.txt'), 'from the server');
  const net = await network({ tftpPath: folder });
  t.teardown(() => net.slirp.close());
  const request = [0, 1, ...Buffer.from('boot.txt\0octet\0')];
  const data = net.next(frame => frame[23] === UDP && frame[43] === 3);
  net.send(
    0x0800,
    transport(UDP, HOST_IP, [...be16(6000), ...be16(69), ...be16(8 + request.length), 0, 0, ...request], 6),
  );
  t.equal((await held(data)).subarray(46).toString(), 'from the server');
});

t.test('closing is safe from a callback, twice, and leaves the addresses checked', { skip: noSlirp }, t => {
  let frames = 0;
  const slirp = new Slirp(
    {},
    {
      frame: () => {
        frames++;
        slirp.close();
      },
    },
  );
  const request = ethernet(Array(6).fill(0xff), 0x0806, [
    0,
    1,
    8,
    0,
    6,
    4,
    0,
    1,
    ...GUEST_MAC,
    ...GUEST_IP,
    0,
    0,
    0,
    0,
    0,
    0,
    ...HOST_IP,
  ]);
  slirp.input(request, request.length);
  slirp.input(request, request.length);
  slirp.close();
  t.ok(frames >= 1);
  t.throws(() => slirp.connectionInfo(), /closed/);
  t.throws(() => new Slirp({ network: 'ten' }, { frame() {} }), { code: 'ERR_SLIRP_CONFIG' });
  t.end();
});
