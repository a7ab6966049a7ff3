import type { AddressSpace } from './address-space.ts';

/** A stretch of guest RAM that another process can map from a descriptor. Addresses, offsets and sizes in bytes. */
export interface SharedRange {
  readonly address: number;
  readonly size: number;
  readonly fd: number;
  /** Where it begins in the file. */
  readonly offset: number;
}

/** Which of the guest's RAM is shared (`-object memory-backend-memfd`, `memory-backend-file,share=on`), and where it is. */
export class SharedMemory {
  readonly #space: AddressSpace;
  #logged = false;
  readonly #logListeners = new Set<() => void>();

  constructor(space: AddressSpace) {
    this.#space = space;
  }

  /**
   * The ranges, in ascending order. What covers a part of RAM for a while, as the shadowing of ROMs does, does not divide one: the
   * file is whole behind it.
   */
  get ranges(): readonly SharedRange[] {
    const ranges: SharedRange[] = [];
    for (const { start, end, region, offset } of this.#space.flat.ranges) {
      const { ram } = region;
      if (ram === undefined) continue;
      for (const piece of ram.files ?? []) {
        if (!piece.shared) continue;
        const from = Math.max(offset, piece.start);
        const to = Math.min(offset + end - start, piece.start + piece.size);
        if (from >= to) continue;
        const range = {
          address: start + from - offset,
          size: to - from,
          fd: piece.fd,
          offset: piece.offset + from - piece.start,
        };
        const last = ranges.findIndex(
          ({ fd, address, offset: at }) => fd === range.fd && address - at === range.address - range.offset,
        );
        const before = ranges[last];
        if (before === undefined) ranges.push(range);
        else ranges[last] = { ...before, size: Math.max(before.size, range.address + range.size - before.address) };
      }
    }
    return ranges;
  }

  /** Whether others who write there are to say where: a migration is under way. */
  get logged(): boolean {
    return this.#logged;
  }

  set logged(value: boolean) {
    if (this.#logged === value) return;
    this.#logged = value;
    for (const listener of this.#logListeners) listener();
  }

  /** Calls `listener` when {@link logged} has changed. Returns a function that removes it. */
  onLogged(listener: () => void): () => void {
    this.#logListeners.add(listener);
    return () => this.#logListeners.delete(listener);
  }

  /** Calls `listener` when RAM has come, gone or moved. Returns a function that removes it. */
  onChange(listener: () => void): () => void {
    let told = false;
    const stop = this.#space.listen({
      ramAdded: () => told && listener(),
      ramRemoved: () => listener(),
    });
    told = true;
    return stop;
  }
}
