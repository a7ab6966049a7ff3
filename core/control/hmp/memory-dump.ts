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
  if (format.letter === 'i')
    return `0x${start.toString(16).padStart(8, '0')}:  Asm output not supported by this program\n`;
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

/** `gva2gpa`. */
export function showTranslation(context: HmpContext, address: bigint): string {
  const cpu = context.cpuState();
  if (cpu === undefined) return 'No cpu\n';
  const physical = translate(cpu, context.program.machine.memory, BigInt.asUintN(64, address));
  return physical === undefined ? 'Unmapped\n' : `gpa: 0x${physical.toString(16)}\n`;
}
