import { SouthbridgeError } from '../errors.ts';

/** What a saved state consists of: plain values that a codec can write without knowing the device. */
export type SavedValue =
  | number
  | bigint
  | boolean
  | string
  | Uint8Array
  | null
  | readonly SavedValue[]
  | { readonly [key: string]: SavedValue };
export type SavedRecord = { readonly [key: string]: SavedValue };

/** One declared field: its initial value, and how it is checked on the way back in. */
export interface StateField<T> {
  initial(): T;
  save(value: T): SavedValue;
  /** Throws where `saved` is not a value that {@link save} could have given. */
  load(saved: SavedValue, where: string): T;
}

export type StateFields = Readonly<Record<string, StateField<unknown>>>;
export type StateValues<F extends StateFields> = {
  -readonly [K in keyof F]: F[K] extends StateField<infer T> ? T : never;
};

/** @throws SouthbridgeError ERR_STATE_VALUE */
export function badState(where: string, expected: string): never {
  throw new SouthbridgeError(
    'ERR_STATE_VALUE',
    `the saved state of ${where} is not ${expected}`,
    'the snapshot is damaged or was made by another version',
  );
}

function unsigned(bits: number): (initial?: number) => StateField<number> {
  const max = 2 ** bits - 1;
  return (initial = 0) => ({
    initial: () => initial,
    save: value => value,
    load: (saved, where) =>
      typeof saved === 'number' && Number.isInteger(saved) && saved >= 0 && saved <= max
        ? saved
        : badState(where, `an unsigned ${bits}-bit number`),
  });
}

/** The kinds of state fields. */
export const field = {
  u8: unsigned(8),
  u16: unsigned(16),
  u32: unsigned(32),
  /** Any finite number, such as nanoseconds; Infinity is allowed. */
  number: (initial = 0): StateField<number> => ({
    initial: () => initial,
    save: value => (Number.isFinite(value) ? value : null),
    load: (saved, where) =>
      saved === null ? Number.POSITIVE_INFINITY : typeof saved === 'number' ? saved : badState(where, 'a number'),
  }),
  u64: (initial = 0n): StateField<bigint> => ({
    initial: () => initial,
    save: value => value,
    load: (saved, where) =>
      typeof saved === 'bigint' && BigInt.asUintN(64, saved) === saved
        ? saved
        : badState(where, 'an unsigned 64-bit number'),
  }),
  bool: (initial = false): StateField<boolean> => ({
    initial: () => initial,
    save: value => value,
    load: (saved, where) => (typeof saved === 'boolean' ? saved : badState(where, 'true or false')),
  }),
  /** One of `values`. */
  oneOf: <const V extends readonly string[]>(values: V, initial: V[number]): StateField<V[number]> => ({
    initial: () => initial,
    save: value => value,
    load: (saved, where) => values.find(value => value === saved) ?? badState(where, `one of ${values.join(', ')}`),
  }),
  string: (initial = '', maxLength = 4096): StateField<string> => ({
    initial: () => initial,
    save: value => value,
    load: (saved, where) => (typeof saved === 'string' && saved.length <= maxLength ? saved : badState(where, 'text')),
  }),
  /** Exactly `length` bytes. */
  bytes: (length: number): StateField<Uint8Array> => ({
    initial: () => new Uint8Array(length),
    save: value => value.slice(),
    load: (saved, where) =>
      saved instanceof Uint8Array && saved.length === length ? saved.slice() : badState(where, `${length} bytes`),
  }),
  /** At most `maxLength` bytes: a queue's contents. */
  buffer: (maxLength: number): StateField<Uint8Array> => ({
    initial: () => new Uint8Array(0),
    save: value => value.slice(),
    load: (saved, where) =>
      saved instanceof Uint8Array && saved.length <= maxLength
        ? saved.slice()
        : badState(where, `at most ${maxLength} bytes`),
  }),
  /** Exactly `length` unsigned 32-bit words. */
  words: (length: number): StateField<Uint32Array> => ({
    initial: () => new Uint32Array(length),
    save: value => [...value],
    load: (saved, where) => {
      if (!Array.isArray(saved) || saved.length !== length) return badState(where, `${length} words`);
      return Uint32Array.from(saved, word =>
        typeof word === 'number' && word === word >>> 0 ? word : badState(where, `${length} words`),
      );
    },
  }),
  /** At most `maxLength` values of one kind: a list of requests. */
  list: <T>(element: StateField<T>, maxLength: number): StateField<T[]> => ({
    initial: () => [],
    save: value => value.map(item => element.save(item)),
    load: (saved, where) =>
      Array.isArray(saved) && saved.length <= maxLength
        ? saved.map((item, index) => element.load(item, `${where}[${index}]`))
        : badState(where, `a list of at most ${maxLength}`),
  }),
  record: <F extends StateFields>(fields: F): StateField<StateValues<F>> => ({
    initial: () => initialValues(fields),
    save: value => saveValues(fields, value),
    load: (saved, where) => loadValues(fields, saved, where),
  }),
} as const;

export function initialValues<F extends StateFields>(fields: F): StateValues<F> {
  return Object.fromEntries(Object.entries(fields).map(([name, kind]) => [name, kind.initial()])) as StateValues<F>;
}

export function saveValues<F extends StateFields>(fields: F, values: StateValues<F>): SavedRecord {
  return Object.fromEntries(Object.entries(fields).map(([name, kind]) => [name, kind.save(values[name])]));
}

/** Strict: every field must be there, valid, and no other. */
export function loadValues<F extends StateFields>(
  fields: F,
  saved: SavedValue | undefined,
  where: string,
): StateValues<F> {
  const record = asRecord(saved, where);
  for (const name of Object.keys(record)) if (!Object.hasOwn(fields, name)) badState(`${where}.${name}`, 'known here');
  return Object.fromEntries(
    Object.entries(fields).map(([name, kind]) => {
      const value = record[name];
      return [
        name,
        value === undefined ? badState(`${where}.${name}`, 'present') : kind.load(value, `${where}.${name}`),
      ];
    }),
  ) as StateValues<F>;
}

export function asRecord(saved: SavedValue | undefined, where: string): SavedRecord {
  if (typeof saved !== 'object' || saved === null || saved instanceof Uint8Array || Array.isArray(saved))
    return badState(where, 'a record');
  return saved as SavedRecord;
}
