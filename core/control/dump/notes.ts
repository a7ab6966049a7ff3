/** The CPUs' registers as ELF notes: those of a Linux process, which gdb reads, and QEMU's own, which have the rest. */
import { type CpuState, type DescriptorTable, GPR_NAMES, type SegmentState } from '../../accel/cpu-state.ts';
import { type GuestNote, NOTE_FORMAT_ELF } from '../../firmware/vmcoreinfo.ts';
import type { AddressSpace } from '../../memory/address-space.ts';

const NOTE_HEADER = 12;
/** What a guest may have us copy. */
const MAX_GUEST_NOTE = 2 ** 20;
const NT_PRSTATUS = 1;
const EFER_LMA = 1n << 10n;

/** Sizes of `struct elf_prstatus` of 32-bit and 64-bit Linux, and where process id and registers are in it. */
const PRSTATUS_32 = { size: 144, pid: 24, registers: 72 } as const;
const PRSTATUS_64 = { size: 336, pid: 32, registers: 112 } as const;

/** QEMU's CPU state, version 1. */
const QEMU_STATE_VERSION = 1;
const QEMU_STATE_SIZE = 440;
const SEGMENT_SIZE = 24;

type RegisterName = (typeof GPR_NAMES)[number];

export const isLongMode = (cpu: CpuState | undefined): boolean => cpu !== undefined && (cpu.efer & EFER_LMA) !== 0n;

function gpr(cpu: CpuState, name: RegisterName): bigint {
  return cpu.gpr[GPR_NAMES.indexOf(name)] ?? 0n;
}

function note(name: string, type: number, contents: Buffer): Buffer {
  const text = Buffer.from(`${name}\0`);
  const header = Buffer.alloc(NOTE_HEADER + align4(text.length));
  header.writeUInt32LE(text.length, 0);
  header.writeUInt32LE(contents.length, 4);
  header.writeUInt32LE(type, 8);
  text.copy(header, NOTE_HEADER);
  return Buffer.concat([header, contents]);
}

/** The notes of all CPUs: first Linux's of each, then QEMU's. The first CPU's mode decides on the layout. */
export function cpuNotes(cpus: readonly CpuState[]): Buffer {
  const long = isLongMode(cpus[0]);
  return Buffer.concat([
    ...cpus.map((cpu, index) =>
      note('CORE', NT_PRSTATUS, long ? prstatus64(cpu, index + 1) : prstatus32(cpu, index + 1)),
    ),
    ...cpus.map(cpu => note('QEMU', 0, qemuState(cpu))),
  ]);
}

/** Where the kernel's own note is, and what it says. Offsets and sizes in bytes. */
export interface GuestNoteText {
  readonly note: Buffer;
  /** Contents of a note called VMCOREINFO, and their place in {@link note}. */
  readonly vmcoreinfo: { readonly offset: number; readonly text: Buffer } | undefined;
}

/** Copies the note that the guest has announced; a string says why it is none. */
export function guestNote({ format, size, address }: GuestNote, memory: AddressSpace): GuestNoteText | string {
  if (size < NOTE_HEADER || size > MAX_GUEST_NOTE) return `guest note size is invalid: ${size}`;
  if (format !== NOTE_FORMAT_ELF) return `guest note format is unsupported: ${format}`;
  const bytes = Buffer.alloc(size);
  memory.readBytes(address, bytes, 0, size);
  const [nameSize, textSize] = [bytes.readUInt32LE(0), bytes.readUInt32LE(4)];
  const offset = NOTE_HEADER + align4(nameSize);
  const whole = offset + align4(textSize);
  if (nameSize > MAX_GUEST_NOTE || textSize > MAX_GUEST_NOTE || whole > size) return 'Invalid guest note header';
  const name = bytes.toString('latin1', NOTE_HEADER, NOTE_HEADER + nameSize).replace(/\0.*$/s, '');
  const text = bytes.subarray(offset, offset + textSize);
  return { note: bytes.subarray(0, whole), vmcoreinfo: name === 'VMCOREINFO' ? { offset, text } : undefined };
}

const align4 = (size: number): number => Math.ceil(size / 4) * 4;

/** `user_regs_struct` of i386. */
function prstatus32(cpu: CpuState, pid: number): Buffer {
  const bytes = Buffer.alloc(PRSTATUS_32.size);
  bytes.writeUInt32LE(pid, PRSTATUS_32.pid);
  const names = ['rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp', 'rax'] as const;
  const values = [
    ...names.map(name => gpr(cpu, name)),
    ...[cpu.ds, cpu.es, cpu.fs, cpu.gs].map(({ selector }) => BigInt(selector)),
    0n,
    cpu.rip,
    BigInt(cpu.cs.selector),
    cpu.rflags,
    gpr(cpu, 'rsp'),
    BigInt(cpu.ss.selector),
  ];
  values.forEach((value, index) => {
    bytes.writeUInt32LE(Number(BigInt.asUintN(32, value)), PRSTATUS_32.registers + 4 * index);
  });
  return bytes;
}

/** `user_regs_struct` of x86-64. */
function prstatus64(cpu: CpuState, pid: number): Buffer {
  const bytes = Buffer.alloc(PRSTATUS_64.size);
  bytes.writeUInt32LE(pid, PRSTATUS_64.pid);
  const names = [
    ...(['r15', 'r14', 'r13', 'r12', 'rbp', 'rbx', 'r11', 'r10'] as const),
    ...(['r9', 'r8', 'rax', 'rcx', 'rdx', 'rsi', 'rdi'] as const),
  ];
  const values = [
    ...names.map(name => gpr(cpu, name)),
    0n,
    cpu.rip,
    BigInt(cpu.cs.selector),
    cpu.rflags,
    gpr(cpu, 'rsp'),
    BigInt(cpu.ss.selector),
    cpu.fs.base,
    cpu.gs.base,
    ...[cpu.ds, cpu.es, cpu.fs, cpu.gs].map(({ selector }) => BigInt(selector)),
  ];
  values.forEach((value, index) => {
    bytes.writeBigUInt64LE(BigInt.asUintN(64, value), PRSTATUS_64.registers + 8 * index);
  });
  return bytes;
}

function qemuState(cpu: CpuState): Buffer {
  const bytes = Buffer.alloc(QEMU_STATE_SIZE);
  bytes.writeUInt32LE(QEMU_STATE_VERSION, 0);
  bytes.writeUInt32LE(QEMU_STATE_SIZE, 4);
  let at = 8;
  const put = (value: bigint): void => {
    at = bytes.writeBigUInt64LE(BigInt.asUintN(64, value), at);
  };
  const putSegment = (
    selector: number,
    { limit, flags, base }: { limit: number; flags: number; base: bigint },
  ): void => {
    bytes.writeUInt32LE(selector, at);
    bytes.writeUInt32LE(limit, at + 4);
    bytes.writeUInt32LE(flags >>> 0, at + 8);
    bytes.writeBigUInt64LE(BigInt.asUintN(64, base), at + 16);
    at += SEGMENT_SIZE;
  };
  const segment = (state: SegmentState): void =>
    putSegment(state.selector, { limit: state.limit, flags: state.attributes << 8, base: state.base });
  const table = ({ limit, base }: DescriptorTable): void => putSegment(0, { limit, flags: 0, base });
  for (const name of ['rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rsp', 'rbp'] as const) put(gpr(cpu, name));
  for (const name of ['r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15'] as const) put(gpr(cpu, name));
  put(cpu.rip);
  put(cpu.rflags);
  for (const state of [cpu.cs, cpu.ds, cpu.es, cpu.fs, cpu.gs, cpu.ss, cpu.ldtr, cpu.tr]) segment(state);
  table(cpu.gdtr);
  table(cpu.idtr);
  for (const value of [cpu.cr0, 0n, cpu.cr2, cpu.cr3, cpu.cr4]) put(value);
  return bytes;
}
