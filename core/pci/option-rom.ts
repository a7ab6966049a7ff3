/**
 * Gives an option ROM that serves several devices the identity of this one (PCI firmware specification 3.0, section 5.1.1): the
 * image is only accepted by firmware where the identity in its PCI data structure is the function's. The checksum is kept.
 */
export function patchRomIdentity(image: Uint8Array, vendor: number, device: number): void {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength);
  if (image.length < 0x1a || view.getUint16(0, true) !== 0xaa55) return;
  const at = view.getUint16(0x18, true);
  if (at + 8 > image.length || view.getUint32(at, true) !== 0x5249_4350) return;
  let checksum = image[6] ?? 0;
  checksum = patch16(view, at + 4, vendor, checksum);
  checksum = patch16(view, at + 6, device, checksum);
  image[6] = checksum;
}

function patch16(view: DataView, at: number, value: number, checksum: number): number {
  const old = view.getUint16(at, true);
  view.setUint16(at, value, true);
  return (checksum + (old & 0xff) + (old >>> 8) - (value & 0xff) - (value >>> 8)) & 0xff;
}
