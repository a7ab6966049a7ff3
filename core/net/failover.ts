/** A device that waits for the guest to be able to have two cards as one. */
interface Waiting {
  readonly id: string;
  plug(): void;
}

/** A card that stands by for another with the same address (virtio 1.2, section 5.1.3, VIRTIO_NET_F_STANDBY). */
export class StandbyCard {
  readonly id: string;
  #waiting: Waiting | undefined;
  #negotiated = false;

  constructor(id: string) {
    this.id = id;
  }

  /** The device of that id wants to be the primary. Returns false where it may be plugged in at once. */
  hide(waiting: Waiting): boolean {
    if (this.#negotiated) return false;
    this.#waiting = waiting;
    return true;
  }

  /** The other device that waits already, if any. */
  rivalOf(id: string): string | undefined {
    return this.#waiting !== undefined && this.#waiting.id !== id ? this.#waiting.id : undefined;
  }

  /** The guest can have both: the primary appears. */
  negotiated(): void {
    this.#negotiated = true;
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.plug();
  }
}
