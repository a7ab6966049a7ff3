import { openSync } from 'node:fs';
import { SouthbridgeError } from '../errors.ts';
import { hostPath } from '../host/fd-sets.ts';
import { writeFully } from '../host/files.ts';

/** What a character device tells its user besides bytes. */
export type CharEvent = 'opened' | 'closed' | 'break' | 'mux-in' | 'mux-out';

/** Who uses a character device: a UART, a monitor, a virtio port. */
export interface CharUser {
  /** How many bytes it can take now; with 0 they wait until it calls {@link Chardev.acceptInput}. */
  canReceive(): number;
  /** Takes at most `canReceive()` bytes; they are only valid during the call. */
  receive(bytes: Uint8Array): void;
  event?(event: CharEvent): void;
  /** Whether it does not take part before it says so itself ({@link Chardev.setUserOpen}): a port that the guest has to open. */
  readonly opensLater?: boolean;
  /** The device takes output again: what `write` did not take can be tried once more. */
  drained?(): void;
  /**
   * What it sends answers what it gets, as a monitor's replies do: while output waits for a peer that does not read, it gets nothing
   * more, so that what waits stays bounded.
   */
  readonly answers?: boolean;
}

/** A connection for protocols with descriptors and answers (vhost-user). Both calls are false where the other side has gone. */
export interface FdExchange {
  sendNow(bytes: Uint8Array, fds?: readonly number[]): boolean;
  readNow(bytes: Uint8Array): boolean;
}

/** Line settings of a real serial port. */
export interface SerialParameters {
  readonly speed: number;
  readonly parity: 'none' | 'even' | 'odd';
  readonly dataBits: number;
  readonly stopBits: number;
}

/** Modem lines of a real serial port. */
export interface ModemLines {
  readonly cts: boolean;
  readonly dsr: boolean;
  readonly ri: boolean;
  readonly dcd: boolean;
}

/**
 * The host's end of a byte stream: terminal, file, socket. It has one user at a time (a mux has several), pushes input
 * as fast as the user takes it, and says how much output it took.
 */
export abstract class Chardev {
  readonly label: string;
  #user: CharUser | undefined;
  #userOpen = false;
  #held: Buffer = Buffer.alloc(0);
  #delivered = 0;
  #open = false;
  #pumping = false;
  #closedBehindInput = false;
  #logFd: number | undefined;

  constructor(label: string) {
    this.label = label;
  }

  /** What devices that use it show. */
  get id(): string {
    return this.label;
  }

  /** What `query-chardev` and `info chardev` call it: the kind and where it leads. */
  abstract get filename(): string;

  /** Prepares the device, and where it was asked to wait for a peer, waits. Throws a SouthbridgeError. */
  open(): Promise<void> {
    return Promise.resolve();
  }

  /** Resolves once all output has left the process, or after `timeoutMs`. */
  flush(_timeoutMs: number): Promise<void> {
    return Promise.resolve();
  }

  /** Gives back everything. Idempotent. */
  abstract dispose(): void;

  /**
   * Takes output; returns how many bytes (of a string: characters of one byte each) it took. Where nobody is connected it
   * takes all, for nobody. After less than all, the user's `drained` follows. The bytes are not kept beyond the call.
   */
  write(bytes: Uint8Array): number {
    const taken = this.transmit(bytes);
    if (this.#logFd !== undefined && taken > 0)
      writeFully(this.#logFd, taken === bytes.length ? bytes : bytes.subarray(0, taken));
    return taken;
  }

  /** Output that must not be lost or cut: replies of monitors. The device queues what it cannot send at once. */
  writeAll(text: string | Uint8Array): void {
    if (this.#logFd !== undefined) writeFully(this.#logFd, text);
    this.transmitAll(text);
  }

  protected abstract transmit(bytes: Uint8Array): number;

  protected transmitAll(text: string | Uint8Array): void {
    this.transmit(typeof text === 'string' ? Buffer.from(text) : text);
  }

  /** Copies all output to a file (`logfile=`). */
  logTo(path: string, append: boolean): void {
    this.#logFd = openSync(hostPath(path), append ? 'a' : 'w', 0o666);
  }

  /** Whether as much output waits for the peer as may. */
  get congested(): boolean {
    return false;
  }

  /** Whether there is a peer. */
  get isOpen(): boolean {
    return this.#open;
  }

  /** Whether others use the same stream: a place on a mux. */
  get shared(): boolean {
    return false;
  }

  /** True while a user is attached. */
  get inUse(): boolean {
    return this.#user !== undefined;
  }

  get user(): CharUser | undefined {
    return this.#user;
  }

  /** Connects the user. Where there is a peer already, the user gets `opened` at once. */
  attach(user: CharUser): void {
    this.#user = user;
    this.#userOpen = !(user.opensLater ?? false);
    if (this.#open) user.event?.('opened');
    this.acceptInput();
  }

  detach(): void {
    this.#user = undefined;
    this.#userOpen = false;
  }

  /** The user can take input again. */
  acceptInput(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    while (this.#held.length > 0 && this.#user !== undefined) {
      const room = this.#user.answers === true && this.congested ? 0 : this.#user.canReceive();
      if (room <= 0) break;
      const piece = this.#held.subarray(0, room);
      this.#held = this.#held.subarray(piece.length);
      this.#delivered += piece.length;
      this.#user.receive(piece);
    }
    this.#pumping = false;
    if (this.#held.length > 0) return;
    if (this.#closedBehindInput) this.closed();
    else this.resumeInput();
  }

  /**
   * Fills `target` before it returns, without the event loop: for a device that cannot be made before its peer has spoken. Only
   * while there is no user.
   * @throws SouthbridgeError ERR_CHARDEV where there is no peer, or it goes or stays silent
   */
  receiveNow(target: Uint8Array): void {
    for (let filled = 0; filled < target.length; ) {
      if (this.#held.length === 0) this.pull();
      const piece = this.#held.subarray(0, target.length - filled);
      target.set(piece, filled);
      filled += piece.length;
      this.#held = this.#held.subarray(piece.length);
      this.#delivered += piece.length;
    }
  }

  /** For subclasses: waits for input and pushes it. @throws SouthbridgeError ERR_CHARDEV where none can come */
  protected pull(): void {
    throw new SouthbridgeError(
      'ERR_CHARDEV',
      `chardev '${this.label}' has nobody to wait for`,
      'this device needs a chardev that is a unix socket',
    );
  }

  /** Where a real port is behind it. Others ignore it. */
  setParameters(_parameters: SerialParameters): void {}
  setBreak(_on: boolean): void {}
  setOutputs(_lines: { readonly dtr: boolean; readonly rts: boolean }): void {}
  modemLines(): ModemLines | undefined {
    return undefined;
  }

  /** Ends the present connection, where there is such a thing. */
  hangUp(): void {}

  /** Whether the guest has opened the port. */
  setUserOpen(open: boolean): void {
    this.#userOpen = open;
  }

  /** Whether there is somebody on the guest's side who takes part. */
  get userOpen(): boolean {
    return this.inUse && this.#userOpen;
  }

  /** The connection as one that descriptors go over and that can be waited for, where it is such a one. */
  get exchange(): FdExchange | undefined {
    return undefined;
  }

  /** Whether somebody may connect again once the present peer has gone. */
  get reconnects(): boolean {
    return false;
  }

  /** Takes the file descriptors that came with the bytes received so far. */
  takeFds(): number[] {
    return [];
  }

  /** The host's answer to whether input may flow; called when the user cannot take more, and when it can again. */
  protected pauseInput(): void {}
  protected resumeInput(): void {}

  /** For subclasses: hands over input. What the user does not take is held, and the source is paused. */
  protected push(bytes: Buffer): void {
    this.#held = this.#held.length === 0 ? bytes : Buffer.concat([this.#held, bytes]);
    this.acceptInput();
    if (this.#held.length > 0) this.pauseInput();
  }

  /** For subclasses: how many bytes of the present peer's input have been taken. */
  protected get delivered(): number {
    return this.#delivered;
  }

  /** For subclasses: whether input waits for the user. */
  protected get holdsInput(): boolean {
    return this.#held.length > 0;
  }

  protected opened(): void {
    if (this.#open) return;
    this.#open = true;
    this.#delivered = 0;
    this.emit('opened');
  }

  /** The peer has gone; what it had sent is delivered first. */
  protected closed(): void {
    if (this.#held.length > 0 && this.#user !== undefined && !this.#closedBehindInput) {
      this.#closedBehindInput = true;
      return;
    }
    this.#closedBehindInput = false;
    this.#held = Buffer.alloc(0);
    if (!this.#open) return;
    this.#open = false;
    this.emit('closed');
  }

  protected emit(event: CharEvent): void {
    this.#user?.event?.(event);
  }

  drained(): void {
    this.#user?.drained?.();
    this.acceptInput();
  }

  /** A break condition from the host's side: `chardev-send-break`, Ctrl-A b. */
  sendBreak(): void {
    this.emit('break');
  }
}
