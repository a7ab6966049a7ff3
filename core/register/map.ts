import { checkRegister, fieldMask, mapError } from './check.ts';
import { type Condition, complementary, condition, sameCondition } from './condition.ts';
import type { Access, Register } from './declare.ts';

export { fieldMask } from './check.ts';
export type { Condition } from './condition.ts';

export type RegisterSet = Readonly<Record<string, Register>>;

/** The bits of one 32-bit (or narrower) word of a register by what an access does to them. */
export interface WordMasks {
  /** All bits that exist. */
  readonly all: number;
  /** Stored as written: those of `rw` and of `wo`. */
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
  /** Some bit of it shows on reads. */
  readonly readable: boolean;
  /** Some bit of it takes writes. */
  readonly writable: boolean;
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

/**
 * Declares a register map. Several registers may be at one place where conditions tell them apart, or where one is only
 * read and the other only written.
 * @param options `hole`: what each byte reads as where there is no register, default 0
 * @throws SouthbridgeError ERR_REGISTER_MAP where the declaration contradicts itself
 */
export function registerMap<const R extends RegisterSet>(
  name: string,
  registers: R,
  options: { readonly hole?: number } = {},
): RegisterMap<R> {
  let slot = 0;
  let size = 0;
  const drafts = Object.entries(registers).map(([registerName, register], index) => {
    checkRegister(name, registerName, register);
    const bytes = register.width / 8;
    const { count = 1, stride = bytes } = register.options;
    const words = register.width === 64 ? 2 : 1;
    const masks = wordMasks(register, words);
    const draft = {
      name: registerName,
      index,
      register,
      bytes,
      count,
      stride,
      slot,
      words,
      masks,
      ...directions(register),
    };
    slot += words * count;
    size = Math.max(size, register.offset + (count - 1) * stride + bytes);
    return draft;
  });
  const layout = drafts.map(draft => {
    const { when } = draft.register.options;
    return { ...draft, condition: when === undefined ? undefined : condition(name, draft.name, when, drafts) };
  });
  refuseHidden(name, layout);
  return { name, registers, layout, size, words: slot, hole: (options.hole ?? 0) & 0xff };
}

/** Who is asked first at a place that several registers share: those that the access is for, as declared. */
export function inOrder(sharers: readonly LaidOut[], direction: 'read' | 'write'): LaidOut[] {
  const takes = (entry: LaidOut): boolean => (direction === 'read' ? entry.readable : entry.writable);
  return [...sharers.filter(takes), ...sharers.filter(entry => !takes(entry))];
}

function accessesOf(register: Register): Access[] {
  const { access = 'rw' } = register.options;
  const fields = Object.values(register.fields);
  return fields.length === 0 ? [access] : fields.map(field => field.access ?? access);
}

function directions(register: Register): { readable: boolean; writable: boolean } {
  const accesses = accessesOf(register);
  return {
    readable: accesses.some(access => access !== 'wo' && access !== 'pulse'),
    writable: accesses.some(access => access !== 'ro' && access !== 'rc'),
  };
}

function wordMasks(register: Register, words: number): WordMasks[] {
  const reset = BigInt(register.options.reset ?? 0);
  return Array.from({ length: words }, (_, word) =>
    masksOfWord(register, word, Number((reset >> BigInt(32 * word)) & 0xffff_ffffn)),
  );
}

function masksOfWord(register: Register, word: number, reset: number): WordMasks {
  const all = register.width >= 32 ? 0xffff_ffff : 2 ** register.width - 1;
  const byAccess: Record<Access, number> = { rw: 0, ro: 0, wo: 0, w1c: 0, w1s: 0, w0c: 0, rc: 0, pulse: 0 };
  const registerAccess = register.options.access ?? 'rw';
  const fields = Object.values(register.fields);
  let named = 0;
  let tags = 0;
  for (const field of fields) {
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
    all: all >>> 0,
    rw: (byAccess.rw | byAccess.wo) >>> 0,
    w1c: byAccess.w1c >>> 0,
    w1s: byAccess.w1s >>> 0,
    w0c: byAccess.w0c >>> 0,
    rc: byAccess.rc >>> 0,
    pulse: byAccess.pulse >>> 0,
    writeOnly: byAccess.wo >>> 0,
    reserved: reserved >>> 0,
    tags: tags >>> 0,
    reset,
  };
}

/** A stretch of offsets that one register takes: an array of neighbours is one stretch. */
interface Stretch {
  readonly start: number;
  readonly end: number;
  readonly entry: LaidOut;
  /** Place in the declaration. */
  readonly order: number;
}

/** Refuses a register that another one always answers for. */
function refuseHidden(map: string, layout: readonly LaidOut[]): void {
  const stretches = layout.flatMap(stretchesOf).sort((a, b) => a.start - b.start);
  let here: Stretch[] = [];
  // Where a stretch begins is where most registers meet; further on some of them may only end.
  for (const stretch of stretches) {
    here = here.filter(other => other.end > stretch.start);
    here.push(stretch);
    if (here.length === 1) continue;
    const sharers = here.toSorted((a, b) => a.order - b.order).map(({ entry }) => entry);
    for (const direction of ['read', 'write'] as const) refuseHiddenFrom(map, stretch.start, sharers, direction);
  }
}

function stretchesOf(entry: LaidOut, order: number): Stretch[] {
  const { count, stride, bytes } = entry;
  const { offset } = entry.register;
  if (stride === bytes) return [{ start: offset, end: offset + count * bytes, entry, order }];
  return Array.from({ length: count }, (_, element) => {
    const start = offset + element * stride;
    return { start, end: start + bytes, entry, order };
  });
}

function refuseHiddenFrom(map: string, at: number, sharers: readonly LaidOut[], direction: 'read' | 'write'): void {
  const order = inOrder(sharers, direction);
  for (const [index, entry] of order.entries()) {
    if (!(direction === 'read' ? entry.readable : entry.writable)) return;
    const before = order.slice(0, index);
    const hiding = before.find(other => hides(other, entry, before));
    if (hiding !== undefined) {
      const hint =
        "tell them apart with 'when', the first declared that answers wins; or make one 'ro' and the other 'wo'";
      mapError(map, entry.name, `overlaps ${hiding.name} at offset 0x${at.toString(16)}`, hint);
    }
  }
}

/** `other` comes first whenever `entry` would answer, alone or together with one of `before`. */
function hides(other: LaidOut, entry: LaidOut, before: readonly LaidOut[]): boolean {
  const first = other.condition;
  if (first === undefined) return true;
  if (entry.condition !== undefined && sameCondition(first, entry.condition)) return true;
  return before.some(({ condition: second }) => second !== undefined && complementary(first, second));
}
