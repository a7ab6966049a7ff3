import type { IoResult } from '../../core/block/backend.ts';
import { errno } from '../../core/block/io-error.ts';
import { type ScsiCommand, STATUS } from '../../core/scsi/command.ts';
import { ScsiRequest, type ScsiTask } from '../../core/scsi/scsi-request.ts';
import { SENSE, type Sense } from '../../core/scsi/sense.ts';
import type { ScsiDiskBase } from './scsi-disk.ts';

/** Error numbers of Linux's block layer for what SCSI devices behind it have said. */
const EDOM = 33;
const EBADE = 52;
const ENODATA = 61;
const EREMOTEIO = 121;

/** How a failed block request shows: the status, and the sense data where that is CHECK CONDITION. */
function outcomeOf(error: number): { readonly status: number; readonly sense?: Sense } {
  const condition = (sense: Sense): ReturnType<typeof outcomeOf> => ({ status: STATUS.CHECK_CONDITION, sense });
  switch (error) {
    case EDOM:
      return { status: STATUS.TASK_SET_FULL };
    case EBADE:
      return { status: STATUS.RESERVATION_CONFLICT };
    case ENODATA:
      return condition(SENSE.READ_ERROR);
    case errno.ENOMEM:
    case EREMOTEIO:
      return condition(SENSE.TARGET_FAILURE);
    case errno.ENOMEDIUM:
      return condition(SENSE.MEDIUM_NOT_PRESENT);
    case errno.EINVAL:
      return condition(SENSE.INVALID_FIELD);
    case errno.ENOSPC:
      return condition(SENSE.SPACE_ALLOCATION_FAILED);
    default:
      return condition(SENSE.IO_PROCESS_TERMINATED);
  }
}

/** A command of a disk or CD-ROM drive, which waits for its medium. */
export abstract class DiskRequest extends ScsiRequest {
  protected readonly disk: ScsiDiskBase;

  constructor(disk: ScsiDiskBase, tag: number, command: ScsiCommand, task: ScsiTask) {
    super(disk, tag, disk.lun, command, task);
    this.disk = disk;
  }

  /** Goes on with `next` when the block layer has finished, or as `rerror` and `werror` say. */
  protected await(result: IoResult, next: () => void): void {
    if (typeof result === 'number') {
      this.#finished(result, next);
      return;
    }
    this.inFlight = true;
    void result.then(error => {
      if (!this.landed()) this.#finished(error, next);
    });
  }

  #finished(error: number, next: () => void): void {
    if (error === 0 || this.failed(error)) next();
  }

  /** A block request has failed. True where that is to be ignored; else the command has ended, or waits. */
  protected failed(error: number): boolean {
    const action = this.disk.backend.requestFailed(this.command.direction === 'in', error);
    if (action === 'ignore') return true;
    if (action === 'stop') {
      this.retry = true;
      return false;
    }
    const { status, sense } = outcomeOf(error);
    this.sense = sense;
    this.complete(status);
    return false;
  }

  /** Ends the command when all that was written before it is safe. */
  protected flushAndComplete(): void {
    this.await(this.disk.backend.flush(), () => this.complete(STATUS.GOOD));
  }
}
