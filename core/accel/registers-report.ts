import type { CpuState, SegmentState } from './cpu-state.ts';

const EFER_LMA = 1n << 10n;
const CR0_PE = 1n;

/** Bits of SegmentState.attributes: the descriptor's type, S, P, L and D/B (Intel SDM volume 3, section 3.4.5). */
const ACCESSED = 1;
const READ_WRITE = 2;
const CONFORMING_DOWN = 4;
const CODE = 8;
const S = 1 << 4;
const P = 1 << 7;
const L = 1 << 13;
const DB = 1 << 14;
const CODE_BYTES = 50;
const CODE_BYTES_BEFORE = 20n;

const hex = (value: bigint | number, digits: number): string =>
  BigInt.asUintN(4 * digits, BigInt(value))
    .toString(16)
    .padStart(digits, '0');

/** In the order in which `info registers` prints them. */
const RFLAGS_LETTERS: readonly (readonly [letter: string, bit: bigint])[] = [
  ['D', 10n],
  ['O', 11n],
  ['S', 7n],
  ['Z', 6n],
  ['A', 4n],
  ['P', 2n],
  ['C', 0n],
];
const NAMES_32 = ['EAX', 'EBX', 'ECX', 'EDX', 'ESI', 'EDI', 'EBP', 'ESP'] as const;
const NAMES_64 = [
  'RAX',
  'RBX',
  'RCX',
  'RDX',
  'RSI',
  'RDI',
  'RBP',
  'RSP',
  'R8 ',
  'R9 ',
  'R10',
  'R11',
  'R12',
  'R13',
  'R14',
  'R15',
] as const;
/** The index in CpuState.gpr of each of NAMES_64. */
const PRINT_ORDER = [0, 3, 1, 2, 6, 7, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15] as const;

const SYSTEM_TYPES_32 = [
  'Reserved',
  'TSS16-avl',
  'LDT',
  'TSS16-busy',
  'CallGate16',
  'TaskGate',
  'IntGate16',
  'TrapGate16',
  'Reserved',
  'TSS32-avl',
  'Reserved',
  'TSS32-busy',
  'CallGate32',
  'Reserved',
  'IntGate32',
  'TrapGate32',
] as const;
const SYSTEM_TYPES_64 = [
  '<hiword>',
  'Reserved',
  'LDT',
  'Reserved',
  'Reserved',
  'Reserved',
  'Reserved',
  'Reserved',
  'Reserved',
  'TSS64-avl',
  'Reserved',
  'TSS64-busy',
  'CallGate64',
  'Reserved',
  'IntGate64',
  'TrapGate64',
] as const;

/** The registers in the layout of QEMU's `info registers`, down to EFER; each line ends with a newline. */
export function registersReport(cpu: CpuState): string {
  const longMode = (cpu.efer & EFER_LMA) !== 0n;
  const code64 = longMode && (cpu.cs.attributes & L) !== 0;
  const digits = code64 ? 16 : 8;
  const names = code64 ? NAMES_64 : NAMES_32;
  let report = '';
  for (const [index, name] of names.entries()) {
    report += `${name}=${hex(cpu.gpr[PRINT_ORDER[index] ?? 0] ?? 0n, digits)}${index % 4 === 3 ? '\n' : ' '}`;
  }
  const letters = RFLAGS_LETTERS.map(([letter, bit]) => (((cpu.rflags >> bit) & 1n) !== 0n ? letter : '-')).join('');
  const privilege = (cpu.ss.attributes >> 5) & 3;
  report += `${code64 ? 'RIP' : 'EIP'}=${hex(cpu.rip, digits)} ${code64 ? 'RFL' : 'EFL'}=${hex(cpu.rflags, 8)} [${letters}]`;
  report += ` CPL=${privilege} II=0 A20=1 SMM=0 HLT=${cpu.halted ? 1 : 0}\n`;

  const segments = [
    ['ES', cpu.es],
    ['CS', cpu.cs],
    ['SS', cpu.ss],
    ['DS', cpu.ds],
    ['FS', cpu.fs],
    ['GS', cpu.gs],
    ['LDT', cpu.ldtr],
    ['TR', cpu.tr],
  ] as const;
  for (const [name, segment] of segments) report += segmentReport(name, segment, cpu, digits);

  const wide = longMode ? 16 : 8;
  report += `GDT=     ${hex(cpu.gdtr.base, wide)} ${hex(cpu.gdtr.limit, 8)}\n`;
  report += `IDT=     ${hex(cpu.idtr.base, wide)} ${hex(cpu.idtr.limit, 8)}\n`;
  report += `CR0=${hex(cpu.cr0, 8)} CR2=${hex(cpu.cr2, wide)} CR3=${hex(cpu.cr3, wide)} CR4=${hex(cpu.cr4, 8)}\n`;
  for (let index = 0; index < 4; index++) report += `DR${index}=${hex(cpu.debug[index] ?? 0n, 16)} `;
  report += `\nDR6=${hex(cpu.debug[4] ?? 0n, 16)} DR7=${hex(cpu.debug[5] ?? 0n, 16)}\n`;
  return `${report}EFER=${hex(cpu.efer, 16)}\n`;
}

function segmentReport(name: string, segment: SegmentState, cpu: CpuState, digits: number): string {
  const flags = segment.unusable ? segment.attributes & ~P : segment.attributes;
  const line = `${name.padEnd(3)}=${hex(segment.selector, 4)} ${hex(segment.base, digits)} ${hex(segment.limit, 8)} ${hex(flags << 8, 8)}`;
  if ((cpu.cr0 & CR0_PE) === 0n || (flags & P) === 0) return `${line}\n`;
  return `${line} DPL=${(flags >> 5) & 3} ${segmentKind(flags, (cpu.efer & EFER_LMA) !== 0n)}\n`;
}

function segmentKind(flags: number, longMode: boolean): string {
  const type = flags & 15;
  if ((flags & S) === 0) return (longMode ? SYSTEM_TYPES_64 : SYSTEM_TYPES_32)[type] ?? 'Reserved';
  const accessed = type & ACCESSED ? 'A' : '-';
  if ((type & CODE) !== 0) {
    const width = flags & L ? 'CS64' : flags & DB ? 'CS32' : 'CS16';
    return `${width} [${type & CONFORMING_DOWN ? 'C' : '-'}${type & READ_WRITE ? 'R' : '-'}${accessed}]`;
  }
  const width = flags & DB || longMode ? 'DS  ' : 'DS16';
  return `${width} [${type & CONFORMING_DOWN ? 'E' : '-'}${type & READ_WRITE ? 'W' : '-'}${accessed}]`;
}

/** QEMU's `Code=` line: 50 bytes around the instruction pointer, its own in angle brackets, `??` where unreadable. */
export function codeReport(cpu: CpuState, byteAt: (linear: bigint) => number | undefined): string {
  const before = cpu.rip < CODE_BYTES_BEFORE ? cpu.rip : CODE_BYTES_BEFORE;
  const first = cpu.cs.base + cpu.rip - before;
  const cells = Array.from({ length: CODE_BYTES }, (_, index) => {
    const byte = byteAt(BigInt.asUintN(64, first + BigInt(index)));
    const cell = byte === undefined ? '??' : hex(byte, 2);
    return BigInt(index) === before ? `<${cell}>` : cell;
  });
  return `Code=${cells.join(' ')}\n`;
}
