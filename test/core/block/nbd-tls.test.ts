/** NBD over TLS (NBD_OPT_STARTTLS), both ways with QEMU's tools. */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { IoVector } from '../../../core/block/io-vector.ts';
import { BlockOptions } from '../../../core/block/options.ts';
import type { JsonObject } from '../../../core/control/json/value.ts';
import { X509Credentials } from '../../../core/tls/credentials.ts';
import { tlsClient } from '../../../core/tls/session.ts';
import { RunningProgram } from '../control/program.ts';
import {
  authority,
  clientIdentity,
  commonName,
  credentialsFolder,
  diffieHellman,
  folder,
  type Identity,
  type Name,
} from '../tls/pki.ts';
import { noQemuImg, quietGraph } from './images.ts';

const noQemuNbd =
  spawnSync('qemu-nbd', ['--version']).status === 0 ? false : 'qemu-nbd is not installed (Debian: qemu-utils)';
const root = t.testdir({});
const ca = authority();
/** A name with all that has to be written in its own way: GnuTLS and this program have to agree on it. */
const SUBJECT: Name = [
  [['2.5.4.6', 'GB']],
  [['2.5.4.10', 'Ball & "Chain"; <Sons>']],
  [
    ['2.5.4.11', ' edge '],
    ['0.9.2342.19200300.100.1.1', 'u+1'],
  ],
  [['1.2.840.113549.1.9.1', 'a@example.org']],
  [['2.5.4.3', '#1é']],
];
const IDENTITY = 'C=GB,O=Ball & \\"Chain\\"\\; \\<Sons\\>,OU=\\ edge\\ +UID=u\\+1,EMAIL=a@example.org,CN=\\#1é';
const client = clientIdentity(ca, { subject: SUBJECT });
const dir = credentialsFolder(join(root, 'pki'), ca, client);
const psk = folder(join(root, 'psk'), {
  'keys.psk': 'qemu:00112233445566778899aabbccddeeff\n',
  'dh-params.pem': diffieHellman(),
});
const x509 = (endpoint: string, from = dir): string => `tls-creds-x509,id=tls0,dir=${from},endpoint=${endpoint}`;

t.setTimeout(120_000);

const image = join(root, 'image');
writeFileSync(image, Buffer.alloc(1 << 20, 7));

async function start(t: Test, ...args: readonly string[]): Promise<RunningProgram> {
  const program = await RunningProgram.start('-M', 'none', ...args);
  t.teardown(() => program.stop('SIGKILL'));
  await program.execute('qmp_capabilities');
  return program;
}

const failure = (reply: object): string => ('error' in reply ? (reply.error as { desc: string }).desc : '');

/** Serves the image from the program; returns where. */
async function serve(program: RunningProgram, name: string, tls: object): Promise<string> {
  const path = join(root, `${name}.sock`);
  await program.execute('blockdev-add', { driver: 'file', filename: image, 'node-name': 'disk' });
  t.equal(failure(await program.execute('nbd-server-start', { addr: { type: 'unix', data: { path } }, ...tls })), '');
  t.equal(
    failure(await program.execute('block-export-add', { type: 'nbd', id: 'e', 'node-name': 'disk', writable: true })),
    '',
  );
  return path;
}

function qemuIo(object: string, image: string): { readonly status: number | null; readonly text: string } {
  const run = spawnSync(
    'qemu-io',
    ['--object', object, '-c', 'read -P 7 64k 64k', '-c', 'write -P 9 256k 4k', '--image-opts', image],
    { encoding: 'utf8', timeout: 60_000 },
  );
  return { status: run.status, text: run.stdout + run.stderr };
}

const attach = (path: string, ...more: readonly string[]): string =>
  ['driver=nbd', 'server.type=unix', `server.path=${path}`, 'export=disk', 'tls-creds=tls0', ...more].join(',');

t.test("QEMU's tools attach to our server", { skip: noQemuImg }, async t => {
  const program = await start(
    t,
    '-object',
    x509('server'),
    '-object',
    `authz-simple,id=who,identity=${IDENTITY.replaceAll(',', ',,')}`,
  );
  const path = await serve(program, 'ours', { 'tls-creds': 'tls0', 'tls-authz': 'who' });
  const good = qemuIo(x509('client'), attach(path, 'tls-hostname=localhost'));
  t.equal(good.status, 0, good.text);
  t.match(good.text, /read 65536\/65536[\s\S]*wrote 4096\/4096/);
  t.notMatch(good.text, /failed/i);
  const elsewhere = qemuIo(x509('client'), attach(path, 'tls-hostname=example.org'));
  t.match(elsewhere.text, /Certificate does not match the hostname example\.org/);
  const others = (name: string, identity: Identity | undefined, from = ca): string =>
    credentialsFolder(join(root, name), from, identity);
  const stranger = others('stranger', clientIdentity(ca, { subject: commonName('stranger') }));
  t.equal(qemuIo(x509('client', stranger), attach(path, 'tls-hostname=localhost')).status, 1, 'the name decides');
  const foreign = authority('elsewhere');
  const alien = folder(others('alien', clientIdentity(foreign, { subject: SUBJECT }), foreign), {});
  t.equal(qemuIo(`${x509('client', alien)},verify-peer=off`, attach(path)).status, 1, 'and so does the authority');
  const plain = spawnSync('qemu-img', ['info', `nbd+unix:///disk?socket=${path}`], { encoding: 'utf8' });
  t.match(plain.stderr, /TLS negotiation required before option/);
  const list = spawnSync(
    'qemu-nbd',
    ['--object', x509('client'), '--tls-creds', 'tls0', '--tls-hostname', 'localhost', '-L', '-k', path],
    { encoding: 'utf8' },
  );
  t.match(list.stdout, /export: 'disk'/);
});

t.test('keys that both sides know', { skip: noQemuImg }, async t => {
  const program = await start(t, '-object', `tls-creds-psk,id=tls0,dir=${psk},endpoint=server`);
  const path = await serve(program, 'psk', { 'tls-creds': 'tls0' });
  const good = qemuIo(`tls-creds-psk,id=tls0,dir=${psk},endpoint=client`, attach(path));
  t.equal(good.status, 0, good.text);
  t.match(good.text, /read 65536\/65536/);
});

/** Runs qemu-nbd; returns where it serves. */
async function qemuNbd(t: Test, name: string, ...args: readonly string[]): Promise<string> {
  const path = join(root, `${name}.sock`);
  const child = spawn('qemu-nbd', ['-k', path, '-f', 'raw', '-x', 'disk', '-t', '-e', '4', ...args, image], {
    stdio: 'ignore',
  });
  t.teardown(() => child.kill('SIGKILL'));
  while (!existsSync(path) && child.exitCode === null) await new Promise(resolve => setTimeout(resolve, 20));
  return path;
}

const node = (path: string, more: JsonObject): JsonObject => ({
  driver: 'nbd',
  'node-name': 'far',
  server: { type: 'unix', path },
  export: 'disk',
  ...more,
});

t.test("we attach to QEMU's server", { skip: noQemuNbd }, async t => {
  const served = await qemuNbd(
    t,
    'theirs',
    ...[
      '--object',
      x509('server'),
      '--tls-creds',
      'tls0',
      '--object',
      `authz-simple,id=who,identity=${IDENTITY.replaceAll(',', ',,')}`,
    ],
    ...['--tls-authz', 'who'],
  );
  const program = await start(t, '-object', x509('client'));
  const add = async (more: JsonObject): Promise<string> =>
    failure(await program.execute('blockdev-add', node(served, more)));
  t.match(await add({}), /^TLS negotiation required before option 7 \(go\)$/);
  t.equal(await add({ 'tls-creds': 'none' }), "No TLS credentials with id 'none'");
  t.equal(await add({ 'tls-creds': 'tls0' }), 'No hostname for certificate validation');
  t.equal(
    await add({ 'tls-creds': 'tls0', 'tls-hostname': 'example.org' }),
    'Certificate does not match the hostname example.org',
  );
  t.equal(await add({ 'tls-creds': 'tls0', 'tls-hostname': 'localhost' }), '');
  await program.execute('human-monitor-command', { 'command-line': 'qemu-io far "write -P 5 512k 128k"' });
  t.same(readFileSync(image).subarray(512 << 10, 640 << 10), Buffer.alloc(128 << 10, 5));
  t.same(await program.execute('blockdev-del', { 'node-name': 'far' }), { return: {} });
});

t.test('many requests at a time', { skip: noQemuNbd }, async t => {
  const served = await qemuNbd(t, 'busy', '--object', x509('server'), '--tls-creds', 'tls0');
  const { graph } = quietGraph();
  const creds = new X509Credentials({
    dir,
    endpoint: 'client',
    verifyPeer: true,
    priority: undefined,
    sanityCheck: true,
  });
  graph.tlsClient = async (_id, hostname) => stream => tlsClient(stream, creds, hostname);
  const far = await graph.add(
    BlockOptions.fromJson(node(served, { 'tls-creds': 'tls0', 'tls-hostname': 'localhost' })),
  );
  const pieces = Array.from({ length: 32 }, (_, index) => Buffer.alloc(32 << 10, index + 1));
  await Promise.all(pieces.map((piece, index) => far.writev(index << 15, 32 << 10, IoVector.of(piece))));
  const read = pieces.map(() => Buffer.alloc(32 << 10));
  await Promise.all(read.map((piece, index) => far.readv(index << 15, 32 << 10, IoVector.of(piece))));
  t.same(read, pieces);
  await graph.close();
});

t.test("keys that QEMU's server knows", { skip: noQemuNbd }, async t => {
  const object = `tls-creds-psk,id=tls0,dir=${psk},endpoint=server`;
  const served = await qemuNbd(t, 'their-psk', '--object', object, '--tls-creds', 'tls0');
  const program = await start(t, '-object', `tls-creds-psk,id=tls0,dir=${psk},endpoint=client`);
  t.equal(failure(await program.execute('blockdev-add', node(served, { 'tls-creds': 'tls0' }))), '');
});

t.test('a server that does not speak TLS', { skip: noQemuNbd }, async t => {
  const served = await qemuNbd(t, 'plain');
  const program = await start(t, '-object', x509('client'));
  const reply = await program.execute(
    'blockdev-add',
    node(served, { 'tls-creds': 'tls0', 'tls-hostname': 'localhost' }),
  );
  t.equal(failure(reply), 'Denied by server for option 5 (starttls)');
});

t.test('-drive, and a program that serves another', async t => {
  const server = await start(t, '-object', x509('server'));
  const path = await serve(server, 'chain', { 'tls-creds': 'tls0' });
  t.equal(
    failure(
      await server.execute('nbd-server-start', {
        addr: { type: 'unix', data: { path: `${path}2` } },
        'tls-creds': 'x',
      }),
    ),
    'NBD server already running',
  );
  const other = await start(
    t,
    ...['-object', x509('client'), '-drive', `if=none,id=d,read-only=on,${attach(path, 'tls-hostname=localhost')}`],
  );
  const blocks = await other.execute('query-block');
  t.match(blocks['return'], [{ device: 'd', inserted: { ro: true, drv: 'nbd', image: { 'virtual-size': 1 << 20 } } }]);
});

/** A client that speaks the protocol by hand. */
async function raw(t: Test, path: string): Promise<{ socket: Socket; read(bytes: number): Promise<Buffer> }> {
  const socket = connect(path).on('error', () => undefined);
  t.teardown(() => socket.destroy());
  await once(socket, 'connect');
  const read = async (bytes: number): Promise<Buffer> => {
    for (;;) {
      const data: Buffer | null = socket.read(bytes);
      if (data !== null || socket.readableEnded) return data ?? Buffer.alloc(0);
      await Promise.race([once(socket, 'readable'), once(socket, 'end')]);
    }
  };
  await read(18);
  socket.write(Buffer.from([0, 0, 0, 3]));
  return { socket, read };
}

const request = (code: number, data = Buffer.alloc(0)): Buffer => {
  const header = Buffer.from('IHAVEOPT\0\0\0\0\0\0\0\0', 'latin1');
  header.writeUInt32BE(code, 8);
  header.writeUInt32BE(data.length, 12);
  return Buffer.concat([header, data]);
};

t.test('before TLS nothing else is answered, and nothing is smuggled in', async t => {
  const program = await start(t, '-object', x509('server'));
  const path = await serve(program, 'raw', { 'tls-creds': 'tls0' });
  const polite = await raw(t, path);
  polite.socket.write(request(3));
  const refused = await polite.read(20);
  t.equal(refused.readUInt32BE(12), 0x8000_0005, 'NBD_REP_ERR_TLS_REQD');
  await polite.read(refused.readUInt32BE(16));
  polite.socket.write(request(1, Buffer.from('disk')));
  t.equal((await polite.read(1)).length, 0, 'EXPORT_NAME ends the connection');
  const smuggler = await raw(t, path);
  smuggler.socket.write(Buffer.concat([request(5), request(3)]));
  t.equal((await smuggler.read(20)).readUInt32BE(12), 1, 'NBD_REP_ACK');
  t.equal((await smuggler.read(1)).length, 0, 'what came in the clear behind it ends the connection');
  const wordy = await raw(t, path);
  wordy.socket.write(request(5, Buffer.from('x')));
  t.equal((await wordy.read(1)).length, 0, 'so does a request with data');
});
