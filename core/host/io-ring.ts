import { hostCalls, type NativeIoRing } from './calls.ts';
import { FdWatcher, READABLE } from './event-fd.ts';

/** Requests under way at a time; more wait for their turn. */
const SLOTS = 256;
const READ = 1;
const WRITE = 2;
const DATA_SYNC = 3;
const NO_MEMORY = new Uint8Array(0);
const NO_SPANS = new Float64Array(1);
/**
 * Requests of so many bytes go although more may follow: to pin their pages takes the kernel about as long as the disk takes to
 * move them, and a disk that has begun meanwhile is not idle.
 */
const BATCH_BYTES = 256 * 1024;

type Finish = (result: number) => void;

/** Data to move between a file and `count` stretches of memory. */
export interface Transfer {
  readonly write: boolean;
  readonly fd: number;
  readonly offset: number;
  /** Of all stretches. */
  readonly bytes: number;
  readonly base: Uint8Array;
  /** Keeps the memory where it is for as long as somebody holds it. */
  readonly anchor: object;
  /** Starts and lengths in `base` in turn, and room for one number more. Read at once. */
  readonly spans: Float64Array;
  readonly count: number;
}

/**
 * Requests to files that are carried out beside us: by the kernel itself (io_uring(7)), or by threads. All that were made since
 * {@link plug} are handed over at once. Promises give bytes moved, or a negative error number.
 */
export class IoRing {
  readonly #ring: NativeIoRing;
  readonly #done = new Int32Array(2 * SLOTS);
  readonly #watcher: FdWatcher;
  readonly #free: number[] = Array.from({ length: SLOTS }, (_, index) => SLOTS - 1 - index);
  readonly #finish: (Finish | undefined)[] = new Array<Finish | undefined>(SLOTS).fill(undefined);
  /** What the kernel reads and writes must not be collected. */
  readonly #anchors: (object | undefined)[] = new Array<object | undefined>(SLOTS).fill(undefined);
  readonly #waiting: (() => void)[] = [];
  #plugs = 0;
  /** Bytes of requests that have not been handed over. */
  #held = 0;

  /** @throws SystemError where the host has none, or forbids it */
  constructor(by: 'kernel' | 'threads' = 'kernel') {
    const { IoRing: Kernel, IoThreads: Threads } = hostCalls();
    this.#ring = by === 'kernel' ? new Kernel(SLOTS, this.#done) : new Threads(SLOTS, this.#done);
    this.#watcher = new FdWatcher(this.#ring.fd, () => this.#reap());
    this.#watcher.watch(READABLE);
    this.#watcher.setRef(false);
  }

  /** Holds requests back until {@link unplug}, to hand them over together. Pairs may nest. */
  plug(): void {
    this.#plugs++;
  }

  unplug(): void {
    this.#plugs = Math.max(0, this.#plugs - 1);
    if (this.#plugs === 0) this.#enter();
  }

  transfer(transfer: Transfer): Promise<number> {
    return this.#request(transfer.write ? WRITE : READ, transfer);
  }

  /** fdatasync(2). */
  dataSync(fd: number): Promise<number> {
    return this.#request(DATA_SYNC, { ...NOTHING, fd });
  }

  /**
   * Waits in place until all that is under way has been carried out, and the memory of it is its owner's again. The promises are
   * kept afterwards, as ever.
   */
  settle(): void {
    let anything = true;
    // A ring that has been closed finishes nothing more.
    while (this.#free.length < SLOTS && anything) {
      this.#ring.wait();
      anything = this.#finishAll();
    }
  }

  close(): void {
    this.#watcher.close();
    this.#ring.close();
  }

  #request(op: number, transfer: Transfer): Promise<number> {
    const slot = this.#free.pop();
    const { fd, base, spans, count, offset } = transfer;
    if (slot === undefined) {
      // The table is its owner's only until now.
      const kept = { ...transfer, spans: spans.slice(0, 2 * count + 1) };
      return new Promise(resolve => this.#waiting.push(() => resolve(this.#request(op, kept))));
    }
    if (this.#free.length === SLOTS - 1) this.#watcher.setRef(true);
    this.#anchors[slot] = transfer.anchor;
    if (!this.#ring.submit(op, slot, fd, base, spans, count, offset)) {
      this.#release(slot);
      throw new RangeError('the stretches of memory are not within it');
    }
    const finished = new Promise<number>(resolve => {
      this.#finish[slot] = resolve;
    });
    this.#held += transfer.bytes;
    if (this.#plugs === 0 || this.#held >= BATCH_BYTES) this.#enter();
    return finished;
  }

  /** What the kernel has no memory for now is tried again. */
  #enter(): void {
    this.#held = 0;
    if (this.#ring.enter() < 0) setImmediate(() => this.#enter());
  }

  #reap(): void {
    this.#finishAll();
    this.#enter();
  }

  /** Whether anything has finished. */
  #finishAll(): boolean {
    let anything = false;
    for (let count = this.#ring.reap(); count > 0; count = this.#ring.reap()) {
      anything = true;
      for (let index = 0; index < count; index++) {
        const slot = this.#done[2 * index] ?? 0;
        const finish = this.#finish[slot];
        this.#release(slot);
        finish?.(this.#done[2 * index + 1] ?? 0);
      }
    }
    return anything;
  }

  #release(slot: number): void {
    this.#finish[slot] = undefined;
    this.#anchors[slot] = undefined;
    this.#free.push(slot);
    if (this.#free.length === SLOTS) this.#watcher.setRef(false);
    this.#waiting.shift()?.();
  }
}

const NOTHING = {
  write: false,
  offset: 0,
  bytes: 0,
  base: NO_MEMORY,
  anchor: NO_MEMORY,
  spans: NO_SPANS,
  count: 0,
} as const;

const shared: Record<'kernel' | 'threads', IoRing | null | undefined> = { kernel: undefined, threads: undefined };

/** The ring of this thread; undefined where the host has none (an old kernel, a container that forbids it, no addon). */
export function ioRing(by: 'kernel' | 'threads' = 'kernel'): IoRing | undefined {
  if (shared[by] === undefined) {
    try {
      shared[by] = new IoRing(by);
    } catch {
      shared[by] = null;
    }
  }
  return shared[by] ?? undefined;
}
