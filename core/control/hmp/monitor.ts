import type { Chardev } from '../../char/chardev.ts';
import type { Program } from '../program.ts';
import { QEMU_VERSION } from '../version.ts';
import type { HmpContext } from './command.ts';
import { Readline } from './readline.ts';

const GREETING = `QEMU ${QEMU_VERSION.major}.${QEMU_VERSION.minor}.${QEMU_VERSION.micro} monitor - type 'help' for more information\r\n`;

/** The human monitor on one character device. Its commands are loaded with the first line. */
export class HmpMonitor {
  readonly #program: Program;
  readonly #chr: Chardev;
  readonly #readline: Readline;
  #context: HmpContext | undefined;
  #busy = false;
  #greeted = false;

  constructor(program: Program, chr: Chardev) {
    this.#program = program;
    this.#chr = chr;
    this.#readline = new Readline(
      { write: text => chr.writeAll(text), line: line => void this.#execute(line) },
      '(qemu) ',
    );
    chr.attach({
      answers: true,
      canReceive: () => (this.#busy || !program.isReady ? 0 : 1),
      receive: bytes => {
        for (const byte of bytes) this.#readline.input(byte);
      },
      event: event => {
        if (event === 'opened') this.#greeted = false;
        if (event === 'mux-in' && program.isReady) this.#greet();
        else if (event === 'opened' && !this.#onMux) void this.#greetOnceReady();
      },
    });
  }

  /** On a mux the greeting waits until the monitor is in focus. */
  get #onMux(): boolean {
    return this.#chr.shared;
  }

  dispose(): void {
    this.#chr.detach();
  }

  /** What is wrong with the machine is said first. */
  async #greetOnceReady(): Promise<void> {
    if (!this.#program.isReady) await this.#program.whenReady;
    this.#greet();
    this.#chr.acceptInput();
  }

  #greet(): void {
    this.#chr.writeAll(this.#greeted ? '\r\n' : GREETING);
    this.#greeted = true;
    this.#readline.show();
  }

  async #execute(line: string): Promise<void> {
    this.#busy = true;
    if (!this.#program.isReady) await this.#program.whenReady;
    try {
      const { executeIn, hmpContext } = await import('./execute.ts');
      this.#context ??= hmpContext(this.#program, 0, () => this.#readline.history);
      this.#chr.writeAll((await executeIn(this.#context, line)).replaceAll('\n', '\r\n'));
    } catch (error) {
      this.#chr.writeAll(`Error: ${error instanceof Error ? error.message : String(error)}\r\n`);
    }
    this.#busy = false;
    if (!this.#program.ending) this.#readline.show();
    this.#chr.acceptInput();
  }
}
