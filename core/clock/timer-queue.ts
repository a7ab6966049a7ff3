/** A timer that calls back once when its clock reaches the deadline. Rearming moves it; it survives a snapshot by its name. */
export interface Timer {
  readonly name: string;
  readonly pending: boolean;
  /** Absolute nanoseconds of its clock; Infinity while not pending. */
  readonly deadlineNs: number;
  /** Fires `delayNs` from now; a delay below 0 counts as 0. */
  arm(delayNs: number): void;
  /** Fires when the clock reads `deadlineNs` or later. */
  armAt(deadlineNs: number): void;
  cancel(): void;
  /** Cancels it and forbids further use. */
  dispose(): void;
}

const NOT_QUEUED = -1;

class QueuedTimer implements Timer {
  readonly name: string;
  readonly callback: () => void;
  readonly deferred: boolean;
  readonly #queue: TimerQueue;
  deadlineNs = Number.POSITIVE_INFINITY;
  sequence = 0;
  heapIndex = NOT_QUEUED;
  #disposed = false;

  constructor(queue: TimerQueue, name: string, callback: () => void, deferred: boolean) {
    this.#queue = queue;
    this.name = name;
    this.callback = callback;
    this.deferred = deferred;
  }

  get pending(): boolean {
    return this.heapIndex !== NOT_QUEUED;
  }

  arm(delayNs: number): void {
    this.armAt(this.#queue.now() + Math.max(0, delayNs));
  }

  armAt(deadlineNs: number): void {
    if (!this.#disposed) this.#queue.schedule(this, deadlineNs);
  }

  cancel(): void {
    this.#queue.unschedule(this);
  }

  dispose(): void {
    this.cancel();
    this.#disposed = true;
  }
}

/**
 * The timers of one clock in a binary heap. Timers with equal deadlines fire in the order in which they were armed, so a
 * run is repeatable.
 */
export class TimerQueue {
  readonly now: () => number;
  readonly #heap: QueuedTimer[] = [];
  readonly #earlier = new Set<() => void>();
  #sequence = 0;
  #deferred = 0;

  constructor(now: () => number) {
    this.now = now;
  }

  timer(name: string, callback: () => void): Timer {
    return new QueuedTimer(this, name, callback, false);
  }

  /** A timer for the rest of some work, which {@link settle} does not wait for. */
  deferred(name: string, callback: () => void): Timer {
    return new QueuedTimer(this, name, callback, true);
  }

  /** The next deadline in absolute nanoseconds; Infinity where none is pending. */
  get nextDeadlineNs(): number {
    return this.#heap[0]?.deadlineNs ?? Number.POSITIVE_INFINITY;
  }

  /** Calls `listener` whenever the next deadline moves to an earlier time. */
  onEarlier(listener: () => void): () => void {
    this.#earlier.add(listener);
    return () => this.#earlier.delete(listener);
  }

  /** Fires every timer whose deadline is at or before `nowNs`, including those that they arm. */
  runUntil(nowNs: number): void {
    for (let first = this.#heap[0]; first !== undefined && first.deadlineNs <= nowNs; first = this.#heap[0]) {
      this.unschedule(first);
      first.callback();
    }
  }

  /** Does what was put off, whatever its deadline; at most `rounds` pieces of it. */
  settle(rounds: number): void {
    for (let round = 0; round < rounds && this.#deferred > 0; round++) {
      const timer = this.#heap.find(({ deferred }) => deferred);
      if (timer === undefined) return;
      this.unschedule(timer);
      timer.callback();
    }
  }

  schedule(timer: QueuedTimer, deadlineNs: number): void {
    const previous = this.nextDeadlineNs;
    if (timer.heapIndex === NOT_QUEUED) {
      timer.heapIndex = this.#heap.length;
      this.#heap.push(timer);
      if (timer.deferred) this.#deferred++;
    }
    timer.deadlineNs = deadlineNs;
    timer.sequence = ++this.#sequence;
    this.#siftUp(timer.heapIndex);
    this.#siftDown(timer.heapIndex);
    if (this.nextDeadlineNs < previous) for (const listener of this.#earlier) listener();
  }

  unschedule(timer: QueuedTimer): void {
    const index = timer.heapIndex;
    if (index === NOT_QUEUED) return;
    if (timer.deferred) this.#deferred--;
    const last = this.#heap.pop();
    if (last !== undefined && last !== timer) {
      this.#place(last, index);
      this.#siftUp(index);
      this.#siftDown(last.heapIndex);
    }
    timer.heapIndex = NOT_QUEUED;
    timer.deadlineNs = Number.POSITIVE_INFINITY;
  }

  #place(timer: QueuedTimer, index: number): void {
    this.#heap[index] = timer;
    timer.heapIndex = index;
  }

  #siftUp(index: number): void {
    const timer = this.#heap[index];
    if (timer === undefined) return;
    while (index > 0) {
      const parentIndex = (index - 1) >> 1;
      const parent = this.#heap[parentIndex];
      if (parent === undefined || !firesBefore(timer, parent)) break;
      this.#place(parent, index);
      index = parentIndex;
    }
    this.#place(timer, index);
  }

  #siftDown(index: number): void {
    const timer = this.#heap[index];
    if (timer === undefined) return;
    for (;;) {
      const left = this.#heap[2 * index + 1];
      const right = this.#heap[2 * index + 2];
      const child = left !== undefined && right !== undefined && firesBefore(right, left) ? right : left;
      if (child === undefined || !firesBefore(child, timer)) break;
      const childIndex = child.heapIndex;
      this.#place(child, index);
      index = childIndex;
    }
    this.#place(timer, index);
  }
}

function firesBefore(a: QueuedTimer, b: QueuedTimer): boolean {
  return a.deadlineNs < b.deadlineNs || (a.deadlineNs === b.deadlineNs && a.sequence < b.sequence);
}
