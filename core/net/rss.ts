import type { Packet } from './packet.ts';

/** What a receive-side scaling hash is over: addresses, and for the longer kinds the two ports. */
export type HashInput = 'addresses' | 'addresses-and-ports' | 'extended-addresses' | 'extended-addresses-and-ports';

const WORD = 32;

/** The Toeplitz hash of receive-side scaling (Microsoft NDIS, "RSS Hashing Functions"; virtio 1.2, section 5.1.6.4.3). */
export class ToeplitzHash {
  readonly #key: Uint8Array;
  #window = 0;
  #next = 0;
  #hash = 0;

  /** @param key the secret key; the caller may change it between hashes */
  constructor(key: Uint8Array) {
    this.#key = key;
  }

  /** The hash of a packet in `frame`. Nothing is allocated. */
  of(packet: Packet, frame: Uint8Array, input: HashInput): number {
    const key = this.#key;
    const extended = input === 'extended-addresses' || input === 'extended-addresses-and-ports';
    const { addressLength, l4 } = packet;
    this.#window = ((key[0] ?? 0) << 24) | ((key[1] ?? 0) << 16) | ((key[2] ?? 0) << 8) | (key[3] ?? 0);
    this.#next = WORD;
    this.#hash = 0;
    this.#add(frame, extended ? packet.source : packet.fixedSource, addressLength);
    this.#add(frame, extended ? packet.destination : packet.fixedDestination, addressLength);
    if (input === 'addresses-and-ports' || input === 'extended-addresses-and-ports') this.#add(frame, l4, 4);
    return this.#hash >>> 0;
  }

  #add(bytes: Uint8Array, start: number, length: number): void {
    const key = this.#key;
    for (let at = start; at < start + length; at++) {
      const byte = bytes[at] ?? 0;
      for (let bit = 7; bit >= 0; bit--) {
        if (((byte >> bit) & 1) !== 0) this.#hash ^= this.#window;
        const following = ((key[this.#next >> 3] ?? 0) >> (7 - (this.#next & 7))) & 1;
        this.#window = (this.#window << 1) | following;
        this.#next++;
      }
    }
  }
}
