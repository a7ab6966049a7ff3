import { closeSync, readSync, writeSync } from 'node:fs';
import { hostCalls, type NativeFdPoll } from './calls.ts';
import { isSystemError } from './native.ts';

export const READABLE = 1;
export const WRITABLE = 2;
export const DISCONNECT = 4;

/** Watches a descriptor of any pollable kind in the event loop. It does not own the descriptor. */
export class FdWatcher {
  readonly #poll: NativeFdPoll;
  #watched = 0;

  /** @param ready gets READABLE, WRITABLE and DISCONNECT bits, or a negative errno */
  constructor(fd: number, ready: (events: number) => void) {
    this.#poll = new (hostCalls().FdPoll)(fd, events => {
      // An error ends the watch: uv_poll_start(3).
      if (events < 0) this.#watched = 0;
      ready(events);
    });
  }

  /** 0 stops watching. What is watched for already costs no call. */
  watch(events: number): void {
    if (events === this.#watched) return;
    this.#poll.watch(events);
    this.#watched = events;
  }

  /** Whether watching keeps the process alive; it does until told otherwise. */
  setRef(on: boolean): void {
    this.#poll.setRef(on);
  }

  close(): void {
    this.#poll.close();
  }
}

/** A counter in the kernel that can be waited for: eventfd(2). */
export class EventFd {
  readonly fd: number;
  readonly #buffer = Buffer.alloc(8);
  #watcher: FdWatcher | undefined;

  /** @param fd one that somebody else has made, which is this object's from now on */
  constructor(fd: number = hostCalls().eventfd()) {
    this.fd = fd;
  }

  /** Adds one. A counter that is full says the same without it. */
  signal(): void {
    this.#buffer.writeBigUInt64LE(1n);
    try {
      writeSync(this.fd, this.#buffer);
    } catch (error) {
      if (!isSystemError(error) || error.code !== 'EAGAIN') throw error;
    }
  }

  /** Takes the count, which is 0 where nobody has signalled; exact to 2^53. */
  take(): number {
    try {
      readSync(this.fd, this.#buffer);
    } catch (error) {
      if (isSystemError(error) && error.code === 'EAGAIN') return 0;
      throw error;
    }
    return Number(this.#buffer.readBigUInt64LE());
  }

  /** Calls `signalled` in the event loop, with what has been counted. */
  onSignal(signalled: (count: number) => void): void {
    this.#watcher ??= new FdWatcher(this.fd, () => {
      const count = this.take();
      if (count > 0) signalled(count);
    });
    this.#watcher.watch(READABLE);
    this.#watcher.setRef(false);
  }

  close(): void {
    this.#watcher?.close();
    closeSync(this.fd);
  }
}
