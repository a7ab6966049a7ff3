import { didYouMean } from '../../../errors.ts';
import { parseSize } from '../../options/numbers.ts';
import { QmpError } from '../../qapi/error.ts';
import { MigrationCapability } from '../../qapi/schema/migration.ts';
import { type HmpCommand, hmp, viaQmp } from '../command.ts';

/** Parameters whose values are sizes, with the unit of a bare number; the others are numbers, switches or text. */
const SIZES: Readonly<Record<string, 'B' | 'M'>> = {
  'max-bandwidth': 'M',
  'xbzrle-cache-size': 'B',
  'max-postcopy-bandwidth': 'B',
  'avail-switchover-bandwidth': 'B',
};
const SWITCHES = new Set(['compress-wait-thread', 'cpu-throttle-tailslow', 'block-incremental']);
const WORDS = new Set(['tls-creds', 'tls-hostname', 'tls-authz', 'multifd-compression']);

function parameterValue(name: string, text: string): string | bigint | boolean {
  if (WORDS.has(name)) return text;
  if (SWITCHES.has(name)) {
    if (text !== 'on' && text !== 'off') throw new QmpError(`Parameter '${name}' expects 'on' or 'off'`);
    return text === 'on';
  }
  const value = name in SIZES ? parseSize(text, SIZES[name]) : /^\d+$/.test(text) ? BigInt(text) : undefined;
  if (value === undefined)
    throw new QmpError(name in SIZES ? `Invalid size ${text}` : `Parameter '${name}' expects ${'an unsigned integer'}`);
  return value;
}

/** Snapshots of the whole machine, and moving it. */
export const MIGRATION_COMMANDS: readonly HmpCommand[] = [
  hmp(
    'savevm',
    'name:s?',
    'tag',
    'save the machine in its disks; without a tag under the time',
    async (context, args) => {
      const { saveVm } = await import('../../migration/snapshots.ts');
      await saveVm(context.program, args.optional('name'));
      return undefined;
    },
  ),
  hmp('loadvm', 'name:s', 'tag', 'make the machine what it was', async ({ program }, args) => {
    const { loadVm } = await import('../../migration/snapshots.ts');
    await loadVm(program, args.text('name'));
    return undefined;
  }),
  hmp('delvm', 'name:s', 'tag', 'delete a saved machine', async ({ program }, args) => {
    const { deleteVm } = await import('../../migration/snapshots.ts');
    await deleteVm(program, args.text('name'));
    return undefined;
  }),
  hmp(
    'migrate',
    'detach:-d,blk:-b,inc:-i,resume:-r,uri:s',
    '[-d] [-b] [-i] [-r] uri',
    'send the machine away (-d: do not wait; -b, -i: with its disks; -r: go on with one that was held)',
    async (context, args) => {
      await context.qmp('migrate', {
        uri: args.text('uri'),
        ...(args.flag('blk') && { blk: true }),
        ...(args.flag('inc') && { inc: true }),
        ...(args.flag('resume') && { resume: true }),
      });
      if (args.flag('detach')) return undefined;
      const migration = await context.program.migration();
      await migration.settled();
      const { status, 'error-desc': error } = migration.info;
      return status === 'failed' && error !== undefined ? `Error: ${error}\n` : undefined;
    },
  ),
  hmp('migrate_cancel', '', '', 'stop sending, and keep the machine', viaQmp('migrate_cancel')),
  hmp(
    'migrate_continue',
    'state:s',
    'state',
    'go on with a migration that waits',
    viaQmp('migrate-continue', args => ({ state: args.text('state') })),
  ),
  hmp(
    'migrate_incoming',
    'uri:s',
    'uri',
    'take a machine in, after -incoming defer',
    viaQmp('migrate-incoming', args => ({ uri: args.text('uri') })),
  ),
  hmp(
    'migrate_recover',
    'uri:s',
    'uri',
    'take up a postcopy migration that was interrupted',
    viaQmp('migrate-recover', args => ({ uri: args.text('uri') })),
  ),
  hmp('migrate_pause', '', '', 'interrupt a postcopy migration', viaQmp('migrate-pause')),
  hmp('migrate_start_postcopy', '', '', 'let the machine run on the other side now', viaQmp('migrate-start-postcopy')),
  hmp(
    'migrate_set_capability',
    'capability:s,state:b',
    'capability state',
    'switch a capability of migration',
    async (context, args) => {
      const name = args.text('capability');
      if (!MigrationCapability.values.some(known => known === name))
        throw new QmpError(`invalid parameter value '${name}'`);
      await context.qmp('migrate-set-capabilities', {
        capabilities: [{ capability: name, state: args.flag('state') }],
      });
      return undefined;
    },
  ),
  hmp(
    'migrate_set_parameter',
    'parameter:s,value:s',
    'parameter value',
    'set a parameter of migration',
    async (context, args) => {
      const name = args.text('parameter');
      const known = Object.keys((await context.qmp('query-migrate-parameters')) as object);
      if (!known.includes(name)) {
        const hint = didYouMean(name, known);
        throw new QmpError(`invalid parameter value '${name}'${hint === undefined ? '' : `, ${hint}`}`);
      }
      await context.qmp('migrate-set-parameters', { [name]: parameterValue(name, args.text('value')) });
      return undefined;
    },
  ),
  hmp(
    'client_migrate_info',
    'protocol:s,hostname:s,port:i?,tls-port:i?,cert-subject:s?',
    'protocol hostname [port [tls-port [cert-subject]]]',
    'tell clients of the screen where the machine goes',
    viaQmp('client_migrate_info', args => ({
      protocol: args.text('protocol'),
      hostname: args.text('hostname'),
      port: args.optionalInteger('port'),
      'tls-port': args.optionalInteger('tls-port'),
      'cert-subject': args.optional('cert-subject'),
    })),
  ),
  hmp('x_colo_lost_heartbeat', '', '', 'the other half of a pair is gone', viaQmp('x-colo-lost-heartbeat')),
  hmp(
    'announce_self',
    'interfaces:s?,id:s?',
    '[interfaces] [id]',
    'tell the network where the cards are, as after a migration',
    async (context, args) => {
      const parameters = (await context.qmp('query-migrate-parameters')) as Readonly<Record<string, unknown>>;
      const times = ['initial', 'max', 'rounds', 'step'].map(name => [name, parameters[`announce-${name}`]] as const);
      const [interfaces, id] = [args.optional('interfaces'), args.optional('id')];
      await context.qmp('announce-self', {
        ...Object.fromEntries(times),
        ...(interfaces !== undefined && { interfaces: interfaces.split(',') }),
        ...(id !== undefined && { id }),
      });
      return undefined;
    },
  ),
  hmp(
    'set_vcpu_dirty_limit',
    'dirty_rate:l,cpu_index:l?',
    'dirty_rate [cpu_index]',
    'limit how fast CPUs write memory',
    viaQmp('set-vcpu-dirty-limit', args => ({
      'dirty-rate': args.integer('dirty_rate'),
      'cpu-index': args.optionalInteger('cpu_index'),
    })),
  ),
  hmp('cancel_vcpu_dirty_limit', 'cpu_index:l?', '[cpu_index]', 'lift that limit', async (context, args) => {
    const index = args.optionalInteger('cpu_index');
    await context.qmp('cancel-vcpu-dirty-limit', index === undefined ? {} : { 'cpu-index': index });
    return "[Please use 'info vcpu_dirty_limit' to query dirty limit for virtual CPU]\n";
  }),
];
