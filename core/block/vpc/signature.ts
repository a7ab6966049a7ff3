export const FOOTER_COOKIE = Buffer.from('conectix');

export function isVpc(head: Uint8Array): boolean {
  return FOOTER_COOKIE.equals(head.subarray(0, 8));
}
