import { closeSync } from 'node:fs';
import type { Socket } from 'node:net';
import { Duplex } from 'node:stream';
import { FdWatcher, READABLE, WRITABLE } from '../host/event-fd.ts';
import { duplicate } from '../host/process.ts';
import { recvFds, sendFds } from '../host/sockets.ts';

const CHUNK = 65536;

/** Takes the descriptor out of a Node socket, which reads no more. Undefined where Node does not show it. */
function takeDescriptor(socket: Socket): number | undefined {
  const handle: unknown = Reflect.get(socket, '_handle');
  const fd: unknown = typeof handle === 'object' && handle !== null ? Reflect.get(handle, 'fd') : undefined;
  if (typeof fd !== 'number' || fd < 0) return undefined;
  socket.pause();
  const own = duplicate(fd);
  socket.destroy();
  return own;
}

/** A unix socket that also receives file descriptors (SCM_RIGHTS), which Node's own sockets drop. */
export class FdSocket extends Duplex {
  readonly #fd: number;
  readonly #watcher: FdWatcher;
  readonly #buffer = Buffer.alloc(CHUNK);
  #reading = false;
  #waiting: (() => void) | undefined;
  #fds: number[] = [];

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

  /** The descriptors that came since the last call; now the caller's to close. */
  takeFds(): number[] {
    return this.#fds.splice(0);
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
    for (const fd of this.takeFds()) closeSync(fd);
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

  #receive(): void {
    let received: ReturnType<typeof recvFds>;
    try {
      received = recvFds(this.#fd, this.#buffer);
    } catch {
      this.destroy();
      return;
    }
    this.#fds.push(...received.fds);
    if (received.length === 0) {
      this.#reading = false;
      this.push(null);
    } else if (received.length > 0) this.#reading = this.push(Buffer.from(this.#buffer.subarray(0, received.length)));
  }
}
