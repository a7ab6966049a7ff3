import type { CpuState } from '../accel/cpu-state.ts';
import { SouthbridgeError } from '../errors.ts';

/** Bytes to be put into guest memory. */
export interface Segment {
  /** Guest-physical address. */
  readonly address: number;
  readonly bytes: Uint8Array;
  /** Size in memory, at least that of `bytes`; the rest is zero. */
  readonly size: number;
}

/** Types of the BIOS's memory map (ACPI 6.4, section 15.1). */
export const E820 = { RAM: 1, RESERVED: 2, ACPI: 3, NVS: 4, UNUSABLE: 5 } as const;

/** One range of the memory map that firmware, or a loader in its place, hands to the guest. */
export interface MemoryRange {
  readonly address: number;
  readonly size: number;
  readonly type: number;
}

/** What to boot with: all that a loader needs to know of the machine. */
export interface BootEnvironment {
  /** The machine's memory map, in ascending order. */
  readonly memory: readonly MemoryRange[];
  readonly commandLine?: string;
  readonly initrd?: Uint8Array;
  /** Multiboot's modules; {@link initrd} alone is one without a command line. */
  readonly modules?: readonly BootModule[];
  /** The kernel's file name, with which multiboot begins the command line. */
  readonly kernelName?: string;
  /** Where the ACPI root pointer is, if the machine has put one into memory without firmware. */
  readonly rsdp?: number;
}

export interface BootModule {
  readonly bytes: Uint8Array;
  readonly commandLine: string;
}

/** A guest that is ready to be put into memory and entered. */
export interface BootImage {
  readonly format: 'boot-sector' | 'elf' | 'linux' | 'multiboot' | 'pvh';
  readonly segments: readonly Segment[];
  /** Guest-physical address of the first instruction. */
  readonly entry: number;
  /** Puts the boot CPU into the state that the boot protocol asks for. */
  enter(cpu: CpuState): void;
}

/** A numbered fw_cfg item. */
export interface FwCfgItem {
  readonly selector: number;
  readonly bytes: Uint8Array;
}

/** fw_cfg selectors that carry a kernel to the boot ROM (QEMU docs/specs/fw_cfg; standard_headers of the same). */
export const FW_CFG = {
  KERNEL_ADDR: 0x07,
  KERNEL_SIZE: 0x08,
  INITRD_ADDR: 0x0a,
  INITRD_SIZE: 0x0b,
  KERNEL_ENTRY: 0x10,
  KERNEL_DATA: 0x11,
  INITRD_DATA: 0x12,
  CMDLINE_ADDR: 0x13,
  CMDLINE_SIZE: 0x14,
  CMDLINE_DATA: 0x15,
  SETUP_ADDR: 0x16,
  SETUP_SIZE: 0x17,
  SETUP_DATA: 0x18,
} as const;

export function fwCfgNumber(selector: number, value: number): FwCfgItem {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, value, true);
  return { selector, bytes };
}

/** A segment whose memory is exactly its bytes. */
export function segment(address: number, bytes: Uint8Array): Segment {
  return { address, bytes, size: bytes.length };
}

/** The bytes of an ASCII or UTF-8 string with the 0 at its end. */
export function cString(text: string): Uint8Array {
  return new TextEncoder().encode(`${text}\0`);
}

/**
 * Checks that every segment lies in RAM and none touches another.
 *
 * @throws SouthbridgeError ERR_IMAGE_NO_RAM, ERR_IMAGE_OVERLAP
 */
export function checkPlacement(segments: readonly Segment[], memory: readonly MemoryRange[]): void {
  for (const { address, size } of segments) {
    if (size > 0 && !isRam(memory, address, size)) {
      throw new SouthbridgeError(
        'ERR_IMAGE_NO_RAM',
        `the image wants ${size} bytes at ${hex(address)}, where the machine has no RAM`,
        'give the machine more memory with -m',
      );
    }
  }
  const sorted = segments.filter(({ size }) => size > 0).sort((a, b) => a.address - b.address);
  for (const [index, next] of sorted.entries()) {
    const previous = sorted[index - 1];
    if (previous !== undefined && previous.address + previous.size > next.address) {
      throw new SouthbridgeError(
        'ERR_IMAGE_OVERLAP',
        `the parts of the image at ${hex(previous.address)} (${previous.size} bytes) and ${hex(next.address)} overlap`,
      );
    }
  }
}

/** Whether all of the range is RAM. */
export function isRam(memory: readonly MemoryRange[], address: number, size: number): boolean {
  const end = address + size;
  let covered = address;
  for (const range of memory) {
    if (range.type === E820.RAM && range.address <= covered) covered = Math.max(covered, range.address + range.size);
    if (covered >= end) return true;
  }
  return false;
}

/** The end of the RAM range that holds `address`, at most `limit`; `address` itself where there is none. */
export function ramEnd(memory: readonly MemoryRange[], address: number, limit: number): number {
  let end = address;
  for (const range of memory) {
    if (range.type === E820.RAM && range.address <= end) end = Math.max(end, range.address + range.size);
  }
  return Math.min(end, limit);
}

export function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
