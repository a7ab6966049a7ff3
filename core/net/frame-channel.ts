import type { Socket } from 'node:net';
import { encodeFrame, FrameDecoder, LENGTH_SIZE, putFrame } from './frame-stream.ts';
import type { NetClient } from './net-client.ts';

/** Bytes that may wait for the other side before frames wait at this end. */
const SEND_LIMIT = 4 * 2 ** 20;
/** Bytes that frames of a burst gather in. */
const PIECE = 0x1_0000;

/** Frames of `client` over a connected socket, both ways; whoever cannot keep up holds the other up, and no memory. */
export class FrameChannel {
  readonly #stream: Socket;
  readonly #client: NetClient;
  readonly #decoder = new FrameDecoder((frame, length) => this.#toGuest(frame, length));
  #held = false;
  #burst = false;
  /** Frames of a burst, in what is left of a piece of memory; what has been written belongs to the stream. */
  #piece = Buffer.alloc(0);
  #from = 0;
  #to = 0;

  /** @param closed called once when the connection has ended */
  constructor(stream: Socket, client: NetClient, closed: () => void) {
    this.#stream = stream;
    this.#client = client;
    stream.setNoDelay(true);
    stream.unref();
    stream.on('data', data => {
      if (!this.#decoder.push(data)) stream.destroy();
    });
    stream.on('drain', () => client.receiverReady());
    stream.on('error', () => {});
    stream.on('close', closed);
  }

  /** Whether a frame would go now. */
  get ready(): boolean {
    return this.#stream.writableLength < SEND_LIMIT;
  }

  send(frame: Uint8Array, length: number): void {
    if (!this.#burst) {
      this.#stream.write(encodeFrame(frame, length));
      return;
    }
    if (this.#to + LENGTH_SIZE + length > this.#piece.length) {
      this.#flush();
      this.#piece = Buffer.allocUnsafeSlow(Math.max(PIECE, LENGTH_SIZE + length));
      this.#from = 0;
      this.#to = 0;
    }
    this.#to = putFrame(this.#piece, this.#to, frame, length);
  }

  /** While a burst lasts frames may wait for each other. */
  burst(lasts: boolean): void {
    this.#burst = lasts;
    if (!lasts) this.#flush();
  }

  #flush(): void {
    if (this.#to > this.#from) this.#stream.write(this.#piece.subarray(this.#from, this.#to));
    this.#from = this.#to;
  }

  close(): void {
    this.#stream.removeAllListeners('close');
    this.#stream.destroy();
  }

  /** Returns false where no more is to follow for now. */
  #toGuest(frame: Uint8Array, length: number): boolean {
    if (this.#client.send(frame, length)) return true;
    this.#held = true;
    this.#stream.pause();
    this.#client.onDrained(() => this.#goOn());
    return !this.#held;
  }

  #goOn(): void {
    this.#held = false;
    if (!this.#decoder.goOn()) this.#stream.destroy();
    else if (!this.#held) this.#stream.resume();
  }
}
