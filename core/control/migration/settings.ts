import { checkMapping } from '../../block/bitmap-migration.ts';
import type { Value } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import { MigrationCapability, type MigrationParameters } from '../qapi/schema/migration.ts';

export type Parameters = Value<typeof MigrationParameters>;
export type Capability = (typeof MigrationCapability.values)[number];

/** QEMU 7.2's defaults. */
const DEFAULTS: Parameters = {
  'announce-initial': 50,
  'announce-max': 550,
  'announce-rounds': 5,
  'announce-step': 100,
  'compress-level': 1,
  'compress-threads': 8,
  'compress-wait-thread': true,
  'decompress-threads': 2,
  'throttle-trigger-threshold': 50,
  'cpu-throttle-initial': 20,
  'cpu-throttle-increment': 10,
  'cpu-throttle-tailslow': false,
  'tls-creds': '',
  'tls-hostname': '',
  'tls-authz': '',
  'max-bandwidth': 134217728,
  'downtime-limit': 300,
  'x-checkpoint-delay': 20000,
  'block-incremental': false,
  'multifd-channels': 2,
  'xbzrle-cache-size': 67108864,
  'max-postcopy-bandwidth': 0,
  'max-cpu-throttle': 99,
  'multifd-compression': 'none',
  'multifd-zlib-level': 1,
  'multifd-zstd-level': 1,
};

/** Capabilities that this program can switch on. */
const SUPPORTED: ReadonlySet<string> = new Set([
  'auto-converge',
  'dirty-bitmaps',
  'events',
  'late-block-activate',
  'multifd',
  'pause-before-switchover',
  'postcopy-blocktime',
  'postcopy-preempt',
  'postcopy-ram',
  'release-ram',
  'return-path',
  'validate-uuid',
  'xbzrle',
  'zero-blocks',
]);

/** What QEMU says where it was built without a capability. */
const REFUSALS: Readonly<Record<string, string>> = {
  block: 'QEMU compiled without old-style (blk/-b, inc/-i) block migration',
  'x-colo': 'QEMU compiled without replication module',
};

/** Limits of parameters, in QEMU's words. */
const LIMITS: readonly (readonly [name: keyof Parameters, min: number, max: number, text: string])[] = [
  ['compress-level', 0, 9, 'a value between 0 and 9'],
  ['compress-threads', 1, 255, 'a value between 1 and 255'],
  ['decompress-threads', 1, 255, 'a value between 1 and 255'],
  ['throttle-trigger-threshold', 1, 100, 'an integer in the range of 1 to 100'],
  ['cpu-throttle-initial', 1, 99, 'an integer in the range of 1 to 99'],
  ['cpu-throttle-increment', 1, 99, 'an integer in the range of 1 to 99'],
  ['downtime-limit', 0, 2_000_000, 'an integer in the range of 0 to 2000000 ms'],
  ['multifd-channels', 1, 255, 'a value between 1 and 255'],
  ['multifd-zlib-level', 0, 9, 'a value between 0 and 9'],
  ['multifd-zstd-level', 0, 20, 'a value between 0 and 20'],
];

/** What management tools have said about how to migrate. */
export class MigrationSettings {
  readonly #capabilities = new Map<Capability, boolean>(MigrationCapability.values.map(name => [name, false]));
  parameters = DEFAULTS;

  has(name: Capability): boolean {
    return this.#capabilities.get(name) ?? false;
  }

  get capabilities(): { capability: Capability; state: boolean }[] {
    return [...this.#capabilities].map(([capability, state]) => ({ capability, state }));
  }

  /** @throws QmpError where one of them cannot be; then none is changed */
  setCapabilities(given: readonly { readonly capability: Capability; readonly state: boolean }[]): void {
    for (const { capability, state } of given) {
      if (!state || SUPPORTED.has(capability)) continue;
      throw new QmpError(REFUSALS[capability] ?? `Capability '${capability}' is not supported by this program`);
    }
    const after = new Map([
      ...this.#capabilities,
      ...given.map(({ capability, state }) => [capability, state] as const),
    ]);
    if (after.get('postcopy-preempt') === true && after.get('postcopy-ram') !== true)
      throw new QmpError('Postcopy preempt requires postcopy-ram');
    for (const [capability, state] of after) this.#capabilities.set(capability, state);
  }

  /** @throws QmpError where one of them is out of its range; then none is changed */
  setParameters(given: Readonly<Record<string, unknown>>): void {
    for (const [name, min, max, text] of LIMITS) {
      const value = given[name];
      if (value !== undefined && (Number(value) < min || Number(value) > max))
        throw new QmpError(`Parameter '${name.replaceAll('-', '_')}' expects ${text}`);
    }
    const initial = Number(given['cpu-throttle-initial'] ?? this.parameters['cpu-throttle-initial']);
    const limit = given['max-cpu-throttle'];
    if (limit !== undefined && (Number(limit) < initial || Number(limit) > 99))
      throw new QmpError("Parameter 'max_cpu_throttle' expects an integer in the range of cpu_throttle_initial to 99");
    const cache = given['xbzrle-cache-size'];
    if (cache !== undefined && !isCacheSize(BigInt(cache as number | bigint)))
      throw new QmpError("Parameter 'xbzrle_cache_size' expects a power of two no less than the target page size");
    const mapping = (given as Parameters)['block-bitmap-mapping'];
    if (mapping !== undefined) checkMapping(mapping);
    this.parameters = { ...this.parameters, ...(given as Parameters) };
    // Null takes back what was set, and reads as nothing.
    for (const name of ['tls-creds', 'tls-hostname', 'tls-authz'] as const)
      if (given[name] === null) this.parameters = { ...this.parameters, [name]: '' };
  }

  /** One that is text; empty where it is not set. */
  text(name: 'tls-creds' | 'tls-hostname' | 'tls-authz'): string {
    return this.parameters[name] ?? '';
  }

  number(name: keyof Parameters): number {
    return Number(this.parameters[name] ?? 0);
  }
}

const isCacheSize = (bytes: bigint): boolean => bytes >= 4096n && (bytes & (bytes - 1n)) === 0n;
