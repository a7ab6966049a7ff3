import { SouthbridgeError } from '../errors.ts';
import type { PropertyValue } from './object.ts';

/** What a property may refer to by id: the host's side of a device. */
export interface BackendLookup {
  /** @throws SouthbridgeError where there is no such backend, or it has an owner already */
  find(kind: string, id: string): unknown;
}

/** One typed, validated property of a device or machine type. */
export interface Prop<T> {
  /** QEMU's name of the type, as in `-device TYPE,help`. */
  readonly type: string;
  readonly help: string | undefined;
  readonly default: T | undefined;
  readonly required: boolean;
  /** May be changed while the machine runs (qom-set). */
  readonly mutable: boolean;
  /**
   * From what the user wrote (text of the command line, JSON) or the caller gave.
   * @throws SouthbridgeError ERR_PROPERTY_VALUE
   */
  parse(value: unknown, context: ParseContext): T;
  format(value: T): PropertyValue;
}

export interface ParseContext {
  /** The property's name. */
  readonly name: string;
  /** The type that has the property. */
  readonly owner: string;
  readonly backends?: BackendLookup;
}

export type PropSet = Readonly<Record<string, Prop<unknown>>>;
export type PropValues<S extends PropSet> = { readonly [K in keyof S]: S[K] extends Prop<infer T> ? T : never };
/** What a caller may give: every property is optional here, and text is parsed. */
export type PropInput<S extends PropSet> = { readonly [K in keyof S]?: PropValues<S>[K] | string | undefined };

interface Common<T> {
  readonly default?: T;
  readonly required?: boolean;
  readonly help?: string;
  readonly mutable?: boolean;
}
type WithValue<T> = Common<T> & ({ readonly default: T } | { readonly required: true });

interface Kind<T> {
  readonly type: string;
  parse(value: unknown, context: ParseContext): T;
  format(value: T): PropertyValue;
}

/** A property kind with its overloads: with a default, or required, the value is always there. */
function declare<T>(kind: Kind<T>): {
  (options: WithValue<T>): Prop<T>;
  (options?: Common<T>): Prop<T | undefined>;
} {
  return ((options: Common<T> = {}) => ({
    type: kind.type,
    help: options.help,
    default: options.default,
    required: options.required ?? false,
    mutable: options.mutable ?? false,
    parse: kind.parse,
    format: (value: T | undefined) => (value === undefined ? null : kind.format(value)),
  })) as ReturnType<typeof declare<T>>;
}

function invalid(context: ParseContext, expected: string, value: unknown): SouthbridgeError {
  return new SouthbridgeError(
    'ERR_PROPERTY_VALUE',
    `Property '${context.owner}.${context.name}' doesn't take value '${String(value)}'`,
    `it takes ${expected}`,
  );
}

function integer(type: string, min: bigint, max: bigint): Kind<number> {
  const wide = integer64(type, min, max);
  return { type, parse: (value, context) => Number(wide.parse(value, context)), format: value => value };
}

function integer64(type: string, min: bigint, max: bigint): Kind<bigint> {
  return {
    type,
    parse(value, context) {
      const number = toBigInt(value);
      if (number === undefined) throw invalid(context, `a whole number (${type})`, value);
      if (number < min || number > max) {
        throw new SouthbridgeError(
          'ERR_PROPERTY_RANGE',
          `Property ${context.owner}.${context.name} doesn't take value ${number} (minimum: ${min}, maximum: ${max})`,
        );
      }
      return number;
    },
    format: value => value,
  };
}

function toBigInt(value: unknown): bigint | undefined {
  if (typeof value === 'bigint') return value;
  if (typeof value === 'number') return Number.isInteger(value) ? BigInt(value) : undefined;
  if (typeof value !== 'string') return undefined;
  const match = /^\s*([+-]?)(0x[0-9a-f]+|0[0-7]+|\d+)\s*$/i.exec(value);
  if (match === null) return undefined;
  const digits = match[2] ?? '';
  const magnitude = BigInt(/^0[0-7]+$/.test(digits) ? `0o${digits.slice(1)}` : digits);
  return match[1] === '-' ? -magnitude : magnitude;
}

const SIZE_UNITS = 'bkmgtpe';

/** Bytes from `64`, `0x1000`, `1.5G`, `128M`: QEMU's size syntax. Undefined where it is none. */
export function parseSize(text: string, defaultUnit = 'b'): number | undefined {
  const match = /^\s*(0x[0-9a-f]+|\d+(?:\.\d+)?)([bkmgtpe])?\s*$/i.exec(text);
  if (match === null) return undefined;
  const unit = SIZE_UNITS.indexOf((match[2] ?? defaultUnit).toLowerCase());
  const bytes = Number(match[1]) * 1024 ** unit;
  return Number.isSafeInteger(Math.trunc(bytes)) ? Math.trunc(bytes) : undefined;
}

const size: Kind<number> = {
  type: 'size',
  parse(value, context) {
    const bytes = typeof value === 'string' ? parseSize(value) : Number(toBigInt(value) ?? Number.NaN);
    if (bytes === undefined || !Number.isSafeInteger(bytes) || bytes < 0)
      throw invalid(context, 'a size such as 64K, 1.5G or a number of bytes', value);
    return bytes;
  },
  format: value => value,
};

const bool: Kind<boolean> = {
  type: 'bool',
  parse(value, context) {
    if (typeof value === 'boolean') return value;
    if (value === 'on' || value === 'yes' || value === 'true' || value === 'y') return true;
    if (value === 'off' || value === 'no' || value === 'false' || value === 'n') return false;
    throw invalid(context, "'on' or 'off'", value);
  },
  format: value => value,
};

const string: Kind<string> = {
  type: 'str',
  parse(value, context) {
    if (typeof value === 'string') return value;
    throw invalid(context, 'text', value);
  },
  format: value => value,
};

/** A MAC address as six numbers. */
export type MacAddress = readonly [number, number, number, number, number, number];

const mac: Kind<MacAddress> = {
  type: 'str',
  parse(value, context) {
    const text = Array.isArray(value) ? value.map(byte => Number(byte).toString(16)).join(':') : String(value);
    const bytes = text
      .split(/[:-]/)
      .map(part => (/^[0-9a-f]{1,2}$/i.test(part) ? Number.parseInt(part, 16) : Number.NaN));
    const [a, b, c, d, e, f] = bytes;
    if (
      bytes.length !== 6 ||
      a === undefined ||
      b === undefined ||
      c === undefined ||
      d === undefined ||
      e === undefined ||
      f === undefined ||
      bytes.some(Number.isNaN)
    ) {
      throw invalid(context, 'a MAC address such as 52:54:00:12:34:56', value);
    }
    return [a, b, c, d, e, f];
  },
  format: value => value.map(byte => byte.toString(16).padStart(2, '0')).join(':'),
};

const uuid: Kind<string> = {
  type: 'str',
  parse(value, context) {
    const text = String(value).toLowerCase();
    if (text === 'auto' || /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/.test(text)) return text;
    throw invalid(context, "a UUID or 'auto'", value);
  },
  format: value => value,
};

/** Slot and function of a PCI address as QEMU writes it: `04.0`, `4`, `0x1e.7`; a number is slot * 8 + function. */
const pciAddress: Kind<number> = {
  type: 'int32',
  parse(value, context) {
    if (typeof value === 'number' && Number.isInteger(value) && value >= -1 && value <= 255) return value;
    const match = /^(?:0x)?([0-9a-f]{1,2})(?:\.([0-7]))?$/i.exec(String(value));
    const slot = Number.parseInt(match?.[1] ?? '', 16);
    if (match === null || slot > 31) throw invalid(context, 'a PCI slot and function such as 04.0', value);
    return slot * 8 + Number(match[2] ?? 0);
  },
  format: value => (value < 0 ? '' : `${(value >> 3).toString(16).padStart(2, '0')}.${value & 7}`),
};

function choices<const C extends readonly string[]>(values: C, typeName: string): Kind<C[number]> {
  return {
    type: typeName,
    parse(value, context) {
      const text = typeof value === 'boolean' ? (value ? 'on' : 'off') : value;
      const found = values.find(candidate => candidate === text);
      if (found === undefined) throw invalid(context, values.map(candidate => `'${candidate}'`).join(', '), value);
      return found;
    },
    format: value => value,
  };
}

/** An enumerated property; options as for the others, and QEMU's name of the type. */
function enumeration<const C extends readonly string[]>(
  values: C,
  options: WithValue<C[number]> & { typeName?: string },
): Prop<C[number]>;
function enumeration<const C extends readonly string[]>(
  values: C,
  options?: Common<C[number]> & { typeName?: string },
): Prop<C[number] | undefined>;
function enumeration<const C extends readonly string[]>(
  values: C,
  options: Common<C[number]> & { typeName?: string } = {},
): Prop<C[number] | undefined> {
  return declare(choices(values, options.typeName ?? 'str'))(options);
}

/** A reference to a backend of the host by its id. `T` is what the backend's kind provides. */
function backend<T>(kind: string, options: { help?: string; required?: boolean } = {}): Prop<T | undefined> {
  return {
    type: 'str',
    help: options.help,
    default: undefined,
    required: options.required ?? false,
    mutable: false,
    parse(value, context) {
      if (typeof value !== 'string') return value as T;
      if (context.backends === undefined)
        throw invalid(context, `the id of a ${kind}, which this machine has none of`, value);
      try {
        return context.backends.find(kind, value) as T;
      } catch (error) {
        // A backend that only says what it cannot do leaves it to us to say for whom.
        if (!(error instanceof SouthbridgeError) || !error.message.startsWith("can't ")) throw error;
        throw new SouthbridgeError(
          error.code,
          `Property '${context.owner}.${context.name}' ${error.message}`,
          error.hint,
          { cause: error },
        );
      }
    },
    format: value =>
      typeof value === 'object' && value !== null && 'id' in value
        ? String(value.id)
        : value === undefined
          ? ''
          : String(value),
  };
}

function list<T>(element: Prop<T>, options: { help?: string } = {}): Prop<readonly T[]> {
  return {
    type: `list<${element.type}>`,
    help: options.help,
    default: [],
    required: false,
    mutable: false,
    parse: (value, context) =>
      (Array.isArray(value) ? value : String(value).split(':')).map(item => element.parse(item, context)),
    format: value => value.map(item => element.format(item)),
  };
}

const ON_OFF_AUTO = ['auto', 'on', 'off'] as const;

/** The kinds of properties. Integer ranges are those of the C types of the same names. */
export const prop = {
  bool: declare(bool),
  u8: declare(integer('uint8', 0n, 0xffn)),
  u16: declare(integer('uint16', 0n, 0xffffn)),
  u32: declare(integer('uint32', 0n, 0xffff_ffffn)),
  i32: declare(integer('int32', -0x8000_0000n, 0x7fff_ffffn)),
  u64: declare(integer64('uint64', 0n, 0xffff_ffff_ffff_ffffn)),
  size: declare(size),
  string: declare(string),
  mac: declare(mac),
  uuid: declare(uuid),
  pciAddress: declare(pciAddress),
  enum: enumeration,
  onOffAuto: declare(choices(ON_OFF_AUTO, 'OnOffAuto')),
  backend,
  list,
} as const;

/**
 * Validates `input` against `properties` and fills in the defaults.
 * @throws SouthbridgeError ERR_PROPERTY_UNKNOWN with the nearest name, ERR_PROPERTY_VALUE, ERR_PROPERTY_RANGE, ERR_PROPERTY_MISSING
 */
export function parseProperties<S extends PropSet>(
  owner: string,
  properties: S,
  input: Readonly<Record<string, unknown>>,
  backends?: BackendLookup,
): PropValues<S> {
  const values: Record<string, unknown> = {};
  for (const [name, property] of Object.entries(properties)) {
    const given = input[name];
    if (given !== undefined) {
      values[name] = property.parse(given, { name, owner, ...(backends && { backends }) });
    } else if (property.required) {
      throw new SouthbridgeError(
        'ERR_PROPERTY_MISSING',
        `Parameter '${name}' is missing`,
        `give ${owner} a value for '${name}'`,
      );
    } else {
      values[name] = property.default;
    }
  }
  return values as PropValues<S>;
}
