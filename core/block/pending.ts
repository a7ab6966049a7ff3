/**
 * A request that is done (`undefined`) or will be. What fails at once throws; what fails later rejects.
 *
 * Most requests of a guest hit the host's page cache and are over in two microseconds. A promise for each would cost as
 * much again, and its continuation would wait until the run loop lets the event loop turn, so requests that need no
 * waiting do not.
 */
export type Pending = Promise<void> | undefined;

/** A result that is there, or will be. */
export type Maybe<T> = T | Promise<T>;

/**
 * A routine that waits by yielding promises, and that runs to its end at once where it meets none: the block layer's
 * coroutine. `const p = node.readv(...); if (p) yield p;`
 */
export type Task<T = void> = Generator<Promise<unknown>, T, void>;

/** Runs a task up to its first wait. Done: undefined. */
export function start(task: Task): Pending {
  const step = task.next();
  return step.done === true ? undefined : drive(task, step.value);
}

/** Runs a task that has a result up to its first wait. */
export function startFor<T>(task: Task<T>): Maybe<T> {
  const step = task.next();
  return step.done === true ? step.value : drive(task, step.value);
}

async function drive<T>(task: Task<T>, waited: Promise<unknown>): Promise<T> {
  for (;;) {
    let failure: { readonly error: unknown } | undefined;
    try {
      await waited;
    } catch (error) {
      failure = { error };
    }
    const step: IteratorResult<Promise<unknown>, T> = failure === undefined ? task.next() : task.throw(failure.error);
    if (step.done === true) return step.value;
    waited = step.value;
  }
}

/** Waits, inside a task, for a result that may be there already. */
export function* settle<T>(result: Maybe<T>): Task<T> {
  if (!(result instanceof Promise)) return result;
  const arrived: { readonly value: T }[] = [];
  yield result.then(value => {
    arrived.push({ value });
  });
  for (const { value } of arrived) return value;
  throw new Error('the task was resumed before its result was there');
}

/** Waits, inside a task, for all of several requests, and then fails with the first failure if there was one. */
export function* all(requests: readonly Pending[]): Task {
  const waits = requests.filter(request => request !== undefined);
  if (waits.length === 0) return;
  yield Promise.allSettled(waits).then(results => {
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  });
}

/** One at a time, in order of arrival. */
export class Mutex {
  #locked = false;
  readonly #waiting: (() => void)[] = [];

  get locked(): boolean {
    return this.#locked;
  }

  lock(): Pending {
    if (!this.#locked) {
      this.#locked = true;
      return undefined;
    }
    return new Promise(resolve => {
      this.#waiting.push(resolve);
    });
  }

  unlock(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#locked = false;
    else next();
  }
}

/** Those who wait for something to happen. */
export class WaitQueue {
  #waiting: (() => void)[] = [];

  get empty(): boolean {
    return this.#waiting.length === 0;
  }

  wait(): Promise<void> {
    return new Promise(resolve => {
      this.#waiting.push(resolve);
    });
  }

  wakeAll(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }

  wakeOne(): void {
    this.#waiting.shift()?.();
  }
}
