import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

export function migrationCommands(program: Program): Handlers<QmpSession> {
  let incoming = false;
  return {
    'query-migrate-capabilities': async () => (await program.migration()).settings.capabilities,
    'migrate-set-capabilities': async ({ capabilities }) => {
      const migration = await program.migration();
      migration.refuseWhileUnderWay();
      migration.settings.setCapabilities(capabilities);
    },
    'query-migrate-parameters': async () => (await program.migration()).settings.parameters,
    'migrate-set-parameters': async given => (await program.migration()).settings.setParameters(given),
    'query-migrate': async () => (await program.migration()).settledInfo(),
    migrate: async ({ uri, blk = false, inc = false, resume = false }) => {
      if (blk || inc) throw new QmpError('QEMU compiled without old-style (blk/-b, inc/-i) block migration');
      const migration = await program.migration();
      if (resume) return migration.resume(uri);
      await migration.refuseWhereBlocked();
      migration.start(uri);
    },
    migrate_cancel: async () => (await program.migration()).cancel(),
    'migrate-continue': async ({ state }) => (await program.migration()).proceed(state),
    'migrate-incoming': async ({ uri }) => {
      if (program.line.last('incoming') !== 'defer')
        throw new QmpError("'-incoming' was not specified on the command line");
      if (incoming) throw new QmpError('The incoming migration has already been started');
      incoming = true;
      const migration = await program.migration();
      void migration.receive(uri).catch(error => program.report.error(error));
    },
    'migrate-recover': async ({ uri }) => (await program.migration()).recover(uri),
    'migrate-pause': async () => (await program.migration()).interrupt(),
    'migrate-start-postcopy': async () => (await program.migration()).goAhead(),
  };
}
