import { frameChecksum } from '../../core/net/ethernet.ts';
import type { MicrowireEeprom } from '../microwire-eeprom.ts';

const BYTES = 128;
/** Where things are (Digital Semiconductor, "21X4 serial ROM format", version 4). */
const AT = { SUBSYSTEM: 0, ID_CHECKSUM: 16, VERSION: 18, CONTROLLERS: 19, MAC: 20, LEAF: 27, CHECKSUM: 126 } as const;
const ID_BYTES = 18;
const LEAF = 0x1e;
/** What the controller's leaf says: media are found out, by one block. */
const AUTOSENSE = 0x0800;
/** A block of type 3: a transceiver on the MII. */
const MII_BLOCK = { LENGTH: 0x8d, TYPE: 3 } as const;
/** All of 10 and 100 Mbit/s, in the bits of BMSR; what is advertised, in those of ANAR; full duplex and threshold modes by medium. */
const MEDIA = { CAPABILITIES: 0x7800, ADVERTISED: 0x01e0, FULL_DUPLEX: 0x5000, THRESHOLD: 0x1800 } as const;

/** Writes what the factory does: who the card is, its address, and which media it has. */
export function programSerialRom(
  rom: MicrowireEeprom,
  mac: Uint8Array,
  subsystem: readonly [vendor: number, id: number],
): void {
  const bytes = new Uint8Array(BYTES);
  const view = new DataView(bytes.buffer);
  view.setUint16(AT.SUBSYSTEM, subsystem[0], true);
  view.setUint16(AT.SUBSYSTEM + 2, subsystem[1], true);
  bytes[AT.VERSION] = 4;
  bytes[AT.CONTROLLERS] = 1;
  bytes.set(mac, AT.MAC);
  view.setUint16(AT.LEAF, LEAF, true);
  view.setUint16(LEAF, AUTOSENSE, true);
  bytes[LEAF + 2] = 1;
  bytes.set([MII_BLOCK.LENGTH, MII_BLOCK.TYPE], LEAF + 3);
  const media = [MEDIA.CAPABILITIES, MEDIA.ADVERTISED, MEDIA.FULL_DUPLEX, MEDIA.THRESHOLD];
  for (const [index, value] of media.entries()) view.setUint16(LEAF + 8 + 2 * index, value, true);
  bytes[AT.ID_CHECKSUM] = idChecksum(bytes);
  view.setUint16(AT.CHECKSUM, frameChecksum(bytes, 0, AT.CHECKSUM) & 0xffff, true);
  for (let word = 0; word < BYTES / 2; word++) rom.program(word, view.getUint16(2 * word, true));
}

/** CRC-8 (x^8 + x^2 + x + 1) of the words before the checksum, each with its highest bit first. */
function idChecksum(bytes: Uint8Array): number {
  let crc = 0xff;
  for (let at = 0; at < ID_BYTES - 1; at++) {
    // The last word has the checksum in its low byte, and only its high byte counts.
    const byte = bytes[at ^ 1] ?? 0;
    for (let bit = 7; bit >= 0; bit--) {
      const carry = ((byte >> bit) & 1) ^ (crc >> 7);
      crc = ((crc << 1) & 0xff) ^ (carry !== 0 ? 0x07 : 0);
    }
  }
  return crc;
}
