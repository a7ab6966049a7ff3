/** `-chardev socket,tls-creds=`: both sides of it against clients and servers that are not ours. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, createServer as listen } from 'node:net';
import { join } from 'node:path';
import { connect, createServer, type TLSSocket } from 'node:tls';
import t, { type Test } from 'tap';
import {
  authority,
  clientIdentity,
  commonName,
  credentialsFolder,
  diffieHellman,
  folder,
  serverIdentity,
} from '../tls/pki.ts';
import { RunningProgram } from './program.ts';

const HAS_QEMU = spawnSync('qemu-system-x86_64', ['--version']).status === 0;
const root = t.testdir({});
const ca = authority();
const client = clientIdentity(ca);
const dir = credentialsFolder(join(root, 'pki'), ca, client);
const creds = (endpoint: string): string[] => ['-object', `tls-creds-x509,id=tls0,dir=${dir},endpoint=${endpoint}`];

t.setTimeout(180_000);

async function portOf(program: RunningProgram, label: string): Promise<number> {
  const reply = await program.execute('query-chardev');
  const found = (reply['return'] as { label: string; filename: string }[]).find(one => one.label === label);
  return Number(/:(\d+),server=on/.exec(found?.filename ?? '')?.[1]);
}

async function filenameOf(program: RunningProgram, label: string): Promise<string> {
  const reply = await program.execute('query-chardev');
  return (reply['return'] as { label: string; filename: string }[]).find(one => one.label === label)?.filename ?? '';
}

async function firstLine(session: TLSSocket): Promise<string> {
  const [data] = (await once(session, 'data')) as [Buffer];
  return data.toString();
}

/** What the first serial port has got, byte by byte; of what came before the machine was reset, the first byte is gone. */
async function received(program: RunningProgram, length: number): Promise<string> {
  let text = '';
  for (let tries = 0; text.length < length && tries < 3000; tries++) {
    const status = Number((await program.command('inb 0x3fd')).split(' ')[1]);
    if ((status & 1) === 0) await new Promise(resolve => setTimeout(resolve, 10));
    else text += String.fromCharCode(Number((await program.command('inb 0x3f8')).split(' ')[1]));
  }
  return text;
}

t.test('a monitor as a server: strangers stay outside, and are in nobody’s way', async t => {
  const program = await RunningProgram.start(
    ...['-M', 'none', '-chardev', 'socket,id=m,host=127.0.0.1,port=0,server=on,wait=off,tls-creds=tls0,tls-authz=who'],
    ...[...creds('server'), '-object', 'authz-simple,id=who,identity=CN=client', '-mon', 'chardev=m,mode=control'],
  );
  t.teardown(() => program.stop('SIGKILL'));
  await program.execute('qmp_capabilities');
  const port = await portOf(program, 'm');
  const dial = (identity?: { pem: string; keyPem: string }): TLSSocket =>
    connect({
      port,
      host: '127.0.0.1',
      ca: ca.pem,
      ...(identity !== undefined && { cert: identity.pem, key: identity.keyPem }),
    }).on('error', () => undefined);
  for (const identity of [undefined, clientIdentity(ca, { subject: commonName('other') })]) {
    const refused = dial(identity);
    let heard = '';
    refused.on('data', data => {
      heard += data;
    });
    await once(refused, 'close');
    t.equal(heard, '', 'nothing is said to a stranger');
  }
  const admitted = dial(client);
  t.match(await firstLine(admitted), /^\{"QMP":/);
  t.match(await filenameOf(program, 'm'), /^tcp:127\.0\.0\.1:\d+,server=on <-> 127\.0\.0\.1:\d+$/);
  admitted.write('{"execute":"qmp_capabilities"}\n');
  t.match(await firstLine(admitted), /^\{"return": \{\}\}/);
  admitted.destroy();
  const next = dial(client);
  t.match(await firstLine(next), /^\{"QMP":/, 'the next client is served');
  next.destroy();
});

t.test('a client tries again until the server is who it should be', async t => {
  const make = (identity: { pem: string; keyPem: string }) =>
    createServer({ cert: identity.pem, key: identity.keyPem, ca: ca.pem, requestCert: true });
  const wrong = make(serverIdentity(ca, { hosts: ['example.org'], subject: commonName('example.org') }));
  let met = 0;
  wrong.on('connection', () => met++);
  wrong.on('secureConnection', session => session.on('error', () => undefined).write('lies'));
  wrong.listen(0, '127.0.0.1');
  await once(wrong, 'listening');
  const { port } = wrong.address() as AddressInfo;
  const program = await RunningProgram.start(
    ...['-M', 'pc', '-nodefaults', ...creds('client')],
    ...['-chardev', `socket,id=s,host=127.0.0.1,port=${port},reconnect=1,tls-creds=tls0`, '-serial', 'chardev:s'],
  );
  t.teardown(() => program.stop('SIGKILL'));
  await program.execute('qmp_capabilities');
  for (let tries = 0; met < 2 && tries < 600; tries++) await new Promise(resolve => setTimeout(resolve, 10));
  t.ok(met >= 2, 'it has come back');
  wrong.close();
  const right = make(serverIdentity(ca));
  right.listen(port, '127.0.0.1');
  const [session] = (await once(right, 'secureConnection')) as [TLSSocket];
  right.close();
  t.equal(session.authorized, true, 'the client has shown its certificate');
  session.write('true');
  t.equal(await received(program, 4), 'true');
  await program.command('outb 0x3f8 0x41');
  t.equal(await firstLine(session), 'A');
  session.destroy();
});

t.test('chardev-add, and what is refused', async t => {
  const program = await RunningProgram.start('-M', 'none', ...creds('server'));
  t.teardown(() => program.stop('SIGKILL'));
  await program.execute('qmp_capabilities');
  const inet = { type: 'inet', data: { host: '127.0.0.1', port: '0' } };
  const add = async (data: object): Promise<string> => {
    const reply = await program.execute('chardev-add', { id: 'c', backend: { type: 'socket', data } });
    const said = 'error' in reply ? (reply['error'] as { desc: string }).desc : '';
    return said.replace("Failed to add chardev 'c':", '#');
  };
  t.equal(await add({ addr: inet, 'tls-creds': 'none' }), "# No TLS credentials with id 'none'");
  t.equal(
    await add({ addr: { type: 'inet', data: { host: '127.0.0.1', port: '1' } }, server: false, 'tls-creds': 'tls0' }),
    '# Expected TLS credentials for a client endpoint',
  );
  t.equal(await add({ addr: inet, 'tls-authz': 'a' }), "# 'tls_authz' option requires 'tls_creds' option");
  t.equal(
    await add({ addr: { type: 'unix', data: { path: join(root, 's') } }, 'tls-creds': 'tls0' }),
    "# 'tls_creds' option is incompatible with 'unix' address type",
  );
  await program.execute('object-add', { 'qom-type': 'secret', id: 'sec0', data: 'x' });
  t.equal(await add({ addr: inet, 'tls-creds': 'sec0' }), "# Object with id 'sec0' is not TLS credentials");
  t.equal(await add({ addr: inet, wait: false, 'tls-creds': 'tls0' }), '');
  const session = connect({
    port: await portOf(program, 'c'),
    host: '127.0.0.1',
    ca: ca.pem,
    cert: client.pem,
    key: client.keyPem,
  });
  await once(session, 'secureConnect');
  for (let tries = 0; !(await filenameOf(program, 'c')).startsWith('tcp:') && tries < 500; tries++)
    await new Promise(resolve => setTimeout(resolve, 10));
  t.match(await filenameOf(program, 'c'), /^tcp:/);
  session.destroy();
});

/** Runs Debian's QEMU with a monitor that speaks TLS. */
function qemu(t: Test, ...args: readonly string[]): void {
  const child = spawn(
    'qemu-system-x86_64',
    ['-M', 'none', '-S', '-nodefaults', '-display', 'none', ...args, '-mon', 'chardev=m,mode=control'],
    { stdio: 'ignore' },
  );
  t.teardown(() => child.kill('SIGKILL'));
}

const KINDS: Readonly<Record<string, (endpoint: string) => string>> = {
  x509: endpoint => `tls-creds-x509,id=tls0,dir=${dir},endpoint=${endpoint}`,
  psk: endpoint => `tls-creds-psk,id=tls0,dir=${join(root, 'psk')},endpoint=${endpoint}`,
  anonymous: endpoint => `tls-creds-anon,id=tls0,dir=${join(root, 'psk')},endpoint=${endpoint}`,
};
folder(join(root, 'psk'), { 'keys.psk': 'qemu:00112233445566778899aabbccddeeff\n', 'dh-params.pem': diffieHellman() });

for (const [kind, object] of Object.entries(KINDS)) {
  t.test(`${kind}: QEMU comes to us`, { skip: !HAS_QEMU && 'there is no qemu-system-x86_64' }, async t => {
    const program = await RunningProgram.start(
      ...['-M', 'pc', '-nodefaults', '-object', object('server')],
      ...['-chardev', 'socket,id=s,host=127.0.0.1,port=0,server=on,wait=off,tls-creds=tls0', '-serial', 'chardev:s'],
    );
    t.teardown(() => program.stop('SIGKILL'));
    await program.execute('qmp_capabilities');
    const port = await portOf(program, 's');
    qemu(t, '-object', object('client'), '-chardev', `socket,id=m,host=localhost,port=${port},ipv4=on,tls-creds=tls0`);
    t.match(await received(program, 6), /"QMP"/);
  });

  t.test(`${kind}: we come to QEMU`, { skip: !HAS_QEMU && 'there is no qemu-system-x86_64' }, async t => {
    const probe = listen();
    probe.listen(0, '127.0.0.1');
    await once(probe, 'listening');
    const { port } = probe.address() as AddressInfo;
    probe.close();
    qemu(
      t,
      ...['-object', object('server')],
      ...['-chardev', `socket,id=m,host=127.0.0.1,port=${port},server=on,wait=off,tls-creds=tls0`],
    );
    const program = await RunningProgram.start(
      ...['-M', 'pc', '-nodefaults', '-object', object('client')],
      ...['-chardev', `socket,id=s,host=127.0.0.1,port=${port},reconnect=1,tls-creds=tls0`, '-serial', 'chardev:s'],
    );
    t.teardown(() => program.stop('SIGKILL'));
    t.match(await received(program, 6), /"QMP"/);
  });
}
