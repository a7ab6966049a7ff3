import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { samplesOf } from '../../docs/samples.ts';
import { RunningProgram } from './program.ts';

t.setTimeout(300_000);
const folder = mkdtempSync(join(tmpdir(), 'southbridge-'));
const PATTERN_AT = 0x20_0000;

/** A folder with the key of `qemu`, the user whom both sides take where none is named. */
function keys(name: string, key: string): string {
  const path = join(folder, name);
  mkdirSync(path);
  writeFileSync(join(path, 'keys.psk'), `qemu:${key}\n`);
  return path;
}

const ours = keys('ours', '0123456789abcdef0123456789abcdef');
const others = keys('others', 'ffffffffffffffffffffffffffffffff');

type Info = Readonly<Record<string, unknown>>;

async function end(program: RunningProgram): Promise<Info> {
  for (;;) {
    const info = (await program.execute('query-migrate'))['return'] as Info;
    if (info['status'] === 'completed' || info['status'] === 'failed') return info;
    await new Promise(resolve => setTimeout(resolve, 20));
  }
}

async function start(keys: string, endpoint: string, capabilities: readonly string[], ...more: string[]) {
  const object = `tls-creds-psk,id=tls0,endpoint=${endpoint},dir=${keys}`;
  const program = await RunningProgram.start('-machine', 'pc', '-m', '16', '-object', object, ...more);
  await program.execute('qmp_capabilities');
  t.same(await program.execute('migrate-set-parameters', { 'tls-creds': 'tls0' }), { return: {} });
  await program.execute('migrate-set-capabilities', {
    capabilities: capabilities.map(capability => ({ capability, state: true })),
  });
  return program;
}

for (const [what, capabilities] of [
  ['as one stream', []],
  ['over several connections', ['multifd']],
  ['ahead of its memory', ['postcopy-ram']],
] as const) {
  t.test(`a machine goes ${what}, and nobody else can read it`, async t => {
    const source = await start(ours, 'client', capabilities);
    const target = await start(ours, 'server', capabilities, '-incoming', 'defer');
    await source.command(`memset 0x${PATTERN_AT.toString(16)} 0x100000 0x5a`);
    const address = { uri: 'tcp:127.0.0.1:0' };
    t.same(await target.execute('migrate-incoming', address), { return: {} });
    const listening = async (): Promise<string> => {
      for (;;) {
        const info = (await target.execute('query-migrate'))['return'] as Info;
        const [first] = (info['socket-address'] ?? []) as readonly { readonly port: string }[];
        if (first !== undefined) return first.port;
      }
    };
    if (capabilities.length > 0) await source.execute('migrate-set-parameters', { 'downtime-limit': 0 });
    await source.execute('migrate', { uri: `tcp:127.0.0.1:${await listening()}` });
    if (what === 'ahead of its memory') await source.execute('migrate-start-postcopy');
    t.match(await end(source), { status: 'completed' });
    t.match(await end(target), { status: 'completed' });
    t.equal(await target.command(`readl 0x${(PATTERN_AT + 0xf_fffc).toString(16)}`), 'OK 0x000000005a5a5a5a');
    await Promise.all([source.stop(), target.stop()]);
  });
}

t.test('who has another key does not get a machine, nor gives one', async t => {
  const path = join(folder, 'mismatch.sock');
  const source = await start(ours, 'client', []);
  const target = await start(others, 'server', [], '-incoming', 'defer');
  await target.execute('migrate-incoming', { uri: `unix:${path}` });
  await source.execute('migrate', { uri: `unix:${path}` });
  t.match(await end(source), { status: 'failed', 'error-desc': /TLS handshake failed/ });
  t.match(await source.execute('query-status'), { return: { status: 'running' } });
  t.match(
    await target.execute('query-status'),
    { return: { status: 'inmigrate' } },
    'it still waits for the right one',
  );
  await Promise.all([source.stop(), target.stop()]);
});

t.test('credentials that are not there, or are for the other side', async t => {
  const source = await start(ours, 'server', []);
  for (const [creds, why] of [
    ['nobody', "No TLS credentials with id 'nobody'"],
    ['tls0', 'Expected TLS credentials for a client endpoint'],
  ] as const) {
    await source.execute('migrate-set-parameters', { 'tls-creds': creds });
    await source.execute('migrate', { uri: `unix:${join(folder, 'none.sock')}` });
    t.match(await end(source), { status: 'failed', 'error-desc': why });
  }
  // The one of docs/how-to/tls.md.
  for (const { language, text } of samplesOf('how-to/tls.md')) {
    if (language !== 'json') continue;
    const { execute, arguments: given } = JSON.parse(text) as { readonly execute: string; readonly arguments: object };
    t.same(await source.execute(execute, given), { return: {} });
    t.match(await source.execute('query-migrate-parameters'), { return: given });
  }
  await source.execute('migrate-set-parameters', { 'tls-creds': null });
  t.match(await source.execute('query-migrate-parameters'), { return: { 'tls-creds': '' } });
  await source.stop();
});
