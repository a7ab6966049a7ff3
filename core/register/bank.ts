import { didYouMean, SouthbridgeError } from '../errors.ts';
import { modelView } from './compile.ts';
import { type Cell, decoderOf } from './decode.ts';
import type { LaidOut, RegisterMap } from './map.ts';
import { reportHole, reportRead, reportWrite } from './reports.ts';
import type { RegisterHook, RegisterHooks, Registers } from './views.ts';

/** Watches a bank: traces, reports, recorders, coverage. Costs nothing while there is none. */
export interface RegisterObserver {
  /**
   * A guest access to one word of a register has been served. All values are in place within that word: `value` is what was
   * read or written, `before` and `after` what is stored, `touched` has a 1 for each bit of the bytes accessed.
   */
  access?(
    register: LaidOut,
    element: number,
    word: number,
    value: number,
    before: number,
    after: number,
    write: boolean,
    touched: number,
  ): void;
  guestError?(message: string): void;
  unimplemented?(message: string): void;
}

/** A bank whatever its map is: what devices, snapshots and tools keep. */
export interface AnyRegisterBank {
  readonly map: RegisterMap;
  /** @returns how to stop it */
  observe(observer: RegisterObserver): () => void;
  read(offset: number, size: number): number;
  write(offset: number, size: number, value: number): void;
  reset(): void;
  save(): Uint8Array;
  restore(saved: unknown): void;
  /** @throws SouthbridgeError ERR_STATE_VALUE where {@link restore} would */
  checkSaved(saved: unknown): void;
}

/**
 * The registers of one device instance: their values, and the guest's accesses to them. Values are unsigned, little-endian
 * and of at most 4 bytes (a 64-bit access is two); any offset is allowed, accesses that are wider or narrower than a
 * register are split or merged. Hooks are called once for each register that an access touches.
 */
export class RegisterBank<M extends RegisterMap = RegisterMap> implements AnyRegisterBank {
  readonly map: M;
  /** The model's view. */
  readonly regs: Registers<M>;
  readonly #words: Uint32Array;
  readonly #reads: readonly (Cell | undefined)[];
  readonly #writes: readonly (Cell | undefined)[];
  /** By register, those of at most 32 bits and those of 64. */
  readonly #hooks: (RegisterHook<number> | undefined)[] = [];
  readonly #wideHooks: (RegisterHook<bigint> | undefined)[] = [];
  readonly #observers: RegisterObserver[] = [];
  /** All observers as one, or nothing while there is none. */
  #observer: Required<RegisterObserver> | undefined;

  /** @throws SouthbridgeError ERR_REGISTER_HOOK where a hook names no register */
  constructor(map: M, hooks: RegisterHooks<M> = {}) {
    const decoder = decoderOf(map);
    this.map = map;
    this.#words = new Uint32Array(map.words);
    this.#reads = decoder.reads;
    this.#writes = decoder.writes;
    this.#bindHooks(hooks);
    this.regs = modelView(map, this.#words);
    for (const entry of map.layout) this.#resetRegister(entry);
  }

  /** Puts the reset values into all registers but the sticky ones. Calls no hook. */
  reset(): void {
    for (const entry of this.map.layout) if (entry.register.options.sticky !== true) this.#resetRegister(entry);
  }

  /** All values, as little-endian 32-bit words in the order of declaration. */
  save(): Uint8Array {
    return new Uint8Array(this.#words.slice().buffer);
  }

  /**
   * Puts back what {@link save} of the same map gave. Calls no hook; bits that a register has not are dropped.
   * @throws SouthbridgeError ERR_STATE_VALUE where it is something else; nothing is changed in that case
   */
  restore(saved: unknown): void {
    const words = this.#decode(saved);
    for (const entry of this.map.layout) {
      for (let at = 0; at < entry.count * entry.words; at++) {
        this.#words[entry.slot + at] = (words[entry.slot + at] ?? 0) & (entry.masks[at % entry.words]?.all ?? 0);
      }
    }
  }

  /**
   * Refuses what {@link restore} would, and changes nothing: a device looks at all that was saved before it restores any.
   * @throws SouthbridgeError ERR_STATE_VALUE
   */
  checkSaved(saved: unknown): void {
    this.#decode(saved);
  }

  observe(observer: RegisterObserver): () => void {
    this.#observers.push(observer);
    this.#observer = allOf(this.#observers);
    return () => {
      const index = this.#observers.indexOf(observer);
      if (index >= 0) this.#observers.splice(index, 1);
      this.#observer = allOf(this.#observers);
    };
  }

  /** A guest's read of `size` bytes. */
  read(offset: number, size: number): number {
    const cell = this.#answering(this.#reads[offset]);
    if (cell !== undefined && cell.offset === offset && cell.bytes === size)
      return this.#readCell(cell, cell.masks.all);
    return this.#readPieces(offset, size);
  }

  /** A guest's write of `size` bytes. */
  write(offset: number, size: number, value: number): void {
    const cell = this.#answering(this.#writes[offset]);
    if (cell !== undefined && cell.offset === offset && cell.bytes === size) {
      this.#writeCell(cell, (value & cell.masks.all) >>> 0, cell.masks.all);
    } else {
      this.#writePieces(offset, size, value);
    }
  }

  /** The first from `cell` on whose condition holds. */
  #answering(cell: Cell | undefined): Cell | undefined {
    while (cell !== undefined && cell.entry.condition !== undefined) {
      const { slot, mask, expected, negated } = cell.entry.condition;
      if ((((this.#words[slot] ?? 0) & mask) >>> 0 === expected) !== negated) return cell;
      cell = cell.next;
    }
    return cell;
  }

  #readPieces(offset: number, size: number): number {
    const end = Math.min(size, 4);
    let value = 0;
    for (let at = 0; at < end; ) {
      const cell = this.#answering(this.#reads[offset + at]);
      if (cell === undefined) {
        const hole = this.#holeLength(this.#reads, offset + at, end - at);
        for (const holeEnd = at + hole; at < holeEnd; at++) value |= this.map.hole << (8 * at);
        if (this.#observer !== undefined) reportHole(this.#observer, this.map, offset + at - hole, hole, false);
        continue;
      }
      const within = offset + at - cell.offset;
      const bytes = Math.min(end - at, cell.bytes - within);
      const touched = (bytesMask(bytes) << (8 * within)) >>> 0;
      value |= ((this.#readCell(cell, touched) >>> (8 * within)) & bytesMask(bytes)) << (8 * at);
      at += bytes;
    }
    return value >>> 0;
  }

  #writePieces(offset: number, size: number, value: number): void {
    const end = Math.min(size, 4);
    for (let at = 0; at < end; ) {
      const cell = this.#answering(this.#writes[offset + at]);
      if (cell === undefined) {
        const hole = this.#holeLength(this.#writes, offset + at, end - at);
        if (this.#observer !== undefined) reportHole(this.#observer, this.map, offset + at, hole, true);
        at += hole;
        continue;
      }
      const within = offset + at - cell.offset;
      const bytes = Math.min(end - at, cell.bytes - within);
      const piece = (value >>> (8 * at)) & bytesMask(bytes);
      this.#writeCell(cell, (piece << (8 * within)) >>> 0, (bytesMask(bytes) << (8 * within)) >>> 0);
      at += bytes;
    }
  }

  /** Bytes from `offset`, of at most `length`, where nothing answers. */
  #holeLength(cells: readonly (Cell | undefined)[], offset: number, length: number): number {
    let bytes = 1;
    while (bytes < length && this.#answering(cells[offset + bytes]) === undefined) bytes++;
    return bytes;
  }

  /** Reads a whole word of a register, of which the guest sees what it `touched`. */
  #readCell(cell: Cell, touched: number): number {
    const { masks, slot, entry } = cell;
    const stored = this.#words[slot] ?? 0;
    let value = stored & ~masks.writeOnly;
    if (entry.words === 1) {
      const hook = this.#hooks[entry.index];
      if (hook?.read !== undefined) value = hook.read(stored, cell.element);
    } else {
      const hook = this.#wideHooks[entry.index];
      if (hook?.read !== undefined) value = wordOf(hook.read(this.#wide(cell), cell.element), cell.word);
    }
    value = (value & masks.all) >>> 0;
    if (masks.rc !== 0) this.#words[slot] = (this.#words[slot] ?? 0) & ~(masks.rc & touched);
    const observer = this.#observer;
    if (observer !== undefined) {
      reportRead(observer, this.map, cell, this.#hookOf(entry));
      observer.access(entry, cell.element, cell.word, value, stored, this.#words[slot] ?? 0, false, touched);
    }
    return value;
  }

  /** `written` is in place within the word, with 0 in what is not `touched`. */
  #writeCell(cell: Cell, written: number, touched: number): void {
    const { masks, slot, entry } = cell;
    const previous = this.#words[slot] ?? 0;
    // A pulse field is the model's to set and to clear; the guest's one is for the hooks alone.
    const { pulse } = masks;
    const rw = masks.rw & touched;
    let value = (previous & ~(rw | pulse)) | (written & (rw | pulse));
    value &= ~(written & masks.w1c);
    value |= written & masks.w1s;
    value = (value & ~(~written & masks.w0c & touched)) >>> 0;
    const observer = this.#observer;
    if (observer !== undefined) reportWrite(observer, this.map, cell, written, touched, previous, this.#hookOf(entry));
    if (entry.words === 1) {
      const hook = this.#hooks[entry.index];
      if (hook === undefined) {
        this.#words[slot] = (value & ~pulse) | (previous & pulse);
      } else {
        if (hook.write !== undefined)
          value = (hook.write(value, previous, cell.element, written, touched) & masks.all) >>> 0;
        this.#words[slot] = (value & ~pulse) | ((this.#words[slot] ?? 0) & pulse);
        hook.wrote?.(value, previous, cell.element, written, touched);
      }
    } else {
      const hook = this.#wideHooks[entry.index];
      if (hook === undefined) this.#words[slot] = (value & ~pulse) | (previous & pulse);
      else this.#writeWide(hook, cell, value, written, touched);
    }
    observer?.access(entry, cell.element, cell.word, written, previous, this.#words[slot] ?? 0, true, touched);
  }

  #writeWide(hook: RegisterHook<bigint>, cell: Cell, word: number, writtenWord: number, touchedWord: number): void {
    const shift = BigInt(32 * cell.word);
    const previous = this.#wide(cell);
    const written = BigInt(writtenWord) << shift;
    const touched = BigInt(touchedWord) << shift;
    let value = (previous & ~(0xffff_ffffn << shift)) | (BigInt(word) << shift);
    if (hook.write !== undefined)
      value = BigInt.asUintN(64, hook.write(value, previous, cell.element, written, touched));
    const low = cell.slot - cell.word;
    this.#storeWord(low, wordOf(value, 0), cell.entry.masks[0]?.pulse ?? 0);
    this.#storeWord(low + 1, wordOf(value, 1), cell.entry.masks[1]?.pulse ?? 0);
    hook.wrote?.(value, previous, cell.element, written, touched);
  }

  #storeWord(slot: number, value: number, pulse: number): void {
    this.#words[slot] = (value & ~pulse) | ((this.#words[slot] ?? 0) & pulse);
  }

  #wide(cell: Cell): bigint {
    const base = cell.slot - cell.word;
    return (BigInt(this.#words[base + 1] ?? 0) << 32n) | BigInt(this.#words[base] ?? 0);
  }

  #decode(saved: unknown): Uint32Array {
    if (!(saved instanceof Uint8Array) || saved.length !== this.#words.length * 4) {
      const expected = `${this.#words.length} words`;
      throw new SouthbridgeError('ERR_STATE_VALUE', `the saved registers of '${this.map.name}' are not ${expected}`);
    }
    return new Uint32Array(saved.slice().buffer);
  }

  #resetRegister(entry: LaidOut): void {
    const words = entry.count * entry.words;
    for (let at = 0; at < words; at++) this.#words[entry.slot + at] = entry.masks[at % entry.words]?.reset ?? 0;
  }

  #hookOf(entry: LaidOut): RegisterHook<number> | RegisterHook<bigint> | undefined {
    return this.#hooks[entry.index] ?? this.#wideHooks[entry.index];
  }

  #bindHooks(hooks: RegisterHooks<M>): void {
    const byName = hooks as Readonly<Record<string, AnyHook>>;
    for (const entry of this.map.layout) {
      const hook = byName[entry.name];
      this.#hooks.push(isNarrow(entry, hook) ? hook : undefined);
      this.#wideHooks.push(isNarrow(entry, hook) ? undefined : hook);
    }
    const names = this.map.layout.map(entry => entry.name);
    for (const name of Object.keys(hooks)) {
      if (names.includes(name)) continue;
      throw new SouthbridgeError(
        'ERR_REGISTER_HOOK',
        `'${this.map.name}' has no register ${name} to hook`,
        didYouMean(name, names),
      );
    }
  }
}

type AnyHook = RegisterHook<number> | RegisterHook<bigint> | undefined;

/** The type of a map's hooks goes by the register's width. */
function isNarrow(entry: LaidOut, hook: AnyHook): hook is RegisterHook<number> | undefined {
  return entry.words === 1 || hook === undefined;
}

function wordOf(value: bigint, word: number): number {
  return Number((value >> BigInt(32 * word)) & 0xffff_ffffn);
}

function bytesMask(bytes: number): number {
  return bytes === 4 ? 0xffff_ffff : bytes === 1 ? 0xff : bytes === 2 ? 0xffff : 0xff_ffff;
}

function allOf(observers: readonly RegisterObserver[]): Required<RegisterObserver> | undefined {
  if (observers.length === 0) return undefined;
  const all = [...observers];
  return {
    access: (...details) => {
      for (const observer of all) observer.access?.(...details);
    },
    guestError: message => {
      for (const observer of all) observer.guestError?.(message);
    },
    unimplemented: message => {
      for (const observer of all) observer.unimplemented?.(message);
    },
  };
}
