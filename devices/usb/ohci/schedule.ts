import type { Dma } from '../../../core/memory/dma.ts';
import type { UsbDevice } from '../../../core/usb/device.ts';
import { type PacketOwner, PID, type Pid, UsbPacket } from '../../../core/usb/packet.ts';
import { ADDRESS, CC, ED, TD } from './registers.ts';

/** Endpoint descriptors that one list shows in a frame; a list may be a loop. */
const MAX_ENDPOINTS = 256;
/** Transfer descriptors that an endpoint gets through in a frame. */
const MAX_TRANSFERS = 64;
const PAGE = 4096;
/** No done head is to be written for this descriptor (DelayInterrupt). */
export const NO_DELAY = 7;
const DIRECTIONS: readonly (Pid | undefined)[] = [PID.SETUP, PID.OUT, PID.IN, undefined];

/** A transfer descriptor that is with its device. */
class OhciTransfer extends UsbPacket {
  endpointDescriptor = 0;
  descriptor = 0;
  finished = false;
}

export interface ScheduleHost {
  readonly dma: Dma;
  device(address: number): UsbDevice | undefined;
}

/** Lists of endpoint descriptors with their transfer descriptors (OHCI 1.0a, chapter 4). */
export class OhciSchedule implements PacketOwner {
  /** Head of the queue of what is done, and the frames until that is to be told; {@link NO_DELAY} for nobody waits. */
  done = 0;
  delay = NO_DELAY;
  completed = 0;
  readonly #host: ScheduleHost;
  /** By endpoint descriptor. */
  readonly #pending = new Map<number, OhciTransfer>();
  readonly #spare: OhciTransfer[] = [];
  #finished: (() => void) | undefined;
  #walking = false;
  #finishedMeanwhile = false;
  /** The transfer descriptor at hand. */
  #flags = 0;
  #buffer = 0;
  #next = 0;
  #end = 0;

  constructor(host: ScheduleHost) {
    this.#host = host;
  }

  onFinished(finished: () => void): void {
    this.#finished = finished;
  }

  packetDone(packet: UsbPacket): void {
    if (!(packet instanceof OhciTransfer)) return;
    packet.finished = true;
    if (this.#walking) this.#finishedMeanwhile = true;
    else this.#finished?.();
  }

  takeFinished(): boolean {
    const finished = this.#finishedMeanwhile;
    this.#finishedMeanwhile = false;
    return finished;
  }

  cancelAll(): void {
    for (const transfer of this.#pending.values()) this.#cancel(transfer);
  }

  cancelDevice(device: UsbDevice): void {
    for (const transfer of this.#pending.values()) if (transfer.endpoint?.device === device) this.#cancel(transfer);
  }

  #cancel(transfer: OhciTransfer): void {
    const { endpoint } = transfer;
    endpoint?.device.cancel(transfer);
    this.#release(transfer);
    if (endpoint !== undefined) endpoint.device.endpointStopped(endpoint);
  }

  #release(transfer: OhciTransfer): void {
    this.#pending.delete(transfer.endpointDescriptor);
    if (this.#spare.length < MAX_TRANSFERS) this.#spare.push(transfer);
  }

  /** Serves a list. Returns whether any endpoint of it had something to transfer. */
  list(head: number): boolean {
    const { dma } = this.#host;
    let any = false;
    this.#walking = true;
    let at = (head & ADDRESS) >>> 0;
    for (let count = 0; count < MAX_ENDPOINTS && at !== 0; count++) {
      const flags = dma.read32(at);
      const next = dma.read32(at + 12);
      // Isochronous endpoints have descriptors of another format, and no device here has such endpoints.
      if ((flags & (ED.SKIP | ED.ISOCHRONOUS)) === 0) any = this.#endpoint(at, flags) || any;
      else this.#takeBack(at);
      at = (next & ADDRESS) >>> 0;
    }
    this.#walking = false;
    return any;
  }

  /** Software wants the endpoint to pause. */
  #takeBack(at: number): void {
    const transfer = this.#pending.get(at);
    if (transfer !== undefined) this.#cancel(transfer);
  }

  #endpoint(at: number, flags: number): boolean {
    const { dma } = this.#host;
    const tail = (dma.read32(at + 4) & ADDRESS) >>> 0;
    let any = false;
    for (let count = 0; count < MAX_TRANSFERS; count++) {
      const head = dma.read32(at + 8);
      const td = (head & ADDRESS) >>> 0;
      if ((head & ED.HALTED) !== 0 || td === tail || td === 0) {
        this.#takeBack(at);
        return any;
      }
      any = true;
      if (!this.#transfer(at, flags, head, td)) return any;
    }
    return any;
  }

  #fetch(td: number): void {
    const { dma } = this.#host;
    this.#flags = dma.read32(td);
    this.#buffer = dma.read32(td + 4);
    this.#next = dma.read32(td + 8);
    this.#end = dma.read32(td + 12);
  }

  /** Bytes of the buffer: up to two pages, none where the pointer is 0; -1 where it makes no sense (section 4.3.1.3). */
  get #length(): number {
    if (this.#buffer === 0) return 0;
    const samePage = ((this.#buffer ^ this.#end) & ~(PAGE - 1)) === 0;
    const length = (this.#end & (PAGE - 1)) - (this.#buffer & (PAGE - 1)) + (samePage ? 1 : PAGE + 1);
    return length < 0 ? -1 : length;
  }

  /** Executes one descriptor. Returns whether the next one of the endpoint may follow. */
  #transfer(at: number, edFlags: number, head: number, td: number): boolean {
    this.#fetch(td);
    let transfer = this.#pending.get(at);
    if (transfer !== undefined && transfer.descriptor !== td) {
      this.#cancel(transfer);
      transfer = undefined;
    }
    if (transfer !== undefined && !transfer.finished) return false;
    transfer ??= this.#submit(at, edFlags, td);
    if (transfer.status === 'async') return false;
    const next = this.#retire(at, head, td, transfer);
    this.#release(transfer);
    return next;
  }

  #submit(at: number, edFlags: number, td: number): OhciTransfer {
    const transfer = this.#spare.pop() ?? new OhciTransfer(this);
    Object.assign(transfer, { endpointDescriptor: at, descriptor: td, finished: false, transferred: 0, size: 0 });
    const direction = ED.direction(edFlags);
    const pid = direction === 1 || direction === 2 ? DIRECTIONS[direction] : DIRECTIONS[TD.direction(this.#flags)];
    const endpoint = pid && this.#host.device(ED.address(edFlags))?.endpoint(pid, ED.endpoint(edFlags));
    const length = this.#length;
    transfer.endpoint = endpoint;
    if (pid === undefined || length < 0) {
      transfer.status = 'babble';
      return transfer;
    }
    transfer.pid = pid;
    if (endpoint === undefined) {
      transfer.status = 'no-device';
      return transfer;
    }
    transfer.prepare(pid, endpoint, length);
    transfer.shortNotOk = pid === PID.IN && (this.#flags & TD.ROUNDING) === 0;
    if (pid !== PID.IN) this.#move(transfer, length);
    endpoint.device.submit(transfer);
    if (transfer.status === 'async') this.#pending.set(at, transfer);
    return transfer;
  }

  #move(transfer: UsbPacket, length: number): void {
    const { dma } = this.#host;
    const first = Math.min(length, PAGE - (this.#buffer & (PAGE - 1)));
    const second = (this.#end & ~(PAGE - 1)) >>> 0;
    const copy = (address: number, from: number, count: number): void => {
      if (count <= 0) return;
      if (transfer.pid === PID.IN) dma.write(address, transfer.data, from, count);
      else dma.read(address, transfer.data, from, count);
    };
    copy(this.#buffer, 0, first);
    copy(second, first, length - first);
  }

  /** Writes back what became of the descriptor, and puts it on the done queue (section 4.3.1.3.5). */
  #retire(at: number, head: number, td: number, transfer: OhciTransfer): boolean {
    const { dma } = this.#host;
    if (transfer.status === 'nak') return false;
    const { transferred, size } = transfer;
    if (transfer.pid === PID.IN && transfer.status === 'success') this.#move(transfer, transferred);
    let code = completionCode(transfer);
    const short = transfer.pid === PID.IN && transferred < size;
    if (code === CC.NO_ERROR && short && (this.#flags & TD.ROUNDING) === 0) code = CC.DATA_UNDERRUN;
    const failed = code !== CC.NO_ERROR;
    let carry = head & ED.CARRY;
    let flags = TD.withCode(this.#flags, code) & ~TD.ERROR_COUNT;
    if (!failed || code === CC.DATA_UNDERRUN) {
      // The toggle goes on from where the descriptor, or the endpoint, had it.
      const toggle = (flags & TD.TOGGLE_OWN) !== 0 ? (flags & TD.TOGGLE) === 0 : (carry & ED.CARRY) === 0;
      carry = toggle ? ED.CARRY : 0;
      flags = (flags & ~TD.TOGGLE) | TD.TOGGLE_OWN | (toggle ? TD.TOGGLE : 0);
    }
    const buffer = transferred >= size && !failed ? 0 : this.#advanced(transferred);
    dma.write32(td, flags >>> 0);
    dma.write32(td + 4, buffer);
    dma.write32(td + 8, this.done);
    dma.write32(at + 8, ((this.#next & ADDRESS) | carry | (failed ? ED.HALTED : 0)) >>> 0);
    this.done = td;
    this.completed++;
    const delay = failed ? 0 : TD.delay(flags);
    if (delay < this.delay) this.delay = delay;
    return !failed;
  }

  /** The buffer pointer after so many bytes; the second page is where the end is. */
  #advanced(bytes: number): number {
    const offset = (this.#buffer & (PAGE - 1)) + bytes;
    if (offset < PAGE) return (this.#buffer + bytes) >>> 0;
    return ((this.#end & ~(PAGE - 1)) | (offset & (PAGE - 1))) >>> 0;
  }
}

function completionCode({ status }: UsbPacket): number {
  switch (status) {
    case 'success':
      return CC.NO_ERROR;
    case 'stall':
      return CC.STALL;
    case 'babble':
      return CC.DATA_OVERRUN;
    default:
      return CC.NOT_RESPONDING;
  }
}
