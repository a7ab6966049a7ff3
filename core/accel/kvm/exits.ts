import type { GuestBus } from '../accelerator.ts';
import { PIO_DATA_BYTE, RUN_UNION } from './abi.ts';

/** struct kvm_run's `io` and `mmio` members, as words. */
const IO_DIRECTION_SIZE_PORT = RUN_UNION;
const IO_COUNT = RUN_UNION + 1;
const MMIO_ADDRESS_LOW = RUN_UNION;
const MMIO_ADDRESS_HIGH = RUN_UNION + 1;
const MMIO_DATA_LOW = RUN_UNION + 2;
const MMIO_DATA_HIGH = RUN_UNION + 3;
const MMIO_LENGTH = RUN_UNION + 4;
const MMIO_IS_WRITE = RUN_UNION + 5;
const MMIO_DATA_BYTE = 4 * MMIO_DATA_LOW;

const IO_OUT = 1;
const PIO_DATA = PIO_DATA_BYTE / 4;
const TWO_32 = 2 ** 32;

/**
 * Answers one vCPU's port and memory exits in place in its kvm_run page. Nothing is allocated on the way; a register
 * above 2^31 crosses the bus as a heap number only where the call is not inlined.
 */
export class ExitServer {
  readonly words: Int32Array;
  readonly bytes: Uint8Array;
  readonly #halves: Uint16Array;
  readonly #bus: GuestBus;

  constructor(page: ArrayBuffer, bus: GuestBus) {
    this.words = new Int32Array(page);
    this.bytes = new Uint8Array(page);
    this.#halves = new Uint16Array(page);
    this.#bus = bus;
  }

  /** KVM_EXIT_IO (KVM API, section 5): one access, or the many of a string instruction. */
  io(): void {
    const words = this.words;
    const access = words[IO_DIRECTION_SIZE_PORT] ?? 0;
    const port = access >>> 16;
    const size = (access >> 8) & 0xff;
    if (words[IO_COUNT] !== 1) {
      this.#string(port, size, words[IO_COUNT] ?? 0, (access & 0xff) === IO_OUT);
      return;
    }
    if ((access & 0xff) === IO_OUT) {
      const data = words[PIO_DATA] ?? 0;
      this.#bus.portWrite(port, size, size === 1 ? data & 0xff : size === 2 ? data & 0xffff : data >>> 0);
    } else {
      words[PIO_DATA] = this.#bus.portRead(port, size);
    }
  }

  #string(port: number, size: number, count: number, out: boolean): void {
    const bus = this.#bus;
    if (out) {
      if (bus.portWriteString?.(port, size, this.bytes, PIO_DATA_BYTE, count) === true) return;
    } else if (bus.portReadString?.(port, size, this.bytes, PIO_DATA_BYTE, count) === true) {
      return;
    }
    const data: Int32Array | Uint16Array | Uint8Array =
      size === 1 ? this.bytes : size === 2 ? this.#halves : this.words;
    const start = PIO_DATA_BYTE / size;
    for (let index = start; index < start + count; index++) {
      if (out) bus.portWrite(port, size, (data[index] ?? 0) >>> 0);
      else data[index] = bus.portRead(port, size);
    }
  }

  /** KVM_EXIT_MMIO: 1, 2, 4 or 8 bytes, or what a page boundary left of them. */
  mmio(): void {
    const words = this.words;
    const address = (words[MMIO_ADDRESS_HIGH] ?? 0) * TWO_32 + ((words[MMIO_ADDRESS_LOW] ?? 0) >>> 0);
    const length = words[MMIO_LENGTH] ?? 0;
    const bus = this.#bus;
    if (((words[MMIO_IS_WRITE] ?? 0) & 0xff) !== 0) {
      const low = words[MMIO_DATA_LOW] ?? 0;
      if (length === 4) bus.memoryWrite(address, 4, low >>> 0);
      else if (length === 1) bus.memoryWrite(address, 1, low & 0xff);
      else if (length === 2) bus.memoryWrite(address, 2, low & 0xffff);
      else if (length === 8) {
        bus.memoryWrite(address, 4, low >>> 0);
        bus.memoryWrite(address + 4, 4, (words[MMIO_DATA_HIGH] ?? 0) >>> 0);
      } else this.#oddWrite(address, length);
    } else if (length === 1 || length === 2 || length === 4) {
      words[MMIO_DATA_LOW] = bus.memoryRead(address, length);
    } else if (length === 8) {
      words[MMIO_DATA_LOW] = bus.memoryRead(address, 4);
      words[MMIO_DATA_HIGH] = bus.memoryRead(address + 4, 4);
    } else {
      for (let index = 0; index < length; index++)
        this.bytes[MMIO_DATA_BYTE + index] = bus.memoryRead(address + index, 1);
    }
  }

  #oddWrite(address: number, length: number): void {
    for (let index = 0; index < length; index++) {
      this.#bus.memoryWrite(address + index, 1, this.bytes[MMIO_DATA_BYTE + index] ?? 0);
    }
  }
}
