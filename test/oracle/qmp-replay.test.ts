/**
 * The same QMP questions to our machine and to QEMU's: what management tools learn must agree. Where we implement a part of
 * what QEMU has (machine types, devices, CPU models), what we do have must be described alike.
 */
import t, { type Test } from 'tap';
import { ask, compareJson, type Json, type Question } from './qmp-player.ts';
import { findQemu, southbridge } from './qtest-player.ts';

const qemu = findQemu();
const skip = qemu === undefined ? 'qemu-system-x86_64 is not installed: nothing to compare with' : false;
const pc = ['-machine', 'pc', '-m', '128M', '-nodefaults', '-rtc', 'base=2024-02-29T12:34:56,clock=vm'];
const shown = 60;

/** Questions whose answers are known to differ and still to be settled: asked, and shown as to-dos. */
const OPEN: ReadonlySet<string> = new Set([
  'query-status {}',
  'query-pci {}',
  'query-chardev-backends {}',
  'query-mice {}',
  'query-migrate-parameters {}',
  'device_add {"driver":"e1000","addr":"1.0"}',
  'memsave {"val":0,"size":1,"filename":"/nowhere/x"}',
  'device-list-properties {"typename":"e1000"}',
  'device-list-properties {"typename":"isa-serial"}',
  'device-list-properties {"typename":"ide-hd"}',
  'device-list-properties {"typename":"ide-cd"}',
  'device-list-properties {"typename":"virtio-net-pci"}',
  'device-list-properties {"typename":"virtio-blk-pci"}',
  'device-list-properties {"typename":"VGA"}',
  'device-list-properties {"typename":"isa-debugcon"}',
  'device-list-properties {"typename":"pvpanic"}',
  'device-list-properties {"typename":"edu"}',
  'device-list-properties {"typename":"ich9-ahci"}',
  'human-monitor-command {"command-line":"info status"}',
  'human-monitor-command {"command-line":"info pci"}',
  'human-monitor-command {"command-line":"info irq"}',
  'human-monitor-command {"command-line":"info chardev"}',
  'human-monitor-command {"command-line":"info usb"}',
  'human-monitor-command {"command-line":"info mice"}',
  'human-monitor-command {"command-line":"info snapshots"}',
  'human-monitor-command {"command-line":"device_del"}',
  'human-monitor-command {"command-line":"x"}',
  'human-monitor-command {"command-line":"info mtree -f"}',
  'human-monitor-command {"command-line":"info qtree"}',
]);

async function compare(t: Test, machine: readonly string[], questions: readonly Question[]): Promise<void> {
  if (qemu === undefined) return;
  const [ours, theirs] = await Promise.all([ask(southbridge, machine, questions), ask(qemu, machine, questions)]);
  questions.forEach((question, index) => {
    const pick = question.compare ?? ((answer: Json) => answer);
    const found = compareJson(pick(ours[index] ?? null), pick(theirs[index] ?? null));
    for (const line of found.slice(0, shown)) t.comment(`${question.execute}${line}`);
    const name = `${question.execute} ${JSON.stringify(question.arguments ?? {})}`;
    t.equal(found.length, 0, name, OPEN.has(name) ? { todo: 'differs' } : {});
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
/** The regions of every flat view, once each: QEMU lists the views in no order. */
const regions = (answer: Json): Json => [...new Set(lines(answer).filter(line => line.startsWith('  ')))].sort();

t.test('the machine', { skip, timeout: 60_000 }, t =>
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
    ...['query-chardev-backends', 'query-mice', 'query-balloon', 'query-vm-generation-id', 'query-tpm'].map(
      execute => ({ execute }),
    ),
    ...['query-migrate-capabilities', 'query-migrate-parameters', 'query-acpi-ospm-status'].map(execute => ({
      execute,
    })),
    ...['pc', 'pc-i440fx-7.2', 'q35', 'pc-q35-7.2', 'none'].map(name => ({
      execute: 'query-machines',
      compare: (list: Json) => named(list, name),
    })),
  ]),
);

t.test('errors', { skip, timeout: 60_000 }, t =>
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

t.test('device properties', { skip, timeout: 60_000 }, t =>
  compare(
    t,
    pc,
    types.map(typename => ({ execute: 'device-list-properties', arguments: { typename } })),
  ),
);

t.test('the monitor', { skip, timeout: 60_000 }, t =>
  compare(t, pc, [
    ...[
      'info status',
      'info name',
      'info uuid',
      'info pci',
      'info irq',
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
    ].map(line => hmp(line)),
    hmp('info mtree -f', regions),
    hmp('info qtree'),
  ]),
);
