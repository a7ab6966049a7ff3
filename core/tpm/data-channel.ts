import { closeSync } from 'node:fs';
import { FdWatcher, READABLE, WRITABLE } from '../host/event-fd.ts';
import { isSystemError } from '../host/native.ts';
import { recvFds, sendFds } from '../host/sockets.ts';
import { messageSize, TPM_HEADER } from './backend.ts';

/** How long somebody who cannot go on without an answer waits for it: making a key takes its time. */
const PATIENCE_MS = 60_000;
const PAUSE_MS = 0.2;
/** Nobody ever wakes it: waiting on it is a pause. */
const pause = new Int32Array(new SharedArrayBuffer(4));

interface Exchange {
  readonly command: Uint8Array;
  readonly answer: Uint8Array;
  /** Gets whether there is an answer. */
  readonly done: (answered: boolean) => void;
  sent: number;
  received: number;
}

/** The channel on which a TPM takes commands and gives answers, one at a time. It owns its socket. */
export class TpmDataChannel {
  readonly #socket: number;
  readonly #watcher: FdWatcher;
  #exchange: Exchange | undefined;
  #open = true;

  constructor(socket: number) {
    this.#socket = socket;
    this.#watcher = new FdWatcher(socket, () => this.#ready());
  }

  get busy(): boolean {
    return this.#exchange !== undefined;
  }

  /** Sends `command`; `answer` is filled before `done` is called, from the event loop or {@link finish}. */
  exchange(command: Uint8Array, answer: Uint8Array, done: (answered: boolean) => void): void {
    this.#exchange = { command, answer, done, sent: 0, received: 0 };
    if (this.#open) this.#watcher.watch(WRITABLE);
    else this.#end(false);
  }

  /** Waits in place for the answer that is outstanding. */
  finish(patienceMs = PATIENCE_MS): void {
    const deadline = performance.now() + patienceMs;
    while (this.#exchange !== undefined) {
      this.#ready();
      if (this.#exchange === undefined) return;
      if (performance.now() > deadline) this.#end(false);
      else Atomics.wait(pause, 0, 0, PAUSE_MS);
    }
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.#watcher.close();
    closeSync(this.#socket);
  }

  #ready(): void {
    const exchange = this.#exchange;
    if (exchange === undefined) {
      // Nobody asked: the other side has gone, or has lost count.
      this.close();
      return;
    }
    let open = this.#open;
    try {
      open &&= this.#send(exchange) && this.#receive(exchange);
    } catch (error) {
      if (!isSystemError(error)) throw error;
      open = false;
    }
    if (!open) this.#end(false);
    else if (isComplete(exchange)) this.#end(true);
    else this.#watcher.watch(exchange.sent < exchange.command.length ? WRITABLE : READABLE);
  }

  #send(exchange: Exchange): boolean {
    while (exchange.sent < exchange.command.length) {
      const count = sendFds(this.#socket, exchange.command.subarray(exchange.sent), []);
      if (count < 0) return true;
      exchange.sent += count;
    }
    return true;
  }

  /** False where no answer that fits can come any more. */
  #receive(exchange: Exchange): boolean {
    while (!isComplete(exchange)) {
      const { answer, received } = exchange;
      const end = received < TPM_HEADER.LENGTH ? TPM_HEADER.LENGTH : messageSize(answer);
      if (end < TPM_HEADER.LENGTH || end > answer.length) return false;
      const { length } = recvFds(this.#socket, answer.subarray(received, end));
      if (length === 0) return false;
      if (length < 0) return true;
      exchange.received += length;
    }
    return true;
  }

  #end(answered: boolean): void {
    const { done } = this.#exchange ?? {};
    this.#exchange = undefined;
    if (answered) this.#watcher.watch(0);
    else this.close();
    done?.(answered);
  }
}

const isComplete = ({ answer, received }: Exchange): boolean =>
  received >= TPM_HEADER.LENGTH && received === messageSize(answer);
