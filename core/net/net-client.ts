import type { VhostBackend } from './vhost.ts';

/** Frames that wait for a receiver at most; beyond it they are lost, as on a wire. */
const QUEUE_LIMIT = 10_000;

/** What takes frames from the other end of a wire. */
export interface NetReceiver {
  /** Whether a frame would be taken now. */
  canReceive(): boolean;
  /**
   * Takes the first `length` bytes of `frame`, which are only valid during the call. Returns false where it cannot after all:
   * the frame is then kept until {@link NetClient.receiverReady}.
   */
  receive(frame: Uint8Array, length: number): boolean;
  /**
   * More frames follow at once, or no more do: what `receive` takes in between may wait for each other, to go over in one.
   * Whoever begins a burst ends it before it returns.
   */
  burst?(lasts: boolean): void;
  /** The other end may have room for more: what has come for it meanwhile can be brought now, without the event loop. */
  peerReady?(): void;
  /** The link went up or down. */
  linkChanged?(up: boolean): void;
}

/** Which way a frame goes as a host backend sees it: `tx` it sent, `rx` it is to receive. */
export type FrameDirection = 'rx' | 'tx';

/** What sees the frames of a backend as they pass (QEMU's netfilter). */
export interface FrameFilter {
  readonly id: string;
  /** Sees the first `length` bytes of `frame`, only valid during the call. Returns true where it takes the frame away. */
  take(direction: FrameDirection, frame: Uint8Array, length: number): boolean;
  /** Its line of `info network`. */
  describe(): string;
}

/** What a card takes unfinished (virtio 1.2, section 5.1.3): packets without checksum, or too large for the wire. */
export interface GuestOffloads {
  readonly csum: boolean;
  readonly tso4: boolean;
  readonly tso6: boolean;
  readonly ecn: boolean;
  readonly ufo: boolean;
}

/** How a backend takes and gives struct virtio_net_hdr (virtio 1.2, section 5.1.6), which says what a frame still lacks. */
export interface VnetHeaders {
  /** Whether UDP datagrams may be too large as well. */
  readonly ufo: boolean;
  /** Puts a header of `length` bytes before each frame, both ways; 0 puts none. */
  use(length: number): void;
  /** What the card takes unfinished from now on. */
  offload(accepted: GuestOffloads): void;
}

/**
 * One end of a wire: a network card's port, or a host backend. Frames are Ethernet frames without checksum. What a receiver
 * cannot take waits at its end and is delivered in order; nothing is dropped that the sender was told was taken.
 */
export class NetClient {
  /** QEMU's id of the client: the netdev's id, or the card's. */
  name: string;
  /** QEMU's name of its kind: `e1000`, `user`, `socket`. */
  readonly model: string;
  /** For `info network`. */
  description = '';
  /** From the one nearest to this end to the farthest. */
  readonly filters: FrameFilter[] = [];
  /** Set by a backend that can leave work to the card. */
  vnetHeaders: VnetHeaders | undefined;
  /** Set by a backend of several queues: the card takes frames of this one, or none. */
  attachQueue: ((on: boolean) => void) | undefined;
  /** Bytes of struct virtio_net_hdr before each frame on this wire; filters see them too. */
  headerLength = 0;
  readonly #receiver: NetReceiver;
  #peer: NetClient | undefined;
  #linkUp = true;
  readonly #waiting: Uint8Array[] = [];
  #delivering = false;
  #drained: (() => void)[] = [];

  constructor(name: string, model: string, receiver: NetReceiver) {
    this.name = name;
    this.model = model;
    this.#receiver = receiver;
  }

  get peer(): NetClient | undefined {
    return this.#peer;
  }

  get linkUp(): boolean {
    return this.#linkUp;
  }

  /** Frames that wait for this end's receiver. */
  get queued(): number {
    return this.#waiting.length;
  }

  /** Connects the two ends. */
  connect(peer: NetClient): void {
    this.#peer = peer;
    peer.#peer = this;
  }

  disconnect(): void {
    const peer = this.#peer;
    this.useHeaders(0);
    this.#peer = undefined;
    this.#waiting.length = 0;
    if (peer !== undefined) {
      peer.#peer = undefined;
      peer.#waiting.length = 0;
    }
  }

  /** A card puts struct virtio_net_hdr before each frame, and gets it, where the backend can. What waits is dropped. */
  useHeaders(length: number): void {
    const peer = this.#peer;
    if (peer?.vnetHeaders === undefined || this.headerLength === length) return;
    this.purge();
    peer.purge();
    peer.vnetHeaders.use(length);
    this.headerLength = length;
    peer.headerLength = length;
  }

  /** Sends a frame that lacks nothing, whatever frames have before them on this wire. */
  sendFinished(frame: Uint8Array): boolean {
    const { headerLength } = this;
    if (headerLength === 0) return this.send(frame);
    const bytes = new Uint8Array(headerLength + frame.length);
    bytes.set(frame, headerLength);
    return this.send(bytes);
  }

  /** QMP `set_link`. A host backend whose link goes down takes its card's along. */
  setLink(up: boolean): void {
    if (up === this.#linkUp) return;
    this.#linkUp = up;
    this.#receiver.linkChanged?.(up);
  }

  /**
   * Sends a frame to the other end. Returns false where it had to be queued: a well-behaved backend then stops reading from its
   * source until {@link onDrained}. With the link down, or nobody there, the frame is lost.
   */
  send(frame: Uint8Array, length: number = frame.length): boolean {
    const peer = this.#peer;
    if (peer === undefined || !this.#linkUp) return true;
    if (this.filters.length > 0 && this.#takenOutward(0, frame, length)) return true;
    if (peer.filters.length > 0 && peer.#takenInward(peer.filters.length - 1, frame, length)) return true;
    return peer.#deliver(frame, length);
  }

  /** Says that several frames are about to be sent, and when they have been: see {@link NetReceiver.burst}. */
  burst(lasts: boolean): void {
    const peer = this.#peer;
    if (peer !== undefined) peer.#receiver.burst?.(lasts);
  }

  /** Sends a frame on its way from behind `filter`, one of this end's: what the filter took earlier, or made. */
  passOn(filter: FrameFilter, direction: FrameDirection, frame: Uint8Array, length: number): void {
    const peer = this.#peer;
    if (peer === undefined) return;
    const index = this.filters.indexOf(filter);
    if (direction === 'tx') {
      if (!this.#takenOutward(index + 1, frame, length)) peer.#deliver(frame, length);
    } else if (!this.#takenInward(index - 1, frame, length)) this.#deliver(frame, length);
  }

  /** Calls `listener` once the other end's queue is empty. */
  onDrained(listener: () => void): void {
    const peer = this.#peer;
    if (peer === undefined || peer.#waiting.length === 0) listener();
    else peer.#drained.push(listener);
  }

  /** This end's receiver has room again. */
  receiverReady(): void {
    if (this.#delivering) return;
    this.#delivering = true;
    while (this.#waiting.length > 0 && this.#receiver.canReceive()) {
      const frame = this.#waiting[0];
      if (frame !== undefined && !this.#receiver.receive(frame, frame.length)) break;
      this.#waiting.shift();
    }
    this.#delivering = false;
    if (this.#waiting.length > 0) return;
    const peer = this.#peer;
    if (this.#drained.length > 0) for (const listener of this.#drained.splice(0)) listener();
    else if (peer !== undefined && peer.#linkUp) peer.#receiver.peerReady?.();
  }

  /** Drops what waits: the receiver has been reset. */
  purge(): void {
    this.#waiting.length = 0;
    for (const listener of this.#drained.splice(0)) listener();
  }

  #takenOutward(from: number, frame: Uint8Array, length: number): boolean {
    for (let index = from; index < this.filters.length; index++) {
      if (this.filters[index]?.take('tx', frame, length)) return true;
    }
    return false;
  }

  #takenInward(from: number, frame: Uint8Array, length: number): boolean {
    for (let index = from; index >= 0; index--) {
      if (this.filters[index]?.take('rx', frame, length)) return true;
    }
    return false;
  }

  #deliver(frame: Uint8Array, length: number): boolean {
    if (!this.#linkUp) return true;
    if (this.#waiting.length === 0 && !this.#delivering && this.#receiver.canReceive()) {
      this.#delivering = true;
      const taken = this.#receiver.receive(frame, length);
      this.#delivering = false;
      if (taken) {
        // What came back meanwhile (a loop, a hub) is delivered now.
        if (this.#waiting.length > 0) this.receiverReady();
        return true;
      }
    }
    if (this.#waiting.length < QUEUE_LIMIT) this.#waiting.push(frame.slice(0, length));
    return false;
  }
}

/** What `-netdev` makes: the end of a wire that leads out of the machine. */
export interface NetBackend {
  readonly id: string;
  readonly client: NetClient;
  /** One end for each queue, `client` first, where there are several. */
  readonly queues?: readonly NetClient[];
  /** Set where it serves the card's queues itself; only virtio cards have such. */
  readonly vhost?: VhostBackend;
  /** Gives back sockets, files and timers. Idempotent. */
  dispose(): void;
}
