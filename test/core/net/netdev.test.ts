import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { DgramNet } from '../../../core/net/dgram.ts';
import { Hub } from '../../../core/net/hub.ts';
import { type NetBackend, NetClient } from '../../../core/net/net-client.ts';
import { SocketNet } from '../../../core/net/socket.ts';
import { type StreamEvents, StreamNet } from '../../../core/net/stream.ts';
import { UserNet, userNetConfig } from '../../../core/net/user.ts';
import { until } from '../../until.ts';
import { noSlirp } from '../host/libslirp.ts';

/** A card that keeps what it receives. */
function card(backend: NetBackend): {
  client: NetClient;
  frames: Buffer[];
  next(): Promise<Buffer>;
} {
  const frames: Buffer[] = [];
  let told: (frame: Buffer) => void = () => {};
  const client = new NetClient('card', 'test', {
    canReceive: () => true,
    receive: (frame, length) => {
      const copy = Buffer.from(frame.subarray(0, length));
      frames.push(copy);
      told(copy);
      return true;
    },
  });
  client.connect(backend.client);
  const next = (): Promise<Buffer> => {
    const alive = setTimeout(() => {}, 20_000);
    return new Promise<Buffer>(done => {
      told = done;
    }).finally(() => clearTimeout(alive));
  };
  return { client, frames, next };
}

t.test('the addresses of a user-mode network follow from each other', t => {
  t.match(userNetConfig({}), {
    network: '10.0.2.0',
    mask: '255.255.255.0',
    host: '10.0.2.2',
    dhcpStart: '10.0.2.15',
    nameServer: '10.0.2.3',
  });
  t.match(userNetConfig({ net: '192.168.76.0/24' }), { host: '192.168.76.2', dhcpStart: '192.168.76.15' });
  t.match(userNetConfig({ net: '172.20.0.0' }), { network: '172.16.0.0', mask: '255.240.0.0', host: '172.16.2.2' });
  t.match(userNetConfig({ net: '10.1.2.0/255.255.0.0', host: '10.1.9.9' }), { network: '10.1.0.0', host: '10.1.9.9' });
  for (const [options, message] of [
    [{ net: '10.0.2.0/33' }, 'Invalid netmask provided (must be in range 4-32)'],
    [{ net: 'ten' }, 'Failed to parse netmask'],
    [{ host: '1.2.3.4' }, "Host doesn't belong to network"],
    [{ dns: '10.0.2.2' }, 'DNS must be different from host'],
    [{ dhcpstart: '10.0.2.3' }, 'DHCP must be different from host and DNS'],
    [{ ipv4: false, ipv6: false }, 'IPv4 and IPv6 disabled'],
    [{ ipv4: false, net: '10.0.0.0/8' }, 'IPv4 disabled but netmask/host/dns provided'],
    [{ domainname: '' }, "'domainname' parameter cannot be empty"],
  ] as const) {
    t.throws(() => userNetConfig(options), { message });
  }
  t.end();
});

t.test(
  'a card on a user-mode network finds its gateway; short frames are padded; rules are checked',
  { skip: noSlirp },
  async t => {
    t.throws(() => new UserNet('n', { hostfwd: ['tcp::99999-:22'] }), {
      message: "Invalid host forwarding rule 'tcp::99999-:22' (Bad host port)",
    });
    t.throws(() => new UserNet('n', { hostfwd: ['sctp::1-:22'] }), { message: /Bad protocol name/ });
    t.throws(() => new UserNet('n', { guestfwd: ['udp:10.0.2.100:80-cmd:cat'] }), {
      message: /Invalid guest forwarding rule/,
    });
    const backend = new UserNet('net0', {});
    t.teardown(() => backend.dispose());
    t.equal(backend.client.description, 'net=10.0.2.0,restrict=off');
    const { client, frames } = card(backend);
    const request = Buffer.from('ffffffffffff5254001234560806000108000604000152540012345600000000000000000000', 'hex');
    client.send(Buffer.concat([request.subarray(0, 28), Buffer.from([10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2])]));
    const reply = frames.find(frame => frame.readUInt16BE(12) === 0x0806 && frame.readUInt16BE(20) === 2);
    t.ok((reply?.length ?? 0) >= 60);
    t.same([...(reply?.subarray(28, 32) ?? [])], [10, 0, 2, 2]);
  },
);

t.test('two socket netdevs are a cable, over TCP and UDP', async t => {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
  await t.rejects(SocketNet.open('busy', { listen: `127.0.0.1:${port}` }), {
    code: 'ERR_NETDEV',
    message: /EADDRINUSE/,
  });
  probe.close();
  await once(probe, 'close');
  const pairs = [
    [{ listen: `127.0.0.1:${port}` }, { connect: `127.0.0.1:${port}` }],
    [
      { udp: `127.0.0.1:${port + 1}`, localaddr: `127.0.0.1:${port}` },
      { udp: `127.0.0.1:${port}`, localaddr: `127.0.0.1:${port + 1}` },
    ],
  ] as const;
  for (const [one, other] of pairs) {
    const a = await SocketNet.open('a', one);
    const b = await SocketNet.open('b', other);
    const [left, right] = [card(a), card(b)];
    await new Promise(done => setTimeout(done, 20));
    const frame = Buffer.alloc(1514, 7);
    let next = right.next();
    left.client.send(frame);
    t.same(await next, frame);
    next = left.next();
    right.client.send(Buffer.from('back'));
    t.equal((await next).toString(), 'back');
    a.dispose();
    b.dispose();
  }
  await t.rejects(SocketNet.open('x', {}), { message: 'exactly one of listen=, connect=, mcast= or udp= is required' });
  await t.rejects(SocketNet.open('x', { connect: 'nowhere' }), { message: /doesn't contain ':'/ });
});

t.test('stream and dgram are cables over TCP, unix sockets and multicast, and say who is there', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-net-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const told: string[] = [];
  const events = (name: string): StreamEvents => ({
    connected: address => told.push(`${name} ${address.type}`),
    disconnected: () => told.push(`${name} gone`),
  });
  const path = join(folder, 'cable');
  const listener = new StreamNet('a', { type: 'unix', path }, true, events('a'));
  await until(() => existsSync(path));
  t.equal(listener.client.linkUp, false, 'nobody there: no link');
  const caller = new StreamNet('b', { type: 'unix', path }, false, events('b'));
  await until(() => told.length >= 2);
  t.same(told.sort(), ['a unix', 'b unix']);
  t.equal(listener.client.description, `unix:${path}`);
  const [left, right] = [card(listener), card(caller)];
  const next = right.next();
  left.client.send(Buffer.alloc(1514, 9));
  t.equal((await next).length, 1514);
  caller.dispose();
  await until(() => told.length >= 3);
  t.equal(told[2], 'a gone');
  t.equal(listener.client.linkUp, false);
  listener.dispose();

  const [one, other] = [join(folder, 'one'), join(folder, 'other')];
  const pair = await Promise.all([
    DgramNet.open('c', { local: { type: 'unix', path: one }, remote: { type: 'unix', path: other } }),
    DgramNet.open('d', { local: { type: 'unix', path: other }, remote: { type: 'unix', path: one } }),
  ]);
  const cards = pair.map(card);
  const arrived = cards[1]?.next();
  cards[0]?.client.send(Buffer.from('over a unix socket'));
  t.equal((await arrived)?.toString(), 'over a unix socket');
  t.equal(pair[0]?.client.description, `udp=${one}:${other}`);
  for (const net of pair) net.dispose();
  t.equal(existsSync(one), false);
  await t.rejects(DgramNet.open('x', {}), { message: 'dgram requires local= parameter' });
  await t.rejects(DgramNet.open('x', { local: { type: 'unix', path: one } }), {
    message: 'type=inet or type=unix requires remote parameter',
  });
  await t.rejects(
    DgramNet.open('x', {
      local: { type: 'unix', path: one },
      remote: { type: 'inet', host: '127.0.0.1', port: '1' },
    }),
    { message: 'remote and local types must be the same' },
  );
});

t.test('a hub repeats to all but the sender', t => {
  const hub = new Hub(0);
  const ports = ['a', 'b', 'c'].map(id => hub.addPort(id));
  const cards = ports.map(card);
  cards[0]?.client.send(Buffer.from('hi'));
  t.same(
    cards.map(({ frames }) => frames.length),
    [0, 1, 1],
  );
  ports[2]?.dispose();
  cards[1]?.client.send(Buffer.from('again'));
  t.same(
    cards.map(({ frames }) => frames.length),
    [1, 1, 1],
  );
  t.end();
});
