/** The card that a standby is paired with: the faster one, which a machine cannot take along when it migrates. */
export interface PrimaryCard {
  readonly id: string;
  /** Gives it to the guest, made anew. */
  plug(): Promise<void>;
  /** Asks the guest to let it go and calls `gone` once it has. Returns false where the guest does not have it. */
  unplug(gone: () => void): boolean;
}

/** A card that stands by for another with the same address (virtio 1.2, section 5.1.3, VIRTIO_NET_F_STANDBY). */
export class StandbyCard {
  readonly id: string;
  #primary: PrimaryCard | undefined;
  #hidden = false;
  #negotiated = false;
  #leaving = false;

  constructor(id: string) {
    this.id = id;
  }

  /** The device of that id wants to be the primary. Returns false where it may be plugged in at once. */
  hide(primary: PrimaryCard): boolean {
    if (this.#negotiated) return false;
    this.#primary = primary;
    this.#hidden = true;
    return true;
  }

  /** The guest has got the primary. */
  plugged(primary: PrimaryCard): void {
    this.#primary = primary;
  }

  /** The other device that waits already, if any. */
  rivalOf(id: string): string | undefined {
    return this.#hidden && this.#primary?.id !== id ? this.#primary?.id : undefined;
  }

  /** The guest can have both: the primary appears. */
  negotiated(): void {
    this.#negotiated = true;
    if (!this.#hidden || this.#leaving) return;
    this.#hidden = false;
    void this.#primary?.plug();
  }

  /**
   * The machine is about to leave: the guest is asked to go on with this card alone.
   * @returns the primary's id and when it has gone; undefined where the guest does not have it
   */
  withdraw(): { readonly id: string; readonly gone: Promise<void> } | undefined {
    const primary = this.#primary;
    if (primary === undefined || this.#hidden) return undefined;
    this.#leaving = true;
    let asked = false;
    const gone = new Promise<void>(resolve => {
      asked = primary.unplug(() => {
        this.#hidden = true;
        resolve();
        // Later than anyone would wait for: the machine has stayed.
        if (!this.#leaving) void this.giveBack();
      });
    });
    this.#leaving = asked;
    return asked ? { id: primary.id, gone } : undefined;
  }

  /** The machine stays: the guest gets back what it has let go. */
  async giveBack(): Promise<void> {
    this.#leaving = false;
    if (!this.#hidden || !this.#negotiated) return;
    this.#hidden = false;
    await this.#primary?.plug();
  }
}
