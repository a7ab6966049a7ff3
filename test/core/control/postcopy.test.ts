import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { RunningProgram } from './program.ts';

t.setTimeout(300_000);
const folder = mkdtempSync(join(tmpdir(), 'southbridge-'));
const MIB = 2 ** 20;
const PATTERN_AT = 2 * MIB;
const PATTERN_SIZE = 4 * MIB;

type Info = Record<string, unknown> & { readonly ram?: Readonly<Record<string, number>> };

interface Pair {
  readonly source: RunningProgram;
  readonly target: RunningProgram;
  readonly uri: string;
}

const info = async (program: RunningProgram): Promise<Info> =>
  (await program.execute('query-migrate'))['return'] as Info;

async function reach(program: RunningProgram, status: string): Promise<Info> {
  for (;;) {
    const now = await info(program);
    if (now['status'] === status) return now;
    if (now['status'] === 'failed') throw new Error(`failed instead of ${status}: ${String(now['error-desc'])}`);
    await new Promise(resolve => setTimeout(resolve, 10));
  }
}

/** A machine with a pattern in its memory, and one that waits for it, both with the capabilities. */
async function pair(name: string, capabilities: readonly string[], parameters: object = {}): Promise<Pair> {
  const uri = `unix:${join(folder, `${name}.sock`)}`;
  const source = await RunningProgram.start('-machine', 'pc', '-m', '16');
  const target = await RunningProgram.start('-machine', 'pc', '-m', '16', '-incoming', 'defer');
  for (const program of [source, target]) {
    await program.execute('qmp_capabilities');
    t.same(
      await program.execute('migrate-set-capabilities', {
        capabilities: ['events', ...capabilities].map(capability => ({ capability, state: true })),
      }),
      { return: {} },
    );
    t.same(await program.execute('migrate-set-parameters', parameters), { return: {} });
  }
  for (let at = 0; at < PATTERN_SIZE; at += MIB / 4)
    await source.command(
      `memset 0x${(PATTERN_AT + at).toString(16)} 0x40000 0x${(0x10 + at / (MIB / 4)).toString(16)}`,
    );
  t.same(await target.execute('migrate-incoming', { uri }), { return: {} });
  return { source, target, uri };
}

async function hasPattern(target: RunningProgram): Promise<boolean> {
  for (let at = 0; at < PATTERN_SIZE; at += 4096) {
    const expected = (0x10 + Math.floor(at / (MIB / 4))).toString(16).repeat(8);
    if ((await target.command(`readq 0x${(PATTERN_AT + at).toString(16)}`)) !== `OK 0x${expected}`) return false;
  }
  return true;
}

const states = (program: RunningProgram): string[] =>
  program.events
    .filter(({ event }) => event === 'MIGRATION')
    .map(({ data }) => (data as { readonly status: string }).status);

for (const compression of ['none', 'zlib', 'zstd'] as const) {
  t.test(`memory goes over several connections, compressed: ${compression}`, async t => {
    const { source, target, uri } = await pair(`multifd-${compression}`, ['multifd'], {
      'multifd-channels': 5,
      'multifd-compression': compression,
      // Not done before the last of what is written meanwhile, on a busy host too.
      'max-bandwidth': compression === 'none' ? 200_000 : 2000,
      'downtime-limit': 0,
    });
    await source.execute('migrate', { uri });
    await reach(source, 'active');
    // A page's older copy must not come after its newer one.
    for (let value = 1; value < 50; value++) {
      await source.command(`writel 0x${(PATTERN_AT + PATTERN_SIZE).toString(16)} ${value}`);
      await source.command(`writel 0x${(PATTERN_AT + PATTERN_SIZE + 8192 * value).toString(16)} ${value}`);
    }
    await source.execute('migrate-set-parameters', { 'max-bandwidth': 0 });
    const { ram } = await reach(source, 'completed');
    await reach(target, 'completed');
    const bytes = ram?.['multifd-bytes'] ?? 0;
    t.ok(compression === 'none' ? bytes > PATTERN_SIZE : bytes > 0 && bytes < PATTERN_SIZE / 4, `${bytes} bytes`);
    t.ok(await hasPattern(target));
    t.equal(await target.command(`readl 0x${(PATTERN_AT + PATTERN_SIZE).toString(16)}`), 'OK 0x0000000000000031');
    await Promise.all([source.stop(), target.stop()]);
  });
}

t.test('what has not as many connections as it needs is not one of them', async t => {
  const source = await RunningProgram.start('-machine', 'none');
  await source.execute('qmp_capabilities');
  const capabilities = [{ capability: 'multifd', state: true }];
  await source.execute('migrate-set-capabilities', { capabilities });
  t.match(await source.execute('migrate', { uri: 'exec:cat >/dev/null' }), {
    error: { desc: 'multifd is not supported by current protocol' },
  });
  await source.stop();
});

t.test('a machine goes ahead of its memory, loses its connection, and gets the rest over another', async t => {
  const { source, target, uri } = await pair('postcopy', ['postcopy-ram', 'postcopy-blocktime'], {
    'max-bandwidth': MIB,
    'max-postcopy-bandwidth': 4096,
    'downtime-limit': 0,
  });
  t.match(await source.execute('migrate-pause'), {
    error: { desc: 'migrate-pause is currently only supported during postcopy-active state' },
  });
  t.match(await source.execute('migrate-start-postcopy'), {
    error: { desc: 'Postcopy must be started after migration has been started' },
  });
  await source.execute('migrate', { uri });
  await reach(source, 'active');
  t.same(await source.execute('migrate-start-postcopy'), { return: {} });
  await reach(source, 'postcopy-active');
  await reach(target, 'postcopy-active');
  t.match(await source.execute('query-status'), { return: { status: 'finish-migrate' } });
  t.match(await target.execute('query-status'), { return: { status: 'running', running: true } });
  t.ok(target.events.some(({ event }) => event === 'RESUME'));
  await source.execute('migrate_cancel');
  t.match(await info(source), { status: 'postcopy-active' }, 'it cannot come back');

  const { ram } = await info(source);
  t.ok((ram?.['remaining'] ?? 0) > 0, 'memory is on its way still');
  for (const connection of ['second', 'third']) {
    t.same(await (connection === 'second' ? source : target).execute('migrate-pause'), { return: {} });
    await reach(target, 'postcopy-paused');
    await reach(source, 'postcopy-paused');
    const another = `unix:${join(folder, `${connection}.sock`)}`;
    t.same(await target.execute('migrate-recover', { uri: another }), { return: {} });
    t.same(await source.execute('migrate', { uri: another, resume: true }), { return: {} });
    await reach(source, 'postcopy-active');
    await reach(target, 'postcopy-active');
  }
  await source.execute('migrate-set-parameters', { 'max-postcopy-bandwidth': 0 });
  const sent = await reach(source, 'completed');
  const taken = await reach(target, 'completed');
  t.ok((sent.ram?.['postcopy-bytes'] ?? 0) > 0);
  t.ok(Number(taken['postcopy-blocktime']) > 0);
  t.same(taken['postcopy-vcpu-blocktime'], [taken['postcopy-blocktime']]);
  t.ok(await hasPattern(target));
  t.match(await source.execute('query-status'), { return: { status: 'postmigrate' } });
  const again = ['postcopy-paused', 'postcopy-recover', 'postcopy-active'];
  t.same(states(source), ['setup', 'active', 'postcopy-active', ...again, ...again, 'completed']);
  t.same(states(target), ['setup', 'active', 'postcopy-active', ...again, ...again, 'completed']);
  await Promise.all([source.stop(), target.stop()]);
});

t.test('what is stopped while it waits for its memory stays so', async t => {
  const { source, target, uri } = await pair('stopped', ['postcopy-ram'], {
    'max-bandwidth': MIB,
    'max-postcopy-bandwidth': 65_536,
    'downtime-limit': 0,
  });
  await source.execute('migrate', { uri });
  await reach(source, 'active');
  await source.execute('migrate-start-postcopy');
  await reach(target, 'postcopy-active');
  await target.execute('stop');
  await source.execute('migrate-set-parameters', { 'max-postcopy-bandwidth': 0 });
  await reach(target, 'completed');
  t.match(await target.execute('query-status'), { return: { status: 'paused' } });
  await target.execute('cont');
  t.match(await target.execute('query-status'), { return: { status: 'running' } });
  t.ok(await hasPattern(target));
  await Promise.all([source.stop(), target.stop()]);
});

t.test('postcopy needs a way back, and preemption needs postcopy', async t => {
  const source = await RunningProgram.start('-machine', 'none');
  await source.execute('qmp_capabilities');
  const set = (capability: string): Promise<unknown> =>
    source.execute('migrate-set-capabilities', { capabilities: [{ capability, state: true }] });
  t.match(await set('postcopy-preempt'), { error: { desc: 'Postcopy preempt requires postcopy-ram' } });
  t.match(await source.execute('migrate-start-postcopy'), {
    error: { desc: 'Enable postcopy with migrate_set_capability before the start of migration' },
  });
  t.match(await source.execute('migrate-recover', { uri: 'unix:x' }), {
    error: { desc: 'Migrate recover can only be run when postcopy is paused.' },
  });
  t.match(await source.execute('migrate', { uri: 'unix:x', resume: true }), {
    error: { desc: 'Cannot resume if there is no paused migration' },
  });
  await set('postcopy-ram');
  await source.execute('migrate', { uri: 'exec:cat >/dev/null' });
  for (;;) {
    const { status, 'error-desc': why } = await info(source);
    if (status !== 'failed') continue;
    t.equal(why, 'Unable to open return-path for postcopy');
    break;
  }
  t.match(await source.execute('query-status'), { return: { running: true } });
  await source.stop();
});
