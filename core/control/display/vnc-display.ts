import { rmSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import type { VncAddress } from '../../display/vnc/client.ts';
import type { VncServer } from '../../display/vnc/server.ts';
import { subtypeOf, type VeNCryptSubtype, type VncTls } from '../../display/vnc/vencrypt.ts';
import { SouthbridgeError } from '../../errors.ts';
import { connectFailure } from '../../host/connect-failure.ts';
import { WebSocketStream } from '../../host/websocket.ts';
import type { TlsCredentials } from '../../tls/credentials.ts';
import { QmpError } from '../qapi/error.ts';
import type { VncPlace, VncRequest } from './vnc-options.ts';

interface Listener {
  readonly server: Server;
  readonly webSocket: boolean;
  /** Of a unix socket. */
  readonly path: string | undefined;
}

/** A VNC server with the sockets on which it can be reached. */
export class VncDisplay {
  readonly request: VncRequest;
  readonly server: VncServer;
  readonly #listeners: Listener[] = [];
  readonly #credentials: TlsCredentials | undefined;

  constructor(request: VncRequest, server: VncServer, credentials: TlsCredentials | undefined) {
    this.request = request;
    this.server = server;
    this.#credentials = credentials;
  }

  /** How clients of a plain listener come in (QAPI VncPrimaryAuth); websockets' have TLS beneath them. */
  authOf(websocket: boolean): { readonly auth: 'none' | 'vnc' | 'vencrypt'; readonly vencrypt?: VeNCryptSubtype } {
    const { tls, password } = this.server.options;
    if (tls === undefined || websocket) return { auth: password ? 'vnc' : 'none' };
    return { auth: 'vencrypt', vencrypt: subtypeOf(tls, password) };
  }

  /** The same in one word: `none`, `vencrypt+x509+vnc`. */
  get authentication(): string {
    const { auth, vencrypt } = this.authOf(false);
    return vencrypt === undefined ? auth : `${auth}+${vencrypt.replace('-', '+')}`;
  }

  /** Reads the files of the credentials anew (`display-reload`). @throws QmpError where there are none, or they cannot be */
  reloadCredentials(): void {
    const credentials = this.#credentials;
    if (credentials === undefined) throw new QmpError('vnc tls is not enabled');
    if (credentials.kind !== 'x509')
      throw new QmpError(`tls-creds-${credentials.kind} doesn't support to reload TLS credential`);
    credentials.reload();
  }

  /** @throws SouthbridgeError ERR_VNC_LISTEN, ERR_VNC_CONNECT */
  async open(): Promise<void> {
    const { places, webSockets, reverse } = this.request;
    if (reverse) {
      for (const place of places) await this.#connect(place);
      return;
    }
    for (const place of places) await this.#listen(place, false);
    for (const place of webSockets) await this.#listen(place, true);
  }

  /** Moves the plain listeners elsewhere (`display-update`). */
  async moveTo(places: readonly VncPlace[]): Promise<void> {
    for (const listener of this.#listeners.filter(({ webSocket }) => !webSocket)) this.#close(listener);
    for (const place of places) await this.#listen(place, false);
  }

  /** Takes a connected socket as a client. */
  adopt(socket: Socket, options: { skipAuthentication: boolean }): void {
    this.server.connect(socket, addressOf(socket.address(), false), options);
  }

  /** Where it listens, as QAPI's VncBasicInfo; the plain listeners first. */
  get places(): readonly VncAddress[] {
    return this.#listeners.map(({ server, webSocket, path }) =>
      path === undefined
        ? addressOf(server.address(), webSocket)
        : { host: '', service: path, family: 'unix' as const, websocket: webSocket },
    );
  }

  dispose(): void {
    for (const listener of [...this.#listeners]) this.#close(listener);
    this.server.dispose();
  }

  #close(listener: Listener): void {
    listener.server.close();
    if (listener.path !== undefined) rmSync(listener.path, { force: true });
    this.#listeners.splice(this.#listeners.indexOf(listener), 1);
  }

  async #listen(place: VncPlace, webSocket: boolean): Promise<void> {
    const server = createServer({ noDelay: true }, socket => this.#accept(socket, webSocket));
    if (place.type === 'unix') rmSync(place.path, { force: true });
    const last = place.type === 'inet' ? (place.to ?? place.port) : 0;
    for (let port = place.type === 'inet' ? place.port : 0; ; port++) {
      try {
        await listening(server, place, port);
        break;
      } catch (cause) {
        if (port < last) continue;
        throw new SouthbridgeError('ERR_VNC_LISTEN', `Failed to ${verb(place)}: ${reason(cause)}`, undefined, {
          cause,
        });
      }
    }
    this.#listeners.push({ server, webSocket, path: place.type === 'unix' ? place.path : undefined });
  }

  async #connect(place: VncPlace): Promise<void> {
    const socket =
      place.type === 'unix' ? connect(place.path) : connect({ port: place.port, host: place.host || 'localhost' });
    try {
      await new Promise<void>((resolve, reject) => {
        socket.once('error', reject).once('connect', () => {
          socket.off('error', reject);
          resolve();
        });
      });
    } catch (cause) {
      const where = place.type === 'unix' ? place.path : `${place.host}:${place.port}`;
      throw new SouthbridgeError('ERR_VNC_CONNECT', connectFailure(where, cause), undefined, {
        cause,
      });
    }
    this.#accept(socket, false);
  }

  #accept(socket: Socket, webSocket: boolean): void {
    const { remoteAddress, remotePort, remoteFamily } = socket;
    const address: VncAddress =
      remoteAddress === undefined
        ? { host: '', service: '', family: 'unix', websocket: webSocket }
        : addressOf({ address: remoteAddress, port: remotePort ?? 0, family: remoteFamily ?? '' }, webSocket);
    const { tls } = this.server.options;
    if (!webSocket) this.server.connect(socket, address);
    else if (tls === undefined) this.server.connect(new WebSocketStream(socket), address);
    else void this.#acceptSecurely(tls, socket, address);
  }

  /** A browser cannot begin TLS in the middle: it lies beneath the websocket. */
  async #acceptSecurely(tls: VncTls, socket: Socket, address: VncAddress): Promise<void> {
    try {
      const { session, peer } = await tls.secure(socket);
      this.server.connect(new WebSocketStream(session), address, { secured: { peer } });
    } catch {
      // The connection is closed; as by QEMU, nobody is told why.
    }
  }
}

function addressOf(address: AddressInfo | string | object | null, websocket: boolean): VncAddress {
  if (typeof address === 'object' && address !== null && 'address' in address && 'port' in address) {
    const host = String(address.address);
    return { host, service: String(address.port), family: host.includes(':') ? 'ipv6' : 'ipv4', websocket };
  }
  return { host: '', service: typeof address === 'string' ? address : '', family: 'unix', websocket };
}

function listening(server: Server, place: VncPlace, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    const ready = (): void => {
      server.off('error', reject);
      resolve();
    };
    if (place.type === 'unix') server.listen(place.path, ready);
    else server.listen({ port, host: place.host || (place.family === 'ipv6' ? '::' : '0.0.0.0') }, ready);
  });
}

const verb = (place: VncPlace): string =>
  place.type === 'unix' ? `bind socket to ${place.path}` : 'find an available port';

const REASONS: Readonly<Record<string, string>> = {
  EACCES: 'Permission denied',
  EADDRINUSE: 'Address already in use',
  EADDRNOTAVAIL: 'Cannot assign requested address',
  ECONNREFUSED: 'Connection refused',
  ENOENT: 'No such file or directory',
};
const reason = (cause: unknown): string => {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  return REASONS[code] ?? (cause instanceof Error ? cause.message : String(cause));
};
