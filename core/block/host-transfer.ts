import fs from 'node:fs';
import { performance } from 'node:perf_hooks';
import { hostCalls as addonCalls } from '../host/calls.ts';
import { type IoRing, ioRing } from '../host/io-ring.ts';
import { errno, hostError, IoError } from './io-error.ts';
import type { IoVector } from './io-vector.ts';

/** The most that one readv(2) or writev(2) takes. */
const IOV_MAX = 1024;
/** Stretches of memory that one call of the addon takes. */
const MAX_SPANS = 512;
/** Without the addon: a call that takes longer than this has slept, or so it seems, in milliseconds. */
const SLOW_MS = 0.2;

/** What {@link HostTransfers.now} does; the numbers are the addon's. */
export const transferKind = { READ_CACHED: 0, READ: 1, WRITE: 2 } as const;
export type TransferKind = (typeof transferKind)[keyof typeof transferKind];

/** What {@link HostTransfers.now} gives where the page cache has not got all, or cannot say. */
export const WOULD_WAIT = -1;
export const CANNOT_TELL = -2;

type TransferNow = (
  kind: number,
  fd: number,
  memory: Uint8Array,
  spans: Float64Array,
  count: number,
  offset: number,
) => number;

/** Ways to move bytes between a file and memory. */
export class HostTransfers {
  /** Whether the last call of {@link now} waited for the disk. */
  slept = false;
  readonly #spans = new Float64Array(2 * MAX_SPANS + 1);
  readonly #transferNow: TransferNow | undefined;
  readonly #ring: IoRing | undefined;

  constructor(parts: { readonly transferNow?: TransferNow | undefined; readonly ring?: IoRing | undefined }) {
    this.#transferNow = parts.transferNow;
    this.#ring = parts.ring;
  }

  /** Whether {@link now} can read what the page cache has and nothing else. */
  get readsCached(): boolean {
    return this.#transferNow !== undefined;
  }

  /** Makes several requests of {@link later} one call, that of {@link unplug}. */
  plug(): void {
    this.#ring?.plug();
  }

  unplug(): void {
    this.#ring?.unplug();
  }

  /** Waits in place until no request of {@link later} uses its memory any more. */
  settle(): void {
    this.#ring?.settle();
  }

  /**
   * Moves bytes in place. Returns how many; fewer than asked for at the end of the file, or where the rest would have to wait
   * (`READ_CACHED`); or {@link WOULD_WAIT}, {@link CANNOT_TELL}.
   *
   * @throws IoError
   */
  now(kind: TransferKind, fd: number, offset: number, bytes: number, iov: IoVector, at: number): number {
    const count = this.#transferNow === undefined ? 0 : iov.spans(at, bytes, this.#spans);
    if (this.#transferNow === undefined || count === 0) {
      return kind === transferKind.READ_CACHED ? CANNOT_TELL : this.#nowByNode(kind, fd, offset, bytes, iov, at);
    }
    const result = this.#transferNow(kind, fd, iov.base, this.#spans, count, offset);
    this.slept = this.#spans[2 * count] !== 0;
    if (result >= 0) return result;
    if (result === -errno.EAGAIN) return WOULD_WAIT;
    if (kind === transferKind.READ_CACHED && result === -errno.EOPNOTSUPP) return CANNOT_TELL;
    throw new IoError(-result);
  }

  #nowByNode(kind: TransferKind, fd: number, offset: number, bytes: number, iov: IoVector, at: number): number {
    const started = performance.now();
    try {
      if (iov.locate(at, bytes)) {
        const { base, start } = iov;
        return kind === transferKind.WRITE
          ? fs.writeSync(fd, base, start, bytes, offset)
          : fs.readSync(fd, base, start, bytes, offset);
      }
      const views = iov.views(at, bytes).slice(0, IOV_MAX);
      return kind === transferKind.WRITE ? fs.writevSync(fd, views, offset) : fs.readvSync(fd, views, offset);
    } catch (error) {
      throw hostError(error);
    } finally {
      this.slept = performance.now() - started > SLOW_MS;
    }
  }

  /** Moves bytes while others go on: by the kernel itself, or by threads. Rejects with an IoError. */
  later(write: boolean, fd: number, offset: number, bytes: number, iov: IoVector, at: number): Promise<number> {
    const count = this.#ring === undefined ? 0 : iov.spans(at, bytes, this.#spans);
    if (this.#ring !== undefined && iov.anchor !== undefined && count > 0) {
      const { base, anchor } = iov;
      return this.#ring.transfer({ write, fd, offset, bytes, base, anchor, spans: this.#spans, count }).then(moved);
    }
    const views = iov.views(at, bytes).slice(0, IOV_MAX);
    return new Promise((resolve, reject) => {
      (write ? fs.writev : fs.readv)(fd, views, offset, (error, done) =>
        error === null ? resolve(done) : reject(hostError(error)),
      );
    });
  }

  /** fdatasync(2). */
  async sync(fd: number): Promise<void> {
    if (this.#ring !== undefined) {
      moved(await this.#ring.dataSync(fd));
      return;
    }
    await new Promise<void>((resolve, reject) => {
      fs.fdatasync(fd, error => (error === null ? resolve() : reject(hostError(error))));
    });
  }
}

function moved(result: number): number {
  if (result < 0) throw new IoError(-result);
  return result;
}

let threads: HostTransfers | undefined;
let best: HostTransfers | undefined;

/** The best that the host has; `threads`: as {@link later} uses them, whatever else there is. */
export function hostTransfers(useThreads = false): HostTransfers {
  if (useThreads) {
    threads ??= new HostTransfers({ transferNow: transferNow(), ring: ioRing('threads') });
    return threads;
  }
  best ??= new HostTransfers({ transferNow: transferNow(), ring: ioRing() ?? ioRing('threads') });
  return best;
}

/** Makes several requests one handing-over, that of {@link unplugTransfers}, whatever carries them out. */
export function plugTransfers(): void {
  best?.plug();
  threads?.plug();
}

export function unplugTransfers(): void {
  best?.unplug();
  threads?.unplug();
}

/** Waits in place until the host uses no memory of requests that were handed over. */
export function settleTransfers(): void {
  best?.settle();
  threads?.settle();
}

function transferNow(): TransferNow | undefined {
  try {
    return addonCalls().transferNow;
  } catch {
    return undefined;
  }
}
