import { deviceNotFound, QmpError } from '../qapi/error.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

const refuse = (message: string) => (): never => {
  throw new QmpError(message);
};

/** Commands that answer with QEMU's error for a host or machine without the feature. */
export const unsupportedCommands: Handlers<QmpSession> = {
  'query-sev': refuse('SEV is not enabled'),
  'query-sev-capabilities': refuse('SEV is not enabled in KVM'),
  'query-sev-launch-measure': refuse('SEV is not enabled'),
  'query-sgx': refuse('No SGX section on the machine'),
  'query-sgx-capabilities': refuse('SGX is not enabled in KVM'),
  'x-query-jit': refuse('JIT information is only available with accel=tcg'),
  'x-query-opcount': refuse('Opcode count information is only available with accel=tcg'),
  'x-query-profile': refuse('Internal profiler not compiled'),
  'x-query-rdma': () => ({ 'human-readable-text': '' }),
  netdev_del: ({ id }) => {
    throw deviceNotFound(id);
  },
  set_link: ({ name }) => {
    throw deviceNotFound(name);
  },
};
