import type { Socket } from 'node:net';
import { encodeFrame, FrameDecoder } from './frame-stream.ts';
import type { NetClient } from './net-client.ts';

/** Bytes that may wait for the other side before frames wait at this end. */
const SEND_LIMIT = 4 * 2 ** 20;

/** Frames of `client` over a connected socket, both ways; whoever cannot keep up holds the other up, and no memory. */
export class FrameChannel {
  readonly #stream: Socket;
  readonly #client: NetClient;
  readonly #decoder = new FrameDecoder((frame, length) => this.#toGuest(frame, length));
  #held = false;

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
    this.#stream.write(encodeFrame(frame, length));
  }

  close(): void {
    this.#stream.removeAllListeners('close');
    this.#stream.destroy();
  }

  #toGuest(frame: Uint8Array, length: number): void {
    if (this.#client.send(frame, length) || this.#held) return;
    this.#held = true;
    this.#stream.pause();
    this.#client.onDrained(() => {
      this.#held = false;
      this.#stream.resume();
    });
  }
}
