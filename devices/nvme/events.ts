import { field, type StateValues } from '../../core/state/fields.ts';
import type { Request } from './queues.ts';
import { PENDING, STATUS } from './registers.ts';

export const MAX_EVENTS = 0x1_0000;

export const eventFields = {
  /** Events that wait for a request: type, information and log page, as they are reported. */
  queue: field.list(field.u32(), MAX_EVENTS),
  /** Types that have been reported, and wait for their log page to be read. */
  masked: field.u8(),
} as const;

export interface EventLimits {
  /** Requests that may wait, less one (`aerl`). */
  readonly requests: number;
  /** Events that may wait (`aer_max_queued`). */
  readonly events: number;
}

/** Asynchronous events (NVMe 1.4, section 5.2): requests that wait for something to happen, and what has happened. */
export class AsyncEvents {
  readonly #s: StateValues<typeof eventFields>;
  readonly #limits: EventLimits;
  readonly #complete: (request: Request) => void;
  readonly #requests: Request[] = [];

  constructor(state: StateValues<typeof eventFields>, limits: EventLimits, complete: (request: Request) => void) {
    this.#s = state;
    this.#limits = limits;
    this.#complete = complete;
  }

  /** Whether anybody waits for events. */
  get awaited(): boolean {
    return this.#requests.length > 0;
  }

  /** A request: ends when there is an event for it. */
  request(request: Request): number {
    if (this.#requests.length > this.#limits.requests) return STATUS.ASYNC_EVENT_LIMIT;
    this.#requests.push(request);
    return PENDING;
  }

  post(type: number, information: number, logPage: number): void {
    if (this.#s.queue.length >= Math.min(this.#limits.events, MAX_EVENTS)) return;
    this.#s.queue.push(type | (information << 8) | (logPage << 16));
    this.report();
  }

  /** The log page of these events has been read: there may be others. */
  clear(type: number): void {
    this.#s.masked &= ~(1 << type);
    this.report();
  }

  /** Gives to those who wait what has happened, a type at a time. */
  report(): void {
    const { queue } = this.#s;
    for (let index = 0; index < queue.length; ) {
      const event = queue[index] ?? 0;
      const type = 1 << (event & 7);
      if ((this.#s.masked & type) !== 0) {
        index++;
        continue;
      }
      const request = this.#requests.pop();
      if (request === undefined) return;
      queue.splice(index, 1);
      this.#s.masked |= type;
      request.result = event;
      request.status = STATUS.SUCCESS;
      this.#complete(request);
    }
  }

  /** The controller is reset. */
  reset(): void {
    this.forgetRequests();
    this.#s.queue = [];
    this.#s.masked = 0;
  }

  forgetRequests(): void {
    this.#requests.length = 0;
  }
}
