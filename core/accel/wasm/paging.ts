const CR0_PG = 1 << 31;
const CR4_PSE = 1 << 4;
const CR4_PAE = 1 << 5;
const PRESENT = 1;
const LARGE = 1 << 7;

/** Reads the aligned 32-bit word at a guest-physical address; undefined where there is no RAM. */
export type ReadPhysical = (address: number) => number | undefined;

/**
 * Walks the guest's page tables (Intel SDM volume 3, sections 4.3 and 4.4) without leaving a trace in them.
 * Returns the guest-physical address of `linear`, or undefined where nothing is mapped.
 */
export function translate(
  linear: number,
  cr0: number,
  cr3: number,
  cr4: number,
  read: ReadPhysical,
): number | undefined {
  if ((cr0 & CR0_PG) === 0) return linear;
  return (cr4 & CR4_PAE) !== 0
    ? translatePae(linear, cr3, read)
    : translate32(linear, cr3, (cr4 & CR4_PSE) !== 0, read);
}

function translate32(linear: number, cr3: number, largePages: boolean, read: ReadPhysical): number | undefined {
  const directory = read(((cr3 & ~0xfff) >>> 0) + 4 * (linear >>> 22)) ?? 0;
  if ((directory & PRESENT) === 0) return undefined;
  if (largePages && (directory & LARGE) !== 0) return ((directory & ~0x3f_ffff) | (linear & 0x3f_ffff)) >>> 0;
  const entry = read(((directory & ~0xfff) >>> 0) + 4 * ((linear >>> 12) & 0x3ff)) ?? 0;
  return (entry & PRESENT) !== 0 ? ((entry & ~0xfff) | (linear & 0xfff)) >>> 0 : undefined;
}

/** Guest RAM ends below 4 GiB, so the high halves of entries are 0. */
function translatePae(linear: number, cr3: number, read: ReadPhysical): number | undefined {
  const pointer = read(((cr3 & ~31) >>> 0) + 8 * (linear >>> 30)) ?? 0;
  if ((pointer & PRESENT) === 0) return undefined;
  const directory = read(((pointer & ~0xfff) >>> 0) + 8 * ((linear >>> 21) & 0x1ff)) ?? 0;
  if ((directory & PRESENT) === 0) return undefined;
  if ((directory & LARGE) !== 0) return ((directory & ~0x1f_ffff) | (linear & 0x1f_ffff)) >>> 0;
  const entry = read(((directory & ~0xfff) >>> 0) + 8 * ((linear >>> 12) & 0x1ff)) ?? 0;
  return (entry & PRESENT) !== 0 ? ((entry & ~0xfff) | (linear & 0xfff)) >>> 0 : undefined;
}
