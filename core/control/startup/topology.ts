import type { CpuTopology } from '../../machine/machine-config.ts';
import type { MachineType } from '../../machine/machine-type.ts';
import { OptionError } from '../options/opts.ts';

/** `-smp` as given; what is missing is computed. */
export interface TopologyRequest {
  readonly cpus?: number;
  readonly sockets?: number;
  readonly dies?: number;
  readonly clusters?: number;
  readonly cores?: number;
  readonly threads?: number;
  readonly maxcpus?: number;
}

/**
 * Completes a topology: cores are preferred over sockets, as of QEMU 6.2.
 * @throws OptionError where the parts contradict each other or the machine
 */
export function completeTopology(request: TopologyRequest, type: MachineType): CpuTopology {
  if ((request.clusters ?? 1) > 1) throw new OptionError("clusters not supported by this machine's CPU topology");
  const dies = request.dies || 1;
  let { cpus = 0, maxcpus = 0, sockets = 0, cores = 0, threads = 0 } = request;
  if (cpus === 0 && maxcpus === 0) {
    sockets ||= 1;
    cores ||= 1;
    threads ||= 1;
  } else {
    maxcpus ||= cpus;
    if (cores === 0) {
      sockets ||= 1;
      threads ||= 1;
      cores = Math.floor(maxcpus / (sockets * dies * threads));
    } else if (sockets === 0) {
      threads ||= 1;
      sockets = Math.floor(maxcpus / (dies * cores * threads));
    }
    if (threads === 0) threads = Math.floor(maxcpus / (sockets * dies * cores));
  }
  maxcpus ||= sockets * dies * cores * threads;
  cpus ||= maxcpus;

  const hierarchy = `sockets (${sockets}) * dies (${dies}) * cores (${cores}) * threads (${threads})`;
  if (sockets * dies * cores * threads !== maxcpus) {
    throw new OptionError(
      `Invalid CPU topology: product of the hierarchy must match maxcpus: ${hierarchy} != maxcpus (${maxcpus})`,
    );
  }
  if (maxcpus < cpus) {
    throw new OptionError(
      `Invalid CPU topology: maxcpus must be equal to or greater than smp: ${hierarchy} == maxcpus (${maxcpus}) < smp_cpus (${cpus})`,
    );
  }
  if (maxcpus > type.maxCpus) {
    throw new OptionError(
      `Invalid SMP CPUs ${maxcpus}. The max CPUs supported by machine '${type.type}' is ${type.maxCpus}`,
    );
  }
  return { cpus, sockets, dies, cores, threads, maxCpus: maxcpus };
}
