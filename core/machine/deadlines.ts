import type { DeadlineSource } from '../accel/accelerator.ts';
import type { HostClock, RealtimeClock, VirtualClock } from '../clock/clock.ts';

/**
 * The three clocks of a machine as one source of deadlines. While a CPU runs, its accelerator asks; otherwise a host timer
 * fires what is due on the clocks that run.
 */
export class MachineClocks implements DeadlineSource {
  readonly virtual: VirtualClock;
  readonly host: HostClock;
  readonly realtime: RealtimeClock;
  readonly #changed = new Set<() => void>();
  readonly #remove: (() => void)[];
  #idleTimer: NodeJS.Timeout | undefined;
  #served = false;

  constructor(virtual: VirtualClock, host: HostClock, realtime: RealtimeClock) {
    this.virtual = virtual;
    this.host = host;
    this.realtime = realtime;
    const moved = (): void => this.#deadlineMoved();
    this.#remove = [virtual.queue.onEarlier(moved), host.queue.onEarlier(moved), realtime.queue.onEarlier(moved)];
  }

  untilDeadline(): number {
    let until = Math.min(
      this.host.nextDeadlineNs - this.host.now(),
      this.realtime.nextDeadlineNs - this.realtime.now(),
    );
    if (this.virtual.running) until = Math.min(until, this.virtual.nextDeadlineNs - this.virtual.now());
    return Math.max(0, until);
  }

  expire(): void {
    if (this.virtual.running) this.virtual.expire();
    this.host.expire();
    this.realtime.expire();
  }

  onDeadline(changed: () => void): void {
    this.#changed.add(changed);
  }

  /** Whether an accelerator watches the deadlines now; if not, a host timer does. */
  setServed(served: boolean): void {
    this.#served = served;
    this.#arm();
  }

  dispose(): void {
    for (const remove of this.#remove) remove();
    clearTimeout(this.#idleTimer);
    this.#changed.clear();
  }

  #deadlineMoved(): void {
    for (const changed of this.#changed) changed();
    if (!this.#served) this.#arm();
  }

  #arm(): void {
    clearTimeout(this.#idleTimer);
    this.#idleTimer = undefined;
    if (this.#served) return;
    const until = this.untilDeadline();
    if (until === Number.POSITIVE_INFINITY) return;
    this.#idleTimer = setTimeout(
      () => {
        this.expire();
        this.#arm();
      },
      Math.min(2 ** 31 - 1, Math.ceil(until / 1e6)),
    );
    this.#idleTimer.unref();
  }
}
