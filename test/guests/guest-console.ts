import { Chardev } from '../../core/char/chardev.ts';

/** A serial console for tests: keeps what the guest says, waits for it to say something, and types. */
export class GuestConsole extends Chardev {
  output = '';
  readonly #waiting = new Set<() => void>();

  constructor() {
    super('console');
  }

  override get filename(): string {
    return 'test';
  }

  override open(): Promise<void> {
    this.opened();
    return Promise.resolve();
  }

  protected override transmit(bytes: Uint8Array): number {
    this.output += Buffer.from(bytes).toString('latin1');
    for (const check of this.#waiting) check();
    return bytes.length;
  }

  /** Types into the guest. */
  type(text: string): void {
    this.push(Buffer.from(text, 'latin1'));
  }

  /**
   * Resolves with the match once the output has one.
   * @throws Error with the end of the output after `timeoutMs`
   */
  until(pattern: RegExp, timeoutMs: number): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const finish = (): void => {
        this.#waiting.delete(check);
        clearTimeout(timer);
      };
      const check = (): void => {
        const match = pattern.exec(this.output);
        if (match === null) return;
        finish();
        resolve(match);
      };
      const timer = setTimeout(() => {
        finish();
        reject(
          new Error(
            `the guest did not say ${pattern} within ${timeoutMs} ms; the end of what it said:\n${this.output.slice(-2000)}`,
          ),
        );
      }, timeoutMs);
      this.#waiting.add(check);
      check();
    });
  }

  override dispose(): void {}
}
