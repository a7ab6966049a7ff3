/** What a card says of itself (SD Physical Layer Simplified Specification 3.01, chapter 5), and fixed patterns. */

/** Larger cards are of high capacity, and are addressed by blocks. */
export const STANDARD_MAX = 2 ** 31;
export const BLOCK = 512;
const BLOCK_SHIFT = 9;
/** Write protect groups: 128 erase sectors of 32 blocks. */
export const GROUP = 2 ** 21;
/** Blocks of 512 bytes in the unit of C_SIZE. */
const MULTIPLIER_SHIFT = 9;
const SECTOR_BLOCKS = 64;
const GROUP_SECTORS = 256;

/** The checksum of commands and registers, x^7 + x^3 + 1 (section 4.5). */
export function crc7(bytes: Uint8Array, length: number): number {
  let crc = 0;
  for (let index = 0; index < length; index++) {
    let byte = bytes[index] ?? 0;
    for (let bit = 0; bit < 8; bit++, byte <<= 1) {
      crc <<= 1;
      if (((byte ^ crc) & 0x80) !== 0) crc ^= 0x09;
    }
  }
  return crc & 0x7f;
}

function withCrc(register: Uint8Array): Uint8Array {
  register[15] = (crc7(register, 15) << 1) | 1;
  return register;
}

/** CID (section 5.2): QEMU's card of February 2006. */
export function identification(): Uint8Array {
  const cid = new Uint8Array(16);
  cid.set([0xaa, ...Buffer.from('XYQEMU!', 'latin1'), 0x01, 0xde, 0xad, 0xbe, 0xef, 0x00, 0x62]);
  return withCrc(cid);
}

/** CSD (section 5.3), version 1 for standard and 2 for high capacity. */
export function specificData(size: number): Uint8Array {
  const csd = new Uint8Array(16);
  if (size > STANDARD_MAX) {
    const units = size / (512 * 1024) - 1;
    csd.set([0x40, 0x0e, 0x00, 0x32, 0x5b, 0x59, 0x00, units >>> 16, units >>> 8, units, 0x7f, 0x80, 0x0a, 0x40]);
    return withCrc(csd);
  }
  // 2 GiB fit into C_SIZE only in blocks of 1 KiB.
  const shift = size === STANDARD_MAX ? BLOCK_SHIFT + 1 : BLOCK_SHIFT;
  const units = Math.max(0, Math.floor(size / 2 ** (MULTIPLIER_SHIFT + shift)) - 1);
  const sector = SECTOR_BLOCKS - 1;
  const group = GROUP_SECTORS - 1;
  const multiplier = MULTIPLIER_SHIFT - 2;
  csd.set([0x00, 0x26, 0x00, 0x32, 0x5f, 0x50 | shift]);
  csd.set([0xe0 | ((units >> 10) & 3), units >> 2, 0x3f | ((units << 6) & 0xc0), 0xfc | (multiplier >> 1)], 6);
  csd.set([0x40 | ((multiplier << 7) & 0x80) | (sector >> 1), ((sector << 7) & 0x80) | group], 10);
  csd.set([0x90 | (shift >> 2), 0x20 | ((shift << 6) & 0xc0)], 12);
  return withCrc(csd);
}

/** SCR (section 5.6): buses of one and four lines; erased blocks read as zeroes. `version` counts 1.10, 2.00, 3.01 from 1. */
export function configuration(version: number): Uint8Array {
  return Uint8Array.of(version === 1 ? 1 : 2, 0x25, version >= 3 ? 0x80 : 0, 0, 0, 0, 0, 0);
}

/** Functions that the card has in groups 1 to 6 (section 4.3.10.4): the first two bus speeds, and the default elsewhere. */
const FUNCTIONS = [0x8003, 0x8043, 0x8001, 0x8001, 0x8001, 0x8001] as const;

/** The status that CMD6 answers with. */
export function switchStatus(selected: readonly number[]): Uint8Array {
  const status = new Uint8Array(64);
  status[1] = 1; // mA
  for (const [index, functions] of FUNCTIONS.entries()) {
    status[12 - 2 * index] = functions >> 8;
    status[13 - 2 * index] = functions;
    const at = 16 - (index >> 1);
    status[at] = (status[at] ?? 0) | ((selected[index] ?? 0) << (4 * (index & 1)));
  }
  return status;
}

/** Table 4-2, for four data lines. */
export const TUNING_BLOCK = Uint8Array.from(
  Buffer.from(
    'ff0fff000ffcc3ccc33cccfffefffeefffdfffddfffbfffbbfff7fff77f7bdef' +
      'fff0fff00ffccc3ccc33cccfffefffeefffdfffddfffbfffbbfff7fff77f7bde',
    'hex',
  ),
);
