import { didYouMean } from '../errors.ts';
import { fieldMask, mapError } from './check.ts';
import type { Register } from './declare.ts';

/** A condition on a stored word: the register is decoded while `(word & mask) === expected`, or the contrary. */
export interface Condition {
  /** As declared. */
  readonly text: string;
  readonly slot: number;
  readonly mask: number;
  readonly expected: number;
  readonly negated: boolean;
}

interface Place {
  readonly name: string;
  readonly register: Register;
  /** First word in the bank. */
  readonly slot: number;
}

const FORM = /^(!?)(\w+)(?:\.(\w+))?(?:=(\w+))?$/;

/** Reads a `when` of the register `name`. */
export function condition(map: string, name: string, text: string, places: readonly Place[]): Condition {
  const match = FORM.exec(text);
  if (match === null) {
    return mapError(
      map,
      name,
      `'${text}' is no condition`,
      'write REGISTER.FIELD, !REGISTER.FIELD or REGISTER.FIELD=VALUE',
    );
  }
  const [, not, registerName = '', fieldName, wanted] = match;
  const target = places.find(place => place.name === registerName);
  const field = fieldName === undefined ? undefined : target?.register.fields[fieldName];
  if (target === undefined || (fieldName !== undefined && field === undefined)) {
    const names = places.flatMap(place => Object.keys(place.register.fields).map(each => `${place.name}.${each}`));
    return mapError(
      map,
      name,
      `condition '${text}' names no field`,
      didYouMean(`${registerName}.${fieldName ?? ''}`, names),
    );
  }
  if (target.register.options.count !== undefined)
    mapError(map, name, `condition '${text}' is on an array of registers`);
  const low = field?.low ?? 0;
  const width = field?.width ?? target.register.width;
  if (width > 32) mapError(map, name, `condition '${text}' compares 64 bits`, 'name a field of at most 32');
  if (wanted === undefined && width > 1) {
    mapError(map, name, `condition '${text}' is on ${width} bits and names no value`, `write ${text}=VALUE`);
  }
  const value = wanted === undefined ? 1 : (field?.choices?.[wanted] ?? Number(wanted));
  if (!Number.isInteger(value) || value < 0 || value >= 2 ** width) {
    mapError(map, name, `condition '${text}' compares with a value that ${width} bits cannot have`);
  }
  const mask = fieldMask({ low, width });
  const expected = (value << (low & 31)) >>> 0;
  const slot = target.slot + (low >> 5);
  // Of a single bit, not one is zero.
  if (width === 1 && not === '!') return { text, slot, mask, expected: (expected ^ mask) >>> 0, negated: false };
  return { text, slot, mask, expected, negated: not === '!' };
}

/** Both always hold at once. */
export function sameCondition(a: Condition, b: Condition): boolean {
  return onSameBits(a, b) && a.expected === b.expected && a.negated === b.negated;
}

/** One of them always holds. */
export function complementary(a: Condition, b: Condition): boolean {
  if (!onSameBits(a, b)) return false;
  const singleBit = (a.mask & (a.mask - 1)) === 0;
  return singleBit ? a.expected !== b.expected : a.expected === b.expected && a.negated !== b.negated;
}

function onSameBits(a: Condition, b: Condition): boolean {
  return a.slot === b.slot && a.mask === b.mask;
}
