const ZEROES = Buffer.alloc(0x1_0000);

/** Whether `length` bytes from `start` on are all 0. */
export function isZero(bytes: Uint8Array, start = 0, length: number = bytes.length - start): boolean {
  if (length === 0) return true;
  // The ends decide most cases without a comparison.
  if (bytes[start] !== 0 || bytes[start + length - 1] !== 0) return false;
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset + start, length);
  for (let at = 0; at < length; at += ZEROES.length) {
    const size = Math.min(ZEROES.length, length - at);
    if (buffer.compare(ZEROES, 0, size, at, at + size) !== 0) return false;
  }
  return true;
}
