import type { IoVector } from '../../core/block/io-vector.ts';
import { STATUS } from '../../core/scsi/command.ts';
import type { ScsiRequest, ScsiTask } from '../../core/scsi/scsi-request.ts';
import { putSense, SENSE_BYTES } from '../../core/scsi/sense.ts';
import type { VirtqueueElement } from '../../core/virtio/element.ts';
import type { Virtqueue } from '../../core/virtio/virtqueue.ts';
import { RESPONSE, RESULT } from './layout.ts';
import type { VirtioScsi } from './virtio-scsi.ts';

const result = new Uint8Array(RESULT.BYTES);
const resultView = new DataView(result.buffer);
const senseData = new Uint8Array(SENSE_BYTES);

/** A request of the driver: where its data and its result go (virtio 1.2, section 5.6.6.1). */
export class VirtioScsiCommand implements ScsiTask {
  readonly device: VirtioScsi;
  readonly queue: Virtqueue;
  readonly element: VirtqueueElement;
  /** The command's tag, in two halves. */
  readonly tagLow: number;
  readonly tagHigh: number;
  /** Where the data is in the driver's buffer, and how much. */
  readonly #dataAt: number;
  readonly #dataLength: number;
  readonly direction: 'none' | 'in' | 'out';
  readonly #resultSize: number;
  /** Bytes of the data that have been moved. */
  moved = 0;
  /** A reset takes the command away, no task management function. */
  reset = false;
  /** The queue is gone: nobody waits for the result. */
  #abandoned = false;

  constructor(
    device: VirtioScsi,
    queue: Virtqueue,
    element: VirtqueueElement,
    sizes: { readonly command: number; readonly result: number; readonly anyLayout: boolean },
    tag: { readonly low: number; readonly high: number },
  ) {
    this.device = device;
    this.queue = queue;
    this.element = element;
    this.tagLow = tag.low;
    this.tagHigh = tag.high;
    this.#resultSize = sizes.result;
    // Without ANY_LAYOUT the data begins with the second buffer, however long the first is (section 5.6.6.4).
    const outAt = sizes.anyLayout ? sizes.command : element.firstOut;
    const inAt = sizes.anyLayout ? sizes.result : element.firstIn;
    const out = Math.max(0, element.out.length - outAt);
    const into = Math.max(0, element.in.length - inAt);
    this.both = out > 0 && into > 0;
    this.direction = out > 0 ? 'out' : into > 0 ? 'in' : 'none';
    this.#dataAt = out > 0 ? outAt : inAt;
    this.#dataLength = out > 0 ? out : into;
  }

  /** Data goes both ways, which no device here does. */
  readonly both: boolean;

  /** Whether there is room for the data of `request`, on the right side. */
  fits({ command }: ScsiRequest): boolean {
    if (command.direction === 'none') return true;
    return command.direction === this.direction && command.transfer <= this.#dataLength;
  }

  /** The driver has taken its buffer back. */
  abandon(): void {
    this.#abandoned = true;
    this.element.revoke();
  }

  // As the device's task

  get vector(): IoVector {
    return this.direction === 'out' ? this.element.out : this.element.in;
  }

  get start(): number {
    return this.#dataAt + this.moved;
  }

  memory(): VirtioScsiCommand {
    return this;
  }

  transfer(request: ScsiRequest, length: number): void {
    const { element } = this;
    const size = Math.min(length, this.#dataLength - this.moved);
    if (this.direction === 'out') element.out.gather(this.start, request.buffer, 0, size);
    else if (this.direction === 'in') element.in.scatter(this.start, request.buffer, 0, size);
    this.moved += size;
    request.continue();
  }

  complete(request: ScsiRequest): void {
    const { status } = request;
    let senseLength = 0;
    if (status !== STATUS.GOOD) senseLength = this.#putSense(request);
    this.respond(RESPONSE.OK, status, status === STATUS.GOOD ? request.residual : 0, senseLength);
  }

  /** Autosense (SAM-4, section 5.13): the driver has the sense data with the status. */
  #putSense(request: ScsiRequest): number {
    const room = Math.min(SENSE_BYTES, this.#resultSize - RESULT.BYTES);
    const sense = request.takeSense();
    const length = request.sense === undefined ? 0 : putSense(senseData, room, sense);
    if (!this.#abandoned) this.element.in.scatter(RESULT.BYTES, senseData, 0, length);
    return length;
  }

  cancelled(): void {
    this.respond(this.reset ? RESPONSE.RESET : RESPONSE.ABORTED);
  }

  /** Gives the driver its buffer back. */
  respond(response: number, status = 0, residual = 0, senseLength = 0): void {
    if (this.#abandoned) {
      this.device.forget(this);
      return;
    }
    result.fill(0);
    resultView.setUint32(RESULT.SENSE_LENGTH, senseLength, true);
    resultView.setUint32(RESULT.RESIDUAL, residual, true);
    result[RESULT.STATUS] = status;
    result[RESULT.RESPONSE] = response;
    this.element.in.scatter(0, result, 0, RESULT.BYTES);
    const data = this.direction === 'in' ? this.#dataLength : 0;
    this.device.finished(this, this.#resultSize + data);
  }
}
