import type { IoVector } from '../block/io-vector.ts';
import { field, type StateValues } from '../state/fields.ts';
import { CDB_BYTES, type ScsiCommand, STATUS } from './command.ts';
import type { ScsiDevice } from './scsi-device.ts';
import { SENSE, type Sense } from './sense.ts';

/** The data is in the bytes of `vector` from `start` on. */
export interface InitiatorMemory {
  readonly vector: IoVector;
  readonly start: number;
}

/** What a host adapter has to do with one of its commands: it moves the data, and hears of the end. */
export interface ScsiTask {
  /**
   * `length` bytes of {@link ScsiRequest.buffer} are to be moved: to the initiator's memory, or from it. Call
   * {@link ScsiRequest.continue} when they have been; that may be at once.
   */
  transfer(request: ScsiRequest, length: number): void;
  /** {@link ScsiRequest.status} and {@link ScsiRequest.residual} say how the command ended. */
  complete(request: ScsiRequest): void;
  /** The command was taken away from the device: by a reset or by {@link ScsiRequest.cancel}. */
  cancelled(request: ScsiRequest): void;
  /**
   * The initiator's memory for all of the data, if it can be read and written in place until the end of the command: blocks
   * then go there without a copy. Only commands that move nothing but blocks ask for it.
   */
  memory?(): InitiatorMemory | undefined;
}

/** A piece of data that a device moves at once, at most, where it goes through a buffer. */
export const CHUNK = 0x2_0000;

const progress = field.record({
  /** Where the rest of the data is on the medium, and how many bytes it has. */
  position: field.number(),
  left: field.number(),
  /** Bytes of the buffer that are offered to the initiator, or asked from it. */
  offered: field.u32(),
  started: field.bool(),
  buffer: field.buffer(CHUNK),
});

export const requestFields = {
  cdb: field.bytes(CDB_BYTES),
  tag: field.u32(),
  lun: field.u32(),
  retry: field.bool(),
  residual: field.number(),
  progress,
} as const;

const EMPTY = new Uint8Array(0);

/**
 * A command on its way through a device: sent, data phases in pieces, status (SAM-4, section 5). One object a command; its
 * data goes through a buffer of the device's, or without one where the initiator has {@link ScsiTask.memory}.
 */
export abstract class ScsiRequest {
  readonly device: ScsiDevice;
  readonly tag: number;
  readonly lun: number;
  readonly command: ScsiCommand;
  task: ScsiTask;
  /** -1 until the command has ended. */
  status = -1;
  sense: Sense | undefined;
  /** Bytes of the command's data that were not moved. */
  residual: number;
  /** The data that {@link ScsiTask.transfer} is about. */
  buffer: Uint8Array = EMPTY;
  /** It waits for the machine to go on, to be tried again. */
  retry = false;
  /** The block layer works on it. */
  inFlight = false;
  cancelled = false;
  enqueued = false;
  protected position = 0;
  protected left = 0;
  protected offered = 0;
  protected started = false;
  #stepping = false;
  #again = false;
  #watchers: (() => void)[] | undefined;

  constructor(device: ScsiDevice, tag: number, lun: number, command: ScsiCommand, task: ScsiTask) {
    this.device = device;
    this.tag = tag;
    this.lun = lun;
    this.command = command;
    this.task = task;
    this.residual = command.transfer;
  }

  /** Carries the command out up to its data, if it has any. Returns how much: positive from the device, negative to it. */
  protected abstract send(): number;

  /** Brings the next piece of the data, with {@link offer}, or ends the command. */
  protected abstract readData(): void;

  /** Uses the piece of data that has arrived; asks for the next with {@link offer}, or ends the command. */
  protected abstract writeData(): void;

  /** Whether a unit attention is what the command ended with. */
  get reportsAttention(): boolean {
    return false;
  }

  /**
   * Gives the command to the device. Where the result is not 0, go on with {@link continue}.
   *
   * @returns bytes of data that are to be expected: positive from the device, negative to it
   */
  enqueue(): number {
    this.device.enqueued(this);
    return this.send();
  }

  /** The piece of data has been moved; the device goes on. */
  continue(): void {
    if (this.cancelled || this.status !== -1) return;
    if (this.#stepping) {
      this.#again = true;
      return;
    }
    this.#stepping = true;
    do {
      this.#again = false;
      if (this.command.direction === 'out') this.writeData();
      else this.readData();
    } while (this.#again && !this.cancelled && this.status === -1);
    this.#stepping = false;
  }

  /** Has the initiator move `length` bytes of the buffer. */
  protected offer(length: number): void {
    if (this.cancelled) return;
    this.residual -= length;
    this.offered = length;
    this.task.transfer(this, length);
  }

  /** The command is over. */
  complete(status: number): void {
    if (this.status !== -1 || this.cancelled) return;
    this.status = status;
    if (status === STATUS.GOOD) this.sense = undefined;
    this.device.completed(this);
    this.task.complete(this);
    this.#gone();
  }

  /** The command is over, and `sense` says why. */
  checkCondition(sense: Sense): void {
    this.sense = sense;
    this.complete(STATUS.CHECK_CONDITION);
  }

  /** The sense data that goes to the initiator with the status; a unit attention is thereby reported. */
  takeSense(): Sense {
    const sense = this.sense ?? SENSE.NONE;
    this.device.senseTaken();
    return sense;
  }

  /** Takes the command away from the device. `done` is called when nothing of it goes on any more. */
  cancel(done?: () => void): void {
    if (!this.enqueued) {
      done?.();
      return;
    }
    if (done !== undefined) this.onGone(done);
    this.device.dequeued(this);
    this.cancelled = true;
    // What the block layer has begun cannot be stopped; it ends, and nobody hears of it.
    if (!this.inFlight) this.#cancelComplete();
  }

  /** Calls `listener` when the command has ended, or its cancellation. */
  onGone(listener: () => void): void {
    this.#watchers ??= [];
    this.#watchers.push(listener);
  }

  /** The block layer has finished; true where that was for nothing. */
  protected landed(): boolean {
    this.inFlight = false;
    if (this.cancelled) this.#cancelComplete();
    return this.cancelled;
  }

  #cancelComplete(): void {
    this.task.cancelled(this);
    this.#gone();
  }

  #gone(): void {
    this.device.releaseBuffer(this);
    const watchers = this.#watchers;
    this.#watchers = undefined;
    if (watchers !== undefined) for (const watcher of watchers) watcher();
  }

  /** The machine goes on: what failed is tried again. */
  restart(): void {
    this.retry = false;
    if (this.command.direction !== 'none') {
      this.continue();
      return;
    }
    this.device.dequeued(this);
    this.enqueue();
  }

  /** Bytes of the piece that the initiator is moving. */
  get offeredBytes(): number {
    return this.offered;
  }

  save(): StateValues<typeof requestFields> {
    const { position, left, offered, started } = this;
    const used =
      this.command.direction === 'none' ? 0 : Math.min(this.buffer.length, Math.max(offered, this.bufferUse));
    return {
      cdb: this.command.bytes,
      tag: this.tag,
      lun: this.lun,
      retry: this.retry || this.inFlight,
      residual: this.residual,
      progress: { position, left, offered, started, buffer: this.buffer.subarray(0, used) },
    };
  }

  /** Bytes of the buffer that matter after a restore. */
  protected get bufferUse(): number {
    return this.offered;
  }

  restoreProgress(saved: StateValues<typeof requestFields>): void {
    const { position, left, offered, started, buffer } = saved.progress;
    this.position = position;
    this.left = left;
    this.offered = Math.min(offered, buffer.length);
    this.started = started;
    this.retry = saved.retry;
    this.residual = saved.residual;
    if (buffer.length > 0 && this.command.direction !== 'none') {
      this.device.takeBuffer(this);
      this.buffer.set(buffer.subarray(0, this.buffer.length));
    }
  }
}

/** Commands that end before they have begun: not known, or a unit attention is to be told first. */
export class RefusedRequest extends ScsiRequest {
  readonly #attention: boolean;

  constructor(sense: Sense, attention: boolean, ...parts: ConstructorParameters<typeof ScsiRequest>) {
    super(...parts);
    this.sense = sense;
    this.#attention = attention;
  }

  override get reportsAttention(): boolean {
    return this.#attention;
  }

  protected override send(): number {
    this.complete(STATUS.CHECK_CONDITION);
    return 0;
  }

  protected override readData(): void {
    this.complete(STATUS.CHECK_CONDITION);
  }

  protected override writeData(): void {
    this.complete(STATUS.CHECK_CONDITION);
  }
}
