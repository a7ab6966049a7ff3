import { SouthbridgeError } from '../errors.ts';
import { adviseMemory } from '../host/files.ts';
import type { GuestRam } from './guest-ram.ts';

/**
 * Gives whole pages of guest RAM back to the host; the guest finds zeroes there when it looks again. False where the host
 * cannot take them, in which case nothing has changed.
 */
export function discardRam(ram: GuestRam, offset: number, length: number): boolean {
  try {
    return adviseMemory(ram.bytes.subarray(offset, offset + length), 'dontneed');
  } catch (error) {
    if (error instanceof SouthbridgeError) return false;
    throw error;
  }
}
