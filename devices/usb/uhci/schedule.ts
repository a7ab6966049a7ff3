import type { Dma } from '../../../core/memory/dma.ts';
import type { UsbDevice } from '../../../core/usb/device.ts';
import { isPid, type PacketOwner, PID, type Pid, type UsbPacket } from '../../../core/usb/packet.ts';
import { CAUSE, LINK, TD, TOKEN } from './registers.ts';
import { MAX_QUEUED, type UhciPipe, UhciTransfer, UhciTransfers } from './transfers.ts';

/** Descriptors that one frame looks at; a schedule may be a loop. */
const MAX_STEPS = 256;
/** Queue heads that one frame tells from each other. */
const MAX_QUEUE_HEADS = 128;

/** What the schedule needs of the controller. */
export interface ScheduleHost {
  readonly dma: Dma;
  device(address: number): UsbDevice | undefined;
  /** A transfer has failed. */
  transferFailed(): void;
  /** A descriptor makes no sense: the controller halts (UHCI 1.1, section 2.1.2). */
  processError(): void;
}

/** How the walk goes on after a transfer descriptor. */
type Next = 'down' | 'across' | 'stop';

/** The frame list's queues and transfer descriptors, and the packets made of them (UHCI 1.1, chapter 3). */
export class UhciSchedule implements PacketOwner {
  readonly transfers: UhciTransfers;
  /** Causes of an interrupt at the end of the frame: see CAUSE. */
  causes = 0;
  /** Transfers completed since somebody last set it to 0. */
  completed = 0;
  readonly #host: ScheduleHost;
  readonly #seen = new Uint32Array(MAX_QUEUE_HEADS);
  #seenCount = 0;
  #frameBytes = 0;
  #walking = false;
  /** A packet was finished while the schedule was being walked. */
  #doneMeanwhile = false;
  /** The transfer descriptor at hand. */
  #link = 0;
  #control = 0;
  #token = 0;
  #buffer = 0;
  #finished: (() => void) | undefined;

  constructor(host: ScheduleHost) {
    this.#host = host;
    this.transfers = new UhciTransfers(this);
  }

  /** Calls `finished` when a packet that a device had put off is done. */
  onFinished(finished: () => void): void {
    this.#finished = finished;
  }

  packetDone(packet: UsbPacket): void {
    if (!(packet instanceof UhciTransfer)) return;
    if (packet.status === 'removed') {
      this.transfers.release(packet);
      return;
    }
    packet.done = true;
    if (this.#walking) this.#doneMeanwhile = true;
    else this.#finished?.();
  }

  /**
   * Processes the frame whose list entry is at `address`.
   * @param bandwidth bytes that a frame may move
   * @param collect only completes what devices have finished
   */
  frame(address: number, bandwidth: number, collect = false): void {
    if (this.#walking) return;
    this.#walking = true;
    this.#frameBytes = 0;
    this.#walk(this.#host.dma.read32(address), bandwidth, collect);
    this.#walking = false;
    if (this.#doneMeanwhile) {
      this.#doneMeanwhile = false;
      this.#finished?.();
    }
  }

  #walk(first: number, bandwidth: number, collect: boolean): void {
    const { dma } = this.#host;
    let link = first;
    let queueHead = 0;
    let across = LINK.TERMINATE as number;
    let progress = false;
    this.#seenCount = 0;
    for (let steps = 0; steps < MAX_STEPS && (link & LINK.TERMINATE) === 0; steps++) {
      if (!collect && this.#frameBytes >= bandwidth) return;
      if ((link & LINK.QUEUE) !== 0) {
        if (!this.#firstVisit(link)) {
          // Drivers make loops to use what is left of a frame. Round again only if the last round moved something.
          if (!progress) return;
          progress = false;
          this.#seenCount = 0;
          this.#firstVisit(link);
        }
        const head = (link & LINK.ADDRESS) >>> 0;
        across = dma.read32(head);
        const element = dma.read32(head + 4);
        queueHead = (element & LINK.TERMINATE) !== 0 ? 0 : link;
        link = queueHead === 0 ? across : element;
        continue;
      }
      const address = (link & LINK.ADDRESS) >>> 0;
      this.#fetch(address);
      const before = this.#control;
      const next = this.#transfer(undefined, queueHead, address, collect);
      if (this.#control !== before) dma.write32(address + 4, this.#control >>> 0);
      if (next === 'stop') return;
      if (next === 'across') {
        link = queueHead !== 0 ? across : this.#link;
        continue;
      }
      progress = true;
      this.completed++;
      this.#frameBytes += (this.#control + 1) & TD.ACTUAL_LENGTH;
      link = this.#link;
      if (queueHead === 0) continue;
      dma.write32(((queueHead & LINK.ADDRESS) >>> 0) + 4, link);
      if ((link & LINK.DEPTH_FIRST) === 0) {
        queueHead = 0;
        link = across;
      }
    }
  }

  /** False where the queue head has been seen in this round. */
  #firstVisit(link: number): boolean {
    for (let index = 0; index < this.#seenCount; index++) if (this.#seen[index] === link) return false;
    if (this.#seenCount === MAX_QUEUE_HEADS) return false;
    this.#seen[this.#seenCount++] = link;
    return true;
  }

  #fetch(address: number): void {
    const { dma } = this.#host;
    this.#link = dma.read32(address);
    this.#control = dma.read32(address + 4);
    this.#token = dma.read32(address + 8);
    this.#buffer = dma.read32(address + 12);
  }

  /** Executes the descriptor at hand. `filling` is the pipe whose queue is being filled ahead of the schedule. */
  #transfer(filling: UhciPipe | undefined, queueHead: number, address: number, collect: boolean): Next {
    const { transfers } = this;
    const token = TOKEN.pipe(this.#token);
    let transfer = transfers.at(address);
    if (transfer?.pipe !== undefined && !this.#stillTrue(transfer.pipe, queueHead, address, filling !== undefined)) {
      transfers.close(transfer.pipe);
      transfer = undefined;
    }
    let pipe = transfer?.pipe ?? filling ?? transfers.pipe(token);
    if (pipe !== undefined && transfer === undefined && filling === undefined) {
      if (!this.#stillTrue(pipe, queueHead, address, false)) {
        transfers.close(pipe);
        pipe = undefined;
      }
    }
    pipe?.seen();
    if ((this.#control & TD.ACTIVE) === 0) {
      if (transfer?.pipe !== undefined) transfers.close(transfer.pipe);
      // An inactive descriptor interrupts all the same (section 3.2.2).
      if ((this.#control & TD.IOC) !== 0) this.causes |= CAUSE.COMPLETE;
      return 'across';
    }
    const pid = this.#token & TOKEN.PID;
    if (!isPid(pid)) {
      this.#host.processError();
      return 'stop';
    }
    if (transfer !== undefined) {
      if (filling !== undefined) return 'across';
      if (!transfer.done) {
        this.#fillBehind(transfer.pipe);
        return 'across';
      }
      const next = this.#complete(transfer, pid);
      transfers.release(transfer);
      return next;
    }
    if (collect) return 'across';
    pipe ??= this.#open(queueHead, token, pid);
    if (pipe === undefined) return this.#failed('no-device');
    return this.#submit(pipe, address, pid, filling !== undefined);
  }

  #open(queueHead: number, token: number, pid: number): UhciPipe | undefined {
    const endpoint = isPid(pid)
      ? this.#host.device(TOKEN.address(this.#token))?.endpoint(pid, TOKEN.endpoint(this.#token))
      : undefined;
    return endpoint && this.transfers.open(queueHead, token, endpoint);
  }

  #submit(pipe: UhciPipe, address: number, pid: Pid, filling: boolean): Next {
    const { dma } = this.#host;
    const { endpoint } = pipe;
    const transfer = this.transfers.take(pipe, address);
    const length = TOKEN.length(this.#token);
    transfer.prepare(pid, endpoint, length);
    transfer.shortNotOk = pid === PID.IN && (this.#control & TD.SHORT_PACKET) !== 0;
    if (pid !== PID.IN) dma.read(this.#buffer, transfer.data, 0, length);
    endpoint.device.submit(transfer);
    if (transfer.status === 'async') {
      this.transfers.keep(transfer);
      if (!filling) this.#fillBehind(pipe);
      return 'across';
    }
    // A device takes all that it is sent.
    if (pid !== PID.IN && transfer.status === 'success') transfer.transferred = length;
    const next = this.#complete(transfer, pid);
    this.transfers.release(transfer);
    return next;
  }

  /** Hands over what is queued behind the last packet of `pipe`: bulk transfers are faster if the device knows more of them. */
  #fillBehind(pipe: UhciPipe | undefined): void {
    const last = pipe?.transfers.at(-1);
    if (pipe === undefined || last === undefined) return;
    const [link, control, token, buffer] = [this.#link, this.#control, this.#token, this.#buffer];
    this.#fetch(last.address);
    let next = this.#link;
    while ((next & LINK.TERMINATE) === 0 && (next & LINK.QUEUE) === 0 && pipe.transfers.length < MAX_QUEUED) {
      const address = (next & LINK.ADDRESS) >>> 0;
      if (this.transfers.at(address) !== undefined) break;
      this.#fetch(address);
      if ((this.#control & TD.ACTIVE) === 0 || TOKEN.pipe(this.#token) !== pipe.token) break;
      const count = pipe.transfers.length;
      this.#transfer(pipe, pipe.queueHead, address, false);
      if (pipe.transfers.length === count) break;
      next = this.#link;
    }
    pipe.endpoint.device.endpointStopped(pipe.endpoint);
    this.#link = link;
    this.#control = control;
    this.#token = token;
    this.#buffer = buffer;
  }

  /** Whether `pipe` is what the guest's memory still says it is. */
  #stillTrue(pipe: UhciPipe, queueHead: number, address: number, filling: boolean): boolean {
    const first = pipe.transfers[0];
    return (
      pipe.queueHead === queueHead &&
      pipe.token === TOKEN.pipe(this.#token) &&
      pipe.endpoint.device.addressable &&
      pipe.endpoint.device.address === TOKEN.address(pipe.token) &&
      (filling || (this.#control & TD.ACTIVE) === 0 || first === undefined || first.address === address)
    );
  }

  /** Writes back what became of a packet (section 3.2.2). */
  #complete(transfer: UhciTransfer, pid: number): Next {
    if ((this.#control & TD.ISOCHRONOUS) !== 0) this.#control &= ~TD.ACTIVE;
    if (transfer.status !== 'success') return this.#failed(transfer.status);
    const { transferred } = transfer;
    this.#control = (this.#control & ~(TD.ACTUAL_LENGTH | TD.ACTIVE | TD.NAK)) | ((transferred - 1) & TD.ACTUAL_LENGTH);
    if ((this.#control & TD.IOC) !== 0) this.causes |= CAUSE.COMPLETE;
    if (pid !== PID.IN) return 'down';
    if (transferred > 0) this.#host.dma.write(this.#buffer, transfer.data, 0, transferred);
    if ((this.#control & TD.SHORT_PACKET) === 0 || transferred >= TOKEN.length(this.#token)) return 'down';
    // The queue stays at the short packet for the driver to find it.
    this.causes |= CAUSE.SHORT;
    this.completed++;
    return 'across';
  }

  #failed(status: UsbPacket['status']): Next {
    if (status === 'nak') {
      this.#control |= TD.NAK;
      return 'across';
    }
    this.#control &= ~TD.ACTIVE;
    let next: Next = 'across';
    if (status === 'stall') this.#control |= TD.STALLED;
    else if (status === 'babble') {
      this.#control |= TD.BABBLE | TD.STALLED;
      next = 'stop';
    } else this.#control = (this.#control | TD.TIMEOUT) & ~TD.ERROR_COUNT;
    if ((this.#control & TD.IOC) !== 0) this.causes |= CAUSE.COMPLETE;
    this.completed++;
    this.#host.transferFailed();
    return next;
  }
}
