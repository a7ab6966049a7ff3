import { closeSync, openSync, writeSync } from 'node:fs';
import { hostError, reason } from '../../block/io-error.ts';
import { SouthbridgeError } from '../../errors.ts';
import type { TraceHub } from '../trace.ts';

/** Where QEMU's log goes, of `-d`, `-trace` and the monitor's `log`: a line an event, to standard error or into a file. */
export class LogOutput {
  readonly #hubs = new WeakSet<TraceHub>();
  #fd: number | undefined;

  /** Events of `hub` are lines here from now on. */
  attach(hub: TraceHub): void {
    if (this.#hubs.has(hub)) return;
    this.#hubs.add(hub);
    hub.addSink((event, detail) => {
      const text = `${event} ${detail}\n`;
      if (this.#fd === undefined) process.stderr.write(text);
      else writeSync(this.#fd, text);
    });
  }

  /**
   * Goes on in a new file.
   *
   * @throws SouthbridgeError ERR_LOG_FILE
   */
  open(path: string): void {
    let fd: number;
    try {
      fd = openSync(path, 'w');
    } catch (cause) {
      throw new SouthbridgeError(
        'ERR_LOG_FILE',
        `Error opening logfile ${path}: ${reason(hostError(cause))}`,
        undefined,
        { cause },
      );
    }
    this.dispose();
    this.#fd = fd;
  }

  dispose(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}
