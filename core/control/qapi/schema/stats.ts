import { command } from '../declare.ts';
import { alternate, array, bool, enumeration, int8, int16, opt, str, struct, uint32, uint64, union } from '../types.ts';

export const StatsTarget = enumeration('StatsTarget', ['vm', 'vcpu']);
export const StatsProvider = enumeration('StatsProvider', ['kvm']);
export const StatsRequest = struct('StatsRequest', { provider: StatsProvider, names: opt(array(str)) });
export const StatsVCPUFilter = struct('StatsVCPUFilter', { vcpus: opt(array(str)) });
export const StatsFilter = union(
  'StatsFilter',
  { target: StatsTarget, providers: opt(array(StatsRequest)) },
  'target',
  { vcpu: StatsVCPUFilter },
);
export const StatsValue = alternate('StatsValue', { scalar: uint64, boolean: bool, list: array(uint64) });
export const Stats = struct('Stats', { name: str, value: StatsValue });
export const StatsResult = struct('StatsResult', {
  provider: StatsProvider,
  'qom-path': opt(str),
  stats: array(Stats),
});
export const StatsType = enumeration('StatsType', [
  'cumulative',
  'instant',
  'peak',
  'linear-histogram',
  'log2-histogram',
]);
export const StatsUnit = enumeration('StatsUnit', ['bytes', 'seconds', 'cycles', 'boolean']);
export const StatsSchemaValue = struct('StatsSchemaValue', {
  name: str,
  type: StatsType,
  unit: opt(StatsUnit),
  base: opt(int8),
  exponent: int16,
  'bucket-size': opt(uint32),
});
export const StatsSchema = struct('StatsSchema', {
  provider: StatsProvider,
  target: StatsTarget,
  stats: array(StatsSchemaValue),
});

export const commands = {
  'query-stats': command('Statistics', { args: StatsFilter, returns: array(StatsResult) }),
  'query-stats-schemas': command('Which statistics there are', {
    args: { provider: opt(StatsProvider) },
    returns: array(StatsSchema),
  }),
};
