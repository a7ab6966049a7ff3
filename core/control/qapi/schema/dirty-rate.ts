import { command } from '../declare.ts';
import { array, enumeration, int, opt, struct, uint64 } from '../types.ts';

export const DirtyRateStatus = enumeration('DirtyRateStatus', ['unstarted', 'measuring', 'measured']);
export const DirtyRateMeasureMode = enumeration('DirtyRateMeasureMode', [
  'page-sampling',
  'dirty-ring',
  'dirty-bitmap',
]);
export const DirtyRateVcpu = struct('DirtyRateVcpu', { id: int, 'dirty-rate': int });
export const DirtyRateInfo = struct('DirtyRateInfo', {
  'dirty-rate': opt(int),
  status: DirtyRateStatus,
  'start-time': int,
  'calc-time': int,
  'sample-pages': uint64,
  mode: DirtyRateMeasureMode,
  'vcpu-dirty-rate': opt(array(DirtyRateVcpu)),
});
export const DirtyLimitInfo = struct('DirtyLimitInfo', {
  'cpu-index': int,
  'limit-rate': uint64,
  'current-rate': uint64,
});

export const commands = {
  'calc-dirty-rate': command('Starts to measure how fast the guest writes its memory', {
    args: { 'calc-time': int, 'sample-pages': opt(int), mode: opt(DirtyRateMeasureMode) },
  }),
  'query-dirty-rate': command('What the last measurement of writes to memory said', { returns: DirtyRateInfo }),
  'set-vcpu-dirty-limit': command('Limits how fast CPUs write memory', {
    args: { 'cpu-index': opt(int), 'dirty-rate': uint64 },
  }),
  'cancel-vcpu-dirty-limit': command('Lifts that limit', { args: { 'cpu-index': opt(int) } }),
  'query-vcpu-dirty-limit': command('How fast CPUs may write memory', { returns: array(DirtyLimitInfo) }),
};
