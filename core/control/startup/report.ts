import { SouthbridgeError } from '../../errors.ts';
import { LocatedError } from '../options/command-line.ts';

/** Messages of the program on standard error, in QEMU's form: program, place, text. */
export class Reporter {
  readonly program: string;
  #timestamps = false;

  constructor(program: string) {
    this.program = program;
  }

  /** `-msg timestamp=on`. */
  set timestamps(on: boolean) {
    this.#timestamps = on;
  }

  error(error: unknown): void {
    const location = error instanceof LocatedError && error.location !== undefined ? `${error.location}: ` : '';
    this.#print(`${location}${error instanceof Error ? error.message : String(error)}`);
    const hint = error instanceof SouthbridgeError ? error.hint : undefined;
    if (hint !== undefined) process.stderr.write(`${hint}\n`);
    if (!(error instanceof Error) || isNamed(error)) return;
    process.stderr.write(`${error.stack ?? ''}\n`);
  }

  warn(message: string): void {
    this.#print(`warning: ${message}`);
  }

  info(message: string): void {
    this.#print(`info: ${message}`);
  }

  plain(message: string): void {
    this.#print(message);
  }

  /** A line of its own, without the program's name. */
  bare(message: string): void {
    process.stderr.write(`${message}\n`);
  }

  #print(message: string): void {
    const stamp = this.#timestamps ? `${new Date().toISOString()} ` : '';
    process.stderr.write(`${stamp}${this.program}: ${message}\n`);
  }
}

/** Errors that say all there is to say; anything else is a defect of this program and comes with its stack. */
function isNamed(error: Error): boolean {
  return (
    error instanceof SouthbridgeError ||
    error.name === 'QmpError' ||
    error.name === 'JsonSyntaxError' ||
    'code' in error
  );
}
