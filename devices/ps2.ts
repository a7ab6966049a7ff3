import { field, type StateValues } from '../core/state/fields.ts';

/** What a device on a PS/2 port answers. */
export const PS2_ACK = 0xfa;
export const PS2_RESEND = 0xfe;
export const PS2_SELF_TEST_PASSED = 0xaa;

/** Replies may take this much besides what the user typed. */
const BUFFER_SIZE = 256;
const QUEUE_SIZE = 16;
export const NO_COMMAND = 0x100;

export const ps2State = {
  queue: field.buffer(BUFFER_SIZE),
  /** How many bytes at the front of the queue are replies: user input never goes before them. */
  replies: field.u16(),
  /** The command that waits for its parameter. */
  command: field.u16(NO_COMMAND),
  lastByte: field.u8(),
};

/** The device's half of a PS/2 port: an output queue in which replies overtake what a person did. */
export abstract class Ps2Device {
  protected readonly port: StateValues<typeof ps2State>;
  /** Told whenever there is something to read, or no longer. */
  readonly #changed: (hasData: boolean) => void;

  constructor(port: StateValues<typeof ps2State>, changed: (hasData: boolean) => void) {
    this.port = port;
    this.#changed = changed;
  }

  get hasData(): boolean {
    return this.port.queue.length > 0;
  }

  /** A byte from the controller: a command, or the parameter of the one before. */
  abstract write(value: number): void;

  abstract reset(): void;

  /** The next byte; reading an empty port gives the last one again. */
  read(): number {
    const { port } = this;
    const first = port.queue[0];
    if (first === undefined) return port.lastByte;
    port.lastByte = first;
    port.queue = port.queue.slice(1);
    if (port.replies > 0) port.replies--;
    // The line drops between two bytes, so that each makes its own interrupt.
    this.#changed(false);
    if (port.queue.length > 0) this.#changed(true);
    return first;
  }

  /** Tells the controller again what the level of the port's request is. */
  refresh(): void {
    this.#changed(this.hasData);
  }

  protected get room(): number {
    return QUEUE_SIZE - (this.port.queue.length - this.port.replies);
  }

  /** Queues what a person did; all of it or, where the queue is full, nothing. */
  protected queueInput(bytes: readonly number[]): boolean {
    if (bytes.length > this.room) return false;
    this.port.queue = Uint8Array.of(...this.port.queue, ...bytes);
    this.#changed(true);
    return true;
  }

  /** Queues a reply in front of all input. */
  protected reply(...bytes: readonly number[]): void {
    const { port } = this;
    const replies = port.queue.subarray(0, port.replies);
    const input = port.queue.subarray(port.replies);
    if (port.replies + bytes.length > BUFFER_SIZE - QUEUE_SIZE) return;
    port.queue = Uint8Array.of(...replies, ...bytes, ...input);
    port.replies += bytes.length;
    this.#changed(true);
  }

  /** Forgets what has not been read of the last reply. */
  protected dropReply(): void {
    const { port } = this;
    if (port.replies === 0) return;
    port.queue = port.queue.slice(port.replies);
    port.replies = 0;
  }

  protected clearQueue(): void {
    this.port.queue = new Uint8Array(0);
    this.port.replies = 0;
    this.#changed(false);
  }
}
