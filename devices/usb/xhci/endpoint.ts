import type { Dma } from '../../../core/memory/dma.ts';
import type { UsbEndpoint } from '../../../core/usb/endpoint.ts';
import { MAX_PACKET_BYTES, type PacketOwner, PID, UsbPacket } from '../../../core/usb/packet.ts';
import { REQUEST_TYPE } from '../../../core/usb/request.ts';
import {
  CC,
  CONTROL,
  EP_STATE,
  EP_TYPE,
  highWord,
  interrupterOf,
  LENGTH_MASK,
  lowWord,
  pointer,
  TRB,
} from './registers.ts';
import { Ring, TrbList } from './ring.ts';

/** Transfers of one doorbell. */
const MAX_TRANSFERS = 256;
/** Transfers under way on an endpoint, besides one for each stream. */
const MAX_PENDING = 16;
const SETUP_LENGTH = 8;
const IMMEDIATE_LENGTH = 8;
/** Microframes that the frame numbers of TRBs go round in. */
const FRAME_ID_SPAN = 0x4000;
const LATE = 0x100;
/** A linear stream context array with primary streams only: stream context type 1 (table 6-13). */
const PRIMARY_RING = 1;
const STREAM_CONTEXT_SIZE = 16;
export const MICROFRAME_NS = 125_000;

/** A transfer descriptor that has been taken off its ring. */
export class XhciTransfer extends UsbPacket {
  readonly trbs = new TrbList();
  pipe: XhciEndpoint | undefined;
  streamId = 0;
  /** The cycle state at its first TRB. */
  cycle = true;
  /** Waits: for its microframe, or for the device to have something. */
  waiting = false;
  /** In microframes: not before. */
  due = 0;
}

export interface EndpointHost {
  readonly dma: Dma;
  /** Microframes since the controller was started. */
  microframe(): number;
  /** The device's endpoint, if the device is there. */
  usbEndpoint(pipe: XhciEndpoint): UsbEndpoint | undefined;
  event(interrupter: number, type: number, parameter: number, status: number, control: number): void;
  die(): void;
  /** An endpoint waits for a microframe. */
  wait(): void;
  /** The interrupter of a slot. */
  interrupter(slotId: number): number;
}

/** What a snapshot keeps of an endpoint. */
export interface SavedEndpoint {
  slotId: number;
  id: number;
  type: number;
  context: number;
  state: number;
  interval: number;
  last: number;
  dequeue: number;
  cycle: boolean;
  streams: number;
  streamBase: number;
}

/** An endpoint of a slot: its transfer ring or its streams, and the transfers under way (xHCI 1.1, section 4.8). */
export class XhciEndpoint implements PacketOwner {
  readonly slotId: number;
  /** Device context index: 1 for endpoint 0, then twice the number, plus 1 for IN. */
  readonly id: number;
  readonly ring = new Ring();
  type = 0;
  state: number = EP_STATE.DISABLED;
  /** Where its context is in memory. */
  context = 0;
  streamCount = 0;
  /** What waits for its microframe or for the device. */
  retry: XhciTransfer | undefined;
  #interval = 1;
  #last = 0;
  #streamBase = 0;
  #streams = new Map<number, Ring>();
  readonly #pending: XhciTransfer[] = [];
  readonly #spare: XhciTransfer[] = [];
  readonly #host: EndpointHost;
  #running = false;

  constructor(host: EndpointHost, slotId: number, id: number) {
    this.#host = host;
    this.slotId = slotId;
    this.id = id;
  }

  get isochronous(): boolean {
    return this.type === EP_TYPE.ISOCH_IN || this.type === EP_TYPE.ISOCH_OUT;
  }

  /** Nothing is under way. */
  get idle(): boolean {
    return this.#pending.length === 0;
  }

  #timed(): boolean {
    return this.isochronous || this.type === EP_TYPE.INTERRUPT_IN || this.type === EP_TYPE.INTERRUPT_OUT;
  }

  /**
   * Takes over an endpoint context (section 6.2.3).
   * @param words its first four
   * @param maxStreams exponent that the controller supports
   */
  configure(context: number, words: readonly number[], maxStreams: number): void {
    const [first = 0, second = 0, low = 0, high = 0] = words;
    this.context = context;
    this.type = (second >> 3) & 7;
    this.#interval = 2 ** Math.min((first >> 16) & 0xff, 15);
    const streams = Math.min((first >> 10) & 0x1f, maxStreams);
    this.#streamBase = pointer(low & ~0xf, high);
    this.streamCount = streams === 0 ? 0 : 2 ** (streams + 1);
    if (this.streamCount === 0) this.ring.start(this.#streamBase, (low & 1) === 1);
    this.#last = 0;
    this.state = EP_STATE.RUNNING;
  }

  save(): SavedEndpoint {
    const first = this.#pending[0];
    const place = first === undefined ? this.ring : { dequeue: first.trbs.address(0), cycle: first.cycle };
    return {
      slotId: this.slotId,
      id: this.id,
      type: this.type,
      context: this.context,
      state: this.state,
      interval: this.#interval,
      last: this.#last,
      dequeue: place.dequeue,
      cycle: place.cycle,
      streams: this.streamCount,
      streamBase: this.#streamBase,
    };
  }

  load(saved: SavedEndpoint): void {
    this.type = saved.type;
    this.context = saved.context;
    this.state = saved.state;
    this.#interval = Math.max(1, saved.interval);
    this.#last = saved.last;
    this.ring.start(saved.dequeue, saved.cycle);
    this.streamCount = saved.streams;
    this.#streamBase = saved.streamBase;
  }

  // Rings

  /** The ring of stream `id`, read from its context when it is first used (section 6.2.4); or why there is none. */
  stream(id: number): Ring | number {
    if (this.streamCount === 0) return this.ring;
    if (id === 0 || id >= this.streamCount) return CC.INVALID_STREAM_ID;
    const known = this.#streams.get(id);
    if (known !== undefined) return known;
    const { dma } = this.#host;
    const at = this.#streamBase + STREAM_CONTEXT_SIZE * id;
    const low = dma.read32(at);
    if (((low >> 1) & 7) !== PRIMARY_RING) return CC.INVALID_STREAM_TYPE;
    const ring = new Ring();
    ring.start(pointer(low & ~0xf, dma.read32(at + 4)), (low & 1) === 1);
    this.#streams.set(id, ring);
    return ring;
  }

  /** Writes state and dequeue pointer to the context in memory. */
  setState(state: number, streamId = 0): void {
    const { dma } = this.#host;
    this.state = state;
    dma.write32(this.context, (dma.read32(this.context) & ~7) | state);
    let at = this.context + 8;
    let { ring } = this;
    let type = 0;
    if (this.streamCount > 0) {
      const stream = this.#streams.get(streamId);
      if (stream === undefined) return;
      ring = stream;
      at = this.#streamBase + STREAM_CONTEXT_SIZE * streamId;
      type = PRIMARY_RING << 1;
    }
    dma.write32(at, lowWord(ring.dequeue) | type | (ring.cycle ? 1 : 0));
    dma.write32(at + 4, highWord(ring.dequeue));
  }

  /** Software moves the dequeue pointer of a stopped endpoint (section 4.6.10). Returns a completion code. */
  setDequeue(low: number, high: number, streamId: number): number {
    if (this.state !== EP_STATE.STOPPED) return CC.CONTEXT_STATE;
    const ring = this.stream(streamId);
    if (typeof ring === 'number') return ring;
    ring.start(pointer(low & ~0xf, high), (low & 1) === 1);
    this.setState(EP_STATE.STOPPED, streamId);
    return CC.SUCCESS;
  }

  forgetStreams(): void {
    this.#streams = new Map();
  }

  // Running

  /** The doorbell, the device, or time: does what there is to do on the ring of `streamId`. */
  kick(streamId: number): void {
    if (this.#running || this.#host.usbEndpoint(this) === undefined) return;
    this.#running = true;
    this.#run(streamId);
    this.#running = false;
    const endpoint = this.#host.usbEndpoint(this);
    endpoint?.device.endpointStopped(endpoint);
  }

  #run(streamId: number): void {
    const { retry } = this;
    if (retry !== undefined) {
      if (retry.due > this.#host.microframe()) {
        this.#host.wait();
        return;
      }
      this.retry = undefined;
      this.#submit(retry);
      if (this.retry !== undefined) return;
    }
    if (this.state === EP_STATE.HALTED) return;
    const ring = this.stream(streamId);
    if (typeof ring === 'number') return;
    this.setState(EP_STATE.RUNNING, streamId);
    if (ring.dequeue === 0) return;
    for (let count = 0; count < MAX_TRANSFERS; count++) {
      if (this.#pending.length >= this.streamCount + MAX_PENDING) return;
      const transfer = this.#spare.pop() ?? new XhciTransfer(this);
      const { cycle } = ring;
      if (!ring.take(this.#host.dma, transfer.trbs, true)) {
        this.#spare.push(transfer);
        if (this.isochronous) this.#ringEmpty(ring);
        return;
      }
      transfer.pipe = this;
      transfer.cycle = cycle;
      transfer.streamId = this.streamCount === 0 ? 0 : streamId;
      transfer.due = 0;
      this.#pending.push(transfer);
      if (this.#timed()) this.#schedule(transfer);
      if (transfer.due > this.#host.microframe()) {
        transfer.waiting = true;
        this.retry = transfer;
        this.#host.wait();
        return;
      }
      this.#submit(transfer);
      if (this.retry !== undefined || this.state === EP_STATE.HALTED) return;
      if (this.#host.usbEndpoint(this) === undefined) return;
    }
  }

  /** Section 4.10.3.1 */
  #ringEmpty(ring: Ring): void {
    const code = this.type === EP_TYPE.ISOCH_IN ? CC.RING_OVERRUN : CC.RING_UNDERRUN;
    this.#event(this.#host.interrupter(this.slotId), ring.dequeue, code << 24, 0);
  }

  /** When an interrupt or isochronous transfer may begin (section 4.14.2, 4.11.2.5). */
  #schedule(transfer: XhciTransfer): void {
    const now = this.#host.microframe();
    const asap = Math.ceil(now / this.#interval) * this.#interval;
    const next = this.#last + this.#interval;
    const control = transfer.trbs.control(0);
    if (!this.isochronous) transfer.due = Math.max(asap, next);
    else if ((control & CONTROL.START_ASAP) !== 0)
      transfer.due = asap >= this.#last && asap <= this.#last + 4 * this.#interval ? next : asap;
    else {
      transfer.due = Math.floor(now / FRAME_ID_SPAN) * FRAME_ID_SPAN + CONTROL.frame(control) * 8;
      if (transfer.due + LATE < now) transfer.due += FRAME_ID_SPAN;
    }
    this.#last = transfer.due;
  }

  #submit(transfer: XhciTransfer): void {
    const endpoint = this.#host.usbEndpoint(this);
    transfer.waiting = false;
    if (endpoint === undefined) {
      transfer.status = 'no-device';
      this.#complete(transfer);
      return;
    }
    if (this.#nothingToMove(transfer)) {
      transfer.prepare(PID.OUT, endpoint, 0);
      this.#complete(transfer);
      return;
    }
    const prepared = this.id === 1 ? this.#prepareControl(transfer, endpoint) : this.#prepareData(transfer, endpoint);
    if (!prepared) {
      this.#release(transfer);
      return;
    }
    endpoint.device.submit(transfer);
    if (transfer.status === 'async') return;
    if (transfer.status === 'nak' && !this.isochronous) {
      transfer.waiting = true;
      transfer.due = 0;
      this.retry = transfer;
      return;
    }
    this.#complete(transfer);
  }

  /** Drivers turn transfers that they take back into no-ops (section 4.11.2.1). */
  #nothingToMove({ trbs }: XhciTransfer): boolean {
    for (let index = 0; index < trbs.count; index++)
      if (trbs.type(index) !== TRB.NO_OP && trbs.type(index) !== TRB.EVENT_DATA) return false;
    return true;
  }

  packetDone(packet: UsbPacket): void {
    if (!(packet instanceof XhciTransfer)) return;
    if (packet.status === 'removed') {
      this.#release(packet);
      return;
    }
    this.#complete(packet);
    this.kick(packet.streamId);
  }

  /** Setup, data and status stage as one packet (section 4.11.2.2). False where they are not what they must be. */
  #prepareControl(transfer: XhciTransfer, endpoint: UsbEndpoint): boolean {
    const { trbs } = transfer;
    let last = trbs.count - 1;
    if (trbs.type(last) === TRB.EVENT_DATA && trbs.count > 2) last--;
    const valid =
      trbs.type(0) === TRB.SETUP &&
      trbs.type(last) === TRB.STATUS &&
      (trbs.control(0) & CONTROL.IMMEDIATE) !== 0 &&
      (trbs.status(0) & LENGTH_MASK) === SETUP_LENGTH;
    if (!valid) return false;
    const isIn = (trbs.low(0) & REQUEST_TYPE.IN) !== 0;
    if (!this.#prepare(transfer, endpoint, isIn)) return false;
    transfer.whole = true;
    for (let index = 0; index < SETUP_LENGTH; index++)
      transfer.setup[index] = (index < 4 ? trbs.low(0) : trbs.high(0)) >>> (8 * (index & 3));
    return true;
  }

  #prepareData(transfer: XhciTransfer, endpoint: UsbEndpoint): boolean {
    if (
      this.type === 0 ||
      this.type === EP_TYPE.CONTROL ||
      !this.#prepare(transfer, endpoint, this.type > EP_TYPE.CONTROL)
    )
      return false;
    transfer.stream = transfer.streamId;
    return true;
  }

  /** Makes the packet, with what the TRBs' buffers hold where it goes out. */
  #prepare(transfer: XhciTransfer, endpoint: UsbEndpoint, isIn: boolean): boolean {
    const { trbs } = transfer;
    let size = 0;
    for (let index = 0; index < trbs.count; index++) {
      const type = trbs.type(index);
      const control = trbs.control(index);
      if (type === TRB.DATA && ((control & CONTROL.IN) !== 0) !== isIn) return this.#nonsense();
      if (type !== TRB.DATA && type !== TRB.NORMAL && type !== TRB.ISOCH) continue;
      const length = trbs.status(index) & LENGTH_MASK;
      if ((control & CONTROL.IMMEDIATE) !== 0 && (length > IMMEDIATE_LENGTH || isIn)) return this.#nonsense();
      size += length;
    }
    if (size > MAX_PACKET_BYTES) return this.#nonsense();
    transfer.prepare(isIn ? PID.IN : PID.OUT, endpoint, size);
    if (!isIn) this.#move(transfer, size);
    return true;
  }

  #nonsense(): boolean {
    this.#host.die();
    return false;
  }

  #move(transfer: XhciTransfer, length: number): void {
    const { trbs } = transfer;
    const { dma } = this.#host;
    let done = 0;
    for (let index = 0; index < trbs.count && done < length; index++) {
      const type = trbs.type(index);
      if (type !== TRB.DATA && type !== TRB.NORMAL && type !== TRB.ISOCH) continue;
      const count = Math.min(length - done, trbs.status(index) & LENGTH_MASK);
      const immediate = (trbs.control(index) & CONTROL.IMMEDIATE) !== 0;
      const address = immediate ? trbs.address(index) : trbs.parameter(index);
      if (count > 0 && transfer.pid === PID.IN) dma.write(address, transfer.data, done, count);
      else if (count > 0) dma.read(address, transfer.data, done, count);
      done += count;
    }
  }

  #complete(transfer: XhciTransfer): void {
    if (transfer.pid === PID.IN && transfer.status === 'success') this.#move(transfer, transfer.transferred);
    const code = completionCode(transfer.status);
    this.#report(transfer, code);
    if (code !== CC.SUCCESS && !this.isochronous) this.#halt(transfer);
    else this.setState(this.state, transfer.streamId);
    this.#release(transfer);
  }

  /** Section 4.10.2: the ring stays where the failed transfer begins. */
  #halt(transfer: XhciTransfer): void {
    const ring = this.stream(transfer.streamId);
    if (typeof ring === 'number') return;
    ring.start(transfer.trbs.address(0), transfer.cycle);
    this.setState(EP_STATE.HALTED, transfer.streamId);
  }

  /** Transfer events for those TRBs that ask for one, or where the transfer ends early (sections 4.10.1, 4.11.5.2). */
  #report(transfer: XhciTransfer, code: number): void {
    const { trbs } = transfer;
    let left = transfer.status === 'success' ? transfer.transferred : Math.min(transfer.transferred, transfer.size);
    let total = 0;
    let reported = false;
    let short = false;
    for (let index = 0; index < trbs.count; index++) {
      const control = trbs.control(index);
      const type = trbs.type(index);
      const length = trbs.status(index) & LENGTH_MASK;
      let moved = 0;
      if (type === TRB.SETUP) moved = Math.min(length, SETUP_LENGTH);
      else if (type === TRB.DATA || type === TRB.NORMAL || type === TRB.ISOCH) {
        moved = Math.min(length, left);
        if (moved < length && code === CC.SUCCESS) short = true;
        left -= moved;
        total += moved;
      } else if (type === TRB.STATUS) {
        reported = false;
        short = false;
      }
      const wanted =
        (control & CONTROL.IOC) !== 0 ||
        (short && (control & CONTROL.SHORT_INTERRUPT) !== 0) ||
        (code !== CC.SUCCESS && left === 0);
      if (!reported && wanted) {
        const result = code === CC.SUCCESS && short ? CC.SHORT_PACKET : code;
        const eventData = type === TRB.EVENT_DATA;
        const remaining = eventData ? total & 0xff_ffff : length - moved;
        this.#event(
          interrupterOf(trbs.status(index)),
          eventData ? trbs.parameter(index) : trbs.address(index),
          remaining | (result << 24),
          eventData ? CONTROL.EVENT_DATA : 0,
        );
        if (eventData) total = 0;
        reported = true;
        if (code !== CC.SUCCESS) return;
      }
      if (type === TRB.SETUP) {
        reported = false;
        short = false;
      }
    }
  }

  #event(interrupter: number, parameter: number, status: number, flags: number): void {
    const control = (this.slotId << 24) | (this.id << 16) | flags;
    this.#host.event(interrupter, TRB.TRANSFER_EVENT, parameter, status >>> 0, control);
  }

  #release(transfer: XhciTransfer): void {
    const index = this.#pending.indexOf(transfer);
    if (index >= 0) this.#pending.splice(index, 1);
    if (this.retry === transfer) this.retry = undefined;
    transfer.pipe = undefined;
    if (this.#spare.length < MAX_PENDING) this.#spare.push(transfer);
  }

  /** Gives all transfers up; the first one is reported with `code`, where that is not 0. */
  cancel(code: number): void {
    let report = code;
    const first = this.#pending[0];
    if (first !== undefined && this.streamCount === 0) this.ring.start(first.trbs.address(0), first.cycle);
    for (let last = this.#pending.at(-1); last !== undefined; last = this.#pending.at(-1)) {
      if (last === first && report !== 0) {
        last.transferred = 0;
        this.#report(last, report);
        report = 0;
      }
      last.endpoint?.device.cancel(last);
      this.#release(last);
    }
    const endpoint = this.#host.usbEndpoint(this);
    endpoint?.device.endpointStopped(endpoint);
  }
}

function completionCode(status: UsbPacket['status']): number {
  switch (status) {
    case 'success':
    case 'nak':
      return CC.SUCCESS;
    case 'stall':
      return CC.STALL;
    case 'babble':
      return CC.BABBLE;
    default:
      return CC.TRANSACTION_ERROR;
  }
}
