import type { Field, Fields, Register, Tag } from './declare.ts';
import type { RegisterMap } from './map.ts';

type FieldValues<F extends Fields> = { -readonly [K in keyof F as F[K] extends Tag ? never : K]: F[K] extends Field<infer V> ? V : never };

/** One register: its fields by name, and `value` as a whole. */
export type RegisterView<R extends Register> = FieldValues<R['fields']> & (R['width'] extends 64 ? { value: bigint; low: number; high: number } : { value: number });

/** An array of registers. */
export interface RegisterArray<R extends Register> {
  readonly length: number;
  /** The stored words in order, shared with the bank; a 64-bit register takes two. */
  readonly values: Uint32Array;
  at(index: number): RegisterView<R>;
}

export type RegisterViewOf<R extends Register> = R['options'] extends { readonly count: number } ? RegisterArray<R> : RegisterView<R>;

/** All registers of a map, by name. */
export type Registers<M extends RegisterMap> = { readonly [K in keyof M['registers']]: RegisterViewOf<M['registers'][K]> };

/** A register's value: bigint where it has 64 bits. */
export type ValueOf<R extends Register> = R['width'] extends 64 ? bigint : number;

/**
 * What a device does about one register. For an array, `index` is the element, otherwise 0. `written` is what the guest wrote,
 * with 0 in bytes that its access did not touch. A 64-bit register that is written in halves calls back for each half.
 */
export interface RegisterHook<V extends number | bigint> {
  /** Returns what the guest reads in place of what is `stored`. */
  read?(stored: V, index: number): V;
  /** Returns what is stored. `value` is what would be, after the access modes; `pulse` fields are visible in it. */
  write?(value: V, previous: V, index: number, written: V): V;
  /** After storing. */
  wrote?(value: V, previous: V, index: number, written: V): void;
}

export type RegisterHooks<M extends RegisterMap> = { readonly [K in keyof M['registers']]?: RegisterHook<ValueOf<M['registers'][K]>> };
