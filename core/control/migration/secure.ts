import type { Socket } from 'node:net';
import type { Program } from '../program.ts';
import type { TlsRequest } from '../startup/tls-objects.ts';
import type { MigrationUri, Secure } from './channel.ts';
import type { MigrationSettings } from './settings.ts';

/** Half of a TLS connection is not a connection: the end of one direction is that of both. */
const whole = (socket: Socket): Socket => {
  socket.allowHalfOpen = false;
  return socket;
};

async function upgrade(program: Program, request: TlsRequest): Promise<Secure> {
  const { tlsUpgrade } = await import('../startup/tls-objects.ts');
  const secure = await tlsUpgrade(program, request);
  return socket => secure(whole(socket));
}

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
  const creds = settings.text('tls-creds');
  if (creds === '') return undefined;
  const hostname = settings.text('tls-hostname') || (target.kind === 'tcp' ? target.host : '');
  return upgrade(program, { creds, endpoint: 'client', hostname: hostname || undefined });
}

/**
 * For who waits for a machine: TLS as `tls-creds` says when somebody comes, and `tls-authz` decides who may.
 * The connection fails where there are no such credentials, with QEMU's wording.
 */
export function secureServer(program: Program, settings: MigrationSettings): Secure {
  return async socket => {
    const creds = settings.text('tls-creds');
    if (creds === '') return socket;
    const authz = settings.text('tls-authz') || undefined;
    const secure = await upgrade(program, { creds, endpoint: 'server', authz });
    return secure(socket);
  };
}
