import type { Program } from '../program.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

/** Network backends. */
export const netCommands = (program: Program): Handlers<QmpSession> => ({
  netdev_add: async spec => {
    await (await program.nets()).add(spec);
  },
  netdev_del: async ({ id }) => (await program.nets()).remove(id),
  set_link: async ({ name, up }) => (await program.nets()).setLink(name, up),
});
