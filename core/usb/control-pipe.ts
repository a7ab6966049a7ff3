import { field, type StateValues } from '../state/fields.ts';
import { PID, type UsbPacket } from './packet.ts';
import { LATER, REQUEST_TYPE, STALL } from './request.ts';

/** A control transfer's data stage is kept here, so a longer one is refused. */
const DATA_SIZE = 4096;
const SETUP_SIZE = 8;

export const controlPipeState = {
  stage: field.oneOf(['idle', 'setup', 'data', 'status', 'whole'], 'idle'),
  setup: field.bytes(SETUP_SIZE),
  data: field.bytes(DATA_SIZE),
  length: field.u16(),
  index: field.u16(),
};

/**
 * What a control transfer asks for. Returns bytes put into `data` (0 for requests that bring data), STALL, or LATER: then
 * {@link ControlPipe.answer} follows.
 */
export type ControlHandler = (
  request: number,
  value: number,
  index: number,
  length: number,
  data: Uint8Array,
) => number;

/** Endpoint 0: setup, data and status stages (USB 2.0, section 8.5.3). */
export class ControlPipe {
  readonly #s: StateValues<typeof controlPipeState>;
  readonly #handle: ControlHandler;

  constructor(state: StateValues<typeof controlPipeState>, handle: ControlHandler) {
    this.#s = state;
    this.#handle = handle;
  }

  reset(): void {
    this.#s.stage = 'idle';
  }

  /** Serves one packet. */
  process(packet: UsbPacket): void {
    if (packet.whole) this.#whole(packet);
    else if (packet.pid === PID.SETUP) this.#setup(packet);
    else if (packet.pid === PID.IN) this.#in(packet);
    else this.#out(packet);
  }

  /** The handler's answer to `packet`, which it had put off. The caller then completes the packet. */
  answer(packet: UsbPacket, result: number): void {
    const s = this.#s;
    if (result === STALL) {
      s.stage = 'idle';
      packet.status = 'stall';
      return;
    }
    packet.status = 'success';
    if (s.stage === 'setup') this.#dataReady(packet, result);
    else if (s.stage === 'whole') this.#wholeDone(packet, result);
    else this.#statusDone(packet);
  }

  get #answers(): boolean {
    return ((this.#s.setup[0] ?? 0) & REQUEST_TYPE.IN) !== 0;
  }

  #call(): number {
    const { setup, data, length } = this.#s;
    const at = (index: number): number => setup[index] ?? 0;
    const request = (at(0) << 8) | at(1);
    return this.#handle(request, at(2) | (at(3) << 8), at(4) | (at(5) << 8), length, data);
  }

  /** Takes over the request; false where its data would not fit. */
  #begin(): boolean {
    const s = this.#s;
    const length = (s.setup[6] ?? 0) | ((s.setup[7] ?? 0) << 8);
    s.index = 0;
    s.length = Math.min(length, DATA_SIZE);
    return length <= DATA_SIZE;
  }

  #setup(packet: UsbPacket): void {
    const s = this.#s;
    if (packet.size !== SETUP_SIZE) {
      packet.status = 'stall';
      return;
    }
    packet.take(s.setup, 0, SETUP_SIZE);
    packet.transferred = 0;
    if (!this.#begin()) {
      packet.status = 'stall';
      return;
    }
    if (!this.#answers) {
      s.stage = s.length === 0 ? 'status' : 'data';
      packet.transferred = SETUP_SIZE;
      return;
    }
    const result = this.#call();
    if (result === LATER) {
      s.stage = 'setup';
      packet.status = 'async';
    } else if (result === STALL) packet.status = 'stall';
    else this.#dataReady(packet, result);
  }

  #dataReady(packet: UsbPacket, count: number): void {
    const s = this.#s;
    s.length = Math.min(s.length, count);
    s.stage = 'data';
    packet.transferred = SETUP_SIZE;
  }

  #in(packet: UsbPacket): void {
    const s = this.#s;
    if (s.stage === 'data' && this.#answers) {
      s.index += packet.put(s.data, s.index, s.length - s.index);
      if (s.index >= s.length) s.stage = 'status';
      return;
    }
    if (s.stage === 'status') {
      // What a request brings is acted upon in its status stage.
      if (this.#answers) return;
      const result = this.#call();
      if (result === LATER) packet.status = 'async';
      else if (result === STALL) {
        s.stage = 'idle';
        packet.status = 'stall';
      } else this.#statusDone(packet);
      return;
    }
    s.stage = 'idle';
    packet.status = 'stall';
  }

  #statusDone(packet: UsbPacket): void {
    this.#s.stage = 'idle';
    packet.transferred = 0;
  }

  #out(packet: UsbPacket): void {
    const s = this.#s;
    if (s.stage === 'status') {
      if (this.#answers) s.stage = 'idle';
      return;
    }
    if (s.stage === 'data' && !this.#answers) {
      s.index += packet.take(s.data, s.index, s.length - s.index);
      if (s.index >= s.length) s.stage = 'status';
      return;
    }
    s.stage = 'idle';
    packet.status = 'stall';
  }

  /** All three stages in one packet. */
  #whole(packet: UsbPacket): void {
    const s = this.#s;
    s.setup.set(packet.setup);
    s.stage = 'whole';
    if (!this.#begin()) {
      packet.status = 'stall';
      return;
    }
    if (packet.pid === PID.OUT) packet.take(s.data, 0, s.length);
    const result = this.#call();
    if (result === LATER) packet.status = 'async';
    else if (result === STALL) packet.status = 'stall';
    else this.#wholeDone(packet, result);
  }

  #wholeDone(packet: UsbPacket, count: number): void {
    const s = this.#s;
    s.stage = 'idle';
    if (packet.pid !== PID.IN) return;
    packet.transferred = 0;
    packet.put(s.data, 0, Math.min(s.length, count));
  }
}
