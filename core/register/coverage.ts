import type { AnyRegisterBank } from './bank.ts';
import type { Access, Field } from './declare.ts';
import { fieldMask, type LaidOut, type RegisterMap } from './map.ts';

/** What an access mode asks of a driver that exercises it all. */
const EXPECTED: Readonly<Record<Access, { read: boolean; one: boolean; zero: boolean }>> = {
  rw: { read: true, one: true, zero: true },
  ro: { read: true, one: false, zero: false },
  wo: { read: false, one: true, zero: true },
  w1c: { read: true, one: true, zero: false },
  w1s: { read: true, one: true, zero: false },
  w0c: { read: true, one: false, zero: true },
  rc: { read: true, one: false, zero: false },
  pulse: { read: false, one: true, zero: false },
};

/** Something that the driver never did. */
export interface Untouched {
  readonly register: string;
  /** Empty for a register without fields. */
  readonly field: string;
  /** `set` and `cleared` are of single bits; `written` with `choices` of those values alone. */
  readonly never: readonly ('read' | 'written' | 'set' | 'cleared')[];
  /** Named values that were never written. */
  readonly choices: readonly string[];
}

/** What accesses did to one word, all elements of an array together: bits that were read, written with 1 and written with 0. */
interface Touched {
  read: number;
  ones: number;
  zeros: number;
  /** Values written, by choice field. */
  readonly choices: Map<string, Set<number>>;
}

/**
 * Which bits a driver has used, and which it never touched. Counts from its making on; what the model does to registers
 * does not count.
 */
export class RegisterCoverage {
  readonly map: RegisterMap;
  readonly #touched: readonly (readonly Touched[])[];
  readonly #stops: (() => void)[] = [];

  constructor(bank: AnyRegisterBank) {
    this.map = bank.map;
    this.#touched = bank.map.layout.map(entry =>
      Array.from({ length: entry.words }, () => ({ read: 0, ones: 0, zeros: 0, choices: new Map() })),
    );
    this.watch(bank);
  }

  /** Counts another bank of the same map too: the device in the next test, or a second one. */
  watch(bank: AnyRegisterBank): void {
    const stop = bank.observe({
      access: (entry, _element, word, value, _before, _after, write, touched) =>
        this.#note(entry, word, value, write, touched),
    });
    this.#stops.push(stop);
  }

  /** Ends the counting; what was counted stays. */
  stop(): void {
    for (const stop of this.#stops.splice(0)) stop();
  }

  /** All that is there to use and was not, in the order of declaration. */
  get untouched(): readonly Untouched[] {
    return this.#entries().filter(each => each.never.length > 0 || each.choices.length > 0);
  }

  /** Fields, and registers without fields, of which nothing is left {@link untouched}. */
  get covered(): number {
    return this.total - this.untouched.length;
  }

  /** Fields, and registers without fields, that a driver can use. */
  get total(): number {
    return this.#entries().length;
  }

  /** A report of a line for each field that is not covered. */
  toString(): string {
    const lines = this.untouched.map(({ register, field, never, choices }) => {
      const name = field === '' ? register : `${register}.${field}`;
      return `  ${name}: never ${[...never, ...choices.map(choice => `'${choice}'`)].join(', ')}`;
    });
    return [`${this.map.name}: ${this.covered} of ${this.total} fields covered`, ...lines].join('\n');
  }

  #note(entry: LaidOut, word: number, value: number, write: boolean, mask: number): void {
    const touched = this.#touched[entry.index]?.[word];
    if (touched === undefined) return;
    if (!write) {
      touched.read |= mask;
      return;
    }
    touched.ones |= value & mask;
    touched.zeros |= ~value & mask;
    for (const [name, field] of Object.entries(entry.register.fields)) {
      if (field.kind !== 'choice' || field.low >> 5 !== word || (mask & fieldMask(field)) === 0) continue;
      const values = touched.choices.get(name) ?? new Set();
      touched.choices.set(name, values.add((value & fieldMask(field)) >>> (field.low & 31)));
    }
  }

  #entries(): Untouched[] {
    return this.map.layout.flatMap(entry => {
      const fields = Object.entries(entry.register.fields);
      if (fields.length === 0) return [this.#wholeRegister(entry)];
      return fields.flatMap(([name, field]) => (field.kind === 'tag' ? [] : [this.#field(entry, name, field)]));
    });
  }

  #wholeRegister(entry: LaidOut): Untouched {
    const expected = EXPECTED[entry.register.options.access ?? 'rw'];
    const words = this.#touched[entry.index] ?? [];
    const never: Untouched['never'][number][] = [];
    if (expected.read && words.every(word => word.read === 0)) never.push('read');
    if ((expected.one || expected.zero) && words.every(word => (word.ones | word.zeros) === 0)) never.push('written');
    return { register: entry.name, field: '', never, choices: [] };
  }

  #field(entry: LaidOut, name: string, field: Field): Untouched {
    const expected = EXPECTED[field.access ?? entry.register.options.access ?? 'rw'];
    const touched = this.#touched[entry.index]?.[field.low >> 5];
    const mask = fieldMask(field);
    const never: Untouched['never'][number][] = [];
    if (expected.read && ((touched?.read ?? 0) & mask) === 0) never.push('read');
    const one = ((touched?.ones ?? 0) & mask) !== 0;
    const zero = ((touched?.zeros ?? 0) & mask) !== 0;
    if ((expected.one || expected.zero) && !one && !zero) {
      never.push('written');
    } else if (field.kind === 'bit') {
      if (expected.one && !one) never.push('set');
      if (expected.zero && !zero) never.push('cleared');
    }
    const values = touched?.choices.get(name);
    const unused = Object.entries(field.choices ?? {}).filter(
      ([, value]) => values !== undefined && !values.has(value),
    );
    const choices = expected.one && !never.includes('written') ? unused.map(([choice]) => choice) : [];
    return { register: entry.name, field: name, never, choices };
  }
}

/** The coverage of all register maps of a test suite, over all of its devices. */
export class CoverageReport {
  readonly #maps = new Map<RegisterMap, RegisterCoverage>();

  /** Counts what is done to the registers of `device` from now on. */
  watch(device: { readonly banks: readonly AnyRegisterBank[] }): void {
    for (const bank of device.banks) {
      const known = this.#maps.get(bank.map);
      if (known === undefined) this.#maps.set(bank.map, new RegisterCoverage(bank));
      else known.watch(bank);
    }
  }

  get maps(): readonly RegisterCoverage[] {
    return [...this.#maps.values()];
  }

  /** A line for each field that is not covered, by map, and a total. */
  toString(): string {
    const covered = this.maps.reduce((sum, map) => sum + map.covered, 0);
    const total = this.maps.reduce((sum, map) => sum + map.total, 0);
    const percent = total === 0 ? 100 : Math.floor((100 * covered) / total);
    return `${[...this.maps.map(String), `all: ${covered} of ${total} fields covered, ${percent} %`].join('\n')}\n`;
  }
}
