import { Choices } from './choices.ts';
import type { Field } from './declare.ts';
import { fieldMask, type LaidOut, type RegisterMap, type WordMasks } from './map.ts';
import type { Registers } from './views.ts';

/** Where a driver's accesses go: offsets from the start of the map, values as those of a register bank. */
export interface DriverPort {
  read(offset: number, size: number): number;
  write(offset: number, size: number, value: number): void;
}

/**
 * The driver's view of a map: each property access is an access on the bus, of the register's width; 64-bit registers are
 * accessed as two halves, the low one first. Writing a field reads the register, unless there is nothing in it to preserve, and
 * writes it once: fields where a one or a zero acts are written so that it does not, reserved bits as they are after reset.
 * What a `wo` neighbour had cannot be known, and is written as zero. Conditions are for the driver to set up.
 */
export function driverView<M extends RegisterMap>(map: M, port: DriverPort): Registers<M> {
  const view: Record<string, unknown> = {};
  for (const entry of map.layout) {
    view[entry.name] =
      entry.register.options.count === undefined ? registerView(entry, 0, port) : new DriverArray(entry, port);
  }
  return view as Registers<M>;
}

class DriverArray {
  readonly length: number;
  readonly #entry: LaidOut;
  readonly #port: DriverPort;
  readonly #elements: (object | undefined)[] = [];

  constructor(entry: LaidOut, port: DriverPort) {
    this.length = entry.count;
    this.#entry = entry;
    this.#port = port;
  }

  /** What the bus answers now, as a copy. */
  get values(): Uint32Array {
    const { register, stride, bytes, words, count } = this.#entry;
    return Uint32Array.from({ length: count * words }, (_, at) => {
      const element = Math.floor(at / words);
      return this.#port.read(register.offset + element * stride + 4 * (at % words), Math.min(bytes, 4));
    });
  }

  at(index: number): object {
    if (!Number.isInteger(index) || index < 0 || index >= this.length) {
      throw new RangeError(`register array has ${this.length} elements, no ${index}`);
    }
    this.#elements[index] ??= registerView(this.#entry, index, this.#port);
    return this.#elements[index];
  }
}

function registerView(entry: LaidOut, element: number, port: DriverPort): object {
  const base = entry.register.offset + element * entry.stride;
  const bytes = Math.min(entry.bytes, 4);
  const view = {};
  const define = (name: string, get: () => unknown, set: (value: never) => void): void => {
    Object.defineProperty(view, name, { get, set, enumerable: true });
  };
  const word = (offset: number) =>
    [() => port.read(offset, bytes), (value: number) => port.write(offset, bytes, value >>> 0)] as const;
  if (entry.words === 1) {
    define('value', ...word(base));
  } else {
    define('low', ...word(base));
    define('high', ...word(base + 4));
    define(
      'value',
      () => readWide(port, base),
      (value: bigint) => writeWide(port, base, value),
    );
  }
  for (const [name, field] of Object.entries(entry.register.fields)) {
    const masks = entry.masks[field.low >> 5];
    if (field.kind === 'tag' || masks === undefined) continue;
    const access = new FieldAccess(port, base + 4 * (field.low >> 5), bytes, field, masks);
    if (field.kind === 'bit') {
      define(
        name,
        () => access.get() !== 0,
        (value: boolean) => access.set(value ? 1 : 0),
      );
    } else if (field.kind === 'bits') {
      define(
        name,
        () => access.get(),
        (value: number) => access.set(value),
      );
    } else {
      const choices = new Choices(name, field);
      define(
        name,
        () => choices.nameOf(access.get()),
        (value: string | number) => access.set(choices.valueOf(value)),
      );
    }
  }
  return view;
}

/** One field on the bus. */
class FieldAccess {
  readonly #port: DriverPort;
  readonly #offset: number;
  readonly #bytes: number;
  readonly #shift: number;
  readonly #ones: number;
  /** Other fields that have to be written as they read. */
  readonly #preserve: number;
  /** What the others have to be written with. */
  readonly #idle: number;

  constructor(port: DriverPort, offset: number, bytes: number, field: Field, masks: WordMasks) {
    const mask = fieldMask(field);
    this.#port = port;
    this.#offset = offset;
    this.#bytes = bytes;
    this.#shift = field.low & 31;
    this.#ones = mask >>> this.#shift;
    this.#preserve = masks.rw & ~masks.writeOnly & ~mask;
    this.#idle = (masks.w0c & ~mask) | (masks.reset & masks.reserved);
  }

  get(): number {
    return ((this.#port.read(this.#offset, this.#bytes) >>> this.#shift) & this.#ones) >>> 0;
  }

  set(value: number): void {
    const others = this.#preserve === 0 ? 0 : this.#port.read(this.#offset, this.#bytes) & this.#preserve;
    const field = (value & this.#ones) << this.#shift;
    this.#port.write(this.#offset, this.#bytes, (others | this.#idle | field) >>> 0);
  }
}

function readWide(port: DriverPort, offset: number): bigint {
  const low = BigInt(port.read(offset, 4));
  return (BigInt(port.read(offset + 4, 4)) << 32n) | low;
}

function writeWide(port: DriverPort, offset: number, value: bigint): void {
  port.write(offset, 4, Number(value & 0xffff_ffffn));
  port.write(offset + 4, 4, Number((value >> 32n) & 0xffff_ffffn));
}
