/** A place in `v86.wasm` where the CPU is not the manual's, and the code that makes it so. */
interface Correction {
  /** Machine code that is in the module once, in hexadecimal. */
  readonly found: string;
  /** As much code in its stead. */
  readonly wanted: string;
}

const CORRECTIONS: readonly Correction[] = [
  // With PAE a directory entry's PS bit counts whatever CR4.PSE says (Intel SDM volume 3, section 4.4.2): the page walk asks for PSE
  // alone, and takes a page of 2 MiB for a table. memtest86+ leaves PSE clear. `cr4 & PSE` becomes `cr4 & (PSE | PAE)`.
  { found: '2008411071450d00200741800171', wanted: '2008413071450d00200741800171' },
];

/** Corrects the module's bytes in place. Returns what was not found as it should be, if anything. */
export function correct(module: Buffer): string | undefined {
  for (const { found, wanted } of CORRECTIONS) {
    const at = module.indexOf(found, 0, 'hex');
    if (at < 0 || module.indexOf(found, at + 1, 'hex') >= 0) return `the code ${found} is not in it just once`;
    module.write(wanted, at, 'hex');
  }
  return undefined;
}
