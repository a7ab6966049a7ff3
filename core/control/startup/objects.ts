import { readFileSync } from 'node:fs';
import { ObjectNode, type PropertyValue } from '../../device/object.ts';
import { SouthbridgeError } from '../../errors.ts';
import type { MemoryBackend } from '../../memory/memory-backend.ts';
import type { Json, JsonObject } from '../json/value.ts';
import type { Value } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import { ObjectOptions } from '../qapi/schema/qom.ts';
import { KEYVAL_ROOT, ROOT } from '../qapi/types.ts';
import { MEMORY_OBJECTS, memoryOf, openMemory } from './memory-objects.ts';
import type { PluginObject, PluginObjects } from './plugin-object.ts';

export type ObjectSpec = Value<typeof ObjectOptions>;

/** An object that the user made (`-object`, `object-add`). */
export class UserObject extends ObjectNode {
  readonly id: string;
  readonly spec: ObjectSpec;
  /** Undoes what creating it did outside. */
  onDelete: (() => void) | undefined;
  /** How many others refer to it; it cannot be deleted while there are any. */
  users = 0;
  /** Whether something that is no object makes use of it. */
  inUse: () => boolean = () => false;

  constructor(spec: ObjectSpec) {
    super(spec['qom-type']);
    this.id = spec.id;
    this.spec = spec;
    const values: Readonly<Record<string, unknown>> = { ...DEFAULTS[spec['qom-type']], ...spec };
    for (const [name, value] of Object.entries(values)) {
      if (name === 'qom-type' || name === 'id') continue;
      const type = PROPERTY_TYPES[spec['qom-type']]?.[name] ?? typeName(value);
      this.defineProperty({ name, type, get: () => value as PropertyValue });
    }
    this.defineProperty({ name: 'type', type: 'string', get: () => this.typeName });
  }

  override get typeChain(): readonly string[] {
    return [this.typeName, ...(PARENTS[this.typeName] ?? []), 'object'];
  }
}

/** Ancestors of the types of user objects. */
export const PARENTS: Readonly<Record<string, readonly string[]>> = {
  'memory-backend-ram': ['memory-backend'],
  'memory-backend-file': ['memory-backend'],
  'memory-backend-memfd': ['memory-backend'],
  'cryptodev-backend-builtin': ['cryptodev-backend'],
  'rng-egd': ['rng-backend'],
  'rng-random': ['rng-backend'],
  'rng-builtin': ['rng-backend'],
  iothread: ['event-loop-base'],
  secret: ['secret_common'],
  'filter-buffer': ['netfilter'],
  'filter-dump': ['netfilter'],
  'filter-mirror': ['netfilter'],
  'filter-redirector': ['netfilter'],
  'authz-list': ['authz'],
  'authz-listfile': ['authz'],
  'authz-simple': ['authz'],
  'tls-creds-anon': ['tls-creds'],
  'tls-creds-psk': ['tls-creds'],
  'tls-creds-x509': ['tls-creds'],
};

const MEMORY_DEFAULTS = {
  dump: true,
  'host-nodes': [],
  merge: true,
  policy: 'default',
  prealloc: false,
  'prealloc-threads': 1,
  reserve: true,
  share: false,
} as const;
/** Credentials are loaded as soon as there is an object. */
const TLS_DEFAULTS = { dir: '', endpoint: 'client', loaded: true, priority: '', 'verify-peer': true } as const;
const DEFAULTS: Readonly<Record<string, Readonly<Record<string, Json>>>> = {
  'memory-backend-ram': MEMORY_DEFAULTS,
  'memory-backend-file': { ...MEMORY_DEFAULTS, align: 0, 'discard-data': false, readonly: false },
  'memory-backend-memfd': { ...MEMORY_DEFAULTS, share: true, seal: true, hugetlb: false, hugetlbsize: 0 },
  'cryptodev-backend-builtin': { queues: 1 },
  'rng-random': { filename: '/dev/urandom' },
  'authz-list': { policy: 'deny', rules: [] },
  'authz-listfile': { refresh: true },
  'tls-creds-anon': TLS_DEFAULTS,
  'tls-creds-psk': { ...TLS_DEFAULTS, username: '' },
  'tls-creds-x509': { ...TLS_DEFAULTS, passwordid: '', 'sanity-check': true },
};

/** Types of properties that are neither a number nor plain text. */
const PROPERTY_TYPES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  'authz-list': { policy: 'QAuthZListPolicy', rules: 'QAuthZListRule' },
  'tls-creds-anon': { endpoint: 'QCryptoTLSCredsEndpoint' },
  'tls-creds-psk': { endpoint: 'QCryptoTLSCredsEndpoint' },
  'tls-creds-x509': { endpoint: 'QCryptoTLSCredsEndpoint' },
};

function typeName(value: unknown): string {
  return typeof value === 'boolean'
    ? 'bool'
    : typeof value === 'number' || typeof value === 'bigint'
      ? 'int'
      : 'string';
}

/** What sits on a network backend's wire. */
export const NET_FILTERS = ['filter-buffer', 'filter-dump', 'filter-mirror', 'filter-redirector'] as const;

/** Sources of random numbers. */
export const RNGS = ['rng-builtin', 'rng-egd', 'rng-random'] as const;

/** Credentials for TLS, and decisions over who may come in. */
export const TLS_CREDENTIALS = ['tls-creds-anon', 'tls-creds-psk', 'tls-creds-x509'] as const;
export const AUTHORIZERS = ['authz-list', 'authz-listfile', 'authz-simple'] as const;

/** Types of QEMU's that are not here, and what to take instead. */
const ABSENT: ReadonlyMap<string, string> = new Map([
  ['authz-pam', 'this program does not ask PAM: take authz-simple, authz-list or authz-listfile'],
]);

/** Types that are made after devices' backends, as they refer to them. */
const LATE = /^(filter-|qtest$|rng-egd$|cryptodev|colo|can-|x-)/;

export const isLate = (spec: JsonObject): boolean => LATE.test(String(spec['qom-type']));

/** What creating an object of a type does beyond remembering its values. */
export type ObjectFactory = (object: UserObject) => void | Promise<void>;

/** All user objects. */
export class UserObjects {
  readonly #objects = new Map<string, UserObject>();
  readonly #ofPlugins = new Map<string, PluginObject>();
  readonly #factories = new Map<string, ObjectFactory>();
  readonly #plugins: PluginObjects;
  #home: ObjectNode = new ObjectNode('container');

  constructor(plugins: PluginObjects) {
    this.#plugins = plugins;
    for (const type of MEMORY_OBJECTS) this.provide(type, openMemory);
  }

  /** Puts the objects, those there are and those to come, under `home`: the machine's `/objects`. */
  moveTo(home: ObjectNode): void {
    for (const object of [...this.#objects.values(), ...this.#ofPlugins.values()]) {
      this.#home.removeChild(object);
      home.addChild(object.id, object);
    }
    this.#home = home;
  }

  provide(type: string, factory: ObjectFactory): void {
    this.#factories.set(type, factory);
  }

  get(id: string): UserObject | undefined {
    return this.#objects.get(id);
  }

  get all(): readonly UserObject[] {
    return [...this.#objects.values()];
  }

  /** Reads the values of `-object`, which are text where `keyval` is set. */
  static parse(value: JsonObject, keyval: boolean): ObjectSpec {
    return ObjectOptions.read(value, keyval ? KEYVAL_ROOT : ROOT) as ObjectSpec;
  }

  /** The memory that the object `id` stands for. */
  memory(id: string): MemoryBackend {
    const object = this.#objects.get(id);
    if (object === undefined || !('size' in object.spec)) {
      throw new SouthbridgeError(
        'ERR_BACKEND',
        `memory backend '${id}' not found`,
        `-object memory-backend-ram,id=${id},size=...`,
      );
    }
    return memoryOf(object, Number(object.spec.size));
  }

  /** Makes an object of the values that the user gave: one of a plugin's types checks them itself. */
  async addFrom(value: JsonObject, keyval: boolean): Promise<void> {
    if (!this.#plugins.accepts(value)) {
      const type = String(value['qom-type']);
      const instead = ABSENT.get(type);
      if (instead !== undefined)
        throw new SouthbridgeError('ERR_OBJECT_TYPE', `Objects of type '${type}' are not supported`, instead);
      await this.add(UserObjects.parse(value, keyval));
      return;
    }
    this.#checkId(String(value['id'] ?? ''));
    const object = await this.#plugins.make(value);
    this.#ofPlugins.set(object.id, object);
    this.#home.addChild(object.id, object);
  }

  async add(spec: ObjectSpec): Promise<UserObject> {
    this.#checkId(spec.id);
    check(spec);
    const object = new UserObject(spec);
    await this.#factories.get(spec['qom-type'])?.(object);
    this.#objects.set(spec.id, object);
    this.#home.addChild(spec.id, object);
    return object;
  }

  remove(id: string): void {
    const ofPlugin = this.#ofPlugins.get(id);
    if (ofPlugin !== undefined) {
      this.#plugins.drop(ofPlugin);
      this.#ofPlugins.delete(id);
      this.#home.removeChild(ofPlugin);
      return;
    }
    const object = this.#objects.get(id);
    if (object === undefined) throw new QmpError(`object '${id}' not found`);
    if (object.users > 0 || object.inUse()) throw new QmpError(`object '${id}' is in use, can not be deleted`);
    object.onDelete?.();
    this.#objects.delete(id);
    this.#home.removeChild(object);
  }

  #checkId(id: string): void {
    if (!/^[A-Za-z][A-Za-z0-9\-._]*$/.test(id)) throw new QmpError("Parameter 'id' expects an identifier");
    if (this.#objects.has(id) || this.#ofPlugins.has(id))
      throw new QmpError(`attempt to add duplicate property '${id}' to object (type 'container')`);
  }
}

/** What a type demands of its values, beyond their form. */
function check(spec: ObjectSpec): void {
  if (spec['qom-type'].startsWith('memory-backend-') && 'size' in spec && Number(spec.size) === 0) {
    throw new QmpError(`property 'size' of ${spec['qom-type']} doesn't take value '0'`);
  }
}

/** The bytes of a secret: given directly, or in a file, raw or base64. */
export function secretBytes(object: UserObject): Uint8Array {
  const { spec } = object;
  if (spec['qom-type'] !== 'secret')
    throw new SouthbridgeError('ERR_SECRET', `Object with id '${object.id}' is not a secret`);
  const raw = spec.file !== undefined ? readFileSync(spec.file) : Buffer.from(spec.data ?? '');
  return spec.format === 'base64' ? Buffer.from(raw.toString('latin1'), 'base64') : raw;
}
