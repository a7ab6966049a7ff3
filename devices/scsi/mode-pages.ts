import { OP, type ScsiCommand } from '../../core/scsi/command.ts';
import { SENSE, type Sense } from '../../core/scsi/sense.ts';
import type { ScsiDiskBase } from './scsi-disk.ts';

/** Mode pages (SBC-3, section 6.4; SCSI-2 for the geometries; MMC-5, section 7). */
const PAGE = {
  VENDOR: 0x00,
  ERROR_RECOVERY: 0x01,
  RIGID_DISK_GEOMETRY: 0x04,
  FLEXIBLE_DISK: 0x05,
  CACHING: 0x08,
  AUDIO_CONTROL: 0x0e,
  CAPABILITIES: 0x2a,
  APPLE: 0x30,
  ALL: 0x3f,
} as const;

/** Which values of a page are asked for (SPC-3, section 6.9.1). */
const CONTROL = { CURRENT: 0, CHANGEABLE: 1, DEFAULT: 2, SAVED: 3 } as const;

const WRITE_CACHE_ENABLE = 0x04;
const DPOFUA = 0x10;
const WRITE_PROTECT = 0x80;
const PAGE_MAX = 256;
const RPM = 5400;
/** 1,000 bytes a second, times the speed. */
const speed = (times: number): readonly [number, number] => [(times * 176) >>> 8, (times * 176) & 0xff];

/** The parameters of a page, without its header; undefined where the device does not have it. */
function pageOf(disk: ScsiDiskBase, page: number, changeable: boolean): Uint8Array | undefined {
  const isDisk = disk.kind === 'disk';
  switch (page) {
    case PAGE.VENDOR:
      return isDisk && disk.quirks.vendorPage ? Uint8Array.of(...(changeable ? [0xff, 0xff] : [0, 0])) : undefined;
    case PAGE.ERROR_RECOVERY: {
      const out = new Uint8Array(10);
      if (!changeable || !isDisk) out[0] = 0x80; // AWRE
      if (!changeable && !isDisk) out[1] = 0x20; // read retry count
      return out;
    }
    case PAGE.RIGID_DISK_GEOMETRY:
      return isDisk ? rigidDiskGeometry(disk, changeable) : undefined;
    case PAGE.FLEXIBLE_DISK:
      return isDisk ? flexibleDisk(disk, changeable) : undefined;
    case PAGE.CACHING: {
      const out = new Uint8Array(0x12);
      if (changeable || disk.backend.writeCache) out[0] = WRITE_CACHE_ENABLE;
      return out;
    }
    case PAGE.AUDIO_CONTROL:
      return isDisk ? undefined : new Uint8Array(14);
    case PAGE.CAPABILITIES:
      return isDisk ? undefined : capabilities(disk, changeable);
    case PAGE.APPLE: {
      if (isDisk || !disk.quirks.applePage) return undefined;
      const out = new Uint8Array(0x1e);
      if (!changeable) out.set(Buffer.from('APPLE COMPUTER, INC   ', 'latin1'), 8);
      return out;
    }
    default:
      return undefined;
  }
}

function rigidDiskGeometry(disk: ScsiDiskBase, changeable: boolean): Uint8Array {
  const out = new Uint8Array(0x16);
  if (changeable) return out;
  const { cylinders, heads } = disk.geometry;
  // The disk's cylinders; and where write precompensation and reduced current start, which is never.
  for (const at of [0, 4, 7]) out.set([cylinders >>> 16, cylinders >>> 8, cylinders], at);
  out[3] = heads;
  out[11] = 200; // step rate, 100 ns
  out.set([0xff, 0xff, 0xff], 12); // landing zone
  out.set([RPM >>> 8, RPM], 18);
  return out;
}

function flexibleDisk(disk: ScsiDiskBase, changeable: boolean): Uint8Array {
  const out = new Uint8Array(0x1e);
  if (changeable) return out;
  const { cylinders, heads, sectors } = disk.geometry;
  out.set([5000 >>> 8, 5000, heads, sectors, disk.blockSize >>> 8, 0]); // 5 Mbit/s
  for (const at of [6, 8, 10]) out.set([cylinders >>> 8, cylinders], at);
  // Step rate and pulse, settle delay, motor on and off: the shortest.
  out.set([0, 1, 1, 0, 1, 1, 1], 12);
  out.set([RPM >>> 8, RPM], 26);
  return out;
}

function capabilities(disk: ScsiDiskBase, changeable: boolean): Uint8Array {
  const out = new Uint8Array(0x14);
  if (changeable) return out;
  // Reads all kinds of discs and audio, writes none; tray, which can be locked, and ejects.
  out.set([0x3b, 0x00, 0x7f, 0xff, 0x2d | (disk.media.trayLocked ? 0x02 : 0), 0x00]);
  out.set(speed(50), 6);
  out.set([0, 2, 2048 >>> 8, 0], 8); // volume levels, and 2 MiB of buffer
  out.set(speed(16), 12);
  out.set(speed(16), 16);
  out.set(speed(16), 18);
  return out;
}

/**
 * MODE SENSE (SPC-3, sections 6.9 and 6.10).
 *
 * @returns why not, or undefined where the data is in `out`
 */
export function modeSense(disk: ScsiDiskBase, command: ScsiCommand, out: Uint8Array): Sense | undefined {
  const { view, opcode } = command;
  const six = opcode === OP.MODE_SENSE_6;
  const page = view.getUint8(2) & 0x3f;
  const control = view.getUint8(2) >>> 6;
  const header = six ? 4 : 8;
  const isDisk = disk.kind === 'disk';
  let end = header;
  if (isDisk) {
    out[six ? 2 : 3] = (disk.dpofua ? DPOFUA : 0) | (disk.writable ? 0 : WRITE_PROTECT);
  }
  // MMC-5 has no block descriptors; old systems want one.
  const wanted = (view.getUint8(1) & 0x08) === 0 && (isDisk || (disk.quirks.blockDescriptor && page !== PAGE.APPLE));
  if (wanted && disk.backend.length >= 512) {
    out[six ? 3 : 7] = 8;
    const blocks = Math.floor(disk.backend.length / disk.blockSize);
    const shown = blocks > 0xff_ffff ? 0 : blocks;
    out.set([0, shown >>> 16, shown >>> 8, shown, 0, 0, disk.blockSize >>> 8, 0], end);
    end += 8;
  }
  if (control === CONTROL.SAVED) return SENSE.SAVING_NOT_SUPPORTED;
  const first = page === PAGE.ALL ? 0 : page;
  const last = page === PAGE.ALL ? PAGE.ALL - 1 : page;
  let found = page === PAGE.ALL;
  for (let number = first; number <= last; number++) {
    const contents = pageOf(disk, number, control === CONTROL.CHANGEABLE);
    if (contents === undefined) continue;
    found = true;
    out.set([number, contents.length], end);
    out.set(contents, end + 2);
    end += 2 + contents.length;
  }
  if (!found) return SENSE.INVALID_FIELD;
  if (six) out[0] = end - 1;
  else out.set([(end - 2) >>> 8, end - 2]);
  return undefined;
}

/**
 * MODE SELECT (SPC-3, sections 6.7 and 6.8): nothing is changed where anything is wrong.
 *
 * @returns why not
 */
export function modeSelect(disk: ScsiDiskBase, command: ScsiCommand, data: Uint8Array): Sense | undefined {
  const { view, opcode, transfer: length } = command;
  const header = opcode === OP.MODE_SELECT_6 ? 4 : 8;
  // Page format, and nothing is saved.
  if ((view.getUint8(1) & 0x11) !== 0x10 && !disk.quirks.vendorPage) return SENSE.INVALID_FIELD;
  if (length < header) return SENSE.PARAMETER_LIST_LENGTH;
  const parameters = new DataView(data.buffer, data.byteOffset, length);
  const descriptor = header === 4 ? parameters.getUint8(3) : parameters.getUint16(6);
  if (length - header < descriptor) return SENSE.PARAMETER_LIST_LENGTH;
  if (descriptor !== 0 && descriptor !== 8) return SENSE.INVALID_PARAMETER;
  const pages = new DataView(data.buffer, data.byteOffset + header + descriptor, length - header - descriptor);
  if (descriptor === 8) selectBlockSize(disk, parameters.getUint32(header + 4) & 0xff_ffff);
  const wrong = eachPage(disk, pages, (page, at, size) => checkPage(disk, page, pages, at, size));
  if (wrong !== undefined) return wrong;
  return eachPage(disk, pages, (page, at, size) => {
    if (page === PAGE.CACHING && size > 0) disk.backend.writeCache = (pages.getUint8(at) & WRITE_CACHE_ENABLE) !== 0;
    return undefined;
  });
}

/** Only the middle byte of a block length is ever told, so only such lengths can be chosen. */
function selectBlockSize(disk: ScsiDiskBase, size: number): void {
  if (size !== 0 && (size & ~0xff00) === 0) disk.selectBlockSize(size);
}

function eachPage(
  disk: ScsiDiskBase,
  pages: DataView,
  visit: (page: number, at: number, size: number) => Sense | undefined,
): Sense | undefined {
  let at = 0;
  while (at < pages.byteLength) {
    const first = pages.getUint8(at);
    const long = (first & 0x40) !== 0;
    const header = long ? 4 : 2;
    if (pages.byteLength - at < header) return SENSE.PARAMETER_LIST_LENGTH;
    if (long && pages.getUint8(at + 1) !== 0) return SENSE.INVALID_PARAMETER;
    const given = long ? pages.getUint16(at + 2) : pages.getUint8(at + 1);
    at += header;
    const room = pages.byteLength - at;
    if (given > room && !disk.quirks.truncatedPage) return SENSE.PARAMETER_LIST_LENGTH;
    const size = Math.min(given, room);
    const wrong = visit(first & 0x3f, at, size);
    if (wrong !== undefined) return wrong;
    at += given;
  }
  return undefined;
}

/** What cannot be changed has to be given as it is. */
function checkPage(disk: ScsiDiskBase, page: number, pages: DataView, at: number, size: number): Sense | undefined {
  const current = pageOf(disk, page, false);
  const changeable = pageOf(disk, page, true);
  const known = current !== undefined && changeable !== undefined && size + 2 <= PAGE_MAX && current.length === size;
  if (!known) return SENSE.INVALID_PARAMETER;
  for (let index = 0; index < size; index++) {
    const change = (current[index] ?? 0) ^ pages.getUint8(at + index);
    if ((change & ~(changeable[index] ?? 0)) !== 0) return SENSE.INVALID_PARAMETER;
  }
  return undefined;
}
