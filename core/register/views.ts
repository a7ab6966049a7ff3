import type { Field, Fields, Register, Tag } from './declare.ts';
import type { RegisterMap } from './map.ts';

type FieldValues<F extends Fields> = {
  -readonly [K in keyof F as F[K] extends Tag ? never : K]: F[K] extends Field<infer V> ? V : never;
};

/** One register: its fields by name, and `value` as a whole. */
export type RegisterView<R extends Register> = FieldValues<R['fields']> &
  (R['width'] extends 64 ? { value: bigint; low: number; high: number } : { value: number });

/** An array of registers. */
export interface RegisterArray<R extends Register> {
  readonly length: number;
  /** The stored words in order, shared with the bank; a 64-bit register takes two, the low one first. */
  readonly values: Uint32Array;
  /** @throws RangeError where there is no such element */
  at(index: number): RegisterView<R>;
}

export type RegisterViewOf<R extends Register> = R['options'] extends { readonly count: number }
  ? RegisterArray<R>
  : RegisterView<R>;

/** All registers of a map, by name. */
export type Registers<M extends RegisterMap> = {
  readonly [K in keyof M['registers']]: RegisterViewOf<M['registers'][K]>;
};

/** A register's value: bigint where it has 64 bits. */
export type ValueOf<R extends Register> = R['width'] extends 64 ? bigint : number;

/**
 * What a device does about one register, once for each access to it. For an array, `index` is the element, otherwise 0.
 * `written` is what the guest wrote, in place, with 0 in bytes that its access did not touch; `touched` has a 1 for each bit of
 * the bytes that it did touch. A 64-bit register is accessed in halves, with a call for each: `touched` tells which.
 */
export interface RegisterHook<V extends number | bigint> {
  /** Returns what the guest reads in place of what is `stored`, also for write-only fields. `rc` fields are cleared after it. */
  read?(stored: V, index: number): V;
  /**
   * Returns what is stored. `value` is what would be, after the access modes, with `pulse` fields as written; these are not
   * stored, whatever is returned.
   */
  write?(value: V, previous: V, index: number, written: V, touched: V): V;
  /** After storing; `value` as for {@link write}, or what that returned. */
  wrote?(value: V, previous: V, index: number, written: V, touched: V): void;
}

export type RegisterHooks<M extends RegisterMap> = {
  readonly [K in keyof M['registers']]?: RegisterHook<ValueOf<M['registers'][K]>>;
};
