import { closeSync, writeSync } from 'node:fs';
import { SouthbridgeError } from '../errors.ts';
import { hostCalls } from './calls.ts';
import { isSystemError } from './native.ts';

/** linux/falloc.h */
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;
const FALLOC_FL_ZERO_RANGE = 16;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
const LOCK_TYPES = { read: 0, write: 1, none: 2 } as const;
const PAGE = 4096;
const ADVICE = {
  dontneed: 4,
  willneed: 3,
  mergeable: 12,
  hugepage: 14,
  nohugepage: 15,
  dontdump: 16,
  dodump: 17,
} as const;

/** A stretch of a file: bytes. */
export interface Extent {
  readonly start: number;
  readonly length: number;
}

/** Frees the blocks of a stretch, which reads as zeros from now on. False where the file system cannot. */
export const punchHole = (fd: number, offset: number, length: number): boolean =>
  supported(() => hostCalls().fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length));

/** Zeros a stretch and keeps it allocated. False where the file system cannot. */
export const zeroRange = (fd: number, offset: number, length: number): boolean =>
  supported(() => hostCalls().fallocate(fd, FALLOC_FL_ZERO_RANGE, offset, length));

/** Allocates the blocks of a stretch, growing the file. False where the file system cannot. */
export const allocate = (fd: number, offset: number, length: number): boolean =>
  supported(() => hostCalls().fallocate(fd, 0, offset, length));

/** The first stretch of data at or behind `offset`, or undefined where only holes follow. Files without holes are all data. */
export function nextData(fd: number, offset: number): Extent | undefined {
  const start = hostCalls().seek(fd, offset, SEEK_DATA);
  if (start < 0) return undefined;
  return { start, length: hostCalls().seek(fd, start, SEEK_HOLE) - start };
}

/**
 * An open-file-description lock (fcntl(2), F_OFD_SETLK): it belongs to the open file, so it ends with it, and two opens
 * within one process exclude each other too. False where someone holds a lock in the way.
 */
export const lockRange = (fd: number, type: 'read' | 'write' | 'none', start: number, length: number): boolean =>
  hostCalls().ofdLock(fd, LOCK_TYPES[type], start, length);

/** Whether such a lock could be had now. */
export const canLockRange = (fd: number, type: 'read' | 'write', start: number, length: number): boolean =>
  hostCalls().ofdTest(fd, LOCK_TYPES[type], start, length);

/** Zeroed memory that starts at a page, as O_DIRECT transfers need. */
export function alignedBuffer(size: number): Uint8Array<ArrayBuffer> {
  const whole = Math.max(PAGE, Math.ceil(size / PAGE) * PAGE);
  return new Uint8Array(hostCalls().map(-1, 0, whole, false, true), 0, size);
}

/** Anonymous memory with a file descriptor, to share with another process. */
export const createMemfd = (name: string, size: number): number => hostCalls().memfdCreate(name, size);

/** The bytes of a file as memory; `shared` writes go to the file. Whole pages. */
export const mapFile = (
  fd: number,
  offset: number,
  length: number,
  options: { shared: boolean; writable: boolean },
): ArrayBuffer => hostCalls().map(fd, offset, length, options.shared, options.writable);

/** Puts pages of a file in the place of `memory`, which has to be whole pages. @throws the host's error */
export const mapFileOver = (memory: ArrayBufferView, fd: number, offset: number, shared: boolean): void =>
  hostCalls().mapOver(memory, fd, offset, shared);

/** Keeps memory out of swap. @throws SouthbridgeError ERR_MLOCK where the limit on locked memory is too low */
export function lockMemory(bytes: ArrayBufferView): void {
  try {
    hostCalls().lockMemory(bytes);
  } catch (cause) {
    throw new SouthbridgeError(
      'ERR_MLOCK',
      `cannot lock ${bytes.byteLength} bytes of memory`,
      'raise the limit (ulimit -l)',
      { cause },
    );
  }
}

/** madvise(2) of whole pages. False where this kernel has no such advice. */
export const adviseMemory = (bytes: ArrayBufferView, advice: keyof typeof ADVICE): boolean =>
  supported(() => hostCalls().adviseMemory(bytes, ADVICE[advice]));

/** Asks for pages of 2 MiB under memory that is going to be used a lot: advice only, and none where the addon is missing. */
export function preferHugePages(bytes: ArrayBufferView): void {
  try {
    adviseMemory(bytes, 'hugepage');
  } catch (error) {
    if (!(error instanceof SouthbridgeError)) throw error;
  }
}

/** Size and block sizes of a block device, in bytes. */
export function blockDeviceSize(fd: number): { size: number; logicalBlockSize: number; physicalBlockSize: number } {
  const [size, logicalBlockSize, physicalBlockSize] = hostCalls().blockDevice(fd);
  return { size, logicalBlockSize, physicalBlockSize };
}

const pause = new Int32Array(new SharedArrayBuffer(4));

/**
 * Writes all of it, whatever the descriptor is. A pipe or socket that someone else made non-blocking (standard error is often
 * shared with the parent) takes a part or nothing while its reader is behind; then this waits for the reader, as write(2) would.
 *
 * @throws the system error of write(2), never EAGAIN
 */
export function writeFully(fd: number, data: string | Uint8Array): void {
  const bytes = typeof data === 'string' ? Buffer.from(data) : data;
  for (let done = 0; done < bytes.length; ) {
    try {
      done += writeSync(fd, bytes, done);
    } catch (error) {
      if (!isSystemError(error) || error.code !== 'EAGAIN') throw error;
      Atomics.wait(pause, 0, 0, 1);
    }
  }
}

/** Closes descriptors that came from here; one that is gone already does not matter. */
export function closeAll(fds: Iterable<number>): void {
  for (const fd of fds) {
    try {
      closeSync(fd);
    } catch (error) {
      if (!isSystemError(error)) throw error;
    }
  }
}

function supported(call: () => void): boolean {
  try {
    call();
    return true;
  } catch (error) {
    if (isSystemError(error) && ['EOPNOTSUPP', 'ENOSYS', 'ENOTTY', 'EINVAL', 'ENODEV'].includes(error.code))
      return false;
    throw error;
  }
}
