import type { Socket } from 'node:net';
import type { Program } from '../program.ts';
import type { MigrationUri, Secure } from './channel.ts';
import type { MigrationSettings } from './settings.ts';

/** Half of a TLS connection is not a connection: the end of one direction is that of both. */
const whole = (socket: Socket): Socket => {
  socket.allowHalfOpen = false;
  return socket;
};

const load = () => Promise.all([import('../startup/tls-objects.ts'), import('../../tls/session.ts')]);

/**
 * TLS as `tls-creds` says; undefined where it says nothing.
 *
 * @throws QmpError with QEMU's wording, where there are no such credentials
 */
export async function secureClient(
  program: Program,
  settings: MigrationSettings,
  target: MigrationUri,
): Promise<Secure | undefined> {
  const id = settings.text('tls-creds');
  if (id === '') return undefined;
  const [objects, { tlsClient }] = await load();
  const creds = await objects.tlsCredentials(program, id, 'client');
  const hostname = settings.text('tls-hostname') || (target.kind === 'tcp' ? target.host : '');
  return socket => tlsClient(whole(socket), creds, hostname === '' ? undefined : hostname);
}

/**
 * For who waits for a machine: TLS as `tls-creds` says when somebody comes, and `tls-authz` decides who may.
 * The connection fails where there are no such credentials, with QEMU's wording.
 */
export function secureServer(program: Program, settings: MigrationSettings): Secure {
  return async socket => {
    const id = settings.text('tls-creds');
    if (id === '') return socket;
    const [objects, { tlsServer }] = await load();
    const creds = await objects.tlsCredentials(program, id, 'server');
    const authz = settings.text('tls-authz');
    const authorizer = authz === '' ? undefined : await objects.tlsAuthorizer(program, authz);
    return tlsServer(whole(socket), creds, authorizer);
  };
}
