import type { CpuState } from '../../accel/cpu-state.ts';
import type { AddressSpace } from '../../memory/address-space.ts';
import { hex } from '../hex.ts';
import type { HmpContext } from './command.ts';

/** Intel SDM volume 3, chapter 4. */
const CR0_PG = 1n << 31n;
const CR4_PSE = 1n << 4n;
const CR4_PAE = 1n << 5n;
const CR4_LA57 = 1n << 12n;
const EFER_LMA = 1n << 10n;
const ENTRY = {
  PRESENT: 1n << 0n,
  WRITABLE: 1n << 1n,
  USER: 1n << 2n,
  WRITE_THROUGH: 1n << 3n,
  CACHE_DISABLE: 1n << 4n,
  ACCESSED: 1n << 5n,
  DIRTY: 1n << 6n,
  LARGE: 1n << 7n,
  GLOBAL: 1n << 8n,
  NO_EXECUTE: 1n << 63n,
} as const;
const RIGHTS = ENTRY.PRESENT | ENTRY.WRITABLE | ENTRY.USER;
const FRAME = 0x000f_ffff_ffff_f000n;
/** Tables are the guest's, and may all lead to each other. */
const MAX_ENTRIES = 2 ** 20;

/** One page, or large page, that is mapped. */
interface Leaf {
  readonly linear: bigint;
  readonly bytes: bigint;
  readonly entry: bigint;
  /** What the entries on the way allow together. */
  readonly rights: bigint;
}

/** How the tables of a paging mode are built. */
interface Layout {
  readonly levels: number;
  readonly entryBytes: 4 | 8;
  /** Bits of an index, and of the topmost one. */
  readonly bits: number;
  readonly topBits: number;
  readonly largeAt: (level: number) => boolean;
}

function layoutOf(cpu: CpuState): Layout {
  if ((cpu.cr4 & CR4_PAE) === 0n) {
    const pse = (cpu.cr4 & CR4_PSE) !== 0n;
    return { levels: 2, entryBytes: 4, bits: 10, topBits: 10, largeAt: level => pse && level === 2 };
  }
  const long = (cpu.efer & EFER_LMA) !== 0n;
  if (!long) return { levels: 3, entryBytes: 8, bits: 9, topBits: 2, largeAt: level => level === 2 };
  const levels = (cpu.cr4 & CR4_LA57) !== 0n ? 5 : 4;
  return { levels, entryBytes: 8, bits: 9, topBits: 9, largeAt: level => level === 2 || level === 3 };
}

/** All pages that the CPU's tables map, in ascending order. */
function* leaves(cpu: CpuState, memory: AddressSpace): Generator<Leaf> {
  const layout = layoutOf(cpu);
  let budget = MAX_ENTRIES;
  function* walk(table: number, level: number, base: bigint, rights: bigint): Generator<Leaf> {
    const shift = BigInt(12 + layout.bits * (level - 1));
    const count = 2 ** (level === layout.levels ? layout.topBits : layout.bits);
    for (let index = 0; index < count && budget > 0; index++) {
      budget--;
      const at = table + index * layout.entryBytes;
      const low = BigInt(memory.read(at, 4) >>> 0);
      const entry = layout.entryBytes === 4 ? low : low | (BigInt(memory.read(at + 4, 4) >>> 0) << 32n);
      if ((entry & ENTRY.PRESENT) === 0n) continue;
      const linear = base + (BigInt(index) << shift);
      // A PAE pointer-table entry has no rights of its own (4.4.1).
      const allowed = layout.levels === 3 && level === 3 ? rights : rights & entry;
      if (level === 1 || (layout.largeAt(level) && (entry & ENTRY.LARGE) !== 0n))
        yield { linear, bytes: 1n << shift, entry, rights: allowed };
      else yield* walk(Number(entry & FRAME), level - 1, linear, allowed);
    }
  }
  const top = Number(layout.levels === 3 ? cpu.cr3 & 0xffff_ffe0n : cpu.cr3 & FRAME);
  yield* walk(top, layout.levels, 0n, RIGHTS);
}

/** A 48-bit, or 57-bit, linear address has its top bit repeated (Intel SDM volume 1, 3.3.7.1). */
function canonical(cpu: CpuState, linear: bigint): bigint {
  if ((cpu.efer & EFER_LMA) === 0n) return linear;
  return BigInt.asUintN(64, BigInt.asIntN((cpu.cr4 & CR4_LA57) !== 0n ? 57 : 48, linear));
}

function paging(context: HmpContext): CpuState | string {
  const cpu = context.cpuState();
  if (cpu === undefined) return 'No CPU available\n';
  return (cpu.cr0 & CR0_PG) === 0n ? 'PG disabled\n' : cpu;
}

/** `info tlb`: every page, where it leads and with which bits. */
export function translations(context: HmpContext): string {
  const cpu = paging(context);
  if (typeof cpu === 'string') return cpu;
  const letters = (entry: bigint, small: boolean): string =>
    [
      ['X', ENTRY.NO_EXECUTE],
      ['G', ENTRY.GLOBAL],
      ['P', small ? 0n : ENTRY.LARGE],
      ['D', ENTRY.DIRTY],
      ['A', ENTRY.ACCESSED],
      ['C', ENTRY.CACHE_DISABLE],
      ['T', ENTRY.WRITE_THROUGH],
      ['U', ENTRY.USER],
      ['W', ENTRY.WRITABLE],
    ]
      .map(([letter, bit]) => (typeof bit === 'bigint' && (entry & bit) !== 0n ? letter : '-'))
      .join('');
  const lines: string[] = [];
  for (const { linear, bytes, entry } of leaves(cpu, context.program.machine.memory)) {
    const frame = entry & FRAME & ~(bytes - 1n);
    lines.push(`${hex(canonical(cpu, linear), 16)}: ${hex(frame, 16)} ${letters(entry, bytes === 0x1000n)}\n`);
  }
  return lines.join('');
}

/** `info mem`: runs of pages with the same rights. */
export function activeMappings(context: HmpContext): string {
  const cpu = paging(context);
  if (typeof cpu === 'string') return cpu;
  const lines: string[] = [];
  let run: { start: bigint; end: bigint; rights: bigint } | undefined;
  const close = (): void => {
    if (run === undefined) return;
    const { start, end, rights } = run;
    const letters = `${(rights & ENTRY.USER) !== 0n ? 'u' : '-'}r${(rights & ENTRY.WRITABLE) !== 0n ? 'w' : '-'}`;
    lines.push(
      `${hex(canonical(cpu, start), 16)}-${hex(canonical(cpu, end), 16)} ${hex(end - start, 16)} ${letters}\n`,
    );
  };
  for (const { linear, bytes, rights } of leaves(cpu, context.program.machine.memory)) {
    if (run !== undefined && run.end === linear && run.rights === rights) run.end = linear + bytes;
    else {
      close();
      run = { start: linear, end: linear + bytes, rights };
    }
  }
  close();
  return lines.join('');
}
