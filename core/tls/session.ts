/** TLS over a connection that is there already: as QEMU's sessions, on `node:tls`. Loaded when the first one begins. */
import { X509Certificate } from 'node:crypto';
import { isIP } from 'node:net';
import type { Duplex } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { type ConnectionOptions, connect, createServer, type SecureContextOptions, type TLSSocket } from 'node:tls';
import { SouthbridgeError } from '../errors.ts';
import type { Authorizer } from './authorization.ts';
import { Certificate } from './certificate.ts';
import type { TlsCredentials } from './credentials.ts';
import { parsePriority } from './priority.ts';

/** Key exchanges for pre-shared keys and for nobody in particular; OpenSSL's rules of conduct forbid the latter. */
const PSK_CIPHERS = 'kECDHEPSK:kDHEPSK:kPSK:!eNULL';
const ANONYMOUS_CIPHERS = 'ADH:!eNULL:@SECLEVEL=0';

/** Longer than this a client that says nothing is not waited for. */
const HANDSHAKE_TIMEOUT_MS = 30_000;
/** Nor longer than this for its end of a session that is over. */
const PARTING_MS = 1000;

const fail = (message: string, cause?: unknown): SouthbridgeError =>
  new SouthbridgeError('ERR_TLS', message, undefined, cause === undefined ? {} : { cause });

/**
 * Makes a connection a TLS client's. The stream is the session's from now on; where this throws it is closed.
 *
 * @param hostname what the server's certificate has to be for, unless the credentials do not verify
 * @throws SouthbridgeError ERR_TLS where the handshake fails or the server is not who it should be
 */
export async function tlsClient(socket: Duplex, creds: TlsCredentials, hostname?: string): Promise<TLSSocket> {
  return closing(socket, async () => {
    checkEndpoint(creds, 'client');
    const session = await clientHandshake(socket, { ...contextOf(creds), ...pskClient(creds) });
    return closing(session, () => {
      checkAlive(session);
      if (creds.kind === 'x509' && creds.verifyPeer) checkServer(session, hostname);
      return session;
    });
  });
}

/**
 * Makes an accepted connection a TLS server's. The stream is the session's from now on; where this throws it is closed.
 *
 * @param authz decides over the distinguished name of the client's certificate; not asked where the credentials do
 *   not verify
 * @throws SouthbridgeError ERR_TLS where the handshake fails, or the client is nobody who may come in
 */
export async function tlsServer(socket: Duplex, creds: TlsCredentials, authz?: Authorizer): Promise<TLSSocket> {
  return closing(socket, async () => {
    checkEndpoint(creds, 'server');
    const session = await serverHandshake(socket, creds);
    return closing(session, () => {
      checkAlive(session);
      if (creds.kind === 'x509' && creds.verifyPeer) checkClient(session, authz);
      return session;
    });
  });
}

/** The distinguished name of the peer's certificate, if it showed one. */
export function peerName(session: TLSSocket): string | undefined {
  return peerCertificate(session)?.subject;
}

async function closing<Result>(stream: Duplex, action: () => Result | Promise<Result>): Promise<Result> {
  try {
    return await action();
  } catch (error) {
    await parting(stream.on('error', () => undefined));
    throw error;
  }
}

/** Ends the stream, and gives the other side time to hear of it: it may have taken the session for begun. */
async function parting(stream: Duplex): Promise<void> {
  if (!stream.destroyed) {
    const closed = new Promise(resolve => stream.once('close', resolve));
    stream.resume().end();
    await Promise.race([closed, delay(PARTING_MS, undefined, { ref: false })]);
  }
  stream.destroy();
}

function checkEndpoint(creds: TlsCredentials, endpoint: 'client' | 'server'): void {
  if (creds.endpoint !== endpoint) throw fail("Credentials endpoint doesn't match session");
}

function contextOf(creds: TlsCredentials): SecureContextOptions {
  const { minVersion, maxVersion, ciphers } = parsePriority(creds.priority);
  if (creds.kind === 'x509')
    return { ...creds.context, minVersion, maxVersion, ...(ciphers !== undefined && { ciphers }) };
  // OpenSSL knows these exchanges up to TLS 1.2 only.
  return {
    ...creds.context,
    minVersion: minVersion === 'TLSv1.3' ? 'TLSv1.2' : minVersion,
    maxVersion: maxVersion === 'TLSv1.3' ? 'TLSv1.2' : maxVersion,
    ciphers: creds.kind === 'psk' ? PSK_CIPHERS : ANONYMOUS_CIPHERS,
  };
}

function pskClient(creds: TlsCredentials): ConnectionOptions {
  if (creds.kind !== 'psk') return {};
  const { username } = creds;
  const psk = creds.keyOf(username);
  return psk === undefined ? {} : { pskCallback: () => ({ psk, identity: username }) };
}

/** Who the server is, is looked at afterwards, in QEMU's order and with its words. */
function clientHandshake(socket: Duplex, options: ConnectionOptions): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const session = connect({ ...options, socket, rejectUnauthorized: false, checkServerIdentity: () => undefined });
    const failed = (error: Error): void => reject(handshakeError(error));
    const gone = (): void => reject(handshakeError(undefined));
    session
      .on('error', failed)
      .once('close', gone)
      .once('secureConnect', () => {
        session.off('error', failed).off('close', gone);
        endOnError(session);
        resolve(session);
      });
  });
}

/** A server of one connection: only a server tells whether the client's certificate is trusted. */
function serverHandshake(socket: Duplex, creds: TlsCredentials): Promise<TLSSocket> {
  return new Promise((resolve, reject) => {
    const server = createServer({
      ...contextOf(creds),
      handshakeTimeout: HANDSHAKE_TIMEOUT_MS,
      requestCert: creds.kind === 'x509',
      rejectUnauthorized: false,
      ...(creds.kind === 'psk' && {
        pskCallback: (_socket: TLSSocket, identity: string) => creds.keyOf(identity) ?? null,
      }),
    });
    server.once('secureConnection', session => {
      endOnError(session);
      resolve(session);
    });
    server.once('tlsClientError', error => reject(handshakeError(error)));
    socket.once('close', () => reject(handshakeError(undefined)));
    server.emit('connection', socket);
  });
}

/** Node leaves a session open that a broken record has ended, and the program ends where nobody listens yet. */
function endOnError(session: TLSSocket): void {
  session.on('error', () => session.destroy());
}

/** Nobody is handed a session whose end has already been told. */
function checkAlive(session: TLSSocket): void {
  if (session.destroyed) throw handshakeError(undefined);
}

/** Alerts of the other side, in GnuTLS's words. */
function handshakeError(error: Error | undefined): SouthbridgeError {
  const code = error !== undefined && 'code' in error ? String(error.code) : '';
  const text =
    error === undefined || code === 'ECONNRESET'
      ? 'The TLS connection was non-properly terminated.'
      : 'reason' in error
        ? String(error.reason)
        : error.message;
  return fail(`TLS handshake failed: ${text}`, error);
}

function peerCertificate(session: TLSSocket): Certificate | undefined {
  const { raw } = session.getPeerCertificate();
  // There is an empty object where there is no certificate.
  return (raw as Buffer | undefined) === undefined ? undefined : new Certificate(new X509Certificate(raw));
}

function verified(session: TLSSocket): Certificate {
  const certificate = peerCertificate(session);
  if (certificate === undefined) throw fail('Verify failed: No certificate was found.');
  if (!session.authorized) throw fail(distrust(String(session.authorizationError)));
  return certificate;
}

function checkServer(session: TLSSocket, hostname: string | undefined): void {
  const { x509 } = verified(session);
  if (hostname === undefined) throw fail('No hostname for certificate validation');
  // An address may stand where names do, so both are looked for.
  const matches =
    (isIP(hostname) !== 0 && x509.checkIP(hostname) !== undefined) || x509.checkHost(hostname) !== undefined;
  if (!matches) throw fail(`Certificate does not match the hostname ${hostname}`);
}

function checkClient(session: TLSSocket, authz: Authorizer | undefined): void {
  const { subject } = verified(session);
  if (authz !== undefined && !authz.allows(subject)) throw fail(`TLS x509 authz check for ${subject} is denied`);
}

/** What QEMU says for OpenSSL's verdicts. */
function distrust(code: string): string {
  switch (code) {
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'UNABLE_TO_GET_ISSUER_CERT':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
      return "The certificate hasn't got a known issuer";
    case 'CERT_REVOKED':
      return 'The certificate has been revoked';
    case 'CA_KEY_TOO_SMALL':
    case 'CA_MD_TOO_WEAK':
    case 'EE_KEY_TOO_SMALL':
      return 'The certificate uses an insecure algorithm';
    default:
      return 'The certificate is not trusted';
  }
}
