/** Sizes of buffers that are kept: powers of two from a page to what one request of a guest usually has at most. */
const SMALLEST_SHIFT = 12;
const LARGEST_SHIFT = 20;
/** Buffers of one size that are kept. */
const KEPT = 64;
const WASM_PAGE = 0x1_0000;

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
  return stack.pop() ?? fill(stack, 2 ** shift);
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

/** A WebAssembly page makes several small buffers. */
function fill(stack: Uint8Array[], size: number): Uint8Array {
  const whole = pageBuffer(Math.max(size, WASM_PAGE));
  for (let at = size; at < whole.length; at += size) stack.push(whole.subarray(at, at + size));
  return whole.subarray(0, size);
}
