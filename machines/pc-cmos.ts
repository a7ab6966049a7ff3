import { SouthbridgeError } from '../core/errors.ts';
import type { Machine } from '../core/machine/machine.ts';
import type { FloppyController } from '../devices/floppy/fdc.ts';
import type { IdeBus } from '../devices/ide/ide-bus.ts';
import { IdeDisk } from '../devices/ide/ide-drive.ts';
import type { Mc146818Rtc } from '../devices/mc146818rtc.ts';
import type { PcRamLayout } from './pc-memory.ts';

const KIB = 1024;
const MIB = KIB * KIB;

/** Where PC firmware keeps what it has found, and emulators leave what it should find (RBIL, CMOS memory map). */
const CMOS = {
  FLOPPY_TYPES: 0x10,
  EQUIPMENT: 0x14,
  BASE_LOW: 0x15,
  EXTENDED_LOW: 0x17,
  EXTENDED2_LOW: 0x30,
  ABOVE_16M_LOW: 0x34,
  BOOT_THIRD: 0x38,
  BOOT_FIRST: 0x3d,
  ABOVE_4G: 0x5b,
  CPUS: 0x5f,
} as const;
/** Disk, floppy, CD-ROM. */
const DEFAULT_ORDER = 'cad';
const EQUIPMENT_FPU = 0x02;
const EQUIPMENT_PS2_MOUSE = 0x04;

/** Memory sizes, CPUs and equipment, as firmware expects them. */
export function fillCmos(rtc: Mc146818Rtc, ram: PcRamLayout, cpus: number): void {
  fillMemorySizes(rtc, ram);
  setCpuCount(rtc, cpus);
  rtc.setCmos(CMOS.EQUIPMENT, rtc.getCmos(CMOS.EQUIPMENT) | EQUIPMENT_FPU | EQUIPMENT_PS2_MOUSE);
}

/** Firmware waits at power-on until that many CPUs have answered. */
export function setCpuCount(rtc: Mc146818Rtc, cpus: number): void {
  rtc.setCmos(CMOS.CPUS, cpus - 1);
}

/** Of these the memory sizes alone. */
export function fillMemorySizes(rtc: Mc146818Rtc, ram: PcRamLayout): void {
  const word = (index: number, value: number): void => {
    rtc.setCmos(index, value & 0xff);
    rtc.setCmos(index + 1, value >> 8);
  };
  const kib = Math.floor(ram.below4g / KIB);
  word(CMOS.BASE_LOW, Math.min(640, kib));
  const extended = Math.min(0xffff, Math.max(0, kib - KIB));
  word(CMOS.EXTENDED_LOW, extended);
  word(CMOS.EXTENDED2_LOW, extended);
  word(CMOS.ABOVE_16M_LOW, Math.min(0xffff, Math.max(0, Math.floor((ram.below4g - 16 * MIB) / (64 * KIB)))));
  const high = Math.floor(ram.above4g / (64 * KIB));
  for (let at = 0; at < 3; at++) rtc.setCmos(CMOS.ABOVE_4G + at, Math.floor(high / 256 ** at) & 0xff);
}

/**
 * The order in which firmware tries to boot.
 * @throws SouthbridgeError ERR_BOOT_OPTION for a letter that is no drive
 */
export function setBootOrder(rtc: Mc146818Rtc, order: string, checkFloppySignature = true): void {
  const devices = [...order].map(letter => {
    const device = { a: 1, b: 1, c: 2, d: 3, n: 4 }[letter];
    if (device === undefined)
      throw new SouthbridgeError(
        'ERR_BOOT_OPTION',
        `Invalid boot device for PC`,
        'a floppy, c disk, d CD-ROM, n network',
      );
    return device;
  });
  if (devices.length > 3) throw new SouthbridgeError('ERR_BOOT_OPTION', 'Too many boot devices for PC');
  rtc.setCmos(CMOS.BOOT_FIRST, ((devices[1] ?? 0) << 4) | (devices[0] ?? 0));
  rtc.setCmos(CMOS.BOOT_THIRD, ((devices[2] ?? 0) << 4) | (checkFloppySignature ? 0 : 1));
}

/**
 * Sets the order of `-boot`; `once` holds until the first reset after the machine was started.
 * @throws SouthbridgeError as {@link setBootOrder}
 */
export function installBootOrder(machine: Machine, rtc: Mc146818Rtc, checkFloppySignature: boolean): void {
  const { once, order = DEFAULT_ORDER } = machine.config.boot;
  setBootOrder(rtc, order, checkFloppySignature);
  machine.setBootOrder = chosen => setBootOrder(rtc, chosen, checkFloppySignature);
  if (once === undefined) return;
  setBootOrder(rtc, once, checkFloppySignature);
  let resets = 0;
  machine.onReset(() => {
    // The first reset is the one that starts the machine.
    if (++resets === 2) setBootOrder(rtc, order, checkFloppySignature);
  });
}

/** Types of the two floppy drives (5 is 2.88 MB, 4 is 1.44 MB, 2 is 1.2 MB, 0 none) and how many there are. */
export function setFloppyTypes(rtc: Mc146818Rtc, types: readonly [number, number]): void {
  rtc.setCmos(CMOS.FLOPPY_TYPES, (types[0] << 4) | types[1]);
  const count = types.filter(type => type !== 0).length;
  rtc.setCmos(CMOS.EQUIPMENT, rtc.getCmos(CMOS.EQUIPMENT) | (count === 0 ? 0 : count === 1 ? 0x01 : 0x41));
}

/** Where firmware finds the geometry of the two disks of the first cable: type, details, and the nibble of {@link DISK_TYPES}. */
const DISKS = [
  { type: 0x19, details: 0x1b, present: 0xf0 },
  { type: 0x1a, details: 0x24, present: 0x0f },
] as const;
const DISK_TYPES = 0x12;
const DISK_TRANSLATIONS = 0x39;
/** "Look at the details." */
const TYPE_USER = 47;
const TRANSLATIONS = ['none', 'lba', 'large', 'rechs'] as const;

/** Writes down the IDE disks' geometries at the first reset, when all disks are there. */
export function installDiskTypes(
  machine: Machine,
  rtc: Mc146818Rtc,
  buses: readonly IdeBus[],
  floppies?: () => FloppyController | undefined,
): void {
  let known = false;
  machine.onReset(() => {
    if (!known) {
      setDiskTypes(rtc, buses);
      const controller = floppies?.();
      if (controller !== undefined) setFloppyTypes(rtc, [floppyType(controller, 0), floppyType(controller, 1)]);
    }
    known = true;
  });
}

function setDiskTypes(rtc: Mc146818Rtc, buses: readonly IdeBus[]): void {
  const disks = [0, 1, 2, 3].map(place => {
    const drive = buses[place >> 1]?.drives[place & 1];
    return drive instanceof IdeDisk ? drive : undefined;
  });
  let present = 0;
  for (const [unit, place] of DISKS.entries()) {
    const disk = disks[unit];
    if (disk === undefined) continue;
    const { cylinders, heads, sectors } = disk.geometry;
    const low = cylinders & 0xff;
    const high = cylinders >> 8;
    const control = 0xc0 | (heads > 8 ? 0x08 : 0);
    rtc.setCmos(place.type, TYPE_USER);
    [low, high, heads, 0xff, 0xff, control, low, high, sectors].forEach((byte, at) =>
      rtc.setCmos(place.details + at, byte & 0xff),
    );
    present |= place.present;
  }
  rtc.setCmos(DISK_TYPES, present);
  const translations = disks.reduce(
    (value, disk, place) => value | ((disk === undefined ? 0 : TRANSLATIONS.indexOf(disk.translation)) << (2 * place)),
    0,
  );
  rtc.setCmos(DISK_TRANSLATIONS, translations);
}

/** What CMOS calls a type of floppy drive. */
function floppyType(controller: FloppyController, unit: number): number {
  return { '120': 2, '144': 4, '288': 5, none: 0, auto: 0 }[controller.driveType(unit)];
}
