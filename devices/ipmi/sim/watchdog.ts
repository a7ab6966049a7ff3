/** Watchdog timer (IPMI 2.0, section 27). */

import type { Timer } from '../../../core/clock/timer-queue.ts';
import { ms, seconds } from '../../../core/clock/units.ts';
import { field, type StateValues } from '../../../core/state/fields.ts';
import type { ChassisOperation } from '../bmc.ts';
import { COMPLETION, type Request } from '../message.ts';
import { type CommandSet, commands } from './command.ts';

/** Timer use (table 27-2): bits that are kept. */
const USE_BITS = 0xc7;
const USE = 0x07;
const LAST_USE = 5;
const DONT_STOP = 1 << 6;
const ACTION_BITS = 0x77;
const NOT_INITIALIZED = 0x80;
const PRETIMEOUT = { NONE: 0, NMI: 2, MESSAGE: 3 } as const;
/** What a timeout does to the machine, by number; 0 is nothing. */
const ACTIONS: readonly (ChassisOperation | undefined)[] = [undefined, 'reset', 'power-off', 'power-cycle'];
/** A watchdog sensor's states (table 42-3) by action, and that of a pretimeout. */
const STATES = [0, 1, 2, 3];
const PRETIMEOUT_STATE = 8;
const TICK = ms(100);

export const watchdogState = {
  initialized: field.bool(),
  use: field.u8(),
  action: field.u8(),
  pretimeoutSeconds: field.u8(),
  expired: field.u8(),
  /** Tenths of a second. */
  timeout: field.u16(),
  pretimeoutPassed: field.bool(),
};

interface WatchdogParts {
  readonly state: StateValues<typeof watchdogState>;
  readonly timer: Timer;
  now(): number;
  possible(operation: ChassisOperation): number;
  operate(operation: ChassisOperation): void;
  /** The time is nearly over. */
  warn(): void;
  /** The watchdog's sensor has something to say. */
  assert(bit: number, eventData: readonly number[]): void;
}

export class Watchdog {
  readonly #parts: WatchdogParts;
  readonly commands: CommandSet;

  constructor(parts: WatchdogParts) {
    this.#parts = parts;
    const { state } = parts;
    this.commands = commands([
      // 27.5 Reset Watchdog Timer
      [
        0x22,
        () => {
          if (!state.initialized) return NOT_INITIALIZED;
          this.#start();
          return COMPLETION.OK;
        },
      ],
      // 27.6 Set Watchdog Timer
      [0x24, request => this.#set(request), 6],
      // 27.7 Get Watchdog Timer
      [
        0x25,
        (_, response) => {
          const running = parts.timer.pending ? 1 << 6 : 0;
          response.u8((state.use & ~DONT_STOP) | running, state.action, state.pretimeoutSeconds, state.expired);
          response.u16(state.timeout).u16(Math.min(0xffff, Math.round(this.#left / TICK)));
          return COMPLETION.OK;
        },
      ],
    ]);
  }

  expire(): void {
    const { state } = this.#parts;
    if (this.#pretimeout !== PRETIMEOUT.NONE && !state.pretimeoutPassed) {
      state.pretimeoutPassed = true;
      this.#parts.warn();
      if (this.#pretimeout === PRETIMEOUT.NMI) this.#parts.operate('nmi');
      this.#parts.assert(PRETIMEOUT_STATE, [0xc8, (this.#pretimeout << 4) | 0xf, 0xff]);
      this.#parts.timer.arm(seconds(state.pretimeoutSeconds));
      return;
    }
    state.expired |= 1 << (state.use & USE);
    const action = state.action & 7;
    this.#parts.assert(STATES[action] ?? 0, [0xc0 | action, state.use & 0xf, 0xff]);
    const operation = ACTIONS[action];
    if (operation !== undefined) this.#parts.operate(operation);
  }

  get #pretimeout(): number {
    return (this.#parts.state.action >>> 4) & 7;
  }

  /** Nanoseconds until the action. */
  get #left(): number {
    const { state, timer } = this.#parts;
    if (!timer.pending) return 0;
    const early = this.#pretimeout === PRETIMEOUT.NONE || state.pretimeoutPassed ? 0 : state.pretimeoutSeconds;
    return Math.max(0, timer.deadlineNs - this.#parts.now()) + seconds(early);
  }

  #set(request: Request): number {
    const { state, timer } = this.#parts;
    const [use, action] = [request.u8(0), request.u8(1)];
    const operation = ACTIONS[action & 7];
    const pretimeout = (action >>> 4) & 7;
    if (
      (use & USE) === 0 ||
      (use & USE) > LAST_USE ||
      (action & 7) >= ACTIONS.length ||
      (operation !== undefined && this.#parts.possible(operation) !== COMPLETION.OK) ||
      (pretimeout !== PRETIMEOUT.NONE && pretimeout !== PRETIMEOUT.NMI && pretimeout !== PRETIMEOUT.MESSAGE)
    )
      return COMPLETION.INVALID_DATA_FIELD;
    state.initialized = true;
    state.use = use & USE_BITS;
    state.action = action & ACTION_BITS;
    state.pretimeoutSeconds = request.u8(2);
    state.expired &= ~request.u8(3);
    state.timeout = request.u16(4);
    if (timer.pending && (use & DONT_STOP) !== 0) this.#start();
    else timer.cancel();
    return COMPLETION.OK;
  }

  #start(): void {
    const { state, timer } = this.#parts;
    state.pretimeoutPassed = false;
    const early = this.#pretimeout === PRETIMEOUT.NONE ? 0 : seconds(state.pretimeoutSeconds);
    timer.arm(Math.max(0, state.timeout * TICK - early));
  }
}
