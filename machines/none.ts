import { machineType } from '../core/machine/machine-type.ts';

/** Nothing but address spaces: for tests, for plugging by hand, and for clients that only ask questions. */
export const none = machineType({
  type: 'none',
  summary: 'empty machine',
  maxCpus: 1,
  defaultRam: 0,
  hasCpus: false,
  build(machine) {
    if (machine.config.ramSize > 0) machine.allocateRam('ram', machine.config.ramSize);
  },
});
