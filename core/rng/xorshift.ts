/** The number that follows: Marsaglia's xorshift of 32 bits (Journal of Statistical Software 8, 2003). Nothing but zero follows zero. */
export function xorshift(value: number): number {
  let next = value;
  next ^= next << 13;
  next ^= next >>> 17;
  next ^= next << 5;
  return next;
}

/** Numbers in [0, 1) that repeat with their seed. */
export function seededRandom(seed: number): () => number {
  let value = seed | 0 || 1;
  return () => {
    value = xorshift(value);
    return (value >>> 0) / 2 ** 32;
  };
}
