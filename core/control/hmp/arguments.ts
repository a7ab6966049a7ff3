import type { CpuState } from '../../accel/cpu-state.ts';
import { parseSize } from '../options/numbers.ts';
import { QmpError } from '../qapi/error.ts';
import { evaluate } from './expression.ts';
import { type Format, takeFormat } from './memory-dump.ts';

/** A line that does not fit its command: what is wrong, and that `help` tells more. */
export class HmpUsage extends Error {}

type ArgValue = string | bigint | boolean | Format;

/** The arguments of one line, by the names of the command's declaration. */
export class HmpArguments {
  readonly #values: ReadonlyMap<string, ArgValue>;

  constructor(values: ReadonlyMap<string, ArgValue>) {
    this.#values = values;
  }

  /** A word that the declaration requires. */
  text(name: string): string {
    return this.optional(name) ?? '';
  }

  optional(name: string): string | undefined {
    const value = this.#values.get(name);
    return typeof value === 'string' ? value : undefined;
  }

  integer(name: string): bigint {
    return this.optionalInteger(name) ?? 0n;
  }

  optionalInteger(name: string): bigint | undefined {
    const value = this.#values.get(name);
    return typeof value === 'bigint' ? value : undefined;
  }

  /** A flag such as `-f`, or an on/off word. */
  flag(name: string): boolean {
    return this.#values.get(name) === true;
  }

  format(name: string): Format {
    const value = this.#values.get(name);
    if (typeof value !== 'object') throw new Error(`no format '${name}' is declared`);
    return value;
  }
}

/** One parameter of a declaration such as `force:-f,device:B,size:o?`. */
interface Parameter {
  readonly name: string;
  readonly kind: string;
  readonly optional: boolean;
}

const EXPECTED: Readonly<Record<string, string>> = { F: 'filename', B: 'block device name', s: 'string', S: 'string' };

function declaration(spec: string): Parameter[] {
  return spec
    .split(',')
    .filter(part => part !== '')
    .map(part => {
      const [name = '', kind = ''] = part.split(':');
      return { name, kind: kind.replace(/\?$/, ''), optional: kind.endsWith('?') };
    });
}

/**
 * Takes a line's arguments apart, as the declaration says, in QEMU's notation: `s` a word, `F` a file name, `B` a block device,
 * `S` the rest of the line, `O` options, `i` 32 bits, `l` 64 bits, `M` megabytes, `o` a size, `b` on or off, `/` a format, `-x` a
 * flag, `-xs` a flag with a word; `?` what may be missing.
 * @throws HmpUsage in QEMU's words
 */
export function parseArguments(command: string, spec: string, line: string, cpu: CpuState | undefined): HmpArguments {
  const values = new Map<string, ArgValue>();
  let rest = line.trimStart();
  const parameters = declaration(spec);
  const letters = parameters.filter(({ kind }) => kind.startsWith('-')).map(({ kind }) => kind[1]);
  for (const { name, kind, optional } of parameters) {
    if (kind.startsWith('-')) {
      const [, letter] = /^-(\S)/.exec(rest) ?? [];
      if (letter !== undefined && !letters.includes(letter))
        throw new HmpUsage(`${command}: unsupported option -${letter}`);
      rest = takeFlag(command, name, kind, rest, values);
      continue;
    }
    if (kind === '/') {
      const taken = asUsage(() => takeFormat(rest));
      values.set(name, taken.format);
      rest = taken.rest.trimStart();
      continue;
    }
    if (rest === '' && optional) continue;
    if (kind === 'S' || kind === 'O') {
      // Options may be none at all; the command then says which it wants.
      if (rest === '' && kind === 'S') throw new HmpUsage(`${command}: string expected`);
      values.set(name, rest.trimEnd());
      rest = '';
      continue;
    }
    const taken = kind in EXPECTED ? takeWord(command, kind, rest) : takeNumber(command, kind, rest, cpu);
    values.set(name, taken.value);
    rest = taken.rest.trimStart();
  }
  if (rest !== '') throw new HmpUsage(`${command}: extraneous characters at the end of line`);
  return new HmpArguments(values);
}

function takeFlag(command: string, name: string, kind: string, rest: string, values: Map<string, ArgValue>): string {
  const letter = kind[1] ?? '';
  const found = /^-(\S)(?=\s|$)\s*/.exec(rest);
  if (found === null || found[1] !== letter) return rest;
  const behind = rest.slice(found[0].length);
  if (!kind.endsWith('s') || kind.length < 3) {
    values.set(name, true);
    return behind;
  }
  if (behind === '') throw new HmpUsage(`${command}: value expected for -${letter}`);
  const word = takeWord(command, 's', behind);
  values.set(name, word.value);
  return word.rest.trimStart();
}

function takeWord(command: string, kind: string, rest: string): { value: string; rest: string } {
  const match = /^"((?:[^"\\]|\\.)*)"|^(\S+)/.exec(rest);
  if (match === null) throw new HmpUsage(`${command}: ${EXPECTED[kind]} expected`);
  const quoted = match[1]?.replace(/\\(.)/g, (_, character: string) => ESCAPES[character] ?? character);
  return { value: quoted ?? match[2] ?? '', rest: rest.slice(match[0].length) };
}

const ESCAPES: Readonly<Record<string, string>> = { n: '\n', r: '\r' };

/** What cannot be read is a fault of the line. */
function asUsage<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw error instanceof QmpError ? new HmpUsage(error.message) : error;
  }
}

function takeNumber(
  command: string,
  kind: string,
  rest: string,
  cpu: CpuState | undefined,
): { value: bigint | boolean; rest: string } {
  const [word = ''] = rest.split(/\s/, 1);
  if (kind === 'b') {
    if (word !== 'on' && word !== 'off') throw new HmpUsage("Expected 'on' or 'off'");
    return { value: word === 'on', rest: rest.slice(word.length) };
  }
  if (kind === 'o') {
    const size = parseSize(word, 'M');
    if (size === undefined) throw new HmpUsage('invalid size');
    return { value: size, rest: rest.slice(word.length) };
  }
  const found = asUsage(() => evaluate(rest, cpu));
  const value = BigInt.asIntN(64, found.value);
  if (kind === 'i' && value >> 32n !== 0n && value >> 32n !== -1n)
    throw new HmpUsage(`'${command}' has failed: integer is for 32-bit values`);
  if (kind !== 'M') return { value, rest: found.rest };
  if (value < 0n) throw new HmpUsage('enter a positive value');
  return { value: value << 20n, rest: found.rest };
}
