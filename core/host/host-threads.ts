import { hostCalls, type NativeStandInThread } from './calls.ts';

const FOLLOW_MS = 1000;

/**
 * Threads for management tools, which want one for each CPU and each iothread and bind it to host CPUs. Here one thread does all
 * of that work, and it is the process's first, which tools take for the whole program; so others that do nothing stand for it.
 */
export class HostThreads {
  readonly #threads = new Map<string, NativeStandInThread>();
  #leader: NativeStandInThread | undefined;
  #following: NodeJS.Timeout | undefined;

  /** The kernel's number of the thread called `name`; this process's where the addon is missing. */
  idOf(name: string): number {
    try {
      const known = this.#threads.get(name);
      if (known !== undefined) return known.id;
      const thread = new (hostCalls().StandInThread)(name);
      this.#threads.set(name, thread);
      return thread.id;
    } catch {
      return process.pid;
    }
  }

  /** The thread that owns the devices runs where `name` is bound to, from now on. */
  follow(name: string): void {
    this.#leader ??= this.#threads.get(name);
    this.#following ??= setInterval(() => this.#follow(), FOLLOW_MS).unref();
  }

  #follow(): void {
    try {
      this.#leader?.follow();
    } catch {
      // A sandbox may forbid it.
      clearInterval(this.#following);
    }
  }

  /** Ends the thread called `name`. */
  end(name: string): void {
    this.#threads.get(name)?.close();
    this.#threads.delete(name);
  }

  dispose(): void {
    clearInterval(this.#following);
    this.#leader = undefined;
    for (const name of [...this.#threads.keys()]) this.end(name);
  }
}
