import { rmSync } from 'node:fs';
import { connect, createServer, type ListenOptions, type NetConnectOpts, type Server, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { SouthbridgeError } from '../errors.ts';
import { connectFailure } from '../host/connect-failure.ts';
import { boundPath } from './bound-path.ts';
import type { FdExchange } from './chardev.ts';
import { StreamChardev } from './stream.ts';
import { TELNET_GREETING, TelnetFilter } from './telnet.ts';

/** Where a socket is. */
export type SocketAddress =
  | { readonly type: 'unix'; readonly path: string; readonly abstract?: boolean; readonly tight?: boolean }
  | {
      readonly type: 'inet';
      readonly host: string;
      readonly port: string;
      readonly to?: number;
      readonly ipv6?: boolean;
    }
  | { readonly type: 'fd'; readonly fd: number };

/** The two ends of a connection. */
type Addresses = {
  readonly [end in 'localAddress' | 'localPort' | 'remoteAddress' | 'remotePort']?: string | number | undefined;
};

/** A stream that file descriptors can come over. */
export interface FdReceiver {
  /** The descriptors that came with the first `bytes` bytes; now the caller's to close. */
  takeFds(bytes: number): number[];
  /** Waits until there is more to read, without the event loop. False where nothing comes. */
  receiveNow(): boolean;
}

const isFdReceiver = (value: unknown): value is FdReceiver =>
  typeof value === 'object' && value !== null && 'takeFds' in value;

export interface SocketOptions {
  readonly address: SocketAddress;
  readonly server: boolean;
  /** A server that `open` only returns from once a client is there. */
  readonly wait: boolean;
  readonly telnet: boolean;
  /** A server whose clients speak WebSocket, which {@link secure} sees to. */
  readonly websocket?: boolean;
  readonly nodelay: boolean;
  /** Seconds until a client tries again; 0: never. */
  readonly reconnect: number;
  /** Puts another stream in a client's place: one that takes file descriptors. */
  upgrade?(socket: Socket): (Duplex & FdReceiver) | undefined;
  /** Makes a connection a TLS session, a WebSocket or both; fails where the peer is nobody who may be spoken to. */
  secure?(socket: Socket): Promise<Duplex>;
  /** Told where a server waits for its first client. */
  waiting?(filename: string): void;
}

/** A stream socket, one peer at a time: as a server it takes the next client once the last has gone. */
export class SocketChardev extends StreamChardev {
  readonly #options: SocketOptions;
  #server: Server | undefined;
  #socket: Duplex | undefined;
  /** The connection that is not yet secured. */
  #securing: Socket | undefined;
  #addresses: Addresses = {};
  #retry: NodeJS.Timeout | undefined;
  #telnet: TelnetFilter | undefined;
  #firstClient: (() => void) | undefined;
  #disposed = false;

  constructor(label: string, options: SocketOptions) {
    super(label);
    this.#options = options;
  }

  override get filename(): string {
    const { server } = this.#options;
    const address = this.#address;
    const role = server ? ',server=on' : '';
    const socket = this.#socket;
    if (address.type === 'fd') return socket === undefined ? 'disconnected:socket' : `unix:${role}`;
    // A client's own end of a unix socket has no name.
    if (address.type === 'unix' && socket !== undefined) return server ? `unix:${address.path}${role}` : 'unix:';
    if (address.type === 'unix') return `disconnected:unix:${address.path}${role}`;
    const protocol = this.#options.telnet ? 'telnet' : this.#options.websocket ? 'websocket' : 'tcp';
    if (socket === undefined) {
      const port = this.#boundPort() ?? address.port;
      return `disconnected:${protocol}:${address.host}:${port}${role}`;
    }
    const { localAddress, localPort, remoteAddress, remotePort } = this.#addresses;
    const here = `${bracketed(localAddress)}:${localPort}`;
    return `${protocol}:${here}${role} <-> ${bracketed(remoteAddress)}:${remotePort}`;
  }

  /** Where it is; of a listening socket that was handed over, once it listens. */
  get #address(): SocketAddress {
    const { address } = this.#options;
    if (address.type !== 'fd' || this.#server === undefined) return address;
    this.#boundTo ??= boundPath(address.fd) ?? '';
    return this.#boundTo === '' ? address : { type: 'unix', path: this.#boundTo };
  }
  #boundTo: string | undefined;

  override async open(): Promise<void> {
    if (!this.#options.server) {
      if (this.#options.reconnect > 0) this.#connectAgain();
      else await this.#connectOnce();
      return;
    }
    await this.#listen();
    if (!this.#options.wait) return;
    this.#options.waiting?.(this.filename);
    await new Promise<void>(resolve => {
      this.#firstClient = resolve;
    });
  }

  /** Ends the present connection, as if the peer had (`yank`, `chardev-change`). */
  override hangUp(): void {
    this.#socket?.destroy();
    this.#securing?.destroy();
  }

  /** Takes an already connected socket as the peer (`add_client`). */
  adopt(socket: Socket): boolean {
    if (this.#busy) return false;
    this.#accept(socket);
    return true;
  }

  get #busy(): boolean {
    return this.#socket !== undefined || this.#securing !== undefined;
  }

  override dispose(): void {
    this.#disposed = true;
    this.#securing?.destroy();
    clearTimeout(this.#retry);
    this.disconnect();
    this.#socket?.destroy();
    this.#socket = undefined;
    this.#server?.close();
    const { address, server } = this.#options;
    if (server && this.#server !== undefined && address.type === 'unix' && !address.abstract) {
      rmSync(address.path, { force: true });
    }
    this.#server = undefined;
  }

  protected override input(chunk: Buffer): void {
    const bytes = this.#telnet === undefined ? chunk : this.#telnet.filter(chunk);
    if (bytes.length > 0) this.push(bytes);
  }

  protected override hungUp(): void {
    this.#socket?.on('error', () => undefined).destroy();
    this.#socket = undefined;
    super.hungUp();
    if (this.#disposed) return;
    if (this.#server === undefined && this.#options.reconnect > 0) this.#scheduleRetry();
  }

  #boundPort(): string | undefined {
    const bound = this.#server?.address();
    return typeof bound === 'object' && bound !== null ? String(bound.port) : undefined;
  }

  async #listen(): Promise<void> {
    const { address } = this.#options;
    const server = createServer({ pauseOnConnect: false, noDelay: this.#options.nodelay }, socket => {
      if (!this.#busy) this.#accept(socket);
      // Node may notice an error even while nobody reads.
      else this.#waiting.push(socket.pause().on('error', () => socket.destroy()));
    });
    if (address.type === 'unix' && !address.abstract) rmSync(address.path, { force: true });
    const last = address.type === 'inet' && address.to !== undefined ? address.to : undefined;
    for (let port = address.type === 'inet' ? Number(address.port) : 0; ; port++) {
      try {
        await listening(server, listenOptions(address, port));
        break;
      } catch (cause) {
        if (last !== undefined && port < last) continue;
        throw socketError(`Failed to ${bindVerb(address)}`, cause);
      }
    }
    this.#server = server;
  }

  /** Clients that connected while another was served. */
  readonly #waiting: Socket[] = [];

  #accept(socket: Socket): void {
    const { localAddress, localPort, remoteAddress, remotePort } = socket;
    this.#addresses = { localAddress, localPort, remoteAddress, remotePort };
    if (this.#options.nodelay) socket.setNoDelay(true);
    if (this.#options.secure === undefined) this.#serve(this.#options.upgrade?.(socket) ?? socket);
    else void this.#secure(socket, this.#options.secure);
    this.#firstClient?.();
    this.#firstClient = undefined;
  }

  /** Whoever fails has never been there: a server takes the next one, a client tries again later. */
  async #secure(socket: Socket, secure: (socket: Socket) => Promise<Duplex>): Promise<void> {
    this.#securing = socket;
    let session: Duplex | undefined;
    try {
      session = await secure(socket);
    } catch {
      // As by QEMU, nobody is told why.
    }
    this.#securing = undefined;
    if (session !== undefined && !this.#disposed) {
      this.#serve(session);
      return;
    }
    session?.destroy();
    if (this.#disposed) return;
    if (this.#options.server) this.#acceptNext();
    else if (this.#options.reconnect > 0) this.#scheduleRetry();
  }

  #serve(peer: Duplex): void {
    this.#socket = peer;
    if (this.#options.telnet) {
      peer.write(TELNET_GREETING);
      this.#telnet = new TelnetFilter(() => this.sendBreak());
    }
    this.connect(peer, peer);
    peer.once('close', () => this.#acceptNext());
  }

  /** Serves the first of those who wait that has not gone meanwhile. */
  #acceptNext(): void {
    let next = this.#waiting.shift();
    while (next?.destroyed) next = this.#waiting.shift();
    if (next !== undefined && !this.#disposed) this.#accept(next.resume());
  }

  override get exchange(): FdExchange | undefined {
    const socket: unknown = this.#socket;
    return isFdReceiver(socket) && 'sendNow' in socket ? (socket as FdReceiver & FdExchange) : undefined;
  }

  override get reconnects(): boolean {
    return this.#options.server || this.#options.reconnect > 0;
  }

  override takeFds(): number[] {
    const socket: unknown = this.#socket;
    return isFdReceiver(socket) ? socket.takeFds(this.delivered) : [];
  }

  protected override pull(): void {
    const socket: unknown = this.#socket;
    if (!isFdReceiver(socket)) super.pull();
    else if (!socket.receiveNow())
      throw new SouthbridgeError('ERR_CHARDEV', `the peer of chardev '${this.label}' has gone or says nothing`);
  }

  async #connectOnce(): Promise<void> {
    const { address } = this.#options;
    if (address.type === 'fd') {
      this.#accept(new Socket({ fd: address.fd, readable: true, writable: true }));
      return;
    }
    this.#accept(await connecting(connectOptions(address), describeAddress(address)));
  }

  #connectAgain(): void {
    this.#connectOnce().catch(() => this.#scheduleRetry());
  }

  #scheduleRetry(): void {
    if (this.#disposed) return;
    this.#retry = setTimeout(() => this.#connectAgain(), this.#options.reconnect * 1000);
  }
}

const bracketed = (host: string | number | undefined): string =>
  String(host).includes(':') ? `[${host}]` : String(host ?? '');

function abstractPath(path: string, tight: boolean | undefined): string {
  const name = `\0${path}`;
  return tight === false ? name.padEnd(108, '\0') : name;
}

function unixPath(address: Extract<SocketAddress, { type: 'unix' }>): string {
  return address.abstract ? abstractPath(address.path, address.tight) : address.path;
}

function listenOptions(address: SocketAddress, port: number): ListenOptions & { fd?: number } {
  if (address.type === 'fd') return { fd: address.fd };
  if (address.type === 'unix') return { path: unixPath(address) };
  return { host: address.host === '' ? '0.0.0.0' : address.host, port, ...(address.ipv6 && { ipv6Only: true }) };
}

function connectOptions(address: Exclude<SocketAddress, { type: 'fd' }>): NetConnectOpts {
  if (address.type === 'unix') return { path: unixPath(address) };
  return { host: address.host === '' ? 'localhost' : address.host, port: Number(address.port) };
}

function describeAddress(address: SocketAddress): string {
  if (address.type === 'unix') return address.path;
  return address.type === 'inet' ? `${address.host}:${address.port}` : `fd ${address.fd}`;
}

function bindVerb(address: SocketAddress): string {
  if (address.type === 'unix') return `bind socket to ${address.path}`;
  return address.type === 'inet' ? 'find an available port' : `listen on fd ${address.fd}`;
}

function listening(server: Server, options: ListenOptions & { fd?: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(options, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

function connecting(options: NetConnectOpts, where: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(options);
    const failed = (cause: Error): void =>
      reject(new SouthbridgeError('ERR_CHARDEV', connectFailure(where, cause), undefined, { cause }));
    socket.once('error', failed).once('connect', () => {
      socket.off('error', failed);
      resolve(socket);
    });
  });
}

/** The text of an errno, as C's strerror has it, for the errors that sockets have. */
const ERRNO_TEXT: Readonly<Record<string, string>> = {
  EACCES: 'Permission denied',
  EADDRINUSE: 'Address already in use',
  EADDRNOTAVAIL: 'Cannot assign requested address',
  ECONNREFUSED: 'Connection refused',
  ECONNRESET: 'Connection reset by peer',
  EHOSTUNREACH: 'No route to host',
  EINVAL: 'Invalid argument',
  ENOENT: 'No such file or directory',
  ENOTSOCK: 'Socket operation on non-socket',
  ETIMEDOUT: 'Connection timed out',
};

function socketError(what: string, cause: unknown): SouthbridgeError {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  const why = ERRNO_TEXT[code] ?? (cause instanceof Error ? cause.message : String(cause));
  return new SouthbridgeError('ERR_CHARDEV', `${what}: ${why}`, undefined, { cause });
}
