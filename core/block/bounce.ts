import { preferHugePages } from '../host/files.ts';

/** Sizes of buffers that are kept: powers of two from a page to what one request of a guest usually has at most. */
const SMALLEST_SHIFT = 12;
const LARGEST_SHIFT = 20;
/** Buffers of one size that are kept. */
const KEPT = 64;
const WASM_PAGE = 0x1_0000;
/** Buffers are cut from slabs of huge pages: a disk takes one long segment in half the time of 32 short ones. */
const SLAB = 8 << 20;

const kept: Uint8Array[][] = Array.from({ length: LARGEST_SHIFT - SMALLEST_SHIFT + 1 }, () => []);
const ours = new WeakSet<ArrayBufferLike>();

const shiftFor = (bytes: number): number => Math.max(SMALLEST_SHIFT, 32 - Math.clz32(bytes - 1));

/**
 * Memory of at least `bytes` bytes that begins on a page: for O_DIRECT, and for what the host is to use while the guest runs
 * where guest RAM may move. Its content is left from before. Give it back with {@link giveBounce}.
 */
export function takeBounce(bytes: number): Uint8Array {
  const shift = shiftFor(bytes);
  const stack = kept[shift - SMALLEST_SHIFT];
  if (stack === undefined) return pageBuffer(bytes);
  return stack.pop() ?? cut(2 ** shift);
}

export function giveBounce(buffer: Uint8Array): void {
  const stack = kept[shiftFor(buffer.length) - SMALLEST_SHIFT];
  if (stack !== undefined && stack.length < KEPT) stack.push(buffer);
}

/** Whether the memory is of this kind, and so begins on a page. */
export function isPageBuffer({ buffer }: Uint8Array): boolean {
  return ours.has(buffer);
}

/** Memory of our own that begins on a page. */
export function pageBuffer(bytes: number): Uint8Array {
  const { buffer } = new WebAssembly.Memory({ initial: Math.ceil(bytes / WASM_PAGE) });
  ours.add(buffer);
  return new Uint8Array(buffer, 0, bytes);
}

let slab: Uint8Array = new Uint8Array(0);

/** The next buffer of the slab. */
function cut(size: number): Uint8Array {
  if (slab.length < size) {
    slab = pageBuffer(SLAB);
    preferHugePages(slab);
  }
  const buffer = slab.subarray(0, size);
  slab = slab.subarray(size);
  return buffer;
}
