/** A virtqueue as another process needs to know it (virtio 1.2, sections 2.7 and 2.8). Addresses are the guest's. */
export interface VhostRing {
  readonly size: number;
  readonly desc: number;
  readonly avail: number;
  readonly used: number;
  /** Where it goes on: as the backend gave it when it was stopped. 32 bits: of a split ring, the next available index. */
  readonly base: number;
  /** The backend has something for the driver. */
  interrupt(): void;
}

/** A backend that serves a card's queues itself, in guest memory: no frame passes through this process. */
export interface VhostBackend {
  /** Features of the card (bits) that it has a say in, and those of them that it has. */
  readonly governed: bigint;
  readonly features: bigint;
  /**
   * Serves `rings`: two for each pair of queues, receive and transmit; undefined is one that the driver has not set up.
   * @param features what the driver has accepted
   * @param pairs how many pairs it uses
   * @returns whether it does; what the user could mend has been said to him
   */
  start(rings: readonly (VhostRing | undefined)[], features: bigint, pairs: number, mtu: number): boolean;
  /** The driver has put something into ring `index`. */
  kick(index: number): void;
  /** Uses `pairs` pairs from now on. */
  usePairs(pairs: number): void;
  /** Ends it. Returns each ring's base; undefined where the other side has gone and nobody knows. */
  stop(): readonly (number | undefined)[];
}
