import { closeSync, constants, openSync } from 'node:fs';
import { Socket } from 'node:net';
import { SouthbridgeError } from '../errors.ts';
import { StreamChardev } from './stream.ts';

/** A pair of named pipes, `path.in` and `path.out`, or one that serves both ways. */
export class PipeChardev extends StreamChardev {
  readonly #path: string;
  #input: Socket | undefined;
  #output: Socket | undefined;

  constructor(label: string, path: string) {
    super(label);
    this.#path = path;
  }

  override get filename(): string {
    return 'pipe';
  }

  override open(): Promise<void> {
    // O_RDWR keeps a FIFO from blocking in open and from ending when its other side closes.
    const opened: number[] = [];
    const tryOpen = (path: string): number | undefined => {
      try {
        const fd = openSync(path, constants.O_RDWR);
        opened.push(fd);
        return fd;
      } catch {
        return undefined;
      }
    };
    const input = tryOpen(`${this.#path}.in`);
    const output = tryOpen(`${this.#path}.out`);
    if (input !== undefined && output !== undefined) {
      this.#start(input, output);
      return Promise.resolve();
    }
    for (const fd of opened) closeSync(fd);
    const both = tryOpen(this.#path);
    if (both === undefined) {
      return Promise.reject(
        new SouthbridgeError(
          'ERR_CHARDEV',
          `Could not open '${this.#path}': No such file or directory`,
          `make the pipes with 'mkfifo ${this.#path}.in ${this.#path}.out'`,
        ),
      );
    }
    this.#start(both, both);
    return Promise.resolve();
  }

  #start(input: number, output: number): void {
    this.#input = new Socket({ fd: input, readable: true, writable: input === output });
    this.#output = input === output ? this.#input : new Socket({ fd: output, readable: false, writable: true });
    this.connect(this.#input, this.#output);
  }

  override dispose(): void {
    this.disconnect();
    this.#input?.destroy();
    this.#output?.destroy();
  }
}
