import type { RegisterObserver } from './bank.ts';
import type { Cell } from './decode.ts';
import { fieldMask, type RegisterMap } from './map.ts';
import type { RegisterHook } from './views.ts';

type Observer = Required<RegisterObserver>;
type Hook = RegisterHook<number> | RegisterHook<bigint> | undefined;

const hex = (value: number): string => `0x${(value >>> 0).toString(16)}`;

/** Accesses where there is no register. */
export function reportHole(observer: Observer, map: RegisterMap, offset: number, bytes: number, write: boolean): void {
  const what = `${write ? 'write to' : 'read of'} offset ${hex(offset)}${bytes === 1 ? '' : ` to ${hex(offset + bytes - 1)}`}`;
  observer.guestError(`${what}, where ${map.name} has no register`);
}

/** A read of what can only be written. */
export function reportRead(observer: Observer, map: RegisterMap, cell: Cell, hook: Hook): void {
  if (cell.entry.readable || hook?.read !== undefined) return;
  observer.guestError(`read of write-only ${name(map, cell)}`);
}

/** A write that a register does not take, or only in part. */
export function reportWrite(
  observer: Observer,
  map: RegisterMap,
  cell: Cell,
  written: number,
  touched: number,
  previous: number,
  hook: Hook,
): void {
  const { masks } = cell;
  const changed = (written ^ previous) & touched;
  if (!cell.entry.writable) {
    if (hook?.write === undefined && hook?.wrote === undefined) {
      observer.guestError(`write of ${hex(written)} to read-only ${name(map, cell)}`);
    }
    return;
  }
  const reserved = changed & masks.reserved;
  if (reserved !== 0)
    observer.guestError(`write of ${hex(written)} to ${name(map, cell)} changes reserved bits ${hex(reserved)}`);
  // Drivers write zeros to read-only fields as a matter of course; a one is a mistake, unless a read just gave it.
  const readOnly = masks.all & ~(masks.rw | masks.w1c | masks.w1s | masks.w0c | masks.pulse | masks.reserved);
  const set = written & ~previous & readOnly;
  if (set !== 0 && hook?.read === undefined) {
    observer.guestError(`write of ${hex(written)} to ${name(map, cell)} sets read-only ${fieldsIn(cell, set)}`);
  }
  const tags = written & masks.tags;
  if (tags !== 0) observer.unimplemented(`${name(map, cell)}: ${fieldsIn(cell, tags)} is not implemented`);
}

function name(map: RegisterMap, { entry, element }: Cell): string {
  return `${map.name}.${entry.name}${entry.register.options.count === undefined ? '' : `[${element}]`}`;
}

function fieldsIn(cell: Cell, mask: number): string {
  return Object.entries(cell.entry.register.fields)
    .filter(([, field]) => field.low >> 5 === cell.word && (mask & fieldMask(field)) !== 0)
    .map(([fieldName]) => fieldName)
    .join(', ');
}
