import type { Field } from './declare.ts';
import { fieldMask, type LaidOut } from './map.ts';

/**
 * One access in words. A write tells what it changed or set off, `e1000.TCTL.EN 0 -> 1`, and else what was written; a read
 * tells the value and the fields that are not zero, `uart.LSR -> 0x60 (THRE TEMT)`. All values are in place within the word.
 */
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
  const half = entry.words === 1 ? '' : word === 0 ? '.low' : '.high';
  const name = `${map}.${entry.name}${entry.register.options.count === undefined ? '' : `[${element}]`}`;
  if (!write) return `${name}${half} -> ${valueText(entry, word, value)}`;
  const pulses = value & (entry.masks[word]?.pulse ?? 0);
  const told = fieldsOf(entry, word).flatMap(([fieldName, field]) => {
    const mask = fieldMask(field);
    if (((before ^ after) & mask) !== 0)
      return `${name}.${fieldName} ${fieldText(field, before)} -> ${fieldText(field, after)}`;
    return (pulses & mask) === 0 ? [] : `${name}.${fieldName} <- ${fieldText(field, value)}`;
  });
  return told.length > 0 ? told.join(', ') : `${name}${half} <- ${hex(value)}`;
}

/** A word of a register, and in brackets its fields that are not zero: `0x3 (EN SPEED=fast)`. */
export function valueText(entry: LaidOut, word: number, value: number): string {
  const set = fieldsOf(entry, word)
    .filter(([, field]) => (value & fieldMask(field)) !== 0)
    .map(([name, field]) =>
      field.width === 1 && field.kind !== 'choice' ? name : `${name}=${fieldText(field, value)}`,
    );
  return set.length === 0 ? hex(value) : `${hex(value)} (${set.join(' ')})`;
}

/** A field's value within its word: the choice's name where it has one. */
export function fieldText(field: Field, word: number): string {
  const value = (word & fieldMask(field)) >>> (field.low & 31);
  const named = Object.entries(field.choices ?? {}).find(([, choice]) => choice === value);
  return named?.[0] ?? (value < 10 ? String(value) : hex(value));
}

function fieldsOf(entry: LaidOut, word: number): [string, Field][] {
  return Object.entries(entry.register.fields).filter(([, field]) => field.low >> 5 === word);
}

function hex(value: number): string {
  return `0x${(value >>> 0).toString(16)}`;
}
