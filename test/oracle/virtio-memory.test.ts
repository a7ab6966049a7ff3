import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { RunningProgram, runToEnd } from '../core/control/program.ts';
import { RegisterScript } from './register-script.ts';
import { VirtioRequests } from './virtio-requests.ts';

t.setTimeout(120_000);

const MIB = 2 ** 20;
const MEMORY = 0x1_0000_0000;
const MACHINE = ['-machine', 'pc', '-m', '64M,slots=1,maxmem=2G', '-nodefaults'];
const USED = 0x1_2000;
const ANSWER = 0x9_0000;

const backend = (id: string, size: string): string[] => ['-object', `memory-backend-ram,id=${id},size=${size}`];

/** Plays what a driver of the function at slot `device` does; returns the answers. */
async function drive(
  program: RunningProgram,
  device: number,
  what: (driver: VirtioRequests) => void,
): Promise<string[]> {
  const script = new RegisterScript('a driver', []);
  what(new VirtioRequests(script, { device }));
  const answers: string[] = [];
  for (const { command } of script.steps) answers.push(await program.command(command));
  return answers;
}

function request(type: number, address: number, blocks: number): Buffer {
  const bytes = Buffer.alloc(24);
  bytes.writeUInt16LE(type, 0);
  bytes.writeBigUInt64LE(BigInt(address), 8);
  bytes.writeUInt16LE(blocks, 16);
  return bytes;
}

async function until(what: () => Promise<boolean>): Promise<void> {
  for (let turn = 0; turn < 400; turn++) {
    if (await what()) return;
    await new Promise(resolve => setTimeout(resolve, 10));
  }
  throw new Error('it has not happened');
}

t.test('virtio-mem: the host asks for memory, and hears what the guest has', async t => {
  const program = await RunningProgram.start(
    ...[...MACHINE, ...backend('m', '128M'), ...backend('d', '32M')],
    ...['-device', 'pc-dimm,memdev=d,id=dimm', '-device', 'virtio-mem-pci,memdev=m,id=vm,addr=4'],
  );
  t.teardown(() => program.stop());
  await program.execute('qmp_capabilities');
  const place = MEMORY + 32 * MIB;
  const expected = { id: 'vm', memaddr: place, node: 0, 'requested-size': 0, size: 0, 'max-size': 128 * MIB };
  t.match(await program.execute('query-memory-devices'), {
    return: [
      { type: 'dimm', data: { id: 'dimm', addr: MEMORY } },
      { type: 'virtio-mem', data: { ...expected, 'block-size': 2 * MIB, memdev: '/objects/m' } },
    ],
  });
  const set = async (value: number): Promise<unknown> => {
    const reply = await program.execute('qom-set', { path: 'vm', property: 'requested-size', value });
    return Reflect.get(Object(reply['error']), 'desc');
  };
  t.equal(await set(MIB), "'requested-size' has to be multiples of 'block-size' (0x200000)");
  t.equal(await set(256 * MIB), "'requested-size' cannot exceed the memory backend size(0x8000000)");
  t.equal(await set(8 * MIB), undefined);
  t.equal((await program.execute('qom-get', { path: 'vm', property: 'requested-size' }))['return'], 8 * MIB);

  await drive(program, 4, driver => driver.start(1).request('plug', 0, request(0, place, 3), 10));
  await program.execute('query-status');
  t.match(program.events.at(-1), {
    event: 'MEMORY_DEVICE_SIZE_CHANGE',
    data: { id: 'vm', size: 6 * MIB, 'qom-path': '/machine/peripheral/vm' },
  });
  t.equal((await program.execute('qom-get', { path: 'vm', property: 'size' }))['return'], 6 * MIB);
  t.match(await program.execute('query-memory-size-summary'), { return: { 'plugged-memory': 38 * MIB } });
  t.equal(
    (await program.execute('human-monitor-command', { 'command-line': 'info memory-devices' }))['return'],
    `Memory device [dimm]: "dimm"\r\n  addr: 0x100000000\r\n  slot: 0\r\n  node: 0\r\n  size: ${32 * MIB}\r\n  memdev: /objects/d\r\n  hotplugged: false\r\n  hotpluggable: true\r\nMemory device [virtio-mem]: "vm"\r\n  memaddr: 0x102000000\r\n  node: 0\r\n  requested-size: ${8 * MIB}\r\n  size: ${6 * MIB}\r\n  max-size: ${128 * MIB}\r\n  block-size: ${2 * MIB}\r\n  memdev: /objects/m\r\n`,
  );
  t.match(await program.execute('device_del', { id: 'vm' }), {
    error: { desc: 'virtio based memory devices cannot be unplugged.' },
  });
  t.match(await program.execute('object-del', { id: 'm' }), {
    error: { desc: "object 'm' is in use, can not be deleted" },
  });
  await program.command(`writel 0x${place.toString(16)} 0x12345678`);
  await program.execute('system_reset');
  t.equal((await program.execute('qom-get', { path: 'vm', property: 'size' }))['return'], 0, 'a reset unplugs all');
  t.equal(await program.command(`readl 0x${place.toString(16)}`), 'OK 0x0000000000000000');
});

t.test('virtio-mem: what is plugged is saved, and goes on elsewhere', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-memory-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const options = [
    ...MACHINE,
    ...backend('m', '64M'),
    '-device',
    'virtio-mem-pci,memdev=m,id=vm,addr=4,requested-size=8M',
  ];
  const source = await RunningProgram.start(...options);
  t.teardown(() => source.stop());
  await source.execute('qmp_capabilities');
  await drive(source, 4, driver => driver.start(1).request('plug', 0, request(0, MEMORY + 2 * MIB, 2), 10));
  await source.command(`writel 0x${(MEMORY + 2 * MIB).toString(16)} 0x12345678`);
  await source.execute('migrate', { uri: `exec:cat > ${join(folder, 'state')}` });
  await until(
    async () => Reflect.get(Object((await source.execute('query-migrate'))['return']), 'status') === 'completed',
  );
  const target = await RunningProgram.start(...options, '-incoming', `exec:cat ${join(folder, 'state')}`);
  t.teardown(() => target.stop());
  await target.execute('qmp_capabilities');
  await until(
    async () => Reflect.get(Object((await target.execute('query-status'))['return']), 'status') !== 'inmigrate',
  );
  t.equal((await target.execute('qom-get', { path: 'vm', property: 'size' }))['return'], 4 * MIB);
  t.equal(await target.command(`readl 0x${(MEMORY + 2 * MIB).toString(16)}`), 'OK 0x0000000012345678');
});

t.test('virtio-pmem: a flush answers once the host has kept what was written', async t => {
  const folder = mkdtempSync(join(tmpdir(), 'southbridge-pmem-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const file = `memory-backend-file,id=f,size=64M,share=on,mem-path=${join(folder, 'memory')}`;
  const program = await RunningProgram.start(
    ...[...MACHINE, '-object', file, ...backend('r', '64M')],
    ...['-device', 'virtio-pmem-pci,memdev=f,id=file,addr=4', '-device', 'virtio-pmem-pci,memdev=r,id=ram,addr=5'],
  );
  t.teardown(() => program.stop());
  await program.execute('qmp_capabilities');
  t.match(await program.execute('query-memory-devices'), {
    return: [
      { type: 'virtio-pmem', data: { id: 'file', memaddr: MEMORY, size: 64 * MIB, memdev: '/objects/f' } },
      { type: 'virtio-pmem', data: { id: 'ram', memaddr: MEMORY + 64 * MIB, size: 64 * MIB, memdev: '/objects/r' } },
    ],
  });
  for (const [device, ret] of [
    [4, 0],
    [5, 1],
  ] as const) {
    await drive(program, device, driver => driver.start(1).request('flush', 0, new Uint8Array(4), 4));
    await until(async () => (await program.command(`readw 0x${(USED + 2).toString(16)}`)) === 'OK 0x0000000000000001');
    t.equal(await program.command(`readl 0x${ANSWER.toString(16)}`), `OK 0x000000000000000${ret}`);
    await program.command('outl 0xcf8 0x80002004');
    if (device === 4) await program.command(`write 0x10000 0x4000 0x${'00'.repeat(0x4000)}`);
    await program.command('outl 0xcfc 0');
  }
  t.match(await program.execute('device_del', { id: 'file' }), {
    error: { desc: 'virtio based memory devices cannot be unplugged.' },
  });
  t.match(await program.execute('device_add', { driver: 'virtio-pmem-pci', id: 'twice', memdev: 'r' }), {
    error: { desc: "can't use already busy memdev: r" },
  });
  await program.execute('object-add', { 'qom-type': 'memory-backend-ram', id: 'later', size: 64 * MIB });
  t.same(await program.execute('device_add', { driver: 'virtio-pmem-pci', id: 'hot', memdev: 'later' }), {
    return: {},
  });
  t.equal((await program.execute('qom-get', { path: 'hot', property: 'memaddr' }))['return'], MEMORY + 128 * MIB);
});

t.test("what cannot be is refused in QEMU's words", async t => {
  const refusals: Readonly<Record<string, string>> = {
    'virtio-pmem-pci': "'memdev' property must be set",
    'virtio-pmem-pci,memdev=m,memaddr=0x100001000': 'address must be aligned to 0x200000 bytes',
    'virtio-pmem-pci,memdev=big': 'not enough space, currently 0x0 in use of total space for memory devices 0x7c000000',
    'virtio-mem-pci': "'memdev' property must be set",
    'virtio-mem-pci,memdev=m,block-size=512K': "'block-size' property has to be at least 0x100000",
    'virtio-mem-pci,memdev=m,block-size=3M': "'block-size' property has to be a power of two",
    'virtio-mem-pci,memdev=m,requested-size=1M':
      "'requested-size' property has to be multiples of 'block-size' (0x200000)",
    'virtio-mem-pci,memdev=m,block-size=256M': 'backend memory size must be multiple of 0x10000000',
    'virtio-mem-pci,memdev=m,node=1': "'node' property has value '1', which exceedsthe number of numa nodes: 1",
    'virtio-mem-pci,memdev=m,size=2M': "Property 'virtio-mem.size' is not writable",
  };
  const objects = [...backend('m', '128M'), ...backend('big', '4G')];
  for (const [device, message] of Object.entries(refusals)) {
    const { errors } = await runToEnd(...MACHINE, ...objects, '-device', device);
    t.match(errors, `-device ${device}: ${message}`);
  }
  const closed = await runToEnd(
    '-machine',
    'pc',
    '-m',
    '64',
    ...backend('m', '64M'),
    '-device',
    'virtio-mem-pci,memdev=m',
  );
  t.match(closed.errors, 'memory devices (e.g. for memory hotplug) are not enabled, please specify the maxmem option');
});
