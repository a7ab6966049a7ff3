import type { CpuState } from '../../accel/cpu-state.ts';
import { disassemble } from '../../host/disassembler.ts';
import { readLinear, translate } from '../debug/translate.ts';
import { QmpError } from '../qapi/error.ts';
import type { HmpContext } from './command.ts';

/** `/8xw`: how many, in which form, how wide. */
export interface Format {
  readonly count: number;
  /** x hexadecimal, d signed, u unsigned, o octal, c character, i instruction. */
  readonly letter: string;
  readonly size: number;
}

const SIZES: Readonly<Record<string, number>> = { b: 1, h: 2, w: 4, g: 8 };
const CR0_PG = 1n << 31n;
const EFER_LMA = 1n << 10n;
const last: { letter: string; size: number } = { letter: 'x', size: 4 };

/** Takes a format off the start of `text`. */
export function takeFormat(text: string): { format: Format; rest: string } {
  const match = /^\s*\/(\d*)([a-z]*)/.exec(text);
  let letter = last.letter;
  let size: number | undefined;
  for (const character of match?.[2] ?? '') {
    if (character in SIZES) size = SIZES[character];
    else if ('xduoci'.includes(character)) letter = character;
    else throw new QmpError(`invalid char in format: '${character}'`);
  }
  const width = letter === 'i' ? 1 : (size ?? last.size);
  last.letter = letter;
  if (letter !== 'i') last.size = width;
  return {
    format: { count: Math.max(1, Number(match?.[1] || 1)), letter, size: width },
    rest: text.slice(match?.[0].length ?? 0),
  };
}

/** One value as `p` and the dumps print it. */
export function formatValue(value: bigint, letter: string, size: number): string {
  const bits = BigInt(size * 8);
  switch (letter) {
    case 'o':
      return `0${BigInt.asUintN(Number(bits), value).toString(8)}`.padStart(Math.ceil((size * 8) / 3));
    case 'u':
      return BigInt.asUintN(Number(bits), value)
        .toString()
        .padStart(Math.ceil((size * 80) / 33));
    case 'd':
      return BigInt.asIntN(Number(bits), value)
        .toString()
        .padStart(Math.ceil((size * 80) / 33));
    case 'c': {
      const code = Number(BigInt.asUintN(32, value));
      const shown =
        code >= 0x20 && code < 0x7f ? String.fromCharCode(code) : `\\x${code.toString(16).padStart(2, '0')}`;
      return `'${shown}'`;
    }
    default:
      return `0x${BigInt.asUintN(Number(bits), value)
        .toString(16)
        .padStart(size * 2, '0')}`;
  }
}

/** `x` and `xp`. */
export function dumpMemory(context: HmpContext, format: Format, address: bigint, physical: boolean): string {
  const cpu = context.cpuState();
  if (cpu === undefined && (format.letter === 'i' || !physical)) return 'Can not dump without CPU\n';
  const start = BigInt.asUintN(64, address);
  const { memory } = context.program.machine;
  const read = (at: bigint, length: number): Uint8Array | undefined => {
    if (!physical && cpu !== undefined) {
      // Without paging a linear address has 32 bits.
      if ((cpu.cr0 & CR0_PG) === 0n && at > 0xffff_ffffn) return undefined;
      return readLinear(cpu, memory, at, length);
    }
    const bytes = new Uint8Array(length);
    return memory.readBytes(Number(at), bytes, 0, length) ? bytes : undefined;
  };
  if (format.letter === 'i' && cpu !== undefined) return instructions(cpu, read, start, format.count);
  const size = format.letter === 'c' ? 1 : format.size;
  const lineSize = size === 1 ? 8 : 16;
  const total = Math.min(format.size * format.count, 2 ** 24);
  const lines: string[] = [];
  for (let done = 0; done < total; done += lineSize) {
    const length = Math.min(lineSize, total - done);
    const at = BigInt.asUintN(64, start + BigInt(done));
    const label = `${at.toString(16).padStart(16, '0')}:`;
    const bytes = read(at, length);
    if (bytes === undefined) {
      lines.push(`${label} Cannot access memory\n`);
      break;
    }
    const values: string[] = [];
    for (let index = 0; index < length; index += size) {
      let value = 0n;
      for (let byte = size - 1; byte >= 0; byte--) value = (value << 8n) | BigInt(bytes[index + byte] ?? 0);
      values.push(formatValue(value, format.letter, size));
    }
    lines.push(`${label} ${values.join(' ')}\n`);
  }
  return lines.join('');
}

/** The longest instruction, and how many of its bytes stand on a line. */
const INSTRUCTION_MAX = 15;
const BYTES_A_LINE = 8;
const PAGE = 0x1000n;
/** CS's L and D bits (Intel SDM volume 3, section 3.4.5). */
const CS_LONG = 1 << 13;
const CS_DEFAULT = 1 << 14;

function codeBits({ cs, efer }: CpuState): 16 | 32 | 64 {
  if ((cs.attributes & CS_LONG) !== 0 && (efer & EFER_LMA) !== 0n) return 64;
  return (cs.attributes & CS_DEFAULT) !== 0 ? 32 : 16;
}

/** Instructions as the CPU would take them now, each with its bytes. */
function instructions(
  cpu: CpuState,
  read: (at: bigint, length: number) => Uint8Array | undefined,
  start: bigint,
  count: number,
): string {
  const bits = codeBits(cpu);
  const lines: string[] = [];
  let at = start;
  for (let number = 0; number < count; number++) {
    // The next page may not be there, and the instruction may not reach it.
    const toPage = Number(PAGE - (at % PAGE));
    const code = read(at, INSTRUCTION_MAX) ?? (toPage < INSTRUCTION_MAX ? read(at, toPage) : undefined);
    const found = code === undefined ? undefined : disassemble(code, at, bits);
    if (code === undefined || found === undefined) {
      lines.push(`0x${at.toString(16).padStart(8, '0')}: unable to read memory\n`);
      break;
    }
    for (let done = 0; done < found.bytes; done += BYTES_A_LINE) {
      const bytes = [...code.subarray(done, Math.min(done + BYTES_A_LINE, found.bytes))];
      const shown = bytes.map(byte => ` ${byte.toString(16).padStart(2, '0')}`).join('');
      const text =
        done > 0
          ? ''
          : `${' '.repeat((BYTES_A_LINE - bytes.length) * 3)}  ${found.mnemonic.padEnd(8)} ${found.operands}`;
      lines.push(
        `0x${BigInt.asUintN(64, at + BigInt(done))
          .toString(16)
          .padStart(8, '0')}: ${shown}${text}\n`,
      );
    }
    at = BigInt.asUintN(64, at + BigInt(found.bytes));
  }
  return lines.join('');
}

/** `gva2gpa`. */
export function showTranslation(context: HmpContext, address: bigint): string {
  const cpu = context.cpuState();
  if (cpu === undefined) return 'No cpu\n';
  const physical = translate(cpu, context.program.machine.memory, BigInt.asUintN(64, address));
  return physical === undefined ? 'Unmapped\n' : `gpa: 0x${physical.toString(16)}\n`;
}
