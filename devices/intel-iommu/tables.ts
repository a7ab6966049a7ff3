/** What software says in memory of each function's addresses: root, context and second-level tables (sections 3.4, 3.7, 9). */
import type { Dma } from '../../core/memory/dma.ts';

/** Section 7.1.3, table 15: why a request was refused. */
export const FAULT = {
  NONE: 0x0,
  ROOT_NOT_PRESENT: 0x1,
  CONTEXT_NOT_PRESENT: 0x2,
  CONTEXT_INVALID: 0x3,
  BEYOND_WIDTH: 0x4,
  NOT_WRITABLE: 0x5,
  NOT_READABLE: 0x6,
  TABLE_UNREACHABLE: 0x7,
  ROOT_UNREACHABLE: 0x8,
  CONTEXT_UNREACHABLE: 0x9,
  ROOT_RESERVED: 0xa,
  CONTEXT_RESERVED: 0xb,
  ENTRY_RESERVED: 0xc,
  INTERRUPT_RANGE: 0xe,
  REQUEST_RESERVED: 0x20,
  INDEX_BEYOND: 0x21,
  INTERRUPT_NOT_PRESENT: 0x22,
  INTERRUPTS_UNREACHABLE: 0x23,
  INTERRUPT_RESERVED: 0x24,
  INTERRUPT_SOURCE: 0x26,
} as const;

export type Fault = (typeof FAULT)[keyof typeof FAULT];

/** Section 3.14: requests there are interrupts, and no table may lead there. */
export const INTERRUPT_RANGE = { start: 0xfee0_0000, end: 0xfeef_ffff } as const;

export const READ = 1;
export const WRITE = 2;

const TWO_32 = 2 ** 32;
export const PAGE_MASK = 0xffff_f000;
const ENTRIES = 512;
const PRESENT = 1;
/** Bytes that an entry of each level translates. */
export const LEVEL_SIZE = [0, 2 ** 12, 2 ** 21, 2 ** 30, 2 ** 39] as const;

/** Context entries (section 9.3). */
const CONTEXT = {
  FPD: 1 << 1,
  TT: 3 << 2,
  MULTI_LEVEL: 0,
  DEVICE_TLB: 1 << 2,
  PASS_THROUGH: 2 << 2,
  RESERVED: 0xff0,
} as const;
const CONTEXT_HIGH = { AW: 7, RESERVED: 0xff00_0080 } as const;

/** Second-level entries (section 9.8): bit 7 is the page size; the high half is what software may use, and TM. */
const ENTRY = { LARGE: 1 << 7, SNOOP: 1 << 11, IGNORED_HIGH: 0xbff0_0000, TRANSIENT_HIGH: 0x4000_0000 } as const;
const LARGE_RESERVED = [0, 0, 0x1f_f800, 0x3fff_f800] as const;

export interface TableRules {
  /** Bits of an address: 39 or 48. */
  readonly width: number;
  /** Bits 8 to 12 of CAP: the table depths that there are. */
  readonly depths: number;
  readonly passThrough: boolean;
  readonly deviceTlb: boolean;
  readonly snoopControl: boolean;
}

/** The address of a page in two words, whose low bits say other things. */
export const pageAt = (low: number, high: number): number => high * TWO_32 + ((low & PAGE_MASK) >>> 0);

const beyond = (high: number, width: number): boolean => high >= 2 ** (width - 32);

/** What a function's context entry says. */
export class ContextEntry {
  domain = 0;
  passThrough = false;
  faultsDisabled = false;
  table = 0;
  levels = 0;
  /** The first address that is beyond its width. */
  limit = 0;
  /** Not the device's present one: it must be fetched. */
  generation = 0;
}

/** Reads the tables. What a walk found is in its fields until the next one. */
export class Tables {
  readonly #dma: Dma;
  readonly #rules: TableRules;
  readonly #words = new Uint32Array(4);
  readonly #entry = new Uint32Array(2);
  /** Reserved bits of the high half of a pointer to a table, and of a page's entry. */
  readonly #pointerReserved: number;
  readonly #pageReserved: number;
  readonly #snoopReserved: number;
  readonly #addressHigh: number;
  /** Where the page is, the level of its entry, and what may be done there. */
  base = 0;
  level = 0;
  access = 0;

  constructor(dma: Dma, rules: TableRules) {
    this.#dma = dma;
    this.#rules = rules;
    this.#addressHigh = 2 ** (rules.width - 32) - 1;
    this.#pointerReserved = ~(this.#addressHigh | ENTRY.IGNORED_HIGH) >>> 0;
    this.#pageReserved = rules.deviceTlb
      ? (this.#pointerReserved & ~ENTRY.TRANSIENT_HIGH) >>> 0
      : this.#pointerReserved;
    this.#snoopReserved = rules.snoopControl ? 0 : ENTRY.SNOOP;
  }

  /** Sections 3.4.1 to 3.4.3: fills `context` for requester `source`. */
  context(root: number, source: number, context: ContextEntry): Fault {
    const words = this.#words;
    context.faultsDisabled = false;
    if (!this.#dma.readWords(root + (source >> 8) * 16, words)) return FAULT.ROOT_UNREACHABLE;
    let [low = 0, lowHigh = 0, high = 0, highHigh = 0] = words;
    if ((low & PRESENT) === 0) return FAULT.ROOT_NOT_PRESENT;
    const { width } = this.#rules;
    if (high !== 0 || highHigh !== 0 || (low & 0xffe) !== 0 || beyond(lowHigh, width)) return FAULT.ROOT_RESERVED;
    if (!this.#dma.readWords(pageAt(low, lowHigh) + (source & 0xff) * 16, words)) return FAULT.CONTEXT_UNREACHABLE;
    [low = 0, lowHigh = 0, high = 0, highHigh = 0] = words;
    context.faultsDisabled = (low & CONTEXT.FPD) !== 0;
    if ((low & PRESENT) === 0) return FAULT.CONTEXT_NOT_PRESENT;
    if ((low & CONTEXT.RESERVED) !== 0 || beyond(lowHigh, width)) return FAULT.CONTEXT_RESERVED;
    if ((high & CONTEXT_HIGH.RESERVED) !== 0 || highHigh !== 0) return FAULT.CONTEXT_RESERVED;
    const depth = high & CONTEXT_HIGH.AW;
    if ((this.#rules.depths & (1 << depth)) === 0) return FAULT.CONTEXT_INVALID;
    const type = low & CONTEXT.TT;
    if (!this.#knows(type)) return FAULT.CONTEXT_INVALID;
    context.passThrough = type === CONTEXT.PASS_THROUGH;
    context.domain = (high >>> 8) & 0xffff;
    context.table = pageAt(low, lowHigh);
    context.levels = depth + 2;
    context.limit = 2 ** Math.min(30 + 9 * depth, width);
    return FAULT.NONE;
  }

  #knows(type: number): boolean {
    if (type === CONTEXT.PASS_THROUGH) return this.#rules.passThrough;
    if (type === CONTEXT.DEVICE_TLB) return this.#rules.deviceTlb;
    return type === CONTEXT.MULTI_LEVEL;
  }

  /** Section 3.7: from the table of `context` down to the page of `address`. */
  walk({ table, levels, limit }: ContextEntry, address: number, write: boolean): Fault {
    if (address >= limit) return FAULT.BEYOND_WIDTH;
    const entry = this.#entry;
    this.access = READ | WRITE;
    for (let level = levels, from = table; ; level--) {
      const index = Math.floor(address / (LEVEL_SIZE[level] ?? 1)) % ENTRIES;
      const there = this.#dma.readWords(from + index * 8, entry);
      const low = entry[0] ?? 0;
      const high = entry[1] ?? 0;
      // Of what cannot be reached a bus reads all ones.
      if (!there || (low === 0xffff_ffff && high === 0xffff_ffff))
        return level === levels ? FAULT.CONTEXT_INVALID : FAULT.TABLE_UNREACHABLE;
      this.access &= low;
      if ((low & (write ? WRITE : READ)) === 0) return write ? FAULT.NOT_WRITABLE : FAULT.NOT_READABLE;
      if (this.#isReserved(low, high, level)) return FAULT.ENTRY_RESERVED;
      from = pageAt(low, high & this.#addressHigh);
      if (level > 1 && (low & ENTRY.LARGE) === 0) continue;
      this.base = from;
      this.level = level;
      const last = from + (LEVEL_SIZE[level] ?? 0) - 1;
      return from <= INTERRUPT_RANGE.end && last >= INTERRUPT_RANGE.start ? FAULT.INTERRUPT_RANGE : FAULT.NONE;
    }
  }

  /** Section 9.8: large pages are there at the levels 2 and 3. */
  #isReserved(low: number, high: number, level: number): boolean {
    const large = (low & ENTRY.LARGE) !== 0;
    if (level === 1) return (low & this.#snoopReserved) !== 0 || (high & this.#pageReserved) !== 0;
    if (!large || level > 3) {
      const reserved = level > 3 ? ENTRY.SNOOP | ENTRY.LARGE : ENTRY.SNOOP;
      return (low & reserved) !== 0 || (high & this.#pointerReserved) !== 0;
    }
    const below = (LARGE_RESERVED[level] ?? 0) & ~(ENTRY.SNOOP & ~this.#snoopReserved);
    return (low & below) !== 0 || (high & this.#pageReserved) !== 0;
  }
}
