import { CPU_NAMES, CPU_TYPE_SUFFIX, type CpuModel } from '../../cpu/model.ts';
import { ANY_CPU, type CpuHost, resolveCpu } from '../../cpu/resolve.ts';
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
      [...CPU_NAMES.values()].map(({ name, aliasOf, model }) => ({
        name,
        typename: name + CPU_TYPE_SUFFIX,
        static: model.static,
        'migration-safe': model.migrationSafe,
        'unavailable-features': unavailableFeatures(model, program.machine.vm.cpuHost ?? ANY_CPU),
        deprecated: false,
        ...(aliasOf !== undefined && { 'alias-of': aliasOf }),
      })),
  };
}

/** What keeps a CPU of that model from being had as it is: `kvm`, or the features that are missing here. */
function unavailableFeatures(model: CpuModel, host: CpuHost): string[] {
  if (model.needsHost && !host.isHostCpu) return ['kvm'];
  return [...resolveCpu({ model, features: new Map() }, host).filtered];
}
