import type { Program } from '../program.ts';
import type { AnyEvent } from '../qapi/introspect.ts';
import { events, type Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';
import { VERSION_INFO } from '../version.ts';

export function controlCommands(program: Program): Handlers<QmpSession> {
  return {
    qmp_capabilities: ({ enable = [] }, { monitor }) => monitor.negotiate(enable),
    'query-version': () => VERSION_INFO,
    'query-commands': async () => (await program.commands()).names().map(name => ({ name })),
    'query-qmp-schema': async () => {
      const { introspect } = await import('../qapi/introspect.ts');
      const known: [string, AnyEvent][] = Object.entries(events);
      return introspect((await program.commands()).entries(), new Map(known)) as never;
    },
    quit: () => program.quitFor('host-qmp-quit'),
    'x-exit-preconfig': () => program.exitPreconfig(),
  };
}
