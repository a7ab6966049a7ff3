import type { AudioFormat } from './format.ts';

/** Makes samples quieter in place, by a factor from 0 to 1 for each side. Samples of 32 bits stay as they are. */
export function attenuate(bytes: Uint8Array, { format, channels }: AudioFormat, left: number, right: number): void {
  if (left === 1 && right === 1) return;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const gain = (sample: number): number => (channels === 1 || sample % 2 === 0 ? left : right);
  if (format === 's16') {
    for (let at = 0; at + 1 < bytes.length; at += 2)
      view.setInt16(at, Math.round(view.getInt16(at, true) * gain(at >> 1)), true);
  } else if (format === 'u16') {
    for (let at = 0; at + 1 < bytes.length; at += 2)
      view.setUint16(at, Math.round((view.getUint16(at, true) - 0x8000) * gain(at >> 1)) + 0x8000, true);
  } else if (format === 's8') {
    for (let at = 0; at < bytes.length; at++) view.setInt8(at, Math.round(view.getInt8(at) * gain(at)));
  } else if (format === 'u8') {
    for (let at = 0; at < bytes.length; at++) bytes[at] = Math.round(((bytes[at] ?? 0) - 0x80) * gain(at)) + 0x80;
  }
}
