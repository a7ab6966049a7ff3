import {
  fromInteger,
  isArray,
  isObject,
  type Json,
  JsonFloat,
  type JsonObject,
  toDouble,
  toInteger,
} from '../json/value.ts';
import type { Writable } from '../json/writer.ts';
import { parseBool, parseSigned, parseSize, parseUnsigned } from '../options/numbers.ts';
import { QmpError } from './error.ts';

/**
 * Where in an argument a value stands, for error messages. With `keyval` the values are the strings of a command-line
 * option (`-object memory-backend-ram,id=m0,size=1G`) and are converted by the type that is expected.
 */
export interface Place {
  readonly parent: Place | undefined;
  /** Member name or list index; undefined at the root. */
  readonly key: string | number | undefined;
  readonly keyval: boolean;
}

export const ROOT: Place = { parent: undefined, key: undefined, keyval: false };
export const KEYVAL_ROOT: Place = { parent: undefined, key: undefined, keyval: true };

const inside = (parent: Place, key: string | number): Place => ({ parent, key, keyval: parent.keyval });

/** `a.b[0].c`, or with keyval `a.b.0.c`; `<anonymous>` for the root itself. */
function fullName(place: Place): string {
  if (place.key === undefined) return '';
  const outer = place.parent === undefined ? '' : fullName(place.parent);
  if (typeof place.key === 'number') return place.keyval ? `${outer}.${place.key}` : `${outer}[${place.key}]`;
  return outer === '' ? place.key : `${outer}.${place.key}`;
}

const nameOf = (place: Place): string => fullName(place) || '<anonymous>';
const localName = (place: Place): string => (typeof place.key === 'string' ? place.key : 'null');

const wrongType = (place: Place, expected: string): QmpError =>
  new QmpError(`Invalid parameter type for '${nameOf(place)}', expected: ${expected}`);
const wrongValue = (name: string, expected: string): QmpError =>
  new QmpError(`Parameter '${name}' expects ${expected}`);

/** Names the types that a type refers to, while the schema is described. */
export type UseType = (type: AnyType) => string;

/** One QAPI type: reads a value from JSON, or from strings, and describes itself for `query-qmp-schema`. */
export interface QapiType<T> {
  readonly meta: 'builtin' | 'enum' | 'array' | 'object' | 'alternate';
  readonly name: string;
  readonly features: readonly string[];
  /** Throws {@link QmpError} with QEMU's wording where `value` is missing or not of this type. */
  read(value: Json | undefined, place: Place): T;
  describe(use: UseType): { readonly [member: string]: Writable };
}
// biome-ignore lint/suspicious/noExplicitAny: the one place where the value's type does not matter
export type AnyType = QapiType<any>;
export type Infer<Type> = Type extends QapiType<infer T> ? T : never;

/** A 64-bit integer: `bigint` only where a `number` would not be exact. */
export type Integer = number | bigint;

function present(value: Json | undefined, place: Place): Json {
  if (value === undefined) throw new QmpError(`Parameter '${nameOf(place)}' is missing`);
  return value;
}

/** The string behind a keyval parameter. */
function keyvalText(value: Json, place: Place): string {
  if (typeof value === 'string') return value;
  if (isObject(value) || isArray(value)) throw new QmpError(`Parameters '${nameOf(place)}.*' are unexpected`);
  throw new QmpError(`Internal error: parameter ${nameOf(place)} invalid`);
}

function builtin<T>(name: string, jsonType: string, read: (value: Json, place: Place) => T): QapiType<T> {
  return {
    meta: 'builtin',
    name,
    features: [],
    read: (value, place) => read(present(value, place), place),
    describe: () => ({ 'json-type': jsonType }),
  };
}

function signed(value: Json, place: Place): bigint {
  if (place.keyval) {
    const parsed = parseSigned(keyvalText(value, place));
    if (parsed === undefined) throw wrongValue(nameOf(place), 'integer');
    return parsed;
  }
  const integer = toInteger(value);
  if (integer === undefined || integer >= 2n ** 63n) throw wrongType(place, 'integer');
  return integer;
}

function unsigned(value: Json, place: Place): bigint {
  if (place.keyval) {
    const parsed = parseUnsigned(keyvalText(value, place));
    if (parsed === undefined) throw wrongValue(nameOf(place), 'integer');
    return parsed;
  }
  const integer = toInteger(value);
  if (integer === undefined) throw wrongValue(nameOf(place), 'uint64');
  return BigInt.asUintN(64, integer);
}

function narrow(name: string, bits: number, isSigned: boolean): QapiType<number> {
  const min = isSigned ? -(2n ** BigInt(bits - 1)) : 0n;
  const max = 2n ** BigInt(isSigned ? bits - 1 : bits) - 1n;
  return builtin(name, 'int', (value, place) => {
    const integer = isSigned ? signed(value, place) : unsigned(value, place);
    if (integer < min || integer > max) throw wrongValue(localName(place), `${name}_t`);
    return Number(integer);
  });
}

export const str = builtin('str', 'string', (value, place) => {
  if (place.keyval) return keyvalText(value, place);
  if (typeof value !== 'string') throw wrongType(place, 'string');
  return value;
});

export const bool = builtin('bool', 'boolean', (value, place) => {
  if (!place.keyval) {
    if (typeof value !== 'boolean') throw wrongType(place, 'boolean');
    return value;
  }
  const parsed = parseBool(keyvalText(value, place));
  if (parsed === undefined) throw wrongValue(nameOf(place), "'on' or 'off'");
  return parsed;
});

export const int: QapiType<Integer> = builtin('int', 'int', (value, place) => fromInteger(signed(value, place)));
export const int8 = narrow('int8', 8, true);
export const int16 = narrow('int16', 16, true);
export const int32 = narrow('int32', 32, true);
export const int64: QapiType<Integer> = int;
export const uint8 = narrow('uint8', 8, false);
export const uint16 = narrow('uint16', 16, false);
export const uint32 = narrow('uint32', 32, false);
export const uint64: QapiType<Integer> = builtin('uint64', 'int', (value, place) =>
  fromInteger(unsigned(value, place)),
);

/** A number of bytes; on the command line with a suffix. */
export const size: QapiType<Integer> = builtin('size', 'int', (value, place) => {
  if (!place.keyval) return fromInteger(unsigned(value, place));
  const parsed = parseSize(keyvalText(value, place));
  if (parsed === undefined) throw wrongValue(nameOf(place), 'size');
  return fromInteger(parsed);
});

export const number: QapiType<number> = builtin('number', 'number', (value, place) => {
  const parsed = place.keyval ? Number(keyvalText(value, place) || Number.NaN) : toDouble(value);
  if (parsed === undefined || !Number.isFinite(parsed)) throw wrongType(place, 'number');
  return parsed;
});

export const any: QapiType<Json> = builtin('any', 'value', value => value);

export const nil: QapiType<null> = builtin('null', 'null', (value, place) => {
  if (value !== null) throw wrongType(place, 'null');
  return null;
});

/** One of several names. Values with features are written `{ name, features }`. */
export function enumeration<const Name extends string>(
  name: string,
  values: readonly (Name | { readonly name: Name; readonly features: readonly string[] })[],
  features: readonly string[] = [],
): QapiType<Name> & { readonly values: readonly Name[] } {
  const members = values.map(value => (typeof value === 'string' ? { name: value } : value));
  const names = members.map(member => member.name);
  return {
    meta: 'enum',
    name,
    features,
    values: names,
    read(value, place) {
      const text = str.read(value, place);
      const known = names.find(candidate => candidate === text);
      if (known === undefined) {
        throw new QmpError(`Parameter '${localName(place)}' does not accept value '${text}'`);
      }
      return known;
    },
    describe: () => ({
      members: members.map(member => ({
        name: member.name,
        ...('features' in member && { features: member.features }),
      })),
      values: names,
    }),
  };
}

export function array<T>(element: QapiType<T>): QapiType<readonly T[]> & { readonly element: QapiType<T> } {
  return {
    meta: 'array',
    name: `${element.name}List`,
    features: [],
    element,
    read(value, place) {
      const items = place.keyval ? keyvalList(present(value, place), place) : present(value, place);
      if (!isArray(items)) throw wrongType(place, 'array');
      return items.map((item, index) => element.read(item, inside(place, index)));
    },
    describe: use => ({ 'element-type': use(element) }),
  };
}

/** `a.0=x,a.1=y` arrives as an object with the indices as names. */
function keyvalList(value: Json, place: Place): readonly Json[] {
  if (isArray(value)) return value;
  if (!isObject(value)) throw wrongType(place, 'array');
  const keys = Object.keys(value);
  return keys.map((_, index) => {
    const item = value[String(index)];
    if (item === undefined) throw new QmpError(`Parameter '${nameOf(inside(place, index))}' is missing`);
    return item;
  });
}

/** A member that may be left out. */
export interface Optional<T> {
  readonly optional: QapiType<T>;
  readonly features?: readonly string[];
}
export interface Featured<T> {
  readonly required: QapiType<T>;
  readonly features: readonly string[];
}
export const opt = <T>(type: QapiType<T>, ...features: string[]): Optional<T> =>
  features.length === 0 ? { optional: type } : { optional: type, features };
export const featured = <T>(type: QapiType<T>, ...features: string[]): Featured<T> => ({ required: type, features });

// biome-ignore lint/suspicious/noExplicitAny: see AnyType
export type Member = AnyType | Optional<any> | Featured<any>;
export type Members = { readonly [name: string]: Member };

type OptionalNames<M extends Members> = { [K in keyof M]: M[K] extends Optional<infer _> ? K : never }[keyof M];
type MemberValue<X> = X extends Optional<infer T> ? T : X extends Featured<infer T> ? T : Infer<X>;
/** What a set of members reads as. */
export type MemberValues<M extends Members> = {
  readonly [K in Exclude<keyof M, OptionalNames<M>>]: MemberValue<M[K]>;
} & { readonly [K in OptionalNames<M>]?: MemberValue<M[K]> | undefined };

export interface ObjectType<T> extends QapiType<T> {
  readonly meta: 'object';
  /** Reads the members that this type knows and takes their names off `unread`. */
  readMembers(object: JsonObject, place: Place, unread: Set<string>, into: Record<string, unknown>): void;
  describeMembers(use: UseType): readonly Writable[];
  describeVariants(use: UseType): { readonly tag: string; readonly variants: readonly Writable[] } | undefined;
  /** Names of the members that every value may have. */
  readonly memberNames: readonly string[];
}

function objectOf(value: Json | undefined, place: Place): JsonObject {
  const object = present(value, place);
  if (!isObject(object)) throw wrongType(place, 'object');
  return object;
}

function objectType<T>(
  name: string,
  features: readonly string[],
  parts: Pick<ObjectType<T>, 'readMembers' | 'describeMembers' | 'describeVariants' | 'memberNames'>,
  open = false,
): ObjectType<T> {
  return {
    ...parts,
    meta: 'object',
    name,
    features,
    read(value, place) {
      const object = objectOf(value, place);
      const unread = new Set(Object.keys(object));
      const result: Record<string, unknown> = {};
      parts.readMembers(object, place, unread, result);
      for (const rest of unread) {
        if (!open) throw new QmpError(`Parameter '${nameOf(inside(place, rest))}' is unexpected`);
        result[rest] = object[rest];
      }
      return result as T;
    },
    describe(use) {
      const members = parts.describeMembers(use);
      return { members, ...parts.describeVariants(use) };
    },
  };
}

const typeOf = (member: Member): AnyType =>
  'optional' in member ? member.optional : 'required' in member ? member.required : member;
const featuresOf = (member: Member): readonly string[] | undefined =>
  'optional' in member || 'required' in member ? member.features : undefined;

function readDeclared(
  members: Members,
  object: JsonObject,
  place: Place,
  unread: Set<string>,
  into: Record<string, unknown>,
): void {
  for (const name in members) {
    const member = members[name];
    if (member === undefined) continue;
    const value = object[name];
    unread.delete(name);
    if (value === undefined && 'optional' in member) continue;
    into[name] = typeOf(member).read(value, inside(place, name));
  }
}

function describeDeclared(members: Members, use: UseType): Writable[] {
  return Object.entries(members).map(([name, member]) => ({
    name,
    ...('optional' in member && { default: null }),
    type: use(typeOf(member)),
    features: featuresOf(member),
  }));
}

/** A structure; `base` adds another's members before its own. `open` lets any further member through, unchecked. */
export function struct<M extends Members, B = unknown>(
  name: string,
  members: M,
  options: { readonly base?: ObjectType<B>; readonly features?: readonly string[]; readonly open?: boolean } = {},
): ObjectType<B & MemberValues<M>> {
  const { base, features = [], open = false } = options;
  return objectType<B & MemberValues<M>>(
    name,
    features,
    {
      memberNames: [...(base?.memberNames ?? []), ...Object.keys(members)],
      readMembers(object, place, unread, into) {
        base?.readMembers(object, place, unread, into);
        readDeclared(members, object, place, unread, into);
      },
      describeMembers: use => [...(base?.describeMembers(use) ?? []), ...describeDeclared(members, use)],
      describeVariants: use => base?.describeVariants(use),
    },
    open,
  );
}

type Variants = { readonly [tag: string]: ObjectType<unknown> };
type Plain<Tag extends PropertyKey, Rest> = [Rest] extends [never] ? never : { readonly [T in Tag]: Rest };
type UnionValue<M extends Members, Tag extends keyof M, V extends Variants> = MemberValues<Omit<M, Tag>> &
  (
    | { [K in keyof V]: { readonly [T in Tag]: K } & Infer<V[K]> }[keyof V]
    | Plain<Tag, Exclude<MemberValue<M[Tag]>, keyof V>>
  );

/** A union: the common members, of which the enumeration `tag` chooses what else there is. Tags without a variant add nothing. */
export function union<M extends Members, Tag extends keyof M & string, V extends Variants>(
  name: string,
  common: M,
  tag: Tag,
  variants: V,
  options: { readonly features?: readonly string[] } = {},
): ObjectType<UnionValue<M, Tag, V>> {
  return objectType<UnionValue<M, Tag, V>>(name, options.features ?? [], {
    memberNames: Object.keys(common),
    readMembers(object, place, unread, into) {
      readDeclared(common, object, place, unread, into);
      variants[String(into[tag])]?.readMembers(object, place, unread, into);
    },
    describeMembers: use => describeDeclared(common, use),
    describeVariants(use) {
      const member = common[tag];
      const type = member === undefined ? undefined : typeOf(member);
      const cases =
        type !== undefined && 'values' in type && isNames(type.values) ? type.values : Object.keys(variants);
      return { tag, variants: cases.map(name => ({ case: name, type: use(variants[name] ?? empty) })) };
    },
  });
}

const isNames = (value: unknown): value is readonly string[] => Array.isArray(value);

/** The structure without members: no arguments, no result. */
export const empty: ObjectType<Record<never, never>> = struct('q_empty', {});

type JsonKind = 'string' | 'boolean' | 'integer' | 'number' | 'object' | 'array' | 'null';

function kindOf(value: Json): JsonKind {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  if (typeof value === 'bigint') return 'integer';
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number';
  if (value instanceof JsonFloat) return 'number';
  return typeof value === 'object' ? 'object' : typeof value === 'string' ? 'string' : 'boolean';
}

function accepts(type: AnyType, kind: JsonKind): boolean {
  switch (type.meta) {
    case 'enum':
      return kind === 'string';
    case 'array':
    case 'object':
      return kind === type.meta;
    case 'alternate':
      return false;
    default: {
      const jsonType = type.describe(() => '')['json-type'];
      return (
        jsonType === kind ||
        (kind === 'integer' && (jsonType === 'int' || jsonType === 'number')) ||
        jsonType === 'value'
      );
    }
  }
}

/** One of several types, told apart by the JSON kind of the value. */
export function alternate<V extends { readonly [branch: string]: AnyType }>(
  name: string,
  branches: V,
  features: readonly string[] = [],
): QapiType<Infer<V[keyof V]>> {
  const types: AnyType[] = Object.values(branches);
  return {
    meta: 'alternate',
    name,
    features,
    read(value, place) {
      const kind = kindOf(present(value, place));
      const type = types.find(candidate => accepts(candidate, kind));
      if (type === undefined) throw new QmpError(`Invalid parameter type for '${localName(place)}', expected: ${name}`);
      return type.read(value, place);
    },
    describe: use => ({ members: types.map(type => ({ type: use(type) })) }),
  };
}

/** A type that is declared further down, or refers to itself. */
export function lazy<T>(
  name: string,
  resolve: () => QapiType<T>,
): ObjectType<T> & { readonly target: () => QapiType<T> } {
  const object = (): ObjectType<T> => resolve() as ObjectType<T>;
  return {
    meta: 'object',
    name,
    features: [],
    target: resolve,
    read: (value, place) => resolve().read(value, place),
    describe: use => resolve().describe(use),
    readMembers: (json, place, unread, into) => object().readMembers(json, place, unread, into),
    describeMembers: use => object().describeMembers(use),
    describeVariants: use => object().describeVariants(use),
    get memberNames() {
      return object().memberNames;
    },
  };
}
