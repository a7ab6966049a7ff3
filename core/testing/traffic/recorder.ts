import type { Clock } from '../../clock/clock.ts';
import type { MemoryRegion } from '../../memory/memory-region.ts';
import type { Access, Traffic } from './traffic.ts';

/** Records what a guest or a test does to a region, as the bus sees it, until it is stopped. */
export class TrafficRecorder implements Traffic {
  readonly source: string;
  readonly accesses: Access[] = [];
  readonly #stop: () => void;

  constructor(region: MemoryRegion, clock: Clock, source: string = region.name) {
    this.source = source;
    const beganNs = clock.now();
    const note = (kind: Access['kind'], offset: number, size: number, value: number): void => {
      this.accesses.push({ kind, offset, size, value: value >>> 0, timeNs: clock.now() - beganNs });
    };
    this.#stop = region.interpose(inner => ({
      read(offset, size) {
        const value = inner.read(offset, size);
        note('read', offset, size, value);
        return value;
      },
      write(offset, size, value) {
        note('write', offset, size, value);
        inner.write(offset, size, value);
      },
    }));
  }

  stop(): this {
    this.#stop();
    return this;
  }
}
