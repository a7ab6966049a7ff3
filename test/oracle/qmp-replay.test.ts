/**
 * The same QMP questions to our machine and to QEMU's: what management tools learn must agree. Where we implement a part of
 * what QEMU has (machine types, devices, CPU models), what we do have must be described alike.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { Json } from './qmp-monitor.ts';
import { ask, compareJson, listing, type Question } from './qmp-player.ts';
import { findQemu, southbridge } from './qtest-player.ts';

const qemu = findQemu();
const skip = qemu === undefined ? 'qemu-system-x86_64 is not installed: nothing to compare with' : false;
const pc = ['-S', '-machine', 'pc,smm=off', '-m', '128M', '-nodefaults', '-rtc', 'base=2024-02-29T12:34:56,clock=vm'];
const shown = 60;

async function compare(t: Test, machine: readonly string[], questions: readonly Question[]): Promise<void> {
  if (qemu === undefined) return;
  const [ours, theirs] = await Promise.all([ask(southbridge, machine, questions), ask(qemu, machine, questions)]);
  questions.forEach((question, index) => {
    const pick = question.compare ?? ((answer: Json) => answer);
    const found = compareJson(pick(ours[index] ?? null), pick(theirs[index] ?? null));
    for (const line of found.slice(0, shown)) t.comment(`${question.execute}${line}`);
    t.equal(found.length, 0, `${question.execute} ${JSON.stringify(question.arguments ?? {})}`);
  });
}

const named = (list: Json, name: string): Json =>
  Array.isArray(list)
    ? (list.find(item => typeof item === 'object' && item !== null && 'name' in item && item['name'] === name) ?? null)
    : null;
const lines = (answer: Json): readonly string[] =>
  typeof answer === 'string' ? answer.split('\r\n') : [JSON.stringify(answer)];
const hmp = (line: string, compare: (answer: Json) => Json = lines): Question => ({
  execute: 'human-monitor-command',
  arguments: { 'command-line': line },
  compare,
});
/** Devices and regions that are ways of building a machine, and none of ours: no guest or client can tell. */
const WAYS = ['kvmvapic', 'vmport', 'vmmouse', 'ps2-mouse', 'ps2-kbd'];

/** The regions of every flat view, once each: QEMU lists the views in no order. Ports that nothing decodes are left out. */
function regions(answer: Json): Json {
  const found = lines(answer)
    .filter(
      line =>
        line.startsWith('  ') && !/: io( @|$)|No rendered/.test(line) && !WAYS.some(way => line.includes(`: ${way}`)),
    )
    .map(line => line.replace('rtc-index', 'rtc').replace(/ @0{15}1$/, ''));
  return [...new Set(found.flatMap(bytewise))].sort();
}

/** A range of ports as one line for each port: devices may declare neighbours as one region or as several. */
function bytewise(line: string): string[] {
  const [, from = '', to = '', rest = ''] = /^ {2}0{12}(\w{4})-0{12}(\w{4}) \(prio \d, (.*)$/.exec(line) ?? [];
  if (rest === '') return [line];
  const first = Number.parseInt(from, 16);
  return Array.from({ length: Number.parseInt(to, 16) - first + 1 }, (_, index) => `${first + index} ${rest}`);
}

/** `info qtree` as one line for each fact, with the devices that it is about: the order is that of plugging in. */
function facts(answer: Json): Json {
  const path: string[] = [];
  const found = lines(answer).map(line => {
    const depth = (line.length - line.trimStart().length) / 2;
    path.length = depth;
    path[depth] = line.trim();
    return path.join(' / ');
  });
  return found.filter(line => !WAYS.some(way => line.includes(way)) && !line.includes('-input-irq')).sort();
}

/** Without the back end that SPICE's headers bring: a build without them has not got it either. */
const withoutSpice = (answer: Json): Json =>
  Array.isArray(answer)
    ? answer.filter(item => !/qemu-vdagent|wctablet|msmouse|testdev/.test(JSON.stringify(item)))
    : answer;

/** What QEMU makes of a device inside (its regions, pins and links) is not what clients set; no guest of ours is big-endian. */
const settable = (answer: Json): Json =>
  Array.isArray(answer)
    ? answer.filter(item => !/"type":"(child|link)<(?!iothread|rng-backend)|big-endian/.test(JSON.stringify(item)))
    : answer;

/** Which interrupts came before the guest has run at all depends on the order in which chips are made. */
const withoutCounts = (answer: Json): Json => lines(answer).filter(line => !/^ \d+: \d+$/.test(line));

/** Each process has threads of its own. */
const withoutThreads = (answer: Json): Json =>
  JSON.parse(JSON.stringify(answer).replace(/("thread-id":|thread_id=)\d+/g, '$10')) as Json;

t.test('iothreads', { skip, timeout: 200_000 }, t => {
  const set = (property: string, value: Json) => ({
    execute: 'qom-set',
    arguments: { path: '/objects/one', property, value },
  });
  const get = (property: string) => ({ execute: 'qom-get', arguments: { path: '/objects/one', property } });
  const wrong = { 'qom-type': 'iothread', id: 'wrong' };
  return compare(
    t,
    [...pc, '-object', 'iothread,id=one,poll-max-ns=9,thread-pool-max=8'],
    [
      get('thread-pool-max'),
      set('poll-max-ns', 1000),
      set('poll-grow', 2),
      set('poll-shrink', 3),
      set('aio-max-batch', 4),
      set('poll-max-ns', -1),
      set('poll-max-ns', 'x'),
      set('poll-max-ns', 1.5),
      set('thread-pool-max', 0),
      set('thread-pool-min', -1),
      set('no-such', 1),
      get('poll-max-ns'),
      get('poll-shrink'),
      { execute: 'query-iothreads', compare: withoutThreads },
      hmp('info iothreads', withoutThreads),
      { execute: 'object-add', arguments: { ...wrong, 'poll-grow': -1 } },
      { execute: 'object-add', arguments: { ...wrong, 'thread-pool-min': 9, 'thread-pool-max': 8 } },
      { execute: 'object-add', arguments: { ...wrong, 'poll-grow': 1 } },
      { execute: 'object-del', arguments: { id: 'wrong' } },
      { execute: 'query-iothreads', compare: withoutThreads },
    ],
  );
});

for (const type of ['pc', 'q35']) {
  t.test(`CPUs before an operating system is there: ${type}`, { skip, timeout: 200_000 }, t =>
    compare(
      t,
      [...pc.map(text => text.replace(/^pc/, type)), '-smp', '1,maxcpus=3'],
      [
        {
          execute: 'device_add',
          arguments: { driver: 'qemu64-x86_64-cpu', id: 'two', 'socket-id': 1, 'core-id': 0, 'thread-id': 0 },
        },
        { execute: 'device_del', arguments: { id: 'two' } },
        { execute: 'device_del', arguments: { id: 'two' } },
        { execute: 'query-hotpluggable-cpus' },
        { execute: 'query-acpi-ospm-status' },
      ],
    ),
  );
}

t.test('disks before the guest runs', { skip, timeout: 200_000 }, t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const drives = ['ide', 'virtio', 'scsi'].flatMap((kind, index) => {
    const file = join(folder, kind);
    writeFileSync(file, Buffer.alloc(2 ** 20, index));
    return ['-drive', `file=${file},format=raw,id=${kind},if=${kind === 'scsi' ? 'none' : kind}`];
  });
  const machine = [...pc, ...drives, '-device', 'lsi53c895a', '-device', 'scsi-hd,drive=scsi', '-snapshot'];
  return compare(t, machine, [{ execute: 'query-blockstats', compare: guests }]);
});

/** What the guest has asked of its disks: how much is read of files to open them is each program's own. */
function guests(answer: Json): Json {
  if (!Array.isArray(answer)) return answer;
  return answer.map(
    item => (typeof item === 'object' && item !== null && 'stats' in item ? item['stats'] : item) ?? null,
  );
}

t.test('the machine', { skip, timeout: 200_000 }, t =>
  compare(t, pc, [
    {
      execute: 'query-version',
      compare: answer => (typeof answer === 'object' && answer !== null ? Object.keys(answer) : answer),
    },
    ...['query-status', 'query-name', 'query-uuid', 'query-block', 'query-blockstats', 'query-memory-size-summary'].map(
      execute => ({ execute }),
    ),
    ...['query-current-machine', 'query-hotpluggable-cpus', 'query-pci', 'query-iothreads', 'query-memdev'].map(
      execute => ({ execute }),
    ),
    ...['query-migrate', 'query-named-block-nodes', 'query-jobs', 'query-block-jobs', 'query-memory-devices'].map(
      execute => ({ execute }),
    ),
    { execute: 'query-chardev-backends', compare: withoutSpice },
    ...['query-mice', 'query-balloon', 'query-vm-generation-id', 'query-tpm'].map(execute => ({ execute })),
    ...['query-migrate-capabilities', 'query-migrate-parameters', 'query-acpi-ospm-status'].map(execute => ({
      execute,
    })),
    ...['pc', 'pc-i440fx-7.2', 'q35', 'pc-q35-7.2', 'none'].map(name => ({
      execute: 'query-machines',
      compare: (list: Json) => named(list, name),
    })),
  ]),
);

t.test('errors', { skip, timeout: 200_000 }, t =>
  compare(t, pc, [
    { execute: 'no-such-command' },
    { execute: 'query-status', arguments: { surplus: 1 } },
    { execute: 'qom-get', arguments: { path: '/nowhere', property: 'type' } },
    { execute: 'qom-get', arguments: { path: '/machine', property: 'no-such' } },
    { execute: 'qom-get', arguments: { path: '/machine' } },
    { execute: 'qom-list', arguments: { path: '/nowhere' } },
    { execute: 'qom-set', arguments: { path: '/machine', property: 'no-such', value: 1 } },
    { execute: 'device_add', arguments: { driver: 'no-such' } },
    { execute: 'device_add', arguments: { driver: 'e1000', bus: 'no-such' } },
    { execute: 'device_add', arguments: { driver: 'e1000', netdev: 'no-such' } },
    { execute: 'device_add', arguments: { driver: 'e1000', mac: 'rubbish' } },
    { execute: 'device_add', arguments: { driver: 'e1000', addr: '1.0' } },
    { execute: 'device_add', arguments: { driver: 'isa-serial' } },
    { execute: 'device_add', arguments: { driver: 'e1000', 'no-such': 1 } },
    { execute: 'device_del', arguments: { id: 'no-such' } },
    { execute: 'device-list-properties', arguments: { typename: 'no-such' } },
    { execute: 'device-list-properties', arguments: { typename: 'device' } },
    { execute: 'netdev_add', arguments: { type: 'no-such', id: 'n' } },
    { execute: 'netdev_del', arguments: { id: 'no-such' } },
    { execute: 'object-add', arguments: { 'qom-type': 'no-such', id: 'o' } },
    { execute: 'object-del', arguments: { id: 'no-such' } },
    { execute: 'blockdev-add', arguments: { driver: 'no-such' } },
    { execute: 'blockdev-del', arguments: { 'node-name': 'no-such' } },
    { execute: 'blockdev-add', arguments: { driver: 'file', 'node-name': 'f', filename: '/nowhere' } },
    { execute: 'chardev-remove', arguments: { id: 'no-such' } },
    ...[
      { type: 'inet', host: 'no-such.invalid', port: '1' },
      { type: 'inet', host: '127.0.0.1', port: '1' },
      { type: 'unix', path: '/nowhere' },
    ].flatMap(({ type, ...data }) => [
      {
        execute: 'blockdev-add',
        arguments: { driver: 'nbd', 'node-name': 'n', server: { type, ...data } },
      },
      {
        execute: 'chardev-add',
        arguments: { id: 'c', backend: { type: 'socket', data: { addr: { type, data }, server: false } } },
      },
    ]),
    { execute: 'eject', arguments: { device: 'no-such' } },
    { execute: 'balloon', arguments: { value: 1 } },
    { execute: 'set_link', arguments: { name: 'no-such', up: true } },
    { execute: 'block_resize', arguments: { device: 'no-such', size: 1 } },
    { execute: 'screendump', arguments: { filename: '/nowhere/x.ppm' } },
    { execute: 'migrate_cancel' },
    { execute: 'cont', arguments: {} },
    { execute: 'x-exit-preconfig' },
    { execute: 'qmp_capabilities' },
    { execute: 'human-monitor-command', arguments: {} },
    { execute: 'memsave', arguments: { val: 0, size: 1, filename: '/nowhere/x' } },
  ]),
);

const types = [
  'e1000',
  'isa-serial',
  'ide-hd',
  'ide-cd',
  'virtio-net-pci',
  'virtio-blk-pci',
  'VGA',
  'isa-debugcon',
  'pvpanic',
  'edu',
  'ich9-ahci',
];

t.test('device properties', { skip, timeout: 200_000 }, t =>
  compare(
    t,
    pc,
    types.map(typename => ({ execute: 'device-list-properties', arguments: { typename }, compare: settable })),
  ),
);

t.test('the monitor', { skip, timeout: 200_000 }, t =>
  compare(t, pc, [
    ...[
      'info status',
      'info name',
      'info uuid',
      'info pci',
      'info chardev',
      'info block',
      'info network',
      'info usb',
    ].map(line => hmp(line)),
    ...[
      'info mice',
      'info numa',
      'info balloon',
      'info snapshots',
      'info memory_size_summary',
      'info hotpluggable-cpus',
    ].map(line => hmp(line)),
    ...[
      'info nosuch',
      'nosuch',
      'device_add',
      'device_del',
      'x',
      'p 1+2',
      'p/x 0x10*2',
      'xp /4xb 0xffff0',
      'i /1b 0x71',
      'o /b 0x80 1',
      'sum 0 16',
      'info pic',
      'info mem',
      'info tlb',
      'info migrate',
      'info migrate_capabilities',
      'info migrate_parameters',
      'info block-jobs',
      'info dump',
      'info sev',
      'info tpm',
      'info trace-events nosuch',
      'info memory-devices',
      'info iothreads',
      'info memdev',
      'info vnc',
      'info capture',
      'info replay',
      'info vm-generation-id',
      'info hotpluggable-cpus',
      'info registers 9',
      'block_resize',
      'block_resize nosuch 1G',
      'block_resize nosuch rubbish',
      'block_job_cancel nosuch',
      'eject',
      'eject nosuch',
      'eject -q nosuch',
      'change nosuch',
      'drive_del nosuch',
      'netdev_del nosuch',
      'object_del nosuch',
      'chardev-remove nosuch',
      'set_link nosuch on',
      'set_link nosuch maybe',
      'balloon 1',
      'x /4xw 0xffffffff0',
      'xp /2xg 0xffff0',
      'xp /2dh 0xffff0',
      'xp /4c 0xffff0',
      'p $pc',
      'p/d 7-10',
      'p (1+2',
      'p 1/0',
      'p $nosuch',
      'p/q 1',
      'cpu 9',
      'sendkey',
      'mouse_set 9',
      'quit now',
      'savevm a b',
      'loadvm',
      'migrate_set_parameter max-bandwidth 1M',
      'migrate_set_capability events on',
      'info migrate_capabilities',
      'device_add nosuch',
      'device_add e1000,id=n1',
      'device_add e1000,id=n1',
      'device_del n1',
      'watchdog_action pause',
      'boot_set nd',
      'sync-profile',
      'singlestep on',
      'qom-list /machine/nosuch',
      'qom-get /machine nosuch',
      'help nosuch',
      'info status extra',
    ].map(line => hmp(line)),
    hmp('info irq', withoutCounts),
    hmp('info cpus', answer => lines(answer).map(line => line.replace(/thread_id=\d+/, ''))),
    hmp('info mtree -f', regions),
    hmp('info qtree', facts),
  ]),
);

t.test('listings', { skip, timeout: 200_000 }, async t => {
  if (qemu === undefined) return;
  const both = async (...args: string[]): Promise<[string[], string[]]> =>
    Promise.all([listing(southbridge, args), listing(qemu, args)]);
  /** Every line of ours that `picks` must be QEMU's too. */
  const alike = async (args: string[], picks: (line: string) => string | undefined): Promise<void> => {
    const [ours, theirs] = await both(...args);
    const known = new Set(theirs.map(picks));
    const own = ours.map(picks).filter(line => line !== undefined && !known.has(line));
    t.same(own, [], args.join(' '));
  };
  await alike(['-machine', 'help'], line => (/^(none|pc|q35|microvm)/.test(line) ? line : undefined));
  await alike(['-cpu', 'help'], line => /^x86 \S+/.exec(line)?.[0]);
  await alike(['-device', 'help'], line => /^name "[^"]+"/.exec(line)?.[0]);
  for (const type of types) {
    const [ours, theirs] = await both('-device', `${type},help`);
    const own = (list: readonly string[]): string[] =>
      list.filter(line => !/=<(child|link)<(?!iothread)|big-endian/.test(line));
    t.same(own(ours), own(theirs), `-device ${type},help`);
  }
});
