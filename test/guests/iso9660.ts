// ECMA-119 (ISO 9660), one folder, and the El Torito bootable CD-ROM format 1.0 with one image without emulation.
const BLOCK = 2048;
const SYSTEM_AREA_BLOCKS = 16;
const PRIMARY_LBA = SYSTEM_AREA_BLOCKS;
const BOOT_RECORD_LBA = PRIMARY_LBA + 1;
const TERMINATOR_LBA = PRIMARY_LBA + 2;
const PATH_TABLE_LE_LBA = PRIMARY_LBA + 3;
const PATH_TABLE_BE_LBA = PRIMARY_LBA + 4;
const ROOT_LBA = PRIMARY_LBA + 5;
const CATALOG_LBA = PRIMARY_LBA + 6;
const FIRST_FILE_LBA = PRIMARY_LBA + 7;
const PATH_TABLE_SIZE = 10;
/** Readers fetch ahead and take a failure there for one of the whole read: mkisofs -pad adds as much. */
const PADDING_BLOCKS = 150;

export interface IsoFile {
  /** At most 30 letters, digits and dots; case is lost, as the standard has capitals only. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

/**
 * A CD image.
 * @param bootImage what the BIOS loads and runs; gets a boot information table at offset 8 (as mkisofs -boot-info-table)
 */
export function iso9660(files: readonly IsoFile[], bootImage: Uint8Array): Uint8Array {
  let next = FIRST_FILE_LBA;
  const place = (bytes: Uint8Array): number => {
    const lba = next;
    next += Math.max(1, Math.ceil(bytes.length / BLOCK));
    return lba;
  };
  const bootLba = place(bootImage);
  const placed = files.map(file => ({ ...file, lba: place(file.bytes) }));
  next += PADDING_BLOCKS;
  const image = new Uint8Array(next * BLOCK);
  const root = rootFolder(placed);
  image.set(primaryDescriptor(next), PRIMARY_LBA * BLOCK);
  image.set(bootRecord(), BOOT_RECORD_LBA * BLOCK);
  image.set(descriptor(255), TERMINATOR_LBA * BLOCK);
  image.set(pathTable(true), PATH_TABLE_LE_LBA * BLOCK);
  image.set(pathTable(false), PATH_TABLE_BE_LBA * BLOCK);
  image.set(root, ROOT_LBA * BLOCK);
  image.set(bootCatalog(bootLba), CATALOG_LBA * BLOCK);
  image.set(withInformationTable(bootImage, bootLba), bootLba * BLOCK);
  for (const { bytes, lba } of placed) image.set(bytes, lba * BLOCK);
  return image;
}

function descriptor(type: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(BLOCK);
  bytes[0] = type;
  text(bytes, 1, 'CD001', 5);
  bytes[6] = 1;
  return bytes;
}

/** ECMA-119, 8.4. */
function primaryDescriptor(blocks: number): Uint8Array {
  const bytes = descriptor(1);
  const view = new DataView(bytes.buffer);
  text(bytes, 8, '', 32);
  text(bytes, 40, 'SOUTHBRIDGE', 32);
  both32(view, 80, blocks);
  both16(view, 120, 1);
  both16(view, 124, 1);
  both16(view, 128, BLOCK);
  both32(view, 132, PATH_TABLE_SIZE);
  view.setUint32(140, PATH_TABLE_LE_LBA, true);
  view.setUint32(148, PATH_TABLE_BE_LBA, false);
  bytes.set(folderRecord('\0', ROOT_LBA, BLOCK, true), 156);
  text(bytes, 190, '', 813 - 190);
  for (const at of [813, 830, 847, 864]) text(bytes, at, '0000000000000000', 16);
  bytes[881] = 1;
  return bytes;
}

/** El Torito, section 2.0, figure 7. */
function bootRecord(): Uint8Array {
  const bytes = descriptor(0);
  bytes.set(new TextEncoder().encode('EL TORITO SPECIFICATION'), 7);
  new DataView(bytes.buffer).setUint32(0x47, CATALOG_LBA, true);
  return bytes;
}

/** El Torito, figures 2 and 3: the validation entry, and the default entry: four sectors of 512 bytes, no emulation. */
function bootCatalog(lba: number): Uint8Array {
  const bytes = new Uint8Array(64);
  const view = new DataView(bytes.buffer);
  bytes[0] = 1;
  view.setUint16(0x1e, 0xaa55, true);
  let sum = 0;
  for (let at = 0; at < 32; at += 2) sum += view.getUint16(at, true);
  view.setUint16(0x1c, -sum & 0xffff, true);
  bytes[0x20] = 0x88;
  view.setUint16(0x26, 4, true);
  view.setUint32(0x28, lba, true);
  return bytes;
}

function withInformationTable(boot: Uint8Array, lba: number): Uint8Array {
  const bytes = new Uint8Array(Math.ceil(boot.length / 4) * 4);
  bytes.set(boot);
  const view = new DataView(bytes.buffer);
  let sum = 0;
  for (let at = 64; at < bytes.length; at += 4) sum = (sum + view.getUint32(at, true)) >>> 0;
  view.setUint32(8, PRIMARY_LBA, true);
  view.setUint32(12, lba, true);
  view.setUint32(16, boot.length, true);
  view.setUint32(20, sum, true);
  return bytes.subarray(0, boot.length);
}

function rootFolder(files: readonly (IsoFile & { lba: number })[]): Uint8Array {
  const bytes = new Uint8Array(BLOCK);
  let at = 0;
  const add = (record: Uint8Array): void => {
    bytes.set(record, at);
    at += record.length;
  };
  add(folderRecord('\0', ROOT_LBA, BLOCK, true));
  add(folderRecord('\x01', ROOT_LBA, BLOCK, true));
  const sorted = files.toSorted((a, b) => (a.name.toUpperCase() < b.name.toUpperCase() ? -1 : 1));
  for (const { name, lba, bytes: contents } of sorted) {
    add(folderRecord(`${name.toUpperCase()}${name.includes('.') ? '' : '.'};1`, lba, contents.length, false));
  }
  return bytes;
}

/** ECMA-119, 9.1. */
function folderRecord(name: string, lba: number, size: number, folder: boolean): Uint8Array {
  const length = 33 + name.length + (name.length % 2 === 0 ? 1 : 0);
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  bytes[0] = length;
  both32(view, 2, lba);
  both32(view, 10, size);
  bytes[25] = folder ? 2 : 0;
  both16(view, 28, 1);
  bytes[32] = name.length;
  text(bytes, 33, name, name.length);
  return bytes;
}

/** ECMA-119, 9.4: the root alone. */
function pathTable(littleEndian: boolean): Uint8Array {
  const bytes = new Uint8Array(PATH_TABLE_SIZE);
  const view = new DataView(bytes.buffer);
  bytes[0] = 1;
  view.setUint32(2, ROOT_LBA, littleEndian);
  view.setUint16(6, 1, littleEndian);
  return bytes;
}

function both16(view: DataView, at: number, value: number): void {
  view.setUint16(at, value, true);
  view.setUint16(at + 2, value, false);
}

function both32(view: DataView, at: number, value: number): void {
  view.setUint32(at, value, true);
  view.setUint32(at + 4, value, false);
}

function text(bytes: Uint8Array, at: number, value: string, length: number): void {
  bytes.set(new TextEncoder().encode(value.padEnd(length).slice(0, length)), at);
}
