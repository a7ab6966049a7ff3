import { SouthbridgeError } from '../errors.ts';
import { mapFileOver, preferHugePages } from '../host/files.ts';
import { isSystemError } from '../host/native.ts';

const WASM_PAGE = 0x1_0000;
const GIB = 2 ** 30;
/** Of x86, in bytes. */
const HUGE_PAGE = 2 << 20;

/** The largest single stretch of guest RAM, in bytes: a WebAssembly memory ends at 4 GiB. */
export const MAX_GUEST_RAM = 4 * GIB;

/**
 * One stretch of guest RAM: page-aligned host memory that devices, threads and the accelerator all see as the same bytes.
 *
 * The views may be replaced when an accelerator that owns the memory grows it (wasm), so nobody keeps one across a call
 * that may run the guest; `generation` changes whenever that happened.
 */
export interface GuestRam {
  readonly name: string;
  /** Size in bytes. */
  readonly size: number;
  readonly bytes: Uint8Array<ArrayBufferLike>;
  readonly view: DataView<ArrayBufferLike>;
  readonly generation: number;
  /** Keeps the bytes at their address while somebody holds it; undefined where they may move while the guest runs. */
  readonly anchor: object | undefined;
  /** True where the guest can never write: a ROM image. */
  readonly readonly: boolean;
  /** The files whose pages it is, where it has any. */
  readonly files?: readonly RamFile[];
}

/** Pages of a file in the place of RAM. Offsets and sizes in bytes, multiples of 4 KiB. */
export interface RamFile {
  /** Where in the RAM they begin. */
  readonly start: number;
  readonly size: number;
  readonly fd: number;
  readonly offset: number;
  /** Whether what is written reaches the file, and whoever else maps it. */
  readonly shared: boolean;
}

/**
 * Guest RAM in a shared WebAssembly memory: the address goes straight to KVM_SET_USER_MEMORY_REGION, and the pages are
 * committed by the host only as the guest touches them.
 */
export class SharedRam implements GuestRam {
  readonly name: string;
  readonly size: number;
  readonly bytes: Uint8Array<ArrayBufferLike>;
  readonly view: DataView<ArrayBufferLike>;
  readonly generation = 0;
  readonly anchor: object;
  readonly readonly: boolean;
  readonly files: readonly RamFile[];

  /**
   * @param size bytes, more than 0 and at most {@link MAX_GUEST_RAM}
   * @throws SouthbridgeError ERR_RAM_SIZE where the size is not possible, ERR_RAM_ALLOCATION where the host refuses it
   */
  constructor(name: string, size: number, options: { readonly?: boolean; files?: readonly RamFile[] } = {}) {
    if (!Number.isInteger(size) || size <= 0 || size > MAX_GUEST_RAM) {
      throw new SouthbridgeError(
        'ERR_RAM_SIZE',
        `guest RAM '${name}' of ${size} bytes is not between 1 byte and 4 GiB`,
      );
    }
    const pages = Math.ceil(size / WASM_PAGE);
    let memory: WebAssembly.Memory;
    try {
      memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    } catch (cause) {
      throw new SouthbridgeError(
        'ERR_RAM_ALLOCATION',
        `the host cannot set aside ${(size / 2 ** 20).toFixed(0)} MiB for guest RAM '${name}'`,
        'ask for less with -m, or raise the limit on virtual memory (ulimit -v)',
        { cause },
      );
    }
    this.name = name;
    this.size = size;
    this.anchor = memory;
    this.readonly = options.readonly ?? false;
    this.bytes = new Uint8Array(memory.buffer, 0, size);
    this.view = new DataView(memory.buffer, 0, size);
    this.files = options.files ?? [];
    for (const file of this.files) this.#mapFile(file);
    if (size >= HUGE_PAGE && this.files.length === 0) preferHugePages(this.bytes);
  }

  /** The engine never moves a shared memory and gives it back whole, so other pages may lie in the place of its own. */
  #mapFile({ start, size, fd, offset, shared }: RamFile): void {
    try {
      mapFileOver(this.bytes.subarray(start, start + size), fd, offset, shared);
    } catch (cause) {
      if (!isSystemError(cause)) throw cause;
      throw new SouthbridgeError(
        'ERR_RAM_ALLOCATION',
        `guest RAM '${this.name}' cannot be the pages of a file: ${cause.message}`,
        undefined,
        { cause },
      );
    }
  }
}
