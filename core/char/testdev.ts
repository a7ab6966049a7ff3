import { Chardev } from './chardev.ts';

/** A command: a number, `q`; blanks before each. */
const COMMAND = /^\s*(\d*)\s*([^\d\s])/;
/** So much of a command may wait for its rest. */
const LONGEST = 32;

/** Ends the program as a guest's test asks: `1q` with status 3, `0q` with status 1. Its status is odd, so never that of success. */
export class TestdevChardev extends Chardev {
  readonly #exit: (status: number) => void;
  #text = '';

  constructor(label: string, exit: (status: number) => void) {
    super(label);
    this.#exit = exit;
  }

  override get filename(): string {
    return 'testdev';
  }

  protected override transmit(bytes: Uint8Array): number {
    for (const byte of bytes) {
      this.#text = (this.#text + String.fromCharCode(byte)).slice(-LONGEST);
      const command = COMMAND.exec(this.#text);
      if (command === null) continue;
      this.#text = '';
      if (command[2] === 'q') this.#exit(((Number(command[1]) << 1) | 1) & 0xff);
    }
    return bytes.length;
  }

  override dispose(): void {}
}
