/**
 * What a guest access does to a field: `ro` and `wo` as everywhere in datasheets; `w1c`, `w0c` writing 1 (0) clears; `w1s`
 * writing 1 sets; `rc` reading clears; `pulse` the model's hooks see the 1, which is not stored: what a read shows is the model's.
 */
export type Access = 'rw' | 'ro' | 'wo' | 'w1c' | 'w1s' | 'w0c' | 'rc' | 'pulse';

export type Width = 8 | 16 | 32 | 64;

/** A field of a register: bits `low` to `low + width - 1`. `V` is its type in TypeScript. */
export interface Field<V = unknown> {
  readonly kind: 'bit' | 'bits' | 'choice' | 'tag';
  readonly low: number;
  readonly width: number;
  /** The register's where absent. */
  readonly access: Access | undefined;
  readonly choices: Readonly<Record<string, number>> | undefined;
  /** One line for the reference pages. */
  readonly doc: string | undefined;
  /** Only for the type checker. */
  readonly type?: V;
}

/** A field that is named but not implemented: setting it is reported. */
export interface Tag extends Field<never> {
  readonly kind: 'tag';
}

export type Fields = Readonly<Record<string, Field>>;

export interface RegisterOptions<W extends Width = Width> {
  /** Of all fields that do not say otherwise. Default `rw`. */
  readonly access?: Access;
  /** Value after reset; default 0. A 64-bit one may be a bigint. */
  readonly reset?: W extends 64 ? number | bigint : number;
  /** Keeps its value through resets after the first. Default false. */
  readonly sticky?: boolean;
  /**
   * Decoded only while another register's stored value says so: `LCR.DLAB`, `!LCR.DLAB`, `CR.PAGE=1`, `LCR=0xbf`. Of several
   * registers at one place, the first declared whose condition holds answers.
   */
  readonly when?: string;
  /** An array of this many. */
  readonly count?: number;
  /** Bytes from one element to the next, a multiple of the register's own size, which is the default. */
  readonly stride?: number;
  /** One line for the reference pages. */
  readonly doc?: string;
}

/** A register: make one with r8, r16, r32 or r64. */
export interface Register<
  W extends Width = Width,
  F extends Fields = Fields,
  O extends RegisterOptions = RegisterOptions,
> {
  readonly width: W;
  readonly offset: number;
  readonly fields: F;
  readonly options: O;
}

/** All values of so many bits. */
interface ValuesOfWidth {
  readonly 1: 0 | 1;
  readonly 2: 0 | 1 | 2 | 3;
  readonly 3: 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7;
  readonly 4: 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9 | 10 | 11 | 12 | 13 | 14 | 15;
}

/** A guest can write values that have no name: where there are such values, the field may also be a number. */
export type ChoiceValue<W extends number, C extends Readonly<Record<string, number>>> = W extends keyof ValuesOfWidth
  ? [ValuesOfWidth[W]] extends [C[keyof C]]
    ? keyof C & string
    : (keyof C & string) | number
  : (keyof C & string) | number;

export const bit = (low: number, access?: Access, doc?: string): Field<boolean> => ({
  kind: 'bit',
  low,
  width: 1,
  access,
  choices: undefined,
  doc,
});

export const bits = (low: number, width: number, access?: Access, doc?: string): Field<number> => ({
  kind: 'bits',
  low,
  width,
  access,
  choices: undefined,
  doc,
});

/** A field whose values have names. */
export const choice = <const W extends number, const C extends Readonly<Record<string, number>>>(
  low: number,
  width: W,
  choices: C,
  access?: Access,
  doc?: string,
): Field<ChoiceValue<W, C>> => ({ kind: 'choice', low, width, access, choices, doc });

export const tag = (low: number, width = 1, doc?: string): Tag => ({
  kind: 'tag',
  low,
  width,
  access: undefined,
  choices: undefined,
  doc,
});

function declare<W extends Width>(width: W) {
  return <const F extends Fields = Record<never, never>, const O extends RegisterOptions<W> = Record<never, never>>(
    offset: number,
    fields?: F,
    options?: O,
  ): Register<W, F, O> => ({ width, offset, fields: fields ?? ({} as F), options: options ?? ({} as O) });
}

export const r8 = declare(8);
export const r16 = declare(16);
export const r32 = declare(32);
export const r64 = declare(64);
