import { type FlatRange, FlatView } from './flat-view.ts';
import type { MemoryRegion } from './memory-region.ts';

export const PORT_COUNT = 0x1_0000;
const NOTHING = 0xffff;

/** The x86 I/O ports: a table of 65,536 entries. Reads of nothing give all ones, as on an undriven bus. */
export class PortSpace {
  readonly name: string;
  readonly root: MemoryRegion;
  #flat: FlatView;
  readonly #table = new Uint16Array(PORT_COUNT).fill(NOTHING);

  constructor(name: string, root: MemoryRegion) {
    this.name = name;
    this.root = root;
    this.#flat = new FlatView(root);
    root.observe(this);
    this.#fillTable();
  }

  get flat(): FlatView {
    return this.#flat;
  }

  topologyChanged(): void {
    this.#flat = new FlatView(this.root);
    this.#table.fill(NOTHING);
    this.#fillTable();
  }

  find(port: number): FlatRange | undefined {
    return this.#flat.ranges[this.#table[port & 0xffff] ?? NOTHING];
  }

  /**
   * Reads 1, 2 or 4 bytes. An aligned access goes whole to who has its first port, whatever lies over the rest: port 0xcf8 takes
   * 32 bits although 0xcf9 is another register.
   */
  read(port: number, size: number): number {
    const range = this.#flat.ranges[this.#table[port & 0xffff] ?? NOTHING];
    if (range === undefined) return size === 1 ? 0xff : this.#readPieces(port, size);
    const offset = port - range.start + range.offset;
    const { region } = range;
    if (size > region.valid.max) return this.#readPieces(port, size);
    if (size > 1 && (offset & (size - 1)) !== 0 && !region.impl.unaligned) return this.#readPieces(port, size);
    if (size < region.valid.min) return allOnes(size);
    return region.read(offset, size);
  }

  write(port: number, size: number, value: number): void {
    const range = this.#flat.ranges[this.#table[port & 0xffff] ?? NOTHING];
    if (range === undefined) {
      if (size > 1) this.#writePieces(port, size, value);
      return;
    }
    const offset = port - range.start + range.offset;
    const { region } = range;
    if (size > region.valid.max) return this.#writePieces(port, size, value);
    if (size > 1 && (offset & (size - 1)) !== 0 && !region.impl.unaligned) return this.#writePieces(port, size, value);
    region.write(offset, size, value);
  }

  #fillTable(): void {
    this.#flat.ranges.forEach((range, index) => this.#table.fill(index, range.start, range.end));
  }

  #readPieces(port: number, size: number): number {
    const step = this.#step(port, size);
    let value = 0;
    for (let at = 0; at < size; at += step) value |= this.read((port + at) & 0xffff, step) << (8 * at);
    return value >>> 0;
  }

  #writePieces(port: number, size: number, value: number): void {
    const step = this.#step(port, size);
    const mask = step === 1 ? 0xff : 0xffff;
    for (let at = 0; at < size; at += step) this.write((port + at) & 0xffff, step, (value >>> (8 * at)) & mask);
  }

  #step(port: number, size: number): number {
    if (size < 4 || (port & 1) !== 0) return 1;
    const range = this.find(port);
    return range !== undefined && range.region.valid.max >= 2 ? 2 : 1;
  }
}

function allOnes(size: number): number {
  return size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff;
}
