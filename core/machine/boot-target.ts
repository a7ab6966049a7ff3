import type { MemoryImages } from '../loader/memory-images.ts';
import type { Machine } from './machine.ts';

/** The machine as who loads programs into it sees it. */
export interface BootTarget {
  /** What is in memory before anything runs. */
  readonly images: MemoryImages;
  /** Whether there is a CPU of that number. */
  hasCpu(index: number): boolean;
  /** Lets a CPU, which has just been reset, go on at an offset of its code segment. Nothing where the accelerator has no such CPU. */
  setProgramCounter(index: number, address: bigint): void;
  /** `hook` runs at the end of each reset, after the CPUs'. Returns what takes it out again. */
  onReset(hook: () => void): () => void;
}

export function bootTarget(machine: Machine, images: MemoryImages): BootTarget {
  return {
    images,
    hasCpu: index => machine.cpus.slots.slots[index]?.cpu !== undefined,
    setProgramCounter: (index, address) => {
      const vcpu = machine.vcpu(index);
      if (vcpu === undefined) return;
      const state = vcpu.readState();
      state.rip = address;
      vcpu.writeState(state);
    },
    onReset: hook => machine.onReset(hook),
  };
}
