import { SouthbridgeError } from '../errors.ts';
import { modelView } from './compile.ts';
import type { LaidOut, RegisterMap, WordMasks } from './map.ts';
import type { RegisterHook, RegisterHooks, Registers } from './views.ts';

/** Watches a bank: traces, reports, recorders, coverage. Costs nothing while there is none. */
export interface RegisterObserver {
  /** A guest access has been served; `value` is what was read or written, in place within the register's word. */
  access?(register: LaidOut, element: number, word: number, value: number, before: number, after: number, write: boolean): void;
  guestError?(message: string): void;
  unimplemented?(message: string): void;
}

type AnyHook = RegisterHook<number> | RegisterHook<bigint>;

/** One word of one register element, as accesses find it. */
class Cell {
  readonly entry: LaidOut;
  readonly element: number;
  readonly word: number;
  readonly slot: number;
  readonly offset: number;
  readonly bytes: number;
  readonly masks: WordMasks;
  /** The next candidate at this place, where registers share one. */
  readonly next: Cell | undefined;

  constructor(entry: LaidOut, element: number, word: number, next?: Cell) {
    this.next = next;
    this.entry = entry;
    this.element = element;
    this.word = word;
    this.slot = entry.slot + element * entry.words + word;
    this.offset = entry.register.offset + element * entry.stride + word * 4;
    this.bytes = Math.min(entry.bytes, 4);
    this.masks = entry.masks[word] ?? entry.masks[0] ?? EMPTY;
  }
}

const EMPTY: WordMasks = { all: 0, rw: 0, w1c: 0, w1s: 0, w0c: 0, rc: 0, pulse: 0, writeOnly: 0, reserved: 0, tags: 0, reset: 0 };

/** The first candidate of each byte of a map, made once per map. */
const decoders = new WeakMap<RegisterMap, readonly (Cell | undefined)[]>();

function decoder(map: RegisterMap): readonly (Cell | undefined)[] {
  const known = decoders.get(map);
  if (known !== undefined) return known;
  const table: (Cell | undefined)[] = new Array(map.size).fill(undefined);
  for (const entry of [...map.layout].reverse()) {
    for (let element = 0; element < entry.count; element++) {
      for (let word = 0; word < entry.words; word++) {
        const base = new Cell(entry, element, word);
        for (let at = base.offset; at < base.offset + base.bytes; at++) {
          const below = table[at];
          table[at] = below === undefined ? base : new Cell(entry, element, word, below);
        }
      }
    }
  }
  decoders.set(map, table);
  return table;
}

/** A bank whatever its map is: what devices, snapshots and tools keep. */
export interface AnyRegisterBank {
  readonly map: RegisterMap;
  observer: RegisterObserver | undefined;
  read(offset: number, size: number): number;
  write(offset: number, size: number, value: number): void;
  reset(): void;
  save(): Uint8Array;
  restore(saved: unknown): void;
}

/**
 * The registers of one device instance: their values, and the guest's accesses to them. Values are unsigned, little-endian
 * and of 1, 2 or 4 bytes; any offset is allowed, accesses that are wider or narrower than a register are split or merged.
 */
export class RegisterBank<M extends RegisterMap = RegisterMap> implements AnyRegisterBank {
  readonly map: M;
  /** The model's view. */
  readonly regs: Registers<M>;
  observer: RegisterObserver | undefined;
  readonly #words: Uint32Array;
  readonly #cells: readonly (Cell | undefined)[];
  readonly #hooks: readonly (AnyHook | undefined)[];

  constructor(map: M, hooks: RegisterHooks<M> = {}) {
    this.map = map;
    this.#words = new Uint32Array(map.words);
    this.#cells = decoder(map);
    const byName = hooks as Readonly<Record<string, AnyHook | undefined>>;
    this.#hooks = map.layout.map(entry => byName[entry.name]);
    this.regs = modelView(map, this.#words);
    this.reset();
  }

  reset(): void {
    for (const entry of this.map.layout) {
      for (let at = 0; at < entry.count * entry.words; at++) this.#words[entry.slot + at] = entry.masks[at % entry.words]?.reset ?? 0;
    }
  }

  save(): Uint8Array {
    return new Uint8Array(this.#words.slice().buffer);
  }

  /** @throws SouthbridgeError ERR_STATE_VALUE where `saved` is not what {@link save} of the same map gave */
  restore(saved: unknown): void {
    if (!(saved instanceof Uint8Array) || saved.length !== this.#words.length * 4) {
      throw new SouthbridgeError('ERR_STATE_VALUE', `the saved registers of '${this.map.name}' are not ${this.#words.length} words`);
    }
    this.#words.set(new Uint32Array(saved.slice().buffer));
  }

  read(offset: number, size: number): number {
    const cell = this.#find(offset);
    if (cell !== undefined && cell.offset === offset && cell.bytes === size) return this.#readCell(cell, cell.masks.all);
    return this.#readPieces(offset, size);
  }

  write(offset: number, size: number, value: number): void {
    const cell = this.#find(offset);
    if (cell !== undefined && cell.offset === offset && cell.bytes === size) return this.#writeCell(cell, value, cell.masks.all);
    this.#writePieces(offset, size, value);
  }

  #find(offset: number): Cell | undefined {
    let cell = this.#cells[offset];
    while (cell !== undefined && cell.entry.condition !== undefined) {
      const { slot, mask, expected, negated } = cell.entry.condition;
      if (((((this.#words[slot] ?? 0) & mask) >>> 0) === expected) !== negated) return cell;
      cell = cell.next;
    }
    return cell;
  }

  #readPieces(offset: number, size: number): number {
    let value = 0;
    for (let at = 0; at < size; ) {
      const cell = this.#find(offset + at);
      if (cell === undefined) {
        value |= this.map.hole << (8 * at);
        this.#reportHole(offset + at, false);
        at++;
        continue;
      }
      const within = offset + at - cell.offset;
      const bytes = Math.min(size - at, cell.bytes - within);
      const touched = bytesMask(bytes) << (8 * within);
      value |= ((this.#readCell(cell, touched >>> 0) >>> (8 * within)) & bytesMask(bytes)) << (8 * at);
      at += bytes;
    }
    return value >>> 0;
  }

  #writePieces(offset: number, size: number, value: number): void {
    for (let at = 0; at < size; ) {
      const cell = this.#find(offset + at);
      if (cell === undefined) {
        this.#reportHole(offset + at, true);
        at++;
        continue;
      }
      const within = offset + at - cell.offset;
      const bytes = Math.min(size - at, cell.bytes - within);
      const piece = (value >>> (8 * at)) & bytesMask(bytes);
      this.#writeCell(cell, (piece << (8 * within)) >>> 0, (bytesMask(bytes) << (8 * within)) >>> 0);
      at += bytes;
    }
  }

  #readCell(cell: Cell, touched: number): number {
    const { masks, slot, entry } = cell;
    const stored = this.#words[slot] ?? 0;
    const hook = this.#hooks[entry.index];
    let value = stored & ~masks.writeOnly;
    if (hook?.read !== undefined) value = entry.words === 1 ? (hook as RegisterHook<number>).read?.(stored, cell.element) ?? 0 : this.#readWide(hook as RegisterHook<bigint>, cell);
    if (masks.rc !== 0) this.#words[slot] = (this.#words[slot] ?? 0) & ~(masks.rc & touched);
    this.observer?.access?.(entry, cell.element, cell.word, value >>> 0, stored, this.#words[slot] ?? 0, false);
    return (value & masks.all) >>> 0;
  }

  #writeCell(cell: Cell, written: number, touched: number): void {
    const { masks, slot, entry } = cell;
    const previous = this.#words[slot] ?? 0;
    const rw = masks.rw & touched;
    let value = (previous & ~rw) | (written & rw);
    value &= ~(written & masks.w1c);
    value |= written & masks.w1s;
    value &= ~(~written & masks.w0c & touched);
    value = (value | (written & masks.pulse)) >>> 0;
    const { observer } = this;
    if (observer !== undefined) this.#reportWrite(cell, written, touched, previous);
    const hook = this.#hooks[entry.index];
    if (hook === undefined) {
      this.#words[slot] = value & ~masks.pulse;
    } else if (entry.words === 1) {
      const narrow = hook as RegisterHook<number>;
      const stored = narrow.write === undefined ? value : narrow.write(value, previous, cell.element, written) & masks.all;
      this.#words[slot] = stored & ~masks.pulse;
      narrow.wrote?.(stored >>> 0, previous, cell.element, written);
    } else {
      this.#writeWide(hook as RegisterHook<bigint>, cell, value, previous, written);
    }
    observer?.access?.(entry, cell.element, cell.word, written, previous, this.#words[slot] ?? 0, true);
  }

  #readWide(hook: RegisterHook<bigint>, cell: Cell): number {
    const value = hook.read?.(this.#wide(cell), cell.element) ?? 0n;
    return Number((value >> BigInt(32 * cell.word)) & 0xffff_ffffn);
  }

  #writeWide(hook: RegisterHook<bigint>, cell: Cell, value: number, previousWord: number, writtenWord: number): void {
    const shift = BigInt(32 * cell.word);
    const previous = this.#wide(cell);
    const merged = (previous & ~(0xffff_ffffn << shift)) | (BigInt(value) << shift);
    const written = BigInt(writtenWord) << shift;
    const stored = hook.write === undefined ? merged : BigInt.asUintN(64, hook.write(merged, previous, cell.element, written));
    const base = cell.slot - cell.word;
    const pulseLow = cell.entry.masks[0]?.pulse ?? 0;
    const pulseHigh = cell.entry.masks[1]?.pulse ?? 0;
    this.#words[base] = Number(stored & 0xffff_ffffn) & ~pulseLow;
    this.#words[base + 1] = Number(stored >> 32n) & ~pulseHigh;
    hook.wrote?.(stored, previous, cell.element, written);
    void previousWord;
  }

  #wide(cell: Cell): bigint {
    const base = cell.slot - cell.word;
    return (BigInt(this.#words[base + 1] ?? 0) << 32n) | BigInt(this.#words[base] ?? 0);
  }

  #reportWrite(cell: Cell, written: number, touched: number, previous: number): void {
    const { masks, entry } = cell;
    const changed = ((written ^ previous) & touched) >>> 0;
    const name = `${this.map.name}.${entry.name}`;
    const reserved = changed & masks.reserved;
    if (reserved !== 0) this.observer?.guestError?.(`write of 0x${written.toString(16)} to ${name} changes reserved bits 0x${(reserved >>> 0).toString(16)}`);
    if ((written & masks.tags) !== 0) this.observer?.unimplemented?.(`${name}: ${fieldsIn(cell, written & masks.tags)} is not implemented`);
    if (masks.rw === 0 && masks.w1c === 0 && masks.w1s === 0 && masks.w0c === 0 && masks.pulse === 0 && changed !== 0 && this.#hooks[entry.index] === undefined) {
      this.observer?.guestError?.(`write of 0x${written.toString(16)} to read-only ${name}`);
    }
  }

  #reportHole(offset: number, write: boolean): void {
    this.observer?.guestError?.(`${write ? 'write to' : 'read of'} offset 0x${offset.toString(16)}, where ${this.map.name} has no register`);
  }
}

function fieldsIn(cell: Cell, mask: number): string {
  const names = Object.entries(cell.entry.register.fields)
    .filter(([, field]) => field.low >> 5 === cell.word && (mask & (1 << (field.low & 31))) !== 0)
    .map(([name]) => name);
  return names.join(', ');
}

function bytesMask(bytes: number): number {
  return bytes === 4 ? 0xffff_ffff : bytes === 1 ? 0xff : bytes === 2 ? 0xffff : 0xff_ffff;
}
