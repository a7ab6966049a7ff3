import type { AddressSpace } from '../../memory/address-space.ts';
import type { GuestRam } from '../../memory/guest-ram.ts';

/** A stretch of guest-physical memory that holds RAM or ROM. Addresses in bytes. */
export interface GuestBlock {
  readonly start: number;
  readonly end: number;
}

/** Part of the guest's memory, where it is to be found in its own addresses, too. */
export interface MemoryMapping {
  readonly physical: number;
  /** Equal to `physical` where the guest's page tables are not asked. */
  readonly virtual: bigint;
  readonly length: number;
}

/** All RAM and ROM that a CPU sees, in ascending order; neighbours in the same memory are one. */
export function guestBlocks(memory: AddressSpace): GuestBlock[] {
  const blocks: { start: number; end: number; ram: GuestRam; shift: number }[] = [];
  for (const { start, end, region, offset } of memory.flat.ranges) {
    const { ram } = region;
    if (ram === undefined || region.kind === 'rom-device') continue;
    const last = blocks.at(-1);
    const shift = start - offset;
    if (last?.end === start && last.ram === ram && last.shift === shift) last.end = end;
    else blocks.push({ start, end, ram, shift });
  }
  return blocks;
}

/** What of `blocks` lies between `begin` and `begin + length`. */
export function within(blocks: readonly GuestBlock[], begin: number, length: number): GuestBlock[] {
  return blocks
    .map(({ start, end }) => ({ start: Math.max(start, begin), end: Math.min(end, begin + length) }))
    .filter(({ start, end }) => start < end);
}

export function plainMappings(blocks: readonly GuestBlock[]): MemoryMapping[] {
  return blocks.map(({ start, end }) => ({ physical: start, virtual: BigInt(start), length: end - start }));
}

/** What of `mappings` lies in the one of `blocks` that it begins in, or reaches into. */
export function clip(mappings: readonly MemoryMapping[], blocks: readonly GuestBlock[]): MemoryMapping[] {
  return mappings.flatMap(({ physical, virtual, length }) =>
    within(blocks, physical, length).map(({ start, end }) => ({
      physical: start,
      virtual: virtual + BigInt(start - physical),
      length: end - start,
    })),
  );
}
