import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { connect, createServer, type Server, Socket } from 'node:net';
import { SouthbridgeError } from '../errors.ts';
import { bindUdp } from '../host/datagrams.ts';
import { Datagrams, ipv4Of, udpTarget } from './datagrams.ts';
import { FrameChannel } from './frame-channel.ts';
import { type NetBackend, NetClient, type NetReceiver } from './net-client.ts';

/** `-netdev socket`: QEMU's NetdevSocketOptions (QAPI), one of `fd`, `listen`, `connect`, `mcast` and `udp`. */
export interface SocketNetOptions {
  /** A connected stream socket that this process was started with, by number. */
  readonly fd?: string | number | undefined;
  readonly listen?: string | undefined;
  readonly connect?: string | undefined;
  readonly mcast?: string | undefined;
  readonly udp?: string | undefined;
  readonly localaddr?: string | undefined;
}

interface HostPort {
  readonly host: string;
  readonly port: number;
}

/** `host:port`; the host may be empty. @throws SouthbridgeError ERR_NETDEV with QEMU's text */
function parseHostPort(text: string): HostPort {
  const separator = text.lastIndexOf(':');
  if (separator < 0)
    throw new SouthbridgeError('ERR_NETDEV', `host address '${text}' doesn't contain ':' separating host from port`);
  const port = text.slice(separator + 1);
  if (!/^\d+$/.test(port) || Number(port) > 0xffff)
    throw new SouthbridgeError('ERR_NETDEV', `port number '${port}' is invalid`);
  return { host: text.slice(0, separator), port: Number(port) };
}

/**
 * A wire to another QEMU or Southbridge. Over TCP each frame has its length before it, four bytes, the highest first; over
 * UDP, also to a multicast group, each datagram is one frame.
 */
export class SocketNet implements NetBackend, NetReceiver {
  readonly id: string;
  readonly client: NetClient;
  #server: Server | undefined;
  #channel: FrameChannel | undefined;
  #datagrams: Datagrams | undefined;
  #group: UdpSocket | undefined;
  #groupAt: HostPort | undefined;

  private constructor(id: string) {
    this.id = id;
    this.client = new NetClient(id, 'socket', this);
  }

  /** @throws SouthbridgeError ERR_NETDEV where the options do not fit together or the host refuses the address */
  static async open(id: string, options: SocketNetOptions): Promise<SocketNet> {
    const { fd, listen, connect: target, mcast, udp, localaddr } = options;
    if ([fd, listen, target, mcast, udp].filter(option => option !== undefined).length !== 1) {
      throw new SouthbridgeError('ERR_NETDEV', 'exactly one of listen=, connect=, mcast= or udp= is required');
    }
    if (localaddr !== undefined && mcast === undefined && udp === undefined) {
      throw new SouthbridgeError('ERR_NETDEV', 'localaddr= is only valid with mcast= or udp=');
    }
    const net = new SocketNet(id);
    try {
      if (fd !== undefined) net.#inherit(Number(fd));
      else if (listen !== undefined) await net.#listen(parseHostPort(listen));
      else if (target !== undefined) await net.#connect(parseHostPort(target));
      else if (mcast !== undefined) await net.#joinGroup(parseHostPort(mcast), localaddr);
      else if (udp !== undefined) {
        if (localaddr === undefined) throw new SouthbridgeError('ERR_NETDEV', 'localaddr= is mandatory with udp=');
        await net.#openDatagrams(parseHostPort(udp), parseHostPort(localaddr));
      }
      return net;
    } catch (cause) {
      net.dispose();
      if (cause instanceof SouthbridgeError) throw cause;
      throw new SouthbridgeError('ERR_NETDEV', cause instanceof Error ? cause.message : String(cause), undefined, {
        cause,
      });
    }
  }

  canReceive(): boolean {
    return this.#channel?.ready ?? this.#datagrams?.ready ?? true;
  }

  receive(frame: Uint8Array, length: number): boolean {
    if (this.#channel !== undefined) this.#channel.send(frame, length);
    else if (this.#datagrams !== undefined) this.#datagrams.send(frame, length);
    else if (this.#group !== undefined && this.#groupAt !== undefined) {
      this.#group.send(Buffer.from(frame.subarray(0, length)), this.#groupAt.port, this.#groupAt.host, () => {});
    }
    return true;
  }

  burst(lasts: boolean): void {
    this.#channel?.burst(lasts);
    this.#datagrams?.burst(lasts);
  }

  peerReady(): void {
    this.#channel?.pull();
    this.#datagrams?.pull();
  }

  dispose(): void {
    this.client.disconnect();
    this.#server?.close();
    this.#channel?.close();
    this.#datagrams?.close();
    this.#group?.close();
    this.#server = undefined;
    this.#channel = undefined;
    this.#datagrams = undefined;
    this.#group = undefined;
  }

  async #listen(at: HostPort): Promise<void> {
    const server = createServer(stream => {
      // One at a time, as on a cable.
      if (this.#channel !== undefined) stream.destroy();
      else this.#adopt(stream);
    });
    this.#server = server;
    server.listen(at.port, at.host === '' ? '0.0.0.0' : at.host);
    await once(server, 'listening');
    server.unref();
    this.client.description = `listen=${at.host}:${at.port}`;
  }

  async #connect(to: HostPort): Promise<void> {
    const stream = connect(to.port, to.host === '' ? '127.0.0.1' : to.host);
    await once(stream, 'connect');
    this.#adopt(stream);
    this.client.description = `connect to ${to.host}:${to.port}`;
  }

  #inherit(fd: number): void {
    if (!Number.isInteger(fd) || fd < 0)
      throw new SouthbridgeError('ERR_NETDEV', `File descriptor named '${fd}' has not been found`);
    this.#adopt(new Socket({ fd, readable: true, writable: true }));
    this.client.description = `fd=${fd}`;
  }

  #adopt(stream: Socket): void {
    this.#channel = new FrameChannel(stream, this.client, () => {
      this.#channel = undefined;
      this.client.receiverReady();
    });
  }

  async #joinGroup(group: HostPort, localAddress: string | undefined): Promise<void> {
    const udp = createSocket({ type: 'udp4', reuseAddr: true });
    this.#group = udp;
    this.#groupAt = group;
    udp.bind(group.port, group.host);
    await once(udp, 'listening');
    udp.addMembership(group.host, localAddress);
    udp.setMulticastLoopback(true);
    if (localAddress !== undefined) udp.setMulticastInterface(localAddress);
    udp.unref();
    udp.on('error', () => {});
    udp.on('message', message => this.client.send(message, message.length));
    this.client.description = `mcast=${group.host}:${group.port}`;
  }

  async #openDatagrams(peer: HostPort, local: HostPort): Promise<void> {
    const to = await udpTarget(peer.host, peer.port);
    const fd = bindUdp(await ipv4Of(local.host, '0.0.0.0'), local.port);
    this.#datagrams = new Datagrams(this.client, fd, { to, waits: true });
    this.client.description = `udp=${peer.host}:${peer.port}`;
  }
}
