import type { Field } from './declare.ts';
import { fieldMask, type LaidOut } from './map.ts';

/** One access in words: `e1000.TCTL.EN 0 -> 1`, or the whole value where no field changed. */
export function symbolic(
  map: string,
  entry: LaidOut,
  element: number,
  word: number,
  value: number,
  before: number,
  after: number,
  write: boolean,
): string {
  const name = `${map}.${entry.name}${entry.register.options.count === undefined ? '' : `[${element}]`}`;
  if (!write) return `${name} -> 0x${value.toString(16)}`;
  const changes = Object.entries(entry.register.fields)
    .filter(([, field]) => field.low >> 5 === word && ((before ^ after) & fieldMask(field)) !== 0)
    .map(([fieldName, field]) => `${name}.${fieldName} ${fieldText(field, before)} -> ${fieldText(field, after)}`);
  return changes.length > 0 ? changes.join(', ') : `${name} <- 0x${value.toString(16)}`;
}

/** A field's value within its word: the choice's name where it has one. */
export function fieldText(field: Field, word: number): string {
  const value = (word & fieldMask(field)) >>> (field.low & 31);
  const named = Object.entries(field.choices ?? {}).find(([, choice]) => choice === value);
  return named?.[0] ?? (value < 10 ? String(value) : `0x${value.toString(16)}`);
}
