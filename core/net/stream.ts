import { rmSync } from 'node:fs';
import { isIPv6, type NetConnectOpts, Server, Socket } from 'node:net';
import { FrameChannel } from './frame-channel.ts';
import { type NetBackend, NetClient, type NetReceiver } from './net-client.ts';

/** QEMU's SocketAddress (QAPI), with a descriptor that is open already. */
export type NetAddress =
  | {
      readonly type: 'inet';
      readonly host: string;
      readonly port: string;
      readonly ipv4?: boolean | undefined;
      readonly ipv6?: boolean | undefined;
    }
  | {
      readonly type: 'unix';
      readonly path: string;
      readonly abstract?: boolean | undefined;
      readonly tight?: boolean | undefined;
    }
  | { readonly type: 'fd'; readonly fd: number };

/** What management tools are told of. */
export interface StreamEvents {
  connected(address: NetAddress): void;
  disconnected(): void;
}

/** The length of a path of a unix socket (unix(7)), which an abstract name fills unless it is `tight`. */
const PATH_LENGTH = 108;

/** `-netdev stream`: a cable over a stream socket. While nobody is at its other end, the link is down. */
export class StreamNet implements NetBackend, NetReceiver {
  readonly id: string;
  readonly client: NetClient;
  readonly #address: NetAddress;
  readonly #events: StreamEvents;
  #server: Server | undefined;
  #connecting: Socket | undefined;
  #channel: FrameChannel | undefined;
  #disposed = false;

  /** Connects, or with `server` listens, and does not wait for it: QEMU's `stream` neither. */
  constructor(id: string, address: NetAddress, server: boolean, events: StreamEvents) {
    this.id = id;
    this.client = new NetClient(id, 'stream', this);
    this.#address = address;
    this.#events = events;
    this.client.setLink(false);
    if (server) this.#listen();
    else this.#connect();
  }

  canReceive(): boolean {
    return this.#channel?.ready ?? true;
  }

  receive(frame: Uint8Array, length: number): boolean {
    this.#channel?.send(frame, length);
    return true;
  }

  burst(lasts: boolean): void {
    this.#channel?.burst(lasts);
  }

  peerReady(): void {
    this.#channel?.pull();
  }

  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.client.disconnect();
    this.#channel?.close();
    this.#connecting?.destroy();
    this.#server?.close();
  }

  #listen(): void {
    const address = this.#address;
    const server = new Server(stream => {
      // One at a time, as on a cable.
      if (this.#channel !== undefined) stream.destroy();
      else this.#adopt(stream);
    });
    this.#server = server;
    server.on('error', () => {
      this.client.description = 'connection error';
    });
    if (address.type === 'unix') {
      if (!address.abstract) rmSync(address.path, { force: true });
      server.listen({ path: unixName(address) });
    } else if (address.type === 'inet') {
      const host = address.host === '' ? '0.0.0.0' : address.host;
      server.listen({ host, port: Number(address.port), ...(address.ipv6 && { ipv6Only: true }) });
    } else {
      const inherited: { fd: number } = { fd: address.fd };
      server.listen(inherited);
    }
    server.unref();
  }

  #connect(): void {
    const address = this.#address;
    const stream =
      address.type === 'fd' ? new Socket({ fd: address.fd, readable: true, writable: true }) : new Socket();
    this.#connecting = stream;
    stream.unref();
    const failed = (): void => {
      this.client.description = 'connection error';
    };
    if (address.type === 'fd') {
      this.#adopt(stream);
      return;
    }
    stream.once('error', failed);
    stream.connect(target(address), () => {
      stream.off('error', failed);
      this.#adopt(stream);
    });
  }

  #adopt(stream: Socket): void {
    this.#connecting = undefined;
    const address = this.#other(stream);
    this.#channel = new FrameChannel(stream, this.client, () => this.#lost());
    this.client.description = describe(address);
    this.client.setLink(true);
    this.#events.connected(address);
  }

  #lost(): void {
    if (this.#disposed) return;
    this.#channel = undefined;
    this.client.setLink(false);
    this.client.description = '';
    this.client.receiverReady();
    this.#events.disconnected();
  }

  /** Who is at the other end; a unix socket's clients have no name, so it is ours. */
  #other(stream: Socket): NetAddress {
    if (this.#address.type !== 'inet') return this.#address;
    const { remoteAddress = this.#address.host, remotePort = this.#address.port } = stream;
    const family = isIPv6(remoteAddress) ? { ipv6: true } : { ipv4: true };
    return { type: 'inet', host: remoteAddress, port: String(remotePort), ...family };
  }
}

function unixName({ path, abstract, tight }: Extract<NetAddress, { type: 'unix' }>): string {
  if (!abstract) return path;
  return tight === false ? `\0${path}`.padEnd(PATH_LENGTH, '\0') : `\0${path}`;
}

function target(address: Exclude<NetAddress, { type: 'fd' }>): NetConnectOpts {
  if (address.type === 'unix') return { path: unixName(address) };
  const family = address.ipv4 === false || address.ipv6 ? { family: 6 } : {};
  return { host: address.host === '' ? 'localhost' : address.host, port: Number(address.port), ...family };
}

/** QEMU's way to write an address. */
function describe(address: NetAddress): string {
  if (address.type === 'unix') return `unix:${address.path}`;
  return address.type === 'inet' ? `tcp:${address.host}:${address.port}` : `fd:${address.fd}`;
}
