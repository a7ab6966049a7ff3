import type { BlockDriver } from '../driver.ts';
import type { BlockGraph } from '../graph.ts';
import { errno, IoError } from '../io-error.ts';
import type { IoVector } from '../io-vector.ts';
import { MappedImage, place } from '../mapped-image.ts';
import { writeBytes } from '../node-bytes.ts';
import type { Maybe, Task } from '../pending.ts';
import type { BlockStatus, NodeSettings } from '../requests.ts';
import { sectorBytes, sectorOfEntry } from '../table-entries.ts';
import { allocationCount, BLOCK_SIZE, imageType, roundUp, type VdiHeader, ZERO } from './header.ts';

const SECTOR = 512;

/** An image of VirtualBox. */
export class VdiNode extends MappedImage {
  readonly #header: VdiHeader;
  readonly #length: number;
  /** Which block of the file each block of the disk is. */
  readonly #map: Uint32Array;
  #allocated: number;
  /** Sectors of the map that are only in memory. */
  readonly #changed = new Set<number>();

  constructor(graph: BlockGraph, driver: BlockDriver, settings: NodeSettings, header: VdiHeader, map: Uint32Array) {
    super(graph, driver, settings);
    this.#header = header;
    this.#length = Number(roundUp(header.diskSize));
    this.#map = map;
    // A block that the count has forgotten must not be given away again.
    this.#allocated = header.blocksAllocated;
    for (const block of map) if (block < ZERO && block >= this.#allocated) this.#allocated = block + 1;
  }

  override get length(): number {
    return this.#length;
  }

  override get clusterSize(): number {
    return BLOCK_SIZE;
  }

  #hostOf(block: number): number {
    return this.#header.dataOffset + block * BLOCK_SIZE;
  }

  protected override find(offset: number, bytes: number): boolean {
    const map = this.#map;
    const index = Math.floor(offset / BLOCK_SIZE);
    const inside = offset % BLOCK_SIZE;
    const block = map[index] ?? ZERO;
    let stretch = BLOCK_SIZE - inside;
    if (block < ZERO) {
      this.place = place.DATA;
      this.host = this.#hostOf(block) + inside;
      for (let next = 1; stretch < bytes && map[index + next] === block + next; next++) stretch += BLOCK_SIZE;
    } else {
      this.place = place.ZERO;
      for (let next = index + 1; stretch < bytes && (map[next] ?? ZERO) >= ZERO; next++) stretch += BLOCK_SIZE;
    }
    this.stretch = Math.min(stretch, bytes);
    return true;
  }

  protected override *allocate(offset: number, bytes: number, iov: IoVector | undefined, at: number): Task<number> {
    const index = Math.floor(offset / BLOCK_SIZE);
    const block = this.#allocated;
    if (index >= this.#map.length) throw new IoError(errno.EINVAL);
    if (block >= ZERO) throw new IoError(errno.ENOSPC);
    const inside = offset % BLOCK_SIZE;
    const taken = Math.min(bytes, BLOCK_SIZE - inside);
    const host = this.#hostOf(block);
    yield* this.extend(this.below, host, host + BLOCK_SIZE);
    if (iov !== undefined) {
      const writing = this.below.writev(host + inside, taken, iov, at);
      if (writing) yield writing;
    }
    this.#map[index] = block;
    this.#allocated = block + 1;
    this.#changed.add(sectorOfEntry(index));
    return taken;
  }

  protected override get tablesChanged(): boolean {
    return this.#changed.size > 0;
  }

  protected override *writeTables(): Task {
    // Others give the next block away by the count: it comes first.
    const count = allocationCount(this.#allocated);
    yield* writeBytes(this.below, count.offset, count.bytes);
    yield* this.flushFiles();
    for (const sector of [...this.#changed].sort((a, b) => a - b)) {
      yield* writeBytes(this.below, this.#header.mapOffset + sector * SECTOR, sectorBytes(this.#map, sector));
    }
    this.#changed.clear();
  }

  protected override dataStatus(bytes: number): Maybe<BlockStatus> {
    return this.#header.type === imageType.STATIC ? this.recursiveStatus(bytes) : super.dataStatus(bytes);
  }
}
