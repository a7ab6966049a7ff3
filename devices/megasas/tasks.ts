import { STATUS as SCSI_STATUS } from '../../core/scsi/command.ts';
import type { ScsiDevice } from '../../core/scsi/scsi-device.ts';
import type { InitiatorMemory, ScsiRequest, ScsiTask } from '../../core/scsi/scsi-request.ts';
import { field } from '../../core/state/fields.ts';
import type { ScatterList } from '../ide/scatter-list.ts';
import type { Frame } from './frame.ts';
import { STATUS } from './registers.ts';

/** Of a frame that is under way. */
export const taskFields = {
  address: field.number(),
  moved: field.u32(),
  contextLow: field.u32(),
  contextHigh: field.u32(),
} as const;

/** What becomes of a frame whose command has ended. */
export interface FrameOwner {
  finish(frame: Frame, status: number): void;
}

/** A frame that carries a command for a drive: it moves the data and the status (LD_READ, LD_WRITE, LD_SCSI, PD_SCSI). */
export class DriveTask implements ScsiTask {
  readonly frame: Frame;
  readonly #list: ScatterList;
  readonly #owner: FrameOwner;
  #request: ScsiRequest | undefined;
  #begun: 'in' | 'out' | undefined;
  /** Bytes that went through a buffer. */
  moved: number;
  /** The adapter was reset: nobody waits for the end. */
  abandoned = false;

  constructor(owner: FrameOwner, frame: Frame, list: ScatterList, moved = 0) {
    this.#owner = owner;
    this.frame = frame;
    this.#list = list;
    this.moved = moved;
  }

  /** Gives the command to the drive. */
  start(request: ScsiRequest): void {
    this.#request = request;
    if (request.enqueue() !== 0) request.continue();
  }

  /** Goes on with a command that the drive has already. */
  resume(request: ScsiRequest): void {
    this.#request = request;
  }

  memory(): InitiatorMemory | undefined {
    const command = this.#request?.command;
    if (command === undefined || command.transfer > this.#list.length || this.moved > 0) return undefined;
    this.#begun = command.direction === 'in' ? 'in' : 'out';
    return { vector: this.#list.begin(this.#begun === 'in'), start: 0 };
  }

  transfer(request: ScsiRequest, length: number): void {
    const room = Math.max(0, Math.min(length, this.#list.length - this.moved));
    if (this.abandoned) {
      // Nothing of it reaches the host's memory any more.
    } else if (request.command.direction === 'out') {
      request.buffer.fill(0, room, length);
      this.#list.copyFrom(request.buffer, 0, room, this.moved);
    } else {
      this.#list.copyTo(request.buffer, 0, room, this.moved);
    }
    this.moved += room;
    request.continue();
  }

  complete(request: ScsiRequest): void {
    if (this.#begun !== undefined) this.#list.finish(this.#begun === 'in');
    if (this.abandoned) return;
    const { frame } = this;
    if (request.status === SCSI_STATUS.CHECK_CONDITION) frame.putSense(request.takeSense());
    frame.setScsiStatus(request.status);
    this.#owner.finish(frame, request.status === SCSI_STATUS.GOOD ? STATUS.OK : STATUS.SCSI_DONE_WITH_ERROR);
  }

  cancelled(): void {
    if (!this.abandoned) this.#owner.finish(this.frame, STATUS.SCSI_IO_FAILED);
  }
}

/** A command of the firmware's own, whose data it keeps. */
class InternalTask implements ScsiTask {
  readonly data: Uint8Array;
  readonly #done: (good: boolean) => void;
  #at = 0;

  constructor(size: number, done: (good: boolean) => void) {
    this.data = new Uint8Array(size);
    this.#done = done;
  }

  transfer(request: ScsiRequest, length: number): void {
    const size = Math.min(length, this.data.length - this.#at);
    this.data.set(request.buffer.subarray(0, size), this.#at);
    this.#at += size;
    request.continue();
  }

  complete(request: ScsiRequest): void {
    this.#done(request.status === SCSI_STATUS.GOOD);
  }

  cancelled(): void {
    this.#done(false);
  }
}

/** Asks a drive something. Calls `done` with what it answers, or undefined where it refuses; that may be at once. */
export function ask(
  drive: ScsiDevice,
  cdb: Uint8Array,
  size: number,
  done: (data: Uint8Array | undefined) => void,
): void {
  const task: InternalTask = new InternalTask(size, good => done(good ? task.data : undefined));
  const request = drive.request(task, 0, drive.lun, cdb);
  if (request.enqueue() !== 0) request.continue();
}
