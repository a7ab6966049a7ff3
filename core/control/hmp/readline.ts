const CTRL_A = 0x01;
const CTRL_C = 0x03;
const CTRL_D = 0x04;
const CTRL_E = 0x05;
const CTRL_K = 0x0b;
const CTRL_U = 0x15;
const ESC = 0x1b;
const HISTORY = 64;

/** Where a line editor writes to, and who gets the lines. */
export interface ReadlineHost {
  write(text: string): void;
  line(text: string): void;
}

/** A line editor for a terminal: cursor keys, history, Ctrl-A, -E, -K, -U, -D. What it shows is plain VT100. */
export class Readline {
  readonly #host: ReadlineHost;
  readonly #prompt: string;
  readonly #history: string[] = [];
  #recall = 0;
  #text = '';
  #cursor = 0;
  #escape = '';

  constructor(host: ReadlineHost, prompt: string) {
    this.#host = host;
    this.#prompt = prompt;
  }

  /** The lines that were entered, the oldest first. */
  get history(): readonly string[] {
    return this.#history;
  }

  /** Shows the prompt with what has been typed so far. */
  show(): void {
    this.#host.write(
      `\r\x1b[K${this.#prompt}${this.#text}${this.#cursor < this.#text.length ? `\x1b[${this.#text.length - this.#cursor}D` : ''}`,
    );
  }

  input(byte: number): void {
    if (this.#escape !== '') {
      this.#escaped(byte);
      return;
    }
    switch (byte) {
      case 0x0a:
      case 0x0d:
        this.#enter();
        return;
      case 0x08:
      case 0x7f:
        if (this.#cursor === 0) return;
        this.#replace(this.#text.slice(0, this.#cursor - 1) + this.#text.slice(this.#cursor), this.#cursor - 1);
        return;
      case CTRL_A:
        this.#replace(this.#text, 0);
        return;
      case CTRL_E:
        this.#replace(this.#text, this.#text.length);
        return;
      case CTRL_D:
        this.#replace(this.#text.slice(0, this.#cursor) + this.#text.slice(this.#cursor + 1), this.#cursor);
        return;
      case CTRL_K:
        this.#replace(this.#text.slice(0, this.#cursor), this.#cursor);
        return;
      case CTRL_U:
      case CTRL_C:
        this.#replace('', 0);
        return;
      case ESC:
        this.#escape = '\x1b';
        return;
      default:
        if (byte >= 0x20) this.#insert(String.fromCharCode(byte));
    }
  }

  #insert(character: string): void {
    this.#text = this.#text.slice(0, this.#cursor) + character + this.#text.slice(this.#cursor);
    this.#cursor++;
    if (this.#cursor === this.#text.length) this.#host.write(character);
    else this.show();
  }

  #enter(): void {
    const line = this.#text;
    this.#text = '';
    this.#cursor = 0;
    if (line !== '' && this.#history.at(-1) !== line) this.#history.push(line);
    if (this.#history.length > HISTORY) this.#history.shift();
    this.#recall = this.#history.length;
    this.#host.write('\r\n');
    this.#host.line(line);
  }

  #escaped(byte: number): void {
    this.#escape += String.fromCharCode(byte);
    if (
      this.#escape === '\x1b[' ||
      this.#escape === '\x1bO' ||
      (this.#escape.startsWith('\x1b[') && /^\d+$/.test(this.#escape.slice(2)))
    )
      return;
    const sequence = this.#escape.slice(2);
    this.#escape = '';
    if (sequence === 'A') this.#browse(-1);
    else if (sequence === 'B') this.#browse(1);
    else if (sequence === 'C') this.#replace(this.#text, Math.min(this.#text.length, this.#cursor + 1));
    else if (sequence === 'D') this.#replace(this.#text, Math.max(0, this.#cursor - 1));
    else if (sequence === 'H' || sequence === '1~') this.#replace(this.#text, 0);
    else if (sequence === 'F' || sequence === '4~') this.#replace(this.#text, this.#text.length);
    else if (sequence === '3~') this.input(CTRL_D);
  }

  #browse(step: number): void {
    this.#recall = Math.max(0, Math.min(this.#history.length, this.#recall + step));
    const line = this.#history[this.#recall] ?? '';
    this.#replace(line, line.length);
  }

  #replace(text: string, cursor: number): void {
    this.#text = text;
    this.#cursor = cursor;
    this.show();
  }
}
