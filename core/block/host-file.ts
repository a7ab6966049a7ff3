import fs from 'node:fs';
import { performance } from 'node:perf_hooks';
import { hostPath } from '../host/fd-sets.ts';
import { fallocateMode, hostCalls } from './host-calls.ts';
import { errno, errnoOf, hostError, IoError } from './io-error.ts';
import { IoVector } from './io-vector.ts';
import type { Pending } from './pending.ts';

/** The most that one readv(2) or writev(2) takes. */
const IOV_MAX = 1024;

/** Requests up to this size may be served without the thread pool. */
const IMMEDIATE_LIMIT = 256 * 1024;

/** A call that takes longer than this did not come from the page cache, in milliseconds. */
const SLOW_MS = 0.2;

/** How many calls go to the pool after the first slow one. */
const FIRST_PENALTY = 2;

/**
 * Chooses between a host call in place (1 µs from the page cache, but it blocks the guest where the disk must be asked)
 * and one in the thread pool (30 µs and an event loop turn, but others go on). It starts in place; each call that was
 * slow sends the next ones to the pool, twice as many for each slow one in a row.
 */
class Pace {
  #pooled = 0;
  #penalty = FIRST_PENALTY;

  inPlace(): boolean {
    if (this.#pooled === 0) return true;
    this.#pooled--;
    return false;
  }

  took(ms: number): void {
    if (ms > SLOW_MS) {
      this.#pooled = this.#penalty;
      this.#penalty = Math.min(this.#penalty * 2, 1024);
    } else {
      // One slow call among fast ones was the host's scheduler, not its disk.
      this.#penalty = FIRST_PENALTY;
    }
  }
}

/** An open file or block device of the host. */
export class HostFile {
  readonly path: string;
  readonly direct: boolean;
  #fd: number;
  #size: number;
  readonly #isDevice: boolean;
  readonly #reads = new Pace();
  readonly #writes = new Pace();

  private constructor(path: string, fd: number, size: number, isDevice: boolean, direct: boolean) {
    this.path = path;
    this.#fd = fd;
    this.#size = size;
    this.#isDevice = isDevice;
    this.direct = direct;
  }

  /** @throws IoError with the host's error number */
  static open(path: string, options: { readonly writable: boolean; readonly direct: boolean }): HostFile {
    const { O_RDONLY, O_RDWR, O_DIRECT } = fs.constants;
    let fd: number | undefined;
    try {
      fd = fs.openSync(hostPath(path), (options.writable ? O_RDWR : O_RDONLY) | (options.direct ? O_DIRECT : 0));
      return HostFile.adopt(path, fd, options.direct);
    } catch (error) {
      if (fd !== undefined) fs.closeSync(fd);
      throw hostError(error);
    }
  }

  /** Takes over a file descriptor that is open already. */
  static adopt(path: string, fd: number, direct = false): HostFile {
    try {
      const stat = fs.fstatSync(fd);
      if (stat.isDirectory()) throw new IoError(errno.EISDIR);
      const isDevice = stat.isBlockDevice();
      return new HostFile(path, fd, isDevice ? deviceSize(stat.rdev) : stat.size, isDevice, direct);
    } catch (error) {
      throw hostError(error);
    }
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
    for (const bytes of [512, 1024, 2048]) {
      try {
        fs.readSync(this.#fd, pageBuffer(bytes), 0, bytes, bytes);
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
    if (!this.direct && bytes <= IMMEDIATE_LIMIT && this.#reads.inPlace()) {
      const started = performance.now();
      this.#readInPlace(offset, bytes, iov, at);
      this.#reads.took(performance.now() - started);
      return undefined;
    }
    return this.#readPooled(offset, bytes, iov, at);
  }

  write(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    if (!this.direct && bytes <= IMMEDIATE_LIMIT && this.#writes.inPlace()) {
      const started = performance.now();
      try {
        this.#writeInPlace(offset, bytes, iov, at);
      } catch (error) {
        // A part may have been written, and that may have made the file longer.
        this.refreshSize();
        throw error;
      }
      this.#writes.took(performance.now() - started);
      this.#size = Math.max(this.#size, offset + bytes);
      return undefined;
    }
    return this.#writePooled(offset, bytes, iov, at);
  }

  /** All that was written is on the disk when this is done. */
  sync(): Promise<void> {
    return new Promise((resolve, reject) => {
      fs.fdatasync(this.#fd, error => (error === null ? resolve() : reject(hostError(error))));
    });
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

  #readInPlace(offset: number, bytes: number, iov: IoVector, at: number): void {
    try {
      if (iov.locate(at, bytes)) {
        const { base, start } = iov;
        let done = 0;
        while (done < bytes) {
          const got = fs.readSync(this.#fd, base, start + done, bytes - done, offset + done);
          if (got === 0) break;
          done += got;
        }
        if (done < bytes) base.fill(0, start + done, start + bytes);
        return;
      }
      for (let done = 0; done < bytes; ) {
        const views = iov.views(at + done, bytes - done);
        const got = fs.readvSync(this.#fd, views.length > IOV_MAX ? views.slice(0, IOV_MAX) : views, offset + done);
        if (got === 0) {
          iov.fill(at + done, bytes - done, 0);
          return;
        }
        done += got;
      }
    } catch (error) {
      throw hostError(error);
    }
  }

  #writeInPlace(offset: number, bytes: number, iov: IoVector, at: number): void {
    try {
      if (iov.locate(at, bytes)) {
        const { base, start } = iov;
        for (let done = 0; done < bytes; ) {
          const put = fs.writeSync(this.#fd, base, start + done, bytes - done, offset + done);
          if (put === 0) throw new IoError(errno.ENOSPC);
          done += put;
        }
        return;
      }
      for (let done = 0; done < bytes; ) {
        const views = iov.views(at + done, bytes - done);
        const put = fs.writevSync(this.#fd, views.length > IOV_MAX ? views.slice(0, IOV_MAX) : views, offset + done);
        if (put === 0) throw new IoError(errno.ENOSPC);
        done += put;
      }
    } catch (error) {
      throw hostError(error);
    }
  }

  async #readPooled(offset: number, bytes: number, iov: IoVector, at: number): Promise<void> {
    if (this.direct && !aligned(iov, at, bytes)) return this.#bounced('read', offset, bytes, iov, at);
    for (let done = 0; done < bytes; ) {
      const got = await this.#transfer(fs.readv, offset + done, iov.views(at + done, bytes - done));
      if (got === 0) {
        iov.fill(at + done, bytes - done, 0);
        return;
      }
      done += got;
    }
  }

  async #writePooled(offset: number, bytes: number, iov: IoVector, at: number): Promise<void> {
    if (this.direct && !aligned(iov, at, bytes)) return this.#bounced('write', offset, bytes, iov, at);
    try {
      for (let done = 0; done < bytes; ) {
        const put = await this.#transfer(fs.writev, offset + done, iov.views(at + done, bytes - done));
        if (put === 0) throw new IoError(errno.ENOSPC);
        done += put;
      }
    } catch (error) {
      this.refreshSize();
      throw error;
    }
    this.#size = Math.max(this.#size, offset + bytes);
  }

  #transfer(call: typeof fs.readv | typeof fs.writev, offset: number, views: Uint8Array[]): Promise<number> {
    return new Promise((resolve, reject) => {
      call(this.#fd, views.length > IOV_MAX ? views.slice(0, IOV_MAX) : views, offset, (error, count) =>
        error === null ? resolve(count) : reject(hostError(error)),
      );
    });
  }

  /** O_DIRECT through memory that is aligned as the host wants it. */
  async #bounced(op: 'read' | 'write', offset: number, bytes: number, iov: IoVector, at: number): Promise<void> {
    const bounce = pageBuffer(bytes);
    const flat = IoVector.of(bounce);
    if (op === 'read') {
      await this.#readPooled(offset, bytes, flat, 0);
      iov.scatter(at, bounce, 0, bytes);
    } else {
      iov.gather(at, bounce, 0, bytes);
      await this.#writePooled(offset, bytes, flat, 0);
    }
  }
}

/** Memory of our own that begins on a page. */
const pages = new WeakSet<ArrayBufferLike>();

function pageBuffer(bytes: number): Uint8Array {
  const { buffer } = new WebAssembly.Memory({ initial: Math.ceil(bytes / 0x1_0000) });
  pages.add(buffer);
  return new Uint8Array(buffer, 0, bytes);
}

/** Whether every piece begins on a page of 4 KiB: guest RAM does, as a whole, and what others bring may not. */
function aligned(iov: IoVector, at: number, bytes: number): boolean {
  let fits = true;
  iov.forEach(at, bytes, (base, start, length) => {
    const whole = base.buffer instanceof SharedArrayBuffer || pages.has(base.buffer);
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
