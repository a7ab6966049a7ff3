import { randomBytes } from 'node:crypto';
import zlib from 'node:zlib';
import type { BlockDriver } from '../driver.ts';
import type { BlockGraph } from '../graph.ts';
import type { Info } from '../info.ts';
import { errno, IoError } from '../io-error.ts';
import type { IoVector } from '../io-vector.ts';
import { MappedImage, place } from '../mapped-image.ts';
import type { BlockNode } from '../node.ts';
import { readBytes, writeBytes } from '../node-bytes.ts';
import { type Maybe, type Pending, start, type Task } from '../pending.ts';
import type { BlockStatus, NodeSettings } from '../requests.ts';
import { DESCRIPTOR_BYTES, textOf, withContentId } from './descriptor.ts';
import { type Extent, type SparseExtent, ZEROED } from './extent.ts';
import { GRAIN_MARKER_BYTES } from './header.ts';

const SECTOR = 512;
/** An entry of a grain table has 32 bits for a sector. */
const MAX_SECTOR = 2 ** 32;
/** A descriptor file that is larger is none. */
const MAX_DESCRIPTOR = 16 << 20;

/** What the descriptor of a disk says of the disk as a whole. */
export interface DiskIdentity {
  readonly createType: string;
  /** Where the descriptor lies in `file`: 0 where it is a file of its own. */
  readonly descriptorOffset: number;
  id: number;
  readonly parentId: number;
}

/** A disk of VMware's programs. */
export class VmdkNode extends MappedImage {
  readonly #extents: readonly Extent[];
  readonly #disk: DiskIdentity;
  #extent: Extent | undefined;
  #parentChecked = false;
  /** The compressed grain that was read last: neighbours are often read one after the other. */
  #unpacked: { readonly host: number; readonly holder: BlockNode; readonly data: Uint8Array } | undefined;

  constructor(
    graph: BlockGraph,
    driver: BlockDriver,
    settings: NodeSettings,
    extents: readonly Extent[],
    disk: DiskIdentity,
  ) {
    super(graph, driver, settings);
    this.#extents = extents;
    this.#disk = disk;
  }

  get contentId(): number {
    return this.#disk.id;
  }

  override get length(): number {
    const last = this.#extents.at(-1);
    return last === undefined ? 0 : last.start + last.bytes;
  }

  override get clusterSize(): number {
    const [first] = this.#extents;
    if (first?.kind !== 'sparse') return super.clusterSize;
    const alike = this.#extents.every(
      extent =>
        extent.kind === 'sparse' &&
        extent.layout.compressed === first.layout.compressed &&
        extent.grainBytes === first.grainBytes,
    );
    return alike ? first.grainBytes : super.clusterSize;
  }

  /** ImageInfoSpecificVmdk. */
  get diskInfo(): Info {
    const { createType, id, parentId } = this.#disk;
    return {
      'create-type': createType,
      cid: id,
      'parent-cid': parentId,
      extents: this.#extents.map(extent => ({
        filename: this.#fileOf(extent).filename,
        format: extent.type,
        'virtual-size': extent.bytes,
        ...(extent.kind === 'sparse' && {
          'cluster-size': extent.grainBytes,
          ...(extent.layout.compressed && { compressed: true }),
        }),
      })),
    };
  }

  #fileOf({ child }: Extent): BlockNode {
    const edge = this.children.get(child);
    if (edge === undefined) throw new IoError(errno.ENOMEDIUM);
    return edge.node;
  }

  #extentAt(offset: number): Extent {
    const recent = this.#extent;
    if (recent !== undefined && offset >= recent.start && offset < recent.start + recent.bytes) return recent;
    const extent = this.#extents.find(({ start: from, bytes }) => offset >= from && offset < from + bytes);
    if (extent === undefined) throw new IoError(errno.EIO);
    this.#extent = extent;
    return extent;
  }

  protected override find(offset: number, bytes: number): boolean {
    const extent = this.#extentAt(offset);
    const at = offset - extent.start;
    this.holder = this.#fileOf(extent);
    this.stretch = Math.min(bytes, extent.bytes - at);
    if (extent.kind === 'flat') {
      this.place = place.DATA;
      this.host = extent.offset + at;
      return true;
    }
    const index = extent.tableOf(at);
    if (index === undefined) throw new IoError(errno.EIO);
    this.stretch = Math.min(this.stretch, extent.leftInTable(at));
    if (!extent.hasTable(index)) {
      this.place = place.NOWHERE;
      return true;
    }
    const table = extent.table(index);
    if (table === undefined) return false;
    this.#findGrain(extent, table, at);
    return true;
  }

  #findGrain(extent: SparseExtent, table: Uint32Array, at: number): void {
    const { grainBytes, layout } = extent;
    const first = extent.grainOf(at);
    const entry = table[first] ?? 0;
    let stretch = grainBytes - (at % grainBytes);
    const isData = entry !== 0 && !(layout.zeroGrain && entry === ZEROED);
    if (isData && layout.compressed) {
      this.place = place.PACKED;
      this.host = entry * SECTOR;
    } else {
      const step = isData ? layout.grainSectors : 0;
      this.place = isData ? place.DATA : entry === 0 ? place.NOWHERE : place.ZERO;
      this.host = entry * SECTOR + (at % grainBytes);
      for (let next = 1; stretch < this.stretch && table[first + next] === entry + next * step; next++)
        stretch += grainBytes;
    }
    this.stretch = Math.min(this.stretch, stretch);
  }

  protected override *load(offset: number): Task {
    const extent = this.#extentAt(offset);
    const index = extent.kind === 'sparse' ? extent.tableOf(offset - extent.start) : undefined;
    if (extent.kind === 'sparse' && index !== undefined) yield* extent.loadTable(this.#fileOf(extent), index);
  }

  /** What backs the image must be what backed it when it was made. */
  #checkParent(): void {
    if (this.#parentChecked) return;
    const parent = this.backing?.withoutFilters;
    if (parent !== undefined && !(parent instanceof VmdkNode && parent.contentId === this.#disk.parentId))
      throw new IoError(errno.EINVAL);
    this.#parentChecked = true;
  }

  override childReplaced(name: string, _node: BlockNode): void {
    if (name === 'backing') this.#parentChecked = false;
    this.#extent = undefined;
    this.#unpacked = undefined;
  }

  protected override readBacking(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    this.#checkParent();
    return super.readBacking(offset, bytes, iov, at);
  }

  protected override readPacked(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    const extent = this.#extentAt(offset);
    if (extent.kind !== 'sparse') throw new IoError(errno.EIO);
    return start(this.#readPacked(extent, this.host, (offset - extent.start) % extent.grainBytes, bytes, iov, at));
  }

  *#readPacked(extent: SparseExtent, host: number, inside: number, bytes: number, iov: IoVector, at: number): Task {
    const holder = this.#fileOf(extent);
    const recent = this.#unpacked;
    let data = recent?.host === host && recent.holder === holder ? recent.data : undefined;
    if (data === undefined) {
      // What does not become smaller becomes a little larger.
      const packed = yield* readBytes(holder, host, extent.grainBytes * 2);
      data = unpack(packed, extent);
      this.#unpacked = { host, holder, data };
    }
    if (inside + bytes > data.length) throw new IoError(errno.EINVAL);
    iov.scatter(at, data, inside, bytes);
  }

  protected override *allocate(offset: number, bytes: number, iov: IoVector | undefined, at: number): Task<number> {
    const extent = this.#extentAt(offset);
    const found = this.place;
    if (extent.kind !== 'sparse') throw new IoError(errno.EIO);
    const within = offset - extent.start;
    const index = extent.tableOf(within);
    if (index === undefined || !extent.hasTable(index)) throw new IoError(errno.EINVAL);
    const inside = within % extent.grainBytes;
    const taken = Math.min(bytes, extent.grainBytes - inside);
    if (found === place.PACKED) {
      this.graph.notice('Could not write to allocated cluster for streamOptimized');
      throw new IoError(errno.EIO);
    }
    if (iov === undefined && extent.layout.zeroGrain && taken === extent.grainBytes) {
      extent.set(within, ZEROED);
      return taken;
    }
    if (extent.next / SECTOR >= MAX_SECTOR) throw new IoError(errno.EINVAL);
    if (extent.layout.compressed) yield* this.#writePacked(extent, within, taken, iov, at);
    else yield* this.#writeGrain(extent, offset, inside, taken, found === place.NOWHERE, iov, at);
    return taken;
  }

  *#writeGrain(
    extent: SparseExtent,
    offset: number,
    inside: number,
    taken: number,
    backed: boolean,
    iov: IoVector | undefined,
    at: number,
  ): Task {
    const { grainBytes, next: host } = extent;
    const file = this.#fileOf(extent);
    if (taken < grainBytes || iov === undefined) yield* this.extend(file, host, host + grainBytes);
    if (backed && this.backing !== undefined) {
      this.#checkParent();
      yield* this.#copyBacking(file, offset - inside, host, inside);
      const rest = inside + taken;
      yield* this.#copyBacking(file, offset + taken, host + rest, grainBytes - rest);
    }
    if (iov !== undefined) {
      const writing = file.writev(host + inside, taken, iov, at);
      if (writing) yield writing;
    }
    extent.set(offset - extent.start, host / SECTOR);
    extent.next = host + grainBytes;
  }

  *#copyBacking(file: BlockNode, offset: number, host: number, bytes: number): Task {
    const { backing } = this;
    if (backing === undefined || bytes === 0) return;
    const data = yield* readBytes(backing, offset, bytes);
    yield* writeBytes(file, host, data);
  }

  /** "Compressed grains" are written once, as a whole. */
  *#writePacked(extent: SparseExtent, within: number, taken: number, iov: IoVector | undefined, at: number): Task {
    const whole = taken === extent.grainBytes || within + taken === extent.bytes;
    if (within % extent.grainBytes !== 0 || !whole || !extent.layout.markers) throw new IoError(errno.EINVAL);
    const data = Buffer.alloc(taken);
    iov?.gather(at, data, 0, taken);
    const packed = zlib.deflateSync(data);
    const size = Math.ceil((GRAIN_MARKER_BYTES + packed.length) / SECTOR) * SECTOR;
    const bytes = Buffer.alloc(size);
    bytes.writeBigUInt64LE(BigInt((extent.start + within) / SECTOR));
    bytes.writeUInt32LE(packed.length, 8);
    packed.copy(bytes, GRAIN_MARKER_BYTES);
    const host = extent.next;
    yield* writeBytes(this.#fileOf(extent), host, bytes);
    extent.set(within, host / SECTOR);
    extent.next = host + size;
  }

  // Images that rest on this one must see that it is another one now.
  protected override *beforeFirstWrite(): Task {
    const { descriptorOffset } = this.#disk;
    const bytes = descriptorOffset === 0 ? this.below.length : DESCRIPTOR_BYTES;
    if (bytes > MAX_DESCRIPTOR) throw new IoError(errno.EFBIG, 'VMDK description file too big');
    const text = textOf(yield* readBytes(this.below, descriptorOffset, bytes));
    const id = randomBytes(4).readUInt32LE();
    // Not shorter, so that nothing of the old text stays behind it.
    const changed = Buffer.from(withContentId(text, id).padEnd(text.length, '\n'), 'latin1');
    if (changed.length > bytes) throw new IoError(errno.ENOSPC);
    yield* writeBytes(this.below, descriptorOffset, changed);
    yield* this.flushFiles();
    this.#disk.id = id;
  }

  protected override get tablesChanged(): boolean {
    return this.#extents.some(extent => extent.kind === 'sparse' && extent.changed);
  }

  protected override *writeTables(): Task {
    for (const extent of this.#extents) if (extent.kind === 'sparse') yield* extent.write(this.#fileOf(extent));
  }

  protected override dataStatus(bytes: number): Maybe<BlockStatus> {
    return this.#extent?.kind === 'flat' ? this.recursiveStatus(bytes) : super.dataStatus(bytes);
  }
}

function unpack(bytes: Buffer, { layout, grainBytes }: SparseExtent): Uint8Array {
  const size = layout.markers ? bytes.readUInt32LE(8) : grainBytes;
  if (size === 0 || size > bytes.length) throw new IoError(errno.EINVAL);
  const from = layout.markers ? GRAIN_MARKER_BYTES : 0;
  try {
    return zlib.inflateSync(bytes.subarray(from, from + size), { maxOutputLength: grainBytes });
  } catch (cause) {
    throw new IoError(errno.EINVAL, 'A compressed grain is damaged', { cause });
  }
}
