import { SouthbridgeError } from '../errors.ts';
import { StreamChardev } from './stream.ts';

const CTRL_C = 0x03;
const CTRL_Z = 0x1a;
const CTRL_BACKSLASH = 0x1c;
const SIGNALS: ReadonlyMap<number, NodeJS.Signals> = new Map([
  [CTRL_C, 'SIGINT'],
  [CTRL_Z, 'SIGTSTP'],
  [CTRL_BACKSLASH, 'SIGQUIT'],
]);

let owner: StdioChardev | undefined;

/**
 * The program's own terminal, in raw mode. With `signal` Ctrl-C, Ctrl-Z and Ctrl-\ act on the program; without it they
 * go to the guest.
 */
export class StdioChardev extends StreamChardev {
  readonly #signal: boolean;
  readonly #restore = (): void => this.#setRaw(false);
  readonly #continue = (): void => this.#setRaw(true);

  constructor(label: string, signal: boolean) {
    super(label);
    this.#signal = signal;
  }

  override get filename(): string {
    return 'stdio';
  }

  override open(): Promise<void> {
    if (owner !== undefined) {
      return Promise.reject(new SouthbridgeError('ERR_CHARDEV', 'cannot use stdio by multiple character devices'));
    }
    owner = this;
    this.#setRaw(true);
    process.on('exit', this.#restore).on('SIGCONT', this.#continue);
    this.connect(process.stdin, process.stdout);
    return Promise.resolve();
  }

  protected override input(chunk: Buffer): void {
    if (!this.#signal || !process.stdin.isTTY) {
      this.push(chunk);
      return;
    }
    const passed = chunk.filter(byte => !SIGNALS.has(byte));
    for (const byte of chunk) {
      const signal = SIGNALS.get(byte);
      if (signal !== undefined) process.kill(process.pid, signal);
    }
    if (passed.length > 0) this.push(Buffer.from(passed));
  }

  /** The end of standard input does not end the output: a machine with its input from a file talks on. */
  protected override hungUp(): void {}

  #setRaw(raw: boolean): void {
    if (process.stdin.isTTY) process.stdin.setRawMode(raw);
  }

  override dispose(): void {
    if (owner !== this) return;
    owner = undefined;
    this.disconnect();
    process.stdin.pause();
    process.off('exit', this.#restore).off('SIGCONT', this.#continue);
    this.#setRaw(false);
  }
}
