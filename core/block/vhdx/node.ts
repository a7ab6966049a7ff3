import { randomBytes } from 'node:crypto';
import type { BlockDriver } from '../driver.ts';
import type { BlockGraph } from '../graph.ts';
import { errno, IoError } from '../io-error.ts';
import type { IoVector } from '../io-vector.ts';
import { MappedImage, place } from '../mapped-image.ts';
import type { Task } from '../pending.ts';
import type { NodeSettings } from '../requests.ts';
import type { Headers } from './headers.ts';
import { blockState, entryOf, type Geometry, GUID_BYTES, MIB } from './layout.ts';
import { LOG_SECTOR, type Log, MAX_PAGES } from './log.ts';

const ENTRY = 8;
const HIGH = 2 ** 32;
/** MS-VHDX 2.5.1: an entry's offset is in its upper 44 bits, in units of 1 MiB. */
const OFFSET_BITS = 0xfff0_0000;

/** An entry of the block allocation table. */
export interface BatEntry {
  readonly state: number;
  /** In bytes. */
  readonly offset: number;
}

export function batEntry(bat: Buffer, index: number): BatEntry {
  return { state: stateOf(bat, index), offset: offsetOf(bat, index) };
}

function stateOf(bat: Buffer, index: number): number {
  return bat.readUInt32LE(index * ENTRY) & 7;
}

function offsetOf(bat: Buffer, index: number): number {
  return bat.readUInt32LE(index * ENTRY + 4) * HIGH + ((bat.readUInt32LE(index * ENTRY) & OFFSET_BITS) >>> 0);
}

export function setBatEntry(bat: Buffer, index: number, { state, offset }: BatEntry): void {
  bat.writeUInt32LE((offset % HIGH) + state, index * ENTRY);
  bat.writeUInt32LE(Math.floor(offset / HIGH), index * ENTRY + 4);
}

/** A virtual hard disk of Hyper-V, version 2. */
export class VhdxNode extends MappedImage {
  readonly #geometry: Geometry;
  readonly #headers: Headers;
  readonly #log: Log;
  /** As it is in the file, up to a whole page. */
  readonly #bat: Buffer;
  readonly #batOffset: number;
  /** Pages of it that are only in memory. */
  readonly #changed = new Set<number>();

  constructor(
    graph: BlockGraph,
    driver: BlockDriver,
    settings: NodeSettings,
    geometry: Geometry,
    headers: Headers,
    log: Log,
    bat: Buffer,
    batOffset: number,
  ) {
    super(graph, driver, settings);
    this.#geometry = geometry;
    this.#headers = headers;
    this.#log = log;
    this.#bat = bat;
    this.#batOffset = batOffset;
  }

  override get length(): number {
    return this.#geometry.size;
  }

  override get clusterSize(): number {
    return this.#geometry.blockSize;
  }

  #index(offset: number): number {
    return entryOf(Math.floor(offset / this.#geometry.blockSize), this.#geometry.chunkRatio);
  }

  protected override find(offset: number, bytes: number): boolean {
    const { blockSize } = this.#geometry;
    const index = this.#index(offset);
    if ((index + 1) * ENTRY > this.#bat.length) throw new IoError(errno.EIO);
    const inside = offset % blockSize;
    this.stretch = Math.min(bytes, blockSize - inside);
    switch (stateOf(this.#bat, index)) {
      case blockState.FULLY_PRESENT:
        this.place = place.DATA;
        this.host = offsetOf(this.#bat, index) + inside;
        return true;
      case blockState.NOT_PRESENT:
      case blockState.UNDEFINED:
      case blockState.ZERO:
      case blockState.UNMAPPED:
      case blockState.UNMAPPED_095:
        this.place = place.ZERO;
        return true;
      default:
        // What is partly in another file needs differencing disks, which QEMU does not have either.
        throw new IoError(errno.EIO);
    }
  }

  protected override *allocate(offset: number, bytes: number, iov: IoVector | undefined, at: number): Task<number> {
    const { blockSize } = this.#geometry;
    const file = this.below;
    const host = Math.ceil(file.length / MIB) * MIB;
    const inside = offset % blockSize;
    const taken = Math.min(bytes, blockSize - inside);
    yield* this.extend(file, host, host + blockSize);
    if (iov !== undefined) {
      const writing = file.writev(host + inside, taken, iov, at);
      if (writing) yield writing;
    }
    const index = this.#index(offset);
    setBatEntry(this.#bat, index, { state: blockState.FULLY_PRESENT, offset: host });
    this.#changed.add(Math.floor((index * ENTRY) / LOG_SECTOR));
    return taken;
  }

  // 2.2.2: before what the guest sees changes for the first time.
  protected override *beforeFirstWrite(): Task {
    yield* this.#headers.update(this.below, { dataWriteGuid: randomBytes(GUID_BYTES) });
  }

  protected override get tablesChanged(): boolean {
    return this.#changed.size > 0;
  }

  protected override *writeTables(): Task {
    const pages = [...this.#changed].sort((a, b) => a - b);
    for (let done = 0; done < pages.length; done += MAX_PAGES) {
      const some = pages.slice(done, done + MAX_PAGES).map(page => ({
        offset: this.#batOffset + page * LOG_SECTOR,
        bytes: this.#bat.subarray(page * LOG_SECTOR, (page + 1) * LOG_SECTOR),
      }));
      yield* this.#log.change(this.below, some);
    }
    this.#changed.clear();
  }
}
