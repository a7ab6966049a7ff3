import { CPU_NAMES } from '../../cpu/model.ts';
import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

export function cpuCommands(program: Program): Handlers<QmpSession> {
  return {
    'query-cpus-fast': () => {
      const { cpus } = program.machine;
      return cpus.plugged.map(slot => ({
        'cpu-index': slot.index,
        'qom-path': slot.cpu?.path ?? '',
        'thread-id': program.cpuThread(slot.index),
        props: cpus.slots.properties(slot),
        target: 'x86_64' as const,
      }));
    },
    'query-hotpluggable-cpus': () => {
      const { cpus, type } = program.machine;
      if (!type.hasCpus) throw new QmpError('machine does not support hot-plugging CPUs');
      return [...cpus.slots.slots].reverse().map(slot => ({
        props: cpus.slots.properties(slot),
        'vcpus-count': 1,
        type: cpus.typeName,
        ...(slot.cpu !== undefined && { 'qom-path': slot.cpu.path }),
      }));
    },
    'query-cpu-model-expansion': async ({ type, model }) => {
      const { expandModel } = await import('./cpu-models.ts');
      return expandModel(program, type, model.name, model.props);
    },
    'query-cpu-definitions': () =>
      [...CPU_NAMES.keys()].map(name => ({
        name,
        typename: `${name}-x86_64-cpu`,
        static: name === 'base',
        'migration-safe': name !== 'max' && name !== 'host',
        'unavailable-features': [],
        deprecated: false,
      })),
  };
}
