import type { KeyQueue } from '../key-queue.ts';
import { keyOfKeysym, keyOfNumber, UNMAPPED } from '../keys.ts';

const CAPITALS = { first: 0x41, last: 0x5a } as const;
const SMALL = { first: 0x61, last: 0x7a } as const;
/** Keysyms that the keypad makes with Num Lock on: KP_0 to KP_9, KP_Decimal, KP_Separator. */
const KEYPAD_DIGITS = { first: 0xffb0, last: 0xffb9 } as const;
const KEYPAD_POINTS: ReadonlySet<number> = new Set([0xffac, 0xffae]);

const within = ({ first, last }: { first: number; last: number }, keysym: number): boolean =>
  keysym >= first && keysym <= last;

export interface KeyboardOptions {
  /** Guess from what a client types how its lock keys are, and make the guest's the same. */
  readonly lockKeySync: boolean;
  /** Milliseconds of the guest's time between two keys. */
  readonly keyDelayMs: number;
}

/** The keyboard of those who look at a screen: what they hold down, and keysyms as keys. */
export class RemoteKeyboard {
  readonly #queue: KeyQueue;
  readonly #options: KeyboardOptions;
  readonly #down = new Set<string>();
  #capsLock = false;
  #numLock = false;

  constructor(queue: KeyQueue, options: KeyboardOptions) {
    this.#queue = queue;
    this.#options = options;
  }

  /**
   * A key that the client names by what it means.
   * @param knowsLeds whether the client follows the guest's lock keys by itself
   */
  keysym(keysym: number, down: boolean, knowsLeds: boolean): void {
    const key = keyOfKeysym(keysym);
    if (key !== undefined) this.#key(key, keysym, down, knowsLeds);
  }

  /** A key that the client names by its place (scan code set 1, bit 7 for the prefix E0), with its keysym. */
  number(number: number, keysym: number, down: boolean, knowsLeds: boolean): void {
    const key = keyOfNumber(number);
    if (key !== UNMAPPED) this.#key(key, keysym, down, knowsLeds);
  }

  /** The client has gone: nobody holds anything. */
  releaseAll(): void {
    for (const key of [...this.#down]) this.#send(key, false);
  }

  #key(key: string, keysym: number, down: boolean, knowsLeds: boolean): void {
    if (down && this.#options.lockKeySync && !knowsLeds) this.#syncLocks(key, keysym);
    this.#send(key, down);
  }

  #syncLocks(key: string, keysym: number): void {
    if (/^kp_(\d|decimal)$/.test(key)) {
      const digits = within(KEYPAD_DIGITS, keysym) || KEYPAD_POINTS.has(keysym);
      if (digits !== this.#numLock) this.#press('num_lock');
    }
    const capital = within(CAPITALS, keysym);
    if (!capital && !within(SMALL, keysym)) return;
    const shift = this.#down.has('shift') || this.#down.has('shift_r');
    if (capital === (shift === this.#capsLock)) this.#press('caps_lock');
  }

  #press(key: string): void {
    this.#send(key, true);
    this.#send(key, false);
  }

  #send(key: string, down: boolean): void {
    // A release without a press belongs to a key that went down elsewhere.
    if (!down && !this.#down.has(key)) return;
    const repeated = down && this.#down.has(key);
    if (down) this.#down.add(key);
    else this.#down.delete(key);
    if (down && !repeated && key === 'caps_lock') this.#capsLock = !this.#capsLock;
    if (down && !repeated && key === 'num_lock') this.#numLock = !this.#numLock;
    this.#queue.key(key, down);
    if (this.#options.keyDelayMs > 0) this.#queue.pause(this.#options.keyDelayMs);
  }
}
