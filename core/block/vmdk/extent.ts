import type { BlockNode } from '../node.ts';
import { readBytes, writeBytes } from '../node-bytes.ts';
import type { Task } from '../pending.ts';
import { entriesOf, sectorBytes, sectorOfEntry } from '../table-entries.ts';
import type { SparseLayout } from './header.ts';

const SECTOR = 512;
const ENTRY = 4;
/** With usual grains: the tables of 128 GiB. */
const MAX_TABLES = 4096;
/** "zeroed-grain": what an entry says of a grain of zeroes. */
export const ZEROED = 1;

/** A part of the disk, in a file. */
interface ExtentPlace {
  /** What the node calls the file: `file`, `extents.0`. */
  readonly child: string;
  /** As the descriptor says it; empty where there is none. */
  readonly type: string;
  /** In bytes, of the disk. */
  readonly start: number;
  readonly bytes: number;
}

/** "Flat Extents": data as it is. */
export interface FlatExtent extends ExtentPlace {
  readonly kind: 'flat';
  readonly offset: number;
}

export type Extent = FlatExtent | SparseExtent;

/** A grain directory and what it points to. */
export class SparseExtent implements ExtentPlace {
  readonly kind = 'sparse';
  readonly child: string;
  readonly type: string;
  readonly start: number;
  readonly bytes: number;
  readonly layout: SparseLayout;
  readonly grainBytes: number;
  readonly #tableReach: number;
  readonly #directory: Uint32Array;
  readonly #redundant: Uint32Array | undefined;
  /** Grain tables by the sector they begin at; the first is the one to go. */
  readonly #tables = new Map<number, Uint32Array>();
  /** The sectors of grain tables that are only in memory, by the table's number in the directory. */
  readonly #changed = new Map<number, Set<number>>();
  /** Where the next grain goes, in bytes. */
  next: number;

  constructor(
    where: ExtentPlace,
    layout: SparseLayout,
    directory: Uint32Array,
    redundant: Uint32Array | undefined,
    fileBytes: number,
  ) {
    this.child = where.child;
    this.type = where.type;
    this.start = where.start;
    this.bytes = where.bytes;
    this.layout = layout;
    this.grainBytes = layout.grainSectors * SECTOR;
    this.#tableReach = layout.tableEntries * this.grainBytes;
    this.#directory = directory;
    this.#redundant = redundant;
    this.next = Math.ceil(fileBytes / this.grainBytes) * this.grainBytes;
  }

  /** Reads both directories. */
  static *load(file: BlockNode, where: ExtentPlace, layout: SparseLayout): Task<SparseExtent> {
    const { directoryEntries, directoryOffset, redundantOffset } = layout;
    const directory = entriesOf(yield* readBytes(file, directoryOffset, directoryEntries * ENTRY));
    const redundant =
      redundantOffset === 0 ? undefined : entriesOf(yield* readBytes(file, redundantOffset, directoryEntries * ENTRY));
    return new SparseExtent(where, layout, directory, redundant, file.length);
  }

  /** The number of the table for a byte of the extent; `undefined` where the extent ends before. */
  tableOf(at: number): number | undefined {
    const index = Math.floor(at / this.#tableReach);
    return index < this.#directory.length ? index : undefined;
  }

  /** How many bytes from `at` on the same table tells of. */
  leftInTable(at: number): number {
    return this.#tableReach - (at % this.#tableReach);
  }

  /** Whether the directory knows the table at all: without it no grain is there. */
  hasTable(index: number): boolean {
    return this.#directory[index] !== 0;
  }

  /** The table, if it is in memory. */
  table(index: number): Uint32Array | undefined {
    return this.#tables.get(this.#directory[index] ?? 0);
  }

  grainOf(at: number): number {
    return Math.floor((at % this.#tableReach) / this.grainBytes);
  }

  *loadTable(file: BlockNode, index: number): Task {
    const sector = this.#directory[index] ?? 0;
    if (this.#tables.has(sector)) return;
    const table = entriesOf(yield* readBytes(file, sector * SECTOR, this.layout.tableEntries * ENTRY));
    if (this.#tables.has(sector)) return;
    if (this.#tables.size >= MAX_TABLES && this.#changed.size === 0) {
      const [oldest] = this.#tables.keys();
      if (oldest !== undefined) this.#tables.delete(oldest);
    }
    this.#tables.set(sector, table);
  }

  /** Notes where a grain lies. Its table is in memory. */
  set(at: number, entry: number): void {
    const index = this.tableOf(at);
    const table = index === undefined ? undefined : this.table(index);
    if (index === undefined || table === undefined) return;
    const grain = this.grainOf(at);
    table[grain] = entry;
    const changed = this.#changed.get(index) ?? new Set<number>();
    changed.add(sectorOfEntry(grain));
    this.#changed.set(index, changed);
  }

  get changed(): boolean {
    return this.#changed.size > 0;
  }

  /** Writes what was changed to the tables, and to their copies. */
  *write(file: BlockNode): Task {
    for (const [index, sectors] of this.#changed) {
      const table = this.table(index);
      if (table === undefined) continue;
      for (const sector of sectors) {
        const bytes = sectorBytes(table, sector);
        for (const directory of [this.#directory, this.#redundant]) {
          const base = directory?.[index] ?? 0;
          if (base !== 0) yield* writeBytes(file, (base + sector) * SECTOR, bytes);
        }
      }
    }
    this.#changed.clear();
  }
}
