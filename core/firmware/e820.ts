/** The memory map in `etc/e820`, which firmware passes on through INT 15h/E820. */
import { concat, u32, u64 } from './aml.ts';

export const E820_FILE = 'etc/e820';

/** Address range types (ACPI 6.4 table 15.2). */
export const E820_TYPES = { ram: 1, reserved: 2, acpi: 3, nvs: 4, unusable: 5 } as const;

export interface E820Entry {
  readonly base: number;
  readonly length: number;
  readonly type: keyof typeof E820_TYPES;
}

/** AMD's HyperTransport keeps 12 GiB below 1 TiB to itself. */
export const AMD_HYPERTRANSPORT: E820Entry = { base: 0xfd_0000_0000, length: 0x3_0000_0000, type: 'reserved' };

/** The file: entries of 20 bytes, in the order given. */
export function e820File(entries: readonly E820Entry[]): Uint8Array {
  return concat(...entries.map(entry => concat(u64(entry.base), u64(entry.length), u32(E820_TYPES[entry.type]))));
}
