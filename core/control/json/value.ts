/**
 * A JSON value as QMP knows it. Integers are exact over the whole of int64 and uint64: `number` where that is exact,
 * else `bigint`. What was written with a fraction or an exponent and is nevertheless whole is a {@link JsonFloat}, so
 * that `1.0` is not taken for an integer.
 */
export type Json = null | boolean | number | bigint | string | JsonFloat | readonly Json[] | JsonObject;

/** Members in the order in which they were written. Parsed objects have no prototype. */
export interface JsonObject {
  readonly [name: string]: Json;
}

/** A whole number that was written as a floating-point one. */
export class JsonFloat {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

export function isObject(value: Json | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof JsonFloat);
}

export function isArray(value: Json | undefined): value is readonly Json[] {
  return Array.isArray(value);
}

const INT64_MIN = -(2n ** 63n);
const UINT64_MAX = 2n ** 64n - 1n;

/** The value as an integer of any 64-bit kind, or undefined where it is not one. */
export function toInteger(value: Json | undefined): bigint | undefined {
  if (typeof value === 'bigint') return value >= INT64_MIN && value <= UINT64_MAX ? value : undefined;
  return typeof value === 'number' && Number.isSafeInteger(value) ? BigInt(value) : undefined;
}

/** The value as a double, or undefined where it is no number. */
export function toDouble(value: Json | undefined): number | undefined {
  if (typeof value === 'number') return value;
  if (typeof value === 'bigint') return Number(value);
  return value instanceof JsonFloat ? value.value : undefined;
}

/** The smallest exact form of a 64-bit integer. */
export function fromInteger(value: bigint): number | bigint {
  const narrow = Number(value);
  return Number.isSafeInteger(narrow) ? narrow : value;
}
