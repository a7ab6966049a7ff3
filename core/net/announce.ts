import type { NetCard, NetCards } from './net-cards.ts';

/** QEMU's AnnounceParameters (QAPI): milliseconds, and how many times. */
export interface AnnounceOptions {
  readonly initial: number;
  readonly max: number;
  readonly rounds: number;
  readonly step: number;
  /** Names of the cards; all of them where absent. */
  readonly interfaces?: readonly string[] | undefined;
}

/** The shortest Ethernet frame without its checksum. */
const FRAME = 60;
/** Where a reverse ARP request (RFC 903) has what: after the two addresses. */
const RARP = { TYPE: 12, SENDER: 22, TARGET: 32 } as const;
const HEADER = [0x80, 0x35, 0x00, 0x01, 0x08, 0x00, 6, 4, 0x00, 0x03] as const;

/** Tells switches where the machine's cards are now, some times over, with growing pauses. */
export class Announcer {
  readonly #cards: NetCards;
  readonly #options: AnnounceOptions;
  readonly #done: () => void;
  #round: number;
  #timer: NodeJS.Timeout | undefined;

  /** Sends the first round at once. `done` is called after the last one. */
  constructor(cards: NetCards, options: AnnounceOptions, done: () => void) {
    this.#cards = cards;
    this.#options = options;
    this.#done = done;
    this.#round = options.rounds;
    if (options.rounds > 0) this.#announce();
    else done();
  }

  dispose(): void {
    clearTimeout(this.#timer);
  }

  #announce(): void {
    const { interfaces, initial, max, step, rounds } = this.#options;
    for (const card of this.#cards.all) {
      if (interfaces !== undefined && !interfaces.includes(card.client.name)) continue;
      card.client.sendFinished(request(card));
      card.receiver.announce?.();
    }
    this.#round--;
    if (this.#round <= 0) {
      this.#done();
      return;
    }
    const pause = Math.max(0, Math.min(initial + (rounds - this.#round - 1) * step, max));
    this.#timer = setTimeout(() => this.#announce(), pause).unref();
  }
}

function request({ mac }: NetCard): Uint8Array {
  const frame = new Uint8Array(FRAME);
  frame.fill(0xff, 0, mac.length);
  frame.set(mac, mac.length);
  frame.set(HEADER, RARP.TYPE);
  frame.set(mac, RARP.SENDER);
  frame.set(mac, RARP.TARGET);
  return frame;
}
