import type { CpuState } from '../../accel/cpu-state.ts';
import type { AddressSpace } from '../../memory/address-space.ts';
import type { MemoryMapping } from './guest-blocks.ts';

const CR0_PG = 1n << 31n;
const CR4_PSE = 1n << 4n;
const CR4_PAE = 1n << 5n;
const CR4_LA57 = 1n << 12n;
const EFER_LMA = 1n << 10n;
const PRESENT = 1;
const LARGE = 1 << 7;
/** Bits 51 to 12, in two halves. */
const FRAME_LOW = 0xffff_f000;
const FRAME_HIGH = 0x000f_ffff;

export const isPaging = (cpu: CpuState): boolean => (cpu.cr0 & CR0_PG) !== 0n;

/** A format of page tables (Intel SDM volume 3, chapter 4), from the top level down. */
interface Levels {
  readonly entryBytes: 4 | 8;
  /** Address bits below each level, and entries of a table. */
  readonly levels: readonly { readonly shift: number; readonly entries: number; readonly large: boolean }[];
  readonly signExtend: bigint;
}

function format(cpu: CpuState): Levels {
  if ((cpu.cr4 & CR4_PAE) === 0n) {
    const large = (cpu.cr4 & CR4_PSE) !== 0n;
    return {
      entryBytes: 4,
      levels: [
        { shift: 22, entries: 1024, large },
        { shift: 12, entries: 1024, large: false },
      ],
      signExtend: 0n,
    };
  }
  const low = [
    { shift: 21, entries: 512, large: true },
    { shift: 12, entries: 512, large: false },
  ];
  if ((cpu.efer & EFER_LMA) === 0n) {
    return { entryBytes: 8, levels: [{ shift: 30, entries: 4, large: false }, ...low], signExtend: 0n };
  }
  const top = { shift: 39, entries: 512, large: false };
  const long = [top, { shift: 30, entries: 512, large: true }, ...low];
  return (cpu.cr4 & CR4_LA57) !== 0n
    ? { entryBytes: 8, levels: [{ shift: 48, entries: 512, large: false }, ...long], signExtend: 1n << 56n }
    : { entryBytes: 8, levels: long, signExtend: 1n << 47n };
}

/** Everything that a CPU's page tables map, in order of physical addresses; neighbours in both address spaces are one. */
export function pagedMappings(cpu: CpuState, memory: AddressSpace): MemoryMapping[] {
  const { entryBytes, levels, signExtend } = format(cpu);
  const found: { physical: number; virtual: bigint; length: number }[] = [];
  const add = (physical: number, virtual: bigint, length: number): void => {
    const last = found.at(-1);
    const follows =
      last !== undefined && last.physical + last.length === physical && last.virtual + BigInt(last.length) === virtual;
    if (follows) last.length += length;
    else found.push({ physical, virtual, length });
  };
  const walk = (table: number, depth: number, base: bigint): void => {
    const level = levels[depth];
    if (level === undefined) return;
    for (let index = 0; index < level.entries; index++) {
      const at = table + index * entryBytes;
      const low = memory.read(at, 4) >>> 0;
      if ((low & PRESENT) === 0) continue;
      const high = entryBytes === 8 ? memory.read(at + 4, 4) & FRAME_HIGH : 0;
      const raw = base + (BigInt(index) << BigInt(level.shift));
      const virtual = (raw & signExtend) === 0n ? raw : BigInt.asUintN(64, raw | -signExtend);
      const isLarge = level.large && (low & LARGE) !== 0;
      if (!isLarge && depth < levels.length - 1) {
        walk(high * 2 ** 32 + ((low & FRAME_LOW) >>> 0), depth + 1, raw);
        continue;
      }
      const size = 2 ** level.shift;
      // PSE-36: bits 13 to 20 of a 4 MiB entry are address bits 32 to 39.
      const top = isLarge && entryBytes === 4 ? (low >>> 13) & 0xff : high;
      const frame = (low & FRAME_LOW) >>> 0;
      add(top * 2 ** 32 + frame - (frame % size), virtual, size);
    }
  };
  const root = entryBytes === 8 && levels.length === 3 ? cpu.cr3 & 0xffff_ffe0n : cpu.cr3 & 0x000f_ffff_ffff_f000n;
  walk(Number(root), 0, 0n);
  return merged(found);
}

/** Ranges that map the same memory to the same place, or continue each other, become one. */
function merged(mappings: readonly MemoryMapping[]): MemoryMapping[] {
  const result: { physical: number; virtual: bigint; length: number }[] = [];
  for (const { physical, virtual, length } of [...mappings].sort((a, b) => a.physical - b.physical)) {
    const fits = result.find(
      other =>
        physical <= other.physical + other.length &&
        physical >= other.physical &&
        virtual - other.virtual === BigInt(physical - other.physical),
    );
    if (fits === undefined) result.push({ physical, virtual, length });
    else fits.length = Math.max(fits.length, physical + length - fits.physical);
  }
  return result;
}
