const IAC = 255;
const WILL = 251;
const DO = 253;
const BREAK = 243;
const ECHO = 1;
const SUPPRESS_GO_AHEAD = 3;
const BINARY = 0;

/** Character at a time, without local echo, 8 bits clean both ways (RFC 854, 856, 857, 858). */
export const TELNET_GREETING = Buffer.from([
  ...[IAC, WILL, ECHO],
  ...[IAC, WILL, SUPPRESS_GO_AHEAD],
  ...[IAC, WILL, BINARY],
  ...[IAC, DO, BINARY],
]);

/** Takes the telnet commands out of a client's bytes; a break condition is reported. */
export class TelnetFilter {
  /** 1: plain; 2: behind IAC; 3: the option of a three-byte command. */
  #state = 1;
  readonly #onBreak: () => void;

  constructor(onBreak: () => void) {
    this.#onBreak = onBreak;
  }

  filter(bytes: Buffer): Buffer {
    const passed: number[] = [];
    for (const byte of bytes) {
      if (this.#state === 1) {
        if (byte === IAC) this.#state = 2;
        else passed.push(byte);
      } else if (this.#state === 3) this.#state = 1;
      else if (byte === IAC) {
        passed.push(IAC);
        this.#state = 1;
      } else {
        if (byte === BREAK) this.#onBreak();
        this.#state = byte >= WILL ? 3 : 1;
      }
    }
    return Buffer.from(passed);
  }
}
