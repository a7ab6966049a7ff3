import fs from 'node:fs';
import { hostPath } from '../host/fd-sets.ts';
import { giveBounce, isPageBuffer, takeBounce } from './bounce.ts';
import { fallocateMode, hostCalls } from './host-calls.ts';
import { CANNOT_TELL, type HostTransfers, hostTransfers, transferKind } from './host-transfer.ts';
import { errno, errnoOf, hostError, IoError } from './io-error.ts';
import { IoVector } from './io-vector.ts';
import type { Pending } from './pending.ts';

const { READ_CACHED, READ, WRITE } = transferKind;

/** Requests up to this size may be served in place. */
const IMMEDIATE_LIMIT = 256 * 1024;

/** How many calls go aside after the first that waited for the disk. */
const FIRST_PENALTY = 2;

/**
 * Chooses between a host call in place (1 µs from the page cache, but it blocks the guest where the disk must be asked)
 * and one beside it (30 µs and an event loop turn, but others go on). It starts in place; each call that waited for the disk
 * sends the next ones aside, twice as many for each such one in a row.
 */
class Pace {
  #aside = 0;
  #penalty = FIRST_PENALTY;

  inPlace(): boolean {
    if (this.#aside === 0) return true;
    this.#aside--;
    return false;
  }

  took(slept: boolean): void {
    if (slept) {
      this.#aside = this.#penalty;
      this.#penalty = Math.min(this.#penalty * 2, 1024);
    } else {
      this.#penalty = FIRST_PENALTY;
    }
  }
}

export interface HostFileOptions {
  /** O_DIRECT. */
  readonly direct: boolean;
  /** What has to wait does so in the thread pool, even where the kernel could do without. */
  readonly threads?: boolean;
}

/** An open file or block device of the host. */
export class HostFile {
  readonly path: string;
  readonly direct: boolean;
  #fd: number;
  #size: number;
  readonly #isDevice: boolean;
  readonly #transfers: HostTransfers;
  /** The page cache can be asked for what it has. */
  #readsCached: boolean;
  readonly #reads = new Pace();
  readonly #writes = new Pace();

  private constructor(
    path: string,
    fd: number,
    size: number,
    isDevice: boolean,
    direct: boolean,
    transfers: HostTransfers,
  ) {
    this.path = path;
    this.#fd = fd;
    this.#size = size;
    this.#isDevice = isDevice;
    this.direct = direct;
    this.#transfers = transfers;
    this.#readsCached = transfers.readsCached;
  }

  /** @throws IoError with the host's error number */
  static open(path: string, options: HostFileOptions & { readonly writable: boolean }): HostFile {
    const { O_RDONLY, O_RDWR, O_DIRECT } = fs.constants;
    let fd: number | undefined;
    try {
      fd = fs.openSync(hostPath(path), (options.writable ? O_RDWR : O_RDONLY) | (options.direct ? O_DIRECT : 0));
      return HostFile.adopt(path, fd, options);
    } catch (error) {
      if (fd !== undefined) fs.closeSync(fd);
      throw hostError(error);
    }
  }

  /** Takes over a file descriptor that is open already. */
  static adopt(path: string, fd: number, { direct, threads }: HostFileOptions = { direct: false }): HostFile {
    try {
      const stat = fs.fstatSync(fd);
      if (stat.isDirectory()) throw new IoError(errno.EISDIR);
      const isDevice = stat.isBlockDevice();
      const size = isDevice ? deviceSize(stat.rdev) : stat.size;
      return new HostFile(path, fd, size, isDevice, direct, hostTransfers(threads));
    } catch (error) {
      throw hostError(error);
    }
  }

  /** See {@link HostFileOptions.threads}. */
  get threads(): boolean {
    return this.#transfers === hostTransfers(true);
  }

  get fd(): number {
    return this.#fd;
  }

  get isDevice(): boolean {
    return this.#isDevice;
  }

  /** In bytes, as it was when last asked of the host, grown by our own writes since. */
  get size(): number {
    return this.#size;
  }

  /** Asks the host again. */
  refreshSize(): number {
    const stat = fs.fstatSync(this.#fd);
    this.#size = this.#isDevice ? deviceSize(stat.rdev) : stat.size;
    return this.#size;
  }

  /** What O_DIRECT wants requests to be multiples of, in bytes: found by asking for less. */
  directAlignment(): number {
    if (!this.direct) return 1;
    const probe = takeBounce(2048);
    for (const bytes of [512, 1024, 2048]) {
      try {
        fs.readSync(this.#fd, probe, 0, bytes, bytes);
        return bytes;
      } catch {
        // More, then.
      }
    }
    return 4096;
  }

  /** Bytes that the host has set aside for the file. */
  allocatedSize(): number {
    const stat = fs.fstatSync(this.#fd);
    return this.#isDevice ? this.#size : stat.blocks * 512;
  }

  /** Reads; what lies behind the end of the file is 0. */
  read(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    if (this.direct || bytes > IMMEDIATE_LIMIT) return this.#readLater(offset, bytes, iov, at);
    const done = this.#readNow(offset, bytes, iov, at);
    return done === bytes ? undefined : this.#readLater(offset + done, bytes - done, iov, at + done);
  }

  write(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    if (this.direct || bytes > IMMEDIATE_LIMIT || !this.#writes.inPlace()) {
      return this.#writeLater(offset, bytes, iov, at);
    }
    try {
      for (let done = 0; done < bytes; ) {
        const put = this.#transfers.now(WRITE, this.#fd, offset + done, bytes - done, iov, at + done);
        this.#writes.took(this.#transfers.slept);
        if (put < 0) return this.#writeLater(offset + done, bytes - done, iov, at + done);
        if (put === 0) throw new IoError(errno.ENOSPC);
        done += put;
      }
    } catch (error) {
      // A part may have been written, and that may have made the file longer.
      this.refreshSize();
      throw error;
    }
    this.#size = Math.max(this.#size, offset + bytes);
    return undefined;
  }

  /** All that was written is on the disk when this is done. */
  sync(): Promise<void> {
    return this.#transfers.sync(this.#fd);
  }

  truncate(size: number): Promise<void> {
    return new Promise((resolve, reject) => {
      fs.ftruncate(this.#fd, size, error => {
        if (error !== null) return reject(hostError(error));
        this.#size = size;
        resolve();
      });
    });
  }

  /**
   * Zeroes a range without writing it, and gives its blocks back where `unmap` is set.
   *
   * @returns false where the host cannot do that
   */
  zeroRange(offset: number, bytes: number, unmap: boolean): boolean {
    if (offset >= this.#size && !this.#isDevice) {
      fs.ftruncateSync(this.#fd, offset + bytes);
      this.#size = offset + bytes;
      return true;
    }
    const { fallocate } = hostCalls();
    if (fallocate === undefined) return false;
    const end = offset + bytes;
    try {
      if (unmap) {
        fallocate(this.#fd, fallocateMode.PUNCH_HOLE | fallocateMode.KEEP_SIZE, offset, bytes);
        if (end > this.#size && !this.#isDevice) fs.ftruncateSync(this.#fd, end);
      } else {
        fallocate(this.#fd, fallocateMode.ZERO_RANGE, offset, bytes);
      }
    } catch (error) {
      if (unsupported(error)) return false;
      throw hostError(error);
    }
    this.#size = Math.max(this.#size, end);
    return true;
  }

  /** Gives blocks back; their content is undefined afterwards. */
  discard(offset: number, bytes: number): void {
    const { fallocate } = hostCalls();
    if (fallocate === undefined) return;
    try {
      fallocate(this.#fd, fallocateMode.PUNCH_HOLE | fallocateMode.KEEP_SIZE, offset, bytes);
    } catch (error) {
      if (!unsupported(error)) throw hostError(error);
    }
  }

  /** How far from `offset` the file is all data, or all hole. */
  extent(offset: number, bytes: number): { readonly bytes: number; readonly data: boolean } {
    if (offset >= this.#size) return { bytes, data: false };
    const end = Math.min(offset + bytes, this.#size);
    const { seek } = hostCalls();
    if (seek === undefined || this.#isDevice) return { bytes: end - offset, data: true };
    try {
      const data = seek(this.#fd, offset, 'data');
      if (data < 0) return { bytes: end - offset, data: false };
      if (data > offset) return { bytes: Math.min(data, end) - offset, data: false };
      const hole = seek(this.#fd, offset, 'hole');
      return { bytes: (hole > offset ? Math.min(hole, end) : end) - offset, data: true };
    } catch {
      return { bytes: end - offset, data: true };
    }
  }

  close(): void {
    if (this.#fd >= 0) fs.closeSync(this.#fd);
    this.#fd = -1;
  }

  /** Reads what needs no waiting. Returns how many bytes that were. */
  #readNow(offset: number, bytes: number, iov: IoVector, at: number): number {
    if (this.#readsCached) {
      const got = this.#transfers.now(READ_CACHED, this.#fd, offset, bytes, iov, at);
      if (got !== CANNOT_TELL) return Math.max(0, got);
      this.#readsCached = false;
    }
    if (!this.#reads.inPlace()) return 0;
    for (let done = 0; done < bytes; ) {
      const got = this.#transfers.now(READ, this.#fd, offset + done, bytes - done, iov, at + done);
      this.#reads.took(this.#transfers.slept);
      if (got < 0) return done;
      if (got === 0) iov.fill(at + done, bytes - done, 0);
      done = got === 0 ? bytes : done + got;
    }
    return bytes;
  }

  async #readLater(offset: number, bytes: number, iov: IoVector, at: number): Promise<void> {
    if (!iov.stays || (this.direct && !aligned(iov, at, bytes))) return this.#bounced('read', offset, bytes, iov, at);
    for (let done = 0; done < bytes; ) {
      const got = await this.#transfers.later(false, this.#fd, offset + done, bytes - done, iov, at + done);
      if (got === 0) {
        iov.fill(at + done, bytes - done, 0);
        return;
      }
      done += got;
    }
  }

  async #writeLater(offset: number, bytes: number, iov: IoVector, at: number): Promise<void> {
    if (!iov.stays || (this.direct && !aligned(iov, at, bytes))) return this.#bounced('write', offset, bytes, iov, at);
    try {
      for (let done = 0; done < bytes; ) {
        const put = await this.#transfers.later(true, this.#fd, offset + done, bytes - done, iov, at + done);
        if (put === 0) throw new IoError(errno.ENOSPC);
        done += put;
      }
    } catch (error) {
      this.refreshSize();
      throw error;
    }
    this.#size = Math.max(this.#size, offset + bytes);
  }

  /** By memory that stays where it is, and is aligned as O_DIRECT wants it. */
  async #bounced(op: 'read' | 'write', offset: number, bytes: number, iov: IoVector, at: number): Promise<void> {
    const bounce = takeBounce(bytes);
    const flat = IoVector.of(bounce, 0, bytes);
    try {
      if (op === 'read') {
        await this.#readLater(offset, bytes, flat, 0);
        iov.scatter(at, bounce, 0, bytes);
      } else {
        iov.gather(at, bounce, 0, bytes);
        await this.#writeLater(offset, bytes, flat, 0);
      }
    } finally {
      giveBounce(bounce);
    }
  }
}

/** Whether every piece is as O_DIRECT wants it. Memory that is anchored, or shared, or ours, begins on a page as a whole. */
function aligned(iov: IoVector, at: number, bytes: number): boolean {
  let fits = true;
  iov.forEach(at, bytes, (base, start, length, _done, memory) => {
    const whole = memory !== base || base.buffer instanceof SharedArrayBuffer || isPageBuffer(base);
    fits &&= whole && (base.byteOffset + start) % 4096 === 0 && length % 512 === 0;
  });
  return fits;
}

function unsupported(error: unknown): boolean {
  const number = errnoOf(error);
  return number === errno.EOPNOTSUPP || number === errno.ENODEV || number === errno.EINVAL;
}

/** stat(2) gives no size for a block device; sysfs does, in sectors of 512 bytes. */
function deviceSize(rdev: number): number {
  const major = ((rdev >>> 8) & 0xfff) | (Math.floor(rdev / 2 ** 32) & ~0xfff);
  const minor = (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);
  return Number(fs.readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'utf8')) * 512;
}
