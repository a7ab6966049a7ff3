import type { VirtualClock } from '../../clock/clock.ts';
import type { Timer } from '../../clock/timer-queue.ts';
import type { ScriptedConsole } from './console.ts';

/** What a guest was told, in order: the virtual time at which it arrived, in nanoseconds, and the text. */
export type InputLog = readonly { readonly timeNs: number; readonly text: string }[];

/** From the host's decision to type until it arrives: enough for the arrival to be in the guest's future. */
const DELAY_NS = 1000;

/**
 * Brings input to a console. In a deterministic run it arrives by a timer of virtual time, between the same two instructions
 * whenever it comes again.
 */
export class InputPlayer {
  readonly #clock: VirtualClock;
  readonly #console: ScriptedConsole;
  readonly #deterministic: boolean;
  readonly #timers = new Set<Timer>();
  #log: { timeNs: number; text: string }[] = [];

  constructor(clock: VirtualClock, console: ScriptedConsole, deterministic: boolean) {
    this.#clock = clock;
    this.#console = console;
    this.#deterministic = deterministic;
  }

  get log(): InputLog {
    return this.#log;
  }

  type(text: string): void {
    if (this.#deterministic) this.#at(this.#clock.now() + DELAY_NS, text);
    else {
      this.#log.push({ timeNs: this.#clock.now(), text });
      this.#console.type(text);
    }
  }

  replay(log: InputLog): void {
    const now = this.#clock.now();
    for (const { timeNs, text } of log) if (timeNs >= now) this.#at(timeNs, text);
  }

  /** Forgets all but the first `count` inputs, and what is still to arrive. */
  rewind(count: number): void {
    this.dispose();
    this.#log = this.#log.slice(0, count);
  }

  dispose(): void {
    for (const timer of this.#timers) timer.dispose();
    this.#timers.clear();
  }

  #at(timeNs: number, text: string): void {
    const timer = this.#clock.timer('console input', () => {
      this.#timers.delete(timer);
      this.#log.push({ timeNs, text });
      this.#console.type(text);
    });
    this.#timers.add(timer);
    timer.armAt(timeNs);
  }
}
