import { WaitQueue } from '../pending.ts';

/** What a transaction asks of its jobs. */
export interface TransactionJob {
  readonly autoFinalize: boolean;
  /** Ends it, whatever it is about; nothing happens where it has ended. */
  giveUp(): void;
}

/**
 * Jobs that count together or not at all (`completion-mode=grouped`): none commits before the work of all is done, and where one
 * fails the others are cancelled.
 */
export class JobTransaction {
  readonly #jobs = new Set<TransactionJob>();
  readonly #done = new Set<TransactionJob>();
  readonly #changed = new WaitQueue();
  #sealed = false;
  #finalized = false;

  join(job: TransactionJob): void {
    this.#jobs.add(job);
  }

  /** No more jobs will join. */
  seal(): void {
    this.#sealed = true;
    this.#changed.wakeAll();
  }

  /** The work of `job` is done. */
  done(job: TransactionJob): void {
    this.#done.add(job);
    this.#changed.wakeAll();
  }

  /** `job` has failed or was cancelled: so have they all. */
  failed(job: TransactionJob): void {
    this.#jobs.delete(job);
    for (const other of [...this.#jobs]) {
      this.#jobs.delete(other);
      other.giveUp();
    }
    this.#changed.wakeAll();
  }

  get allDone(): boolean {
    return this.#sealed && this.#done.size === this.#jobs.size;
  }

  /** All may commit: by themselves, or because the client has said so of one of them. */
  get finalized(): boolean {
    return this.#finalized || [...this.#jobs].every(({ autoFinalize }) => autoFinalize);
  }

  finalize(): void {
    this.#finalized = true;
    this.#changed.wakeAll();
  }

  /** Waits until something changes. */
  changed(): Promise<void> {
    return this.#changed.wait();
  }

  wake(): void {
    this.#changed.wakeAll();
  }
}
