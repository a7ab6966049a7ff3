export const HEADER_BYTES = 512;
export const SIGNATURE_AT = 64;
export const SIGNATURE = 0xbeda107f;

export function isVdi(head: Uint8Array): boolean {
  if (head.length < HEADER_BYTES) return false;
  return new DataView(head.buffer, head.byteOffset, head.length).getUint32(SIGNATURE_AT, true) === SIGNATURE;
}
