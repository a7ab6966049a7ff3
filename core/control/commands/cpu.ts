import { CPU_NAMES } from '../../cpu/model.ts';
import type { CpuTopology } from '../../machine/machine-config.ts';
import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

/** Where CPU `index` sits: threads vary first, then cores, dies and sockets. */
export function cpuPlace(
  topology: CpuTopology,
  index: number,
): { socket: number; die: number; core: number; thread: number } {
  const thread = index % topology.threads;
  const core = Math.floor(index / topology.threads) % topology.cores;
  const die = Math.floor(index / (topology.threads * topology.cores)) % topology.dies;
  return { socket: Math.floor(index / (topology.threads * topology.cores * topology.dies)), die, core, thread };
}

const properties = (topology: CpuTopology, index: number) => {
  const { socket, die, core, thread } = cpuPlace(topology, index);
  return { 'socket-id': socket, ...(topology.dies > 1 && { 'die-id': die }), 'core-id': core, 'thread-id': thread };
};

export const cpuPath = (index: number): string => `/machine/unattached/device[${index}]`;

export function cpuCommands(program: Program): Handlers<QmpSession> {
  const cpuType = (): string => {
    const { config, type } = program.machine;
    return `${(config.cpuModel ?? type.defaultCpuModel).split(',')[0]}-x86_64-cpu`;
  };
  return {
    'query-cpus-fast': () => {
      const { config, type } = program.machine;
      if (type.type === 'none' && config.cpuModel === undefined) return [];
      return Array.from({ length: config.cpus.cpus }, (_, index) => ({
        'cpu-index': index,
        'qom-path': cpuPath(index),
        'thread-id': process.pid,
        props: properties(config.cpus, index),
        target: 'x86_64' as const,
      }));
    },
    'query-hotpluggable-cpus': () => {
      const { config, type } = program.machine;
      if (type.type === 'none' || type.type === 'microvm')
        throw new QmpError('machine does not support hot-plugging CPUs');
      return Array.from({ length: config.cpus.maxCpus }, (_, slot) => {
        const index = config.cpus.maxCpus - 1 - slot;
        return {
          props: properties(config.cpus, index),
          'vcpus-count': 1,
          type: cpuType(),
          ...(index < config.cpus.cpus && { 'qom-path': cpuPath(index) }),
        };
      });
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
