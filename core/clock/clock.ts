import { performance } from 'node:perf_hooks';
import { type Timer, TimerQueue } from './timer-queue.ts';

/** A clock that devices read and set timers on. Times are nanoseconds as `number`: exact for the first 104 days. */
export interface Clock {
  readonly name: string;
  now(): number;
  timer(name: string, callback: () => void): Timer;
  /** A timer for the rest of work that lets others have their turn in between: see {@link VirtualClock.settle}. */
  deferred(name: string, callback: () => void): Timer;
  /** Absolute nanoseconds of the next deadline; Infinity where no timer is pending. */
  readonly nextDeadlineNs: number;
}

/** Where time comes from: nanoseconds that only grow. */
export type TickSource = () => number;

/** The host's monotonic clock. */
export const monotonic: TickSource = () => performance.now() * 1e6;

/** Pieces of put off work that {@link VirtualClock.settle} does at most: a guest may have asked for work without end. */
const MOST_DEFERRED = 64;

abstract class QueueClock implements Clock {
  readonly name: string;
  readonly queue: TimerQueue;

  constructor(name: string) {
    this.name = name;
    this.queue = new TimerQueue(() => this.now());
  }

  abstract now(): number;

  timer(name: string, callback: () => void): Timer {
    return this.queue.timer(name, callback);
  }

  deferred(name: string, callback: () => void): Timer {
    return this.queue.deferred(name, callback);
  }

  get nextDeadlineNs(): number {
    return this.queue.nextDeadlineNs;
  }

  /** Fires the timers that are due now. */
  expire(): void {
    this.queue.runUntil(this.now());
  }
}

/**
 * The guest's time. It stands still until `resume`, and while stopped it moves only by `advance`, so tests and qtest's
 * `clock_step` own it. The tick source can be replaced by an accelerator that counts instructions.
 */
export class VirtualClock extends QueueClock {
  #source: TickSource;
  #baseNs = 0;
  #resumedAt = 0;
  #running = false;
  #rate = 1;

  constructor(source: TickSource = monotonic) {
    super('virtual');
    this.#source = source;
  }

  get running(): boolean {
    return this.#running;
  }

  override now(): number {
    return this.#running
      ? this.#baseNs + Math.max(0, Math.floor((this.#source() - this.#resumedAt) * this.#rate))
      : this.#baseNs;
  }

  resume(): void {
    if (this.#running) return;
    this.#resumedAt = this.#source();
    this.#running = true;
  }

  suspend(): void {
    this.#baseNs = this.now();
    this.#running = false;
  }

  /** How fast this clock goes, where 1 is true: a quartz that is off. Takes effect from now on. */
  get rate(): number {
    return this.#rate;
  }

  set rate(rate: number) {
    const running = this.#running;
    this.suspend();
    this.#rate = rate;
    if (running) this.resume();
  }

  /** Takes time from `source` from now on, without a jump. */
  driveBy(source: TickSource): void {
    const running = this.#running;
    this.suspend();
    this.#source = source;
    if (running) this.resume();
  }

  /** Moves a stopped clock forward by `deltaNs`, firing each timer at its own deadline on the way. */
  advance(deltaNs: number): void {
    this.advanceTo(this.#baseNs + Math.max(0, Math.round(deltaNs * this.#rate)));
  }

  /** Moves a stopped clock to `targetNs`, firing each timer at its own deadline; never backwards. */
  advanceTo(targetNs: number): void {
    while (this.#baseNs < targetNs) {
      this.#baseNs = Math.max(this.#baseNs, Math.min(targetNs, this.queue.nextDeadlineNs));
      this.expire();
    }
    this.expire();
  }

  /** Does now what was put off, without moving the clock: for who drives a machine whose time stands still. */
  settle(): void {
    this.queue.settle(MOST_DEFERRED);
  }

  /** Sets a stopped clock without firing anything: for restoring a snapshot. */
  restore(nowNs: number): void {
    this.#baseNs = nowNs;
  }
}

/** The host's time of day and its timers, for real-time clocks. `offsetMs` is what the guest's differs by. */
export class HostClock extends QueueClock {
  readonly #source: TickSource;
  readonly #startedAt: number;
  /** Milliseconds since 1970-01-01 UTC when this clock read 0. */
  readonly epochMs: number;

  constructor(source: TickSource = monotonic, epochMs: number = Date.now()) {
    super('host');
    this.#source = source;
    this.#startedAt = source();
    this.epochMs = epochMs;
  }

  override now(): number {
    return Math.floor(this.#source() - this.#startedAt);
  }
}

/** The host's monotonic time, for what a person looks at: screens, cursors, key repeat. Runs while the guest is stopped. */
export class RealtimeClock extends QueueClock {
  readonly #source: TickSource;

  constructor(source: TickSource = monotonic) {
    super('realtime');
    this.#source = source;
  }

  override now(): number {
    return Math.floor(this.#source());
  }
}
