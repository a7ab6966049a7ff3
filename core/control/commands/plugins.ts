import type { Program } from '../program.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

export function pluginCommands(program: Program): Handlers<QmpSession> {
  return {
    'x-query-plugins': () =>
      program.plugins.plugins.map(({ name, version, api, file, prefix, parts, reloads, problem }) => ({
        name,
        version,
        api,
        file,
        prefix,
        reloads: BigInt(reloads),
        ...(problem !== '' && { problem }),
        devices: parts.devices.map(({ type }) => type),
        machines: parts.machines.map(({ type }) => type),
        backends: parts.backends.map(({ type }) => type),
        'trace-sinks': parts.traceSinks.map(sink => sink.name),
        accelerators: parts.accelerators.map(accelerator => accelerator.name),
      })),
  };
}
