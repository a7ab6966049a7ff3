import { copyFromRam, copyToRam } from './copy.ts';
import { type FlatRange, FlatView } from './flat-view.ts';
import type { GuestRam } from './guest-ram.ts';
import type { MemoryRegion } from './memory-region.ts';

/** Learns which RAM is where: the accelerator's memory slots. Addresses and sizes in bytes. */
export interface RamListener {
  ramAdded(address: number, ram: GuestRam, offset: number, size: number, readonly: boolean): void;
  ramRemoved(address: number, size: number): void;
}

const PAGE_SHIFT = 12;
const PAGE = 1 << PAGE_SHIFT;
const CACHE_SLOTS = 1024;
const NO_PAGE = -1;
const SEVERAL = -2;

/**
 * What a bus master sees: the tree under `root`, flattened. Reads of nothing give 0, writes to nothing are lost, as on a PC's
 * memory bus. Values are unsigned little-endian numbers of at most 4 bytes.
 */
export class AddressSpace {
  readonly name: string;
  readonly root: MemoryRegion;
  /** Called after a device, not the guest, changed RAM. */
  ramWritten: ((address: number, length: number) => void) | undefined;
  #flat: FlatView;
  /** Direct-mapped: page number to the index of the one range that fills the page. */
  readonly #cachePage = new Float64Array(CACHE_SLOTS).fill(NO_PAGE);
  readonly #cacheIndex = new Int32Array(CACHE_SLOTS);
  readonly #listeners = new Set<RamListener>();
  readonly #unobserve: () => void;

  constructor(name: string, root: MemoryRegion) {
    this.name = name;
    this.root = root;
    this.#flat = new FlatView(root);
    this.#unobserve = root.observe(this);
  }

  /** No longer follows what the tree becomes. */
  dispose(): void {
    this.#unobserve();
  }

  get flat(): FlatView {
    return this.#flat;
  }

  topologyChanged(): void {
    const previous = this.#flat;
    this.#flat = new FlatView(this.root);
    this.#cachePage.fill(NO_PAGE);
    if (this.#listeners.size > 0) this.#tellListeners(previous.ranges, this.#flat.ranges);
  }

  /** Tells `listener` of the RAM there is, and of each change to come. */
  listen(listener: RamListener): () => void {
    this.#listeners.add(listener);
    for (const range of this.#flat.ranges) if (isSlot(range)) added(listener, range);
    return () => this.#listeners.delete(listener);
  }

  /** The range that holds `address`, or undefined where nothing answers. */
  find(address: number): FlatRange | undefined {
    const page = address < 0x1_0000_0000 ? address >>> PAGE_SHIFT : Math.floor(address / PAGE);
    const slot = page & (CACHE_SLOTS - 1);
    let index = this.#cacheIndex[slot] ?? SEVERAL;
    if (this.#cachePage[slot] !== page) index = this.#fillCache(slot, page);
    if (index === SEVERAL) index = this.#flat.indexOf(address);
    return this.#flat.ranges[index];
  }

  /** Reads 1, 2 or 4 bytes at any address. */
  read(address: number, size: number): number {
    const range = this.find(address);
    if (range === undefined) return size === 1 ? 0 : this.#readPieces(address, size);
    const { region } = range;
    const offset = address - range.start + range.offset;
    if (region.readsDirectly && region.ram !== undefined) {
      return address + size > range.end ? this.#readPieces(address, size) : readRam(region.ram.view, offset, size);
    }
    if (size > region.valid.max || (!region.valid.unaligned && (offset & (size - 1)) !== 0))
      return this.#readPieces(address, size);
    if (!region.impl.unaligned && (offset & (size - 1)) !== 0) return this.#readPieces(address, size);
    return region.read(offset, size);
  }

  /** Writes 1, 2 or 4 bytes at any address. */
  write(address: number, size: number, value: number): void {
    const range = this.find(address);
    if (range === undefined) {
      if (size > 1) this.#writePieces(address, size, value);
      return;
    }
    const { region } = range;
    const offset = address - range.start + range.offset;
    if (region.ram !== undefined && region.kind !== 'rom-device') {
      if (address + size > range.end) return this.#writePieces(address, size, value);
      if (range.readonly) return;
      writeRam(region.ram.view, offset, size, value);
      this.ramWritten?.(address, size);
      return;
    }
    if (size > region.valid.max || (!region.impl.unaligned && (offset & (size - 1)) !== 0))
      return this.#writePieces(address, size, value);
    region.write(offset, size, value);
  }

  /** Copies `length` bytes at `address` into `target` from `at`. Returns false where some of it is nowhere (that part reads 0). */
  readBytes(address: number, target: Uint8Array, at: number, length: number): boolean {
    let complete = true;
    let done = 0;
    while (done < length) {
      const here = address + done;
      const range = this.find(here);
      if (range === undefined) {
        const step = Math.min(length - done, PAGE - (here % PAGE));
        target.fill(0, at + done, at + done + step);
        complete = false;
        done += step;
        continue;
      }
      const step = Math.min(length - done, range.end - here);
      const offset = here - range.start + range.offset;
      const { region } = range;
      if (region.readsDirectly && region.ram !== undefined) {
        copyFromRam(region.ram.bytes, offset, target, at + done, step);
      } else {
        for (let index = 0; index < step; ) {
          const size = pieceSize(here + index, step - index);
          const value = this.read(here + index, size);
          for (let byte = 0; byte < size; byte++) target[at + done + index + byte] = value >>> (8 * byte);
          index += size;
        }
      }
      done += step;
    }
    return complete;
  }

  /** Copies `length` bytes of `source` from `at` to `address`. Returns false where some of it is nowhere or read-only. */
  writeBytes(address: number, source: Uint8Array, at: number, length: number): boolean {
    let complete = true;
    let done = 0;
    while (done < length) {
      const here = address + done;
      const range = this.find(here);
      if (range === undefined) {
        complete = false;
        done += Math.min(length - done, PAGE - (here % PAGE));
        continue;
      }
      const step = Math.min(length - done, range.end - here);
      const offset = here - range.start + range.offset;
      const { region } = range;
      if (region.ram !== undefined && region.kind !== 'rom-device') {
        if (range.readonly) complete = false;
        else {
          copyToRam(source, at + done, region.ram.bytes, offset, step);
          this.ramWritten?.(here, step);
        }
      } else {
        for (let index = 0; index < step; ) {
          const size = pieceSize(here + index, step - index);
          let value = 0;
          for (let byte = 0; byte < size; byte++) value |= (source[at + done + index + byte] ?? 0) << (8 * byte);
          this.write(here + index, size, value >>> 0);
          index += size;
        }
      }
      done += step;
    }
    return complete;
  }

  #fillCache(slot: number, page: number): number {
    const start = page * PAGE;
    const found = this.#flat.indexOf(start);
    const range = this.#flat.ranges[found];
    const index = range !== undefined && range.start <= start && range.end >= start + PAGE ? found : SEVERAL;
    this.#cachePage[slot] = page;
    this.#cacheIndex[slot] = index;
    return index;
  }

  /** An access that one region cannot take whole: as many smaller ones as the decoders on the way make of it. */
  #readPieces(address: number, size: number): number {
    const step = this.#step(address, size);
    let value = 0;
    for (let at = 0; at < size; at += step) value |= this.read(address + at, step) << (8 * at);
    return value >>> 0;
  }

  #writePieces(address: number, size: number, value: number): void {
    const step = this.#step(address, size);
    const mask = step === 1 ? 0xff : 0xffff;
    for (let at = 0; at < size; at += step) this.write(address + at, step, (value >>> (8 * at)) & mask);
  }

  #step(address: number, size: number): number {
    if (size === 4 && (address & 1) === 0) {
      const range = this.find(address);
      if (range !== undefined && range.region.valid.max >= 2) return 2;
    }
    return 1;
  }

  #tellListeners(before: readonly FlatRange[], after: readonly FlatRange[]): void {
    const kept = new Set<FlatRange>();
    const gone: FlatRange[] = [];
    const fresh: FlatRange[] = [];
    const byStart = new Map(after.filter(isSlot).map(range => [range.start, range]));
    for (const range of before) {
      if (!isSlot(range)) continue;
      const now = byStart.get(range.start);
      if (now !== undefined && sameSlot(range, now)) kept.add(now);
      else gone.push(range);
    }
    for (const range of byStart.values()) if (!kept.has(range)) fresh.push(range);
    for (const listener of this.#listeners) {
      for (const range of gone) listener.ramRemoved(range.start, range.end - range.start);
      for (const range of fresh) added(listener, range);
    }
  }
}

/** RAM in whole pages: what an accelerator can map. Scraps that are smaller go through exits. */
function isSlot(range: FlatRange): boolean {
  return range.region.readsDirectly && range.start % PAGE === 0 && range.end % PAGE === 0 && range.offset % PAGE === 0;
}

function sameSlot(a: FlatRange, b: FlatRange): boolean {
  return a.end === b.end && a.region === b.region && a.offset === b.offset && slotReadonly(a) === slotReadonly(b);
}

function slotReadonly(range: FlatRange): boolean {
  return range.readonly || !range.region.writesDirectly;
}

function added(listener: RamListener, range: FlatRange): void {
  const { ram } = range.region;
  if (ram !== undefined)
    listener.ramAdded(range.start, ram, range.offset, range.end - range.start, slotReadonly(range));
}

/** The widest aligned access of at most `left` bytes. */
function pieceSize(address: number, left: number): number {
  if (left >= 4 && address % 4 === 0) return 4;
  return left >= 2 && address % 2 === 0 ? 2 : 1;
}

function readRam(view: DataView<ArrayBufferLike>, offset: number, size: number): number {
  if (size === 4) return view.getUint32(offset, true);
  return size === 1 ? view.getUint8(offset) : view.getUint16(offset, true);
}

function writeRam(view: DataView<ArrayBufferLike>, offset: number, size: number, value: number): void {
  if (size === 4) view.setUint32(offset, value, true);
  else if (size === 1) view.setUint8(offset, value);
  else view.setUint16(offset, value, true);
}
