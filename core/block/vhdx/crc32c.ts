/** CRC-32C (Castagnoli), reflected, as RFC 3720 B.4 has it. */
const POLYNOMIAL = 0x82f63b78;

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = (value & 1) === 0 ? value >>> 1 : (value >>> 1) ^ POLYNOMIAL;
  return value;
});

/** The checksum of `bytes`, with the four bytes at `hole` taken for zeroes: where it is kept itself. */
export function crc32c(bytes: Uint8Array, hole: number): number {
  let crc = 0xffff_ffff;
  for (let at = 0; at < bytes.length; at++) {
    const byte = at >= hole && at < hole + 4 ? 0 : (bytes[at] ?? 0);
    crc = (crc >>> 8) ^ (table[(crc ^ byte) & 0xff] ?? 0);
  }
  return ~crc >>> 0;
}
