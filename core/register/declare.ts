/**
 * What a guest access does to a field: `ro` and `wo` as everywhere in datasheets; `w1c`, `w0c` writing 1 (0) clears; `w1s`
 * writing 1 sets; `rc` reading clears; `pulse` the model sees the 1 but it is never stored.
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
  /** Only for the type checker. */
  readonly type?: V;
}

/** A field that is named but not implemented: setting it is reported. */
export interface Tag extends Field<never> {
  readonly kind: 'tag';
}

export type Fields = Readonly<Record<string, Field>>;

export interface RegisterOptions {
  /** Of all fields that do not say otherwise. Default `rw`. */
  readonly access?: Access;
  /** Value after reset; default 0. A 64-bit one may be a bigint. */
  readonly reset?: number | bigint;
  /** Decoded only while a field has a value: `LCR.DLAB`, `!LCR.DLAB`, `CR.PAGE=1`. */
  readonly when?: string;
  /** An array of this many. */
  readonly count?: number;
  /** Bytes from one element to the next; default the register's own size. */
  readonly stride?: number;
  /** One line for the reference pages. */
  readonly doc?: string;
}

/** A register: make one with r8, r16, r32 or r64. */
export interface Register<W extends Width = Width, F extends Fields = Fields, O extends RegisterOptions = RegisterOptions> {
  readonly width: W;
  readonly offset: number;
  readonly fields: F;
  readonly options: O;
}

export const bit = (low: number, access?: Access): Field<boolean> => ({ kind: 'bit', low, width: 1, access, choices: undefined });

export const bits = (low: number, width: number, access?: Access): Field<number> => ({ kind: 'bits', low, width, access, choices: undefined });

/** A field whose values have names. */
export const choice = <const C extends Readonly<Record<string, number>>>(low: number, width: number, choices: C, access?: Access): Field<keyof C & string> => ({
  kind: 'choice', low, width, access, choices,
});

export const tag = (low: number, width = 1): Tag => ({ kind: 'tag', low, width, access: 'rw', choices: undefined });

function declare<W extends Width>(width: W) {
  return <const F extends Fields = Record<never, never>, const O extends RegisterOptions = Record<never, never>>(offset: number, fields?: F, options?: O): Register<W, F, O> => ({
    width, offset, fields: fields ?? ({} as F), options: options ?? ({} as O),
  });
}

export const r8 = declare(8);
export const r16 = declare(16);
export const r32 = declare(32);
export const r64 = declare(64);
