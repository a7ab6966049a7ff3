import type { Dma } from '../../core/memory/dma.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { QUEUES, QUEUES_CONTEXT64, STATUS } from './registers.ts';

export const queueFields = {
  reply: field.number(),
  producer: field.number(),
  consumer: field.number(),
  head: field.u16(),
  context64: field.bool(),
} as const;

/** Where the host hears which frames have ended: their contexts, in a ring in its memory. */
export class ReplyQueue {
  readonly #dma: Dma;
  readonly #s: StateValues<typeof queueFields>;
  /** Frames that may be under way; the ring has as many places. */
  readonly #limit: number;
  readonly #bytes = new Uint8Array(QUEUES.SIZE);
  readonly #view = new DataView(this.#bytes.buffer);

  constructor(dma: Dma, state: StateValues<typeof queueFields>, limit: number) {
    this.#dma = dma;
    this.#s = state;
    this.#limit = limit;
  }

  get known(): boolean {
    return this.#s.reply !== 0;
  }

  get context64(): boolean {
    return this.#s.context64;
  }

  /** Takes what the host says of its queues at `address` (INIT). Returns a status. */
  initialise(address: number): number {
    const s = this.#s;
    const view = this.#view;
    if (!this.#dma.read(address, this.#bytes)) return STATUS.MEMORY_NOT_AVAILABLE;
    if ((view.getUint32(QUEUES.ENTRIES, true) & 0xffff) > this.#limit) return STATUS.INVALID_PARAMETER;
    const wide = (at: number): number => view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);
    s.reply = wide(QUEUES.REPLY);
    s.producer = wide(QUEUES.PRODUCER);
    s.consumer = wide(QUEUES.CONSUMER);
    s.head = this.#dma.read32(s.producer) % this.#limit;
    s.context64 = (view.getUint32(QUEUES.FLAGS, true) & QUEUES_CONTEXT64) !== 0;
    return STATUS.OK;
  }

  /** Writes a reply; where nobody is `told` the next one takes its place. */
  post(contextLow: number, contextHigh: number, told: boolean): void {
    const s = this.#s;
    if (this.known) {
      const at = s.reply + s.head * (s.context64 ? 8 : 4);
      this.#dma.write32(at, contextLow);
      if (s.context64) this.#dma.write32(at + 4, contextHigh);
    }
    if (!told) return;
    s.head = (s.head + 1) % this.#limit;
    this.#dma.write32(s.producer, s.head);
  }

  reset(): void {
    Object.assign(this.#s, { reply: 0, producer: 0, consumer: 0, head: 0, context64: false });
  }
}
