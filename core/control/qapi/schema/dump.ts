import { command, event } from '../declare.ts';
import { array, bool, enumeration, int, opt, str, struct } from '../types.ts';

export const DumpGuestMemoryFormat = enumeration('DumpGuestMemoryFormat', [
  'elf',
  'kdump-zlib',
  'kdump-lzo',
  'kdump-snappy',
  'win-dmp',
]);
export const DumpStatus = enumeration('DumpStatus', ['none', 'active', 'completed', 'failed']);
export const DumpQueryResult = struct('DumpQueryResult', { status: DumpStatus, completed: int, total: int });
export const DumpGuestMemoryCapability = struct('DumpGuestMemoryCapability', { formats: array(DumpGuestMemoryFormat) });

export const commands = {
  'dump-guest-memory': command('Dumps memory in ELF form', {
    args: {
      paging: bool,
      protocol: str,
      detach: opt(bool),
      begin: opt(int),
      length: opt(int),
      format: opt(DumpGuestMemoryFormat),
    },
  }),
  'query-dump': command('Progress of the dump', { returns: DumpQueryResult }),
  'query-dump-guest-memory-capability': command('Formats of dumps', { returns: DumpGuestMemoryCapability }),
};

export const events = {
  DUMP_COMPLETED: event({ result: DumpQueryResult, error: opt(str) }),
};
