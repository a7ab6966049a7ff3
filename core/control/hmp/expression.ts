import { type CpuState, GPR_NAMES } from '../../accel/cpu-state.ts';
import { QmpError } from '../qapi/error.ts';

/** The value of `$name` on a CPU. */
function register(cpu: CpuState | undefined, name: string): bigint {
  if (cpu === undefined) throw new QmpError(`no cpu to read register '${name}' of`);
  const wide = GPR_NAMES.indexOf(name as (typeof GPR_NAMES)[number]);
  if (wide >= 0) return cpu.gpr[wide] ?? 0n;
  const narrow = GPR_NAMES.findIndex(candidate => candidate.replace(/^r/, 'e') === name && /^r[a-z]/.test(candidate));
  if (narrow >= 0) return BigInt.asUintN(32, cpu.gpr[narrow] ?? 0n);
  switch (name) {
    case 'pc':
      return cpu.rip + cpu.cs.base;
    case 'eip':
    case 'rip':
      return cpu.rip;
    case 'sp':
      return cpu.gpr[4] ?? 0n;
    case 'fp':
      return cpu.gpr[5] ?? 0n;
    case 'eflags':
      return cpu.rflags;
    default: {
      const segment = /^([cdefgs]s)(?:\.(base|limit))?$/.exec(name);
      const key = segment?.[1];
      if (key === 'cs' || key === 'ds' || key === 'es' || key === 'fs' || key === 'gs' || key === 'ss') {
        if (segment?.[2] === 'base') return cpu[key].base;
        return BigInt(segment?.[2] === 'limit' ? cpu[key].limit : cpu[key].selector);
      }
      throw new QmpError('unknown register');
    }
  }
}

/** An arithmetic expression of the monitor (`$pc + 8`, `0x100 * (2 + 3)`) at the start of `text`. */
export function evaluate(text: string, cpu: CpuState | undefined): { value: bigint; rest: string } {
  const parser = new Expression(text, cpu);
  const value = parser.sum();
  return { value: BigInt.asUintN(64, value), rest: parser.rest };
}

class Expression {
  readonly #text: string;
  readonly #cpu: CpuState | undefined;
  #at = 0;

  constructor(text: string, cpu: CpuState | undefined) {
    this.#text = text;
    this.#cpu = cpu;
  }

  get rest(): string {
    return this.#text.slice(this.#at);
  }

  sum(): bigint {
    let value = this.#logic();
    for (let operator = this.#operator('+-'); operator !== undefined; operator = this.#operator('+-')) {
      const right = this.#logic();
      value = operator === '+' ? value + right : value - right;
    }
    return value;
  }

  #logic(): bigint {
    let value = this.#product();
    for (let operator = this.#operator('&|^'); operator !== undefined; operator = this.#operator('&|^')) {
      const right = this.#product();
      value = operator === '&' ? value & right : operator === '|' ? value | right : value ^ right;
    }
    return value;
  }

  #product(): bigint {
    let value = this.#unary();
    for (let operator = this.#operator('*/%'); operator !== undefined; operator = this.#operator('*/%')) {
      const right = this.#unary();
      if (operator !== '*' && right === 0n) throw new QmpError('division by zero');
      value = operator === '*' ? value * right : operator === '/' ? value / right : value % right;
    }
    return value;
  }

  #unary(): bigint {
    const operator = this.#operator('+-~');
    if (operator !== undefined) {
      const value = this.#unary();
      return operator === '-' ? -value : operator === '~' ? ~value : value;
    }
    if (this.#operator('(') !== undefined) {
      const value = this.sum();
      if (this.#operator(')') === undefined) throw new QmpError("')' expected");
      return value;
    }
    const match = /^\s*(?:\$([\w.]+)|'(.)'|(0[xX][0-9a-fA-F]+|[0-9]+))/.exec(this.rest);
    if (match === null)
      throw new QmpError(
        this.rest.trim() === ''
          ? 'unexpected end of expression'
          : `invalid char '${this.rest.trim()[0]}' in expression`,
      );
    this.#at += match[0].length;
    if (match[1] !== undefined) return register(this.#cpu, match[1]);
    if (match[2] !== undefined) return BigInt(match[2].charCodeAt(0));
    const digits = match[3] ?? '0';
    return BigInt(/^0[0-7]+$/.test(digits) ? `0o${digits.slice(1)}` : digits);
  }

  #operator(among: string): string | undefined {
    const skipped = /^\s*/.exec(this.rest)?.[0].length ?? 0;
    const found = this.#text[this.#at + skipped];
    if (found === undefined || !among.includes(found)) return undefined;
    this.#at += skipped + 1;
    return found;
  }
}
