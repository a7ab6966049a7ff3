import { SouthbridgeError, didYouMean } from '../errors.ts';
import type { Access, Field, Register } from './declare.ts';

export type RegisterSet = Readonly<Record<string, Register>>;

/** The bits of one 32-bit (or narrower) word of a register by what an access does to them. */
export interface WordMasks {
  /** All bits that exist. */
  readonly all: number;
  readonly rw: number;
  readonly w1c: number;
  readonly w1s: number;
  readonly w0c: number;
  readonly rc: number;
  readonly pulse: number;
  /** Reads as 0. */
  readonly writeOnly: number;
  readonly reserved: number;
  readonly tags: number;
  readonly reset: number;
}

/** A condition on a field: the register is decoded while `(word & mask) === expected`, or the contrary. */
export interface Condition {
  readonly slot: number;
  readonly mask: number;
  readonly expected: number;
  readonly negated: boolean;
}

/** A register as laid out: where its words are in the bank. */
export interface LaidOut {
  readonly name: string;
  readonly index: number;
  readonly register: Register;
  /** Bytes of one element. */
  readonly bytes: number;
  readonly count: number;
  readonly stride: number;
  /** First word in the bank. */
  readonly slot: number;
  /** Words of one element: 2 for 64 bits. */
  readonly words: number;
  /** Of each word of an element. */
  readonly masks: readonly WordMasks[];
  readonly condition: Condition | undefined;
}

/** The registers of a device or of one of its BARs: pure data. */
export interface RegisterMap<R extends RegisterSet = RegisterSet> {
  readonly name: string;
  readonly registers: R;
  readonly layout: readonly LaidOut[];
  /** Bytes from offset 0 to the end of the last register. */
  readonly size: number;
  /** Words of storage. */
  readonly words: number;
  /** What each byte of a hole reads as. */
  readonly hole: number;
}

function fail(map: string, register: string, problem: string, hint?: string): never {
  throw new SouthbridgeError('ERR_REGISTER_MAP', `register map '${map}', register ${register}: ${problem}`, hint);
}

/**
 * Declares a register map.
 * @param options `hole`: what each byte reads as where there is no register, default 0
 * @throws SouthbridgeError ERR_REGISTER_MAP where the declaration contradicts itself
 */
export function registerMap<const R extends RegisterSet>(name: string, registers: R, options: { readonly hole?: number } = {}): RegisterMap<R> {
  let slot = 0;
  let size = 0;
  const drafts = Object.entries(registers).map(([registerName, register], index) => {
    const bytes = register.width / 8;
    const count = register.options.count ?? 1;
    const stride = register.options.stride ?? bytes;
    if (stride < bytes) fail(name, registerName, `a stride of ${stride} bytes is less than the register's ${bytes}`);
    const words = register.width === 64 ? 2 : 1;
    const draft = { name: registerName, index, register, bytes, count, stride, slot, words, masks: wordMasks(name, registerName, register) };
    slot += words * count;
    size = Math.max(size, register.offset + (count - 1) * stride + bytes);
    return draft;
  });
  const layout = drafts.map(draft => ({ ...draft, condition: condition(name, draft.name, draft.register.options.when, drafts) }));
  refuseOverlaps(name, layout);
  return { name, registers, layout, size, words: slot, hole: options.hole ?? 0 };
}

function wordMasks(map: string, name: string, register: Register): WordMasks[] {
  const fields = Object.entries(register.fields);
  const taken = new Map<number, string>();
  for (const [fieldName, field] of fields) {
    if (field.low < 0 || field.width < 1 || field.low + field.width > register.width) {
      fail(map, name, `field ${fieldName} has bits ${field.low} to ${field.low + field.width - 1} of a ${register.width}-bit register`);
    }
    if (field.width > 32 || (field.low < 32 && field.low + field.width > 32 && register.width === 64)) {
      fail(map, name, `field ${fieldName} crosses bit 32`, 'declare two fields');
    }
    for (let at = field.low; at < field.low + field.width; at++) {
      const other = taken.get(at);
      if (other !== undefined) fail(map, name, `fields ${other} and ${fieldName} both have bit ${at}`);
      taken.set(at, fieldName);
    }
    for (const [choiceName, value] of Object.entries(field.choices ?? {})) {
      if (value < 0 || value >= 2 ** field.width) fail(map, name, `choice ${fieldName}.${choiceName} does not fit ${field.width} bits`);
    }
  }
  const reset = BigInt(register.options.reset ?? 0);
  if (reset < 0n || reset >= 1n << BigInt(register.width)) fail(map, name, `the reset value 0x${reset.toString(16)} does not fit ${register.width} bits`);
  const words = register.width === 64 ? 2 : 1;
  return Array.from({ length: words }, (_, word) => masksOfWord(register, fields, word, Number((reset >> BigInt(32 * word)) & 0xffff_ffffn)));
}

function masksOfWord(register: Register, fields: readonly (readonly [string, Field])[], word: number, reset: number): WordMasks {
  const all = register.width >= 32 ? 0xffff_ffff : 2 ** register.width - 1;
  const byAccess: Record<Access, number> = { rw: 0, ro: 0, wo: 0, w1c: 0, w1s: 0, w0c: 0, rc: 0, pulse: 0 };
  const registerAccess = register.options.access ?? 'rw';
  let named = 0;
  let tags = 0;
  for (const [, field] of fields) {
    if (field.low >> 5 !== word) continue;
    const mask = fieldMask(field);
    named |= mask;
    if (field.kind === 'tag') tags |= mask;
    byAccess[field.access ?? registerAccess] |= mask;
  }
  // With no field named, all bits follow the register; otherwise the rest is reserved.
  if (fields.length === 0) byAccess[registerAccess] = all;
  const reserved = fields.length === 0 ? 0 : all & ~named;
  return {
    all: all >>> 0, rw: (byAccess.rw | byAccess.wo) >>> 0, w1c: byAccess.w1c >>> 0, w1s: byAccess.w1s >>> 0, w0c: byAccess.w0c >>> 0, rc: byAccess.rc >>> 0,
    pulse: byAccess.pulse >>> 0, writeOnly: byAccess.wo >>> 0, reserved: reserved >>> 0, tags: tags >>> 0, reset,
  };
}

/** The field's bits within its 32-bit word. */
export function fieldMask(field: Field): number {
  const ones = field.width === 32 ? 0xffff_ffff : 2 ** field.width - 1;
  return (ones << (field.low & 31)) >>> 0;
}

interface Draft {
  readonly name: string;
  readonly register: Register;
  readonly slot: number;
}

function condition(map: string, name: string, when: string | undefined, drafts: readonly Draft[]): Condition | undefined {
  if (when === undefined) return undefined;
  const match = /^(!?)(\w+)\.(\w+)(?:=(\w+))?$/.exec(when);
  if (match === null) return fail(map, name, `'${when}' is no condition`, 'write REGISTER.FIELD, !REGISTER.FIELD or REGISTER.FIELD=VALUE');
  const [, not, registerName = '', fieldName = '', value] = match;
  const target = drafts.find(draft => draft.name === registerName);
  const field = target?.register.fields[fieldName];
  if (target === undefined || field === undefined) {
    const names = drafts.flatMap(draft => Object.keys(draft.register.fields).map(each => `${draft.name}.${each}`));
    return fail(map, name, `condition '${when}' names no field`, didYouMean(`${registerName}.${fieldName}`, names));
  }
  const wanted = value === undefined ? 2 ** field.width - 1 : (field.choices?.[value] ?? Number(value));
  if (!Number.isInteger(wanted) || wanted < 0 || wanted >= 2 ** field.width) fail(map, name, `condition '${when}' compares with a value that ${fieldName} cannot have`);
  return { slot: target.slot + (field.low >> 5), mask: fieldMask(field), expected: (wanted << (field.low & 31)) >>> 0, negated: not === '!' };
}

function refuseOverlaps(map: string, layout: readonly LaidOut[]): void {
  const owners = new Map<number, LaidOut[]>();
  for (const entry of layout) {
    for (let element = 0; element < entry.count; element++) {
      const base = entry.register.offset + element * entry.stride;
      for (let at = base; at < base + entry.bytes; at++) {
        const others = owners.get(at) ?? [];
        const clash = others.find(other => other.condition === undefined);
        if (clash !== undefined && clash !== entry) {
          fail(map, entry.name, `overlaps ${clash.name} at offset 0x${at.toString(16)}`, "give the earlier one a 'when' condition");
        }
        if (!others.includes(entry)) owners.set(at, [...others, entry]);
      }
    }
  }
}
