/**
 * The order in which QEMU writes the members of an object: that of the 512 chains of its hash table, the newest member of a
 * chain first. Scripts compare QMP's replies as text, so it is kept here.
 */
const CHAINS = 512;

const chains = new Map<string, number>();

/** The chain of a name: tdb's hash function, modulo the number of chains. */
function chainOf(name: string): number {
  const known = chains.get(name);
  if (known !== undefined) return known;
  const bytes = Buffer.from(name, 'utf8');
  let value = Math.imul(0x238f13af, bytes.length);
  for (const [index, byte] of bytes.entries()) value = (value + (byte << ((index * 5) % 24))) | 0;
  const chain = ((Math.imul(1103515243, value) + 12345) >>> 0) % CHAINS;
  // Names come from the schema, but for those of properties: no more are kept than a table of that size needs.
  if (chains.size < 4096) chains.set(name, chain);
  return chain;
}

/** The members of an object, in the order in which they are written. */
export function inOrder<T>(members: readonly (readonly [string, T])[]): (readonly [string, T])[] {
  return members
    .map((member, index) => ({ member, index, chain: chainOf(member[0]) }))
    .sort((a, b) => a.chain - b.chain || b.index - a.index)
    .map(({ member }) => member);
}
