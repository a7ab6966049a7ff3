import { Choices } from './choices.ts';
import type { Field, Register } from './declare.ts';
import { fieldMask, type LaidOut, type RegisterMap } from './map.ts';
import type { Registers } from './views.ts';

/**
 * One register element of one bank. The accessors are on the prototype, made once per register of a map; all registers of a
 * width without fields share theirs, so that code which takes any of them (a counter's, a ring's) meets one class.
 */
interface View {
  readonly words: Uint32Array;
  readonly slot: number;
}
type ViewClass = new (words: Uint32Array, slot: number) => View;

interface Accessor {
  get(this: View): unknown;
  set(this: View, value: never): void;
}

const classes = new WeakMap<Register, ViewClass>();
const plainClasses = new Map<number, ViewClass>();

/** The model's view of a bank: it sees and sets what is stored, whatever the guest may do. */
export function modelView<M extends RegisterMap>(map: M, words: Uint32Array): Registers<M> {
  const view: Record<string, unknown> = {};
  for (const entry of map.layout) {
    const Class = viewClass(entry.register);
    const elements = Array.from(
      { length: entry.count },
      (_, element) => new Class(words, entry.slot + element * entry.words),
    );
    view[entry.name] = entry.register.options.count === undefined ? elements[0] : new ViewArray(elements, words, entry);
  }
  return view as Registers<M>;
}

class ViewArray<V> {
  readonly length: number;
  readonly values: Uint32Array;
  readonly #elements: readonly V[];

  constructor(elements: readonly V[], words: Uint32Array, entry: LaidOut) {
    this.length = elements.length;
    this.values = words.subarray(entry.slot, entry.slot + entry.count * entry.words);
    this.#elements = elements;
  }

  at(index: number): V {
    const element = this.#elements[index];
    if (element === undefined) throw new RangeError(`register array has ${this.length} elements, no ${index}`);
    return element;
  }
}

function viewClass(register: Register): ViewClass {
  const plain = Object.keys(register.fields).length === 0;
  const known = plain ? plainClasses.get(register.width) : classes.get(register);
  if (known !== undefined) return known;
  const Class = class implements View {
    declare readonly words: Uint32Array;
    declare readonly slot: number;

    constructor(words: Uint32Array, slot: number) {
      // Not enumerable, so that a register prints and compares as its fields.
      Object.defineProperty(this, 'words', { value: words });
      Object.defineProperty(this, 'slot', { value: slot });
    }
  };
  const define = (name: string, accessor: Accessor): void => {
    Object.defineProperty(Class.prototype, name, { ...accessor, enumerable: true });
  };
  if (register.width === 64) {
    define('value', wideValue);
    define('low', wordValue(0, 0xffff_ffff));
    define('high', wordValue(1, 0xffff_ffff));
  } else {
    define('value', wordValue(0, fieldMask({ low: 0, width: register.width })));
  }
  for (const [name, field] of Object.entries(register.fields))
    if (field.kind !== 'tag') define(name, fieldAccessor(name, field));
  if (plain) plainClasses.set(register.width, Class);
  else classes.set(register, Class);
  return Class;
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

function fieldAccessor(name: string, field: Field): Accessor {
  const word = field.low >> 5;
  const shift = field.low & 31;
  const mask = fieldMask(field);
  const ones = mask >>> shift;
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
  if (field.kind === 'bits') {
    return {
      get() {
        return (((this.words[this.slot + word] ?? 0) >>> shift) & ones) >>> 0;
      },
      set(value: number) {
        this.words[this.slot + word] = ((this.words[this.slot + word] ?? 0) & ~mask) | ((value & ones) << shift);
      },
    };
  }
  const choices = new Choices(name, field);
  return {
    get() {
      return choices.nameOf((((this.words[this.slot + word] ?? 0) >>> shift) & ones) >>> 0);
    },
    set(choice: string | number) {
      const value = choices.valueOf(choice) & ones;
      this.words[this.slot + word] = ((this.words[this.slot + word] ?? 0) & ~mask) | (value << shift);
    },
  };
}
