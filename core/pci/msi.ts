import type { ConfigSpace } from './config-space.ts';
import type { MsiDeclaration } from './identity.ts';

const CAP_MSI = 0x05;
const CONTROL = 2;
const ENABLE = 1 << 0;
const MULTIPLE_ENABLE = 0x70;
const WIDE = 1 << 7;
const MASKABLE = 1 << 8;

/** Where a message-signalled interrupt goes: a 32-bit write on the bus. */
export type MessageSink = (address: number, data: number) => void;

/** The MSI capability (PCI 3.0, section 6.8.1). */
export class Msi {
  readonly #config: ConfigSpace;
  readonly #offset: number;
  readonly #vectors: number;
  readonly #wide: boolean;
  readonly #maskable: boolean;
  readonly #send: MessageSink;

  constructor(config: ConfigSpace, declaration: MsiDeclaration, send: MessageSink) {
    this.#config = config;
    this.#vectors = declaration.vectors;
    this.#wide = declaration.wide ?? true;
    this.#maskable = declaration.maskable ?? false;
    this.#send = send;
    const offset = config.addCapability(CAP_MSI, this.#size(), declaration.offset);
    this.#offset = offset;
    const log2 = Math.log2(declaration.vectors);
    config.set16(offset + CONTROL, (log2 << 1) | (this.#wide ? WIDE : 0) | (this.#maskable ? MASKABLE : 0));
    config.mask16(config.writable, offset + CONTROL, ENABLE | MULTIPLE_ENABLE);
    config.mask32(config.writable, offset + 4, 0xffff_fffc);
    if (this.#wide) config.mask32(config.writable, offset + 8, 0xffff_ffff);
    config.mask16(config.writable, this.#dataOffset(), 0xffff);
    if (this.#maskable)
      config.mask32(config.writable, this.#maskOffset(), this.#vectors === 32 ? 0xffff_ffff : (1 << this.#vectors) - 1);
  }

  get enabled(): boolean {
    return (this.#config.get16(this.#offset + CONTROL) & ENABLE) !== 0;
  }

  #size(): number {
    return (this.#wide ? 14 : 10) + (this.#maskable ? 10 : 0);
  }

  #dataOffset(): number {
    return this.#offset + (this.#wide ? 12 : 8);
  }

  #maskOffset(): number {
    return this.#offset + (this.#wide ? 16 : 12);
  }

  #pendingOffset(): number {
    return this.#maskOffset() + 4;
  }

  /** How many vectors software has allowed: a power of two. */
  get allocated(): number {
    return Math.min(this.#vectors, 1 << ((this.#config.get16(this.#offset + CONTROL) & MULTIPLE_ENABLE) >> 4));
  }

  /** Signals `vector`; a masked one stays pending. */
  notify(vector: number): void {
    if (!this.enabled) return;
    if (this.#maskable && ((this.#config.get32(this.#maskOffset()) >>> vector) & 1) === 1) {
      this.#config.set32(this.#pendingOffset(), (this.#config.get32(this.#pendingOffset()) | (1 << vector)) >>> 0);
      return;
    }
    const { allocated } = this;
    const high = this.#wide ? this.#config.get32(this.#offset + 8) : 0;
    const data = this.#config.get16(this.#dataOffset());
    this.#send(
      high * 0x1_0000_0000 + this.#config.get32(this.#offset + 4),
      allocated > 1 ? (data & ~(allocated - 1)) | (vector & (allocated - 1)) : data,
    );
  }

  /** After software wrote configuration space: vectors that were unmasked are signalled. */
  configWritten(): void {
    this.#limitAllocation();
    if (!this.#maskable || !this.enabled) return;
    const ready = this.#config.get32(this.#pendingOffset()) & ~this.#config.get32(this.#maskOffset());
    if (ready === 0) return;
    this.#config.set32(this.#pendingOffset(), this.#config.get32(this.#pendingOffset()) & ~ready);
    for (let vector = 0; vector < this.#vectors; vector++) if ((ready >>> vector) & 1) this.notify(vector);
  }

  /** Software is told how many vectors it may have; asking for more gets that many. */
  #limitAllocation(): void {
    const config = this.#config;
    const control = config.get16(this.#offset + CONTROL);
    if ((control & MULTIPLE_ENABLE) >> 4 <= Math.log2(this.#vectors)) return;
    config.set16(this.#offset + CONTROL, (control & ~MULTIPLE_ENABLE) | (Math.log2(this.#vectors) << 4));
  }

  reset(): void {
    const config = this.#config;
    config.set16(this.#offset + CONTROL, config.get16(this.#offset + CONTROL) & ~(ENABLE | MULTIPLE_ENABLE));
    config.set32(this.#offset + 4, 0);
    if (this.#wide) config.set32(this.#offset + 8, 0);
    config.set16(this.#dataOffset(), 0);
    if (this.#maskable) {
      config.set32(this.#maskOffset(), 0);
      config.set32(this.#pendingOffset(), 0);
    }
  }
}
