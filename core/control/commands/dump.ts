import type { Program } from '../program.ts';
import { QmpError } from '../qapi/error.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

export function dumpCommands(program: Program): Handlers<QmpSession> {
  return {
    'dump-guest-memory': async ({ paging, protocol, detach = false, begin, length, format = 'elf' }) => {
      if (begin !== undefined && length === undefined) throw new QmpError("Parameter 'length' is missing");
      if (begin === undefined && length !== undefined) throw new QmpError("Parameter 'begin' is missing");
      const range = begin === undefined ? undefined : { begin: Number(begin), length: Number(length) };
      await (await program.memoryDump()).start({ paging, protocol, detach, range, format });
    },
    'query-dump': async () => (await program.memoryDump()).result,
    'query-dump-guest-memory-capability': async () => ({
      formats: (await import('../dump/memory-dump.ts')).DUMP_FORMATS,
    }),
  };
}
