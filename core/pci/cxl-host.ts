import type { MemoryRegion } from '../memory/memory-region.ts';

/** Memory of a CXL device, by host physical address. Addresses in bytes. */
export interface CxlMemory {
  /** Reads `size` bytes, at most 4 and within one granule of interleaving; 0 where the device's decoder leads nowhere. */
  readMemory(address: number, size: number): number;
  writeMemory(address: number, size: number, value: number): void;
}

/** A CXL host bridge as the machine knows it. */
export interface CxlHost {
  /** Its component registers, which the machine shows in its memory. */
  readonly registers: MemoryRegion;
  /** The device that its decoder and those behind it lead `address` to. */
  memoryAt(address: number): CxlMemory | undefined;
}
