/** Numbers in [0, 1) that repeat with their seed: Marsaglia's xorshift of 32 bits (Journal of Statistical Software 8, 2003). */
export function seededRandom(seed: number): () => number {
  // Nothing but zero follows zero.
  let value = seed | 0 || 1;
  return () => {
    value ^= value << 13;
    value ^= value >>> 17;
    value ^= value << 5;
    return (value >>> 0) / 2 ** 32;
  };
}
