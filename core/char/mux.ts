import { SouthbridgeError } from '../errors.ts';
import { Chardev, type CharEvent, type CharUser, type SerialParameters } from './chardev.ts';

/** Ctrl-A. */
export const DEFAULT_ESCAPE = 0x01;
const MAX_USERS = 4;

/** What the escapes of a mux do beyond the stream itself. */
export interface MuxActions {
  /** The byte that begins an escape, Ctrl-A unless `-echr` says otherwise. */
  readonly escape: number;
  /** Ctrl-A x: ends the program. */
  terminate(): void;
  /** Ctrl-A s: writes the temporary disk images back. */
  commit(): void;
}

const HELP: readonly (readonly [key: string, text: string])[] = [
  ['h', 'print this help'],
  ['x', 'exit emulator'],
  ['s', 'save disk data back to file (if -snapshot)'],
  ['t', 'toggle console timestamps'],
  ['b', 'send break (magic sysrq)'],
  ['c', 'switch between console and monitor'],
];

/** One of several users of a mux, as a character device of its own. */
class MuxPort extends Chardev {
  readonly #mux: MuxChardev;
  readonly index: number;

  constructor(mux: MuxChardev, index: number) {
    super(mux.label);
    this.#mux = mux;
    this.index = index;
  }

  override get filename(): string {
    return this.#mux.filename;
  }

  override get shared(): boolean {
    return true;
  }

  override attach(user: CharUser): void {
    super.attach(user);
    this.#mux.focus(this.index);
  }

  override get congested(): boolean {
    return this.#mux.base.congested;
  }

  protected override transmit(bytes: Uint8Array): number {
    return this.#mux.output(bytes);
  }

  protected override transmitAll(text: string | Uint8Array): void {
    this.#mux.writeAll(text);
  }

  override setParameters(parameters: SerialParameters): void {
    this.#mux.base.setParameters(parameters);
  }

  deliver(bytes: Buffer): void {
    this.push(bytes);
  }

  get full(): boolean {
    return this.holdsInput;
  }

  protected override resumeInput(): void {
    this.#mux.base.acceptInput();
  }

  tell(event: CharEvent): void {
    if (event === 'opened') this.opened();
    else if (event === 'closed') this.closed();
    else this.emit(event);
  }

  override dispose(): void {}
}

/**
 * Several users on one character device. Output is mixed; input goes to the one in focus. Ctrl-A is the escape: h, x, s,
 * t, b, c, and once more for itself.
 */
export class MuxChardev extends Chardev {
  readonly base: Chardev;
  readonly #actions: MuxActions;
  readonly #ports: MuxPort[] = [];
  #focus = -1;
  #escaped = false;
  #timestamps = false;
  #firstStamp: number | undefined;
  #lineStart = false;

  constructor(label: string, base: Chardev, actions: MuxActions) {
    super(label);
    this.base = base;
    this.#actions = actions;
  }

  override get filename(): string {
    return this.base.filename;
  }

  override open(): Promise<void> {
    this.base.attach({
      canReceive: () => (this.#ports[this.#focus]?.full ? 0 : 4096),
      receive: bytes => this.#input(bytes),
      event: event => this.#event(event),
      drained: () => {
        for (const port of this.#ports) port.drained();
      },
    });
    return Promise.resolve();
  }

  /** A place for one more user. Throws where there are four already. */
  port(): Chardev {
    if (this.#ports.length >= MAX_USERS) {
      throw new SouthbridgeError(
        'ERR_CHARDEV',
        `too many uses of multiplexed chardev '${this.label}' (maximum is ${MAX_USERS})`,
      );
    }
    const port = new MuxPort(this, this.#ports.length);
    this.#ports.push(port);
    if (this.base.isOpen) port.tell('opened');
    return port;
  }

  override get inUse(): boolean {
    return this.#ports.length > 0;
  }

  override get userOpen(): boolean {
    return this.#ports.some(port => port.userOpen);
  }

  /** Input goes to this user from now on: at the start, to the one that came last. */
  focus(index: number): void {
    if (index === this.#focus) return;
    this.#ports[this.#focus]?.tell('mux-out');
    this.#focus = index;
    this.#ports[index]?.tell('mux-in');
    this.base.acceptInput();
  }

  /** Output of one of the users, with timestamps where Ctrl-A t asked for them. */
  output(bytes: Uint8Array): number {
    if (!this.#timestamps) return this.base.write(bytes);
    for (const byte of bytes) {
      if (this.#lineStart) this.base.writeAll(this.#stamp());
      this.#lineStart = byte === 0x0a;
      this.base.writeAll(Uint8Array.of(byte));
    }
    return bytes.length;
  }

  protected override transmit(bytes: Uint8Array): number {
    return this.output(bytes);
  }

  protected override transmitAll(text: string | Uint8Array): void {
    if (this.#timestamps) this.output(typeof text === 'string' ? Buffer.from(text) : text);
    else this.base.writeAll(text);
  }

  override sendBreak(): void {
    this.#ports[this.#focus]?.tell('break');
  }

  override dispose(): void {
    this.base.detach();
    this.base.dispose();
  }

  #stamp(): string {
    const now = performance.now();
    this.#firstStamp ??= now;
    const ms = Math.floor(now - this.#firstStamp);
    const two = (value: number): string => String(value).padStart(2, '0');
    const seconds = Math.floor(ms / 1000);
    const clock = `${two(Math.floor(seconds / 3600))}:${two(Math.floor(seconds / 60) % 60)}:${two(seconds % 60)}`;
    return `[${clock}.${String(ms % 1000).padStart(3, '0')}] `;
  }

  #event(event: CharEvent): void {
    if (event === 'break') this.#ports[this.#focus]?.tell(event);
    else for (const port of this.#ports) port.tell(event);
  }

  /** The escapes are taken out; what is between them goes on in one piece. */
  #input(bytes: Uint8Array): void {
    const { escape: escapeKey } = this.#actions;
    let start = 0;
    for (let at = 0; at < bytes.length; at++) {
      const byte = bytes[at] ?? 0;
      if (this.#escaped) {
        this.#escaped = false;
        start = byte === escapeKey ? at : at + 1;
        if (byte !== escapeKey) this.#escape(String.fromCharCode(byte));
      } else if (byte === escapeKey) {
        this.#escaped = true;
        this.#pass(bytes, start, at);
        start = at + 1;
      }
    }
    if (!this.#escaped) this.#pass(bytes, start, bytes.length);
  }

  #pass(bytes: Uint8Array, start: number, end: number): void {
    if (end > start) this.#ports[this.#focus]?.deliver(Buffer.from(bytes.subarray(start, end)));
  }

  get #help(): string {
    const { escape: escapeKey } = this.#actions;
    const letter = String.fromCharCode(escapeKey);
    const key = escapeKey < 0x20 ? `C-${String.fromCharCode(escapeKey | 0x60)}` : letter;
    const rows = HELP.map(([command, text]) => `${key} ${command}    ${text}\n\r`);
    return `\n\r${rows.join('')}${key} ${key}  sends ${key}\n\r`;
  }

  #escape(key: string): void {
    switch (key) {
      case '?':
      case 'h':
        this.base.writeAll(this.#help);
        break;
      case 'x':
        this.base.writeAll('QEMU: Terminated\n\r');
        this.#actions.terminate();
        break;
      case 's':
        this.#actions.commit();
        break;
      case 'b':
        this.sendBreak();
        break;
      case 'c':
        this.focus((this.#focus + 1) % this.#ports.length);
        break;
      case 't':
        this.#timestamps = !this.#timestamps;
        this.#firstStamp = undefined;
        this.#lineStart = false;
        break;
      default:
    }
  }
}
