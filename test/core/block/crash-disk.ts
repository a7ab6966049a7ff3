import type { BlockDriver } from '../../../core/block/driver.ts';
import type { BlockGraph } from '../../../core/block/graph.ts';
import type { IoVector } from '../../../core/block/io-vector.ts';
import { BlockNode } from '../../../core/block/node.ts';
import type { Pending } from '../../../core/block/pending.ts';
import type { NodeSettings } from '../../../core/block/requests.ts';

type Operation =
  | { readonly kind: 'write'; readonly offset: number; readonly data: Buffer }
  | { readonly kind: 'discard'; readonly offset: number; readonly bytes: number }
  | { readonly kind: 'truncate'; readonly size: number }
  | { readonly kind: 'flush' };

/** A disk in memory that remembers all that was done to it, to be looked at as it might be after the power failed. */
export class CrashDisk extends BlockNode {
  readonly log: Operation[] = [];
  #content: Buffer;
  #size: number;

  constructor(graph: BlockGraph, settings: NodeSettings, content: Buffer) {
    super(graph, crashDriver, settings);
    this.#content = Buffer.alloc(16 << 20);
    content.copy(this.#content);
    this.#size = content.length;
    this.log.push({ kind: 'write', offset: 0, data: Buffer.from(content) }, { kind: 'flush' });
  }

  override get length(): number {
    return Math.ceil(this.#size / 512) * 512;
  }

  protected override pread(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    iov.scatter(at, this.#content, offset, bytes);
    return undefined;
  }

  // Some writes take their time, so that requests overlap.
  protected override pwrite(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    const data = Buffer.alloc(bytes);
    iov.gather(at, data, 0, bytes);
    const done = (): void => {
      this.log.push({ kind: 'write', offset, data });
      data.copy(this.#content, offset);
      this.#size = Math.max(this.#size, offset + bytes);
    };
    if ((offset / 512 + this.log.length) % 3 === 0) return new Promise(resolve => setImmediate(() => resolve(done())));
    done();
    return undefined;
  }

  protected override pdiscard(offset: number, bytes: number): Pending {
    this.log.push({ kind: 'discard', offset, bytes });
    this.#content.fill(0, offset, offset + bytes);
    return undefined;
  }

  protected override ptruncate(size: number): Pending {
    this.log.push({ kind: 'truncate', size });
    if (size < this.#size) this.#content.fill(0, size, this.#size);
    this.#size = size;
    return undefined;
  }

  protected override flushToDisk(): Pending {
    return new Promise(resolve =>
      setImmediate(() => {
        this.log.push({ kind: 'flush' });
        resolve();
      }),
    );
  }

  /**
   * What may be on the disk if the power fails after `end` operations: all up to the last flush, and of what followed
   * any part, in whole sectors.
   */
  after(end: number, random: (below: number) => number): Buffer {
    let flushed = end;
    while (flushed > 0 && this.log[flushed - 1]?.kind !== 'flush') flushed--;
    const disk = Buffer.alloc(16 << 20);
    let size = 0;
    const chance = random(4);
    for (const [index, operation] of this.log.slice(0, end).entries()) {
      if (operation.kind === 'write') {
        const { offset, data } = operation;
        for (let at = 0; at < data.length; at += 512) {
          // Small writes of tables are torn between sectors, but not within.
          if (index >= flushed && random(4) < chance) continue;
          const part = data.subarray(at, at + 512);
          part.copy(disk, offset + at);
          size = Math.max(size, offset + at + part.length);
        }
      } else if (operation.kind === 'discard') {
        if (index < flushed || random(2) === 0) disk.fill(0, operation.offset, operation.offset + operation.bytes);
      } else if (operation.kind === 'truncate') {
        if (index < flushed || random(2) === 0) {
          if (operation.size < size) disk.fill(0, operation.size, size);
          size = operation.size;
        }
      }
    }
    return Buffer.from(disk.subarray(0, size));
  }
}

export const crashDriver: BlockDriver = {
  name: 'crash-disk',
  kind: 'protocol',
  open: () => Promise.reject(new Error('made by the test')),
};
