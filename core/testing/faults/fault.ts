import { SouthbridgeError } from '../../errors.ts';

/** Which of the occasions a fault is for: after the first `after` ones that go well, `times` ones; by default all. */
export interface Occasions {
  readonly after?: number;
  readonly times?: number;
}

/** A fault that has been injected. */
export class Fault {
  readonly name: string;
  readonly #after: number;
  readonly #times: number;
  #seen = 0;
  #fired = 0;
  #undo: (() => void) | undefined;

  constructor(name: string, { after = 0, times = Number.POSITIVE_INFINITY }: Occasions = {}) {
    this.name = name;
    this.#after = after;
    this.#times = times;
  }

  /** How often it has happened. */
  get fired(): number {
    return this.#fired;
  }

  /** Whether it happens at this occasion; counts it if so. */
  strikes(): boolean {
    this.#seen++;
    if (this.#seen <= this.#after || this.#fired >= this.#times) return false;
    this.#fired++;
    return true;
  }

  /** From now on `undo` is what takes it out. */
  installed(undo: () => void): this {
    this.#undo = undo;
    return this;
  }

  /** Takes the fault out: the hardware is whole again. */
  remove(): void {
    this.#undo?.();
    this.#undo = undefined;
  }
}

/** Throws where a fault never fired: then the test has not tested what it says. @throws SouthbridgeError ERR_FAULT_UNUSED */
export function refuseUnused(faults: readonly Fault[]): void {
  const unused = faults.filter(fault => fault.fired === 0).map(fault => `'${fault.name}'`);
  if (unused.length === 0) return;
  throw new SouthbridgeError(
    'ERR_FAULT_UNUSED',
    `the injected fault${unused.length > 1 ? 's' : ''} ${unused.join(', ')} never happened`,
    'the driver did not get that far, or the fault is for another register, address or line',
  );
}
