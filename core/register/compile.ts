import type { Field, Register } from './declare.ts';
import { fieldMask, type LaidOut, type RegisterMap } from './map.ts';
import type { RegisterArray, Registers } from './views.ts';

/** What a view reads and writes words of. `slot` counts 32-bit words of the bank. */
interface Store {
  get(slot: number): number;
  /** `mask`: the bits that are meant; the others are as they were read. */
  set(slot: number, value: number, mask: number): void;
}

interface View {
  readonly words: Uint32Array;
  readonly slot: number;
}
type ViewClass = new (words: Uint32Array, slot: number) => View;

const modelClasses = new WeakMap<Register, ViewClass>();

/** The model's view of a bank: prototype accessors over its words, compiled once per register. */
export function modelView<M extends RegisterMap>(map: M, words: Uint32Array): Registers<M> {
  const view: Record<string, unknown> = {};
  for (const entry of map.layout) {
    const Class = modelClass(entry.register);
    view[entry.name] = entry.register.options.count === undefined ? new Class(words, entry.slot) : new ModelArray(Class, words, entry);
  }
  return view as Registers<M>;
}

class ModelArray implements RegisterArray<Register> {
  readonly length: number;
  readonly values: Uint32Array;
  readonly #elements: View[];

  constructor(Class: ViewClass, words: Uint32Array, entry: LaidOut) {
    this.length = entry.count;
    this.values = words.subarray(entry.slot, entry.slot + entry.count * entry.words);
    this.#elements = Array.from({ length: entry.count }, (_, element) => new Class(words, entry.slot + element * entry.words));
  }

  at(index: number): never {
    const element = this.#elements[index];
    if (element === undefined) throw new RangeError(`register array has ${this.length} elements, no ${index}`);
    return element as never;
  }
}

function modelClass(register: Register): ViewClass {
  const known = modelClasses.get(register);
  if (known !== undefined) return known;
  const Class = class implements View {
    readonly words: Uint32Array;
    readonly slot: number;
    constructor(words: Uint32Array, slot: number) {
      this.words = words;
      this.slot = slot;
    }
  };
  const all = register.width >= 32 ? 0xffff_ffff : 2 ** register.width - 1;
  define(Class, 'value', register.width === 64 ? wideValue : wordValue(0, all));
  if (register.width === 64) {
    define(Class, 'low', wordValue(0, 0xffff_ffff));
    define(Class, 'high', wordValue(1, 0xffff_ffff));
  }
  for (const [name, field] of Object.entries(register.fields)) if (field.kind !== 'tag') define(Class, name, fieldAccessor(field));
  modelClasses.set(register, Class);
  return Class;
}

interface Accessor {
  get(this: View): unknown;
  set(this: View, value: never): void;
}

function define(Class: ViewClass, name: string, accessor: Accessor): void {
  Object.defineProperty(Class.prototype, name, { ...accessor, enumerable: true });
}

function wordValue(word: number, all: number): Accessor {
  return {
    get() {
      return this.words[this.slot + word] ?? 0;
    },
    set(value: number) {
      this.words[this.slot + word] = value & all;
    },
  };
}

const wideValue: Accessor = {
  get() {
    return (BigInt(this.words[this.slot + 1] ?? 0) << 32n) | BigInt(this.words[this.slot] ?? 0);
  },
  set(value: bigint) {
    this.words[this.slot] = Number(value & 0xffff_ffffn);
    this.words[this.slot + 1] = Number((value >> 32n) & 0xffff_ffffn);
  },
};

function fieldAccessor(field: Field): Accessor {
  const word = field.low >> 5;
  const shift = field.low & 31;
  const mask = fieldMask(field);
  if (field.kind === 'bit') {
    return {
      get() {
        return ((this.words[this.slot + word] ?? 0) & mask) !== 0;
      },
      set(value: boolean) {
        const old = this.words[this.slot + word] ?? 0;
        this.words[this.slot + word] = value ? old | mask : old & ~mask;
      },
    };
  }
  const ones = mask >>> shift;
  if (field.kind === 'bits') {
    return {
      get() {
        return ((this.words[this.slot + word] ?? 0) >>> shift) & ones;
      },
      set(value: number) {
        this.words[this.slot + word] = ((this.words[this.slot + word] ?? 0) & ~mask) | ((value & ones) << shift);
      },
    };
  }
  const { names, values } = choiceTables(field);
  return {
    get() {
      const value = ((this.words[this.slot + word] ?? 0) >>> shift) & ones;
      return names.get(value) ?? value;
    },
    set(value: string) {
      this.words[this.slot + word] = ((this.words[this.slot + word] ?? 0) & ~mask) | (((values.get(value) ?? 0) & ones) << shift);
    },
  };
}

function choiceTables(field: Field): { names: Map<number, string>; values: Map<string, number> } {
  const entries = Object.entries(field.choices ?? {});
  return { names: new Map(entries.map(([name, value]) => [value, name])), values: new Map(entries) };
}

/** Where a driver's accesses go. Values as {@link RegisterBank.read}. */
export interface DriverPort {
  read(offset: number, size: number): number;
  write(offset: number, size: number, value: number): void;
}

/**
 * The driver's view of a map: each property access is an access on the bus. Writing a field is a read-modify-write that leaves
 * write-one-to-clear neighbours alone.
 */
export function driverView<M extends RegisterMap>(map: M, port: DriverPort): Registers<M> {
  const view: Record<string, unknown> = {};
  for (const entry of map.layout) {
    view[entry.name] = entry.register.options.count === undefined ? driverRegister(entry, 0, port) : new DriverArray(entry, port);
  }
  return view as Registers<M>;
}

class DriverArray {
  readonly length: number;
  readonly #entry: LaidOut;
  readonly #port: DriverPort;
  readonly #elements: unknown[] = [];

  constructor(entry: LaidOut, port: DriverPort) {
    this.length = entry.count;
    this.#entry = entry;
    this.#port = port;
  }

  /** What the bus answers now, as a copy. */
  get values(): Uint32Array {
    const { register, stride, bytes, count } = this.#entry;
    return Uint32Array.from({ length: count }, (_, index) => this.#port.read(register.offset + index * stride, Math.min(bytes, 4)));
  }

  at(index: number): unknown {
    if (index < 0 || index >= this.length) throw new RangeError(`register array has ${this.length} elements, no ${index}`);
    return (this.#elements[index] ??= driverRegister(this.#entry, index, this.#port));
  }
}

function driverRegister(entry: LaidOut, element: number, port: DriverPort): object {
  const base = entry.register.offset + element * entry.stride;
  const bytes = Math.min(entry.bytes, 4);
  const store: Store = {
    get: word => port.read(base + 4 * word, bytes),
    set(word, value, mask) {
      const masks = entry.masks[word];
      const safe = masks === undefined ? value : (value & ~((masks.w1c | masks.w1s | masks.pulse) & ~mask)) | (masks.w0c & ~mask);
      port.write(base + 4 * word, bytes, safe >>> 0);
    },
  };
  const target = {};
  const accessor = (name: string, get: () => unknown, set: (value: never) => void): void => {
    Object.defineProperty(target, name, { get, set, enumerable: true });
  };
  if (entry.words === 1) {
    accessor('value', () => port.read(base, bytes), (value: number) => port.write(base, bytes, value >>> 0));
  } else {
    accessor('low', () => port.read(base, 4), (value: number) => port.write(base, 4, value >>> 0));
    accessor('high', () => port.read(base + 4, 4), (value: number) => port.write(base + 4, 4, value >>> 0));
    accessor('value', () => (BigInt(port.read(base + 4, 4)) << 32n) | BigInt(port.read(base, 4)), (value: bigint) => {
      port.write(base, 4, Number(value & 0xffff_ffffn));
      port.write(base + 4, 4, Number((value >> 32n) & 0xffff_ffffn));
    });
  }
  for (const [name, field] of Object.entries(entry.register.fields)) {
    if (field.kind === 'tag') continue;
    const word = field.low >> 5;
    const shift = field.low & 31;
    const mask = fieldMask(field);
    const ones = mask >>> shift;
    const { names, values } = choiceTables(field);
    const get = (): number => (store.get(word) & mask) >>> shift;
    const put = (value: number): void => {
      const old = field.access === 'wo' || entry.register.options.access === 'wo' ? 0 : store.get(word);
      store.set(word, ((old & ~mask) | ((value & ones) << shift)) >>> 0, mask);
    };
    if (field.kind === 'bit') accessor(name, () => get() !== 0, (value: boolean) => put(value ? 1 : 0));
    else if (field.kind === 'bits') accessor(name, get, put);
    else accessor(name, () => names.get(get()) ?? get(), (value: string) => put(values.get(value) ?? 0));
  }
  return target;
}
