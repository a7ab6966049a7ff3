import { hostCalls, type NativeIoRing } from './calls.ts';
import { FdWatcher, READABLE } from './event-fd.ts';

/** Requests under way at a time; more wait for their turn. */
const SLOTS = 256;
const READ = 1;
const WRITE = 2;
const DATA_SYNC = 3;
const NO_MEMORY = new Uint8Array(0);
const NO_SPANS = new Float64Array(1);

type Finish = (result: number) => void;

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
  readonly #memory: (Uint8Array | undefined)[] = new Array<Uint8Array | undefined>(SLOTS).fill(undefined);
  readonly #waiting: (() => void)[] = [];
  #plugs = 0;

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

  /**
   * Moves data between a file and `count` stretches of `memory`: their starts and lengths in turn are in `spans`, which has
   * room for one number more. The memory must stay where it is.
   */
  transfer(
    write: boolean,
    fd: number,
    memory: Uint8Array,
    spans: Float64Array,
    count: number,
    offset: number,
  ): Promise<number> {
    return this.#request(write ? WRITE : READ, fd, memory, spans, count, offset);
  }

  /** fdatasync(2). */
  dataSync(fd: number): Promise<number> {
    return this.#request(DATA_SYNC, fd, NO_MEMORY, NO_SPANS, 0, 0);
  }

  close(): void {
    this.#watcher.close();
    this.#ring.close();
  }

  #request(
    op: number,
    fd: number,
    memory: Uint8Array,
    spans: Float64Array,
    count: number,
    offset: number,
  ): Promise<number> {
    const slot = this.#free.pop();
    if (slot === undefined) {
      // The table is its owner's only until now.
      const kept = spans.slice(0, 2 * count + 1);
      return new Promise<void>(resolve => this.#waiting.push(resolve)).then(() =>
        this.#request(op, fd, memory, kept, count, offset),
      );
    }
    if (this.#free.length === SLOTS - 1) this.#watcher.setRef(true);
    this.#memory[slot] = memory;
    if (!this.#ring.submit(op, slot, fd, memory, spans, count, offset)) {
      this.#release(slot);
      throw new RangeError('the stretches of memory are not within it');
    }
    const finished = new Promise<number>(resolve => {
      this.#finish[slot] = resolve;
    });
    if (this.#plugs === 0) this.#enter();
    return finished;
  }

  /** What the kernel has no memory for now is tried again. */
  #enter(): void {
    if (this.#ring.enter() < 0) setImmediate(() => this.#enter());
  }

  #reap(): void {
    for (let count = this.#ring.reap(); count > 0; count = this.#ring.reap()) {
      for (let index = 0; index < count; index++) {
        const slot = this.#done[2 * index] ?? 0;
        const finish = this.#finish[slot];
        this.#release(slot);
        finish?.(this.#done[2 * index + 1] ?? 0);
      }
    }
    this.#enter();
  }

  #release(slot: number): void {
    this.#finish[slot] = undefined;
    this.#memory[slot] = undefined;
    this.#free.push(slot);
    if (this.#free.length === SLOTS) this.#watcher.setRef(false);
    this.#waiting.shift()?.();
  }
}

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
