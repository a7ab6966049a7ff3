import type { DirtyRate } from '../migration/dirty-rate.ts';
import type { Program } from '../program.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

export function dirtyRateCommands(program: Program): Handlers<QmpSession> {
  let measurement: DirtyRate | undefined;
  const measuring = async (): Promise<DirtyRate> => {
    if (measurement !== undefined) return measurement;
    const module = await import('../migration/dirty-rate.ts');
    measurement = new module.DirtyRate(program.machine);
    program.resources.push(measurement);
    return measurement;
  };
  return {
    'calc-dirty-rate': async ({ 'calc-time': seconds, mode, 'sample-pages': samples }) =>
      (await measuring()).start(Number(seconds), mode, samples === undefined ? undefined : Number(samples)),
    'query-dirty-rate': async () => (await measuring()).info,
  };
}
