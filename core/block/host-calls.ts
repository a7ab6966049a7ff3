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

let provided: HostCalls = {};

/** What the process has; the program's entry point installs it. */
export function hostCalls(): HostCalls {
  return provided;
}

export function installHostCalls(calls: HostCalls): void {
  provided = calls;
}
