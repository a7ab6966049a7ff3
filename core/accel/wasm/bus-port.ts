import type { GuestBus } from '../accelerator.ts';
import type { Imports } from './abi.ts';

export type BusImports = Pick<Imports, Extract<keyof Imports, `io_port_${string}` | `mmap_${string}`>>;

/**
 * Ports and memory outside RAM, as the module calls for them. An exception must not unwind through the module: the first
 * one is kept in `failure`, and the guest goes on with a floating bus until the slice ends.
 */
export class BusPort implements BusImports {
  #bus: GuestBus;
  /** Takes memory accesses instead of the bus, while set. */
  memory: Pick<GuestBus, 'memoryRead' | 'memoryWrite'>;
  readonly #failed: (error: unknown) => void;
  /** Called after each access to a port, while set. */
  portAccessed: (() => void) | undefined;
  /** Whether a byte that is read is the first of a word. */
  isWord: () => boolean = () => false;
  /** The second byte of the word whose first was just read, and where it is. */
  #secondAt = -1;
  #second = 0;

  constructor(bus: GuestBus, failed: (error: unknown) => void) {
    this.#bus = bus;
    this.memory = bus;
    this.#failed = failed;
  }

  /** Accesses go to `bus` from now on. */
  connect(bus: GuestBus): void {
    this.#bus = bus;
    this.memory = bus;
  }

  io_port_read8(port: number): number {
    return this.#portRead(port, 1);
  }
  io_port_read16(port: number): number {
    return this.#portRead(port, 2);
  }
  io_port_read32(port: number): number {
    return this.#portRead(port, 4);
  }
  io_port_write8(port: number, value: number): void {
    this.#portWrite(port, 1, value & 0xff);
  }
  io_port_write16(port: number, value: number): void {
    this.#portWrite(port, 2, value & 0xffff);
  }
  io_port_write32(port: number, value: number): void {
    this.#portWrite(port, 4, value >>> 0);
  }
  mmap_read8(address: number): number {
    address >>>= 0;
    if (address === this.#secondAt) {
      this.#secondAt = -1;
      return this.#second;
    }
    if ((address & 1) !== 0 || !this.isWord()) return this.#memoryRead(address, 1);
    const word = this.#memoryRead(address, 2);
    this.#secondAt = address + 1;
    this.#second = (word >>> 8) & 0xff;
    return word & 0xff;
  }
  mmap_read32(address: number): number {
    return this.#memoryRead(address >>> 0, 4);
  }
  mmap_write8(address: number, value: number): void {
    this.#memoryWrite(address >>> 0, 1, value & 0xff);
  }
  mmap_write16(address: number, value: number): void {
    this.#memoryWrite(address >>> 0, 2, value & 0xffff);
  }
  mmap_write32(address: number, value: number): void {
    this.#memoryWrite(address >>> 0, 4, value >>> 0);
  }
  mmap_write64(address: number, low: number, high: number): void {
    this.mmap_write32(address, low);
    this.mmap_write32(address + 4, high);
  }
  mmap_write128(address: number, a: number, b: number, c: number, d: number): void {
    this.mmap_write64(address, a, b);
    this.mmap_write64(address + 8, c, d);
  }

  /** These functions as free ones. */
  imports(): BusImports {
    return {
      io_port_read8: port => this.io_port_read8(port),
      io_port_read16: port => this.io_port_read16(port),
      io_port_read32: port => this.io_port_read32(port),
      io_port_write8: (port, value) => this.io_port_write8(port, value),
      io_port_write16: (port, value) => this.io_port_write16(port, value),
      io_port_write32: (port, value) => this.io_port_write32(port, value),
      mmap_read8: address => this.mmap_read8(address),
      mmap_read32: address => this.mmap_read32(address),
      mmap_write8: (address, value) => this.mmap_write8(address, value),
      mmap_write16: (address, value) => this.mmap_write16(address, value),
      mmap_write32: (address, value) => this.mmap_write32(address, value),
      mmap_write64: (address, low, high) => this.mmap_write64(address, low, high),
      mmap_write128: (address, a, b, c, d) => this.mmap_write128(address, a, b, c, d),
    };
  }

  #portRead(port: number, size: number): number {
    try {
      const value = this.#bus.portRead(port & 0xffff, size);
      this.portAccessed?.();
      return value;
    } catch (error) {
      this.#failed(error);
      return -1;
    }
  }

  #portWrite(port: number, size: number, value: number): void {
    try {
      this.#bus.portWrite(port & 0xffff, size, value);
      this.portAccessed?.();
    } catch (error) {
      this.#failed(error);
    }
  }

  #memoryRead(address: number, size: number): number {
    try {
      return this.memory.memoryRead(address, size);
    } catch (error) {
      this.#failed(error);
      return size === 1 ? 0xff : -1;
    }
  }

  #memoryWrite(address: number, size: number, value: number): void {
    try {
      this.memory.memoryWrite(address, size, value);
    } catch (error) {
      this.#failed(error);
    }
  }
}
