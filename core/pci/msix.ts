import { MemoryRegion } from '../memory/memory-region.ts';
import type { ConfigSpace } from './config-space.ts';
import type { MsixDeclaration } from './identity.ts';
import type { MessageSink } from './msi.ts';

const CAP_MSIX = 0x11;
const CONTROL = 2;
const ENABLE = 1 << 15;
const FUNCTION_MASK = 1 << 14;
const PAGE = 4096;
const ENTRY_SIZE = 16;
const ENTRY_MASKED = 1;

/** Calls back when software arms, moves or masks a vector: so that irqfds can follow. */
export type VectorObserver = (vector: number) => void;

/** The MSI-X capability, its vector table and pending bits (PCI 3.0, section 6.8.2). */
export class Msix {
  readonly vectors: number;
  readonly #name: string;
  readonly table: MemoryRegion;
  readonly pending: MemoryRegion;
  readonly #config: ConfigSpace;
  readonly #offset: number;
  readonly #send: MessageSink;
  readonly #entries: Uint32Array;
  readonly #pendingBits: Uint32Array;
  vectorChanged: VectorObserver | undefined;

  constructor(name: string, config: ConfigSpace, declaration: MsixDeclaration, send: MessageSink) {
    this.vectors = declaration.vectors;
    this.#config = config;
    this.#send = send;
    this.#entries = new Uint32Array(declaration.vectors * 4);
    this.#pendingBits = new Uint32Array(Math.ceil(declaration.vectors / 64) * 2);
    this.#offset = config.addCapability(CAP_MSIX, 12, declaration.offset);
    const table = declaration.table ?? 0;
    const pendingAt = declaration.pba ?? Msix.pendingOffset(declaration);
    config.set16(this.#offset + CONTROL, declaration.vectors - 1);
    config.set32(this.#offset + 4, table | declaration.bar);
    config.set32(this.#offset + 8, pendingAt | (declaration.pbaBar ?? declaration.bar));
    config.mask16(config.writable, this.#offset + CONTROL, ENABLE | FUNCTION_MASK);
    this.table = MemoryRegion.io(
      'msix-table',
      declaration.vectors * ENTRY_SIZE,
      {
        read: (offset, size) => this.#readTable(offset, size),
        write: (offset, size, value) => this.#writeTable(offset, size, value),
      },
      { impl: { min: 4, max: 4 } },
    );
    this.pending = MemoryRegion.io(
      'msix-pba',
      this.#pendingBits.length * 4,
      {
        read: offset => this.#pendingBits[offset >>> 2] ?? 0,
        write: () => {},
      },
      { impl: { min: 4, max: 4 } },
    );
    this.#name = name;
    this.reset();
  }

  /** Where the pending bits go by default: half-way through a page-sized BAR, as QEMU's exclusive BARs. */
  static pendingOffset(declaration: MsixDeclaration): number {
    const tableEnd = (declaration.table ?? 0) + declaration.vectors * ENTRY_SIZE;
    return Math.max(0x800, (tableEnd + 0xfff) & ~0xfff & (tableEnd > 0x800 ? -1 : 0));
  }

  /** A BAR with nothing but the table and the pending bits; its size is a power of two. */
  exclusiveBar(declaration: MsixDeclaration): MemoryRegion {
    const pendingAt = declaration.pba ?? Msix.pendingOffset(declaration);
    const size = 2 ** Math.ceil(Math.log2(Math.max(PAGE, pendingAt + this.pending.size)));
    const contents = MemoryRegion.container(`${this.#name}-msix`, size);
    contents.add(this.table, declaration.table ?? 0);
    contents.add(this.pending, pendingAt);
    return contents;
  }

  get enabled(): boolean {
    return (this.#control() & ENABLE) !== 0;
  }

  #control(): number {
    return this.#config.get16(this.#offset + CONTROL);
  }

  /** Whether the vector is masked, by itself or with all others. */
  masked(vector: number): boolean {
    return (
      (this.#control() & FUNCTION_MASK) !== 0 || ((this.#entries[vector * 4 + 3] ?? ENTRY_MASKED) & ENTRY_MASKED) !== 0
    );
  }

  /** The message of `vector`: address and data. */
  message(vector: number): { address: number; data: number } {
    const at = vector * 4;
    return {
      address: (this.#entries[at + 1] ?? 0) * 0x1_0000_0000 + (this.#entries[at] ?? 0),
      data: this.#entries[at + 2] ?? 0,
    };
  }

  /** Signals `vector`; a masked one stays pending. */
  notify(vector: number): void {
    if (!this.enabled || vector >= this.vectors) return;
    if (this.masked(vector)) {
      this.#setPending(vector, true);
      return;
    }
    const at = vector * 4;
    this.#send((this.#entries[at + 1] ?? 0) * 0x1_0000_0000 + (this.#entries[at] ?? 0), this.#entries[at + 2] ?? 0);
  }

  /** Forgets a signal that waits for its vector's mask. */
  clearPending(vector: number): void {
    if (vector < this.vectors) this.#setPending(vector, false);
  }

  /** After software wrote configuration space: what enabling or unmasking the function releases. */
  configWritten(): void {
    if (!this.enabled) return;
    for (let vector = 0; vector < this.vectors; vector++) {
      this.vectorChanged?.(vector);
      this.#release(vector);
    }
  }

  reset(): void {
    this.#config.set16(this.#offset + CONTROL, this.#control() & ~(ENABLE | FUNCTION_MASK));
    this.#entries.fill(0);
    this.#pendingBits.fill(0);
    for (let vector = 0; vector < this.vectors; vector++) this.#entries[vector * 4 + 3] = ENTRY_MASKED;
  }

  save(): Uint32Array {
    return Uint32Array.of(...this.#entries, ...this.#pendingBits);
  }

  get savedLength(): number {
    return this.#entries.length + this.#pendingBits.length;
  }

  restore(words: Uint32Array): void {
    this.#entries.set(words.subarray(0, this.#entries.length));
    this.#pendingBits.set(words.subarray(this.#entries.length));
  }

  #readTable(offset: number, size: number): number {
    void size;
    return this.#entries[offset >>> 2] ?? 0;
  }

  #writeTable(offset: number, size: number, value: number): void {
    void size;
    this.#entries[offset >>> 2] = value;
    const vector = offset >>> 4;
    this.vectorChanged?.(vector);
    this.#release(vector);
  }

  #release(vector: number): void {
    if (this.#isPending(vector) && this.enabled && !this.masked(vector)) {
      this.#setPending(vector, false);
      this.notify(vector);
    }
  }

  #isPending(vector: number): boolean {
    return (((this.#pendingBits[vector >>> 5] ?? 0) >>> (vector & 31)) & 1) === 1;
  }

  #setPending(vector: number, pending: boolean): void {
    const bit = 1 << (vector & 31);
    const word = this.#pendingBits[vector >>> 5] ?? 0;
    this.#pendingBits[vector >>> 5] = pending ? word | bit : word & ~bit;
  }
}
