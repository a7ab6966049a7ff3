import type { BlockDriver, OpenContext } from '../driver.ts';
import type { BlockGraph } from '../graph.ts';
import { IoVector } from '../io-vector.ts';
import { all, type Pending, settle, start, type Task } from '../pending.ts';
import { type Permissions, perm } from '../permissions.ts';
import { type NodeSettings, writeFlag } from '../requests.ts';
import { TrackedRequests } from '../tracked-requests.ts';
import { FilterNode } from './filter-node.ts';

/** No more than this is copied at once, in bytes. */
const COPY_LIMIT = 1 << 20;

/** Writes what had to be fetched from the backing files into the image, so that it is there the next time. */
export class CopyOnReadNode extends FilterNode {
  readonly copying = new TrackedRequests();

  constructor(graph: BlockGraph, settings: NodeSettings) {
    super(graph, copyOnReadDriver, settings);
  }

  protected override pread(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    return start(this.#read(offset, bytes, iov, at));
  }

  *#read(offset: number, bytes: number, iov: IoVector, at: number): Task {
    const parts: Pending[] = [];
    for (let done = 0; done < bytes; ) {
      const status = yield* settle(this.below.status(offset + done, bytes - done));
      const size = Math.min(status.bytes, bytes - done, status.allocated ? bytes : COPY_LIMIT);
      if (status.allocated) parts.push(this.below.readv(offset + done, size, iov, at + done));
      else {
        const copying = this.#copy(offset + done, size, iov, at + done);
        if (copying) yield copying;
      }
      done += size;
    }
    yield* all(parts);
  }

  #copy(offset: number, bytes: number, iov: IoVector, at: number): Pending {
    const cluster = this.below.withoutFilters.clusterSize;
    const from = offset - (offset % cluster);
    const end = Math.min(this.length, Math.ceil((offset + bytes) / cluster) * cluster);
    return this.copying.serialise(from, end - from, () => start(this.#copyClusters(from, end, offset, bytes, iov, at)));
  }

  *#copyClusters(from: number, end: number, offset: number, bytes: number, iov: IoVector, at: number): Task {
    const bounce = new Uint8Array(end - from);
    const flat = IoVector.of(bounce);
    const reading = this.below.readv(from, bounce.length, flat);
    if (reading) yield reading;
    for (let done = from; done < end; ) {
      // What was written meanwhile is newer than what we have read.
      const status = yield* settle(this.below.status(done, end - done));
      if (!status.allocated) {
        const zero = status.zero || flat.isZero(done - from, status.bytes);
        const writing = zero
          ? this.below.writeZeroes(done, status.bytes, writeFlag.UNCHANGED)
          : this.below.writev(done, status.bytes, flat, done - from, writeFlag.UNCHANGED);
        if (writing) yield writing;
      }
      done += status.bytes;
    }
    iov.scatter(at, bounce, offset - from, bytes);
  }

  protected override pwrite(offset: number, bytes: number, iov: IoVector, at: number, flags: number): Pending {
    const waiting = this.copying.wait(offset, bytes);
    return waiting === undefined
      ? super.pwrite(offset, bytes, iov, at, flags)
      : waiting.then(() => super.pwrite(offset, bytes, iov, at, flags));
  }

  override childPermissions(_name: string, needed: number, shared: number): Permissions {
    return { perm: needed | perm.CONSISTENT_READ | perm.WRITE_UNCHANGED, shared: shared | perm.WRITE_UNCHANGED };
  }
}

export const copyOnReadDriver: BlockDriver = {
  name: 'copy-on-read',
  kind: 'filter',
  async open(context: OpenContext) {
    context.options.string('bottom');
    const file = await context.child('file');
    context.followReadOnly(file);
    const node = new CopyOnReadNode(context.graph, context.settings);
    node.attach('file', file);
    return node;
  },
};
