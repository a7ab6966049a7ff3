import { spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, truncateSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { RunningProgram } from '../../core/control/program.ts';
import { Player, recording } from './conversation.ts';

t.setTimeout(300_000);

const json = (value: object): string => JSON.stringify(value);
const blockdev = (node: string, filename: string, driver: string): string[] => [
  ...[
    '-blockdev',
    json({ driver: 'file', filename, 'node-name': `${node}-storage`, 'auto-read-only': true, discard: 'unmap' }),
  ],
  ...['-blockdev', json({ 'node-name': `${node}-format`, 'read-only': false, driver, file: `${node}-storage` })],
];
const device = (driver: string, rest: object): string[] => ['-device', json({ driver, ...rest })];

/** libvirt's command lines, without what only says where sockets are. */
const machines = {
  pc: (file: (name: string) => string): string[] => [
    ...['-name', 'guest=pc1', '-machine', 'pc-i440fx-7.2,usb=off,dump-guest-core=off,memory-backend=pc.ram'],
    ...[
      '-cpu',
      'qemu64',
      '-m',
      '128',
      '-object',
      json({ 'qom-type': 'memory-backend-ram', id: 'pc.ram', size: 2 ** 27 }),
    ],
    ...[
      '-smp',
      '1,maxcpus=2,sockets=2,cores=1,threads=1',
      '-no-user-config',
      '-nodefaults',
      '-no-hpet',
      '-no-shutdown',
      '-S',
    ],
    ...['-rtc', 'base=utc,driftfix=slew', '-boot', 'strict=on'],
    ...device('piix3-usb-uhci', { id: 'usb', bus: 'pci.0', addr: '0x1.0x2' }),
    ...device('virtio-serial-pci', { id: 'virtio-serial0', bus: 'pci.0', addr: '0x5' }),
    ...blockdev('libvirt-3', file('b.raw'), 'raw'),
    ...device('ide-hd', { bus: 'ide.0', unit: 0, drive: 'libvirt-3-format', id: 'ide0-0-0', bootindex: 1 }),
    ...device('ide-cd', { bus: 'ide.1', unit: 0, id: 'ide0-1-0', bootindex: 2 }),
    ...blockdev('libvirt-1', file('a.qcow2'), 'qcow2'),
    ...device('virtio-blk-pci', { bus: 'pci.0', addr: '0x6', drive: 'libvirt-1-format', id: 'virtio-disk0' }),
    ...['-netdev', json({ type: 'hubport', hubid: 0, id: 'hostnet0' })],
    ...device('e1000', { netdev: 'hostnet0', id: 'net0', mac: '52:54:00:00:00:01', bus: 'pci.0', addr: '0x3' }),
    ...['-netdev', json({ type: 'hubport', hubid: 1, id: 'hostnet1' })],
    ...device('virtio-net-pci', {
      netdev: 'hostnet1',
      id: 'net1',
      mac: '52:54:00:00:00:02',
      bus: 'pci.0',
      addr: '0x4',
    }),
    ...['-chardev', 'pty,id=charserial0', ...device('isa-serial', { chardev: 'charserial0', id: 'serial0', index: 0 })],
    ...['-chardev', `socket,id=charchannel0,path=${file('agent')},server=on,wait=off`],
    ...device('virtserialport', {
      bus: 'virtio-serial0.0',
      nr: 1,
      chardev: 'charchannel0',
      id: 'channel0',
      name: 'org.qemu.guest_agent.0',
    }),
    ...device('usb-tablet', { id: 'input0', bus: 'usb.0', port: '1' }),
    ...device('VGA', { id: 'video0', vgamem_mb: 16, bus: 'pci.0', addr: '0x2' }),
    ...device('virtio-balloon-pci', { id: 'balloon0', bus: 'pci.0', addr: '0x7' }),
    ...['-object', json({ 'qom-type': 'rng-random', id: 'objrng0', filename: '/dev/urandom' })],
    ...device('virtio-rng-pci', { rng: 'objrng0', id: 'rng0', bus: 'pci.0', addr: '0x8' }),
  ],
  sn: (file: (name: string) => string): string[] => [
    ...['-name', 'guest=sn1', '-machine', 'pc-i440fx-7.2,usb=off,dump-guest-core=off', '-cpu', 'qemu64'],
    ...['-m', 'size=65536k,slots=4,maxmem=262144k', '-smp', '1,maxcpus=2,sockets=2,cores=1,threads=1'],
    ...['-object', json({ 'qom-type': 'memory-backend-ram', id: 'ram-node0', size: 2 ** 26 })],
    ...['-numa', 'node,nodeid=0,cpus=0-1,memdev=ram-node0', '-no-user-config', '-nodefaults', '-no-shutdown', '-S'],
    ...device('piix3-usb-uhci', { id: 'usb', bus: 'pci.0', addr: '0x1.0x2' }),
    ...blockdev('libvirt-2', file('a.qcow2'), 'qcow2'),
    ...device('virtio-blk-pci', {
      bus: 'pci.0',
      addr: '0x4',
      drive: 'libvirt-2-format',
      id: 'virtio-disk0',
      bootindex: 1,
    }),
    ...device('ide-cd', { bus: 'ide.1', unit: 0, id: 'ide0-1-0' }),
    ...['-netdev', json({ type: 'hubport', hubid: 0, id: 'hostnet0' })],
    ...device('virtio-net-pci', {
      netdev: 'hostnet0',
      id: 'net0',
      mac: '52:54:00:00:00:02',
      bus: 'pci.0',
      addr: '0x3',
    }),
    ...['-chardev', 'pty,id=charserial0', ...device('isa-serial', { chardev: 'charserial0', id: 'serial0', index: 0 })],
    ...device('VGA', { id: 'video0', bus: 'pci.0', addr: '0x2' }),
    ...device('virtio-balloon-pci', { id: 'balloon0', bus: 'pci.0', addr: '0x5' }),
  ],
} as const;

const noQemuImg = spawnSync('qemu-img', ['--version']).status !== 0 && 'qemu-img is not installed (Debian: qemu-utils)';
const { machines: recorded, source } = recording();
t.comment(source);

for (const name of ['pc', 'sn'] as const) {
  t.test(`libvirt's conversations with the machine ${name}`, { skip: noQemuImg }, async t => {
    const folder = mkdtempSync(join(tmpdir(), 'southbridge-conversations-'));
    t.teardown(() => rmSync(folder, { recursive: true }));
    const file = (image: string): string => join(folder, image);
    for (const raw of ['b.raw', 'd.raw', 'e.raw', 'a-ovl.qcow2', 'a-copy.qcow2', 'd.s2']) {
      closeSync(openSync(file(raw), 'w'));
      truncateSync(file(raw), raw.endsWith('.raw') ? 2 ** 20 : 0);
    }
    spawnSync('qemu-img', ['create', '-q', '-f', 'qcow2', file('a.qcow2'), '64M']);
    const program = await RunningProgram.start(...machines[name](file));
    t.teardown(() => program.stop());
    const player = new Player(program, text => text.replaceAll('$IMG/', `${folder}/`));
    for (const { step, conversation } of recorded[name].steps) t.strictSame(await player.play(conversation), [], step);
    const properties = await program.execute('qom-list', { path: '/machine/unattached/device[0]' });
    const types = new Map(
      (properties['return'] as { name: string; type: string }[]).map(each => [each.name, each.type]),
    );
    for (const property of recorded[name].cpuProperties['boolean'] ?? [])
      if (types.get(property) !== 'bool') t.fail(`the CPU has no feature ${property}`);
  });
}
