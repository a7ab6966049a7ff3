import { type IoHandler, MemoryRegion } from '../../core/memory/memory-region.ts';
import type { CxlMemory } from '../../core/pci/cxl-host.ts';
import type { ExpanderBus } from '../../core/pci/expander-bus.ts';

/** Where a window is, its bytes, and how many of them go to one host bridge before the next. */
interface Place {
  readonly base: number;
  readonly size: number;
  readonly granularity: number;
}

/**
 * A fixed memory window (CXL 2.0 ECN "CEDT CFMWS & QTG _DSM"): addresses that the machine hands to host bridges, some at a time in turn,
 * and these by their decoders to the devices behind their ports. What no decoder takes reads as 0, and is lost when written.
 */
export class FixedWindow {
  readonly region: MemoryRegion;
  readonly base: number;
  readonly granularity: number;
  /** The host bridges' buses in turn, once they are there. */
  targets: readonly ExpanderBus[] = [];

  constructor({ base, size, granularity }: Place) {
    this.base = base;
    this.granularity = granularity;
    const handler: IoHandler = {
      read: (offset, bytes) => this.#memory(base + offset)?.readMemory(base + offset, bytes) ?? 0,
      write: (offset, bytes, value) => this.#memory(base + offset)?.writeMemory(base + offset, bytes, value),
    };
    this.region = MemoryRegion.io('cxl-fixed-memory-region', size, handler);
  }

  #memory(address: number): CxlMemory | undefined {
    const { targets } = this;
    return targets[Math.floor(address / this.granularity) % targets.length]?.cxlHost?.memoryAt(address);
  }
}
