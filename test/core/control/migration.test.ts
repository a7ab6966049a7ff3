import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { RunningProgram, runToEnd } from './program.ts';

t.setTimeout(500_000);
const folder = mkdtempSync(join(tmpdir(), 'southbridge-'));

async function settle(program: RunningProgram): Promise<Record<string, unknown>> {
  for (;;) {
    const { return: info } = (await program.execute('query-migrate')) as { return: Record<string, unknown> };
    if (!['setup', 'active', 'device', 'cancelling'].includes(String(info['status']))) return info;
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

t.test('a machine goes on where its twin stopped', { timeout: 90_000 }, async t => {
  const file = join(folder, 'state');
  const source = await RunningProgram.start('-machine', 'pc', '-m', '16');
  await source.execute('qmp_capabilities');
  await source.command('writeq 0x123458 0x1122334455667788');
  await source.command('outb 0x70 0x40');
  await source.command('outb 0x71 0x5a');
  await source.command('clock_step 123456789');
  t.same(await source.execute('migrate', { uri: 'nowhere:1' }), {
    error: { class: 'GenericError', desc: "Parameter 'uri' expects a valid migration protocol" },
  });
  t.same(await source.execute('migrate', { uri: `exec:cat > ${file}` }), { return: {} });
  const { status, ram } = await settle(source);
  t.equal(status, 'completed');
  const { total, duplicate, normal } = ram as Record<'total' | 'duplicate' | 'normal', number>;
  t.ok(duplicate > 3000 && duplicate + normal >= total / 4096, 'pages of zeros count, though none was sent');
  t.match(await source.execute('query-status'), { return: { status: 'postmigrate' } });
  t.ok(readFileSync(file).length < 2 ** 20 * 2, 'zero pages are left out');
  await source.stop();

  const twin = await RunningProgram.start('-machine', 'pc', '-m', '16', '-incoming', 'defer');
  await twin.execute('qmp_capabilities');
  t.match(await twin.execute('query-status'), { return: { status: 'inmigrate' } });
  await twin.execute('migrate-incoming', { uri: `file:${file}` });
  t.match(await settle(twin), { status: 'completed' });
  t.equal(await twin.command('readq 0x123458'), 'OK 0x1122334455667788');
  t.equal(await twin.command('inb 0x71'), 'OK 0x005a');
  t.equal(await twin.command('clock_step 0'), 'OK 123456789');
  t.match(await twin.execute('query-status'), { return: { status: 'running' } });
  await twin.stop();
});

t.test('over a socket the source hears whether the machine arrived', { timeout: 90_000 }, async t => {
  for (const fits of [true, false]) {
    const path = join(folder, fits ? 'good.sock' : 'bad.sock');
    const target = await RunningProgram.start('-machine', 'pc', '-m', fits ? '16' : '32', '-incoming', `unix:${path}`);
    const source = await RunningProgram.start('-machine', 'pc', '-m', '16');
    await source.execute('qmp_capabilities');
    await source.execute('migrate', { uri: `unix:${path}` });
    t.match(await settle(source), { status: fits ? 'completed' : 'failed' });
    t.match(await source.execute('query-status'), { return: { status: fits ? 'postmigrate' : 'running' } });
    await source.stop();
    if (fits) await target.stop();
  }
});

t.test('a machine that was paused stays so where it arrives', async t => {
  const path = join(folder, 'paused.sock');
  const target = await RunningProgram.start('-machine', 'none', '-incoming', `unix:${path}`);
  const source = await RunningProgram.start('-machine', 'none');
  await source.execute('qmp_capabilities');
  await target.execute('qmp_capabilities');
  await source.execute('stop');
  await source.execute('migrate-set-capabilities', { capabilities: [{ capability: 'events', state: true }] });
  source.events.length = 0;
  await source.execute('migrate', { uri: `unix:${path}` });
  t.match(await settle(target), { status: 'completed' });
  await settle(source);
  t.same(
    source.events.map(({ event, data }) => [event, ...Object.values(data as object)]),
    [
      ['MIGRATION', 'setup'],
      ['MIGRATION_PASS', 1],
      ['MIGRATION', 'active'],
      ['MIGRATION_PASS', 2],
      ['MIGRATION', 'completed'],
    ],
    "in QEMU's order, and without the switch-over that nobody asked to be told of",
  );
  t.match(await target.execute('query-status'), { return: { running: false, status: 'paused' } });
  await source.stop();
  await target.stop();
});

t.test('where a machine has arrived, its cards say so', { timeout: 120_000 }, async t => {
  const path = join(folder, 'announced');
  const wire = createSocket('udp4').bind(0, '127.0.0.1');
  t.teardown(() => wire.close());
  await once(wire, 'listening');
  const { port } = wire.address();
  const arguments_ = (far: number): string[] => [
    ...['-machine', 'pc', '-m', '16'],
    ...['-netdev', `socket,id=a,udp=127.0.0.1:${far},localaddr=127.0.0.1:0`],
    ...['-device', 'e1000,netdev=a,mac=52:54:00:00:00:0a', '-netdev', 'hubport,id=b,hubid=0'],
    ...['-device', 'virtio-net-pci,netdev=b,mac=52:54:00:00:00:0b'],
  ];
  // The source has nobody at the other end.
  const source = await RunningProgram.start(...arguments_(9));
  await source.execute('qmp_capabilities');
  await source.execute('migrate', { uri: `exec:cat > ${path}` });
  t.match(await settle(source), { status: 'completed' });
  await source.stop();

  const frames: Buffer[] = [];
  const rounds = new Promise<void>(done => {
    wire.on('message', frame => {
      if (frames.push(frame) === 3) done();
    });
  });
  const target = await RunningProgram.start(...arguments_(port), '-incoming', 'defer');
  await target.execute('qmp_capabilities');
  await target.execute('migrate-set-parameters', { 'announce-rounds': 3, 'announce-initial': 20, 'announce-step': 10 });
  await target.execute('migrate-incoming', { uri: `file:${path}` });
  await rounds;
  const mac = Buffer.from('52540000000a', 'hex');
  const request = Buffer.concat([Buffer.alloc(6, 0xff), mac, Buffer.from('80350001080006040003', 'hex'), mac]);
  for (const frame of frames) {
    t.equal(frame.length, 60);
    t.same(frame.subarray(0, 28), request, 'a reverse ARP request (RFC 903)');
    t.same(frame.subarray(32, 38), mac);
  }
  await target.stop();
});

t.test('an altered or short stream is a named error', { timeout: 90_000 }, async t => {
  const good = readFileSync(join(folder, 'state'));
  const altered = Buffer.from(good);
  altered[altered.length - 100] = (altered[altered.length - 100] ?? 0) ^ 1;
  for (const [name, bytes, message] of [
    ['altered', altered, /was altered: a checksum is wrong/],
    ['short', good.subarray(0, good.length - 200), /ends early/],
    ['foreign', Buffer.from('QEVM....................'), /is not a saved state of this program/],
  ] as const) {
    const path = join(folder, name);
    writeFileSync(path, bytes);
    const { code, errors } = await runToEnd('-machine', 'pc', '-m', '16', '-incoming', `file:${path}`);
    t.equal(code, 1, name);
    t.match(errors, message);
  }
});

t.test('where the way fails, the source runs on', { timeout: 90_000 }, async t => {
  const source = await RunningProgram.start('-machine', 'none');
  await source.execute('qmp_capabilities');
  const nobody = join(folder, 'nobody');
  await source.execute('migrate', { uri: `unix:${nobody}` });
  const why = `Failed to connect to '${nobody}': No such file or directory`;
  t.match(await settle(source), { status: 'failed', 'error-desc': why });
  t.match(await source.execute('query-status'), { return: { status: 'running' } });
  await source.stop();
});

t.test('memory goes while the machine runs, and again where it has changed', { timeout: 180_000 }, async t => {
  const path = join(folder, 'precopy.sock');
  const target = await RunningProgram.start('-machine', 'pc', '-m', '16', '-incoming', `unix:${path}`);
  const source = await RunningProgram.start('-machine', 'pc', '-m', '16');
  for (const program of [source, target]) await program.execute('qmp_capabilities');
  t.match(await target.execute('query-migrate'), { return: { 'socket-address': [{ type: 'unix', path }] } });
  const capabilities = ['events', 'pause-before-switchover', 'xbzrle'].map(capability => ({ capability, state: true }));
  t.same(await source.execute('migrate-set-capabilities', { capabilities }), { return: {} });
  t.match(
    await source.execute('migrate-set-capabilities', {
      capabilities: [{ capability: 'background-snapshot', state: true }],
    }),
    {
      error: { class: 'GenericError' },
    },
  );
  t.match(await source.execute('migrate-set-parameters', { 'xbzrle-cache-size': 5000 }), {
    error: { desc: "Parameter 'xbzrle_cache_size' expects a power of two no less than the target page size" },
  });
  // Slow enough for the first round to be under way still when memory changes behind it.
  await source.execute('migrate-set-parameters', { 'downtime-limit': 0, 'max-bandwidth': 50_000 });
  await source.command('memset 0x200000 0x100000 0x11');
  t.same(await source.execute('migrate', { uri: `unix:${path}` }), { return: {} });
  t.match(await source.execute('migrate', { uri: `unix:${path}` }), {
    error: { desc: "There's a migration process in progress" },
  });
  const info = async (): Promise<Record<string, unknown> & { ram?: Record<string, number> }> =>
    (await source.execute('query-migrate'))['return'] as Record<string, unknown>;
  while (((await info()).ram?.['dirty-sync-count'] ?? 0) < 1) await source.command('readl 0');
  await source.command('writel 0x300800 0x1234');
  await source.command('memset 0x200000 4096 0');
  await source.command('writel 0x2ff000 0x55');
  t.match(await source.execute('query-status'), { return: { running: true } });
  await source.execute('migrate-set-parameters', { 'max-bandwidth': 0 });
  while ((await info())['status'] !== 'pre-switchover') await source.command('readl 0');
  t.match(await source.execute('query-status'), { return: { status: 'finish-migrate' } });
  t.match(await source.execute('migrate-continue', { state: 'device' }), {
    error: { desc: 'Migration not in expected state: pre-switchover' },
  });
  await source.execute('migrate-continue', { state: 'pre-switchover' });
  const end = await settle(source);
  t.match(end, { status: 'completed', ram: { remaining: 0, total: Number }, 'xbzrle-cache': { pages: Number } });
  t.equal(await target.command('readl 0x2ff000'), 'OK 0x0000000000000055');
  t.equal(await target.command('readl 0x2ff004'), 'OK 0x0000000011111111');
  t.equal(await target.command('readl 0x300800'), 'OK 0x0000000000001234');
  t.equal(await target.command('readl 0x200000'), 'OK 0x0000000000000000');
  const states = source.events
    .filter(({ event }) => event === 'MIGRATION')
    .map(({ data }) => (data as { status: string }).status);
  t.same(states, ['setup', 'active', 'pre-switchover', 'device', 'completed']);
  const passes = source.events
    .filter(({ event }) => event === 'MIGRATION_PASS')
    .map(({ data }) => (data as { pass: number }).pass);
  t.ok(passes.length > 1 && passes.every((pass, index) => pass === index + 1), 'each pass is told');
  t.ok(source.events.some(({ event }) => event === 'STOP'));
  await Promise.all([source.stop(), target.stop()]);
});

t.test('a migration that is cancelled leaves the machine here', { timeout: 120_000 }, async t => {
  const path = join(folder, 'cancel.sock');
  const target = await RunningProgram.start('-machine', 'pc', '-m', '16', '-incoming', `unix:${path}`);
  const source = await RunningProgram.start('-machine', 'pc', '-m', '16');
  await source.execute('qmp_capabilities');
  await source.execute('migrate-set-parameters', { 'downtime-limit': 0, 'max-bandwidth': 1000 });
  await source.execute('migrate', { uri: `unix:${path}` });
  await source.command('writel 0x300000 7');
  const ended = once(target.process, 'exit');
  await source.execute('migrate_cancel');
  t.match(await settle(source), { status: 'cancelled' });
  t.match(await source.execute('query-status'), { return: { status: 'running' } });
  t.equal(await source.command('readl 0x300000'), 'OK 0x0000000000000007');
  t.same(await source.execute('migrate', { uri: `exec:cat > ${join(folder, 'after')}` }), { return: {} });
  await source.execute('migrate-set-parameters', { 'downtime-limit': 1000, 'max-bandwidth': 0 });
  t.match(await settle(source), { status: 'completed' }, 'the next one may succeed');
  await source.stop();
  t.same(await ended, [1, null], 'what was to take it in gives up');
});

t.test('an image goes along: it is filled over NBD before its machine arrives', { timeout: 180_000 }, async t => {
  const [path, socket] = [join(folder, 'along.sock'), join(folder, 'nbd.sock')];
  const [here, there] = [join(folder, 'here.raw'), join(folder, 'there.raw')];
  const content = Buffer.alloc(2 ** 20, 'what the guest wrote');
  writeFileSync(here, content);
  writeFileSync(there, Buffer.alloc(2 ** 20));
  const machine = (file: string): string[] => [
    ...['-machine', 'pc', '-m', '16', '-blockdev', `driver=raw,node-name=disk,file.driver=file,file.filename=${file}`],
    ...['-device', 'virtio-blk-pci,drive=disk'],
  ];
  const target = await RunningProgram.start(...machine(there), '-incoming', `unix:${path}`);
  const source = await RunningProgram.start(...machine(here));
  for (const program of [source, target]) await program.execute('qmp_capabilities');
  const done = async (program: RunningProgram, name: string, args?: object): Promise<void> => {
    t.same(await program.execute(name, args), { return: {} }, name);
  };
  await done(target, 'nbd-server-start', { addr: { type: 'unix', data: { path: socket } } });
  await done(target, 'block-export-add', {
    type: 'nbd',
    id: 'along',
    'node-name': 'disk',
    name: 'disk',
    writable: true,
  });
  const server = { type: 'unix', path: socket };
  await done(source, 'blockdev-add', { driver: 'nbd', 'node-name': 'remote', server, export: 'disk' });
  await done(source, 'blockdev-mirror', { 'job-id': 'along', device: 'disk', target: 'remote', sync: 'full' });
  const jobs = async (): Promise<{ ready: boolean }[]> =>
    (await source.execute('query-block-jobs'))['return'] as { ready: boolean }[];
  while ((await jobs())[0]?.ready === false) await source.command('readl 0');
  t.equal((await jobs()).length, 1);
  await done(source, 'stop');
  await done(source, 'block-job-cancel', { device: 'along' });
  while ((await jobs()).length > 0) await source.command('readl 0');
  await done(target, 'nbd-server-stop');
  await done(source, 'migrate', { uri: `unix:${path}` });
  t.match(await settle(target), { status: 'completed' });
  await source.stop();
  await done(target, 'cont');
  t.match(await target.execute('block-export-add', { type: 'nbd', id: 'late', 'node-name': 'disk', writable: true }), {
    error: { desc: /NBD server not running/ },
  });
  await target.stop();
  t.ok(readFileSync(there).equals(content));
});
