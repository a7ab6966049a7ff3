import type { CpuState, SegmentState } from '../accel/cpu-state.ts';
import { SouthbridgeError } from '../errors.ts';
import { type BootEnvironment, type BootImage, checkPlacement, segment } from './image.ts';

/** Where the BIOS puts a boot sector, and its mark at the end (BIOS Boot Specification 1.01, section 6.5). */
const BOOT_SECTOR = 0x7c00;
const SECTOR = 512;
const SIGNATURE = 0xaa55;
const FIRST_HARD_DISK = 0x80;

const CR0_ET = 1n << 4n;
const REAL_CODE = 0x009b;
const REAL_DATA = 0x0093;
const REAL_TSS = 0x008b;
const REAL_LDT = 0x0082;
const REAL_LIMIT = 0xffff;

/**
 * A boot sector entered in real mode, without the firmware that it could call. `image` may be longer than a sector: all of
 * it is loaded.
 *
 * @throws SouthbridgeError ERR_IMAGE_FORMAT, ERR_IMAGE_NO_RAM
 */
export function loadBootSector(image: Uint8Array, environment: BootEnvironment): BootImage {
  if (image.length < SECTOR || new DataView(image.buffer, image.byteOffset).getUint16(SECTOR - 2, true) !== SIGNATURE) {
    throw new SouthbridgeError('ERR_IMAGE_FORMAT', 'a boot sector ends with 55 AA');
  }
  const segments = [segment(BOOT_SECTOR, image)];
  checkPlacement(segments, environment.memory);
  return { format: 'boot-sector', segments, entry: BOOT_SECTOR, enter: enterReal };
}

function enterReal(cpu: CpuState): void {
  const data = realSegment(REAL_DATA);
  cpu.gpr.fill(0n);
  cpu.gpr[2] = BigInt(FIRST_HARD_DISK);
  cpu.gpr[4] = BigInt(BOOT_SECTOR);
  cpu.rip = BigInt(BOOT_SECTOR);
  cpu.rflags = 2n;
  cpu.cs = realSegment(REAL_CODE);
  cpu.ds = data;
  cpu.es = data;
  cpu.fs = data;
  cpu.gs = data;
  cpu.ss = data;
  cpu.tr = realSegment(REAL_TSS);
  cpu.ldtr = realSegment(REAL_LDT);
  cpu.gdtr = { base: 0n, limit: REAL_LIMIT };
  cpu.idtr = { base: 0n, limit: 0x3ff };
  cpu.cr0 = CR0_ET;
  cpu.cr2 = 0n;
  cpu.cr3 = 0n;
  cpu.cr4 = 0n;
  cpu.efer = 0n;
  cpu.halted = false;
}

function realSegment(attributes: number): SegmentState {
  return { selector: 0, base: 0n, limit: REAL_LIMIT, attributes, unusable: false };
}
