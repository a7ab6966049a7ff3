import { isObject, type Json, JsonFloat } from '../control/json/value.ts';
import { BlockError } from './io-error.ts';

/** The value of an option: typed where it comes from JSON, a string where it comes from the command line. */
export type OptionScalar = string | number | bigint | boolean | null;

/**
 * The options of a node and its children, flat: `{driver: 'qcow2', 'file.driver': 'file', 'file.filename': 'a'}`.
 * Those who understand an option take it; what is left in the end was not understood by anybody.
 */
export class BlockOptions {
  readonly #values: Map<string, OptionScalar>;

  constructor(values: Iterable<readonly [string, OptionScalar]> = []) {
    this.#values = new Map(values);
  }

  /** From a JSON object with nested members, dotted keys or both. */
  static fromJson(object: { readonly [name: string]: Json }): BlockOptions {
    const options = new BlockOptions();
    options.#flatten('', object);
    return options;
  }

  #flatten(prefix: string, value: Json): void {
    if (value instanceof JsonFloat) this.#values.set(prefix, value.value);
    else if (Array.isArray(value)) {
      for (const [index, item] of value.entries()) this.#flatten(`${prefix}.${index}`, item);
    } else if (isObject(value)) {
      for (const [name, member] of Object.entries(value))
        this.#flatten(prefix === '' ? name : `${prefix}.${name}`, member);
    } else if (!Array.isArray(value)) this.#values.set(prefix, scalar(value));
  }

  get size(): number {
    return this.#values.size;
  }

  /** Those that nobody has taken yet. */
  keys(): string[] {
    return [...this.#values.keys()];
  }

  entries(): [string, OptionScalar][] {
    return [...this.#values];
  }

  copy(): BlockOptions {
    return new BlockOptions(this.#values);
  }

  has(key: string): boolean {
    return this.#values.has(key);
  }

  /** Whether there is any option of the child `name`. */
  hasChild(name: string): boolean {
    if (this.#values.has(name)) return true;
    for (const key of this.#values.keys()) if (key.startsWith(`${name}.`)) return true;
    return false;
  }

  set(key: string, value: OptionScalar): this {
    this.#values.set(key, value);
    return this;
  }

  setDefault(key: string, value: OptionScalar): this {
    if (!this.#values.has(key)) this.#values.set(key, value);
    return this;
  }

  delete(key: string): void {
    this.#values.delete(key);
  }

  peek(key: string): OptionScalar | undefined {
    return this.#values.get(key);
  }

  #take(key: string): OptionScalar | undefined {
    const value = this.#values.get(key);
    this.#values.delete(key);
    return value;
  }

  string(key: string): string | undefined {
    const value = this.#take(key);
    if (value === undefined) return undefined;
    if (typeof value !== 'string') throw invalidType(key, 'string');
    return value;
  }

  bool(key: string): boolean | undefined {
    const value = this.#take(key);
    if (value === undefined || typeof value === 'boolean') return value;
    if (value === 'on' || value === 'yes' || value === 'true' || value === 'y') return true;
    if (value === 'off' || value === 'no' || value === 'false' || value === 'n') return false;
    if (typeof value === 'string') throw new BlockError(`Parameter '${key}' expects 'on' or 'off'`);
    throw invalidType(key, 'boolean');
  }

  /** A whole number of at least 0; on the command line with `0x`. */
  number(key: string): number | undefined {
    const value = this.#take(key);
    if (value === undefined) return undefined;
    if (typeof value === 'bigint' || typeof value === 'number') return exact(key, BigInt(value), 'integer');
    if (typeof value !== 'string') throw invalidType(key, 'integer');
    if (!/^(0x[0-9a-f]+|[0-9]+)$/i.test(value)) throw new BlockError(`Parameter '${key}' expects a number`);
    return exact(key, BigInt(value), 'a number');
  }

  /** As {@link bytes}, and above 2^53 as well where it comes from JSON. */
  wholeBytes(key: string): bigint | undefined {
    const value = this.#values.get(key);
    if (typeof value === 'bigint' && value >= 0n) {
      this.#values.delete(key);
      return value;
    }
    const bytes = this.bytes(key);
    return bytes === undefined ? undefined : BigInt(bytes);
  }

  /** A number of bytes; on the command line with a suffix. */
  bytes(key: string): number | undefined {
    const value = this.#values.get(key);
    if (typeof value !== 'string') return this.number(key);
    this.#values.delete(key);
    const size = parseSize(value);
    if (size === undefined) {
      throw new BlockError(`Parameter '${key}' expects a non-negative number below 2^64`, {
        hint: 'Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.',
      });
    }
    return size;
  }

  choice<const T extends string>(key: string, values: readonly T[]): T | undefined {
    const value = this.string(key);
    if (value === undefined) return undefined;
    for (const candidate of values) if (candidate === value) return candidate;
    throw new BlockError(`Invalid parameter '${value}'`);
  }

  /** Takes the options of the child `name`, under their names in the child. The reference `name` itself stays. */
  child(name: string): BlockOptions {
    const child = new BlockOptions();
    for (const [key, value] of [...this.#values]) {
      if (!key.startsWith(`${name}.`)) continue;
      child.#values.set(key.slice(name.length + 1), value);
      this.#values.delete(key);
    }
    return child;
  }

  /** Takes the members of the list `name`, in order. */
  list(name: string): BlockOptions[] {
    const all = this.child(name);
    const items: BlockOptions[] = [];
    for (let index = 0; all.hasChild(`${index}`); index++) {
      const item = all.child(`${index}`);
      const reference = all.string(`${index}`);
      if (reference !== undefined) item.set('', reference);
      items.push(item);
    }
    return items;
  }
}

/**
 * `64M` in bytes: a number with an optional suffix b, k, M, G, T, P or E; undefined where it is none or above 2^53.
 * A fraction (`1.5G`) is allowed where there is a suffix.
 */
export function parseSize(text: string): number | undefined {
  const match = /^(0x[0-9a-f]+|[0-9]+(?:\.[0-9]+)?)([bkmgtpe])?$/i.exec(text);
  if (match === null) return undefined;
  const [, digits = '', suffix = 'b'] = match;
  const size = Number(digits) * 1024 ** 'bkmgtpe'.indexOf(suffix.toLowerCase());
  const whole = Math.floor(size);
  return Number.isSafeInteger(whole) && (digits.includes('.') === false || suffix.toLowerCase() !== 'b')
    ? whole
    : undefined;
}

function scalar(value: Json): OptionScalar {
  if (value === null || typeof value !== 'object') return value;
  return null;
}

function exact(key: string, value: bigint, expected: string): number {
  if (value < 0n || value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new BlockError(
      `Parameter '${key}' expects ${expected === 'integer' ? 'a non-negative integer below 2^53' : expected}`,
    );
  }
  return Number(value);
}

function invalidType(key: string, expected: string): BlockError {
  return new BlockError(`Invalid parameter type for '${key}', expected: ${expected}`);
}
