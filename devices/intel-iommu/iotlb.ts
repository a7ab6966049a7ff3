import { LEVEL_SIZE } from './tables.ts';

const SLOTS = 1024;
const EMPTY = -1;
const PAGE = 4096;
const SOURCES = 2 ** 16;

/**
 * The translations that were found last (section 6.2.3), a page of 4 KiB each: of a larger one what was asked for. Each has one slot
 * that it can be in.
 */
export class Iotlb {
  /** Page number and source of what is in a slot. */
  readonly #tags = new Float64Array(SLOTS).fill(EMPTY);
  readonly #bases = new Float64Array(SLOTS);
  readonly #domains = new Uint16Array(SLOTS);
  readonly #levels = new Uint8Array(SLOTS);
  readonly #access = new Uint8Array(SLOTS);

  /** The slot that holds the page of `address` for `source`; -1 for none. */
  find(source: number, address: number): number {
    const page = Math.floor(address / PAGE);
    const slot = slotOf(source, page);
    return this.#tags[slot] === page * SOURCES + source ? slot : EMPTY;
  }

  /** What may be done there. */
  access(slot: number): number {
    return this.#access[slot] ?? 0;
  }

  /** Where the page, of the size that software gave it, is. */
  base(slot: number): number {
    return this.#bases[slot] ?? 0;
  }

  size(slot: number): number {
    return LEVEL_SIZE[this.#levels[slot] ?? 0] ?? PAGE;
  }

  add(source: number, address: number, domain: number, base: number, level: number, access: number): void {
    const page = Math.floor(address / PAGE);
    const slot = slotOf(source, page);
    this.#tags[slot] = page * SOURCES + source;
    this.#bases[slot] = base;
    this.#domains[slot] = domain;
    this.#levels[slot] = level;
    this.#access[slot] = access;
  }

  // Section 6.5.1.2

  clear(): void {
    this.#tags.fill(EMPTY);
  }

  clearDomain(domain: number): void {
    for (let slot = 0; slot < SLOTS; slot++) if (this.#domains[slot] === domain) this.#tags[slot] = EMPTY;
  }

  /** Forgets 2^`order` pages from `address` on, and each larger page that `address` is in. */
  clearPages(domain: number, address: number, order: number): void {
    const length = PAGE * 2 ** order;
    const start = Math.floor(address / length) * length;
    for (let slot = 0; slot < SLOTS; slot++) {
      const tag = this.#tags[slot] ?? EMPTY;
      if (tag === EMPTY || this.#domains[slot] !== domain) continue;
      const size = this.size(slot);
      const page = Math.floor(tag / SOURCES) * PAGE;
      const from = Math.floor(page / size) * size;
      if ((page >= start && page < start + length) || (start < from + size && start + length > from))
        this.#tags[slot] = EMPTY;
    }
  }
}

const slotOf = (source: number, page: number): number =>
  (page ^ (source * 37) ^ Math.floor(page / SLOTS)) & (SLOTS - 1);
