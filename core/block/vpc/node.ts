import type { BlockDriver } from '../driver.ts';
import type { BlockGraph } from '../graph.ts';
import { errno, IoError } from '../io-error.ts';
import type { IoVector } from '../io-vector.ts';
import { MappedImage, place } from '../mapped-image.ts';
import { readBytes, writeBytes } from '../node-bytes.ts';
import type { Maybe, Task } from '../pending.ts';
import type { BlockStatus, NodeSettings } from '../requests.ts';
import { sectorBytes, sectorOfEntry } from '../table-entries.ts';

const SECTOR = 512;
/** "Block Allocation Table": what an entry without a block says. */
export const NO_BLOCK = 0xffff_ffff;

/** What a dynamic disk has beside its data. */
export interface Blocks {
  /** In bytes. */
  readonly size: number;
  /** Of the sector bitmap before each block, in bytes. */
  readonly bitmapBytes: number;
  /** Where each block's bitmap begins, in sectors; {@link NO_BLOCK} for none. */
  readonly table: Uint32Array;
  readonly tableOffset: number;
  /** Where the next block goes, in bytes. */
  readonly end: number;
}

/** How large an image is that says it in two ways. */
export type SizeCalculation = 'chs' | 'current_size';

/** A virtual hard disk of Virtual PC and Hyper-V. */
export class VpcNode extends MappedImage {
  readonly #length: number;
  readonly #footer: Buffer;
  readonly #blocks: Blocks | undefined;
  readonly #sizeCalculation: SizeCalculation | undefined;
  #end: number;
  /** Sectors of the table that are only in memory. */
  readonly #changed = new Set<number>();
  /** Blocks whose bitmaps are known to be full. */
  readonly #full: Uint8Array;

  constructor(
    graph: BlockGraph,
    driver: BlockDriver,
    settings: NodeSettings,
    length: number,
    footer: Buffer,
    blocks: Blocks | undefined,
    sizeCalculation: SizeCalculation | undefined,
  ) {
    super(graph, driver, settings);
    this.#length = length;
    this.#footer = footer;
    this.#blocks = blocks;
    this.#sizeCalculation = sizeCalculation;
    this.#end = blocks?.end ?? 0;
    this.#full = new Uint8Array(Math.ceil((blocks?.table.length ?? 0) / 8));
  }

  override get identity(): { readonly [option: string]: string } {
    return this.#sizeCalculation === undefined ? {} : { force_size_calc: this.#sizeCalculation };
  }

  override get length(): number {
    return this.#length;
  }

  override get clusterSize(): number {
    return this.#blocks?.size ?? super.clusterSize;
  }

  protected override find(offset: number, bytes: number): boolean {
    const blocks = this.#blocks;
    if (blocks === undefined) {
      this.place = place.DATA;
      this.host = offset;
      this.stretch = bytes;
      return true;
    }
    const { size, table } = blocks;
    const index = Math.floor(offset / size);
    const inside = offset % size;
    const sector = table[index] ?? NO_BLOCK;
    let stretch = size - inside;
    if (sector === NO_BLOCK) {
      this.place = place.ZERO;
      for (let next = index + 1; stretch < bytes && (table[next] ?? NO_BLOCK) === NO_BLOCK; next++) stretch += size;
    } else {
      // "Data Blocks": in QEMU as in Virtual PC nobody looks at the bits of the bitmap to read.
      this.place = place.DATA;
      this.host = sector * SECTOR + blocks.bitmapBytes + inside;
    }
    this.stretch = Math.min(stretch, bytes);
    return true;
  }

  #index(offset: number): number {
    return Math.floor(offset / (this.#blocks?.size ?? 1));
  }

  // A sector whose bit is clear has no data for other programs, so all bits are set before data is written.
  protected override isSettled(offset: number): boolean {
    if (this.#blocks === undefined) return true;
    const index = this.#index(offset);
    return ((this.#full[index >>> 3] ?? 0) & (1 << (index & 7))) !== 0;
  }

  #noteFull(index: number): void {
    this.#full[index >>> 3] = (this.#full[index >>> 3] ?? 0) | (1 << (index & 7));
  }

  protected override *settleBlock(offset: number): Task {
    if (this.#blocks === undefined) return;
    const { table, bitmapBytes } = this.#blocks;
    const index = this.#index(offset);
    const at = (table[index] ?? 0) * SECTOR;
    const bitmap = yield* readBytes(this.below, at, bitmapBytes);
    if (!bitmap.every(byte => byte === 0xff)) {
      yield* writeBytes(this.below, at, bitmap.fill(0xff));
      yield* this.flushFiles();
    }
    this.#noteFull(index);
  }

  protected override *allocate(offset: number, bytes: number, iov: IoVector | undefined, at: number): Task<number> {
    const blocks = this.#blocks;
    const index = this.#index(offset);
    if (blocks === undefined || index >= blocks.table.length) throw new IoError(errno.EINVAL);
    const { size, bitmapBytes, table } = blocks;
    const start = this.#end;
    if (start / SECTOR >= NO_BLOCK) throw new IoError(errno.ENOSPC);
    const inside = offset % size;
    const taken = Math.min(bytes, size - inside);
    const end = start + bitmapBytes + size;
    const file = this.below;
    // The footer that stood there goes; the copy at the beginning of the file is what is read.
    yield* this.extend(file, start, end);
    yield* writeBytes(file, start, Buffer.alloc(bitmapBytes, 0xff));
    if (iov !== undefined) {
      const writing = file.writev(start + bitmapBytes + inside, taken, iov, at);
      if (writing) yield writing;
    }
    yield* writeBytes(file, end, this.#footer);
    table[index] = start / SECTOR;
    this.#noteFull(index);
    this.#changed.add(sectorOfEntry(index));
    this.#end = end;
    return taken;
  }

  protected override get tablesChanged(): boolean {
    return this.#changed.size > 0;
  }

  protected override *writeTables(): Task {
    if (this.#blocks === undefined) return;
    const { table, tableOffset } = this.#blocks;
    for (const sector of [...this.#changed].sort((a, b) => a - b))
      yield* writeBytes(this.below, tableOffset + sector * SECTOR, sectorBytes(table, sector, 'big'));
    this.#changed.clear();
  }

  protected override dataStatus(bytes: number): Maybe<BlockStatus> {
    return this.#blocks === undefined ? this.recursiveStatus(bytes) : super.dataStatus(bytes);
  }
}
