import { apicIdOf, type CpuPlace, placeOf, type TopologyShape } from '../cpu/topology.ts';
import type { X86Cpu } from '../cpu/x86-cpu.ts';
import { SouthbridgeError } from '../errors.ts';

/** A place where the machine has a CPU or may get one. */
export interface CpuSlot {
  readonly index: number;
  readonly apicId: number;
  readonly place: CpuPlace;
  /** The NUMA node that the CPU belongs to, once that is settled. */
  nodeId: number | undefined;
  cpu: X86Cpu | undefined;
}

/** Which CPUs an option means: those whose given ids are all equal. */
export interface CpuSelector {
  readonly socket?: number | undefined;
  readonly die?: number | undefined;
  readonly core?: number | undefined;
  readonly thread?: number | undefined;
}

/** All CPUs that a machine can have, by APIC ID and place. */
export class CpuSlots {
  readonly shape: TopologyShape;
  readonly slots: readonly CpuSlot[];

  constructor(shape: TopologyShape) {
    this.shape = shape;
    this.slots = Array.from({ length: shape.maxCpus }, (_, index) => {
      const place = placeOf(index, shape);
      return { index, place, apicId: apicIdOf(place, shape), nodeId: undefined, cpu: undefined };
    });
  }

  byApicId(apicId: number): CpuSlot | undefined {
    return this.slots.find(slot => slot.apicId === apicId);
  }

  /** The slots that `selector` means. @throws SouthbridgeError ERR_CPU_PLACE where the machine has no such id */
  matching(selector: CpuSelector): CpuSlot[] {
    if (selector.die !== undefined && this.shape.dies === 1)
      throw new SouthbridgeError('ERR_CPU_PLACE', 'die-id is not supported');
    const fits = (wanted: number | undefined, is: number): boolean => wanted === undefined || wanted === is;
    return this.slots.filter(
      ({ place }) =>
        fits(selector.socket, place.socket) &&
        fits(selector.die, place.die) &&
        fits(selector.core, place.core) &&
        fits(selector.thread, place.thread),
    );
  }

  /** QEMU's CpuInstanceProperties (QAPI) of a slot. */
  properties(slot: CpuSlot): Record<string, number> {
    return {
      ...(slot.nodeId !== undefined && { 'node-id': slot.nodeId }),
      'socket-id': slot.place.socket,
      ...(this.shape.dies > 1 && { 'die-id': slot.place.die }),
      'core-id': slot.place.core,
      'thread-id': slot.place.thread,
    };
  }
}
