/** `-vnc tls-creds=`: VeNCrypt as a client of our own goes through it, here and with Debian's QEMU. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import t, { type Test } from 'tap';
import { answerOf } from '../../../core/display/vnc/authentication.ts';
import { Lines, RunningProgram } from '../control/program.ts';
import { authority, clientIdentity, credentialsFolder, diffieHellman, folder, serverIdentity } from '../tls/pki.ts';

const HAS_QEMU = spawnSync('qemu-system-x86_64', ['--version']).status === 0;
const PASSWORD = 'hunter2';
const root = t.testdir({});
const ca = authority();
const client = clientIdentity(ca);
const dir = credentialsFolder(join(root, 'pki'), ca, client);
const anonymous = folder(join(root, 'anonymous'), { 'dh-params.pem': diffieHellman() });

t.setTimeout(120_000);

type Reply = Readonly<Record<string, unknown>>;

/** A program with a VNC server, ours or QEMU's, and its monitor. */
interface Target {
  readonly port: number;
  execute(name: string, args?: object): Promise<Reply>;
}

const OBJECTS: Readonly<Record<'x509' | 'anon', string>> = {
  x509: `tls-creds-x509,id=tls0,dir=${dir},endpoint=server`,
  anon: `tls-creds-anon,id=tls0,dir=${anonymous},endpoint=server`,
};

const vnc = (more: string): string => `127.0.0.1:100,to=900,tls-creds=tls0${more}`;

async function target(execute: Target['execute']): Promise<Target> {
  const { service } = (await execute('query-vnc'))['return'] as { service: string };
  return { port: Number(service), execute };
}

async function ours(t: Test, object: string, more: string): Promise<Target> {
  const program = await RunningProgram.start('-M', 'none', '-object', object, '-vnc', vnc(more));
  t.teardown(() => program.stop('SIGKILL'));
  await program.execute('qmp_capabilities');
  return target((name, args) => program.execute(name, args));
}

async function theirs(t: Test, name: string, object: string, more: string): Promise<Target> {
  const path = join(root, name);
  const args = ['-M', 'none', '-S', '-nodefaults', '-object', object, '-vnc', vnc(more)];
  const child = spawn('qemu-system-x86_64', [...args, '-qmp', `unix:${path},server=on,wait=off`], { stdio: 'ignore' });
  t.teardown(() => child.kill('SIGKILL'));
  while (!existsSync(path) && child.exitCode === null) await new Promise(resolve => setTimeout(resolve, 20));
  const lines = new Lines(connect(path));
  await lines.next();
  const execute = async (command: string, given?: object): Promise<Reply> => {
    lines.send(`${JSON.stringify({ execute: command, ...(given && { arguments: given }) })}\n`);
    for (;;) {
      const message: Reply = JSON.parse(await lines.next());
      if (!('event' in message)) return message;
    }
  };
  await execute('qmp_capabilities');
  return target(execute);
}

/** The next bytes; fewer where the server has hung up. */
async function take(stream: Duplex, bytes: number): Promise<Buffer> {
  for (;;) {
    const data: Buffer | null = stream.read(bytes) ?? (stream.readableEnded ? Buffer.alloc(0) : null);
    if (data !== null) return data;
    if (stream.destroyed) return Buffer.alloc(0);
    await Promise.race(['readable', 'end', 'close'].map(event => once(stream, event)));
  }
}

interface Attempt {
  readonly identity?: { readonly pem: string; readonly keyPem: string } | undefined;
  readonly password?: string;
  /** In place of the one that the server offers. */
  readonly subtype?: number;
}

/** What a server answered, up to where it let the client in or hung up. */
interface Outcome {
  readonly types: readonly number[];
  readonly subtypes: readonly number[];
  accepted: number | undefined;
  result: number | undefined;
  width: number | undefined;
  session: TLSSocket | undefined;
}

async function enter(t: Test, { port }: Target, attempt: Attempt): Promise<Outcome> {
  const socket: Socket = connect(port, '127.0.0.1').on('error', () => undefined);
  t.teardown(() => socket.destroy());
  await take(socket, 12);
  socket.write('RFB 003.008\n');
  const types = [...(await take(socket, (await take(socket, 1))[0] ?? 0))];
  socket.write(Buffer.from([19]));
  await take(socket, 2);
  socket.write(Buffer.from([0, 2]));
  await take(socket, 1);
  const count = (await take(socket, 1))[0] ?? 0;
  const subtypes: number[] = [];
  for (let index = 0; index < count; index++) subtypes.push((await take(socket, 4)).readUInt32BE());
  const chosen = Buffer.alloc(4);
  chosen.writeUInt32BE(attempt.subtype ?? subtypes[0] ?? 0);
  socket.write(chosen);
  const outcome: Outcome = {
    types,
    subtypes,
    accepted: (await take(socket, 1))[0],
    result: undefined,
    width: undefined,
    session: undefined,
  };
  if (outcome.accepted !== 1) return outcome;
  const known = (subtypes[0] ?? 0) >= 260;
  const { identity } = attempt;
  const session = connectTls({
    socket,
    ...(known
      ? { ca: ca.pem, servername: 'localhost', ...(identity && { cert: identity.pem, key: identity.keyPem }) }
      : { ciphers: 'ADH:@SECLEVEL=0', maxVersion: 'TLSv1.2' as const, rejectUnauthorized: false }),
  }).on('error', () => undefined);
  t.teardown(() => session.destroy());
  if (subtypes[0] === 258 || subtypes[0] === 261) {
    const challenge = await take(session, 16);
    if (challenge.length < 16) return outcome;
    session.write(answerOf(challenge, attempt.password ?? ''));
  }
  const result = await take(session, 4);
  if (result.length < 4) return outcome;
  outcome.result = result.readUInt32BE();
  if (outcome.result !== 0) return outcome;
  session.write(Buffer.from([1]));
  outcome.width = (await take(session, 24)).readUInt16BE();
  outcome.session = session;
  return outcome;
}

/** What both have to say alike. */
async function story(t: Test, server: Target, password: boolean, known: boolean): Promise<Reply> {
  if (password) await server.execute('set_password', { protocol: 'vnc', password: PASSWORD });
  const brief = ({ types, subtypes, accepted, result, width }: Outcome) => ({
    types,
    subtypes,
    accepted,
    result,
    width: width === undefined ? undefined : width > 0,
  });
  const good = await enter(t, server, { identity: client, password: PASSWORD });
  const listed = await server.execute('query-vnc-servers');
  const [display] = listed['return'] as { auth: string; vencrypt: string; server: object[]; clients: object[] }[];
  good.session?.destroy();
  return {
    good: brief(good),
    auth: ((await server.execute('query-vnc'))['return'] as { auth: string }).auth,
    primary: display?.auth,
    vencrypt: display?.vencrypt,
    server: display?.server.map(one => ({ ...one, service: '' })),
    clients: display?.clients.map(one => ({ ...one, service: '' })),
    other: brief(await enter(t, server, { identity: client, password: PASSWORD, subtype: 259 })),
    ...(password && { wrong: brief(await enter(t, server, { identity: client, password: 'wrong' })) }),
    ...(known && { nameless: brief(await enter(t, server, { password: PASSWORD })) }),
    reload: (await server.execute('display-reload', { type: 'vnc', 'tls-certs': true }))['error'],
  };
}

for (const [kind, object] of Object.entries(OBJECTS)) {
  for (const password of [false, true]) {
    const within = password ? 'vnc' : 'none';
    t.test(`${kind}, ${within}`, async t => {
      const more = password ? ',password=on' : '';
      const told = await story(t, await ours(t, object, more), password, kind === 'x509');
      const name = kind === 'x509' ? 'x509' : 'tls';
      t.match(told, {
        good: { types: [19], accepted: 1, result: 0, width: true },
        auth: `vencrypt+${name}+${within}`,
        primary: 'vencrypt',
        vencrypt: `${name}-${within}`,
        clients: [kind === 'x509' ? { x509_dname: 'CN=client' } : {}],
        other: { accepted: 0, result: undefined },
      });
      if (password) t.match(told, { wrong: { accepted: 1, result: 1 } });
      if (kind === 'x509') t.match(told, { nameless: { accepted: 1, result: undefined } });
      if (!HAS_QEMU) t.comment('there is no qemu-system-x86_64 to compare with');
      else t.same(told, await story(t, await theirs(t, `${name}-${within}`, object, more), password, kind === 'x509'));
    });
  }
}

t.test('authorization, new certificates, and an old version', async t => {
  const program = await RunningProgram.start(
    ...['-M', 'none', '-object', OBJECTS.x509, '-object', 'authz-simple,id=who,identity=CN=other'],
    ...['-vnc', vnc(',tls-authz=who')],
  );
  t.teardown(() => program.stop('SIGKILL'));
  await program.execute('qmp_capabilities');
  const server = await target((name, args) => program.execute(name, args));
  t.match(await enter(t, server, { identity: client }), { accepted: 1, result: undefined }, 'another name may come in');
  await program.execute('object-del', { id: 'who' });
  await program.execute('object-add', { 'qom-type': 'authz-simple', id: 'who', identity: 'CN=client' });
  const before = await enter(t, server, { identity: client });
  t.equal(before.result, 0, 'who decides can be changed');
  const fresh = serverIdentity(ca);
  folder(dir, { 'server-cert.pem': fresh.pem, 'server-key.pem': fresh.keyPem });
  t.same(await program.execute('display-reload', { type: 'vnc', 'tls-certs': true }), { return: {} });
  const after = await enter(t, server, { identity: client });
  const serial = (session: TLSSocket | undefined): string => session?.getPeerCertificate().serialNumber ?? '';
  t.equal(serial(after.session).toLowerCase(), fresh.serial.toString('hex').toLowerCase());
  t.not(serial(before.session), serial(after.session));
  t.match(
    (await program.execute('human-monitor-command', { 'command-line': 'info vnc' }))['return'],
    /Auth: vencrypt \(Sub: x509-none\)[\s\S]*x509_dname: CN=client/,
  );
  t.match(program.events, [{ event: 'VNC_CONNECTED', data: { server: { auth: 'vencrypt+x509+none' } } }]);
  const old = connect(server.port, '127.0.0.1');
  await take(old, 12);
  old.write('RFB 003.003\n');
  t.equal((await take(old, 4)).readUInt32BE(), 0, 'version 3.3 has no such type');
  t.equal((await take(old, 1)).length, 0);
});

t.test('a websocket has TLS beneath it', async t => {
  const program = await RunningProgram.start(
    ...['-M', 'none', '-object', OBJECTS.x509, '-vnc', '127.0.0.1:100,to=900,websocket=on,tls-creds=tls0'],
  );
  t.teardown(() => program.stop('SIGKILL'));
  await program.execute('qmp_capabilities');
  const listed = await program.execute('query-vnc-servers');
  const [display] = listed['return'] as { server: { websocket: boolean; service: string; auth: string }[] }[];
  const place = display?.server.find(({ websocket }) => websocket);
  t.equal(place?.auth, 'none');
  const session = connectTls({
    port: Number(place?.service),
    host: '127.0.0.1',
    ca: ca.pem,
    cert: client.pem,
    key: client.keyPem,
  });
  session.on('error', () => undefined);
  session.write(
    [
      'GET / HTTP/1.1',
      'Host: localhost',
      'Upgrade: websocket',
      'Connection: Upgrade',
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
      'Sec-WebSocket-Version: 13',
      'Sec-WebSocket-Protocol: binary',
      '',
      '',
    ].join('\r\n'),
  );
  let text = '';
  for (let tries = 0; !text.includes('RFB 003.008') && tries < 10; tries++)
    text += String((await once(session, 'data'))[0]);
  t.match(text, /^HTTP\/1\.1 101[\s\S]*RFB 003\.008\n/);
  session.destroy();
});

t.test('what cannot be taken', async t => {
  const PROGRAM = new URL('../../../southbridge.js', import.meta.url).pathname;
  const complaint = (object: string, display: string): string =>
    spawnSync(
      process.execPath,
      [PROGRAM, '-M', 'none', '-accel', 'qtest', '-display', 'none', '-object', object, '-vnc', display],
      { encoding: 'utf8', timeout: 60_000 },
    ).stderr;
  const psk = folder(join(root, 'psk'), { 'keys.psk': 'qemu:00\n' });
  t.match(
    complaint(`tls-creds-psk,id=tls0,dir=${psk},endpoint=server`, vnc('')),
    /Unsupported TLS cred type tls-creds-psk/,
  );
  t.match(complaint('tls-creds-anon,id=tls1', vnc('')), /No TLS credentials with id 'tls0'/);
  t.match(complaint('tls-creds-anon,id=tls0', vnc('')), /Expected TLS credentials for a server endpoint/);
  t.match(
    complaint('tls-creds-anon,id=tls0', '127.0.0.1:100,tls-authz=x'),
    /'tls-authz' provided but TLS is not enabled/,
  );
});
