import { canSandbox } from '../../host/sandbox.ts';
import type { TraceEvent } from '../../trace/trace.ts';
import { GROUPS, MACHINE_PARAMETERS } from '../options/groups.ts';
import type { ParameterSpec } from '../options/opts.ts';
import { OPTIONS } from '../options/table.ts';
import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

/** Options that clients must not take for usable, although the command line knows their names. */
const unsupported = (): Set<string> => new Set(['spice', ...(canSandbox() ? [] : ['sandbox'])]);

export function miscCommands(program: Program): Handlers<QmpSession> {
  const traced = (name: string): TraceEvent[] => {
    const pattern = new RegExp(
      `^${name
        .replace(/[.+^${}()|[\]\\]/g, '\\$&')
        .replaceAll('*', '.*')
        .replaceAll('?', '.')}$`,
    );
    const found = program.machine.trace.events().filter(event => pattern.test(event.name));
    if (found.length === 0 && !/[*?]/.test(name)) throw new QmpError(`unknown event "${name}"`);
    return found;
  };
  return {
    'human-monitor-command': async ({ 'command-line': text, 'cpu-index': cpu }) => {
      const { executeHmp } = await import('../hmp/execute.ts');
      return executeHmp(program, text, cpu === undefined ? undefined : Number(cpu));
    },
    'query-command-line-options': ({ option }) => {
      const all = commandLineOptions();
      const found = option === undefined ? all : all.filter(entry => entry.option === option);
      if (found.length === 0) throw new QmpError(`invalid option name: ${option}`);
      return found;
    },
    'query-iothreads': async () => {
      const { iothreadInfo } = await import('../startup/iothreads.ts');
      const objects = await program.objects();
      return objects.all
        .filter(({ typeName }) => typeName === 'iothread')
        .map(object => iothreadInfo(program.threads, object));
    },
    'trace-event-get-state': ({ name }) =>
      traced(name).map(event => ({
        name: event.name,
        state: event.enabled ? ('enabled' as const) : ('disabled' as const),
        vcpu: false,
      })),
    'trace-event-set-state': ({ name, enable }) => {
      traced(name);
      program.machine.trace.enable(name, enable);
    },
    'query-replay': () => ({ mode: 'none', icount: 0 }),
    'query-yank': () =>
      program.chars.ids
        .filter(id => program.chars.get(id)?.filename.match(/^(disconnected:)?(unix|tcp|telnet|websocket):/))
        .map(id => ({ type: 'chardev' as const, id })),
    yank: ({ instances }) => {
      for (const instance of instances) {
        if (instance.type !== 'chardev' || program.chars.get(instance.id) === undefined)
          throw new QmpError('Instance not found', 'DeviceNotFound');
      }
      for (const instance of instances) if (instance.type === 'chardev') program.chars.hangUp(instance.id);
    },
    'query-tpm-models': () => ['tpm-crb', 'tpm-tis'],
    'query-tpm-types': () => ['emulator'],
    'query-tpm': () =>
      [...program.tpmdevs.values()].flatMap(({ id, user, chardev }) =>
        user === undefined
          ? []
          : [{ id, model: user.model, options: { type: 'emulator', data: { chardev: chardev.label } } }],
      ),
    'query-pr-managers': () => [],
    'query-dump': () => ({ status: 'none', completed: 0, total: 0 }),
    'query-dump-guest-memory-capability': () => ({ formats: ['elf'] }),
    'query-stats': () => [],
    'query-stats-schemas': () => [],
    'query-rx-filter': ({ name }) => {
      if (name !== undefined) throw new QmpError(`invalid net client name: ${name}`);
      return [];
    },
  };
}

interface ParameterInfo {
  readonly name: string;
  readonly type: ParameterSpec['type'];
  readonly help?: string;
  readonly default?: string;
}

function parameterInfo(parameters: { readonly [name: string]: ParameterSpec } | undefined): ParameterInfo[] {
  return Object.entries(parameters ?? {}).map(([name, { type, help, default: value }]) => ({
    name,
    type,
    ...(help !== undefined && { help }),
    ...(value !== undefined && { default: value }),
  }));
}

function commandLineOptions(): { option: string; parameters: ParameterInfo[] }[] {
  const hidden = unsupported();
  const groups = Object.values(GROUPS)
    .filter(group => !hidden.has(group.name))
    .map(group => ({
      option: group.name,
      parameters:
        group.name === 'machine'
          ? parameterInfo(MACHINE_PARAMETERS)
          : parameterInfo('parameters' in group ? group.parameters : undefined),
    }));
  const names = new Set<string>(groups.map(({ option }) => option));
  const rest = [...OPTIONS].filter(
    ([name, { arg, group }]) => arg !== undefined && group === undefined && !names.has(name) && !hidden.has(name),
  );
  return [...groups, ...rest.map(([option]) => ({ option, parameters: [] }))];
}
