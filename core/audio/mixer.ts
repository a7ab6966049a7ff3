import type { AudioFormat } from './format.ts';
import { Resampler } from './format.ts';

/** A voice that is further behind than so many frames is not waited for: it is silent. */
const MAX_LAG = 9600;

interface Channel {
  readonly resampler: Resampler;
  /** Pairs of left and right that have come and not gone. */
  queue: Int16Array;
}

/** Makes one stream of several voices, which move their samples each at its own moment. */
export class Mixer {
  readonly #frequency: number;
  readonly #channels = new Map<object, Channel>();
  readonly #out: (stereo: Int16Array) => void;

  /** @param out told pairs of left and right at `frequency` */
  constructor(frequency: number, out: (stereo: Int16Array) => void) {
    this.#frequency = frequency;
    this.#out = out;
  }

  add(voice: object, { frequency }: AudioFormat): void {
    this.#channels.set(voice, { resampler: new Resampler(frequency, this.#frequency), queue: new Int16Array(0) });
  }

  /** The voice has stopped; what it has left is heard. */
  remove(voice: object): void {
    const channel = this.#channels.get(voice);
    if (channel === undefined) return;
    this.#channels.delete(voice);
    if (channel.queue.length > 0) this.#emit(channel.queue.length, [channel, ...this.#channels.values()]);
  }

  /** Pairs of left and right at the voice's own frequency. */
  play(voice: object, stereo: Int16Array): void {
    const channel = this.#channels.get(voice);
    if (channel === undefined) return;
    const fresh = channel.resampler.convert(stereo);
    const queue = new Int16Array(channel.queue.length + fresh.length);
    queue.set(channel.queue);
    queue.set(fresh, channel.queue.length);
    channel.queue = queue;
    const lengths = [...this.#channels.values()].map(each => each.queue.length);
    const ready = Math.max(Math.min(...lengths), Math.max(...lengths) - 2 * MAX_LAG);
    if (ready > 0) this.#emit(ready, [...this.#channels.values()]);
  }

  #emit(length: number, channels: readonly Channel[]): void {
    const sum = new Int32Array(length);
    for (const channel of channels) {
      const count = Math.min(length, channel.queue.length);
      for (let index = 0; index < count; index++) sum[index] = (sum[index] ?? 0) + (channel.queue[index] ?? 0);
      channel.queue = channel.queue.slice(count);
    }
    this.#out(Int16Array.from(sum, value => Math.max(-0x8000, Math.min(0x7fff, value))));
  }
}
