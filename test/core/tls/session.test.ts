/** Sessions between the two sides: who is let through, who is not, and why. */
import { createServer, connect as dial, type Socket } from 'node:net';
import { join } from 'node:path';
import { Duplex } from 'node:stream';
import { connect, type TLSSocket } from 'node:tls';
import t from 'tap';
import { type Authorizer, onlyFor } from '../../../core/tls/authorization.ts';
import {
  AnonymousCredentials,
  PskCredentials,
  type TlsCredentials,
  type TlsEndpoint,
  X509Credentials,
} from '../../../core/tls/credentials.ts';
import { peerName, tlsClient, tlsServer } from '../../../core/tls/session.ts';
import { authority, clientIdentity, commonName, credentialsFolder, folder, serverIdentity } from './pki.ts';

const root = t.testdir({});

interface Given {
  readonly verifyPeer?: boolean;
  readonly priority?: string;
}

const x509 = (dir: string, endpoint: TlsEndpoint, { verifyPeer = true, priority }: Given = {}): X509Credentials =>
  new X509Credentials({ dir, endpoint, verifyPeer, priority, sanityCheck: true });

interface Meeting {
  readonly client: Promise<TLSSocket>;
  readonly server: Promise<TLSSocket>;
}

/** Two sockets that are connected to each other. */
async function sockets(): Promise<[Socket, Socket]> {
  const listener = createServer();
  const accepted = new Promise<Socket>(resolve => listener.once('connection', resolve));
  await new Promise<void>(resolve => listener.listen(0, '127.0.0.1', resolve));
  const address = listener.address();
  const near = dial(typeof address === 'object' && address !== null ? address.port : 0, '127.0.0.1');
  const far = await accepted;
  listener.close();
  return [near, far];
}

async function meet(
  client: TlsCredentials,
  server: TlsCredentials,
  { hostname = 'localhost', authz }: { readonly hostname?: string | undefined; readonly authz?: Authorizer } = {},
): Promise<Meeting> {
  const [near, far] = await sockets();
  const meeting = { client: tlsClient(near, client, hostname), server: tlsServer(far, server, authz) };
  // Whoever is not asked for its reason must not end the test.
  for (const side of Object.values(meeting)) side.catch(() => undefined);
  return meeting;
}

async function talk({ client, server }: Meeting): Promise<string> {
  const [near, far] = await Promise.all([client, server]);
  far.on('data', data => far.write(`heard ${data}`));
  const heard = new Promise<string>(resolve => near.once('data', data => resolve(String(data))));
  near.write('hello');
  const text = await heard;
  near.destroy();
  far.destroy();
  return text;
}

async function reason(side: Promise<TLSSocket>): Promise<string> {
  try {
    const session = await side;
    session.on('error', () => undefined).destroy();
    return '';
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

const ca = authority();
const dir = credentialsFolder(join(root, 'pki'), ca);
const stranger = credentialsFolder(join(root, 'stranger'), authority());
const bare = folder(join(root, 'bare'), { 'ca-cert.pem': ca.pem });

t.test('with certificates on both sides', async t => {
  const meeting = await meet(x509(dir, 'client'), x509(dir, 'server'));
  t.equal(peerName(await meeting.server), 'CN=client');
  t.equal(peerName(await meeting.client), 'CN=localhost');
  t.equal((await meeting.client).getProtocol(), 'TLSv1.3');
  t.equal(await talk(meeting), 'heard hello');
});

t.test('by the address of the server', async t => {
  t.equal(await talk(await meet(x509(dir, 'client'), x509(dir, 'server'), { hostname: '127.0.0.1' })), 'heard hello');
});

t.test('with a version that the priority leaves', async t => {
  const meeting = await meet(x509(dir, 'client', { priority: 'NORMAL:-VERS-TLS1.3' }), x509(dir, 'server'));
  t.equal((await meeting.client).getProtocol(), 'TLSv1.2');
  t.equal(await talk(meeting), 'heard hello');
});

t.test('the server has to be who the client means', async t => {
  const elsewhere = await meet(x509(dir, 'client'), x509(dir, 'server'), { hostname: 'example.org' });
  t.equal(await reason(elsewhere.client), 'Certificate does not match the hostname example.org');
  await reason(elsewhere.server);
  const nobody = await meet(x509(dir, 'client'), x509(dir, 'server'), { hostname: undefined });
  t.equal(await reason(nobody.client), '', 'the default of the test');
  const [near, far] = await sockets();
  const unnamed = { client: tlsClient(near, x509(dir, 'client')), server: tlsServer(far, x509(dir, 'server')) };
  t.equal(await reason(unnamed.client), 'No hostname for certificate validation');
  await reason(unnamed.server);
  const unchecked = await meet(x509(dir, 'client', { verifyPeer: false }), x509(dir, 'server'), {
    hostname: 'example.org',
  });
  t.equal(await talk(unchecked), 'heard hello', 'unless it does not verify');
});

t.test('strangers are told so', async t => {
  const client = await meet(x509(stranger, 'client', { verifyPeer: false }), x509(dir, 'server'));
  t.match(await reason(client.server), /^The certificate (?:hasn't got a known issuer|is not trusted)$/);
  const server = await meet(x509(dir, 'client'), x509(stranger, 'server', { verifyPeer: false }));
  t.match(await reason(server.client), /^The certificate (?:hasn't got a known issuer|is not trusted)$/);
  const other = credentialsFolder(join(root, 'other'), authority('other CA'));
  const unknown = await meet(x509(dir, 'client'), x509(other, 'server', { verifyPeer: false }));
  t.equal(await reason(unknown.client), "The certificate hasn't got a known issuer");
});

t.test('a client without a certificate', async t => {
  const refused = await meet(x509(bare, 'client'), x509(dir, 'server'));
  t.equal(await reason(refused.server), 'Verify failed: No certificate was found.');
  const taken = await meet(x509(bare, 'client'), x509(dir, 'server', { verifyPeer: false }));
  t.equal(await talk(taken), 'heard hello', 'is let in where nobody verifies');
});

t.test('a certificate that has been revoked', async t => {
  const server = serverIdentity(ca);
  const gone = clientIdentity(ca, { subject: commonName('gone') });
  const strict = folder(join(root, 'strict'), {
    'ca-cert.pem': ca.pem,
    'ca-crl.pem': ca.revoke(gone),
    'server-cert.pem': server.pem,
    'server-key.pem': server.keyPem,
  });
  const former = folder(join(root, 'former'), {
    'ca-cert.pem': ca.pem,
    'client-cert.pem': gone.pem,
    'client-key.pem': gone.keyPem,
  });
  const refused = await meet(x509(former, 'client'), x509(strict, 'server'));
  t.equal(await reason(refused.server), 'The certificate has been revoked');
  t.equal(await talk(await meet(x509(dir, 'client'), x509(strict, 'server'))), 'heard hello', 'others come in');
});

t.test('authorization looks at the name', async t => {
  const allowed = await meet(x509(dir, 'client'), x509(dir, 'server'), { authz: onlyFor('CN=client') });
  t.equal(await talk(allowed), 'heard hello');
  const denied = await meet(x509(dir, 'client'), x509(dir, 'server'), { authz: onlyFor('CN=other') });
  t.equal(await reason(denied.server), 'TLS x509 authz check for CN=client is denied');
});

t.test('with keys that both sides know', async t => {
  const keys = folder(join(root, 'keys'), { 'keys.psk': 'alice:00112233445566778899aabbccddeeff\n' });
  const others = folder(join(root, 'others'), { 'keys.psk': 'alice:ffeeddccbbaa99887766554433221100\n' });
  const psk = (folder: string, endpoint: TlsEndpoint, username?: string): PskCredentials =>
    new PskCredentials({ dir: folder, endpoint, verifyPeer: true, priority: undefined, username });
  t.equal(await talk(await meet(psk(keys, 'client', 'alice'), psk(keys, 'server'))), 'heard hello');
  const wrong = await meet(psk(others, 'client', 'alice'), psk(keys, 'server'));
  t.match(await reason(wrong.server), /^TLS handshake failed: /);
  t.match(await reason(wrong.client), /^TLS handshake failed: /);
  const unlike = await meet(x509(dir, 'client'), psk(keys, 'server'));
  t.match(await reason(unlike.client), /^TLS handshake failed: /);
});

t.test('with nobody known', async t => {
  const anonymous = (endpoint: TlsEndpoint): AnonymousCredentials =>
    new AnonymousCredentials({ dir: undefined, endpoint, verifyPeer: true, priority: undefined });
  const meeting = await meet(anonymous('client'), anonymous('server'));
  t.equal(peerName(await meeting.client), undefined);
  t.equal(await talk(meeting), 'heard hello');
});

t.test('over any stream', async t => {
  const pair = (): [Duplex, Duplex] => {
    const make = (): Duplex & { other?: Duplex } =>
      new Duplex({
        read() {},
        write(this: Duplex & { other?: Duplex }, chunk, _encoding, done) {
          this.other?.push(chunk);
          done();
        },
        final(this: Duplex & { other?: Duplex }, done) {
          this.other?.push(null);
          done();
        },
      });
    const [near, far] = [make(), make()];
    near.other = far;
    far.other = near;
    return [near, far];
  };
  const [near, far] = pair();
  const meeting = {
    client: tlsClient(near, x509(dir, 'client'), 'localhost'),
    server: tlsServer(far, x509(dir, 'server')),
  };
  t.equal(await talk(meeting), 'heard hello');
});

t.test('the other side is no TLS speaker, or goes away', async t => {
  const [near, far] = await sockets();
  near.write('GET / HTTP/1.0\r\n\r\n');
  near.on('error', () => undefined);
  t.match(await reason(tlsServer(far, x509(dir, 'server'))), /^TLS handshake failed: /);
  t.equal(far.destroyed, true);
  const [left, right] = await sockets();
  const waiting = reason(tlsClient(left, x509(dir, 'client'), 'localhost'));
  right.destroy();
  t.equal(await waiting, 'TLS handshake failed: The TLS connection was non-properly terminated.');
  const [third, fourth] = await sockets();
  const served = reason(tlsServer(fourth, x509(dir, 'server')));
  third.destroy();
  t.equal(await served, 'TLS handshake failed: The TLS connection was non-properly terminated.');
});

/** A client's stream: what it sends goes on in one piece with what is sent meanwhile. */
function gathering(near: Socket): { readonly stream: Duplex; send(bytes: Buffer): void } {
  let pending: Buffer[] = [];
  const send = (bytes: Buffer): void => {
    pending.push(bytes);
    if (pending.length > 1) return;
    setImmediate(() => {
      near.write(Buffer.concat(pending));
      pending = [];
    });
  };
  const stream = new Duplex({
    read() {},
    write(chunk, _encoding, done) {
      send(chunk);
      done();
    },
  });
  near.on('data', data => stream.push(data)).on('error', () => undefined);
  return { stream, send };
}

t.test('what breaks a session as soon as it is there ends it, and nothing else', async t => {
  const client = clientIdentity(ca);
  const nonsense = Buffer.from([0x17, 3, 3, 0, 5, 1, 2, 3, 4, 5]);
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    for (const later of [false, true]) {
      const [near, far] = await sockets();
      const { stream, send } = gathering(near);
      const session = connect({
        socket: stream,
        ca: ca.pem,
        cert: client.pem,
        key: client.keyPem,
        servername: 'localhost',
        maxVersion,
      });
      session.on('error', () => undefined);
      session.once('secureConnect', () => (later ? setImmediate(() => send(nonsense)) : send(nonsense)));
      // Broken at once it is no session; broken later it ends, and says so to whoever has it.
      const outcome = await tlsServer(far, x509(dir, 'server')).then(
        got => new Promise<string>(resolve => got.resume().once('close', () => resolve('closed'))),
        (error: unknown) => String(error),
      );
      t.match(outcome, /^closed$|TLS handshake failed: /, `${maxVersion}${later ? ', later' : ''}`);
      t.equal(far.destroyed, true);
      near.destroy();
    }
  }
});

t.test('credentials are for one side', async t => {
  const [near, far] = await sockets();
  t.equal(await reason(tlsClient(near, x509(dir, 'server'))), "Credentials endpoint doesn't match session");
  t.equal(await reason(tlsServer(far, x509(dir, 'client'))), "Credentials endpoint doesn't match session");
});
