import { didYouMean, SouthbridgeError } from '../../errors.ts';
import { isObject, type Json, type JsonObject } from '../json/value.ts';
import { isHelp, parseBool, parseSizeOrRange, parseUnsignedOrRange } from './numbers.ts';

/** The types that an option's parameter can be declared with, as `query-command-line-options` names them. */
export type ParameterType = 'string' | 'boolean' | 'number' | 'size';

export interface ParameterSpec {
  readonly type: ParameterType;
  readonly help?: string;
  readonly default?: string;
}

/** The parameters of one option (`-chardev`, `-smp`, …). Without parameters it takes any. */
export interface OptionGroup {
  readonly name: string;
  /** The parameter that a leading value without `key=` stands for. */
  readonly impliedKey?: string;
  /** Where the option is given again, it adds to the first: there is one set of values (`-smp`, `-boot`, `-rtc`). */
  readonly merge?: boolean;
  /** Takes other parameters too: they are somebody else's to check. */
  readonly open?: boolean;
  readonly parameters?: { readonly [name: string]: ParameterSpec };
}

/** An error in an option, in QEMU's words. */
export class OptionError extends SouthbridgeError {
  constructor(message: string, hint?: string) {
    super('ERR_OPTION', message, hint);
    this.name = 'OptionError';
  }
}

/** Thrown where an option asks for `help`: not an error. */
export class HelpWanted extends Error {
  override readonly name = 'HelpWanted';
}

const ID = /^[A-Za-z][A-Za-z0-9\-._]*$/;

/** One `key=value` in the order of the command line. */
export interface OptionValue {
  readonly key: string;
  readonly value: string;
}

/** The values that one occurrence of an option was given, validated against its group. Later values of a key win. */
export class Opts {
  readonly group: OptionGroup;
  readonly id: string | undefined;
  readonly values: OptionValue[] = [];

  constructor(group: OptionGroup, id?: string) {
    if (id !== undefined && !ID.test(id)) {
      throw new OptionError(
        "Parameter 'id' expects an identifier",
        "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.",
      );
    }
    this.group = group;
    this.id = id;
  }

  /** Adds `text`, such as `tcp:…,server=on` or `size=1G,help`. Throws OptionError, or HelpWanted. */
  parse(text: string): this {
    for (const { key, value, flag } of splitOptions(text, this.group.impliedKey)) {
      if (flag && isHelp(key)) throw new HelpWanted(this.group.name);
      if (key !== 'id') this.set(key, value);
    }
    return this;
  }

  set(key: string, value: string): void {
    const { parameters } = this.group;
    if (parameters !== undefined) {
      const spec = parameters[key];
      if (spec === undefined && !this.group.open) {
        throw new OptionError(`Invalid parameter '${key}'`, didYouMean(key, Object.keys(parameters)));
      }
      if (spec !== undefined && !this.group.open) checkValue(key, value, spec.type);
    }
    this.values.push({ key, value });
  }

  has(key: string): boolean {
    return this.values.some(entry => entry.key === key);
  }

  string(key: string): string | undefined {
    for (let index = this.values.length - 1; index >= 0; index--) {
      const entry = this.values[index];
      if (entry?.key === key) return entry.value;
    }
    return this.group.parameters?.[key]?.default;
  }

  bool(key: string): boolean | undefined {
    const text = this.string(key);
    return text === undefined ? undefined : parseBool(text);
  }

  number(key: string): number | undefined {
    const text = this.string(key);
    return text === undefined ? undefined : Number(parseOptionNumber(key, text));
  }

  size(key: string): number | undefined {
    const text = this.string(key);
    return text === undefined ? undefined : Number(parseOptionSize(key, text));
  }

  /** All values of a key that may be given several times. */
  all(key: string): string[] {
    return this.values.filter(entry => entry.key === key).map(entry => entry.value);
  }

  /** Each key once, with the value that counts. */
  entries(): Map<string, string> {
    return new Map(this.values.map(entry => [entry.key, entry.value]));
  }
}

export function parseOptionNumber(key: string, text: string): bigint {
  const value = parseUnsignedOrRange(text);
  if (value === 'range') throw new OptionError(`Value '${text}' is too large for parameter '${key}'`);
  if (value === undefined) throw new OptionError(`Parameter '${key}' expects a number`);
  return value;
}

export function parseOptionSize(key: string, text: string): bigint {
  const value = parseSizeOrRange(text);
  if (value === 'range') throw new OptionError(`Value '${text}' is out of range for parameter '${key}'`);
  if (value === undefined) {
    throw new OptionError(
      `Parameter '${key}' expects a non-negative number below 2^64`,
      'Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively.',
    );
  }
  return value;
}

function checkValue(key: string, value: string, type: ParameterType): void {
  if (type === 'boolean') {
    if (parseBool(value) === undefined) throw new OptionError(`Parameter '${key}' expects 'on' or 'off'`);
  } else if (type === 'number') parseOptionNumber(key, value);
  else if (type === 'size') parseOptionSize(key, value);
}

interface SplitOption extends OptionValue {
  /** It stood there without a value. */
  readonly flag: boolean;
}

/**
 * `a,b=c,,d,nowait` as key-value pairs: `,,` is a comma inside a value, a bare word is `on`, and one that begins with
 * `no` is `off` for the rest of its name. The first may be the value of `impliedKey`.
 */
export function splitOptions(text: string, impliedKey?: string): SplitOption[] {
  const result: SplitOption[] = [];
  let at = 0;
  while (at < text.length) {
    let end = at;
    while (end < text.length && text[end] !== '=' && text[end] !== ',') end++;
    if (text[end] === '=') {
      const { value, next } = optionValue(text, end + 1);
      result.push({ key: text.slice(at, end), value, flag: false });
      at = next;
    } else if (impliedKey !== undefined && at === 0) {
      const { value, next } = optionValue(text, 0);
      result.push({ key: impliedKey, value, flag: false });
      at = next;
    } else {
      const word = text.slice(at, end);
      const off = word.startsWith('no');
      result.push({ key: off ? word.slice(2) : word, value: off ? 'off' : 'on', flag: true });
      at = end + 1;
    }
  }
  return result;
}

/** The value from `start` to the next single comma; `next` is where the next option starts. */
export function optionValue(text: string, start: number): { value: string; next: number } {
  let value = '';
  let at = start;
  for (;;) {
    const comma = text.indexOf(',', at);
    if (comma < 0) return { value: value + text.slice(at), next: text.length };
    value += text.slice(at, comma);
    if (text[comma + 1] !== ',') return { value, next: comma + 1 };
    value += ',';
    at = comma + 2;
  }
}

/** Parses one occurrence of an option of `group`, with its `id=`. */
export function parseOpts(group: OptionGroup, text: string): Opts {
  const id = splitOptions(text, group.impliedKey).find(entry => entry.key === 'id')?.value;
  return new Opts(group, id).parse(text);
}

const KEY =
  /^(?:[A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z_][A-Za-z0-9_-]*)*|[A-Za-z0-9_-]+)(?:\.(?:[0-9]+|[A-Za-z0-9_-]+))*$/;

/**
 * `-object`, `-blockdev`, `-netdev` and `-M` in their stricter syntax: dotted keys nest, every key needs a value, and
 * all values are strings, which a QAPI type converts. Throws OptionError, or HelpWanted.
 */
export function parseKeyval(text: string, impliedKey?: string): JsonObject {
  const root: Record<string, Json> = Object.create(null);
  let at = 0;
  while (at < text.length) {
    let end = at;
    while (end < text.length && text[end] !== '=' && text[end] !== ',') end++;
    let key = text.slice(at, end);
    let value: string;
    if (text[end] === '=') ({ value, next: at } = optionValue(text, end + 1));
    else if (end > at && isHelp(key)) throw new HelpWanted(key);
    else if (at === 0 && impliedKey !== undefined && end > at) {
      value = key;
      key = impliedKey;
      at = end + 1;
    } else if (!KEY.test(key)) throw new OptionError(`Invalid parameter '${key}'`);
    else throw new OptionError(`Expected '=' after parameter '${key}'`);
    if (!KEY.test(key)) throw new OptionError(`Invalid parameter '${key}'`);
    put(root, key.split('.'), value, key);
  }
  return listify(root) as JsonObject;
}

function put(root: Record<string, Json>, path: readonly string[], value: string, key: string): void {
  let level = root;
  path.slice(0, -1).forEach((name, depth) => {
    const known = level[name];
    if (known !== undefined && !isObject(known)) {
      throw new OptionError(`Parameters '${path.slice(0, depth + 1).join('.')}.*' used inconsistently`);
    }
    const nested: Record<string, Json> = known ?? Object.create(null);
    level[name] = nested;
    level = nested;
  });
  const last = path.at(-1) ?? '';
  if (isObject(level[last])) throw new OptionError(`Parameters '${key}.*' used inconsistently`);
  level[last] = value;
}

/** An object whose keys are all indices is a list; the indices must start at 0 and have no gap. */
function listify(value: Json, path = ''): Json {
  if (!isObject(value)) return value;
  const keys = Object.keys(value);
  const indices = keys.filter(key => /^[0-9]+$/.test(key));
  if (indices.length > 0 && path !== '') {
    if (indices.length < keys.length) {
      throw new OptionError(`Parameters '${path}.*' used inconsistently`);
    }
    return keys.map((_, index) => {
      const item = value[String(index)];
      if (item === undefined) throw new OptionError(`Parameter '${path}.${index}' missing`);
      return listify(item, `${path}.${index}`);
    });
  }
  const result: Record<string, Json> = Object.create(null);
  for (const key of keys) result[key] = listify(value[key] ?? null, path === '' ? key : `${path}.${key}`);
  return result;
}
