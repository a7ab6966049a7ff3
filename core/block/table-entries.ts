/** Tables of 32-bit entries that images keep in files. */

const ENTRY = 4;
const PER_SECTOR = 512 / ENTRY;

export type ByteOrder = 'little' | 'big';

export function entriesOf(bytes: Buffer, order: ByteOrder = 'little'): Uint32Array {
  const entries = new Uint32Array(bytes.length / ENTRY);
  for (let index = 0; index < entries.length; index++)
    entries[index] = order === 'little' ? bytes.readUInt32LE(index * ENTRY) : bytes.readUInt32BE(index * ENTRY);
  return entries;
}

/** Which sector of the table, of 512 bytes, has the entry. */
export function sectorOfEntry(index: number): number {
  return Math.floor(index / PER_SECTOR);
}

/** One sector of the table as the file has it; the last may be shorter. */
export function sectorBytes(table: Uint32Array, sector: number, order: ByteOrder = 'little'): Buffer {
  const entries = table.subarray(sector * PER_SECTOR, (sector + 1) * PER_SECTOR);
  const bytes = Buffer.alloc(entries.length * ENTRY);
  for (const [index, entry] of entries.entries())
    if (order === 'little') bytes.writeUInt32LE(entry, index * ENTRY);
    else bytes.writeUInt32BE(entry, index * ENTRY);
  return bytes;
}
