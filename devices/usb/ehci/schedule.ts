import type { Dma } from '../../../core/memory/dma.ts';
import type { UsbDevice } from '../../../core/usb/device.ts';
import { type PacketOwner, PID, UsbPacket } from '../../../core/usb/packet.ts';
import { processIsochronous } from './isochronous.ts';
import { CHARACTERISTICS, KIND, LINK, multiplier, QH, QTD, TOKEN } from './registers.ts';
import { type EhciQueue, EhciQueues, EhciTransfer } from './transfer.ts';

/** Elements that one pass follows: a list may be a loop without a head. */
const MAX_ELEMENTS = 256;
/** Transfer descriptors that one visit to an asynchronous queue head executes, and keeps with the device. */
const MAX_TRANSFERS = 128;
/** A transfer descriptor moves up to five pages (section 3.5.3). */
const MAX_BYTES = 5 * 4096;
/** Guests mean this where the field is 0, which is undefined. */
const DEFAULT_MULTIPLIER = 4;
const NAK_COUNT = 0x1e;

/** What the schedules need of the controller. */
export interface ScheduleHost {
  readonly dma: Dma;
  now(): number;
  device(address: number): UsbDevice | undefined;
  /** A transfer asks for an interrupt, or has failed. */
  interrupt(error: boolean): void;
}

/** What to do after a transfer descriptor: the next of its queue, or the next queue. */
type Next = 'advance' | 'leave';

/** One of the two schedules: queue heads and what hangs on them (EHCI 1.0, sections 4.4 to 4.10). */
export class EhciSchedule implements PacketOwner {
  readonly queues: EhciQueues;
  /** Transfers completed since somebody last set it to 0. */
  completed = 0;
  /** Number of the pass under way; grows. */
  pass = 0;
  readonly #host: ScheduleHost;
  readonly #asynchronous: boolean;
  readonly #qh = new Uint32Array(QH.WORDS);
  readonly #qtd = new Uint32Array(QTD.WORDS);
  readonly #isochronous = new UsbPacket(this);
  #walking = false;
  #finishedMeanwhile = false;
  #finished: (() => void) | undefined;

  constructor(host: ScheduleHost, asynchronous: boolean) {
    this.#host = host;
    this.#asynchronous = asynchronous;
    this.queues = new EhciQueues(asynchronous, this);
  }

  /** Calls `finished` when a packet that a device had put off is done. */
  onFinished(finished: () => void): void {
    this.#finished = finished;
  }

  packetDone(packet: UsbPacket): void {
    if (!(packet instanceof EhciTransfer)) return;
    if (packet.status === 'removed') {
      this.queues.release(packet);
      return;
    }
    packet.finished = true;
    if (this.#walking) this.#finishedMeanwhile = true;
    else this.#finished?.();
  }

  /** Whether a device has finished something that is not yet written back. */
  takeFinished(): boolean {
    const finished = this.#finishedMeanwhile;
    this.#finishedMeanwhile = false;
    return finished;
  }

  /** Once round the asynchronous list (section 4.8). Returns whether it met the head. */
  asynchronous(first: number): boolean {
    this.#begin();
    let link = first;
    let head = false;
    for (let count = 0; count < MAX_ELEMENTS; count++) {
      const address = LINK.address(link);
      link = this.#visit(address, MAX_TRANSFERS);
      if (((this.#qh[QH.CHARACTERISTICS] ?? 0) & CHARACTERISTICS.HEAD) !== 0) head = true;
      // Only queue heads may be here (section 4.8), and the list is a ring.
      if ((link & LINK.TERMINATE) !== 0 || LINK.kind(link) !== KIND.QUEUE || LINK.address(link) === LINK.address(first))
        break;
    }
    this.#walking = false;
    return head;
  }

  /** One frame's periodic elements (section 4.6). */
  periodic(entry: number): void {
    this.#begin();
    let link = entry;
    for (let count = 0; count < MAX_ELEMENTS && (link & LINK.TERMINATE) === 0; count++) {
      const address = LINK.address(link);
      if (LINK.kind(link) === KIND.QUEUE) {
        if (this.queues.at(address).seen === this.pass) break;
        link = this.#visit(address, 0);
      } else if (LINK.kind(link) === KIND.ISOCHRONOUS) {
        link = processIsochronous(this.#host, this.#isochronous, address);
      } else {
        // Split transactions have no device here: hubs are full-speed ones. Both kinds begin with a link.
        link = this.#host.dma.read32(address);
      }
    }
    this.#walking = false;
  }

  #begin(): void {
    this.#walking = true;
    this.pass++;
  }

  /** Executes what is due at one queue head, up to `limit` descriptors; 0 for what its multiplier says. Returns its link. */
  #visit(address: number, limit: number): number {
    const { dma } = this.#host;
    const qh = this.#qh;
    for (let index = 0; index < QH.WORDS; index++) qh[index] = dma.read32(address + 4 * index);
    const queue = this.queues.at(address);
    queue.seen = this.pass;
    queue.seenNs = this.#host.now();
    // Drivers use a queue head again for another device, so what is known of it goes with what it was.
    if (!queue.matches(qh)) this.queues.cancel(queue);
    queue.words.set(qh);
    const transactions = limit || multiplier(qh[QH.CAPABILITIES] ?? 0) || DEFAULT_MULTIPLIER;
    for (let count = 0; count < transactions; count++) if (this.#execute(queue) === 'leave') break;
    return qh[QH.LINK] ?? LINK.TERMINATE;
  }

  /** The descriptor that is due: the one under way, or the next one (section 4.10.2). */
  #due(): number {
    const qh = this.#qh;
    const token = qh[QH.TOKEN] ?? 0;
    const current = qh[QH.CURRENT] ?? 0;
    if ((token & TOKEN.ACTIVE) !== 0 && (current & LINK.TERMINATE) === 0 && current !== 0) return current;
    const alternate = qh[QH.ALTERNATE] ?? LINK.TERMINATE;
    if (TOKEN.bytes(token) !== 0 && (alternate & LINK.TERMINATE) === 0) return alternate;
    return qh[QH.NEXT] ?? LINK.TERMINATE;
  }

  #execute(queue: EhciQueue): Next {
    if (((this.#qh[QH.TOKEN] ?? 0) & TOKEN.HALTED) !== 0) return 'leave';
    const link = this.#due();
    if ((link & LINK.TERMINATE) !== 0) return 'leave';
    const address = LINK.address(link);
    this.#fetch(address);
    let transfer = queue.transfers[0];
    if (transfer !== undefined && !transfer.matches(address, this.#qtd)) {
      this.queues.cancel(queue);
      transfer = undefined;
    }
    if (((this.#qtd[QTD.TOKEN] ?? 0) & TOKEN.ACTIVE) === 0) return 'leave';
    this.#overlay(address);
    const fresh = transfer === undefined;
    transfer ??= this.#start(queue, address);
    if (!transfer.finished && transfer.inFlight) {
      if (fresh) this.#flush(queue);
      this.#fillBehind(queue);
      return 'leave';
    }
    const next = this.#complete(queue, transfer);
    this.queues.release(transfer);
    return next;
  }

  #fetch(address: number): void {
    for (let index = 0; index < QTD.WORDS; index++) this.#qtd[index] = this.#host.dma.read32(address + 4 * index);
  }

  /** Copies the descriptor over the queue head's working area (section 4.10.2). */
  #overlay(address: number): void {
    const [qh, qtd] = [this.#qh, this.#qtd];
    const characteristics = qh[QH.CHARACTERISTICS] ?? 0;
    const kept = TOKEN.PING | ((characteristics & CHARACTERISTICS.TOGGLE_FROM_QTD) !== 0 ? 0 : TOKEN.TOGGLE);
    qh[QH.CURRENT] = address;
    qh[QH.NEXT] = qtd[QTD.NEXT] ?? LINK.TERMINATE;
    qh[QH.ALTERNATE] =
      ((qtd[QTD.ALTERNATE] ?? LINK.TERMINATE) & ~NAK_COUNT) | (CHARACTERISTICS.nakReload(characteristics) << 1);
    qh[QH.TOKEN] = ((qtd[QTD.TOKEN] ?? 0) & ~kept) | ((qh[QH.TOKEN] ?? 0) & kept);
    for (let index = 0; index < QTD.WORDS - QTD.BUFFERS; index++)
      qh[QH.BUFFERS + index] = qtd[QTD.BUFFERS + index] ?? 0;
    // Progress of split transactions, in the low bits of buffer pointers 1 and 2.
    qh[QH.BUFFERS + 1] = (qh[QH.BUFFERS + 1] ?? 0) & ~0xff;
    qh[QH.BUFFERS + 2] = (qh[QH.BUFFERS + 2] ?? 0) & ~0x1f;
  }

  /** Makes a packet of the fetched descriptor and hands it to the device. */
  #start(queue: EhciQueue, address: number): EhciTransfer {
    const transfer = this.queues.take(queue, address, this.#qtd);
    const characteristics = this.#qh[QH.CHARACTERISTICS] ?? 0;
    queue.device ??= this.#host.device(CHARACTERISTICS.device(characteristics));
    const { tokenPid: pid } = transfer;
    const endpoint = pid && queue.device?.endpoint(pid, CHARACTERISTICS.endpoint(characteristics));
    const bytes = TOKEN.bytes(transfer.token);
    if (pid === undefined || endpoint === undefined || bytes > MAX_BYTES || bytes > transfer.room) {
      transfer.endpoint = undefined;
      transfer.pid = pid ?? PID.OUT;
      transfer.status = 'io-error';
      transfer.transferred = 0;
      return transfer;
    }
    transfer.prepare(pid, endpoint, bytes);
    transfer.shortNotOk = pid === PID.IN && ((transfer.words[QTD.ALTERNATE] ?? 0) & LINK.TERMINATE) === 0;
    if (pid !== PID.IN) transfer.move(this.#host.dma, bytes);
    endpoint.device.submit(transfer);
    return transfer;
  }

  /** Hands over the active descriptors behind the last packet: a device that knows more of a transfer is faster. */
  #fillBehind(queue: EhciQueue): void {
    const last = queue.transfers.at(-1);
    if (!this.#asynchronous || last === undefined) return;
    let link = last.words[QTD.NEXT] ?? LINK.TERMINATE;
    while ((link & LINK.TERMINATE) === 0 && queue.transfers.length < MAX_TRANSFERS) {
      const address = LINK.address(link);
      if (queue.transfers.some(other => other.address === address)) break;
      this.#fetch(address);
      const token = this.#qtd[QTD.TOKEN] ?? 0;
      if ((token & TOKEN.ACTIVE) === 0 || TOKEN.pid(token) !== TOKEN.pid(last.token)) break;
      const transfer = this.#start(queue, address);
      if (transfer.status !== 'async') {
        // The device will say so again when it is the descriptor's turn.
        this.queues.release(transfer);
        break;
      }
      link = this.#qtd[QTD.NEXT] ?? LINK.TERMINATE;
    }
    if (last.endpoint !== undefined) last.endpoint.device.endpointStopped(last.endpoint);
  }

  /** What became of a packet goes into the queue head, and from there into the descriptor (section 4.10.3 to 4.10.5). */
  #complete(queue: EhciQueue, transfer: EhciTransfer): Next {
    const qh = this.#qh;
    if (transfer.status === 'nak') {
      qh[QH.ALTERNATE] = (qh[QH.ALTERNATE] ?? 0) & ~NAK_COUNT;
      this.#flush(queue);
      return 'leave';
    }
    let token = qh[QH.TOKEN] ?? 0;
    const { transferred } = transfer;
    if (transfer.status === 'stall') token |= TOKEN.HALTED;
    else if (transfer.status === 'babble') token |= TOKEN.HALTED | TOKEN.BABBLE;
    else if (transfer.status !== 'success')
      token = (token | TOKEN.HALTED | TOKEN.TRANSACTION_ERROR) & ~TOKEN.ERROR_COUNT;
    const failed = transfer.status !== 'success';
    if (transfer.pid === PID.IN && transferred > 0) transfer.move(this.#host.dma, transferred);
    const left = TOKEN.bytes(token) - transferred;
    const short = transfer.pid === PID.IN && left > 0;
    token = TOKEN.withBytes(token, transfer.pid === PID.IN ? Math.max(0, left) : 0);
    const offset = ((qh[QH.BUFFERS] ?? 0) & 0xfff) + transferred;
    token = TOKEN.withPage(token, TOKEN.page(token) + (offset >> 12));
    qh[QH.BUFFERS] = ((qh[QH.BUFFERS] ?? 0) & ~0xfff) | (offset & 0xfff);
    const maxPacket = CHARACTERISTICS.maxPacket(qh[QH.CHARACTERISTICS] ?? 0) || 1;
    if (Math.max(1, Math.ceil(transferred / maxPacket)) % 2 === 1) token ^= TOKEN.TOGGLE;
    qh[QH.TOKEN] = token & ~TOKEN.ACTIVE;
    this.completed++;
    if (failed) this.#host.interrupt(true);
    if (short || (token & TOKEN.IOC) !== 0) this.#host.interrupt(false);
    this.#flush(queue);
    const { dma } = this.#host;
    dma.write32(transfer.address + 4 * QTD.BUFFERS, qh[QH.BUFFERS] ?? 0);
    dma.write32(transfer.address + 4 * QTD.TOKEN, qh[QH.TOKEN] ?? 0);
    return failed ? 'leave' : 'advance';
  }

  /** Writes the controller's words of the queue head. */
  #flush(queue: EhciQueue): void {
    for (let index: number = QH.CURRENT; index < QH.WORDS; index++)
      this.#host.dma.write32(queue.address + 4 * index, this.#qh[index] ?? 0);
    queue.words.set(this.#qh);
  }
}
