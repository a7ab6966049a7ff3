import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

/** Anything that JSON can say. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json };

/** A QMP conversation of one command at a time; the greeting and events are left out. */
export class QmpMonitor {
  readonly #input: Writable;
  readonly #lines: AsyncIterator<string>;

  constructor(input: Writable, output: Readable) {
    this.#input = input;
    this.#lines = createInterface(output)[Symbol.asyncIterator]();
  }

  /** Runs a command; its whole reply. */
  async ask(command: string): Promise<Readonly<Record<string, Json>>> {
    this.#input.write(`${command}\n`);
    for (;;) {
      const { value, done } = await this.#lines.next();
      if (done === true) throw new Error(`no answer to ${command}`);
      if (value.trim() === '') continue;
      const message = JSON.parse(value) as Readonly<Record<string, Json>>;
      if ('return' in message || 'error' in message) return message;
    }
  }
}
