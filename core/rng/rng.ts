import { randomFillSync } from 'node:crypto';

/** Where random numbers for the guest come from (`-object rng-builtin`, `rng-random`, ...). */
export interface RngBackend {
  readonly id: string;
  /** Fills `target` as soon as there is enough entropy, then calls `done`; at once where it can. */
  request(target: Uint8Array, done: () => void): void;
}

/** The host's own generator: what `rng-builtin` is, and what a device without a backend uses. */
export class BuiltinRng implements RngBackend {
  readonly id: string;

  constructor(id = 'default-backend') {
    this.id = id;
  }

  request(target: Uint8Array, done: () => void): void {
    randomFillSync(target);
    done();
  }
}
