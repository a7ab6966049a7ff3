import type { Chardev } from '../../char/chardev.ts';
import type { Program } from '../program.ts';
import { executeHmp } from './execute.ts';

/** The human monitor on one character device. */
export class HmpMonitor {
  readonly #program: Program;
  readonly #chr: Chardev;
  #line = '';

  constructor(program: Program, chr: Chardev) {
    this.#program = program;
    this.#chr = chr;
    chr.attach({
      canReceive: () => 4096,
      receive: bytes => void this.#receive(Buffer.from(bytes).toString('latin1')),
      event: () => undefined,
    });
  }

  dispose(): void {
    this.#chr.detach();
  }

  async #receive(text: string): Promise<void> {
    this.#line += text;
    for (let end = this.#line.indexOf('\n'); end >= 0; end = this.#line.indexOf('\n')) {
      const line = this.#line.slice(0, end);
      this.#line = this.#line.slice(end + 1);
      this.#chr.writeAll(await executeHmp(this.#program, line, undefined));
    }
  }
}
