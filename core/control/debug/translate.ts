import type { CpuState } from '../../accel/cpu-state.ts';
import type { AddressSpace } from '../../memory/address-space.ts';

const CR0_PG = 1n << 31n;
const CR4_PSE = 1n << 4n;
const CR4_PAE = 1n << 5n;
const CR4_LA57 = 1n << 12n;
const EFER_LMA = 1n << 10n;
const PRESENT = 1n;
const LARGE = 1n << 7n;
const FRAME = 0x000f_ffff_ffff_f000n;

/**
 * The physical address behind a linear one, by the CPU's page tables as they are in memory (Intel SDM volume 3, chapter 4);
 * undefined where nothing is mapped. Tools use it, so it sets no accessed or dirty bits.
 */
export function translate(cpu: CpuState, memory: AddressSpace, linear: bigint): number | undefined {
  if ((cpu.cr0 & CR0_PG) === 0n) return Number(BigInt.asUintN(32, linear));
  if ((cpu.cr4 & CR4_PAE) === 0n) return walk32(cpu, memory, Number(BigInt.asUintN(32, linear)));
  const long = (cpu.efer & EFER_LMA) !== 0n;
  const levels = long ? ((cpu.cr4 & CR4_LA57) !== 0n ? 5 : 4) : 3;
  return walkPae(cpu, memory, long ? linear : BigInt.asUintN(32, linear), levels);
}

function walk32(cpu: CpuState, memory: AddressSpace, linear: number): number | undefined {
  const directory = Number(cpu.cr3 & 0xffff_f000n);
  const pde = memory.read(directory + (linear >>> 22) * 4, 4) >>> 0;
  if ((pde & 1) === 0) return undefined;
  if ((pde & 0x80) !== 0 && (cpu.cr4 & CR4_PSE) !== 0n) {
    // PSE-36: bits 13 to 20 of the entry are address bits 32 to 39.
    return ((pde >>> 13) & 0xff) * 2 ** 32 + ((pde & 0xffc0_0000) >>> 0) + (linear & 0x3f_ffff);
  }
  const pte = memory.read(((pde & 0xffff_f000) >>> 0) + ((linear >>> 12) & 0x3ff) * 4, 4) >>> 0;
  return (pte & 1) === 0 ? undefined : ((pte & 0xffff_f000) >>> 0) + (linear & 0xfff);
}

function walkPae(cpu: CpuState, memory: AddressSpace, linear: bigint, levels: number): number | undefined {
  let table = Number(levels === 3 ? cpu.cr3 & 0xffff_ffe0n : cpu.cr3 & FRAME);
  for (let level = levels; level > 0; level--) {
    const shift = BigInt(12 + 9 * (level - 1));
    const bits = levels === 3 && level === 3 ? 0x3n : 0x1ffn;
    const address = table + Number((linear >> shift) & bits) * 8;
    const entry = BigInt(memory.read(address, 4) >>> 0) | (BigInt(memory.read(address + 4, 4) >>> 0) << 32n);
    if ((entry & PRESENT) === 0n) return undefined;
    const large = level > 1 && level < 4 && (entry & LARGE) !== 0n && !(levels === 3 && level === 3);
    if (level === 1 || large) {
      const offset = (1n << shift) - 1n;
      return Number((entry & FRAME & ~offset) | (linear & offset));
    }
    table = Number(entry & FRAME);
  }
  return undefined;
}

/** Reads memory at a linear address; undefined where some of it is not mapped. */
export function readLinear(
  cpu: CpuState,
  memory: AddressSpace,
  linear: bigint,
  length: number,
): Uint8Array | undefined {
  const bytes = new Uint8Array(length);
  for (let done = 0; done < length; ) {
    const at = linear + BigInt(done);
    const physical = translate(cpu, memory, at);
    if (physical === undefined) return undefined;
    const piece = Math.min(length - done, 0x1000 - (physical & 0xfff));
    if (!memory.readBytes(physical, bytes, done, piece)) return undefined;
    done += piece;
  }
  return bytes;
}

/** Writes memory at a linear address; false where some of it is not mapped or not writable. */
export function writeLinear(cpu: CpuState, memory: AddressSpace, linear: bigint, bytes: Uint8Array): boolean {
  for (let done = 0; done < bytes.length; ) {
    const physical = translate(cpu, memory, linear + BigInt(done));
    if (physical === undefined) return false;
    const piece = Math.min(bytes.length - done, 0x1000 - (physical & 0xfff));
    if (!memory.writeBytes(physical, bytes, done, piece)) return false;
    done += piece;
  }
  return true;
}
