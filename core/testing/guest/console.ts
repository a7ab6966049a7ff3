import { Chardev } from '../../char/chardev.ts';
import { SouthbridgeError } from '../../errors.ts';

const SHOWN_ON_FAILURE = 2000;

/** A guest's console in the hands of a test: keeps what the guest says, waits for it to say something, and types. */
export class ScriptedConsole extends Chardev {
  /** All that the guest has said. */
  output = '';
  /** Where the next {@link expect} begins to look: behind what the last one found. */
  #from = 0;
  readonly #waiting = new Set<() => void>();

  override get filename(): string {
    return 'scripted';
  }

  override open(): Promise<void> {
    this.opened();
    return Promise.resolve();
  }

  /** What the guest has said since the last match. */
  get unread(): string {
    return this.output.slice(this.#from);
  }

  /** Puts bytes into the guest's receiver now. */
  type(text: string): void {
    this.push(Buffer.from(text, 'latin1'));
  }

  /**
   * Waits until the guest's output, from the last match on, has one of `pattern`.
   * @throws SouthbridgeError ERR_GUEST_SILENT with the end of the output after `timeoutMs` of host time
   */
  async expect(pattern: RegExp | string, timeoutMs: number): Promise<RegExpExecArray> {
    const wanted = typeof pattern === 'string' ? new RegExp(pattern.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')) : pattern;
    for (const deadline = performance.now() + timeoutMs; ; ) {
      const match = wanted.exec(this.unread);
      if (match !== null) {
        this.#from += match.index + match[0].length;
        return match;
      }
      const left = deadline - performance.now();
      if (left <= 0) throw this.#silent(wanted, timeoutMs);
      await this.#more(left);
    }
  }

  /** Where it was, for {@link rewind}: a guest that is restored has not said what came after. */
  get mark(): { readonly length: number; readonly from: number } {
    return { length: this.output.length, from: this.#from };
  }

  rewind({ length, from }: { readonly length: number; readonly from: number }): void {
    this.output = this.output.slice(0, length);
    this.#from = from;
  }

  protected override transmit(bytes: Uint8Array): number {
    this.output += Buffer.from(bytes).toString('latin1');
    for (const wake of [...this.#waiting]) wake();
    return bytes.length;
  }

  override dispose(): void {}

  #more(timeoutMs: number): Promise<void> {
    return new Promise(resolve => {
      const wake = (): void => {
        this.#waiting.delete(wake);
        clearTimeout(timer);
        resolve();
      };
      const timer = setTimeout(wake, timeoutMs);
      this.#waiting.add(wake);
    });
  }

  #silent(pattern: RegExp, timeoutMs: number): SouthbridgeError {
    const end = this.unread.slice(-SHOWN_ON_FAILURE);
    return new SouthbridgeError(
      'ERR_GUEST_SILENT',
      `the guest did not say ${String(pattern)} within ${timeoutMs} ms; ${end === '' ? 'it said nothing' : `the end of what it said:\n${end}`}`,
    );
  }
}
