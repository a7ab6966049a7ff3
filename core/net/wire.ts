import { closeSync } from 'node:fs';
import type { Socket } from 'node:net';
import { SouthbridgeError } from '../errors.ts';
import { FdWatcher, READABLE, WRITABLE } from '../host/event-fd.ts';
import { isSystemError } from '../host/native.ts';
import { recvFds, sendFds, takeDescriptor } from '../host/sockets.ts';
import type { FrameDecoder } from './frame-stream.ts';

/** Bytes that are read before others get a turn. */
const READ_LIMIT = 1 << 20;

/** What hangs on a {@link Wire}. */
export interface WireEnd {
  /** Gets what comes. */
  readonly decoder: FrameDecoder;
  /** All that was written has gone, after some of it had to wait. */
  drained(): void;
  /** The connection has ended; called once, but not by {@link Wire.close}. */
  closed(): void;
}

/** A connected stream socket, as a cable for frames. */
export interface Wire {
  /** Bytes that wait for the other side. */
  readonly backlog: number;
  /** Sends all of `bytes`. Returns whether they have gone; else they are the wire's until then. */
  write(bytes: Uint8Array): boolean;
  /** Reads no more, until {@link release}. */
  hold(): void;
  release(): void;
  /** Brings what has come already, without the event loop, where that is possible; not while it is held. */
  pull(): void;
  /** What comes makes no sense: ends the connection, and says so. */
  fail(): void;
  /** Ends it without a word. */
  close(): void;
}

/** Takes over a socket that nothing has been read from. */
export function wireOf(stream: Socket, end: WireEnd): Wire {
  stream.setNoDelay(true);
  try {
    const fd = takeDescriptor(stream);
    if (fd !== undefined) return new DescriptorWire(fd, end);
  } catch (error) {
    if (!(error instanceof SouthbridgeError)) throw error;
  }
  return new StreamWire(stream, end);
}

/** By the descriptor: it can be read while the guest runs, which costs no turn of the event loop. */
class DescriptorWire implements Wire {
  readonly #fd: number;
  readonly #end: WireEnd;
  readonly #watcher: FdWatcher;
  #waiting: Uint8Array[] = [];
  #backlog = 0;
  #held = false;
  #broken = false;
  #closed = false;

  constructor(fd: number, end: WireEnd) {
    this.#fd = fd;
    this.#end = end;
    this.#watcher = new FdWatcher(fd, events => this.#ready(events));
    this.#watcher.setRef(false);
    this.#watch();
  }

  get backlog(): number {
    return this.#backlog;
  }

  write(bytes: Uint8Array): boolean {
    if (this.#closed || this.#broken) return true;
    const gone = this.#backlog > 0 ? 0 : this.#send(bytes);
    if (gone === bytes.length) return true;
    this.#waiting.push(bytes.subarray(gone));
    this.#backlog += bytes.length - gone;
    this.#watch();
    return false;
  }

  hold(): void {
    this.#held = true;
    this.#watch();
  }

  release(): void {
    this.#held = false;
    // What has come may fill the reader again: then nothing was ever watched for.
    this.pull();
    this.#watch();
  }

  pull(): void {
    for (let left = READ_LIMIT; left > 0 && !this.#held && !this.#closed; ) {
      const length = this.#receive(this.#end.decoder.space());
      if (length < 0) return;
      left -= length;
      if (length === 0 || !this.#end.decoder.filled(length)) this.fail();
    }
  }

  fail(): void {
    if (this.#closed) return;
    this.close();
    this.#end.closed();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#watcher.close();
    closeSync(this.#fd);
  }

  #watch(): void {
    if (!this.#closed) this.#watcher.watch((this.#held ? 0 : READABLE) | (this.#backlog > 0 ? WRITABLE : 0));
  }

  #ready(events: number): void {
    if (events < 0) {
      this.fail();
      return;
    }
    if ((events & WRITABLE) !== 0) this.#goOn();
    if ((events & READABLE) !== 0) this.pull();
  }

  #goOn(): void {
    while (this.#backlog > 0) {
      const [bytes] = this.#waiting;
      if (bytes === undefined) break;
      const gone = this.#send(bytes);
      this.#backlog -= gone;
      if (gone < bytes.length) {
        this.#waiting[0] = bytes.subarray(gone);
        return;
      }
      this.#waiting.shift();
    }
    this.#watch();
    this.#end.drained();
  }

  /** A peer that has gone takes everything; that it has gone is noticed by reading. */
  #send(bytes: Uint8Array): number {
    try {
      return Math.max(0, sendFds(this.#fd, bytes, []));
    } catch (error) {
      if (!isSystemError(error)) throw error;
      this.#broken = true;
      return bytes.length;
    }
  }

  /** As recv(2): 0 at the end, and -1 where nothing has come. */
  #receive(space: Uint8Array): number {
    try {
      const { length, fds } = recvFds(this.#fd, space);
      for (const fd of fds) closeSync(fd);
      return length;
    } catch (error) {
      if (!isSystemError(error)) throw error;
      return 0;
    }
  }
}

/** By Node's stream, where there is no addon. */
class StreamWire implements Wire {
  readonly #stream: Socket;

  constructor(stream: Socket, end: WireEnd) {
    this.#stream = stream;
    stream.unref();
    stream.on('data', data => {
      if (!end.decoder.push(data)) stream.destroy();
    });
    stream.on('drain', () => end.drained());
    stream.on('error', () => {});
    stream.on('close', () => end.closed());
  }

  get backlog(): number {
    return this.#stream.writableLength;
  }

  write(bytes: Uint8Array): boolean {
    this.#stream.write(bytes);
    return false;
  }

  hold(): void {
    this.#stream.pause();
  }

  release(): void {
    this.#stream.resume();
  }

  pull(): void {}

  fail(): void {
    this.#stream.destroy();
  }

  close(): void {
    this.#stream.removeAllListeners('close');
    this.#stream.destroy();
  }
}
