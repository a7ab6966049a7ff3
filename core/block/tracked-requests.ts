import type { Pending } from './pending.ts';

interface Tracked {
  readonly offset: number;
  readonly end: number;
  readonly serialising: boolean;
  readonly done: Promise<void>;
  readonly finish: () => void;
}

/**
 * The requests of a node that are under way. A serialising one (copy on read, read-modify-write) waits until nothing
 * that overlaps is under way, and what overlaps waits for it.
 */
export class TrackedRequests {
  readonly #requests = new Set<Tracked>();
  #serialising = 0;

  /** Whether a new ordinary request has nothing to wait for. */
  get idle(): boolean {
    return this.#serialising === 0;
  }

  /** Waits for serialising requests in the way of an ordinary one. */
  wait(offset: number, bytes: number): Pending {
    return this.#serialising === 0 ? undefined : this.#waitFor(offset, offset + bytes, undefined);
  }

  /** Notes an ordinary request until its promise settles. */
  note(offset: number, bytes: number, request: Promise<void>): Promise<void> {
    const tracked = this.#add(offset, bytes, false);
    return request.finally(() => this.#remove(tracked));
  }

  /** Runs `request` with nothing that overlaps under way. */
  async serialise(offset: number, bytes: number, request: () => Pending): Promise<void> {
    const tracked = this.#add(offset, bytes, true);
    this.#serialising++;
    try {
      await this.#waitFor(offset, offset + bytes, tracked);
      await request();
    } finally {
      this.#serialising--;
      this.#remove(tracked);
    }
  }

  async #waitFor(offset: number, end: number, self: Tracked | undefined): Promise<void> {
    for (;;) {
      let blocker: Tracked | undefined;
      for (const other of this.#requests) {
        // Only those before us are waited for: two that wait for each other would never end.
        if (other === self) break;
        if ((self !== undefined || other.serialising) && other.offset < end && offset < other.end) blocker = other;
      }
      if (blocker === undefined) return;
      await blocker.done;
    }
  }

  #add(offset: number, bytes: number, serialising: boolean): Tracked {
    const { promise, resolve } = deferred();
    const tracked = { offset, end: offset + bytes, serialising, done: promise, finish: resolve };
    this.#requests.add(tracked);
    return tracked;
  }

  #remove(tracked: Tracked): void {
    this.#requests.delete(tracked);
    tracked.finish();
  }
}

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve = (): void => {};
  const promise = new Promise<void>(done => {
    resolve = done;
  });
  return { promise, resolve };
}
