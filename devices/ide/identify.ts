/** IDENTIFY DEVICE and IDENTIFY PACKET DEVICE data (ATA/ATAPI-6, sections 8.15 and 8.16). */
import { MAX_MULTIPLE, SECTOR } from './task-file.ts';

const WORDS = 256;

export interface DriveIdentity {
  readonly serial: string;
  readonly version: string;
  readonly model: string;
  readonly wwn: bigint;
  /** Commands that a SATA host may queue; 0 without NCQ. */
  readonly queueDepth: number;
}

export interface DiskFacts extends DriveIdentity {
  readonly sectors: number;
  readonly cylinders: number;
  readonly heads: number;
  readonly sectorsPerTrack: number;
  readonly multiple: number;
  readonly writeCache: boolean;
  readonly trim: boolean;
  readonly rotationRate: number;
  /** log2 of logical sectors in a physical one. */
  readonly physicalExponent: number;
  /** Words 62, 63 and 88: modes supported, and the one that is selected. */
  readonly modes: readonly [singleWord: number, multiword: number, ultra: number];
}

/** Bytes of a string swapped in pairs and padded with blanks, as ATA has them. */
function putString(words: Uint16Array, at: number, text: string, bytes: number): void {
  const padded = text.padEnd(bytes, ' ').slice(0, bytes);
  for (let index = 0; index < bytes / 2; index++) {
    words[at + index] = (padded.charCodeAt(2 * index) << 8) | (padded.charCodeAt(2 * index + 1) & 0xff);
  }
}

function putIdentity(words: Uint16Array, identity: DriveIdentity): void {
  putString(words, 10, identity.serial, 20);
  words[20] = 3;
  words[21] = 512;
  words[22] = 4;
  putString(words, 23, identity.version, 8);
  putString(words, 27, identity.model, 40);
  words[48] = 1;
  if (identity.queueDepth > 0) {
    words[75] = identity.queueDepth - 1;
    words[76] = 1 << 8;
  }
  for (let index = 0; index < 4; index++)
    words[108 + index] = Number((identity.wwn >> BigInt(48 - 16 * index)) & 0xffffn);
}

function put32(words: Uint16Array, at: number, value: number): void {
  words[at] = value;
  words[at + 1] = value / 0x1_0000;
}

export function identifyDisk(facts: DiskFacts): Uint16Array {
  const words = new Uint16Array(WORDS);
  putIdentity(words, facts);
  const { cylinders, heads, sectorsPerTrack } = facts;
  words[0] = 0x0040;
  words[1] = cylinders;
  words[3] = heads;
  words[4] = SECTOR * sectorsPerTrack;
  words[5] = SECTOR;
  words[6] = sectorsPerTrack;
  words[47] = 0x8000 | MAX_MULTIPLE;
  words[49] = (1 << 11) | (1 << 9) | (1 << 8);
  words[51] = 0x200;
  words[52] = 0x200;
  words[53] = 7;
  words[54] = cylinders;
  words[55] = heads;
  words[56] = sectorsPerTrack;
  put32(words, 57, cylinders * heads * sectorsPerTrack);
  if (facts.multiple > 0) words[59] = 0x100 | facts.multiple;
  put32(words, 60, Math.min(facts.sectors, 2 ** 28 - 1));
  [words[62], words[63], words[88]] = facts.modes;
  words[64] = 3;
  words.fill(120, 65, 69);
  if (facts.trim) words[69] = 1 << 14;
  words[80] = 0xf0;
  words[81] = 0x16;
  const wwn = facts.wwn === 0n ? 0 : 1 << 8;
  const cache = facts.writeCache ? 1 << 5 : 0;
  words[82] = (1 << 14) | (1 << 5) | 1;
  words[83] = (1 << 14) | (1 << 13) | (1 << 12) | (1 << 10);
  words[84] = (1 << 14) | wwn;
  words[85] = (1 << 14) | cache | 1;
  words[86] = (1 << 13) | (1 << 12) | (1 << 10);
  words[87] = (1 << 14) | wwn;
  words[93] = 1 | (1 << 14) | 0x2000;
  put32(words, 100, facts.sectors % 2 ** 32);
  put32(words, 102, Math.floor(facts.sectors / 2 ** 32));
  words[106] = 0x6000 | facts.physicalExponent;
  if (facts.trim) words[169] = 1;
  words[217] = facts.rotationRate;
  return words;
}

export function identifyPacketDevice(identity: DriveIdentity, modes: DiskFacts['modes']): Uint16Array {
  const words = new Uint16Array(WORDS);
  putIdentity(words, identity);
  // A removable CD-ROM that answers within 50 us and takes packets of 12 bytes.
  words[0] = (2 << 14) | (5 << 8) | (1 << 7) | (2 << 5);
  words[49] = (1 << 9) | (1 << 8);
  words[53] = 7;
  [words[62], words[63], words[88]] = modes;
  words[64] = 3;
  words[65] = 0xb4;
  words[66] = 0xb4;
  words[67] = 0x12c;
  words[68] = 0xb4;
  words[71] = 30;
  words[72] = 30;
  words[80] = 0x1e;
  if (identity.wwn !== 0n) {
    words[84] = 1 << 8;
    words[87] = 1 << 8;
  }
  return words;
}
