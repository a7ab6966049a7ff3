import { openSync } from 'node:fs';
import { isatty, ReadStream, WriteStream } from 'node:tty';
import { SouthbridgeError } from '../errors.ts';
import { StreamChardev } from './stream.ts';

/** A serial port or other terminal of the host, in raw mode. */
export class TtyChardev extends StreamChardev {
  readonly #path: string;
  #input: ReadStream | undefined;
  #output: WriteStream | undefined;

  constructor(label: string, path: string) {
    super(label);
    this.#path = path;
  }

  override get filename(): string {
    return 'serial';
  }

  override open(): Promise<void> {
    try {
      const fd = openSync(this.#path, 'r+');
      if (!isatty(fd)) throw new Error('Inappropriate ioctl for device');
      this.#input = new ReadStream(fd);
      this.#input.setRawMode(true);
      this.#output = new WriteStream(openSync(this.#path, 'r+'));
    } catch (cause) {
      const why = cause instanceof Error ? cause.message : String(cause);
      return Promise.reject(
        new SouthbridgeError('ERR_CHARDEV', `Could not open '${this.#path}': ${why}`, undefined, { cause }),
      );
    }
    this.connect(this.#input, this.#output);
    return Promise.resolve();
  }

  override dispose(): void {
    this.disconnect();
    this.#input?.destroy();
    this.#output?.destroy();
  }
}
