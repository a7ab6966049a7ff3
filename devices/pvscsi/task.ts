import type { Dma } from '../../core/memory/dma.ts';
import { STATUS } from '../../core/scsi/command.ts';
import type { InitiatorMemory, ScsiRequest, ScsiTask } from '../../core/scsi/scsi-request.ts';
import { putSense, SENSE_BYTES } from '../../core/scsi/sense.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { ScatterList } from '../ide/scatter-list.ts';
import { ELEMENT, HOST_STATUS, REQUEST, REQUEST_FLAG } from './registers.ts';

/** What of a request's descriptor is needed until its end. */
export const descriptorFields = {
  contextLow: field.u32(),
  contextHigh: field.u32(),
  /** Of the data, or of the list that says where it is. */
  address: field.number(),
  length: field.number(),
  senseAddress: field.number(),
  senseLength: field.u32(),
  flags: field.u32(),
} as const;

export type Descriptor = Readonly<StateValues<typeof descriptorFields>>;

export const taskFields = { descriptor: field.record(descriptorFields), moved: field.u32() } as const;

export function descriptorIn(request: DataView): Descriptor {
  return {
    contextLow: request.getUint32(REQUEST.CONTEXT, true),
    contextHigh: request.getUint32(REQUEST.CONTEXT + 4, true),
    address: wide(request, REQUEST.DATA),
    length: wide(request, REQUEST.DATA_LENGTH),
    senseAddress: wide(request, REQUEST.SENSE),
    senseLength: request.getUint32(REQUEST.SENSE_LENGTH, true),
    flags: request.getUint32(REQUEST.FLAGS, true),
  };
}

/** A number of 64 bits, rounded beyond 2^53: no memory is there. */
const wide = (view: DataView, at: number): number => view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);

/** What becomes of a request that has ended. */
export interface TaskOwner {
  readonly dma: Dma;
  /** Why commands are being taken away. */
  readonly cancelStatus: number;
  finish(task: PvscsiTask, hostStatus: number, scsiStatus: number, senseLength: number): void;
}

/** More data than this goes through a buffer in pieces, whatever memory is said to be behind its addresses, in bytes. */
const LONGEST_AT_ONCE = 1 << 25;

const element = new Uint32Array(ELEMENT.WORDS);
const sense = new Uint8Array(SENSE_BYTES);

/** A request of the driver while a device has it. */
export class PvscsiTask implements ScsiTask {
  readonly descriptor: Descriptor;
  readonly #owner: TaskOwner;
  readonly #list: ScatterList;
  #request: ScsiRequest | undefined;
  /** Bytes for which the driver has room, or which it gives. */
  #described = 0;
  #begun = false;
  #blocks = false;
  /** Bytes that went between the device and memory. */
  moved: number;

  constructor(owner: TaskOwner, descriptor: Descriptor, moved = 0) {
    this.#owner = owner;
    this.#list = new ScatterList(owner.dma);
    this.descriptor = descriptor;
    this.moved = moved;
  }

  get request(): ScsiRequest | undefined {
    return this.#request;
  }

  /** Whether the driver says that the data goes another way than the command. */
  contradicts({ command }: ScsiRequest): boolean {
    const { flags } = this.descriptor;
    if (command.direction === 'in') return (flags & REQUEST_FLAG.TO_DEVICE) !== 0;
    return command.direction === 'out' && (flags & REQUEST_FLAG.TO_HOST) !== 0;
  }

  /** Goes on with a command that the device has. */
  resume(request: ScsiRequest): void {
    this.#request = request;
    this.#describe(request.command.transfer);
  }

  /** Gives the command to the device. */
  start(request: ScsiRequest): void {
    this.resume(request);
    if (request.enqueue() !== 0) request.continue();
  }

  /** Finds the memory for the data, of which the command needs `transfer` bytes. */
  #describe(transfer: number): void {
    const { address, length, flags } = this.descriptor;
    if ((flags & REQUEST_FLAG.SG_LIST) === 0) {
      this.#described = length;
      this.#list.add(address, Math.min(length, transfer));
      return;
    }
    let at = address;
    for (let count = 0; count < ELEMENT.MAX && this.#described < length; count++) {
      if (!this.#owner.dma.readWords(at, element)) return;
      const [low = 0, high = 0, size = 0, elementFlags = 0] = element;
      const where = high * 2 ** 32 + low;
      at += ELEMENT.BYTES;
      if ((elementFlags & ELEMENT.CHAIN) !== 0) {
        at = where;
        continue;
      }
      const bytes = Math.min(size, length - this.#described);
      this.#described += bytes;
      this.#list.add(where, Math.min(bytes, transfer - this.#list.length));
    }
  }

  memory(): InitiatorMemory | undefined {
    const command = this.#request?.command;
    this.#blocks = true;
    if (command === undefined || this.moved > 0 || command.transfer > LONGEST_AT_ONCE) return undefined;
    if (command.transfer > this.#list.length) return undefined;
    this.#begun = true;
    return { vector: this.#list.begin(command.direction === 'in'), start: 0 };
  }

  transfer(request: ScsiRequest, length: number): void {
    const room = Math.max(0, Math.min(length, this.#list.length - this.moved));
    if (request.command.direction === 'in') {
      this.#list.copyTo(request.buffer, 0, room, this.moved);
    } else if (room < length) {
      // What the driver did not give is not made up: the device would keep it.
      this.#owner.finish(this, HOST_STATUS.DATA_RUN, STATUS.GOOD, 0);
      request.cancel();
      return;
    } else {
      this.#list.copyFrom(request.buffer, 0, room, this.moved);
    }
    this.moved += room;
    request.continue();
  }

  complete(request: ScsiRequest): void {
    const { command, status } = request;
    if (this.#begun) {
      this.#list.finish(command.direction === 'in');
      this.moved = command.transfer - request.residual;
    }
    let senseLength = 0;
    if (status === STATUS.CHECK_CONDITION) {
      senseLength = putSense(sense, Math.min(SENSE_BYTES, this.descriptor.senseLength), request.takeSense());
      this.#owner.dma.write(this.descriptor.senseAddress, sense, 0, senseLength);
    }
    const hostStatus = this.#fits(request) ? HOST_STATUS.SUCCESS : HOST_STATUS.DATA_RUN;
    this.#owner.finish(this, hostStatus, status, senseLength);
  }

  /** Whether the device had as much data as the driver has described; as QEMU counts, none at all where it refused. */
  #fits({ command, residual }: ScsiRequest): boolean {
    if (command.transfer === 0) return true;
    const had = this.#blocks ? command.transfer : command.transfer - residual;
    return had > 0 && had === this.#described;
  }

  cancelled(): void {
    this.#owner.finish(this, this.#owner.cancelStatus, STATUS.GOOD, 0);
  }
}
