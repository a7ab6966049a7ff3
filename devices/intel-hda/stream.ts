import type { Dma } from '../../core/memory/dma.ts';
import { field, type StateValues } from '../../core/state/fields.ts';

const ENTRY = 16;
const INTERRUPT_ON_COMPLETION = 1;

export const streamState = {
  entry: field.u32(),
  /** Bytes of the entry that have been moved. */
  offset: field.u32(),
};

/** One stream's walk through its buffer descriptor list (HD Audio 1.0a, section 3.6). */
export class Stream {
  readonly #dma: Dma;
  readonly #s: StateValues<typeof streamState>;
  #entries: { readonly address: number; readonly length: number; readonly interrupts: boolean }[] = [];
  #cyclic = 0;

  constructor(dma: Dma, state: StateValues<typeof streamState>) {
    this.#dma = dma;
    this.#s = state;
  }

  /**
   * Reads the list, from its beginning where the stream starts, and again after a restore.
   * @param count entries
   * @param cyclic bytes of the whole buffer
   */
  load(list: number, count: number, cyclic: number, fromBeginning: boolean): void {
    const bytes = new Uint8Array(count * ENTRY);
    this.#entries = [];
    this.#cyclic = cyclic;
    if (fromBeginning) Object.assign(this.#s, { entry: 0, offset: 0 });
    if (!this.#dma.read(list, bytes)) return;
    const view = new DataView(bytes.buffer);
    for (let at = 0; at < bytes.length; at += ENTRY) {
      this.#entries.push({
        address: view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32,
        length: view.getUint32(at + 8, true),
        interrupts: (view.getUint32(at + 12, true) & INTERRUPT_ON_COMPLETION) !== 0,
      });
    }
  }

  stop(): void {
    this.#entries = [];
  }

  get loaded(): boolean {
    return this.#entries.length > 0;
  }

  /**
   * Moves samples from memory (`output`) or to it, through no more entries than the list has.
   * @param position where the link is in the buffer
   * @returns the new position, and whether an entry that interrupts has been completed
   */
  move(
    bytes: Uint8Array,
    output: boolean,
    position: number,
  ): { readonly position: number; readonly interrupt: boolean } {
    const s = this.#s;
    let at = 0;
    let now = position;
    let interrupt = false;
    for (let steps = this.#entries.length; steps > 0 && at < bytes.length; steps--) {
      const entry = this.#entries[s.entry];
      if (entry === undefined) break;
      const length = Math.max(0, Math.min(bytes.length - at, this.#cyclic - now, entry.length - s.offset));
      if (output) this.#dma.read(entry.address + s.offset, bytes, at, length);
      else this.#dma.write(entry.address + s.offset, bytes, at, length);
      at += length;
      now += length;
      s.offset += length;
      if (s.offset !== entry.length) continue;
      interrupt ||= entry.interrupts;
      s.offset = 0;
      s.entry++;
      if (s.entry === this.#entries.length) {
        s.entry = 0;
        now = 0;
      }
    }
    return { position: now, interrupt };
  }
}
