import { closeSync } from 'node:fs';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { FdWatcher, READABLE, WRITABLE } from '../host/event-fd.ts';
import { isSystemError } from '../host/native.ts';
import { recvFds, sendFds, takeDescriptor } from '../host/sockets.ts';

const CHUNK = 65536;
/** How long somebody who cannot go on without the peer waits for it. */
const PATIENCE_MS = 10_000;
/** Nobody ever wakes it: waiting on it is a pause. */
const pause = new Int32Array(new SharedArrayBuffer(4));
/** How often the other side of a protocol with answers is looked at. */
const PAUSE_MS = 0.1;

/** A descriptor, and how many bytes had come by the end of what it came with. */
interface ReceivedFd {
  readonly fd: number;
  readonly position: number;
}

/** A unix socket that also receives file descriptors (SCM_RIGHTS), which Node's own sockets drop. */
export class FdSocket extends Duplex {
  readonly #fd: number;
  readonly #watcher: FdWatcher;
  readonly #buffer = Buffer.alloc(CHUNK);
  #reading = false;
  #waiting: (() => void) | undefined;
  #received = 0;
  #fds: ReceivedFd[] = [];

  /** From an accepted or connected socket that nothing has been read from; undefined where that cannot be. */
  static adopt(socket: Socket): FdSocket | undefined {
    const fd = takeDescriptor(socket);
    return fd === undefined ? undefined : new FdSocket(fd);
  }

  private constructor(fd: number) {
    super({ allowHalfOpen: false });
    this.#fd = fd;
    this.#watcher = new FdWatcher(fd, events => this.#ready(events));
  }

  /** The descriptors that came with the first `bytes` bytes and have not been taken; now the caller's to close. */
  takeFds(bytes: number): number[] {
    const later = this.#fds.findIndex(({ position }) => position > bytes);
    return this.#fds.splice(0, later < 0 ? this.#fds.length : later).map(({ fd }) => fd);
  }

  /** Waits, without the event loop, until there is more to read. False where the peer has gone or stays silent. */
  receiveNow(): boolean {
    for (let waited = 0; waited < PATIENCE_MS && !this.destroyed; waited++) {
      const before = this.#received;
      if (this.readableLength === 0 && !this.#receive()) return false;
      if (this.readableLength > 0 || this.#received > before) {
        // To the listeners, who have it already unless they had paused.
        this.read();
        return true;
      }
      Atomics.wait(pause, 0, 0, 1);
    }
    return false;
  }

  /**
   * Sends all of `bytes`, with descriptors, before it returns: for protocols in which one side waits for the other. False where the
   * other side has gone, or takes nothing for {@link PATIENCE_MS}.
   */
  sendNow(bytes: Uint8Array, fds: readonly number[] = []): boolean {
    let sent = 0;
    return this.#now(() => {
      const count = sendFds(this.#fd, sent === 0 ? bytes : bytes.subarray(sent), sent === 0 ? fds : []);
      sent += Math.max(0, count);
      return sent === bytes.length ? 'done' : count < 0 ? 'wait' : 'more';
    });
  }

  /** Fills `bytes` from what comes, and waits for it; nothing of it reaches the stream's listeners. False as {@link sendNow}. */
  readNow(bytes: Uint8Array): boolean {
    let done = 0;
    return this.#now(() => {
      const { length, fds } = recvFds(this.#fd, bytes.subarray(done));
      this.#received += Math.max(0, length);
      for (const fd of fds) this.#fds.push({ fd, position: this.#received });
      if (length === 0) return 'gone';
      done += Math.max(0, length);
      return done === bytes.length ? 'done' : length < 0 ? 'wait' : 'more';
    });
  }

  #now(attempt: () => 'done' | 'more' | 'wait' | 'gone'): boolean {
    if (this.destroyed) return false;
    const deadline = performance.now() + PATIENCE_MS;
    try {
      for (let result = attempt(); ; result = attempt()) {
        if (result === 'done') return true;
        if (result === 'gone' || performance.now() > deadline) break;
        if (result === 'wait') Atomics.wait(pause, 0, 0, PAUSE_MS);
      }
    } catch (error) {
      if (!isSystemError(error)) throw error;
    }
    this.destroy();
    return false;
  }

  override _read(): void {
    this.#reading = true;
    this.#watch();
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    let sent = 0;
    try {
      sent = Math.max(0, sendFds(this.#fd, chunk, []));
    } catch (error) {
      done(error instanceof Error ? error : new Error(String(error)));
      return;
    }
    if (sent === chunk.length) {
      done();
      return;
    }
    this.#waiting = () => this._write(chunk.subarray(sent), _encoding, done);
    this.#watch();
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#watcher.close();
    closeSync(this.#fd);
    for (const fd of this.takeFds(Number.POSITIVE_INFINITY)) closeSync(fd);
    done(error);
  }

  #watch(): void {
    if (!this.destroyed)
      this.#watcher.watch((this.#reading ? READABLE : 0) | (this.#waiting === undefined ? 0 : WRITABLE));
  }

  #ready(events: number): void {
    if (this.destroyed) return;
    if (events < 0) {
      this.destroy();
      return;
    }
    if ((events & WRITABLE) !== 0) {
      const resume = this.#waiting;
      this.#waiting = undefined;
      resume?.();
    }
    if ((events & READABLE) !== 0) this.#receive();
    this.#watch();
  }

  /** Reads what has come. False where nothing more can come. */
  #receive(): boolean {
    let received: ReturnType<typeof recvFds>;
    try {
      received = recvFds(this.#fd, this.#buffer);
    } catch {
      this.destroy();
      return false;
    }
    this.#received += Math.max(0, received.length);
    for (const fd of received.fds) this.#fds.push({ fd, position: this.#received });
    if (received.length === 0) {
      this.#reading = false;
      this.push(null);
      return false;
    }
    if (received.length > 0) this.#reading = this.push(Buffer.from(this.#buffer.subarray(0, received.length)));
    return true;
  }
}
