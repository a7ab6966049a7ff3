/** Ethernet (IEEE 802.3, 802.1Q): what every card needs. Frames come without their checksum. */

export const ETHERNET = {
  ADDRESS: 6,
  /** Where the type is, and before it the VLAN tag. */
  TYPE: 12,
  /** Two addresses and a type. */
  HEADER: 14,
  /** The shortest frame without its checksum (IEEE 802.3, section 3.2.8). */
  SHORTEST: 60,
  CHECKSUM: 4,
  VLAN_HEADER: 4,
} as const;

/** Types (IEEE 802 numbers). */
export const ETHER_TYPE = { IPV4: 0x0800, IPV6: 0x86dd, VLAN: 0x8100, SERVICE_VLAN: 0x88a8 } as const;

/** Whether what stands in a type's place begins a VLAN tag. */
export const isTagType = (type: number): boolean => type === ETHER_TYPE.VLAN || type === ETHER_TYPE.SERVICE_VLAN;

const POLYNOMIAL = 0xedb8_8320;
const POLYNOMIAL_HIGH_FIRST = 0x04c1_1db6;

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = (value & 1) !== 0 ? (value >>> 1) ^ POLYNOMIAL : value >>> 1;
  return value;
});

/** The checksum of a frame as it goes over the wire (IEEE 802.3, section 3.2.9): of bytes `start` to before `end`. */
export function frameChecksum(bytes: Uint8Array, start: number, end: number): number {
  let crc = -1;
  for (let at = start; at < end; at++) crc = (crc >>> 8) ^ (TABLE[(crc ^ (bytes[at] ?? 0)) & 0xff] ?? 0);
  return ~crc >>> 0;
}

/** The hash of a destination that multicast filters index: the register of the checksum after the six bytes, lowest bit first. */
export function addressHash(frame: Uint8Array): number {
  let crc = -1;
  for (let at = 0; at < ETHERNET.ADDRESS; at++) crc = (crc >>> 8) ^ (TABLE[(crc ^ (frame[at] ?? 0)) & 0xff] ?? 0);
  return crc >>> 0;
}

/** As {@link addressHash}, with the register's highest bit first; the polynomial's lowest bit is set as it enters. */
export function addressHashHighFirst(frame: Uint8Array): number {
  let crc = -1;
  for (let at = 0; at < ETHERNET.ADDRESS; at++) {
    let byte = frame[at] ?? 0;
    for (let bit = 0; bit < 8; bit++) {
      const carry = (crc < 0 ? 1 : 0) ^ (byte & 1);
      crc <<= 1;
      byte >>>= 1;
      if (carry !== 0) crc = (crc ^ POLYNOMIAL_HIGH_FIRST) | 1;
    }
  }
  return crc >>> 0;
}

export function isBroadcast(frame: Uint8Array): boolean {
  for (let at = 0; at < ETHERNET.ADDRESS; at++) if (frame[at] !== 0xff) return false;
  return true;
}

export const isGroup = (frame: Uint8Array): boolean => ((frame[0] ?? 0) & 1) !== 0;

/** Whether a frame is for the address that `mac` has at `at`. */
export function isFor(frame: Uint8Array, mac: Uint8Array | Uint32Array, at = 0): boolean {
  for (let index = 0; index < ETHERNET.ADDRESS; index++) if (frame[index] !== mac[at + index]) return false;
  return true;
}

export const get16 = (bytes: Uint8Array, at: number): number => ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);

export function put16(bytes: Uint8Array, at: number, value: number): void {
  if (at + 1 >= bytes.length) return;
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export const get32 = (bytes: Uint8Array, at: number): number => get16(bytes, at) * 0x1_0000 + get16(bytes, at + 2);

export function put32(bytes: Uint8Array, at: number, value: number): void {
  put16(bytes, at, value >>> 16);
  put16(bytes, at + 2, value);
}

/** Copies into `padded`, with zeros up to the shortest frame. */
export function padFrame(frame: Uint8Array, length: number, padded: Uint8Array): void {
  for (let at = 0; at < padded.length; at++) padded[at] = at < length ? (frame[at] ?? 0) : 0;
}

/** Copies `length` bytes between buffers of frames. */
export function copyFrame(from: Uint8Array, start: number, to: Uint8Array, at: number, length: number): void {
  to.set(start === 0 && length === from.length ? from : from.subarray(start, start + length), at);
}

/** Copies a frame of `length` bytes without its VLAN tag. Returns how many bytes that makes. */
export function copyUntagged(frame: Uint8Array, length: number, to: Uint8Array): number {
  const rest = ETHERNET.TYPE + ETHERNET.VLAN_HEADER;
  copyFrame(frame, 0, to, 0, ETHERNET.TYPE);
  copyFrame(frame, rest, to, ETHERNET.TYPE, length - rest);
  return length - ETHERNET.VLAN_HEADER;
}
