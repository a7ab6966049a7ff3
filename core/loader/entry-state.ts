import type { CpuState, SegmentState } from '../accel/cpu-state.ts';
import { type Segment, segment } from './image.ts';

/** Selectors of {@link BOOT_GDT}; Linux asks for exactly these two (boot protocol, "32-bit boot protocol"). */
const BOOT_CS = 0x10;
const BOOT_DS = 0x18;
const BOOT_TSS = 0x20;

/** Where the direct loaders put what the guest needs before it has its own; all below the first kernel byte. */
export const LOW_MEMORY = {
  GDT: 0x500,
  /** hvm_start_info (PVH) or the multiboot information. */
  BOOT_INFO: 0x6000,
  /** The zero page (Linux). */
  BOOT_PARAMS: 0x7000,
  STACK_TOP: 0x8ff0,
  PAGE_TABLES: 0x9000,
  COMMAND_LINE: 0x2_0000,
} as const;

// Access rights of a segment: type, S, DPL, P in bits 0 to 7; AVL, L, D/B, G in bits 12 to 15 (SDM volume 3, 3.4.5).
// All are marked as accessed: some processors would otherwise write to the table.
const CODE_32 = 0xc09b;
const CODE_64 = 0xa09b;
const DATA_32 = 0xc093;
const TSS_BUSY = 0x008b;
const LDT = 0x0082;

const CR0_PE = 1n;
const CR0_ET = 1n << 4n;
const CR0_NE = 1n << 5n;
const CR0_PG = 1n << 31n;
const CR4_PAE = 1n << 5n;
const EFER_LME = 1n << 8n;
const EFER_LMA = 1n << 10n;

const PAGE_PRESENT_WRITABLE = 0x3;
const PAGE_LARGE = 0x83;
const IDENTITY_GIB = 4;

/** General registers at the entry, by their 32-bit names; all others are 0. */
export interface EntryRegisters {
  readonly eax?: number;
  readonly ebx?: number;
  readonly esi?: number;
  readonly esp?: number;
}

function flat(selector: number, attributes: number): SegmentState {
  return { selector, base: 0n, limit: 0xffff_ffff, attributes, unusable: false };
}

function enterFlat(cpu: CpuState, entry: number, registers: EntryRegisters, code: number): void {
  cpu.gpr.fill(0n);
  cpu.gpr[0] = BigInt(registers.eax ?? 0);
  cpu.gpr[3] = BigInt(registers.ebx ?? 0);
  cpu.gpr[4] = BigInt(registers.esp ?? 0);
  cpu.gpr[6] = BigInt(registers.esi ?? 0);
  cpu.rip = BigInt(entry);
  cpu.rflags = 2n;
  cpu.cs = flat(BOOT_CS, code);
  cpu.ds = flat(BOOT_DS, DATA_32);
  cpu.es = cpu.ds;
  cpu.fs = cpu.ds;
  cpu.gs = cpu.ds;
  cpu.ss = cpu.ds;
  // PVH and Xen's HVM ABI ask for a busy TSS of limit 67h.
  cpu.tr = { selector: BOOT_TSS, base: 0n, limit: 0x67, attributes: TSS_BUSY, unusable: false };
  cpu.ldtr = { selector: 0, base: 0n, limit: 0xffff, attributes: LDT, unusable: false };
  cpu.gdtr = { base: BigInt(LOW_MEMORY.GDT), limit: 5 * 8 - 1 };
  cpu.idtr = { base: 0n, limit: 0 };
  cpu.cr2 = 0n;
  cpu.cr3 = 0n;
  cpu.cr4 = 0n;
  cpu.efer = 0n;
  cpu.cr0 = CR0_PE | CR0_ET | CR0_NE;
  cpu.halted = false;
}

/** Flat 32-bit protected mode, paging and interrupts off. The guest memory must hold {@link bootGdt}. */
export function enterProtected32(cpu: CpuState, entry: number, registers: EntryRegisters): void {
  enterFlat(cpu, entry, registers, CODE_32);
}

/** 64-bit mode over {@link identityPageTables}, interrupts off. The guest memory must hold both tables. */
export function enterLong64(cpu: CpuState, entry: number, registers: EntryRegisters): void {
  enterFlat(cpu, entry, registers, CODE_64);
  cpu.cr3 = BigInt(LOW_MEMORY.PAGE_TABLES);
  cpu.cr4 = CR4_PAE;
  cpu.efer = EFER_LME | EFER_LMA;
  cpu.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
}

/** The GDT that the entry states refer to: null, unused, code, data, TSS. */
export function bootGdt(mode: 'protected32' | 'long64'): Segment {
  const bytes = new Uint8Array(5 * 8);
  const view = new DataView(bytes.buffer);
  const descriptor = (selector: number, limit: number, attributes: number): void => {
    view.setUint32(selector, limit & 0xffff, true);
    view.setUint32(selector + 4, ((attributes << 8) | (limit & 0xf_0000)) >>> 0, true);
  };
  descriptor(BOOT_CS, 0xf_ffff, mode === 'long64' ? CODE_64 : CODE_32);
  descriptor(BOOT_DS, 0xf_ffff, DATA_32);
  descriptor(BOOT_TSS, 0x67, TSS_BUSY);
  return segment(LOW_MEMORY.GDT, bytes);
}

/** Page tables that map the first 4 GiB to themselves in pages of 2 MiB (SDM volume 3, 4.5). */
export function identityPageTables(): Segment {
  const page = 0x1000;
  const bytes = new Uint8Array((2 + IDENTITY_GIB) * page);
  const view = new DataView(bytes.buffer);
  const pdpt = LOW_MEMORY.PAGE_TABLES + page;
  view.setUint32(0, pdpt | PAGE_PRESENT_WRITABLE, true);
  for (let gib = 0; gib < IDENTITY_GIB; gib++) {
    const directory = (2 + gib) * page;
    view.setUint32(page + gib * 8, (LOW_MEMORY.PAGE_TABLES + directory) | PAGE_PRESENT_WRITABLE, true);
    for (let entry = 0; entry < 512; entry++) {
      view.setUint32(directory + entry * 8, (gib * 0x4000_0000 + entry * 0x20_0000 + PAGE_LARGE) >>> 0, true);
    }
  }
  return segment(LOW_MEMORY.PAGE_TABLES, bytes);
}
