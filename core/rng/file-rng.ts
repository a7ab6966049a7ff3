import { closeSync, constants, openSync, read } from 'node:fs';
import { SouthbridgeError } from '../errors.ts';
import { hostPath } from '../host/fd-sets.ts';
import type { RngBackend } from './rng.ts';

/** How long to wait for a source that has nothing now: milliseconds. */
const PATIENCE = 20;

/** A file of random bytes, such as a host's hardware generator (`rng-random`). */
export class FileRng implements RngBackend {
  readonly id: string;
  readonly #fd: number;
  #open = true;

  /** @throws SouthbridgeError ERR_BACKEND where the file cannot be opened */
  constructor(id: string, path: string) {
    this.id = id;
    try {
      this.#fd = openSync(hostPath(path), constants.O_RDONLY | constants.O_NONBLOCK);
    } catch (cause) {
      throw new SouthbridgeError('ERR_BACKEND', `Could not open '${path}'`, 'the file has to be readable', { cause });
    }
  }

  request(target: Uint8Array, done: () => void): void {
    this.#fill(target, 0, done);
  }

  /** What had been asked for is dropped. */
  dispose(): void {
    if (!this.#open) return;
    this.#open = false;
    closeSync(this.#fd);
  }

  #fill(target: Uint8Array, from: number, done: () => void): void {
    if (from === target.length) {
      done();
      return;
    }
    read(this.#fd, target, from, target.length - from, null, (error, length) => {
      if (!this.#open) return;
      if (error === null && length > 0) this.#fill(target, from + length, done);
      else setTimeout(() => this.#open && this.#fill(target, from, done), PATIENCE).unref();
    });
  }
}
