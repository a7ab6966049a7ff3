import { IoVector } from '../io-vector.ts';
import type { Task } from '../pending.ts';
import type { Qcow2Image } from './image.ts';

/** A piece of a table of the image, as it is on the disk, and perhaps newer than that. */
export interface CachedTable {
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  dirty: boolean;
  /** Somebody asked for it since the last {@link MetadataCache.dropUnused}. */
  used: boolean;
}

/**
 * Tables of an image that were read, and those that were changed and are not written yet. What one cache writes may rest
 * on what another one has not written (an L2 entry on the refcount of its cluster): the order is kept by writing and
 * flushing the other one first, when the time comes.
 *
 * A table that was got stays valid until the next wait.
 */
export class MetadataCache {
  readonly #image: Qcow2Image;
  #entrySize: number;
  #capacity: number;
  readonly #entries = new Map<number, CachedTable>();
  #newest: CachedTable | undefined;
  #dirty = 0;
  #dependency: MetadataCache | undefined;
  #dependsOnFlush = false;

  constructor(image: Qcow2Image, entrySize: number, capacity: number) {
    this.#image = image;
    this.#entrySize = entrySize;
    this.#capacity = Math.max(4, capacity);
  }

  /** What the pieces are in size, in bytes. */
  get entrySize(): number {
    return this.#entrySize;
  }

  /** Another size for the pieces, in bytes, and another number of them, where there are none. */
  resize(entrySize: number, capacity: number): void {
    this.#entrySize = entrySize;
    this.#capacity = Math.max(4, capacity);
  }

  /** Forgets what nobody asked for since the last time. */
  dropUnused(): void {
    for (const entry of this.#entries.values()) {
      if (entry.used || entry.dirty || entry === this.#newest) entry.used = false;
      else this.#entries.delete(entry.offset);
    }
  }

  /** The table at `offset` if it is in memory. */
  peek(offset: number): CachedTable | undefined {
    if (this.#newest?.offset === offset) return this.#newest;
    const entry = this.#entries.get(offset);
    if (entry === undefined) return undefined;
    entry.used = true;
    // The map's order is that of use: the first is the one to go.
    this.#entries.delete(offset);
    this.#entries.set(offset, entry);
    this.#newest = entry;
    return entry;
  }

  *get(offset: number): Task<CachedTable> {
    const cached = this.peek(offset);
    if (cached !== undefined) return cached;
    yield* this.#makeRoom();
    const bytes = new Uint8Array(this.entrySize);
    const reading = this.#image.file.readv(offset, this.entrySize, IoVector.of(bytes));
    if (reading) yield reading;
    return this.peek(offset) ?? this.#insert(offset, bytes);
  }

  /** A table of zeroes for a place that has none yet; what is there is not read. */
  *create(offset: number): Task<CachedTable> {
    const cached = this.peek(offset);
    if (cached !== undefined) {
      cached.bytes.fill(0);
      return cached;
    }
    yield* this.#makeRoom();
    return this.#insert(offset, new Uint8Array(this.entrySize));
  }

  #insert(offset: number, bytes: Uint8Array): CachedTable {
    const entry = { offset, bytes, view: new DataView(bytes.buffer), dirty: false, used: true };
    this.#entries.set(offset, entry);
    this.#newest = entry;
    return entry;
  }

  *#makeRoom(): Task {
    while (this.#entries.size >= this.#capacity) {
      const [oldest] = this.#entries.values();
      if (oldest === undefined) return;
      if (oldest.dirty) yield* this.#writeEntry(oldest);
      this.#entries.delete(oldest.offset);
      if (this.#newest === oldest) this.#newest = undefined;
    }
  }

  markDirty(entry: CachedTable): void {
    if (entry.dirty) return;
    entry.dirty = true;
    this.#dirty++;
  }

  /** Nothing of this cache is written before all of `other` is on the disk. */
  *dependOn(other: MetadataCache): Task {
    if (other.#dependency !== undefined || other.#dependsOnFlush) yield* other.#satisfy();
    if (this.#dependency !== undefined && this.#dependency !== other) yield* this.#satisfy();
    this.#dependency = other;
  }

  /** Nothing of this cache is written before the data that was written until now is on the disk. */
  dependOnFlush(): void {
    this.#dependsOnFlush = true;
  }

  *#satisfy(): Task {
    const dependency = this.#dependency;
    if (dependency !== undefined) {
      yield* dependency.flush();
      if (this.#dependency === dependency) this.#dependency = undefined;
      // What is in the same file is on the disk with it.
      if (this.#image.data === undefined) this.#dependsOnFlush = false;
    }
    if (this.#dependsOnFlush) {
      this.#dependsOnFlush = false;
      yield* this.#image.flushData();
    }
  }

  *#writeEntry(entry: CachedTable): Task {
    yield* this.#satisfy();
    if (!entry.dirty) return;
    const writing = this.#image.file.writev(entry.offset, this.entrySize, IoVector.of(entry.bytes));
    if (writing) yield writing;
    entry.dirty = false;
    this.#dirty--;
  }

  get dirty(): boolean {
    return this.#dirty > 0;
  }

  /** All that was changed goes to the file. */
  *write(): Task {
    if (this.#dirty === 0) return;
    for (const entry of [...this.#entries.values()].sort((a, b) => a.offset - b.offset)) {
      if (entry.dirty) yield* this.#writeEntry(entry);
    }
  }

  /** All that was changed goes to the file, and the file to the disk. */
  *flush(): Task {
    yield* this.write();
    const flushing = this.#image.file.flush();
    if (flushing) yield flushing;
  }

  /** Forgets a table whose place in the file is free now. */
  forget(offset: number): void {
    const entry = this.#entries.get(offset);
    if (entry === undefined) return;
    if (entry.dirty) this.#dirty--;
    this.#entries.delete(offset);
    if (this.#newest === entry) this.#newest = undefined;
  }

  /** Forgets everything; what was changed and not written is lost. */
  clear(): void {
    this.#entries.clear();
    this.#newest = undefined;
    this.#dirty = 0;
    this.#dependency = undefined;
    this.#dependsOnFlush = false;
  }
}
