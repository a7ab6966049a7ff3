import { deviceNotFound, QmpError } from '../qapi/error.ts';
import type { Handlers } from '../qmp/catalog.ts';
import type { QmpSession } from '../qmp/monitor.ts';

const refuse = (message: string) => (): never => {
  throw new QmpError(message);
};

/** Commands that answer with QEMU's error for a host or machine without the feature. */
export const unsupportedCommands: Handlers<QmpSession> = {
  'query-sev': () => ({
    enabled: false,
    'api-major': 0,
    'api-minor': 0,
    'build-id': 0,
    policy: 0,
    state: 'uninit',
    handle: 0,
  }),
  'query-sev-capabilities': refuse('SEV is not enabled in KVM'),
  'query-sev-launch-measure': refuse('SEV is not enabled'),
  'sev-inject-launch-secret': refuse('SEV not enabled for guest'),
  'query-sev-attestation-report': refuse('SEV is not enabled'),
  'query-sgx': refuse('No SGX section on the machine'),
  'query-sgx-capabilities': refuse('SGX is not enabled in KVM'),
  'x-query-jit': refuse('JIT information is only available with accel=tcg'),
  'x-query-opcount': refuse('Opcode count information is only available with accel=tcg'),
  'x-query-profile': refuse('Internal profiler not compiled'),
  'x-query-rdma': () => ({ 'human-readable-text': '' }),
  'replay-break': refuse('setting the breakpoint is allowed only in play mode'),
  'replay-delete-break': refuse('replay breakpoints are allowed only in play mode'),
  'replay-seek': refuse('replay must be enabled to seek'),
  'x-colo-lost-heartbeat': refuse("The feature 'colo' is not enabled"),
  'query-colo-status': () => ({ mode: 'none', 'last-mode': 'none', reason: 'none' }),
  client_migrate_info: ({ protocol }) => {
    if (protocol !== 'spice') throw new QmpError("Parameter 'protocol' expects 'spice'");
    throw new QmpError('SPICE is not in use', 'DeviceNotActive');
  },
  'set-vcpu-dirty-limit': refuse(
    "dirty page limit feature requires KVM with accelerator property 'dirty-ring-size' set'",
  ),
  'cancel-vcpu-dirty-limit': () => undefined,
  'query-vcpu-dirty-limit': () => [],
  dumpdtb: refuse("This machine doesn't have a FDT"),
  netdev_del: ({ id }) => {
    throw deviceNotFound(id);
  },
  set_link: ({ name }) => {
    throw deviceNotFound(name);
  },
};
