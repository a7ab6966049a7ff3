import type { Value } from '../../qapi/declare.ts';
import { MigrationCapability, type MigrationInfo, type MigrationParameters } from '../../qapi/schema/migration.ts';
import { type HmpCommand, hmp } from '../command.ts';

const onOff = (value: unknown): string => (value === true ? 'on' : 'off');

/** Parameters in the order in which QEMU lists them, with what follows the value. */
const PARAMETERS: readonly (readonly [name: keyof Value<typeof MigrationParameters>, kind: string])[] = [
  ['announce-initial', ' ms'],
  ['announce-max', ' ms'],
  ['announce-rounds', ''],
  ['announce-step', ' ms'],
  ['compress-level', ''],
  ['compress-threads', ''],
  ['compress-wait-thread', 'switch'],
  ['decompress-threads', ''],
  ['throttle-trigger-threshold', ''],
  ['cpu-throttle-initial', ''],
  ['cpu-throttle-increment', ''],
  ['cpu-throttle-tailslow', 'switch'],
  ['max-cpu-throttle', ''],
  ['tls-creds', 'quoted'],
  ['tls-hostname', 'quoted'],
  ['max-bandwidth', ' bytes/second'],
  ['downtime-limit', ' ms'],
  ['x-checkpoint-delay', ' ms'],
  ['block-incremental', 'switch'],
  ['multifd-channels', ''],
  ['multifd-compression', ''],
  ['xbzrle-cache-size', ' bytes'],
  ['max-postcopy-bandwidth', ''],
  ['tls-authz', 'quoted'],
];

function parameterLine(name: string, value: unknown, kind: string): string {
  const shown = kind === 'switch' ? onOff(value) : kind === 'quoted' ? `'${String(value)}'` : `${String(value)}${kind}`;
  return `${name}: ${shown}\n`;
}

function* mappingLines(mapping: Value<typeof MigrationParameters>['block-bitmap-mapping']): Generator<string> {
  if (mapping === undefined) return;
  yield 'block-bitmap-mapping:\n';
  for (const { 'node-name': node, alias, bitmaps } of mapping) {
    yield `  '${node}' -> '${alias}'\n`;
    for (const bitmap of bitmaps) yield `    '${bitmap.name}' -> '${bitmap.alias}'\n`;
  }
}

/** Moving the machine. */
export const MIGRATION_INFO: readonly HmpCommand[] = [
  hmp('migrate', '', '', 'how far a migration is', async ({ program }) => {
    const { info } = await program.migration();
    return `globals:
store-global-state: on
only-migratable: ${onOff(program.line.has('only-migratable'))}
send-configuration: on
send-section-footer: on
decompress-error-check: on
clear-bitmap-shift: 18
${migrationReport(info)}`;
  }),
  hmp('migrate_capabilities', '', '', 'what migration may do', async context => {
    const list = (await context.qmp('query-migrate-capabilities')) as readonly { capability: string; state: boolean }[];
    const states = new Map(list.map(({ capability, state }) => [capability, state]));
    return MigrationCapability.values.map(name => `${name}: ${onOff(states.get(name))}\n`).join('');
  }),
  hmp('migrate_parameters', '', '', 'how migration is to go', async context => {
    const values = (await context.qmp('query-migrate-parameters')) as Value<typeof MigrationParameters>;
    const lines = PARAMETERS.map(([name, kind]) => parameterLine(name, values[name], kind));
    return [...lines, ...mappingLines(values['block-bitmap-mapping'])].join('');
  }),
];

function migrationReport(info: Value<typeof MigrationInfo>): string {
  const { status, ram, 'error-desc': error } = info;
  if (status === undefined) return '';
  const lines = [`Migration status: ${status}${error === undefined ? '' : ` (${error})`}`];
  const time = (name: 'total-time' | 'expected-downtime' | 'downtime' | 'setup-time', title: string): void => {
    if (info[name] !== undefined) lines.push(`${title}: ${info[name]} ms`);
  };
  time('total-time', 'total time');
  time('expected-downtime', 'expected downtime');
  time('downtime', 'downtime');
  time('setup-time', 'setup');
  if (ram !== undefined) {
    const kib = (bytes: number | bigint): number => Math.floor(Number(bytes) / 1024);
    lines.push(
      `transferred ram: ${kib(ram.transferred)} kbytes`,
      `throughput: ${Number(ram.mbps).toFixed(2)} mbps`,
      `remaining ram: ${kib(ram.remaining)} kbytes`,
      `total ram: ${kib(ram.total)} kbytes`,
      `duplicate: ${ram.duplicate} pages`,
      `skipped: ${ram.skipped} pages`,
      `normal: ${ram.normal} pages`,
      `normal bytes: ${kib(ram['normal-bytes'])} kbytes`,
      `dirty sync count: ${ram['dirty-sync-count']}`,
      `page size: ${kib(ram['page-size'])} kbytes`,
    );
  }
  return `${lines.join('\n')}\n`;
}
