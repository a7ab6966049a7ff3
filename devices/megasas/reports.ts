import type { ScsiDiskBase } from '../scsi/scsi-disk.ts';
import { MAX_LOGICAL, MAX_PHYSICAL } from './registers.ts';

/** What direct commands tell of the adapter and its drives: one function for each structure, with its offsets. */

const SECTOR = 512;
/** Firmware that never was, by the date of QEMU's. */
const BUILT = { DATE: 'Apr  1 2014', TIME: '12:34:56' } as const;
/** Stripes of 64 KiB: 512 bytes times two to the power of this, which is the field's unit. */
const STRIPE = 3;
const LARGEST_STRIPE = 16;
const MAX_SECTORS = 0xffff;
const NO_ENCLOSURE = 0xffff;

export const SIZE = {
  CTRL_INFO: 0x800,
  PROPERTIES: 64,
  DEFAULTS: 64,
  BIOS: 64,
  EVENT_LOG: 20,
  EVENT: 256,
  PD_LIST_HEADER: 8,
  PD_ADDRESS: 24,
  PD_INFO: 512,
  LD_LIST_HEADER: 8,
  LD_LIST_ENTRY: 16,
  LD_TARGETS_HEADER: 11,
  LD_INFO: 384,
  CONFIG_HEADER: 32,
  ARRAY: 288,
  LD_CONFIG: 256,
  SPARE: 40,
  CONFIG_MAX: 4096,
} as const;
export const LD_LIST_BYTES = SIZE.LD_LIST_HEADER + MAX_LOGICAL * SIZE.LD_LIST_ENTRY;

/** States of drives. */
const PD = { UNCONFIGURED_GOOD: 0x00, OFFLINE: 0x10, ONLINE: 0x18, SYSTEM: 0x40 } as const;
const LD_OPTIMAL = 3;
/** In a virtual drive, by SAS. */
const PD_TYPE = (1 << 1) | (1 << 13);
const CACHE_READ_AHEAD = 0x04 | 0x08;

export interface Adapter {
  readonly pci: readonly [vendor: number, device: number, subsystemVendor: number, subsystem: number];
  readonly product: string;
  readonly firmware: string;
  readonly serial: string;
  readonly sasAddress: bigint;
  readonly maxCommands: number;
  readonly maxSge: number;
  readonly jbod: boolean;
  /** The properties that the host may set. */
  readonly settings: Uint8Array;
}

const record = (bytes: number): readonly [Uint8Array, DataView] => {
  const report = new Uint8Array(bytes);
  return [report, new DataView(report.buffer)];
};

function text(report: Uint8Array, at: number, room: number, value: string): void {
  report.set(Buffer.from(value, 'latin1').subarray(0, room), at);
}

function put64(view: DataView, at: number, value: number): void {
  view.setUint32(at, value >>> 0, true);
  view.setUint32(at + 4, value / 2 ** 32, true);
}

/**
 * Physical drives are named by logical unit and target. Hosts take the number for the target: Linux has a table of 256 of
 * them, and does not look whether one is beyond it. (QEMU 7.2's has the halves the other way round, and so only target 0 works.)
 */
export const driveId = ({ target, lun }: ScsiDiskBase): number => ((lun & 0xff) << 8) | (target & 0xff);

/** As on a port of real hardware: a SATA drive's address is made up by the expander. */
function putSasAddress(view: DataView, at: number, id: number): void {
  view.setUint32(at, (id & 0xff) << 24, true);
  view.setUint32(at + 4, 0x1221_0000 | (id >>> 8), true);
}

const sectors = (drive: ScsiDiskBase): number => Math.floor((drive.blocks * drive.blockSize) / SECTOR);

/** Rates in percent, intervals in seconds, as they are after power-on. */
export function defaultProperties(): Uint8Array {
  const [report, view] = record(SIZE.PROPERTIES);
  view.setUint16(2, 300, true); // predictive failure poll interval
  view.setUint16(4, 16, true); // interrupt throttle: count, timeout
  view.setUint16(6, 50, true);
  report.fill(30, 8, 13); // rates: rebuild, patrol read, background initialisation, consistency check, reconstruction
  report[13] = 4; // cache flush interval
  report[14] = 2; // drives that spin up at a time, and the delay between them
  report[15] = 6;
  report[21] = 15; // ECC bucket: size, leak rate
  view.setUint16(22, 1440, true);
  report[25] = 1; // expose enclosure devices
  return report;
}

const ENABLE_JBOD = 1 << 13;

export function controllerInfo(adapter: Adapter, drives: readonly ScsiDiskBase[], time: number): Uint8Array {
  const [report, view] = record(SIZE.CTRL_INFO);
  for (const [index, id] of adapter.pci.entries()) view.setUint16(2 * index, id, true);
  report[32] = 0x02; // host interface: PCI Express
  report[104] = 0x02; // device interface: SAS 3 Gb/s, eight ports
  report[111] = 8;
  for (const [index, drive] of drives.slice(0, 8).entries()) putSasAddress(view, 112 + 8 * index, driveId(drive));
  view.setUint32(180, 1, true); // components: the application
  text(report, 184, 8, 'APP');
  text(report, 192, 32, `${adapter.firmware}-QEMU`);
  text(report, 224, 16, BUILT.DATE);
  text(report, 240, 16, BUILT.TIME);
  report[1340] = 32; // at most: arms, spans, arrays, logical drives
  report[1341] = 8;
  report[1342] = 128;
  report[1343] = MAX_LOGICAL;
  text(report, 1344, 80, adapter.product);
  text(report, 1424, 32, adapter.serial);
  view.setUint32(1456, 0x04 | 0x10 | 0x20, true); // NVRAM, memory, flash
  view.setUint32(1460, time >>> 0, true);
  view.setUint16(1464, adapter.maxCommands, true);
  view.setUint16(1466, adapter.maxSge, true);
  view.setUint32(1468, MAX_SECTORS, true);
  view.setUint16(1472, adapter.jbod ? 0 : drives.length, true); // logical drives
  view.setUint16(1478, drives.length, true); // physical devices, and disks among them
  view.setUint16(1480, drives.length, true);
  view.setUint16(1486, 32, true); // KiB of NVRAM, MiB of memory, MiB of flash
  view.setUint16(1488, 512, true);
  view.setUint16(1490, 16, true);
  view.setUint16(1498, adapter.maxSge, true); // stripes an access
  view.setUint32(1500, 0x01, true); // RAID 0
  view.setUint32(1504, 0x0001 | 0x1000 | 0x2000, true); // rebuild rate, self diagnostic, mixed arrays
  view.setUint32(1508, 0x1f, true); // policies: read, write, I/O, access, disk cache
  report[1512] = STRIPE;
  report[1513] = LARGEST_STRIPE;
  view.setUint32(1516, 0x03, true); // force online, force offline
  view.setUint32(1520, 0x01 | 0x02 | 0x08, true); // SAS and SATA, within a logical drive too
  report.set(adapter.settings, 1536);
  view.setUint32(1536 + 32, view.getUint32(1536 + 32, true) | ENABLE_JBOD, true);
  text(report, 1600, 0x60, '7.2.0-QEMU');
  return report;
}

export function factoryDefaults({ sasAddress }: Adapter): Uint8Array {
  const [report, view] = record(SIZE.DEFAULTS);
  view.setBigUint64(0, sasAddress, true);
  report[9] = 30; // background rate
  report[10] = STRIPE;
  report[11] = 4; // flush time
  report[24] = 1; // mixed in an enclosure, and in a logical drive
  report[25] = 1;
  report[28] = 1; // no Ctrl-R
  report[31] = 1; // direct mapping of physical drives
  report[32] = 1; // the BIOS enumerates logical drives
  report[34] = 1; // expose enclosure devices
  report[38] = 1; // no command line before boot
  report[40] = 1; // no cluster
  return report;
}

export function biosData({ jbod }: Adapter): Uint8Array {
  const [report] = record(SIZE.BIOS);
  report[3] = 1; // continue on error
  report[4] = 1; // verbose
  report[6] = jbod ? 1 : 0; // expose all drives
  return report;
}

export function eventLog(newest: number, shutdown: number, boot: number): Uint8Array {
  const [report, view] = record(SIZE.EVENT_LOG);
  view.setUint32(0, newest, true);
  view.setUint32(12, shutdown, true);
  view.setUint32(16, boot, true);
  return report;
}

export interface EventDetail {
  readonly sequence: number;
  readonly time: number;
  readonly code: number;
  readonly locale: number;
  readonly argument: number;
  readonly drive: ScsiDiskBase;
  readonly description: string;
}

export function eventDetail(event: EventDetail): Uint8Array {
  const [report, view] = record(SIZE.EVENT);
  view.setUint32(0, event.sequence, true);
  view.setUint32(4, event.time >>> 0, true);
  view.setUint32(8, event.code, true);
  view.setUint16(12, event.locale, true); // class 0: information
  report[16] = event.argument;
  view.setUint16(32, event.locale === 1 ? event.drive.target : driveId(event.drive), true);
  report[34] = event.locale === 1 ? event.drive.target : 0;
  report[35] = event.locale === 1 ? 0 : event.drive.target;
  text(report, 128, 127, event.description);
  return report;
}

/** As many drives as there is `room` for, in bytes. */
export function physicalDrives(drives: readonly ScsiDiskBase[], room: number): Uint8Array {
  const count = Math.min(drives.length, MAX_PHYSICAL, Math.floor((room - SIZE.PD_LIST_HEADER) / SIZE.PD_ADDRESS));
  const [report, view] = record(SIZE.PD_LIST_HEADER + count * SIZE.PD_ADDRESS);
  view.setUint32(0, report.length, true);
  view.setUint32(4, count, true);
  for (const [index, drive] of drives.slice(0, count).entries()) {
    const at = SIZE.PD_LIST_HEADER + index * SIZE.PD_ADDRESS;
    view.setUint16(at, driveId(drive), true);
    view.setUint16(at + 2, NO_ENCLOSURE, true);
    report[at + 5] = drive.target; // slot
    report[at + 6] = drive.kind === 'cd' ? 5 : 0; // peripheral device type
    report[at + 7] = 1; // connected by the first port
    putSasAddress(view, at + 8, driveId(drive));
  }
  return report;
}

export function physicalDrive(
  drive: ScsiDiskBase,
  inquiry: Uint8Array,
  identification: Uint8Array,
  jbod: boolean,
): Uint8Array {
  const [report, view] = record(SIZE.PD_INFO);
  view.setUint16(0, driveId(drive), true);
  report.set(inquiry.subarray(0, 96), 4);
  report.set(identification.subarray(0, 64), 100);
  report[165] = (inquiry[0] ?? 0) & 0x1f;
  report[166] = 1; // connected by the first port
  report[167] = 1; // speed
  const connected = (inquiry[0] ?? 0) >>> 5 === 0;
  view.setUint16(184, connected ? (jbod ? PD.SYSTEM : PD.ONLINE) : PD.OFFLINE, true);
  report[187] = 1; // link speed
  view.setUint16(188, PD_TYPE, true);
  report[192] = 1; // paths
  putSasAddress(view, 200, driveId(drive));
  for (const at of [232, 240, 248]) put64(view, at, sectors(drive)); // raw, non-coerced, coerced size
  view.setUint16(256, NO_ENCLOSURE, true);
  report[259] = drive.target;
  return report;
}

export function logicalDrives(drives: readonly ScsiDiskBase[], room: number): Uint8Array {
  const [report, view] = record(LD_LIST_BYTES);
  const most = Math.floor((room - SIZE.LD_LIST_HEADER) / SIZE.LD_LIST_ENTRY);
  const shown = drives.slice(0, Math.max(0, Math.min(MAX_LOGICAL, most)));
  view.setUint32(0, shown.length, true);
  for (const [index, drive] of shown.entries()) {
    const at = SIZE.LD_LIST_HEADER + index * SIZE.LD_LIST_ENTRY;
    report[at] = drive.target;
    report[at + 4] = LD_OPTIMAL;
    put64(view, at + 8, sectors(drive));
  }
  return report;
}

export function logicalTargets(drives: readonly ScsiDiskBase[], room: number): Uint8Array {
  const shown = drives.slice(0, Math.max(0, Math.min(MAX_LOGICAL, room - SIZE.LD_TARGETS_HEADER)));
  const [report, view] = record(SIZE.LD_TARGETS_HEADER + shown.length);
  view.setUint32(0, report.length, true);
  view.setUint32(4, shown.length, true);
  for (const [index, drive] of shown.entries()) report[SIZE.LD_TARGETS_HEADER + index] = drive.target;
  return report;
}

/** One logical drive a physical one, over all of it. */
function putLogicalConfig(report: Uint8Array, view: DataView, at: number, drive: ScsiDiskBase): void {
  report[at] = drive.target;
  report[at + 20] = CACHE_READ_AHEAD; // policy by default, and now
  report[at + 23] = CACHE_READ_AHEAD;
  report[at + 32 + 3] = STRIPE;
  report[at + 32 + 4] = 1; // drives
  report[at + 32 + 5] = 1; // spans
  report[at + 32 + 6] = LD_OPTIMAL;
  report[at + 32 + 8] = 1; // consistent
  put64(view, at + 64 + 8, sectors(drive));
  view.setUint16(at + 64 + 16, driveId(drive), true);
}

export function logicalDrive(drive: ScsiDiskBase, identification: Uint8Array): Uint8Array {
  const [report, view] = record(SIZE.LD_INFO);
  putLogicalConfig(report, view, 0, drive);
  put64(view, 256, sectors(drive));
  report.set(identification.subarray(0, 64), 304);
  return report;
}

/** Undefined where it would be longer than a host takes. */
export function configuration(drives: readonly ScsiDiskBase[]): Uint8Array | undefined {
  const size = SIZE.CONFIG_HEADER + drives.length * (SIZE.ARRAY + SIZE.LD_CONFIG);
  if (size > SIZE.CONFIG_MAX) return undefined;
  const [report, view] = record(size);
  view.setUint32(0, size, true);
  for (const [index, bytes] of [SIZE.ARRAY, SIZE.LD_CONFIG].entries()) {
    view.setUint16(4 + 4 * index, drives.length, true);
    view.setUint16(6 + 4 * index, bytes, true);
  }
  view.setUint16(14, SIZE.SPARE, true);
  for (const [index, drive] of drives.entries()) {
    const at = SIZE.CONFIG_HEADER + index * SIZE.ARRAY;
    put64(view, at, sectors(drive));
    report[at + 8] = 1; // drives
    view.setUint16(at + 10, driveId(drive), true);
    for (let row = 0; row < 32; row++) {
      const entry = at + 32 + 8 * row;
      view.setUint16(entry, row === 0 ? driveId(drive) : 0xffff, true);
      view.setUint16(entry + 4, row === 0 ? PD.ONLINE : PD.UNCONFIGURED_GOOD, true);
      report[entry + 6] = 0xff;
      report[entry + 7] = row === 0 ? drive.target : 0xff;
    }
    putLogicalConfig(report, view, SIZE.CONFIG_HEADER + drives.length * SIZE.ARRAY + index * SIZE.LD_CONFIG, drive);
  }
  return report;
}
