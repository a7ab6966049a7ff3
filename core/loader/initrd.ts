import { SouthbridgeError } from '../errors.ts';
import { type BootEnvironment, ramEnd, type Segment, segment } from './image.ts';

const PAGE = 0x1000;
const ONE_MIB = 0x10_0000;

/** What firmware keeps for ACPI tables below the end of low RAM. */
const ACPI_DATA_SIZE = 0x2_8000;

/** The last address of an initrd that firmware is to leave alone. */
export function firmwareInitrdMax({ memory }: BootEnvironment): number {
  return ramEnd(memory, ONE_MIB, 2 ** 32) - ACPI_DATA_SIZE - 1;
}

/**
 * The initial RAM disk at the top of the RAM that begins at 1 MiB, page-aligned and clear of `others`.
 *
 * @param highest the last address that the kernel can reach
 * @throws SouthbridgeError ERR_IMAGE_NO_RAM where it does not fit
 */
export function placeInitrd(
  environment: BootEnvironment,
  others: readonly Segment[],
  highest: number,
): Segment | undefined {
  const { initrd, memory } = environment;
  if (initrd === undefined || initrd.length === 0) return undefined;
  const end = ramEnd(memory, ONE_MIB, highest + 1);
  // One byte less than there is, as QEMU places it.
  const address = Math.floor((end - 1 - initrd.length) / PAGE) * PAGE;
  const taken = Math.max(ONE_MIB, ...others.map(other => other.address + other.size).filter(top => top <= end));
  if (address < taken) {
    throw new SouthbridgeError(
      'ERR_IMAGE_NO_RAM',
      `initrd is too large, cannot support. (max: ${Math.max(0, end - taken)}, need ${initrd.length})`,
      'give the machine more memory with -m, or use a smaller initrd',
    );
  }
  return segment(address, initrd);
}
