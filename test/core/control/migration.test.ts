import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { RunningProgram, runToEnd } from './program.ts';

const folder = mkdtempSync(join(tmpdir(), 'southbridge-'));

async function settle(program: RunningProgram): Promise<Record<string, unknown>> {
  for (;;) {
    const { return: info } = (await program.execute('query-migrate')) as { return: Record<string, unknown> };
    if (!['setup', 'active', 'device', 'cancelling'].includes(String(info['status']))) return info;
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

t.test('a machine goes on where its twin stopped', async t => {
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
  t.match(await settle(source), { status: 'completed' });
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

t.test('over a socket the source hears whether the machine arrived', async t => {
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
  await source.execute('migrate', { uri: `unix:${path}` });
  t.match(await settle(target), { status: 'completed' });
  t.match(await target.execute('query-status'), { return: { running: false, status: 'paused' } });
  await source.stop();
  await target.stop();
});

t.test('an altered or short stream is a named error', async t => {
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

t.test('where the way fails, the source runs on', async t => {
  const source = await RunningProgram.start('-machine', 'none');
  await source.execute('qmp_capabilities');
  await source.execute('migrate', { uri: `unix:${join(folder, 'nobody')}` });
  t.match(await settle(source), { status: 'failed' });
  t.match(await source.execute('query-status'), { return: { status: 'running' } });
  await source.stop();
});
