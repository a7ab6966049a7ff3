import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { once } from 'node:events';
import { rmSync } from 'node:fs';
import { SouthbridgeError } from '../errors.ts';
import { bindUdp, unixAddress } from '../host/datagrams.ts';
import { bindDatagrams } from '../host/sockets.ts';
import { Datagrams, type DatagramTarget, ipv4Of, udpTarget } from './datagrams.ts';
import { parseIpv4 } from './ipv4.ts';
import { type NetBackend, NetClient, type NetReceiver } from './net-client.ts';
import type { NetAddress } from './stream.ts';

/** `-netdev dgram`: QEMU's NetdevDgramOptions (QAPI). */
export interface DgramOptions {
  readonly local?: NetAddress | undefined;
  readonly remote?: NetAddress | undefined;
}

type Inet = Extract<NetAddress, { type: 'inet' }>;

/** 224.0.0.0/4 (RFC 5771). */
const MULTICAST = 0xe;
const PATH_LENGTH = 108;

const refuse = (message: string): never => {
  throw new SouthbridgeError('ERR_NETDEV', message);
};

/** What carries datagrams, one of them a frame. */
interface Carrier {
  readonly description: string;
  readonly ready: boolean;
  send(frame: Uint8Array, length: number): void;
  burst?(lasts: boolean): void;
  pull?(): void;
  close(): void;
}

/** A wire whose frames are datagrams: UDP to one other or to a multicast group, a unix socket, or one that is open already. */
export class DgramNet implements NetBackend, NetReceiver {
  readonly id: string;
  readonly client: NetClient;
  #carrier: Carrier | undefined;

  private constructor(id: string) {
    this.id = id;
    this.client = new NetClient(id, 'dgram', this);
  }

  /** @throws SouthbridgeError ERR_NETDEV with QEMU's text */
  static async open(id: string, { local, remote }: DgramOptions): Promise<DgramNet> {
    const net = new DgramNet(id);
    try {
      net.#carrier = await carrierFor(net.client, local, remote);
    } catch (cause) {
      if (cause instanceof SouthbridgeError || !(cause instanceof Error)) throw cause;
      throw new SouthbridgeError('ERR_NETDEV', cause.message, undefined, { cause });
    }
    net.client.description = net.#carrier.description;
    return net;
  }

  canReceive(): boolean {
    return this.#carrier?.ready ?? true;
  }

  receive(frame: Uint8Array, length: number): boolean {
    this.#carrier?.send(frame, length);
    return true;
  }

  burst(lasts: boolean): void {
    this.#carrier?.burst?.(lasts);
  }

  peerReady(): void {
    this.#carrier?.pull?.();
  }

  dispose(): void {
    this.client.disconnect();
    this.#carrier?.close();
    this.#carrier = undefined;
  }
}

async function carrierFor(
  client: NetClient,
  local: NetAddress | undefined,
  remote: NetAddress | undefined,
): Promise<Carrier> {
  if (remote?.type === 'inet' && isMulticast(remote.host)) return multicast(client, remote, local);
  if (local === undefined) return refuse('dgram requires local= parameter');
  if (local.type === 'fd') {
    if (remote !== undefined) refuse("don't set remote with local.fd");
    return new SocketCarrier(client, local.fd, { waits: true }, `fd=${local.fd}`);
  }
  if (remote === undefined) return refuse('type=inet or type=unix requires remote parameter');
  if (local.type === 'inet' && remote.type === 'inet') return udp(client, local, remote);
  if (local.type === 'unix' && remote.type === 'unix') return unix(client, local.path, remote.path);
  return refuse('remote and local types must be the same');
}

const isMulticast = (host: string): boolean => (parseIpv4(host) ?? 0) >>> 28 === MULTICAST;

async function multicast(client: NetClient, group: Inet, local: NetAddress | undefined): Promise<Carrier> {
  if (local !== undefined && local.type !== 'inet') refuse('only support inet or fd type for local');
  const from = local?.type === 'inet' ? local.host : undefined;
  if (from !== undefined && parseIpv4(from) === undefined) refuse(`localaddr '${from}' is not a valid IPv4 address`);
  const socket = createSocket({ type: 'udp4', reuseAddr: true });
  socket.bind(Number(group.port), group.host);
  await once(socket, 'listening');
  socket.addMembership(group.host, from);
  socket.setMulticastLoopback(true);
  if (from !== undefined) socket.setMulticastInterface(from);
  return new GroupCarrier(client, socket, group, `mcast=${group.host}:${group.port}`);
}

async function udp(client: NetClient, local: Inet, remote: Inet): Promise<Carrier> {
  const text = `udp=${local.host}:${local.port}/${remote.host}:${remote.port}`;
  const to = await udpTarget(remote.host, Number(remote.port));
  const fd = bindUdp(await ipv4Of(local.host, '0.0.0.0'), Number(local.port));
  return new SocketCarrier(client, fd, { to, waits: true }, text);
}

function unix(client: NetClient, local: string, remote: string): Carrier {
  for (const path of [local, remote]) {
    if (Buffer.byteLength(path) >= PATH_LENGTH) refuse(`UNIX socket path '${path}' is too long`);
  }
  rmSync(local, { force: true });
  const target = { to: unixAddress(remote), waits: false };
  return new SocketCarrier(client, bindDatagrams(local), target, `udp=${local}:${remote}`, local);
}

/** A multicast group, which others on this host may be in as well. */
class GroupCarrier implements Carrier {
  readonly description: string;
  readonly ready = true;
  readonly #socket: UdpSocket;
  readonly #host: string;
  readonly #port: number;

  constructor(client: NetClient, socket: UdpSocket, to: Inet, description: string) {
    this.description = description;
    this.#socket = socket;
    this.#host = to.host === '' ? '127.0.0.1' : to.host;
    this.#port = Number(to.port);
    socket.unref();
    socket.on('error', () => {});
    socket.on('message', message => client.send(message, message.length));
  }

  send(frame: Uint8Array, length: number): void {
    this.#socket.send(Buffer.from(frame.subarray(0, length)), this.#port, this.#host, () => {});
  }

  close(): void {
    this.#socket.close();
  }
}

/** A socket; a unix socket's path goes with it. */
class SocketCarrier extends Datagrams implements Carrier {
  readonly description: string;
  readonly #path: string | undefined;

  constructor(client: NetClient, fd: number, target: DatagramTarget, description: string, path?: string) {
    super(client, fd, target);
    this.description = description;
    this.#path = path;
  }

  override close(): void {
    super.close();
    if (this.#path !== undefined) rmSync(this.#path, { force: true });
  }
}
