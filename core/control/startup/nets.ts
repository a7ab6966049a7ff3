import { SouthbridgeError } from '../../errors.ts';
import { Hub } from '../../net/hub.ts';
import type { NetBackend, NetClient } from '../../net/net-client.ts';
import { SocketNet } from '../../net/socket.ts';
import { TapNet } from '../../net/tap.ts';
import { UserNet } from '../../net/user.ts';
import type { Json, JsonObject } from '../json/value.ts';
import { GROUPS } from '../options/groups.ts';
import { type Opts, parseOpts } from '../options/opts.ts';
import type { Program, Resource } from '../program.ts';
import type { Value } from '../qapi/declare.ts';
import { deviceNotFound, QmpError } from '../qapi/error.ts';
import { Netdev } from '../qapi/schema/net.ts';
import { KEYVAL_ROOT, ROOT } from '../qapi/types.ts';

type NetdevSpec = Value<typeof Netdev>;

/** Parameters that may be given several times, as lists of strings. */
const LISTS: ReadonlySet<string> = new Set(['hostfwd', 'guestfwd', 'dnssearch']);

/** The host's side of the network cards: what `-netdev` and `netdev_add` make, by id. */
export class Nets implements Resource {
  readonly #backends = new Map<string, NetBackend>();
  readonly #hubs = new Map<number, Hub>();

  constructor(program: Pick<Program, 'backends'>) {
    program.backends.provide('netdev', id => this.#claim(id), this);
  }

  /** All of them, in the order in which they were made. */
  get all(): readonly NetBackend[] {
    return [...this.#backends.values()];
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

  /** JSON, or with `keyval` strings that the schema converts. */
  addObject(object: JsonObject, keyval = false): Promise<NetBackend> {
    return this.add(Netdev.read(object, keyval ? KEYVAL_ROOT : ROOT));
  }

  /** @throws QmpError or SouthbridgeError with QEMU's text */
  async add(spec: NetdevSpec): Promise<NetBackend> {
    if (this.#backends.has(spec.id)) throw new QmpError(`Duplicate ID '${spec.id}' for netdev`);
    const backend = await this.#make(spec);
    this.#backends.set(spec.id, backend);
    return backend;
  }

  remove(id: string): void {
    const backend = this.#backends.get(id);
    if (backend === undefined) throw deviceNotFound(id);
    this.#backends.delete(id);
    backend.dispose();
  }

  /** `set_link`: both ends of the wire of that name see it. */
  setLink(name: string, up: boolean): void {
    const client = this.#clientNamed(name);
    if (client === undefined) throw deviceNotFound(name);
    client.setLink(up);
    client.peer?.setLink(up);
  }

  /** `info network`. */
  describe(): string {
    return this.all
      .map(({ client }) => {
        const { peer } = client;
        const own = `${client.name}: index=0,type=${client.model},${client.description}\n`;
        if (peer === undefined) return own;
        return `${peer.name}: index=0,type=nic,${peer.description}\n \\ ${own}`;
      })
      .join('');
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
        return new TapNet(spec.id, { ...spec, fd: spec.fd === undefined ? undefined : Number(spec.fd) });
      case 'socket':
        return SocketNet.open(spec.id, spec);
      case 'hubport': {
        const hub = this.#hubs.get(spec.hubid) ?? new Hub(spec.hubid);
        this.#hubs.set(spec.hubid, hub);
        return hub.addPort(spec.id);
      }
      default:
        throw new QmpError(`Parameter 'type' expects a netdev backend type: '${spec.type}' is not supported`);
    }
  }

  #claim(id: string): NetBackend {
    const backend = this.#backends.get(id);
    if (backend === undefined) throw new SouthbridgeError('ERR_BACKEND', `can't find value '${id}'`);
    if (backend.client.peer !== undefined) {
      throw new SouthbridgeError('ERR_BACKEND', `can't take value '${id}', it's in use`);
    }
    return backend;
  }

  #clientNamed(name: string): NetClient | undefined {
    for (const { client } of this.#backends.values()) {
      if (client.name === name) return client;
      if (client.peer?.name === name) return client.peer;
    }
    return undefined;
  }
}

const isUser = (backend: NetBackend): backend is UserNet => backend instanceof UserNet;
