import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createStreamServer } from 'node:net';
import t, { type Test } from 'tap';
import { requestUnplug } from '../../core/control/startup/devices.ts';
import type { DeviceType } from '../../core/device/device-type.ts';
import { UserNet } from '../../core/net/user.ts';
import { e1000 } from '../../devices/e1000/e1000.ts';
import { e1000e } from '../../devices/e1000e/e1000e.ts';
import { pcnet } from '../../devices/pcnet/pcnet.ts';
import { rtl8139 } from '../../devices/rtl8139/rtl8139.ts';
import { tulip } from '../../devices/tulip/tulip.ts';
import { virtioNetPci } from '../../devices/virtio-net/virtio-net.ts';
import { vmxnet3 } from '../../devices/vmxnet3/vmxnet3.ts';
import { noSlirp } from '../core/host/libslirp.ts';
import { bootLinux } from './linux-machine.ts';

t.setTimeout(2_400_000);

const MIB = 2 ** 20;

interface Card {
  readonly type: DeviceType;
  /** Debian's driver. */
  readonly driver: string;
  /** How many MiB go down and up. */
  readonly down: number;
  readonly up: number;
  /** The driver looks at the link once a minute only: nobody waits for it. */
  readonly slow?: true;
}

/** Each on a network of its own. */
const ALL: readonly Card[] = [
  { type: e1000, driver: 'e1000', down: 50, up: 50 },
  { type: virtioNetPci, driver: 'virtio_net', down: 50, up: 50 },
  { type: rtl8139, driver: '8139cp', down: 50, up: 50 },
  { type: e1000e, driver: 'e1000e', down: 8, up: 2 },
  { type: tulip, driver: 'tulip', down: 8, up: 2, slow: true },
  { type: pcnet, driver: 'pcnet32', down: 8, up: 2 },
  { type: vmxnet3, driver: 'vmxnet3', down: 50, up: 50 },
];
/** SOUTHBRIDGE_NIGHTLY_CARDS leaves those whose drivers it names. */
const only = process.env['SOUTHBRIDGE_NIGHTLY_CARDS']?.split(',');
const CARDS = ALL.filter(({ driver }) => only?.includes(driver) ?? true);

/** Bytes that repeat only after long, so that a lost or doubled piece shows. */
function pattern(size: number): Buffer {
  const bytes = Buffer.allocUnsafe(size);
  let value = 0x2545_f491;
  for (let at = 0; at < size; at += 4) {
    value = (Math.imul(value, 1_664_525) + 1_013_904_223) | 0;
    bytes.writeInt32LE(value, at);
  }
  return bytes;
}

const md5 = (bytes: Buffer): string => createHash('md5').update(bytes).digest('hex');

/** Serves `bytes`, in MiB by number, over HTTP; on another port keeps the checksums of what is sent to it. */
async function servers(t: Test, bytes: Buffer): Promise<{ web: number; sink: number; uploads: string[] }> {
  const uploads: string[] = [];
  const web = createServer((request, response) => {
    response.end(bytes.subarray(0, Number(request.url?.slice(1)) * MIB));
  });
  const sink = createStreamServer({ allowHalfOpen: true }, socket => {
    const hash = createHash('md5');
    socket.on('data', piece => hash.update(piece));
    socket.on('error', error => t.fail(error.message));
    socket.on('end', () => {
      uploads.push(hash.digest('hex'));
      socket.end();
    });
  });
  const ports: number[] = [];
  for (const server of [web, sink]) {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    t.teardown(() => server.close());
    ports.push((server.address() as AddressInfo).port);
  }
  const [webPort = 0, sinkPort = 0] = ports;
  return { web: webPort, sink: sinkPort, uploads };
}

/** A name server that has one answer (RFC 1035): 192.0.2.7. */
async function nameServer(t: Test): Promise<number> {
  const server = createSocket('udp4', (query, from) => {
    const end = query.indexOf(0, 12) + 5;
    const reply = Buffer.concat([
      query.subarray(0, 2),
      Buffer.from([0x81, 0x80, 0, 1, 0, query.readUInt16BE(end - 4) === 1 ? 1 : 0, 0, 0, 0, 0]),
      query.subarray(12, end),
      ...(query.readUInt16BE(end - 4) === 1
        ? [Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7])]
        : []),
    ]);
    server.send(reply, from.port, from.address);
  });
  server.bind(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => server.close());
  return server.address().port;
}

const LEASE = `#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/24 dev $interface
echo "lease $interface $ip router $router dns $dns"
`;

t.test('Linux drives its cards: leases, names, transfers, links that flap, removal', { skip: noSlirp }, async t => {
  const bytes = pattern(50 * MIB);
  const { web, sink, uploads } = await servers(t, bytes);
  const dns = await nameServer(t);
  const nets = CARDS.map((_, index) => new UserNet(`net${index}`, { net: `10.9.${index}.0/24` }));
  t.teardown(() => {
    for (const net of nets) net.dispose();
  });
  const guest = await bootLinux(t, {
    config: { ramSize: 256 * MIB, maxRamSize: 256 * MIB },
    modules: ['virtio_pci', ...CARDS.map(({ driver }) => driver)],
    backend: (kind, id) => (kind === 'netdev' ? nets.find(net => net.id === id) : undefined),
    plug(machine) {
      const pci = machine.findBus('pci.0');
      for (const [index, { type }] of CARDS.entries()) {
        pci?.plug(type, {}, { netdev: `net${index}`, romfile: '' }, `card${index}`);
      }
    },
    files: { 'lease.sh': LEASE },
    init: `
      dmesg -n 1
      carrier() {
        left=$patience
        while [ "$(cat $1/carrier)" != $2 ] && [ $left -gt 0 ]; do left=$((left - 1)); sleep 0.5; done
      }
      for card in /sys/class/net/eth*; do
        name=$(basename $card)
        driver=$(basename $(readlink $card/device/driver))
        ip link set $name up
        patience=80
        carrier $card 1
        net=$(( $(cat $card/address | cut -d: -f6 | sed 's/^/0x/') - 0x56 ))
        echo "card $net $driver $(cat $card/address)"
        udhcpc -i $name -n -q -s /lease.sh 2>/dev/null
        nslookup host.test 10.9.$net.2:${dns} | grep -c 192.0.2.7
        case $driver in ${CARDS.map(({ driver, down, up }) => `${driver}) down=${down} up=${up};;`).join(' ')} esac
        wget -q -O /tmp/down http://10.9.$net.2:${web}/$down
        md5sum < /tmp/down
        dd if=/tmp/down bs=1M count=$up 2>/dev/null | nc 10.9.$net.2 ${sink}
        rm /tmp/down
        echo "up $net"
        for flap in 1 2; do
          case $driver in ${
            CARDS.filter(({ slow }) => slow)
              .map(({ driver }) => driver)
              .join('|') || '-'
          }) patience=4;; esac
          echo "link $net down please"
          carrier $card 0
          echo "carrier $net $(cat $card/carrier)"
          echo "link $net up please"
          carrier $card 1
          echo "carrier $net $(cat $card/carrier)"
        done
        echo "after $net $(wget -q -O - http://10.9.$net.2:${web}/1 | md5sum)"
        ip addr flush dev $name; ip link set $name down
      done
      echo "unplug please"
      for wait in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
        [ $(ls /sys/class/net | grep -c eth) = 0 ] && break; sleep 0.5
      done
      echo "left $(ls /sys/class/net | grep -c eth)"`,
  });
  if (guest === undefined) return;
  const { machine, terminal } = guest;
  const link = (index: number, up: boolean): void => {
    const card = [...machine.services.netCards.all].find(({ client }) => client.name === `card${index}`);
    for (const end of [card?.client, nets[index]?.client]) end?.setLink(up);
  };
  // The guest takes its cards in an order of its own.
  for (let flap = 0; flap < 2 * CARDS.length; flap++) {
    const nth = (which: string): RegExp =>
      new RegExp(`(?:link \\d ${which} please[\\s\\S]*?){${flap}}link (\\d) ${which} please`);
    const [, index] = await terminal.until(nth('down'), 1_200_000);
    link(Number(index), false);
    await terminal.until(nth('up'), 600_000);
    link(Number(index), true);
  }
  await terminal.until(/unplug please/, 800_000);
  for (let index = 0; index < CARDS.length; index++) requestUnplug(machine, `card${index}`);
  await guest.down;
  const output = terminal.output.replaceAll('\r', '');
  t.comment(output);
  for (const [index, { driver, down, up }] of CARDS.entries()) {
    t.match(
      output,
      new RegExp(`card ${index} ${driver} 52:54:00:12:34:${(0x56 + index).toString(16)}`),
      `${driver} binds`,
    );
    t.match(
      output,
      new RegExp(`lease eth\\d 10\\.9\\.${index}\\.15 router 10\\.9\\.${index}\\.2 dns 10\\.9\\.${index}\\.3`),
    );
    t.ok(output.includes(`${md5(bytes.subarray(0, down * MIB))}  -`), `${driver}: ${down} MiB down`);
    t.equal(uploads[uploadOrder(output).indexOf(index)], md5(bytes.subarray(0, up * MIB)), `${driver}: ${up} MiB up`);
  }
  t.equal(output.match(/^1$/gm)?.length, CARDS.length, 'each resolves a name');
  for (const [index, { driver, slow }] of CARDS.entries()) {
    const carriers = [...output.matchAll(new RegExp(`^carrier ${index} (\\d)$`, 'gm'))].map(([, carrier]) => carrier);
    if (!slow) t.same(carriers, ['0', '1', '0', '1'], `${driver} sees its link flap`);
    t.ok(output.includes(`after ${index} ${md5(bytes.subarray(0, MIB))}  -`), `${driver}: a transfer after it`);
  }
  t.match(output, /left 0/, 'the guest has let all of them go');
});

/** In which order the guest took its cards. */
const uploadOrder = (output: string): number[] => [...output.matchAll(/^up (\d)/gm)].map(([, index]) => Number(index));
