import type { Program } from '../program.ts';
import type { Value } from '../qapi/declare.ts';
import { QmpError } from '../qapi/error.ts';
import { MigrationCapability, type MigrationParameters } from '../qapi/schema/migration.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

type Parameters = Value<typeof MigrationParameters>;

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
  'block-bitmap-mapping': [],
};

/** Capabilities that this program can switch on. */
const SUPPORTED: ReadonlySet<string> = new Set([
  'events',
  'pause-before-switchover',
  'late-block-activate',
  'validate-uuid',
]);

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
];

export function migrationCommands(program: Program): Handlers<QmpSession> {
  const capabilities = new Map<(typeof MigrationCapability.values)[number], boolean>(
    MigrationCapability.values.map(name => [name, false]),
  );
  let parameters = DEFAULTS;
  let incoming = false;
  return {
    'query-migrate-capabilities': () => [...capabilities].map(([capability, state]) => ({ capability, state })),
    'migrate-set-capabilities': async ({ capabilities: given }) => {
      for (const { capability, state } of given) {
        if (state && !SUPPORTED.has(capability))
          throw new QmpError(`Capability '${capability}' is not supported by this program`);
      }
      for (const { capability, state } of given) capabilities.set(capability, state);
      const migration = await program.migration();
      migration.events = capabilities.get('events') ?? false;
      migration.validateUuid = capabilities.get('validate-uuid') ?? false;
    },
    'query-migrate-parameters': () => parameters,
    'migrate-set-parameters': given => {
      for (const [name, min, max, text] of LIMITS) {
        const value = (given as Readonly<Record<string, unknown>>)[name];
        if (value !== undefined && (Number(value) < min || Number(value) > max))
          throw new QmpError(`Parameter '${name.replaceAll('-', '_')}' expects ${text}`);
      }
      parameters = { ...parameters, ...(given as Parameters) };
    },
    'query-migrate': async () => (await program.migration()).info,
    migrate_cancel: async () => (await program.migration()).cancel(),
    'migrate-continue': () => {
      throw new QmpError('Migration not in expected state: none');
    },
    'migrate-incoming': async ({ uri }) => {
      if (program.line.last('incoming') !== 'defer')
        throw new QmpError("'-incoming' was not specified on the command line");
      if (incoming) throw new QmpError('The incoming migration has already been started');
      incoming = true;
      const migration = await program.migration();
      void migration.receive(uri).catch(error => program.report.error(error));
    },
    migrate: async ({ uri }) => (await program.migration()).start(uri),
  };
}
