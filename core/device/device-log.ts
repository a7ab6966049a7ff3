import type { AnyRegisterBank } from '../register/register.ts';
import { symbolic } from '../register/symbolic.ts';
import type { TraceEvent, TraceHub } from '../trace/trace.ts';

/** What a device reports: guest errors, features that it lacks, and its own trace events. Names are `TYPE.EVENT`. */
export class DeviceLog {
  readonly #hub: TraceHub;
  readonly #type: string;
  readonly #guestErrors: TraceEvent;
  readonly #unimplemented: TraceEvent;

  constructor(hub: TraceHub, type: string) {
    this.#hub = hub;
    this.#type = type;
    this.#guestErrors = hub.event(`guest_errors.${type}`);
    this.#unimplemented = hub.event(`unimp.${type}`);
  }

  /** An event of this device: `e1000.rx`. Keep it, and check `enabled` before building the detail. */
  event(name: string): TraceEvent {
    return this.#hub.event(`${this.#type}.${name}`);
  }

  /** The guest's driver did what the specification forbids. */
  guestError(message: string): void {
    if (this.#guestErrors.enabled) this.#guestErrors.emit(`${this.#type}: ${message}`);
  }

  /** The guest asked for what the model lacks. */
  unimplemented(message: string): void {
    if (this.#unimplemented.enabled) this.#unimplemented.emit(`${this.#type}: ${message}`);
  }

  /** Lets a register bank report here: guest errors and missing features, and each access as `TYPE.REGISTER`. */
  attach(bank: AnyRegisterBank): () => void {
    const watched = bank.map.layout.map(entry => this.#hub.event(`${this.#type}.${entry.name}`));
    let stop: (() => void) | undefined;
    const follow = (): void => {
      stop?.();
      stop = undefined;
      const wanted = this.#guestErrors.enabled || this.#unimplemented.enabled || watched.some(event => event.enabled);
      if (!wanted) return;
      stop = bank.observe({
        guestError: message => this.guestError(message),
        unimplemented: message => this.unimplemented(message),
        access: (entry, element, word, value, before, after, write) => {
          const event = watched[entry.index];
          if (event?.enabled) event.emit(symbolic(bank.map.name, entry, element, word, value, before, after, write));
        },
      });
    };
    follow();
    return this.#hub.onChange(follow);
  }
}
