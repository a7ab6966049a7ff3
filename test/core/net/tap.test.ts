/**
 * A tap in a network namespace of the test's own, whose kernel is the other end: unfinished packets both ways, several queues,
 * descriptors, helpers. The test runs itself in there.
 */
import { spawnSync } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { openTap } from '../../../core/host/tap.ts';
import { TapNet } from '../../../core/net/tap.ts';
import { ALL_FEATURES, FEATURE, type Got, NetDriver } from '../../devices/virtio-net-lab.ts';
import { differences, findQemu, play, southbridge } from '../../oracle/qtest-player.ts';
import { virtioNetRegisters } from '../../oracle/virtio-net-registers.ts';
import { inside, ip, noNamespace, runInNamespace } from './in-namespace.ts';

t.setTimeout(180_000);

const [HOST, GUEST] = [
  [10, 9, 0, 1],
  [10, 9, 0, 2],
];
const MAC = Buffer.from('525400123456', 'hex');
const NEEDS_CSUM = 1;
const GSO_TCPV4 = 1;
const SYN = 2;

const sumOf = (bytes: Buffer): number => {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
};

/** An IPv4 packet from the guest whose transport checksum is only begun: the pseudo header's sum, as a driver leaves it. */
function unfinished(hostMac: Buffer, protocol: number, transport: Buffer, sumAt: number): Buffer {
  const network = Buffer.alloc(20);
  network[0] = 0x45;
  network.writeUInt16BE(20 + transport.length, 2);
  network.set([64, protocol], 8);
  network.set([...(GUEST ?? []), ...(HOST ?? [])], 12);
  network.writeUInt16BE(~sumOf(network) & 0xffff, 10);
  const pseudo = Buffer.from([...network.subarray(12, 20), 0, protocol, 0, 0]);
  pseudo.writeUInt16BE(transport.length, 10);
  transport.writeUInt16BE(sumOf(pseudo), sumAt);
  return Buffer.concat([hostMac, MAC, Buffer.from([8, 0]), network, transport]);
}

const header = (sumAt: number, segment = 0, headers = 0): Buffer => {
  const bytes = Buffer.alloc(12);
  bytes[0] = NEEDS_CSUM;
  bytes[1] = segment > 0 ? GSO_TCPV4 : 0;
  bytes.writeUInt16LE(headers, 2);
  bytes.writeUInt16LE(segment, 4);
  bytes.writeUInt16LE(34, 6);
  bytes.writeUInt16LE(sumAt, 8);
  return bytes;
};

/** The next frame that `wanted` is true of. */
async function next(net: NetDriver, wanted: (frame: Buffer) => boolean): Promise<Got> {
  for (let attempt = 0; attempt < 2000; attempt++) {
    const got = net.receive();
    if (got === undefined) await new Promise(done => setTimeout(done, 10));
    else if (wanted(got.frame)) return got;
  }
  throw new Error('no such frame has come');
}

const isTcp = (frame: Buffer): boolean => frame.readUInt16BE(12) === 0x0800 && frame[23] === 6;

interface Segment {
  readonly sequence: number;
  readonly acknowledged?: number;
  readonly flags: number;
  readonly data?: Buffer;
}

function tcp(port: number, { sequence, acknowledged = 0, flags, data = Buffer.alloc(0) }: Segment): Buffer {
  const bytes = Buffer.alloc(20);
  bytes.writeUInt16BE(4000, 0);
  bytes.writeUInt16BE(port, 2);
  bytes.writeUInt32BE(sequence >>> 0, 4);
  bytes.writeUInt32BE(acknowledged >>> 0, 8);
  // With SYN comes the largest segment: 1460.
  const options = (flags & SYN) !== 0 ? Buffer.from([2, 4, 0x05, 0xb4]) : Buffer.alloc(0);
  bytes.set([0x50 + options.length * 4, flags], 12);
  bytes.writeUInt16BE(0xffff, 14);
  return Buffer.concat([bytes, options, data]);
}

function bridgeAllowed(): boolean {
  return (
    existsSync('/usr/lib/qemu/qemu-bridge-helper') &&
    spawnSync('grep', ['-qxE', 'allow (all|sbbr0)', '/etc/qemu/bridge.conf']).status === 0
  );
}

function folderOf(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-tap-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

if (!inside) {
  t.test('taps in a network namespace', { skip: noNamespace(), timeout: 150_000 }, t =>
    runInNamespace(t, import.meta.url, 6),
  );
  t.test('options that do not go together', async t => {
    for (const [options, error] of [
      [
        { fd: 3, ifname: 'x' },
        {
          code: 'ERR_NETDEV',
          message:
            'ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, fds=, and vhostfds= are invalid with fd=',
        },
      ],
      [
        { fds: [3, 4], queues: 2 },
        {
          message: 'ifname=, script=, downscript=, vnet_hdr=, helper=, queues=, and vhostfd= are invalid with fds=',
        },
      ],
      [
        { helper: '/bin/true', script: 'no' },
        { message: 'ifname=, script=, downscript=, vnet_hdr=, queues=, and vhostfds= are invalid with helper=' },
      ],
      [{ vhostfds: '3:4' }, { message: "vhostfds= is invalid if fds= wasn't specified" }],
      [{ vhost: false, vhostfd: '3' }, { message: 'vhostfd(s)= is not valid without vhost' }],
      [{ vhost: true }, { code: 'ERR_VHOST_NET' }],
      [{ vhostforce: true }, { code: 'ERR_VHOST_NET' }],
      [{ queues: 0 }, { code: 'ERR_NETDEV' }],
      [{ helper: '/nowhere/helper' }, { code: 'ERR_NETDEV_BRIDGE', message: /ENOENT/ }],
      [{ helper: '/bin/true' }, { code: 'ERR_NETDEV_BRIDGE', message: /has sent no descriptor/ }],
      [{ helper: '/bin/false' }, { code: 'ERR_NETDEV_BRIDGE', message: /ended with status 1/ }],
    ] as const) {
      await t.rejects(TapNet.open('n', options), error);
    }
  });
} else {
  t.test('checksums and segments are left to the kernel, and the kernel’s to the driver', async t => {
    const tap = await TapNet.open('n', { ifname: 'sb0', script: 'no', downscript: 'no' });
    t.teardown(() => tap.dispose());
    ip(t, 'address', 'add', '10.9.0.1/24', 'dev', 'sb0');
    ip(t, 'link', 'set', 'sb0', 'up');
    ip(t, 'neighbour', 'replace', '10.9.0.2', 'lladdr', '52:54:00:12:34:56', 'dev', 'sb0');
    const hostMac = Buffer.from(
      (/ether ([0-9a-f:]+)/.exec(ip(t, 'link', 'show', 'sb0'))?.[1] ?? '').replaceAll(':', ''),
      'hex',
    );
    const net = new NetDriver(t, tap);
    const features = net.start(ALL_FEATURES, 1, 250);
    for (const name of ['CSUM', 'GUEST_CSUM', 'GUEST_TSO4', 'HOST_TSO4'] as const) t.ok(features & FEATURE[name], name);

    const udp = createSocket('udp4');
    t.teardown(() => udp.close());
    udp.bind(0, '10.9.0.1');
    await once(udp, 'listening');
    const datagram = Buffer.concat([Buffer.alloc(8), Buffer.from('the kernel finishes this')]);
    datagram.writeUInt16BE(4000, 0);
    datagram.writeUInt16BE(udp.address().port, 2);
    datagram.writeUInt16BE(datagram.length, 4);
    const message = once(udp, 'message');
    net.send(0, unfinished(hostMac, 17, datagram, 6), header(6));
    t.equal(String((await message)[0]), 'the kernel finishes this');

    const server = createServer().listen(0, '10.9.0.1');
    t.teardown(() => server.close());
    await once(server, 'listening');
    const address = server.address();
    const port = typeof address === 'object' ? (address?.port ?? 0) : 0;
    const connected = once(server, 'connection');
    const say = (segment: Segment, size = 0): void =>
      net.send(0, unfinished(hostMac, 6, tcp(port, segment), 16), header(16, size, 54));
    say({ sequence: 100, flags: SYN });
    const synAck = (await next(net, isTcp)).frame;
    const theirs = synAck.readUInt32BE(38) + 1;
    say({ sequence: 101, acknowledged: theirs, flags: 0x10 });
    const [socket] = await connected;

    // One packet of 10 segments, which the kernel cuts.
    const data = Buffer.from(Array.from({ length: 14_600 }, (_, index) => index % 251));
    const pieces: Buffer[] = [];
    const all = new Promise<void>(done => {
      socket.on('data', (piece: Buffer) => {
        pieces.push(piece);
        if (Buffer.concat(pieces).length >= data.length) done();
      });
    });
    say({ sequence: 101, acknowledged: theirs, flags: 0x18, data }, 1460);
    await all;
    t.ok(Buffer.concat(pieces).equals(data), 'what the driver sent as one packet');

    // The other way: what the kernel leaves in one piece.
    socket.write(data);
    const got: Buffer[] = [];
    let largest = 0;
    let end = theirs;
    while (end - theirs < data.length) {
      const { frame, header } = await next(
        net,
        frame => isTcp(frame) && frame.length > 54 && frame.readUInt32BE(38) === end,
      );
      const payload = frame.subarray(34 + ((frame[46] ?? 0) >> 4) * 4, 14 + frame.readUInt16BE(16));
      if (payload.length > 1460) {
        t.same(
          [header[0], header[1], header.readUInt16LE(4)],
          [NEEDS_CSUM, GSO_TCPV4, 1460],
          'a packet for the driver to finish',
        );
      }
      largest = Math.max(largest, payload.length);
      got.push(payload);
      end += payload.length;
      say({ sequence: 101 + data.length, acknowledged: end, flags: 0x10 });
    }
    t.ok(Buffer.concat(got).equals(data), 'what the kernel sent');
    t.ok(largest > 1460, `${largest} bytes at once`);
    socket.destroy();
  });

  t.test('without vnet_hdr nothing is offered; nor to a card that knows no headers', async t => {
    const tap = await TapNet.open('n', { ifname: 'sb1', script: 'no', downscript: 'no', vnet_hdr: false });
    t.teardown(() => tap.dispose());
    const net = new NetDriver(t, tap);
    t.equal(net.driver.offered & (FEATURE.CSUM | FEATURE.GUEST_TSO4), 0n);
  });

  t.test('several queues: attached as the driver uses them', async t => {
    const tap = await TapNet.open('n', { ifname: 'sb2', script: 'no', downscript: 'no', queues: 3, sndbuf: 100_000 });
    t.teardown(() => tap.dispose());
    t.equal(tap.queues.length, 3);
    const disabled = (): string | undefined => /numdisabled (\d+)/.exec(ip(t, '-details', 'link', 'show', 'sb2'))?.[1];
    t.equal(disabled(), '0');
    const net = new NetDriver(t, tap, { mq: 'on' });
    net.start(ALL_FEATURES, 3);
    t.equal(disabled(), '2');
    t.equal(net.command(4, 0, [3, 0]), 0);
    t.equal(disabled(), '0');
    ip(t, 'link', 'set', 'sb2', 'up');
    for (let pair = 0; pair < 3; pair++) {
      net.send(pair, Buffer.concat([Buffer.alloc(6, 0xff), MAC, Buffer.from([0x88, 0xb5]), Buffer.alloc(46, pair)]));
    }
    const statistics = JSON.parse(ip(t, '-statistics', '-json', 'link', 'show', 'sb2'));
    t.equal(statistics[0].stats64.rx.packets, 3);
    net.driver.negotiate(ALL_FEATURES & ~FEATURE.MQ);
    t.equal(disabled(), '2', 'a driver without MQ has one');
  });

  const qemu = findQemu();
  const skip = qemu === undefined && 'qemu-system-x86_64 is not installed: nothing to compare with';
  t.test('what a card on a tap offers is what QEMU’s does', { skip }, async t => {
    if (qemu === undefined) return;
    for (const [netdev, options] of [
      ['vnet_hdr=on', ''],
      ['queues=2', ',mq=on,rss=on,hash=on'],
      ['vnet_hdr=off', ',mq=on,hash=on,guest_tso4=off'],
    ] as const) {
      const script = virtioNetRegisters(options, `tap,id=n,ifname=sb6,script=no,downscript=no,${netdev}`);
      // One after the other: they want the same interface.
      const ours = await play(southbridge, script);
      const found = differences(script, ours, await play(qemu, script));
      for (const line of found) t.comment(line);
      t.equal(found.length, 0, `${netdev}${options}: ${script.steps.length} steps agree`);
    }
  });

  t.test('queues by their descriptors have to be alike', async t => {
    const open = (name: string, vnetHeader: boolean): number => openTap(name, { vnetHeader, multiQueue: true }).fd;
    const fds = [open('sb3', true), open('sb3', true)];
    const tap = await TapNet.open('n', { fds });
    t.same(
      tap.queues.map(({ description }) => description),
      fds.map(fd => `fd=${fd}`),
    );
    tap.dispose();
    await t.rejects(TapNet.open('n', { fds: [open('sb4', true), open('sb5', false)] }), {
      message: 'vnet_hdr not consistent across given tap fds',
    });
    t.not(spawnSync('ip', ['link', 'show', 'sb4']).status, 0, 'nothing is left open');
  });

  t.test('a helper makes the tap and hands it over', async t => {
    const script = join(folderOf(t), 'helper.mjs');
    const host = (file: string): string => new URL(`../../../core/host/${file}.js`, import.meta.url).href;
    writeFileSync(
      script,
      `import { openTap } from '${host('tap')}';
import { sendFds } from '${host('sockets')}';
const options = Object.fromEntries(process.argv.slice(2).map(text => text.slice(2).split('=')));
const name = { sbbr1: 'sbh1', other: 'sbh2' }[options.br];
const tap = openTap(name, { vnetHeader: 'use-vnet' in options, multiQueue: false });
sendFds(Number(options.fd), new Uint8Array(1), [tap.fd]);
`,
    );
    const command = `${process.execPath} ${script}`;
    const tap = await TapNet.onBridge('n', 'sbbr1', command);
    t.equal(tap.client.description, `helper=${command},br=sbbr1`);
    t.ok(tap.client.vnetHeaders);
    ip(t, 'link', 'show', 'sbh1');
    tap.dispose();
    const other = await TapNet.open('n', { helper: `${command} --br=other`, br: 'ignored' });
    ip(t, 'link', 'show', 'sbh2');
    other.dispose();

    await t.test(
      'QEMU’s own',
      { skip: !bridgeAllowed() && 'no qemu-bridge-helper that allows the bridge sbbr0' },
      async t => {
        ip(t, 'link', 'add', 'sbbr0', 'type', 'bridge');
        const tap = await TapNet.onBridge('n', 'sbbr0', undefined);
        t.teardown(() => tap.dispose());
        t.match(ip(t, 'link', 'show', 'master', 'sbbr0'), /tap0/);
      },
    );
  });
}
