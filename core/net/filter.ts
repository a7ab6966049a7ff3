import { SouthbridgeError } from '../errors.ts';
import type { FrameDirection, FrameFilter, NetClient } from './net-client.ts';

/** The frames that a filter wants; as the backend sees it, `tx` is towards the guest. */
export type FilterQueue = 'all' | FrameDirection;

/** QEMU's NetfilterProperties. */
export interface FilterOptions {
  readonly queue?: FilterQueue | undefined;
  readonly status?: string | undefined;
  /** Where it was put, which only `info network` asks for. */
  readonly position?: string | undefined;
  readonly insert?: string | undefined;
}

/** Something on a backend's wire that watches, delays or leads away its frames. */
export abstract class NetFilter implements FrameFilter {
  readonly id: string;
  readonly client: NetClient;
  readonly #queue: FilterQueue;
  readonly #place: string;
  readonly #insert: string;
  #on = true;

  constructor(id: string, client: NetClient, options: FilterOptions) {
    this.id = id;
    this.client = client;
    this.#queue = options.queue ?? 'all';
    this.#place = `position=${options.position ?? 'tail'}`;
    this.#insert = options.insert ?? 'behind';
    if (options.status !== undefined) this.#on = parseStatus(options.status);
  }

  get on(): boolean {
    return this.#on;
  }

  get queue(): FilterQueue {
    return this.#queue;
  }

  /** `on` or `off`. @throws SouthbridgeError ERR_NETFILTER with QEMU's text */
  setStatus(text: string): void {
    const on = parseStatus(text);
    if (on === this.#on) return;
    this.#on = on;
    this.statusChanged(on);
  }

  take(direction: FrameDirection, frame: Uint8Array, length: number): boolean {
    if (!this.#on || (this.#queue !== 'all' && this.#queue !== direction)) return false;
    return this.filter(direction, frame, length);
  }

  /** Its line of `info network`. */
  describe(): string {
    const own = this.details();
    return `  - ${this.id}: type=${own},${this.#place},status=${this.#on ? 'on' : 'off'},insert=${this.#insert},netdev=${this.client.name},queue=${this.#queue}`;
  }

  /** Its type and the properties that only it has: `filter-dump,file=...`. */
  protected abstract details(): string;

  /** Gives everything back; the filter is off the wire already or about to be. */
  dispose(): void {}

  /** Returns true where the frame goes no further. */
  protected abstract filter(direction: FrameDirection, frame: Uint8Array, length: number): boolean;

  protected statusChanged(on: boolean): void {
    void on;
  }
}

function parseStatus(text: string): boolean {
  if (text === 'on') return true;
  if (text === 'off') return false;
  throw new SouthbridgeError('ERR_NETFILTER', "Invalid value for netfilter status, should be 'on' or 'off'");
}
