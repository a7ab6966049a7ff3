import { SouthbridgeError } from '../errors.ts';
import { type FilterOptions, NetFilter } from './filter.ts';
import type { FrameDirection, NetClient } from './net-client.ts';

interface Held {
  readonly direction: FrameDirection;
  readonly frame: Uint8Array;
}

const US_PER_MS = 1000;

/** `filter-buffer`: holds frames back and lets all go on together every `interval` microseconds of the host's time. */
export class BufferFilter extends NetFilter {
  readonly #interval: number;
  readonly #microseconds: number;
  readonly #held: Held[] = [];
  #timer: NodeJS.Timeout | undefined;

  /** @throws SouthbridgeError ERR_NETFILTER with QEMU's text */
  constructor(id: string, client: NetClient, options: FilterOptions & { readonly interval: number }) {
    super(id, client, options);
    if (options.interval === 0) {
      throw new SouthbridgeError('ERR_NETFILTER', "Property 'filter-buffer.interval' requires a positive value");
    }
    this.#microseconds = options.interval;
    this.#interval = Math.max(1, options.interval / US_PER_MS);
    this.statusChanged(this.on);
  }

  override dispose(): void {
    clearInterval(this.#timer);
    this.#release();
  }

  protected override details(): string {
    return `filter-buffer,interval=${this.#microseconds}`;
  }

  protected override filter(direction: FrameDirection, frame: Uint8Array, length: number): boolean {
    this.#held.push({ direction, frame: frame.slice(0, length) });
    return true;
  }

  protected override statusChanged(on: boolean): void {
    clearInterval(this.#timer);
    if (on) this.#timer = setInterval(() => this.#release(), this.#interval).unref();
    else this.#release();
  }

  #release(): void {
    for (const { direction, frame } of this.#held.splice(0)) this.client.passOn(this, direction, frame, frame.length);
  }
}
