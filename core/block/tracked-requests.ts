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

  /** Whether any request is under way. */
  get busy(): boolean {
    return this.#requests.size > 0;
  }

  /** Waits for what is under way there now. */
  async settled(offset: number, bytes: number): Promise<void> {
    const inTheWay = [...this.#requests].filter(other => other.offset < offset + bytes && offset < other.end);
    await Promise.all(inTheWay.map(other => other.done));
  }

  /** Runs `request` with nothing that overlaps under way: at once where nothing is. */
  serialise(offset: number, bytes: number, request: () => Pending): Pending {
    const tracked = this.#add(offset, bytes, true);
    this.#serialising++;
    let running: Pending;
    try {
      running =
        this.#blocker(offset, offset + bytes, tracked) === undefined
          ? request()
          : this.#waitFor(offset, offset + bytes, tracked).then(request);
    } catch (error) {
      this.#serialised(tracked);
      throw error;
    }
    if (running !== undefined) return running.finally(() => this.#serialised(tracked));
    this.#serialised(tracked);
    return undefined;
  }

  #serialised(tracked: Tracked): void {
    this.#serialising--;
    this.#remove(tracked);
  }

  async #waitFor(offset: number, end: number, self: Tracked | undefined): Promise<void> {
    for (let other = this.#blocker(offset, end, self); other !== undefined; other = this.#blocker(offset, end, self)) {
      await other.done;
    }
  }

  #blocker(offset: number, end: number, self: Tracked | undefined): Tracked | undefined {
    for (const other of this.#requests) {
      // Only those before us are waited for: two that wait for each other would never end.
      if (other === self) return undefined;
      if ((self !== undefined || other.serialising) && other.offset < end && offset < other.end) return other;
    }
    return undefined;
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
