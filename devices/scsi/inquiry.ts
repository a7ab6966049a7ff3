import { putText } from '../../core/scsi/text.ts';
import type { ScsiDiskBase } from './scsi-disk.ts';

/** Vital product data pages (SPC-3, section 7.6; SBC-3, section 6.5). */
const VPD = {
  SUPPORTED_PAGES: 0x00,
  UNIT_SERIAL_NUMBER: 0x80,
  DEVICE_IDENTIFICATION: 0x83,
  BLOCK_LIMITS: 0xb0,
  BLOCK_DEVICE_CHARACTERISTICS: 0xb1,
  LOGICAL_BLOCK_PROVISIONING: 0xb2,
} as const;

const DIRECT_ACCESS = 0x00;
const CD_ROM = 0x05;
const REMOVABLE = 0x80;
const STANDARD_BYTES = 36;
const STANDARD_MAX = 256;
const SERIAL_MAX = 36;
const DEVICE_ID_MAX = 255 - 8;
/** UNMAP descriptors that fit into 4 KiB with their header. */
const MAX_UNMAP_DESCRIPTORS = 255;
const BLOCK_LIMITS_BYTES = 0x3c;
const CHARACTERISTICS_BYTES = 0x3c;
/** LBPU, LBPWS and LBPWS10: UNMAP and both kinds of WRITE SAME unmap. */
const PROVISIONING_COMMANDS = 0xe0;
const PROVISIONED = { FULLY: 0, THICK: 1, THIN: 2 } as const;
const MAX_32 = 0xffff_ffff;

const typeOf = (disk: ScsiDiskBase): number => (disk.kind === 'cd' ? CD_ROM : DIRECT_ACCESS);

/** Standard INQUIRY data (SPC-3, section 6.4.2). */
export function standardInquiry(disk: ScsiDiskBase, out: Uint8Array, allocation: number): void {
  const { identity } = disk;
  const length = Math.min(allocation, STANDARD_MAX);
  out[0] = typeOf(disk);
  out[1] = disk.removable ? REMOVABLE : 0;
  out[2] = disk.scsiVersion;
  out[3] = 0x12; // HISUP, response data format 2
  out[4] = Math.max(length, STANDARD_BYTES) - 5;
  out[7] = 0x10 | (disk.scsiBus.adapter.taggedQueuing ? 0x02 : 0);
  putText(out, 8, 8, identity.vendor);
  putText(out, 16, 16, identity.product);
  for (let index = 0; index < Math.min(4, identity.version.length); index++) {
    out[32 + index] = identity.version.charCodeAt(index);
  }
}

/** A page of vital product data. False where the device does not have it. */
export function vitalProductData(disk: ScsiDiskBase, out: Uint8Array, page: number): boolean {
  const length = pageContents(disk, out.subarray(4), page);
  if (length < 0) return false;
  out.set([typeOf(disk), page, 0, length]);
  return true;
}

/** Writes what follows the header; returns its length, or -1. */
function pageContents(disk: ScsiDiskBase, out: Uint8Array, page: number): number {
  const isDisk = disk.kind === 'disk';
  const { serial } = disk.identity;
  switch (page) {
    case VPD.SUPPORTED_PAGES: {
      const pages: number[] = [VPD.SUPPORTED_PAGES];
      if (serial !== undefined) pages.push(VPD.UNIT_SERIAL_NUMBER);
      pages.push(VPD.DEVICE_IDENTIFICATION);
      if (isDisk) pages.push(VPD.BLOCK_LIMITS, VPD.BLOCK_DEVICE_CHARACTERISTICS, VPD.LOGICAL_BLOCK_PROVISIONING);
      out.set(pages);
      return pages.length;
    }
    case VPD.UNIT_SERIAL_NUMBER: {
      if (serial === undefined) return -1;
      const length = Math.min(serial.length, SERIAL_MAX);
      putText(out, 0, length, serial);
      return length;
    }
    case VPD.DEVICE_IDENTIFICATION:
      return deviceIdentification(disk, out);
    case VPD.BLOCK_LIMITS:
      return isDisk ? blockLimits(disk, out) : -1;
    case VPD.BLOCK_DEVICE_CHARACTERISTICS:
      out[0] = disk.identity.rotationRate >>> 8;
      out[1] = disk.identity.rotationRate;
      return CHARACTERISTICS_BYTES;
    case VPD.LOGICAL_BLOCK_PROVISIONING:
      out[1] = PROVISIONING_COMMANDS;
      out[2] = disk.discardGranularity > 0 ? PROVISIONED.THIN : PROVISIONED.THICK;
      return 4;
    default:
      return -1;
  }
}

/** Designators (SPC-3, section 7.6.3): the device's id as text, its name, its port's name, and the port's number. */
function deviceIdentification(disk: ScsiDiskBase, out: Uint8Array): number {
  const { deviceId, wwn, portWwn, portIndex } = disk.identity;
  const view = new DataView(out.buffer, out.byteOffset, out.length);
  let at = 0;
  const designator = (kind: readonly [number, number], length: number): number => {
    out.set([kind[0], kind[1], 0, length], at);
    at += 4 + length;
    return at - length;
  };
  if (deviceId !== '') {
    const length = Math.min(deviceId.length, DEVICE_ID_MAX);
    putText(out, designator([0x02, 0x00], length), length, deviceId);
  }
  if (wwn !== 0n) view.setBigUint64(designator([0x01, 0x03], 8), wwn);
  if (portWwn !== 0n) view.setBigUint64(designator([0x61, 0x93], 8), portWwn);
  if (portIndex !== 0) view.setUint16(designator([0x61, 0x94], 4) + 2, portIndex);
  return Math.min(at, 255);
}

/** SBC-3, section 6.5.3. */
function blockLimits(disk: ScsiDiskBase, out: Uint8Array): number {
  const view = new DataView(out.buffer, out.byteOffset, out.length);
  const { limits, blockSize } = disk;
  const blocks = (bytes: number): number => Math.min(MAX_32, Math.floor(bytes / blockSize));
  const largest = blocks(limits.maxIo);
  out[0] = 0x01; // WSNZ: WRITE SAME needs a length
  view.setUint16(2, Math.min(blocks(limits.minIo), largest));
  view.setUint32(4, largest);
  view.setUint32(8, Math.min(blocks(limits.optIo), largest));
  view.setUint32(16, blocks(limits.maxUnmap));
  view.setUint32(20, MAX_UNMAP_DESCRIPTORS);
  view.setUint32(24, blocks(disk.discardGranularity));
  view.setUint32(36, largest); // of WRITE SAME
  return BLOCK_LIMITS_BYTES;
}
