import { SouthbridgeError } from '../errors.ts';
import type { PropertyValue } from './object.ts';

/** What a property may refer to by id: the host's side of a device. */
export interface BackendLookup {
  /** @throws SouthbridgeError where there is no such backend, or it has an owner already */
  find(kind: string, id: string): unknown;
  /** Makes ready what devices that may have a backend of `kind` look for when they have none. */
  prepare?(kind: string): Promise<void>;
}

/** One typed, validated property of a device or machine type. */
export interface Prop<T> {
  /** QEMU's name of the type, as in `-device TYPE,help`. */
  readonly type: string;
  /** What it is for, in our words: for the reference pages, and for types that QEMU has not. */
  readonly help: string | undefined;
  /** What QEMU's listings say of it: `-device TYPE,help`, device-list-properties. */
  readonly description: string | undefined;
  /** Whether those listings show it, and its default: clients compare them with what they know of QEMU. */
  readonly listed: Listed;
  /** The kind of backend whose id it takes; absent for values. */
  readonly backend?: string;
  readonly default: T | undefined;
  readonly required: boolean;
  /** May be changed while the machine runs (qom-set). */
  readonly mutable: boolean;
  /** Has what the device holds stand for something else of that name while the machine runs; absent where that cannot be. */
  exchange?(held: T, reference: string): Promise<void>;
  /**
   * From what the user wrote (text of the command line, JSON) or the caller gave.
   * @throws SouthbridgeError ERR_PROPERTY_VALUE
   */
  parse(value: unknown, context: ParseContext): T;
  format(value: T): PropertyValue;
  /** As `info qtree` shows it, where that is not derived from {@link format}. */
  print?(value: T): string;
}

/** `value`: without the default, which QEMU's device sets in code; `no`: only the machine that has the device sets it. */
export type Listed = 'yes' | 'value' | 'no';

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
  readonly description?: string;
  readonly listed?: Listed;
  /** QEMU's name of the type, where it is not the kind's. */
  readonly typeName?: string;
  readonly mutable?: boolean;
}
type WithValue<T> = Common<T> & ({ readonly default: T } | { readonly required: true });

interface Kind<T> {
  readonly type: string;
  readonly description?: string;
  readonly listed?: Listed;
  parse(value: unknown, context: ParseContext): T;
  format(value: T): PropertyValue;
  print?(value: T): string;
}

/** A property kind with its overloads: with a default, or required, the value is always there. */
function declare<T>(kind: Kind<T>): {
  (options: WithValue<T>): Prop<T>;
  (options?: Common<T>): Prop<T | undefined>;
} {
  return ((options: Common<T> = {}) => ({
    type: options.typeName ?? kind.type,
    help: options.help,
    description: options.description ?? kind.description,
    listed: options.listed ?? kind.listed ?? 'yes',
    default: options.default,
    required: options.required ?? false,
    mutable: options.mutable ?? false,
    parse: kind.parse,
    ...(kind.print !== undefined && { print: kind.print }),
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

/** The same for numbers, switches and sizes, of which QEMU names the parameter alone. */
const expected = (
  context: ParseContext,
  what: string,
  code: `ERR_${string}` = 'ERR_PROPERTY_VALUE',
): SouthbridgeError => new SouthbridgeError(code, `Parameter '${context.name}' expects ${what}`);

function integer(type: string, min: bigint, max: bigint): Kind<number> {
  const wide = integer64(type, min, max);
  return { type, parse: (value, context) => Number(wide.parse(value, context)), format: value => value };
}

function integer64(type: string, min: bigint, max: bigint): Kind<bigint> {
  return {
    type,
    parse(value, context) {
      const number = toBigInt(value);
      if (number === undefined) throw expected(context, 'integer');
      if (number < min || number > max) throw expected(context, `${type}_t`, 'ERR_PROPERTY_RANGE');
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
    if (bytes === undefined || !Number.isSafeInteger(bytes) || bytes < 0) throw expected(context, 'size');
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
    throw expected(context, "'on' or 'off'");
  },
  format: value => value,
};

/** A bit of a word of flags: for management tools as {@link bool}, but described. */
const bit: Kind<boolean> = { ...bool, description: 'on/off' };

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
  description: 'Ethernet 6-byte MAC Address, example: 52:54:00:12:34:56',
  listed: 'value',
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
  description: 'UUID (aka GUID) or "auto" for random value (default)',
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
  description: 'Slot and optional function number, example: 06.0 or 06',
  parse(value, context) {
    if (typeof value === 'number' && Number.isInteger(value) && value >= -1 && value <= 255) return value;
    const match = /^(?:0x)?([0-9a-f]{1,2})(?:\.(?:0x)?([0-7]))?$/i.exec(String(value));
    const slot = Number.parseInt(match?.[1] ?? '', 16);
    if (match === null || slot > 31) throw invalid(context, 'a PCI slot and function such as 04.0', value);
    return slot * 8 + Number(match[2] ?? 0);
  },
  format: value => value,
  print: value => (value < 0 ? '<unset>' : `${(value >> 3).toString(16).padStart(2, '0')}.${value & 7}`),
};

/** Place in the order in which firmware tries the devices; -1 for none. */
const bootIndex: Kind<number> = { ...integer('int32', -1n, 0x7fff_ffffn), listed: 'value' };

/** What QEMU says of its enumerations. */
const CHOICE_DESCRIPTIONS: Readonly<Record<string, string>> = {
  OnOffAuto: 'on/off/auto',
  BlockdevOnError: 'Error handling policy, report/ignore/enospc/stop/auto',
  BiosAtaTranslation: 'Logical CHS translation algorithm, auto/none/lba/large/rechs',
  FdcDriveType: 'FDC drive type, 144/288/120/none/auto',
  PCIELinkWidth: '1/2/4/8/12/16/32',
  PCIELinkSpeed: '2_5/5/8/16',
  OffAutoPCIBAR: 'off/auto/bar0/bar1/bar2/bar3/bar4/bar5',
};

/** What QEMU says of the kinds of backends. */
const BACKEND_DESCRIPTIONS: Readonly<Record<string, string>> = {
  chardev: 'ID of a chardev to use as a backend',
  netdev: 'ID of a netdev to use as a backend',
  drive: 'Node name or ID of a block device to use as a backend',
  audiodev: 'ID of an audiodev to use as a backend',
  tpmdev: 'ID of a tpm to use as a backend',
};

function choices<const C extends readonly string[]>(values: C, typeName: string): Kind<C[number]> {
  const description = CHOICE_DESCRIPTIONS[typeName];
  return {
    type: typeName,
    ...(description !== undefined && { description }),
    parse(value, context) {
      const text = typeof value === 'boolean' ? (value ? 'on' : 'off') : value;
      const found = values.find(candidate => candidate === text);
      if (found === undefined) {
        throw new SouthbridgeError(
          'ERR_PROPERTY_VALUE',
          `Parameter '${context.name}' does not accept value '${String(value)}'`,
          `it takes ${values.map(candidate => `'${candidate}'`).join(', ')}`,
        );
      }
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
function backend<T>(
  kind: string,
  options: {
    readonly help?: string;
    readonly required?: boolean;
    readonly typeName?: string;
    readonly listed?: Listed;
    readonly exchange?: (held: T, reference: string) => Promise<void>;
  } = {},
): Prop<T | undefined> {
  const { exchange } = options;
  return {
    type: options.typeName ?? 'str',
    backend: kind,
    help: options.help,
    description: BACKEND_DESCRIPTIONS[kind],
    listed: options.listed ?? 'yes',
    default: undefined,
    required: options.required ?? false,
    mutable: false,
    ...(exchange !== undefined && {
      async exchange(held, reference) {
        if (held !== undefined) await exchange(held, reference);
      },
    }),
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
    description: undefined,
    listed: 'yes',
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
  bit: declare(bit),
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
  bootIndex: declare(bootIndex),
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
