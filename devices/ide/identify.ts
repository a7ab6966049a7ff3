/** IDENTIFY DEVICE and IDENTIFY PACKET DEVICE data (ATA/ATAPI-6, sections 8.15 and 8.16); word numbers are theirs. */
import { MAX_MULTIPLE, SECTOR } from './task-file.ts';

const MAX_LBA28 = 2 ** 28 - 1;
/** Modes 0 to 2 of single word and multiword DMA, 0 to 5 of Ultra DMA; the selected one is 8 bits higher. */
const SINGLE_WORD_MODES = 0x07;
const MULTIWORD_MODES = 0x07;
const ULTRA_MODES = 0x3f;
const ULTRA_5_SELECTED = 1 << 13;

export interface DriveIdentity {
  readonly serial: string;
  readonly version: string;
  readonly model: string;
  readonly wwn: bigint;
  /** Commands that a SATA host may queue; 0 without NCQ. */
  readonly queueDepth: number;
}

export interface DiskIdentity extends DriveIdentity {
  readonly sectorCount: number;
  readonly cylinders: number;
  readonly heads: number;
  readonly sectorsPerTrack: number;
  readonly multiple: number;
  readonly writeCache: boolean;
  readonly trim: boolean;
  /** In words 217: 0 not reported, 1 no rotation, else per minute. */
  readonly rotationRate: number;
  /** log2 of logical sectors in a physical one. */
  readonly physicalExponent: number;
}

function put(data: Uint8Array, word: number, value: number): void {
  data[2 * word] = value;
  data[2 * word + 1] = value >>> 8;
}

function put32(data: Uint8Array, word: number, value: number): void {
  put(data, word, value);
  put(data, word + 1, value >>> 16);
}

/** Bytes of a string swapped in pairs and padded with blanks. */
function putString(data: Uint8Array, word: number, text: string, bytes: number): void {
  for (let index = 0; index < bytes; index++)
    data[(2 * word + index) ^ 1] = index < text.length ? text.charCodeAt(index) : 0x20;
}

function putDrive(data: Uint8Array, drive: DriveIdentity): void {
  data.fill(0);
  putString(data, 10, drive.serial, 20);
  put(data, 20, 3);
  put(data, 21, 512);
  put(data, 22, 4);
  putString(data, 23, drive.version, 8);
  putString(data, 27, drive.model, 40);
  put(data, 48, 1);
  put(data, 53, 7);
  put(data, 62, SINGLE_WORD_MODES);
  put(data, 63, MULTIWORD_MODES);
  put(data, 64, 3);
  if (drive.queueDepth > 0) {
    put(data, 75, drive.queueDepth - 1);
    put(data, 76, 1 << 8);
  }
  put(data, 88, ULTRA_MODES | ULTRA_5_SELECTED);
  for (let index = 0; index < 4; index++)
    put(data, 108 + index, Number((drive.wwn >> BigInt(48 - 16 * index)) & 0xffffn));
}

export function identifyDisk(data: Uint8Array, disk: DiskIdentity): void {
  const { cylinders, heads, sectorsPerTrack } = disk;
  const hasWwn = disk.wwn === 0n ? 0 : 1 << 8;
  putDrive(data, disk);
  put(data, 0, 0x0040);
  put(data, 1, cylinders);
  put(data, 3, heads);
  put(data, 4, SECTOR * sectorsPerTrack);
  put(data, 5, SECTOR);
  put(data, 6, sectorsPerTrack);
  put(data, 47, 0x8000 | MAX_MULTIPLE);
  put(data, 49, (1 << 11) | (1 << 9) | (1 << 8));
  put(data, 51, 0x200);
  put(data, 52, 0x200);
  put(data, 54, cylinders);
  put(data, 55, heads);
  put(data, 56, sectorsPerTrack);
  put32(data, 57, cylinders * heads * sectorsPerTrack);
  if (disk.multiple > 0) put(data, 59, 0x100 | disk.multiple);
  for (let word = 65; word <= 68; word++) put(data, word, 120);
  if (disk.trim) put(data, 69, 1 << 14);
  put(data, 80, 0xf0);
  put(data, 81, 0x16);
  put(data, 82, (1 << 14) | (1 << 5) | 1);
  put(data, 83, (1 << 14) | (1 << 13) | (1 << 12) | (1 << 10));
  put(data, 84, (1 << 14) | hasWwn);
  setWriteCache(data, disk.writeCache);
  put(data, 86, (1 << 13) | (1 << 12) | (1 << 10));
  put(data, 87, (1 << 14) | hasWwn);
  put(data, 93, (1 << 14) | (1 << 13) | 1);
  put(data, 106, 0x6000 | disk.physicalExponent);
  if (disk.trim) put(data, 169, 1);
  put(data, 217, disk.rotationRate);
  putSize(data, disk.sectorCount);
}

export function identifyPacketDevice(data: Uint8Array, drive: DriveIdentity): void {
  putDrive(data, drive);
  // A removable CD-ROM that answers within 50 us and takes packets of 12 bytes.
  put(data, 0, (2 << 14) | (5 << 8) | (1 << 7) | (2 << 5));
  put(data, 49, (1 << 9) | (1 << 8));
  put(data, 65, 180);
  put(data, 66, 180);
  put(data, 67, 300);
  put(data, 68, 180);
  put(data, 71, 30);
  put(data, 72, 30);
  put(data, 80, 0x1e);
  if (drive.wwn === 0n) return;
  put(data, 84, 1 << 8);
  put(data, 87, 1 << 8);
}

/** Words 60 and 61, and 100 to 103: sectors that can be addressed with 28 and with 48 bits. */
export function putSize(data: Uint8Array, sectors: number): void {
  put32(data, 60, Math.min(sectors, MAX_LBA28));
  put32(data, 100, sectors % 2 ** 32);
  put32(data, 102, Math.floor(sectors / 2 ** 32));
}

/** Word 85: SMART is enabled, and the write cache may be. */
export function setWriteCache(data: Uint8Array, enabled: boolean): void {
  put(data, 85, (1 << 14) | (enabled ? 1 << 5 : 0) | 1);
}

/** SET FEATURES, set transfer mode (table 44): PIO, single word, multiword or Ultra DMA. False for none of them. */
export function setModes(data: Uint8Array, mode: number): boolean {
  const kind = mode >> 3;
  if (kind !== 0 && kind !== 1 && kind !== 2 && kind !== 4 && kind !== 8) return false;
  const selected = 1 << ((mode & 7) + 8);
  put(data, 62, SINGLE_WORD_MODES | (kind === 2 ? selected : 0));
  put(data, 63, MULTIWORD_MODES | (kind === 4 ? selected : 0));
  put(data, 88, ULTRA_MODES | (kind === 8 ? selected : 0));
  return true;
}
