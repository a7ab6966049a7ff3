import type { Dma } from '../../core/memory/dma.ts';
import type { ScatterList } from '../ide/scatter-list.ts';
import { TABLE } from './registers.ts';

/** Regions that are read from memory at a time. */
const BATCH = 64;

/**
 * The physical region descriptor table of a command (AHCI 1.3.1, section 4.2.3.3), read in order: the place that was reached
 * is kept, so that a command in many parts does not begin at the start each time.
 */
export class RegionTable {
  readonly #dma: Dma;
  readonly #batch = new Uint8Array(BATCH * TABLE.REGION_SIZE);
  readonly #view = new DataView(this.#batch.buffer);
  #at = 0;
  #count = 0;
  #index = 0;
  /** Bytes that the regions before the current one describe. */
  #before = 0;

  constructor(dma: Dma) {
    this.#dma = dma;
  }

  /** @param table address of the command table */
  start(table: number, count: number): void {
    this.#at = table + TABLE.REGIONS;
    this.#count = count;
    this.#index = 0;
    this.#before = 0;
  }

  /** Puts at most `limit` bytes, `offset` bytes into the command's data, in `list`. Offsets only grow. */
  take(list: ScatterList, offset: number, limit: number): void {
    list.clear();
    let first = this.#index;
    let read = 0;
    let before = this.#before;
    for (let index = first; index < this.#count && list.length < limit; index++) {
      if (index >= first + read) {
        first = index;
        read = Math.min(BATCH, this.#count - index);
        if (!this.#dma.read(this.#at + index * TABLE.REGION_SIZE, this.#batch, 0, read * TABLE.REGION_SIZE)) return;
      }
      const entry = (index - first) * TABLE.REGION_SIZE;
      const length = (this.#view.getUint32(entry + 12, true) & TABLE.REGION_LENGTH) + 1;
      if (offset >= before + length) {
        before += length;
        this.#index = index + 1;
        this.#before = before;
        continue;
      }
      const skip = Math.max(0, offset - before);
      const address = this.#view.getUint32(entry, true) + this.#view.getUint32(entry + 4, true) * 2 ** 32;
      list.add(address + skip, Math.min(length - skip, limit - list.length));
      before += length;
    }
  }
}
