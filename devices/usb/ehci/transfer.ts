import type { Dma } from '../../../core/memory/dma.ts';
import type { UsbDevice } from '../../../core/usb/device.ts';
import { type PacketOwner, PID, type Pid, UsbPacket } from '../../../core/usb/packet.ts';
import { BUFFER_COUNT, CHARACTERISTICS, PAGE, QH, QTD, TOKEN } from './registers.ts';

/** PIDs by their codes in a token; the fourth is reserved. */
const PIDS: readonly (Pid | undefined)[] = [PID.OUT, PID.IN, PID.SETUP, undefined];

/** The packet of one transfer descriptor. */
export class EhciTransfer extends UsbPacket {
  queue: EhciQueue | undefined;
  /** Where the descriptor is, and what it was when the packet was made of it. */
  address = 0;
  readonly words = new Uint32Array(QTD.WORDS);
  finished = false;

  get token(): number {
    return this.words[QTD.TOKEN] ?? 0;
  }

  get tokenPid(): Pid | undefined {
    return PIDS[TOKEN.pid(this.token)];
  }

  /** Moves data between the packet and the descriptor's buffer, five pages with an offset into the first (section 3.5.4). */
  move(dma: Dma, length: number): void {
    let page = TOKEN.page(this.token);
    let offset = (this.words[QTD.BUFFERS] ?? 0) & (PAGE - 1);
    for (let done = 0; done < length && page < BUFFER_COUNT; page++) {
      const base = ((this.words[QTD.BUFFERS + page] ?? 0) & ~(PAGE - 1)) >>> 0;
      const count = Math.min(length - done, PAGE - offset);
      if (this.pid === PID.IN) dma.write(base + offset, this.data, done, count);
      else dma.read(base + offset, this.data, done, count);
      done += count;
      offset = 0;
    }
  }

  /** Bytes that the descriptor's pages have room for. */
  get room(): number {
    const offset = (this.words[QTD.BUFFERS] ?? 0) & (PAGE - 1);
    return Math.max(0, (BUFFER_COUNT - TOKEN.page(this.token)) * PAGE - offset);
  }

  /** Whether the guest has left the descriptor alone. */
  matches(address: number, words: Uint32Array): boolean {
    return (
      this.address === address &&
      this.words[QTD.NEXT] === words[QTD.NEXT] &&
      this.words[QTD.ALTERNATE] === words[QTD.ALTERNATE] &&
      this.words[QTD.TOKEN] === words[QTD.TOKEN] &&
      this.words[QTD.BUFFERS] === words[QTD.BUFFERS]
    );
  }
}

/** A queue head that packets are under way for. */
export class EhciQueue {
  readonly address: number;
  readonly asynchronous: boolean;
  /** What the controller left there. */
  readonly words = new Uint32Array(QH.WORDS);
  readonly transfers: EhciTransfer[] = [];
  device: UsbDevice | undefined;
  /** The last pass over the schedule that came by. */
  seen = 0;
  seenNs = 0;

  constructor(address: number, asynchronous: boolean) {
    this.address = address;
    this.asynchronous = asynchronous;
  }

  /** Whether `words`, as they are in memory now, are those of the same endpoint in the state that the controller left. */
  matches(words: Uint32Array): boolean {
    const was = this.words;
    const { ENDPOINT_MASK, device } = CHARACTERISTICS;
    const characteristics = words[QH.CHARACTERISTICS] ?? 0;
    if (((characteristics ^ (was[QH.CHARACTERISTICS] ?? 0)) & ENDPOINT_MASK) !== 0) return false;
    if (this.device !== undefined && (!this.device.addressable || this.device.address !== device(characteristics)))
      return false;
    for (let index: number = QH.CURRENT; index < QH.WORDS; index++) {
      if (index === QH.NEXT && !this.asynchronous) continue;
      if (words[index] !== was[index]) return false;
    }
    return true;
  }
}

/** Queues by the addresses of their heads, and packets for reuse. */
export class EhciQueues {
  readonly #queues = new Map<number, EhciQueue>();
  readonly #spare: EhciTransfer[] = [];
  readonly #asynchronous: boolean;
  readonly #owner: PacketOwner;

  constructor(asynchronous: boolean, owner: PacketOwner) {
    this.#asynchronous = asynchronous;
    this.#owner = owner;
  }

  at(address: number): EhciQueue {
    let queue = this.#queues.get(address);
    if (queue === undefined) {
      queue = new EhciQueue(address, this.#asynchronous);
      this.#queues.set(address, queue);
    }
    return queue;
  }

  take(queue: EhciQueue, address: number, words: Uint32Array): EhciTransfer {
    const transfer = this.#spare.pop() ?? new EhciTransfer(this.#owner);
    transfer.queue = queue;
    transfer.address = address;
    transfer.words.set(words);
    transfer.finished = false;
    queue.transfers.push(transfer);
    return transfer;
  }

  release(transfer: EhciTransfer): void {
    const { queue } = transfer;
    const index = queue?.transfers.indexOf(transfer) ?? -1;
    if (index >= 0) queue?.transfers.splice(index, 1);
    transfer.queue = undefined;
    if (this.#spare.length < 64) this.#spare.push(transfer);
  }

  /** Takes back all packets of `queue`, the newest first. */
  cancel(queue: EhciQueue): void {
    for (let last = queue.transfers.at(-1); last !== undefined; last = queue.transfers.at(-1)) {
      const { endpoint } = last;
      endpoint?.device.cancel(last);
      this.release(last);
      if (endpoint !== undefined && queue.transfers.length === 0) endpoint.device.endpointStopped(endpoint);
    }
    queue.device = undefined;
  }

  close(queue: EhciQueue): void {
    this.cancel(queue);
    this.#queues.delete(queue.address);
  }

  closeAll(): void {
    for (const queue of this.#queues.values()) this.close(queue);
  }

  closeDevice(device: UsbDevice): void {
    for (const queue of this.#queues.values()) if (queue.device === device) this.close(queue);
  }

  /** Those that the pass numbered `pass` has not met: the guest has taken them out of the list. */
  closeUnseen(pass: number): void {
    for (const queue of this.#queues.values()) if (queue.seen !== pass) this.close(queue);
  }

  /** Those not met since `sinceNs`. */
  closeOld(sinceNs: number): void {
    for (const queue of this.#queues.values()) if (queue.seenNs < sinceNs) this.close(queue);
  }
}
