import { SouthbridgeError } from '../errors.ts';
import { type HostCalls as AddonCalls, hostCalls as addonCalls } from '../host/calls.ts';
import { canLockRange, lockRange } from '../host/files.ts';

/**
 * The host calls that Node lacks. The native addon provides them; without it the block layer does without: no locks
 * between processes, holes are data, zeroes are written, discards are dropped.
 *
 * Each throws an error with a `code` (`ENOTSUP`, `ENOSPC`...) where the host refuses.
 */
export interface HostCalls {
  /**
   * An open-file-description lock (F_OFD_SETLK) on a range of bytes of a file.
   *
   * @returns false where another holder is in the way
   */
  lockRange?(fd: number, start: number, length: number, mode: 'shared' | 'exclusive' | 'none'): boolean;
  /** Whether an exclusive lock on the range could be had (F_OFD_GETLK). */
  canLock?(fd: number, start: number, length: number): boolean;
  /** fallocate(2) with the mode's bits: see {@link fallocateMode}. */
  fallocate?(fd: number, mode: number, offset: number, length: number): void;
  /**
   * lseek(2) with SEEK_DATA or SEEK_HOLE.
   *
   * @returns the offset, or -1 where there is no more data (ENXIO)
   */
  seek?(fd: number, offset: number, what: 'data' | 'hole'): number;
}

export const fallocateMode = { KEEP_SIZE: 1, PUNCH_HOLE: 2, ZERO_RANGE: 16 } as const;

let provided: HostCalls | undefined;

/** What the process has: the native addon's calls, or none of them where it has not been built. */
export function hostCalls(): HostCalls {
  provided ??= fromAddon();
  return provided;
}

/** Provides other calls, or (`{}`) none: for tests. */
export function installHostCalls(calls: HostCalls): void {
  provided = calls;
}

function fromAddon(): HostCalls {
  let addon: AddonCalls;
  try {
    addon = addonCalls();
  } catch (error) {
    if (error instanceof SouthbridgeError) return {};
    throw error;
  }
  return {
    lockRange: (fd, start, length, mode) =>
      lockRange(fd, mode === 'shared' ? 'read' : mode === 'exclusive' ? 'write' : 'none', start, length),
    canLock: (fd, start, length) => canLockRange(fd, 'write', start, length),
    fallocate: (fd, mode, offset, length) => addon.fallocate(fd, mode, offset, length),
    seek: (fd, offset, what) => addon.seek(fd, offset, what === 'data' ? 3 : 4),
  };
}
