import { performance } from 'node:perf_hooks';
import type { OnError } from '../backend.ts';
import type { ErrorAction, JobStatus, JobType } from '../events.ts';
import type { BlockGraph, Drainable } from '../graph.ts';
import { isWellFormedId } from '../identifier.ts';
import { BlockError, errno, errnoOf, errnoText, reason } from '../io-error.ts';
import { WaitQueue } from '../pending.ts';
import { JobTransaction } from './transaction.ts';

/** What all jobs are made with. */
export interface JobOptions {
  readonly id: string;
  /** Commits by itself once it is done. */
  readonly autoFinalize?: boolean;
  /** Is forgotten by itself once it has ended. */
  readonly autoDismiss?: boolean;
  /** Bytes a second; 0 for no limit. */
  readonly speed?: number;
  /** Other jobs that this one shares its fate with. */
  readonly transaction?: JobTransaction | undefined;
}

/** A job lets the event loop turn, and with it the guest, this often. */
const TURN_MS = 2;

/** Thrown inside a job to unwind it when it is cancelled. */
export class JobCancelled extends Error {}

const VERBS = {
  pause: ['created', 'running', 'ready', 'paused', 'standby'],
  resume: ['created', 'running', 'paused', 'ready', 'standby'],
  'set-speed': ['created', 'running', 'paused', 'ready', 'standby'],
  cancel: ['created', 'running', 'paused', 'ready', 'standby', 'waiting', 'pending'],
  complete: ['ready'],
  finalize: ['pending'],
  dismiss: ['concluded'],
} as const satisfies { readonly [verb: string]: readonly JobStatus[] };

export type JobVerb = keyof typeof VERBS;

/** Long work on block nodes that clients watch and steer. A subclass does the work in `work`, and makes it count in `commit`. */
export abstract class Job implements Drainable {
  readonly graph: BlockGraph;
  readonly id: string;
  abstract readonly type: JobType;
  /** Reported by BLOCK_JOB_* events and query-block-jobs. */
  readonly isBlockJob: boolean = true;
  readonly autoFinalize: boolean;
  readonly autoDismiss: boolean;
  speed: number;
  #status: JobStatus = 'undefined';
  offset = 0;
  total = 0;
  error: string | undefined;
  ioStatus: 'ok' | 'failed' | 'nospace' = 'ok';
  #pauses = 0;
  #userPaused = false;
  #parked = true;
  protected cancelled = false;
  /** The client wants a job that is ready to come to its end. */
  protected completing = false;
  #turned = 0;
  /** Ends the wait that the job is in. */
  #waker: () => void = () => {};
  readonly #quiet = new WaitQueue();
  readonly #transaction: JobTransaction;
  #finished: Promise<void> = Promise.resolve();
  onEnd: () => void = () => {};

  constructor(graph: BlockGraph, options: JobOptions) {
    this.graph = graph;
    this.id = options.id;
    this.autoFinalize = options.autoFinalize ?? true;
    this.autoDismiss = options.autoDismiss ?? true;
    this.speed = options.speed ?? 0;
    // A job by itself is a transaction of one.
    this.#transaction = options.transaction ?? new JobTransaction();
    if (options.transaction === undefined) this.#transaction.seal();
  }

  get description(): string {
    return `${this.type} job '${this.id}'`;
  }

  get status(): JobStatus {
    return this.#status;
  }

  get paused(): boolean {
    return this.#pauses > 0 || this.#userPaused;
  }

  get ready(): boolean {
    return this.#status === 'ready' || this.#status === 'standby';
  }

  get busy(): boolean {
    return !this.#parked;
  }

  /** Waits for the end. */
  get finished(): Promise<void> {
    return this.#finished;
  }

  #become(status: JobStatus): void {
    if (this.#status === status) return;
    this.#status = status;
    this.graph.emit({ event: 'JOB_STATUS_CHANGE', id: this.id, status });
  }

  /** The work itself: throws where it fails, {@link JobCancelled} where it was cancelled. */
  protected abstract work(): Promise<void>;
  /** Makes the work count. */
  protected async commit(): Promise<void> {}
  /** Undoes what was set up, after failure and cancellation. */
  protected async abort(): Promise<void> {}
  /** Lets go of everything, in any case. */
  protected async clean(): Promise<void> {}

  created(): void {
    this.#become('created');
  }

  /** What the job needs could not be had: it never runs. */
  protected earlyFail(): void {
    if (this.#status === 'created') this.#become('null');
  }

  start(): void {
    this.#transaction.join(this);
    this.graph.drainables.add(this);
    this.#become('running');
    this.#parked = false;
    this.#finished = this.#run();
  }

  async #run(): Promise<void> {
    let failure: unknown;
    try {
      await this.pausePoint();
      await this.work();
      if (this.cancelled) throw new JobCancelled();
      this.#park();
      this.#become('waiting');
      this.#transaction.done(this);
      await this.#until(() => this.#transaction.allDone);
      this.#become('pending');
      if (!this.autoFinalize && this.isBlockJob)
        this.graph.emit({ event: 'BLOCK_JOB_PENDING', type: this.type, id: this.id });
      await this.#until(() => this.#transaction.finalized);
      await this.commit();
    } catch (error) {
      failure = error;
      this.#transaction.failed(this);
      this.#park();
      this.#become('aborting');
      await this.abort().catch(() => {});
    }
    this.graph.drainables.delete(this);
    await this.clean().catch(() => {});
    this.#end(failure);
  }

  /** @throws JobCancelled where the job is to end instead */
  async #until(reached: () => boolean): Promise<void> {
    while (!reached() && !this.cancelled) await this.#transaction.changed();
    if (this.cancelled) throw new JobCancelled();
  }

  #end(failure: unknown): void {
    const cancelled = failure instanceof JobCancelled;
    if (failure !== undefined) this.error = cancelled ? errnoText(errno.ECANCELED) : reason(failure);
    if (this.isBlockJob) {
      this.graph.emit({
        event: cancelled ? 'BLOCK_JOB_CANCELLED' : 'BLOCK_JOB_COMPLETED',
        type: this.type,
        device: this.id,
        len: this.total,
        offset: this.offset,
        speed: this.speed,
        ...(this.error !== undefined && !cancelled && { error: this.error }),
      });
    }
    this.#become('concluded');
    if (this.autoDismiss) this.#gone();
  }

  #gone(): void {
    this.#become('null');
    this.onEnd();
  }

  /** Says that the work has caught up, and that the client may let it end. */
  protected becomeReady(): void {
    if (this.ready) return;
    this.#become('ready');
    this.graph.emit({
      event: 'BLOCK_JOB_READY',
      type: this.type,
      device: this.id,
      len: this.total,
      offset: this.offset,
      speed: this.speed,
    });
  }

  #park(): void {
    this.#parked = true;
    this.#quiet.wakeAll();
  }

  /**
   * To be called between pieces of work, with no request under way: lets the event loop turn, and waits while paused.
   *
   * @throws JobCancelled where the job is to end
   */
  protected async pausePoint(): Promise<void> {
    const now = performance.now();
    if (now - this.#turned > TURN_MS) {
      await new Promise<void>(resolve => setImmediate(resolve));
      this.#turned = performance.now();
    }
    while (this.paused && !this.cancelled) {
      const wasReady = this.ready;
      this.#become(wasReady ? 'standby' : 'paused');
      this.#park();
      await new Promise<void>(resolve => {
        this.#waker = resolve;
      });
      this.#parked = false;
      if (!this.paused) this.#become(wasReady ? 'ready' : 'running');
    }
    if (this.cancelled) throw new JobCancelled();
  }

  /** Waits, but not beyond a pause or the end of the job. */
  protected async sleep(ms: number): Promise<void> {
    // Cancelled while its last request was under way: nobody wakes it again.
    if (this.cancelled) throw new JobCancelled();
    this.#park();
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>(resolve => {
      this.#waker = resolve;
      timer = setTimeout(resolve, ms);
    });
    clearTimeout(timer);
    this.#parked = false;
    await this.pausePoint();
  }

  /** Counts `bytes` bytes as done, and keeps to the speed. */
  protected async worked(bytes: number): Promise<void> {
    this.offset += bytes;
    if (this.speed > 0) await this.sleep((bytes / this.speed) * 1000);
    else await this.pausePoint();
  }

  /**
   * Does what `on-error` says about a failed request.
   *
   * @returns ignore: go on without it; stop: the job was paused, try again; report: fail
   */
  protected async failedRequest(operation: 'read' | 'write', error: unknown, policy: OnError): Promise<ErrorAction> {
    const number = errnoOf(error);
    const stop = policy === 'stop' || ((policy === 'enospc' || policy === 'auto') && number === errno.ENOSPC);
    const action: ErrorAction = stop ? 'stop' : policy === 'ignore' ? 'ignore' : 'report';
    this.graph.emit({ event: 'BLOCK_JOB_ERROR', device: this.id, operation, action });
    if (action === 'stop') {
      this.ioStatus = number === errno.ENOSPC ? 'nospace' : 'failed';
      this.#userPaused = true;
      await this.pausePoint();
    }
    return action;
  }

  #check(verb: JobVerb): void {
    const allowed: readonly JobStatus[] = VERBS[verb];
    if (allowed.includes(this.#status)) return;
    throw new BlockError(`Job '${this.id}' in state '${this.#status}' cannot accept command verb '${verb}'`);
  }

  // The client's verbs

  pause(): void {
    this.#check('pause');
    if (this.#userPaused) throw new BlockError('Job is already paused');
    this.#userPaused = true;
    this.#waker();
  }

  resume(): void {
    this.#check('resume');
    if (!this.#userPaused) throw new BlockError("Can't resume a job that was not paused");
    this.#userPaused = false;
    this.ioStatus = 'ok';
    this.#waker();
  }

  setSpeed(speed: number): void {
    this.#check('set-speed');
    if (speed < 0) throw new BlockError("Parameter 'speed' expects a non-negative value");
    this.speed = speed;
    this.#waker();
  }

  cancel(_force: boolean): void {
    this.#check('cancel');
    this.cancelled = true;
    this.#userPaused = false;
    this.#waker();
    this.#transaction.wake();
  }

  giveUp(): void {
    const allowed: readonly JobStatus[] = VERBS.cancel;
    if (allowed.includes(this.#status)) this.cancel(true);
  }

  driveGone(): void {
    const allowed: readonly JobStatus[] = VERBS.cancel;
    if (allowed.includes(this.#status)) this.cancel(false);
  }

  complete(): void {
    this.#check('complete');
    if (this.paused || this.cancelled) throw new BlockError(`The active block job '${this.id}' cannot be completed`);
    this.completing = true;
    this.#waker();
  }

  finalize(): void {
    this.#check('finalize');
    this.#transaction.finalize();
  }

  dismiss(): void {
    this.#check('dismiss');
    this.#gone();
  }

  // Drainable

  async quiesce(): Promise<void> {
    this.#pauses++;
    this.#waker();
    while (!this.#parked) await this.#quiet.wait();
  }

  unquiesce(): void {
    this.#pauses--;
    if (this.#pauses === 0) this.#waker();
  }
}

/** The jobs of a process, by id. */
export class Jobs {
  readonly graph: BlockGraph;
  readonly #jobs = new Map<string, Job>();

  constructor(graph: BlockGraph) {
    this.graph = graph;
    graph.endJobs = () => this.cancelAll();
  }

  [Symbol.iterator](): Iterator<Job> {
    return this.#jobs.values();
  }

  /** Checks an id before anything is set up for a job. */
  checkId(id: string): void {
    if (!isWellFormedId(id) && !id.startsWith('#')) throw new BlockError(`Invalid job ID '${id}'`);
    if (this.#jobs.has(id)) throw new BlockError(`Job ID '${id}' already in use`);
  }

  /** Takes a job on and starts it. */
  add<J extends Job>(job: J): J {
    this.#jobs.set(job.id, job);
    job.onEnd = () => this.#jobs.delete(job.id);
    job.created();
    job.start();
    return job;
  }

  get(id: string): Job {
    const job = this.#jobs.get(id);
    if (job === undefined) throw new BlockError('Job not found', { code: 'ERR_JOB_NOT_FOUND' });
    return job;
  }

  /** A block job, as the older commands name it. */
  blockJob(id: string): Job {
    const job = this.#jobs.get(id);
    if (job === undefined || !job.isBlockJob) {
      throw new BlockError(`Block job '${id}' not found`, { code: 'ERR_DEVICE_NOT_ACTIVE' });
    }
    return job;
  }

  /** Cancels all, and waits for them to end. */
  async cancelAll(): Promise<void> {
    const ending = [...this.#jobs.values()].map(job => {
      try {
        job.cancel(true);
      } catch {
        // It is over already, and only waits to be dismissed.
      }
      return job.finished;
    });
    await Promise.all(ending);
  }
}
