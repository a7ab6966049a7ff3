import type { Socket } from 'node:net';
import { FrameDecoder, LENGTH_SIZE, putFrame } from './frame-stream.ts';
import type { NetClient } from './net-client.ts';
import { type Wire, wireOf } from './wire.ts';

/** Bytes that may wait for the other side before frames wait at this end. */
const SEND_LIMIT = 4 * 2 ** 20;
/** Bytes that frames of a burst gather in. */
const PIECE = 0x1_0000;

/** Frames of `client` over a connected socket, both ways; whoever cannot keep up holds the other up, and no memory. */
export class FrameChannel {
  readonly #wire: Wire;
  readonly #client: NetClient;
  readonly #decoder = new FrameDecoder((frame, length) => this.#toGuest(frame, length));
  #held = false;
  #burst = false;
  /** Frames of a burst, in what is left of a piece of memory. */
  #piece = Buffer.alloc(0);
  #from = 0;
  #to = 0;

  /** @param closed called once when the connection has ended */
  constructor(stream: Socket, client: NetClient, closed: () => void) {
    this.#client = client;
    this.#wire = wireOf(stream, { decoder: this.#decoder, drained: () => client.receiverReady(), closed });
  }

  /** Whether a frame would go now. */
  get ready(): boolean {
    return this.#wire.backlog < SEND_LIMIT;
  }

  send(frame: Uint8Array, length: number): void {
    if (this.#to + LENGTH_SIZE + length > this.#piece.length) {
      this.#flush();
      this.#piece = Buffer.allocUnsafeSlow(Math.max(PIECE, LENGTH_SIZE + length));
      this.#from = 0;
      this.#to = 0;
    }
    this.#to = putFrame(this.#piece, this.#to, frame, length);
    if (!this.#burst) this.#flush();
  }

  /** While a burst lasts frames may wait for each other. */
  burst(lasts: boolean): void {
    this.#burst = lasts;
    if (!lasts) this.#flush();
  }

  /** The client's other end has room: see {@link NetReceiver.peerReady}. */
  pull(): void {
    this.#wire.pull();
  }

  close(): void {
    this.#wire.close();
  }

  /** What has not gone yet stays where it is, and the next frames come behind it. */
  #flush(): void {
    if (this.#to === this.#from) return;
    this.#from = this.#wire.write(this.#piece.subarray(this.#from, this.#to)) ? 0 : this.#to;
    this.#to = this.#from;
  }

  /** Returns false where no more is to follow for now. */
  #toGuest(frame: Uint8Array, length: number): boolean {
    if (this.#client.send(frame, length)) return true;
    this.#held = true;
    this.#wire.hold();
    this.#client.onDrained(() => this.#goOn());
    return !this.#held;
  }

  #goOn(): void {
    this.#held = false;
    if (!this.#decoder.goOn()) this.#wire.fail();
    else if (!this.#held) this.#wire.release();
  }
}
