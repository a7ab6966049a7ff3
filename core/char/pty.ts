import { closeSync, constants, readSync, writeSync } from 'node:fs';
import { hostCalls } from '../host/calls.ts';
import { FdWatcher, READABLE, WRITABLE } from '../host/event-fd.ts';
import { isSystemError } from '../host/native.ts';
import { openPty, type Pty } from '../host/terminal.ts';
import { Chardev } from './chardev.ts';

const CHUNK = 4096;

/** A pseudo-terminal: another program opens the terminal that `filename` names. */
export class PtyChardev extends Chardev {
  readonly #input = Buffer.alloc(CHUNK);
  #pty: Pty | undefined;
  #watcher: FdWatcher | undefined;
  #paused = false;
  #blocked = false;
  /** Replies that the terminal had no room for. */
  #queued: Buffer = Buffer.alloc(0);

  override get filename(): string {
    return `pty:${this.#pty?.path ?? ''}`;
  }

  override open(): Promise<void> {
    const pty = openPty();
    this.#pty = pty;
    hostCalls().statusFlags(pty.master, hostCalls().statusFlags(pty.master) | constants.O_NONBLOCK);
    this.#watcher = new FdWatcher(pty.master, events => this.#ready(events));
    this.#watch();
    process.stderr.write(`char device redirected to ${pty.path} (label ${this.label})\n`);
    this.opened();
    return Promise.resolve();
  }

  override get congested(): boolean {
    return this.#queued.length > 0;
  }

  protected override transmit(bytes: Uint8Array): number {
    if (this.#queued.length > 0) {
      this.#blocked = true;
      this.#watch();
      return 0;
    }
    const taken = this.#write(bytes);
    if (taken < bytes.length) {
      this.#blocked = true;
      this.#watch();
    }
    return taken;
  }

  protected override transmitAll(text: string | Uint8Array): void {
    const bytes = Buffer.from(text);
    const taken = this.#queued.length > 0 ? 0 : this.#write(bytes);
    if (taken === bytes.length) return;
    this.#queued = Buffer.concat([this.#queued, bytes.subarray(taken)]);
    this.#watch();
  }

  protected override pauseInput(): void {
    this.#paused = true;
    this.#watch();
  }

  protected override resumeInput(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#watch();
  }

  override dispose(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
    if (this.#pty === undefined) return;
    closeSync(this.#pty.master);
    closeSync(this.#pty.slave);
    this.#pty = undefined;
  }

  #watch(): void {
    this.#watcher?.watch((this.#paused ? 0 : READABLE) | (this.#blocked || this.#queued.length > 0 ? WRITABLE : 0));
  }

  #ready(events: number): void {
    if (events < 0 || this.#pty === undefined) return;
    if ((events & READABLE) !== 0) this.#read(this.#pty.master);
    if ((events & WRITABLE) !== 0) this.#drain();
  }

  #read(fd: number): void {
    try {
      const count = readSync(fd, this.#input);
      if (count > 0) this.push(Buffer.from(this.#input.subarray(0, count)));
    } catch (error) {
      if (!isSystemError(error) || (error.code !== 'EAGAIN' && error.code !== 'EIO')) throw error;
    }
  }

  #drain(): void {
    if (this.#queued.length > 0) this.#queued = this.#queued.subarray(this.#write(this.#queued));
    if (this.#queued.length === 0) {
      this.#blocked = false;
      this.drained();
    }
    this.#watch();
  }

  #write(bytes: Uint8Array): number {
    if (this.#pty === undefined) return bytes.length;
    try {
      return writeSync(this.#pty.master, bytes);
    } catch (error) {
      if (isSystemError(error) && error.code === 'EAGAIN') return 0;
      throw error;
    }
  }
}
