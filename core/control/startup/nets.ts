import { SouthbridgeError } from '../../errors.ts';
import type { NicConfig } from '../../machine/machine-config.ts';
import { type AnnounceOptions, Announcer } from '../../net/announce.ts';
import { DgramNet } from '../../net/dgram.ts';
import { Hub, type HubPort } from '../../net/hub.ts';
import type { NetCard } from '../../net/net-cards.ts';
import type { NetBackend, NetClient } from '../../net/net-client.ts';
import { SocketNet } from '../../net/socket.ts';
import { type NetAddress, StreamNet } from '../../net/stream.ts';
import { TapNet } from '../../net/tap.ts';
import { UserNet } from '../../net/user.ts';
import { VhostUserNet } from '../../net/vhost-user/vhost-user.ts';
import type { Json, JsonObject } from '../json/value.ts';
import { GROUPS } from '../options/groups.ts';
import { Opts, parseOpts } from '../options/opts.ts';
import type { Program, Resource } from '../program.ts';
import type { Value } from '../qapi/declare.ts';
import { deviceNotFound, QmpError } from '../qapi/error.ts';
import { Netdev } from '../qapi/schema/net.ts';
import type { SocketAddress } from '../qapi/schema/sockets.ts';
import { KEYVAL_ROOT, ROOT } from '../qapi/types.ts';

type NetdevSpec = Value<typeof Netdev>;

/** Parameters of `-nic` and `-net` that are the card's. */
const CARD_KEYS: ReadonlySet<string> = new Set(['model', 'mac', 'macaddr', 'vectors', 'addr']);
/** Parameters that may be given several times, as lists of strings. */
const LISTS: ReadonlySet<string> = new Set(['hostfwd', 'guestfwd', 'dnssearch']);

/** What QEMU has beside ours, and what a user may do instead. */
const NOT_HERE: Readonly<Record<string, readonly [reason: string, hint: string]>> = {
  l2tpv3: [
    'tunnels of L2TPv3 are left to the kernel',
    "make one with 'ip l2tp', bridge it, and use -netdev tap or bridge",
  ],
  vde: ['a VDE switch is not joined', 'use -netdev stream to a unix socket, or -netdev tap'],
  'vhost-vdpa': ['guest RAM is not handed to vDPA devices of the host', 'use -netdev vhost-user, or -netdev tap'],
};

type Host = Pick<Program, 'backends' | 'objects' | 'machine' | 'events' | 'takeNamedFd' | 'chars' | 'report'>;

/** The host's side of the network cards: what `-netdev` and `netdev_add` make, by id. */
export class Nets implements Resource {
  readonly #program: Host;
  readonly #announcers = new Map<string | undefined, Announcer>();
  readonly #backends = new Map<string, NetBackend>();
  readonly #hubs = new Map<number, Hub>();
  #made = 0;

  constructor(program: Host) {
    this.#program = program;
    program.backends.provide('netdev', id => this.#claim(id), this);
  }

  /** All of them, in the order in which they were made. */
  get all(): readonly NetBackend[] {
    return [...this.#backends.values()];
  }

  get(id: string): NetBackend | undefined {
    return this.#backends.get(id);
  }

  /** The user-mode networks among them. */
  get users(): readonly UserNet[] {
    return this.all.filter(isUser);
  }

  /** The older syntax, where a parameter may come several times: `user,id=n,hostfwd=...,hostfwd=...`. */
  addText(text: string): Promise<NetBackend> {
    return this.addOpts(parseOpts(GROUPS.netdev, text));
  }

  addOpts(opts: Opts): Promise<NetBackend> {
    const object: Record<string, Json> = {};
    for (const { key, value } of opts.values) {
      if (!LISTS.has(key)) object[key] = value;
      else {
        const list = object[key];
        object[key] = [...(Array.isArray(list) ? list : []), { str: value }];
      }
    }
    if (opts.id !== undefined) object['id'] = opts.id;
    return this.addObject(object, true);
  }

  /** `-nic`: a backend and the card on it. */
  async addNic(opts: Opts): Promise<NicConfig[]> {
    const { type, card, rest } = splitNic(opts);
    if (type === 'none') return [];
    const { id } = await this.addOpts(rest(this.#newId()));
    return [{ ...card, netdev: id }];
  }

  /** `-net`: a card, or a backend, on hub 0. */
  async addLegacy(opts: Opts): Promise<NicConfig[]> {
    const { type, card, rest } = splitNic(opts);
    if (type === 'none') return [];
    const given = opts.string('netdev');
    if (type === 'nic') return [{ ...card, netdev: given ?? this.#hubPort().id }];
    const backend = await this.addOpts(rest(this.#newId()));
    if (backend.queues !== undefined && backend.queues.length > 1) {
      await this.remove(backend.id);
      throw new QmpError('Multiqueue tap cannot be used with hubs');
    }
    backend.client.connect(this.#hubPort().client);
    return [];
  }

  /** A card on a user-mode network; alone where the host has none. */
  async addDefault(): Promise<NicConfig[]> {
    const port = this.#hubPort();
    try {
      const backend = await this.add({ type: 'user', id: this.#newId() });
      backend.client.connect(this.#hubPort().client);
    } catch (error) {
      if (!(error instanceof SouthbridgeError)) throw error;
    }
    return [{ netdev: port.id, model: undefined, mac: undefined }];
  }

  #hubPort(): HubPort {
    const hub = this.#hubs.get(0) ?? new Hub(0);
    this.#hubs.set(0, hub);
    const port = hub.addPort(`hub0port${hub.ports.size}`);
    this.#backends.set(port.id, port);
    return port;
  }

  /** As QEMU makes ids up: a mark that the user cannot give, a number, and two digits against guessing. */
  #newId(): string {
    return `#net${this.#made++}${String(this.#backends.size).padStart(2, '0')}`;
  }

  /** JSON, or with `keyval` strings that the schema converts. */
  addObject(object: JsonObject, keyval = false): Promise<NetBackend> {
    const type = String(object['type']);
    const [reason, hint] = NOT_HERE[type] ?? [];
    if (reason !== undefined) throw new SouthbridgeError('ERR_NETDEV', `${type}: ${reason}`, hint);
    return this.add(Netdev.read(object, keyval ? KEYVAL_ROOT : ROOT));
  }

  /** @throws QmpError or SouthbridgeError with QEMU's text */
  async add(spec: NetdevSpec): Promise<NetBackend> {
    if (this.#backends.has(spec.id)) throw new QmpError(`Duplicate ID '${spec.id}' for netdev`);
    const backend = await this.#make(spec);
    this.#backends.set(spec.id, backend);
    return backend;
  }

  async remove(id: string): Promise<void> {
    const backend = this.#backends.get(id);
    if (backend === undefined) throw deviceNotFound(id);
    this.#backends.delete(id);
    const { filters } = backend.client;
    if (filters.length > 0) {
      const objects = await this.#program.objects();
      for (const filter of [...filters]) objects.remove(filter.id);
    }
    backend.dispose();
  }

  /** Announces the cards; of each `id`, and of the machine's own without one, there is one series at a time. */
  announce(id: string | undefined, options: AnnounceOptions): void {
    this.#announcers.get(id)?.dispose();
    this.#announcers.delete(id);
    if (options.rounds <= 0) return;
    const { netCards } = this.#program.machine.services;
    this.#announcers.set(id, new Announcer(netCards, options, () => this.#announcers.delete(id)));
  }

  /** `set_link`; a backend's card goes along with it. */
  setLink(name: string, up: boolean): void {
    const clients = this.#clientsNamed(name);
    if (clients === undefined) throw deviceNotFound(name);
    for (const client of clients) {
      client.setLink(up);
      const { peer } = client;
      if (peer !== undefined && this.#isCard(peer)) peer.setLink(up);
    }
  }

  /** `info network`: hubs with what is on their ports, then every card with its backend, and what has none. */
  describe(): string {
    let text = '';
    for (const hub of [...this.#hubs.values()].reverse()) {
      text += `hub ${hub.number}\n`;
      for (const { client } of [...hub.ports].reverse()) {
        text += ` \\ ${client.name}${client.peer === undefined ? '\n' : `: ${this.#line(client.peer)}`}`;
      }
    }
    const onHub = ({ model, peer }: NetClient): boolean => model === 'hubport' || peer?.model === 'hubport';
    for (const backend of this.all) {
      for (const [index, client] of (backend.queues ?? [backend.client]).entries()) {
        if (client.peer === undefined && !onHub(client)) text += this.#line(client, index);
      }
    }
    for (const { queues } of this.#cards) {
      for (const [index, client] of queues.entries()) {
        if (onHub(client)) continue;
        text += this.#line(client, index);
        if (client.peer !== undefined) text += ` \\ ${this.#line(client.peer, index)}`;
      }
    }
    return text;
  }

  /** @param index which of its queues it is the end of */
  #line(client: NetClient, index = 0): string {
    const { name, model, description, filters } = client;
    const line = `${name}: index=${index},type=${this.#isCard(client) ? 'nic' : model},${description}\n`;
    return filters.length === 0 ? line : `${line}filters:\n${filters.map(filter => `${filter.describe()}\n`).join('')}`;
  }

  get #cards(): Iterable<NetCard> {
    return this.#program.machine.services.netCards.all;
  }

  #isCard(client: NetClient): boolean {
    for (const card of this.#cards) if (card.queues.includes(client)) return true;
    return false;
  }

  /** The user-mode network of that id, or the first one: `hostfwd_add`, `info usernet`. */
  user(id?: string): UserNet {
    const found = id === undefined ? this.users[0] : this.#backends.get(id);
    if (found === undefined) {
      throw new QmpError(id === undefined ? 'user mode network stack not in use' : `unrecognized netdev id '${id}'`);
    }
    if (!isUser(found)) throw new QmpError('invalid device specified');
    return found;
  }

  dispose(): void {
    for (const announcer of this.#announcers.values()) announcer.dispose();
    for (const backend of this.#backends.values()) backend.dispose();
    this.#backends.clear();
  }

  async #make(spec: NetdevSpec): Promise<NetBackend> {
    switch (spec.type) {
      case 'user': {
        const { hostfwd, guestfwd, dnssearch, 'ipv6-prefixlen': prefixLength, ...rest } = spec;
        const texts = (list: typeof hostfwd): readonly string[] | undefined => list?.map(({ str }) => str);
        return new UserNet(spec.id, {
          ...rest,
          hostfwd: texts(hostfwd),
          guestfwd: texts(guestfwd),
          dnssearch: texts(dnssearch),
          'ipv6-prefixlen': prefixLength === undefined ? undefined : Number(prefixLength),
        });
      }
      case 'tap':
        return TapNet.open(spec.id, {
          ...spec,
          sndbuf: spec.sndbuf === undefined ? undefined : Number(spec.sndbuf),
          fd: spec.fd === undefined ? undefined : this.#descriptor(spec.fd),
          fds: spec.fds?.split(':').map(name => this.#descriptor(name)),
        });
      case 'socket':
        return SocketNet.open(spec.id, {
          ...spec,
          fd: spec.fd === undefined ? undefined : this.#descriptor(spec.fd),
        });
      case 'stream': {
        const { id } = spec;
        return new StreamNet(id, this.#address(spec.addr), spec.server ?? false, {
          connected: address =>
            this.#program.events.emit('NETDEV_STREAM_CONNECTED', { 'netdev-id': id, addr: shown(address) }),
          disconnected: () => this.#program.events.emit('NETDEV_STREAM_DISCONNECTED', { 'netdev-id': id }),
        });
      }
      case 'dgram':
        return DgramNet.open(spec.id, {
          local: spec.local && this.#address(spec.local),
          remote: spec.remote && this.#address(spec.remote),
        });
      case 'hubport': {
        const hub = this.#hubs.get(spec.hubid) ?? new Hub(spec.hubid);
        this.#hubs.set(spec.hubid, hub);
        return hub.addPort(spec.id);
      }
      case 'vhost-user': {
        const { chars, report } = this.#program;
        if (chars.get(spec.chardev) === undefined) throw new QmpError(`chardev "${spec.chardev}" not found`);
        return VhostUserNet.open(spec.id, chars.claim(spec.chardev), Number(spec.queues ?? 1), {
          memory: () => this.#program.machine.services.sharedMemory,
          warn: message => report.warn(message),
        });
      }
      case 'bridge':
        return TapNet.onBridge(spec.id, spec.br, spec.helper);
      default:
        throw new QmpError(`Parameter 'type' expects a netdev backend type: '${spec.type}' is not supported`);
    }
  }

  /** A descriptor is one that a client has passed under a name, or that this process was started with. */
  #address(address: Value<typeof SocketAddress>): NetAddress {
    if (address.type !== 'fd') return address;
    return { type: 'fd', fd: this.#descriptor(address.str) };
  }

  /** @throws QmpError with QEMU's text */
  #descriptor(name: string): number {
    const fd = /^\d+$/.test(name) ? Number(name) : this.#program.takeNamedFd(name);
    if (fd === undefined) throw new QmpError(`File descriptor named '${name}' has not been found`);
    return fd;
  }

  #claim(id: string): NetBackend {
    const backend = this.#backends.get(id);
    if (backend === undefined) throw new SouthbridgeError('ERR_BACKEND', `can't find value '${id}'`);
    if (backend.client.peer !== undefined) {
      throw new SouthbridgeError('ERR_BACKEND', `can't take value '${id}', it's in use`);
    }
    return backend;
  }

  #clientsNamed(name: string): readonly NetClient[] | undefined {
    const backend = this.#backends.get(name);
    if (backend !== undefined) return backend.queues ?? [backend.client];
    for (const { client, queues } of this.#cards) if (client.name === name) return queues;
    return undefined;
  }
}

/** The card's parameters apart from the backend's. */
function splitNic(opts: Opts): {
  type: string | undefined;
  card: Omit<NicConfig, 'netdev'>;
  rest: (id: string) => Opts;
} {
  const mac = opts.string('mac') ?? opts.string('macaddr');
  return {
    type: opts.string('type'),
    card: { model: opts.string('model'), mac, addr: opts.string('addr'), vectors: opts.string('vectors') },
    rest: id => {
      const backend = new Opts(GROUPS.netdev, opts.id);
      for (const { key, value } of opts.values) if (!CARD_KEYS.has(key)) backend.set(key, value);
      if (opts.id === undefined) backend.values.push({ key: 'id', value: id });
      return backend;
    },
  };
}

const shown = (address: NetAddress): Value<typeof SocketAddress> =>
  address.type === 'fd' ? { type: 'fd', str: String(address.fd) } : address;

const isUser = (backend: NetBackend): backend is UserNet => backend instanceof UserNet;
