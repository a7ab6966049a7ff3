import type { UsbDevice } from '../../../core/usb/device.ts';
import type { UsbEndpoint } from '../../../core/usb/endpoint.ts';
import { type PacketOwner, UsbPacket } from '../../../core/usb/packet.ts';

/** Frames that a pipe may be missing from the schedule before its packets are taken back. */
const FRAMES_VALID = 32;
/** Transfer descriptors of one pipe that are with the device at once. */
export const MAX_QUEUED = 128;

/** The packet of one transfer descriptor. */
export class UhciTransfer extends UsbPacket {
  address = 0;
  pipe: UhciPipe | undefined;
  done = false;
}

/** The packets of one endpoint that devices have not finished, oldest first. */
export class UhciPipe {
  readonly queueHead: number;
  readonly token: number;
  readonly endpoint: UsbEndpoint;
  readonly transfers: UhciTransfer[] = [];
  valid = FRAMES_VALID;

  constructor(queueHead: number, token: number, endpoint: UsbEndpoint) {
    this.queueHead = queueHead;
    this.token = token;
    this.endpoint = endpoint;
  }

  seen(): void {
    this.valid = FRAMES_VALID;
  }
}

/** All packets under way. The schedule in memory is the guest's, so each is checked against it before it is believed. */
export class UhciTransfers {
  readonly #pipes = new Map<number, UhciPipe>();
  readonly #byAddress = new Map<number, UhciTransfer>();
  readonly #spare: UhciTransfer[] = [];
  readonly #owner: PacketOwner;

  constructor(owner: PacketOwner) {
    this.#owner = owner;
  }

  get any(): boolean {
    return this.#byAddress.size > 0;
  }

  at(address: number): UhciTransfer | undefined {
    return this.#byAddress.get(address);
  }

  pipe(token: number): UhciPipe | undefined {
    return this.#pipes.get(token);
  }

  open(queueHead: number, token: number, endpoint: UsbEndpoint): UhciPipe {
    const pipe = new UhciPipe(queueHead, token, endpoint);
    this.#pipes.set(token, pipe);
    return pipe;
  }

  take(pipe: UhciPipe, address: number): UhciTransfer {
    const transfer = this.#spare.pop() ?? new UhciTransfer(this.#owner);
    transfer.pipe = pipe;
    transfer.address = address;
    transfer.done = false;
    return transfer;
  }

  /** The device has put `transfer` off. */
  keep(transfer: UhciTransfer): void {
    transfer.pipe?.transfers.push(transfer);
    this.#byAddress.set(transfer.address, transfer);
  }

  release(transfer: UhciTransfer): void {
    this.forget(transfer);
    transfer.pipe = undefined;
    if (this.#spare.length < MAX_QUEUED) this.#spare.push(transfer);
  }

  /** Takes `transfer` out of its pipe without giving it back for reuse. */
  forget(transfer: UhciTransfer): void {
    if (this.#byAddress.get(transfer.address) === transfer) this.#byAddress.delete(transfer.address);
    const queue = transfer.pipe?.transfers;
    const index = queue?.indexOf(transfer) ?? -1;
    if (index >= 0) queue?.splice(index, 1);
  }

  /** Cancels all packets of `pipe`, the newest first, so that none starts in place of another. */
  close(pipe: UhciPipe): void {
    this.#pipes.delete(pipe.token);
    for (let last = pipe.transfers.at(-1); last !== undefined; last = pipe.transfers.at(-1)) {
      pipe.endpoint.device.cancel(last);
      this.release(last);
    }
    pipe.endpoint.device.endpointStopped(pipe.endpoint);
  }

  closeDevice(device: UsbDevice): void {
    for (const pipe of this.#pipes.values()) if (pipe.endpoint.device === device) this.close(pipe);
  }

  closeAll(): void {
    for (const pipe of this.#pipes.values()) this.close(pipe);
  }

  /** A frame has been processed: pipes that the guest has taken out of the schedule run out. */
  age(): void {
    for (const pipe of this.#pipes.values()) if (--pipe.valid <= 0) this.close(pipe);
  }
}
