import type { IoResult } from '../../core/block/backend.ts';
import { settleTransfers } from '../../core/block/host-transfer.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import type { ControllerMemory } from './memory.ts';
import { CompletionQueue, Request, SubmissionQueue } from './queues.ts';
import { COMMAND, COMPLETION, DNR, PENDING, STATUS } from './registers.ts';

const MAX_QUEUES = 0x1_0000;
const MAX_SAVED = 0x10_0000;
/** Requests that are kept for later ones. */
const POOL = 1024;

export const engineFields = {
  completionQueues: field.list(
    field.record({
      id: field.u16(),
      address: field.number(),
      size: field.u16(),
      vector: field.u16(),
      interrupts: field.bool(),
      head: field.u16(),
      tail: field.u16(),
      phase: field.u8(),
    }),
    MAX_QUEUES,
  ),
  submissionQueues: field.list(
    field.record({
      id: field.u16(),
      address: field.number(),
      size: field.u16(),
      completions: field.u16(),
      head: field.u16(),
      tail: field.u16(),
    }),
    MAX_QUEUES,
  ),
  /** Commands whose completions are not in the queue: ended ones in order, and those to begin again. */
  requests: field.list(
    field.record({
      queue: field.u16(),
      command: field.bytes(COMMAND.SIZE),
      ended: field.bool(),
      status: field.u16(),
      result: field.u32(),
    }),
    MAX_SAVED,
  ),
  /** The host has disabled the controller while the disk was busy. */
  stopping: field.bool(),
} as const;

type Saved = StateValues<typeof engineFields>;

export interface EngineHost {
  /** Carries out a command. Returns a status, or PENDING. */
  execute(request: Request): number;
  /** Entries have come to the queue. */
  posted(queue: CompletionQueue): void;
  /** The host has taken all entries, or the queue is gone. */
  emptied(): void;
  /** A queue is not in memory: the controller can do no more (section 9.5). */
  failed(): void;
  /** The disk has nothing more of a controller that was disabled. */
  stopped(): void;
}

/** The queues: takes commands from them, and puts completions in (NVMe 1.4, section 4). */
export class QueueEngine {
  readonly #host: EngineHost;
  readonly #memory: ControllerMemory;
  readonly completionQueues: (CompletionQueue | undefined)[] = [];
  readonly submissionQueues: (SubmissionQueue | undefined)[] = [];
  readonly #entry = new Uint8Array(COMPLETION.SIZE);
  readonly #entryView = new DataView(this.#entry.buffer);
  readonly #free: Request[] = [];
  /** Commands of a snapshot, which begin again when the machine goes on. */
  #again: Request[] = [];
  #underWay = 0;
  /** Grows with each reset: what was under way before is not for the host any more. */
  #epoch = 0;
  #failed = false;
  stopping = false;

  constructor(memory: ControllerMemory, host: EngineHost) {
    this.#memory = memory;
    this.#host = host;
  }

  // Creating and deleting queues

  createCompletionQueue(id: number, address: number, size: number, vector: number, interrupts: boolean): void {
    this.completionQueues[id] = new CompletionQueue(id, address, size, vector, interrupts);
  }

  createSubmissionQueue(id: number, address: number, size: number, completions: CompletionQueue): void {
    const queue = new SubmissionQueue(id, address, size, completions);
    this.submissionQueues[id] = queue;
    completions.feeders.push(queue);
  }

  deleteCompletionQueue(id: number): number {
    const queue = this.completionQueues[id];
    if (id === 0 || queue === undefined) return STATUS.INVALID_CQID | DNR;
    if (queue.feeders.length > 0) return STATUS.INVALID_QUEUE_DELETION;
    this.completionQueues[id] = undefined;
    this.#host.emptied();
    return STATUS.SUCCESS;
  }

  /** Ends when the disk has none of its commands any more. */
  deleteSubmissionQueue(request: Request, id: number): number {
    const queue = this.submissionQueues[id];
    if (id === 0 || queue === undefined || queue.deletion !== undefined) return STATUS.INVALID_QID | DNR;
    queue.deletion = request;
    if (queue.underWay > 0) return PENDING;
    this.#remove(queue);
    return STATUS.SUCCESS;
  }

  #remove(queue: SubmissionQueue): void {
    const { completions } = queue;
    this.#post(completions);
    for (let index = completions.waiting.length - 1; index >= 0; index--) {
      const request = completions.waiting[index];
      if (request?.queue !== queue) continue;
      completions.waiting.splice(index, 1);
      this.#release(request);
    }
    completions.feeders.splice(completions.feeders.indexOf(queue), 1);
    this.submissionQueues[queue.id] = undefined;
  }

  // Doorbells

  /** False where the value is none. */
  submitted(queue: SubmissionQueue, tail: number): boolean {
    if (tail >= queue.size) return false;
    queue.tail = tail;
    this.#run(queue);
    return true;
  }

  taken(queue: CompletionQueue, head: number): boolean {
    if (head >= queue.size) return false;
    queue.head = head;
    if (queue.waiting.length > 0) {
      this.#post(queue);
      this.#runFeeders(queue);
    }
    if (queue.empty) this.#host.emptied();
    return true;
  }

  // Commands

  #run(queue: SubmissionQueue): void {
    if (queue.active || this.stopping) return;
    queue.active = true;
    do {
      while (queue.ready && !this.#failed) {
        const request = this.#acquire(queue);
        if (!this.#memory.read(queue.address + queue.head * COMMAND.SIZE, request.bytes, 0, COMMAND.SIZE)) {
          this.#release(request);
          this.#fail();
          break;
        }
        queue.head = (queue.head + 1) % queue.size;
        const status = this.#host.execute(request);
        if (status === PENDING) continue;
        request.status = status;
        queue.completions.waiting.push(request);
      }
    } while (this.#post(queue.completions) && queue.ready);
    queue.active = false;
  }

  #runFeeders(queue: CompletionQueue): void {
    for (let index = 0; index < queue.feeders.length; index++) {
      const feeder = queue.feeders[index];
      if (feeder?.ready) this.#run(feeder);
    }
  }

  /** Ends a command that was {@link PENDING}. */
  complete(request: Request): void {
    const { queue } = request;
    queue.completions.waiting.push(request);
    if (queue.active) return;
    this.#post(queue.completions);
    this.#runFeeders(queue.completions);
  }

  /** Ends the command with what `finish` says, now or when there is a result. */
  await(request: Request, result: IoResult, finish: (request: Request, error: number) => number): number {
    if (typeof result === 'number') return finish(request, result);
    const epoch = this.#epoch;
    this.#underWay++;
    request.queue.underWay++;
    void result.then(error => {
      if (epoch === this.#epoch) this.#arrived(request, finish, error);
    });
    return PENDING;
  }

  #arrived(request: Request, finish: (request: Request, error: number) => number, error: number): void {
    const { queue } = request;
    this.#underWay--;
    queue.underWay--;
    if (this.stopping) {
      if (this.#underWay === 0) this.#finishStop();
      return;
    }
    request.status = finish(request, error);
    this.complete(request);
    const { deletion } = queue;
    if (deletion === undefined || queue.underWay > 0) return;
    this.#remove(queue);
    this.complete(deletion);
  }

  /** Puts completions in the queue while there is room. True where there were any. */
  #post(queue: CompletionQueue): boolean {
    const { waiting } = queue;
    let count = 0;
    while (count < waiting.length && !queue.full && !this.#failed) {
      const request = waiting[count];
      if (request === undefined) break;
      const view = this.#entryView;
      view.setUint32(COMPLETION.DW0, request.result, true);
      view.setUint32(COMPLETION.DW1, 0, true);
      view.setUint16(COMPLETION.SQHD, request.queue.head, true);
      view.setUint16(COMPLETION.SQID, request.queue.id, true);
      view.setUint16(COMPLETION.CID, request.cid, true);
      view.setUint16(COMPLETION.STATUS, (request.status << 1) | queue.phase, true);
      const at = queue.address + queue.tail * COMPLETION.SIZE;
      if (!this.#memory.write(at, this.#entry, 0, COMPLETION.SIZE)) {
        this.#fail();
        break;
      }
      queue.advance();
      this.#release(request);
      count++;
    }
    if (count === 0) return false;
    waiting.splice(0, count);
    this.#host.posted(queue);
    return true;
  }

  #fail(): void {
    this.#failed = true;
    this.#host.failed();
  }

  #acquire(queue: SubmissionQueue): Request {
    const request = this.#free.pop() ?? new Request(queue, this.#memory);
    request.queue = queue;
    request.status = STATUS.SUCCESS;
    request.result = 0;
    queue.outstanding.add(request);
    return request;
  }

  #release(request: Request): void {
    request.queue.outstanding.delete(request);
    if (this.#free.length < POOL) this.#free.push(request);
  }

  // Reset and state

  /** The host disables the controller: no command is taken, and {@link EngineHost.stopped} follows. */
  stop(): void {
    this.stopping = true;
    if (this.#underWay === 0) this.#finishStop();
  }

  #finishStop(): void {
    this.clear();
    this.#host.stopped();
  }

  /** All queues and commands are gone. */
  clear(): void {
    this.#epoch++;
    if (this.#underWay > 0) settleTransfers();
    this.#underWay = 0;
    this.#failed = false;
    this.stopping = false;
    this.#again = [];
    this.completionQueues.length = 0;
    this.submissionQueues.length = 0;
  }

  save(saved: Saved): void {
    saved.stopping = this.stopping;
    saved.completionQueues = present(this.completionQueues).map(
      ({ id, address, size, vector, interrupts, head, tail, phase }) => ({
        ...{ id, address, size, vector, interrupts, head, tail, phase },
      }),
    );
    const queues = present(this.submissionQueues);
    saved.submissionQueues = queues.map(({ id, address, size, completions, head, tail }) => ({
      ...{ id, address, size, completions: completions.id, head, tail },
    }));
    const waiting = present(this.completionQueues).flatMap(queue => queue.waiting);
    const ended = new Set(waiting);
    // Those of the admin queue last: one may delete a queue whose commands must begin again before that.
    const begun = queues
      .toReversed()
      .flatMap(({ outstanding }) => [...outstanding].filter(request => !ended.has(request)));
    saved.requests = [...waiting, ...begun].map(request => ({
      queue: request.queue.id,
      command: request.bytes.slice(),
      ended: ended.has(request),
      status: request.status,
      result: request.result,
    }));
  }

  /** Queues that do not fit together are left out. */
  restore(saved: Saved): void {
    this.clear();
    this.stopping = saved.stopping;
    for (const { id, address, size, vector, interrupts, head, tail, phase } of saved.completionQueues) {
      if (head >= size || tail >= size) continue;
      this.createCompletionQueue(id, address, size, vector, interrupts);
      Object.assign(this.completionQueues[id] ?? {}, { head, tail, phase: phase & 1 });
    }
    for (const { id, address, size, completions, head, tail } of saved.submissionQueues) {
      const queue = this.completionQueues[completions];
      if (queue === undefined || head >= size || tail >= size) continue;
      this.createSubmissionQueue(id, address, size, queue);
      Object.assign(this.submissionQueues[id] ?? {}, { head, tail });
    }
    for (const { queue: id, command, ended, status, result } of saved.requests) {
      const queue = this.submissionQueues[id];
      if (queue === undefined) continue;
      const request = this.#acquire(queue);
      request.bytes.set(command);
      request.status = status;
      request.result = result;
      if (ended) queue.completions.waiting.push(request);
      else this.#again.push(request);
    }
  }

  /** The machine goes on after a restore. */
  resume(): void {
    if (this.stopping && this.#underWay === 0) {
      this.#finishStop();
      return;
    }
    for (const request of this.#again.splice(0)) {
      request.status = STATUS.SUCCESS;
      request.result = 0;
      const status = this.#host.execute(request);
      if (status === PENDING) continue;
      request.status = status;
      this.complete(request);
    }
  }
}

const present = <T>(queues: readonly (T | undefined)[]): T[] =>
  queues.filter((queue): queue is NonNullable<typeof queue> => queue !== undefined);
