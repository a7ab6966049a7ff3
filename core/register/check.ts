import { SouthbridgeError } from '../errors.ts';
import type { Field, Register } from './declare.ts';

/** Bytes that a map may span: its decoder has an entry for each. */
const LARGEST_MAP = 2 ** 20;

/** Names that a register's view has for itself. */
const TAKEN = new Set(['value', 'low', 'high', 'words', 'slot', 'constructor', '__proto__']);

export function mapError(map: string, register: string, problem: string, hint?: string): never {
  throw new SouthbridgeError('ERR_REGISTER_MAP', `register map '${map}', register ${register}: ${problem}`, hint);
}

/** The field's bits within its 32-bit word. */
export function fieldMask(field: Pick<Field, 'low' | 'width'>): number {
  const ones = field.width === 32 ? 0xffff_ffff : 2 ** field.width - 1;
  return (ones << (field.low & 31)) >>> 0;
}

/** Refuses what a single register declares wrongly. */
export function checkRegister(map: string, name: string, register: Register): void {
  const { offset, width, options } = register;
  const bytes = width / 8;
  const { count = 1, stride = bytes } = options;
  if (!Number.isInteger(offset) || offset < 0) mapError(map, name, `${offset} is no offset`);
  if (!Number.isInteger(count) || count < 1) mapError(map, name, `an array of ${count}`);
  if (stride < bytes) mapError(map, name, `a stride of ${stride} bytes is less than the register's ${bytes}`);
  if (stride % bytes !== 0) mapError(map, name, `a stride of ${stride} bytes misaligns registers of ${bytes}`);
  if (offset + (count - 1) * stride + bytes > LARGEST_MAP) {
    mapError(map, name, `ends beyond ${LARGEST_MAP} bytes`, 'give what is so far away a map of its own');
  }
  checkReset(map, name, register);
  checkFields(map, name, register);
}

function checkReset(map: string, name: string, { options, width }: Register): void {
  const { reset = 0 } = options;
  const whole = typeof reset === 'bigint' || Number.isSafeInteger(reset);
  if (!whole || reset < 0 || BigInt(reset) >= 1n << BigInt(width)) {
    mapError(map, name, `the reset value ${whole ? `0x${reset.toString(16)}` : reset} does not fit ${width} bits`);
  }
}

function checkFields(map: string, name: string, register: Register): void {
  const owners = new Map<number, string>();
  for (const [fieldName, field] of Object.entries(register.fields)) {
    const { low, width } = field;
    if (TAKEN.has(fieldName))
      mapError(map, name, `a field cannot be called '${fieldName}'`, 'datasheet names are in capitals');
    if (!Number.isInteger(low) || !Number.isInteger(width) || low < 0 || width < 1 || low + width > register.width) {
      mapError(
        map,
        name,
        `field ${fieldName} has bits ${low} to ${low + width - 1} of a ${register.width}-bit register`,
      );
    }
    if (low >> 5 !== (low + width - 1) >> 5)
      mapError(map, name, `field ${fieldName} crosses bit 32`, 'declare two fields');
    for (let at = low; at < low + width; at++) {
      const other = owners.get(at);
      if (other !== undefined) mapError(map, name, `fields ${other} and ${fieldName} both have bit ${at}`);
      owners.set(at, fieldName);
    }
    checkChoices(map, name, fieldName, field);
  }
}

function checkChoices(map: string, name: string, fieldName: string, field: Field): void {
  const names = new Map<number, string>();
  for (const [choiceName, value] of Object.entries(field.choices ?? {})) {
    if (!Number.isInteger(value) || value < 0 || value >= 2 ** field.width) {
      mapError(map, name, `choice ${fieldName}.${choiceName} does not fit ${field.width} bits`);
    }
    const other = names.get(value);
    if (other !== undefined)
      mapError(map, name, `choices ${other} and ${choiceName} of ${fieldName} are both ${value}`);
    names.set(value, choiceName);
  }
}
