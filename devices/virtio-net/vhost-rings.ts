import type { VhostBackend, VhostRing } from '../../core/net/vhost.ts';
import type { Virtqueue } from '../../core/virtio/virtqueue.ts';

/** What the rings need of their card. */
export interface VhostOwner {
  readonly packed: boolean;
  readonly guestFeatures: bigint;
  readonly mtu: number;
  interrupt(vector: number): void;
  /** The backend cannot work with what the driver has set up. */
  notServed(): void;
}

/** Used ring's index: behind its flags (virtio 1.2, section 2.7.8). */
const USED_INDEX = 2;
const WRAP = 0x8000;

/** The card's queues while a backend serves them itself. */
export class VhostRings {
  readonly #owner: VhostOwner;
  readonly #backend: VhostBackend;
  #served: readonly Virtqueue[] = [];

  constructor(owner: VhostOwner, backend: VhostBackend) {
    this.#owner = owner;
    this.#backend = backend;
  }

  /** Whether the backend has the queues now. */
  get serves(): boolean {
    return this.#served.length > 0;
  }

  /** Hands `queues` over, or with none takes back what the backend has. */
  serve(queues: readonly Virtqueue[], pairs: number): void {
    if (queues.length > 0 === this.#served.length > 0) return;
    if (queues.length === 0) this.#takeBack();
    else {
      const { guestFeatures, mtu } = this.#owner;
      const rings = queues.map(queue => (queue.ready ? this.#ring(queue) : undefined));
      if (this.#backend.start(rings, guestFeatures, pairs, mtu)) this.#served = queues;
      else this.#owner.notServed();
    }
  }

  usePairs(pairs: number): void {
    if (this.#served.length > 0) this.#backend.usePairs(pairs);
  }

  /** Tells the backend that the driver has put something into `queue`; false where it does not serve it. */
  kick(queue: Virtqueue): boolean {
    const index = this.#served.indexOf(queue);
    if (index >= 0) this.#backend.kick(index);
    return index >= 0;
  }

  #ring(queue: Virtqueue): VhostRing {
    const { size, desc, avail, used, lastAvail, lastAvailWrap, usedIndex, usedWrap } = queue;
    const position = (index: number, wrap: boolean): number => index | (wrap ? WRAP : 0);
    return {
      size,
      desc: desc.address,
      avail: avail.address,
      used: used.address,
      // Of a packed ring, where either side is and on which turn.
      base: this.#owner.packed
        ? (position(lastAvail, lastAvailWrap) | (position(usedIndex, usedWrap) << 16)) >>> 0
        : lastAvail,
      interrupt: () => this.#owner.interrupt(queue.vector),
    };
  }

  #takeBack(): void {
    const bases = this.#backend.stop();
    for (const [index, queue] of this.#served.entries()) {
      if (!queue.ready) continue;
      const state = { ...queue.save(), inUse: 0, signalledValid: false };
      const base = bases[index];
      if (this.#owner.packed) {
        if (base === undefined) continue;
        state.lastAvail = base & (WRAP - 1);
        state.lastAvailWrap = (base & WRAP) !== 0;
        state.usedIndex = (base >>> 16) & (WRAP - 1);
        state.usedWrap = base >>> 31 !== 0;
      } else {
        // Who has gone without a word may not have finished what it had taken: that is done again.
        state.usedIndex = queue.used.get16(USED_INDEX);
        state.lastAvail = (base ?? state.usedIndex) & 0xffff;
      }
      queue.restore(state);
    }
    this.#served = [];
  }
}
