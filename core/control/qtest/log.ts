import { closeSync, openSync } from 'node:fs';
import { writeFully } from '../../host/files.ts';

/** Where requests and replies are logged, with seconds since the client connected; undefined where nothing is. */
export class QtestLog {
  readonly #fd: number;
  readonly #owned: boolean;
  #startedAt = performance.now();

  /** @param path a file, `none`, or undefined for standard error */
  static open(path: string | undefined): QtestLog | undefined {
    if (path === 'none' || path === '/dev/null') return undefined;
    return path === undefined ? new QtestLog(2, false) : new QtestLog(openSync(path, 'w', 0o666), true);
  }

  private constructor(fd: number, owned: boolean) {
    this.#fd = fd;
    this.#owned = owned;
  }

  opened(): void {
    this.#startedAt = performance.now();
    this.#write(`[I ${this.#elapsed()}] OPENED\n`);
  }

  closed(): void {
    this.#write(`[I +${this.#elapsed()}] CLOSED\n`);
  }

  received(line: string): void {
    this.#write(`[R +${this.#elapsed()}] ${line}\n`);
  }

  sent(line: string): void {
    this.#write(`[S +${this.#elapsed()}] ${line}`);
  }

  dispose(): void {
    if (this.#owned) closeSync(this.#fd);
  }

  #elapsed(): string {
    return ((performance.now() - this.#startedAt) / 1000).toFixed(6);
  }

  #write(text: string): void {
    writeFully(this.#fd, text);
  }
}
