import { type ChildProcess, fork } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { FdSocket } from '../../../core/char/fd-socket.ts';
import { SocketChardev } from '../../../core/char/socket.ts';
import { VhostUserNet } from '../../../core/net/vhost-user/vhost-user.ts';
import { bench } from '../../../core/testing/bench.ts';
import { COMMON, LAYOUT } from '../../../core/virtio/pci-registers.ts';
import { e1000 } from '../../../devices/e1000/e1000.ts';
import { ALL_FEATURES, FEATURE, NetDriver } from '../../devices/virtio-net-lab.ts';
import { until } from '../../until.ts';

t.setTimeout(120_000);

const BACKEND = fileURLToPath(new URL('./vhost-user-backend.js', import.meta.url));
const VERSION_1 = 1n << 32n;
const INDIRECT = 1n << 28n;
const RAM = 16 * 2 ** 20;

/** What the back end tells of what it was told. */
interface Told {
  readonly listening?: boolean;
  readonly accepted?: string;
  readonly regions?: [number, number][];
  readonly base?: [number, number];
  readonly rarp?: string;
  readonly log?: [number, number];
  readonly ringLog?: [number, number, number];
}

class BackEnd {
  readonly told: Told[] = [];
  readonly child: ChildProcess;

  private constructor(t: Test, path: string, features: bigint, pairs: number) {
    this.child = fork(BACKEND, [path, String(features), String(pairs)]);
    this.child.on('message', message => this.told.push(message as Told));
    t.teardown(() => this.child.kill());
  }

  static async start(t: Test, path: string, features: bigint, pairs = 1): Promise<BackEnd> {
    const backEnd = new BackEnd(t, path, features, pairs);
    await until(() => backEnd.told.some(({ listening }) => listening));
    return backEnd;
  }

  last<K extends keyof Told>(key: K): Told[K] | undefined {
    return this.told.findLast(message => message[key] !== undefined)?.[key];
  }
}

function socketPath(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-vhost-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  return join(folder, 'switch');
}

interface Cable {
  readonly net: VhostUserNet;
  readonly driver: NetDriver;
  readonly warnings: string[];
}

/** A card on a switch that listens at `path`. */
async function cable(
  t: Test,
  path: string,
  options: { queues?: number; shared?: boolean; reconnect?: number } = {},
): Promise<Cable> {
  const { queues = 1, shared = true, reconnect = 1 } = options;
  const chardev = new SocketChardev('switch', {
    ...{ address: { type: 'unix', path }, server: false, wait: false, telnet: false, nodelay: false, reconnect },
    upgrade: socket => FdSocket.adopt(socket),
  });
  t.teardown(() => chardev.dispose());
  await chardev.open();
  const warnings: string[] = [];
  let driver: NetDriver | undefined;
  const net = await VhostUserNet.open('n', chardev, queues, {
    memory: () => {
      if (driver === undefined) throw new Error('there is no machine yet');
      return driver.lab.machine.services.sharedMemory;
    },
    warn: message => warnings.push(message),
  });
  t.teardown(() => net.dispose());
  driver = new NetDriver(t, net, { mq: 'on' }, { shared });
  return { net, driver, warnings };
}

const frame = (number: number): Buffer => Buffer.alloc(60 + number, number);

/** Sends frames through a pair and has them back, in their order. */
async function converse(t: Test, driver: NetDriver, pair: number, numbers: readonly number[]): Promise<void> {
  driver.post(pair, numbers.length);
  const back: Buffer[] = [];
  for (const number of numbers) {
    driver.send(pair, frame(number));
    await until(() => {
      const got = driver.receive();
      if (got !== undefined) back.push(got.frame);
      return got !== undefined;
    });
  }
  t.same(back, numbers.map(frame), `${numbers.length} frames through pair ${pair}`);
}

const range = (from: number, count: number): number[] => Array.from({ length: count }, (_, index) => from + index);

t.test('another process serves the queues, goes on after a stop, and may be replaced', async t => {
  const path = socketPath(t);
  const features = VERSION_1 | FEATURE.MRG_RXBUF | INDIRECT;
  const backEnd = await BackEnd.start(t, path, features);
  const { net, driver, warnings } = await cable(t, path);
  t.equal(net.client.description, 'vhost-user0 to switch');
  const { offered } = driver.driver;
  t.equal(offered & (FEATURE.MRG_RXBUF | INDIRECT), FEATURE.MRG_RXBUF | INDIRECT);
  t.equal(offered & (FEATURE.CSUM | FEATURE.MQ | FEATURE.GUEST_ANNOUNCE), 0n, 'what the back end has not');
  t.equal(offered & FEATURE.CTRL_VQ, FEATURE.CTRL_VQ, 'what is ours');
  driver.start(ALL_FEATURES, 1, 0);
  await until(() => backEnd.last('regions') !== undefined);
  t.same(backEnd.last('regions'), [[0, RAM]]);
  t.equal(BigInt(backEnd.last('accepted') ?? 0), features | (1n << 30n));
  await converse(t, driver, 0, range(1, 20));
  await until(() => (driver.driver.port.read(LAYOUT.ISR, 1) & 1) === 1);
  t.ok(true, 'the back end interrupts');

  const { machine } = driver.lab;
  machine.stop('paused');
  const states = [...machine.devices()].map(device => [device, device.save()] as const);
  for (const [device] of states) device.reset();
  for (const [device, state] of states) device.restore(state);
  machine.start();
  await converse(t, driver, 0, range(40, 5));
  t.same(
    backEnd.told.filter(({ base }) => base?.[0] === 1).map(({ base }) => base?.[1]),
    [0, 20],
    'it goes on where it was',
  );

  for (const card of machine.services.netCards.all) {
    card.client.sendFinished(
      Buffer.concat([Buffer.alloc(6, 0xff), Buffer.from('525400123456', 'hex'), Buffer.alloc(48)]),
    );
  }
  await until(() => backEnd.last('rarp') !== undefined);
  t.equal(backEnd.last('rarp'), '525400123456', 'a driver that cannot announce the card has it announced');

  const linkUp = (): boolean => (driver.driver.readConfig(6, 2) & 1) === 1;
  t.ok(linkUp());
  backEnd.child.kill();
  await until(() => !linkUp());
  t.ok(true, 'the link is down while nobody is there');
  const poorer = await BackEnd.start(t, path, VERSION_1);
  await until(() => warnings.length > 0);
  t.match(warnings[0], /^vhost lacks feature mask 0x10008000 for backend$/);
  t.notOk(linkUp());
  poorer.child.kill();
  const next = await BackEnd.start(t, path, features | FEATURE.CSUM);
  await until(linkUp);
  await converse(t, driver, 0, range(60, 5));
  t.equal(BigInt(next.last('accepted') ?? 0), features | (1n << 30n), 'the driver does not know of more');

  driver.driver.status = 0;
  driver.driver.rewind(0x10_0000);
  driver.start(ALL_FEATURES, 1, 0);
  await converse(t, driver, 0, range(80, 3));
});

t.test('rings where there is no memory are not served, and a driver that does better is', async t => {
  const path = socketPath(t);
  await BackEnd.start(t, path, VERSION_1 | FEATURE.MRG_RXBUF);
  const { driver } = await cable(t, path);
  const { port } = driver.driver;
  for (const high of [0xffff_ffff, 0x10]) {
    driver.driver.negotiate(ALL_FEATURES);
    for (const queue of [0, 1]) {
      driver.driver.queue(queue);
      port.write(COMMON.QUEUE_SELECT, 2, queue);
      port.write(COMMON.QUEUE_DEVICE_HIGH, 4, high);
      port.write(COMMON.QUEUE_ENABLE, 2, 1);
    }
    driver.driver.start();
    port.write(LAYOUT.NOTIFY + 4, 2, 1);
  }
  driver.driver.rewind(0x10_0000);
  driver.start(ALL_FEATURES, 1, 0);
  await converse(t, driver, 0, range(1, 3));
});

t.test('a back end that can keeps a log while the machine is on its way', async t => {
  const path = socketPath(t);
  const LOG_ALL = 1n << 26n;
  const features = VERSION_1 | FEATURE.MRG_RXBUF;
  const backEnd = await BackEnd.start(t, path, features | LOG_ALL);
  const { driver } = await cable(t, path);
  driver.start(ALL_FEATURES, 1, 0);
  await converse(t, driver, 0, range(1, 3));
  const { sharedMemory } = driver.lab.machine.services;
  const accepts = (bits: bigint): Promise<void> =>
    until(() => (BigInt(backEnd.last('accepted') ?? 0) & (LOG_ALL | VERSION_1)) === bits);
  await accepts(VERSION_1);
  t.equal(backEnd.last('log'), undefined);
  t.same(backEnd.last('ringLog')?.slice(1), [0, 0]);
  sharedMemory.logged = true;
  await accepts(VERSION_1 | LOG_ALL);
  t.same(backEnd.last('log'), [RAM / 4096 / 8, RAM / 4096 / 8], 'a bit for each page');
  await until(() => backEnd.last('ringLog')?.[1] === 1);
  t.not(backEnd.last('ringLog')?.[2], 0, 'also of what it tells the driver');
  await converse(t, driver, 0, range(10, 3));
  sharedMemory.logged = false;
  await accepts(VERSION_1);
  await converse(t, driver, 0, range(20, 3));
});

t.test('pairs of queues', async t => {
  const path = socketPath(t);
  await BackEnd.start(t, path, VERSION_1 | FEATURE.MQ | FEATURE.MRG_RXBUF, 2);
  const { driver } = await cable(t, path, { queues: 2 });
  driver.start(ALL_FEATURES, 2, 0);
  await converse(t, driver, 0, range(1, 3));
  t.equal(driver.command(4, 0, [2, 0]), 0);
  await converse(t, driver, 1, range(10, 3));
  await converse(t, driver, 0, range(20, 3));
});

t.test('what keeps it from working is said', async t => {
  const path = socketPath(t);
  await BackEnd.start(t, path, VERSION_1);
  const { driver, warnings, net } = await cable(t, path, { shared: false });
  driver.start(ALL_FEATURES, 1, 0);
  t.match(warnings, [/^Failed initializing vhost-user memory map/]);
  await t.rejects(cable(t, path, { queues: 2, reconnect: 0 }), { code: 'ERR_NETDEV' });
  await t.rejects(cable(t, path, { queues: 0 }), {
    message: 'vhost-user number of queues must be in range [1, 1024]',
  });
  const lab = bench();
  t.teardown(() => lab.dispose());
  t.throws(() => lab.pci(e1000, { netdev: net }), { message: 'vhost-user requires frontend driver virtio-net-*' });
});
