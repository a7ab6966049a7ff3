import type { Clock } from '../clock/clock.ts';
import { ms } from '../clock/units.ts';
import type { InputHub } from './input.ts';

/** More than this is dropped: somebody types faster than the guest lives. */
const LIMIT = 1024;

type Entry = { readonly key: string; readonly down: boolean } | { readonly delayMs: number };

/** Keys on their way to the guest, with pauses of its own time between them, as a person's fingers make. */
export class KeyQueue {
  readonly #input: InputHub;
  readonly #entries: Entry[] = [];
  readonly #timer: ReturnType<Clock['timer']>;

  constructor(input: InputHub, clock: Clock) {
    this.#input = input;
    this.#timer = clock.timer('keys', () => this.#go());
  }

  /** Presses or releases a key once all before it is through. */
  key(key: string, down: boolean): void {
    if (this.#entries.length === 0) this.#send(key, down);
    else if (this.#entries.length < LIMIT) this.#entries.push({ key, down });
  }

  /** Lets time pass before the next key. */
  pause(delayMs: number): void {
    if (!this.#input.takesInput || this.#entries.length >= LIMIT) return;
    this.#entries.push({ delayMs });
    if (this.#entries.length === 1) this.#timer.arm(ms(delayMs));
  }

  #send(key: string, down: boolean): void {
    this.#input.send([{ kind: 'key', key, down }]);
  }

  /** The pause at the head is over. */
  #go(): void {
    this.#entries.shift();
    for (let next = this.#entries[0]; next !== undefined; next = this.#entries[0]) {
      if ('delayMs' in next) {
        this.#timer.arm(ms(next.delayMs));
        return;
      }
      this.#entries.shift();
      this.#send(next.key, next.down);
    }
  }
}
