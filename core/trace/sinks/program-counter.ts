import type { Machine } from '../../machine/machine.ts';

/** The address of the instruction that the first CPU is at; undefined where none runs. */
export function programCounter(machine: Machine): number | undefined {
  const [vcpu] = machine.vm.vcpus;
  if (vcpu === undefined || !machine.power.running) return undefined;
  return vcpu.programCounter ?? Number(vcpu.readState().rip);
}
