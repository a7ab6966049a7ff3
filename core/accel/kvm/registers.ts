import type { CpuState, DescriptorTable, SegmentState } from '../cpu-state.ts';

export const REGS_SIZE = 144;
export const SREGS_SIZE = 312;

/** Where struct kvm_regs keeps each of GPR_NAMES: the kernel's order differs from the encoding's only here. */
const GPR_WORD = [0, 2, 3, 1, 6, 7, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15] as const;
const RIP = 128;
const RFLAGS = 136;

/** struct kvm_sregs. */
const SEGMENT = { cs: 0, ds: 24, es: 48, fs: 72, gs: 96, ss: 120, tr: 144, ldtr: 168 } as const;
const TABLE = { gdtr: 192, idtr: 208 } as const;
const CONTROL = { cr0: 224, cr2: 232, cr3: 240, cr4: 248, cr8: 256, efer: 264, apicBase: 272 } as const;

const SEGMENTS = Object.keys(SEGMENT) as (keyof typeof SEGMENT)[];
const TABLES = Object.keys(TABLE) as (keyof typeof TABLE)[];
const CONTROLS = Object.keys(CONTROL) as (keyof typeof CONTROL)[];

export function decodeRegs(regs: DataView, gpr: BigUint64Array): { rip: bigint; rflags: bigint } {
  for (const [index, word] of GPR_WORD.entries()) gpr[index] = regs.getBigUint64(8 * word, true);
  return { rip: regs.getBigUint64(RIP, true), rflags: regs.getBigUint64(RFLAGS, true) };
}

export function encodeRegs(regs: DataView, state: CpuState): void {
  for (const [index, word] of GPR_WORD.entries()) regs.setBigUint64(8 * word, state.gpr[index] ?? 0n, true);
  regs.setBigUint64(RIP, state.rip, true);
  regs.setBigUint64(RFLAGS, state.rflags, true);
}

/** Bits 31:0 of the general registers that 32-bit code has, in encoding order. */
export function lowHalves(regs: DataView, into: Uint32Array): void {
  for (let index = 0; index < into.length; index++) into[index] = regs.getUint32(8 * (GPR_WORD[index] ?? 0), true);
}

/** Gives the registers that differ from `from` its values, extended by zeros. */
export function setLowHalves(regs: DataView, from: Uint32Array): void {
  for (const [index, value] of from.entries()) {
    const at = 8 * (GPR_WORD[index] ?? 0);
    if (regs.getUint32(at, true) !== value) regs.setBigUint64(at, BigInt(value), true);
  }
}

export type SystemRegisters = Pick<CpuState, keyof typeof SEGMENT | keyof typeof TABLE | keyof typeof CONTROL>;

export function decodeSregs(sregs: DataView): SystemRegisters {
  const segments = Object.fromEntries(SEGMENTS.map(name => [name, decodeSegment(sregs, SEGMENT[name])]));
  const tables = Object.fromEntries(TABLES.map(name => [name, decodeTable(sregs, TABLE[name])]));
  const controls = Object.fromEntries(CONTROLS.map(name => [name, sregs.getBigUint64(CONTROL[name], true)]));
  return { ...segments, ...tables, ...controls } as SystemRegisters;
}

/** Writes over `sregs`, which keeps what the state does not have: an interrupt that awaits injection. */
export function encodeSregs(sregs: DataView, state: SystemRegisters): void {
  for (const name of SEGMENTS) encodeSegment(sregs, SEGMENT[name], state[name]);
  for (const name of TABLES) {
    sregs.setBigUint64(TABLE[name], state[name].base, true);
    sregs.setUint16(TABLE[name] + 8, state[name].limit, true);
  }
  for (const name of CONTROLS) sregs.setBigUint64(CONTROL[name], state[name], true);
}

/** struct kvm_segment: base, limit, selector, then type, present, dpl, db, s, l, g, avl, unusable in a byte each. */
function decodeSegment(sregs: DataView, at: number): SegmentState {
  const flag = (index: number): number => sregs.getUint8(at + 14 + index);
  return {
    base: sregs.getBigUint64(at, true),
    limit: sregs.getUint32(at + 8, true),
    selector: sregs.getUint16(at + 12, true),
    attributes:
      flag(0) |
      (flag(4) << 4) |
      (flag(2) << 5) |
      (flag(1) << 7) |
      (flag(7) << 12) |
      (flag(5) << 13) |
      (flag(3) << 14) |
      (flag(6) << 15),
    unusable: flag(8) !== 0,
  };
}

function encodeSegment(sregs: DataView, at: number, segment: SegmentState): void {
  const { attributes } = segment;
  sregs.setBigUint64(at, segment.base, true);
  sregs.setUint32(at + 8, segment.limit, true);
  sregs.setUint16(at + 12, segment.selector, true);
  const flags = [
    attributes & 15,
    (attributes >> 7) & 1,
    (attributes >> 5) & 3,
    (attributes >> 14) & 1,
    (attributes >> 4) & 1,
    (attributes >> 13) & 1,
    (attributes >> 15) & 1,
    (attributes >> 12) & 1,
    segment.unusable ? 1 : 0,
  ];
  for (const [index, value] of flags.entries()) sregs.setUint8(at + 14 + index, value);
}

function decodeTable(sregs: DataView, at: number): DescriptorTable {
  return { base: sregs.getBigUint64(at, true), limit: sregs.getUint16(at + 8, true) };
}
