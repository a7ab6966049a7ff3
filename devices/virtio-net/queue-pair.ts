import type { Timer } from '../../core/clock/timer-queue.ts';
import { get16 } from '../../core/net/ethernet.ts';
import type { NetClient, NetReceiver } from '../../core/net/net-client.ts';
import { Packet, PROTOCOL } from '../../core/net/packet.ts';
import type { VirtqueueElement } from '../../core/virtio/element.ts';
import { QUEUE_SIZE_MAX } from '../../core/virtio/features.ts';
import type { Virtqueue } from '../../core/virtio/virtqueue.ts';
import { HEADER, NEEDS_CSUM } from './protocol.ts';
import type { Steering } from './steering.ts';

/** The longest frame, header included, with room for segments that nobody should send. */
const FRAME_MAX = 0x1_1000;
const BOOTP_SERVER_PORT = 67;
/** Longer than any packet that the workaround for DHCP clients is about. */
const DHCP_MAX = 1500;

/** What a pair of queues needs of its card. */
export interface PairOwner {
  /** The driver is there and the machine runs. */
  readonly live: boolean;
  readonly disabled: boolean;
  /** Bytes before each frame in the driver's buffers. */
  readonly headerLength: number;
  /** Whether a frame may lie in several of the driver's buffers. */
  readonly mergeable: boolean;
  readonly steering: Steering;
  /** Whether the card takes the frame that begins at byte `at`. */
  takes(frame: Uint8Array, at: number): boolean;
  /** The pair of that number, where the driver uses it. */
  pair(index: number): QueuePair | undefined;
  broken(message: string): void;
}

/** A receive queue and a transmit queue (virtio 1.2, section 5.1.2), and the port of the card that they serve. */
export class QueuePair implements NetReceiver {
  readonly #owner: PairOwner;
  readonly #index: number;
  readonly #frame = new Uint8Array(FRAME_MAX);
  readonly #header = new Uint8Array(HEADER.HASHED);
  readonly #packet = new Packet();
  /** The buffers of the frame that is being received, and how many bytes each got. */
  readonly #merged: VirtqueueElement[] = [];
  readonly #lengths: number[] = [];
  port: NetClient | undefined;
  /** Undefined while the driver cannot see them. */
  receiveQueue: Virtqueue | undefined;
  transmitQueue: Virtqueue | undefined;
  /** `tx=timer`: how long frames wait for more of them. */
  readonly #delay: { readonly timer: Timer; readonly ns: number } | undefined;
  /** The wire has not taken the last frame yet. */
  #held = false;

  constructor(owner: PairOwner, index: number, delay?: { readonly timer: Timer; readonly ns: number }) {
    this.#owner = owner;
    this.#index = index;
    this.#delay = delay;
  }

  reset(): void {
    this.#held = false;
    this.#delay?.timer.cancel();
    this.port?.purge();
  }

  /** The machine runs again. */
  resumed(): void {
    if (this.transmitQueue?.ready) this.transmit(this.transmitQueue);
    this.port?.receiverReady();
  }

  // From the wire (section 5.1.6.4)

  canReceive(): boolean {
    const owner = this.#owner;
    return owner.live && !owner.disabled && (this.receiveQueue?.ready ?? false) && owner.pair(this.#index) === this;
  }

  receive(frame: Uint8Array, length: number): boolean {
    if (!this.canReceive()) return false;
    const { steering } = this.#owner;
    if (!steering.enabled) return this.#take(frame, length);
    const index = steering.steer(frame, this.#onWire(), length);
    if (index === undefined || index === this.#index) return this.#take(frame, length);
    const other = this.#owner.pair(index);
    // A table may name a pair that is not in use: such a frame is for nobody.
    return other === undefined || !other.canReceive() || other.#take(frame, length);
  }

  #onWire(): number {
    return this.port?.headerLength ?? 0;
  }

  #take(frame: Uint8Array, length: number): boolean {
    const queue = this.receiveQueue;
    const owner = this.#owner;
    if (queue === undefined) return false;
    const onWire = this.#onWire();
    if (!owner.takes(frame, onWire)) return true;
    const { mergeable, headerLength: header } = owner;
    let done = onWire;
    let count = 0;
    while (done < length) {
      const element = count < queue.size && count < QUEUE_SIZE_MAX ? this.#nextBuffer(queue) : undefined;
      if (element === undefined) {
        this.#giveBack(queue, count);
        return owner.disabled;
      }
      if (element.inCount < 1) {
        owner.broken('virtio-net receive queue contains no in buffers');
        queue.detach(element);
        this.#drop(queue, count);
        return true;
      }
      const start = count === 0 ? header : 0;
      const written = element.write(frame, start, done, length - done);
      this.#merged[count] = element;
      this.#lengths[count] = start + written;
      count++;
      done += written;
      if (!mergeable && done < length) {
        // It does not fit, and it would not fit any other time.
        this.#giveBack(queue, count);
        return true;
      }
    }
    this.#finish(queue, frame, length, count);
    return true;
  }

  /** While there are buffers the driver need not say so; where there are none it may bring some before it knows that it must. */
  #nextBuffer(queue: Virtqueue): VirtqueueElement | undefined {
    let element = queue.pop();
    if (element === undefined && !this.#owner.disabled) {
      queue.setNotification(true);
      element = queue.pop();
    }
    if (element !== undefined && queue.notification) queue.setNotification(false);
    return element;
  }

  #finish(queue: Virtqueue, frame: Uint8Array, length: number, count: number): void {
    const header = this.#header;
    const onWire = this.#onWire();
    for (let at = 0; at < header.length; at++) header[at] = at < onWire ? (frame[at] ?? 0) : 0;
    if (count === 1 && ((header[HEADER.FLAGS] ?? 0) & NEEDS_CSUM) !== 0) this.#completeDhcp(frame, onWire, length);
    const { steering, headerLength } = this.#owner;
    header[HEADER.NUM_BUFFERS] = count;
    header[HEADER.NUM_BUFFERS + 1] = count >>> 8;
    if (headerLength === HEADER.HASHED) {
      const { hash, report } = steering;
      for (let at = 0; at < 4; at++) header[HEADER.HASH_VALUE + at] = hash >>> (8 * at);
      for (let at = HEADER.HASH_REPORT; at < HEADER.HASHED; at++) header[at] = 0;
      header[HEADER.HASH_REPORT] = report;
    }
    this.#merged[0]?.write(header, 0, 0, headerLength);
    for (let index = 0; index < count; index++) {
      const element = this.#merged[index];
      if (element !== undefined) queue.push(element, this.#lengths[index] ?? 0);
    }
    queue.notify();
  }

  /** Old DHCP clients look at raw packets and find a checksum that is not there yet: theirs are completed, as QEMU's card does. */
  #completeDhcp(frame: Uint8Array, start: number, length: number): void {
    if (length - start >= DHCP_MAX) return;
    const packet = this.#packet;
    packet.parse(frame, length, start);
    if (packet.version !== 4 || packet.protocol !== PROTOCOL.UDP) return;
    if (get16(frame, packet.l4) !== BOOTP_SERVER_PORT) return;
    packet.putTransportChecksum(frame);
    this.#merged[0]?.write(frame, this.#owner.headerLength, start, length - start);
    this.#header[HEADER.FLAGS] = (this.#header[HEADER.FLAGS] ?? 0) & ~NEEDS_CSUM;
  }

  #giveBack(queue: Virtqueue, count: number): void {
    for (let index = count - 1; index >= 0; index--) {
      const element = this.#merged[index];
      if (element !== undefined) queue.unpop(element);
    }
  }

  #drop(queue: Virtqueue, count: number): void {
    for (let index = 0; index < count; index++) {
      const element = this.#merged[index];
      if (element !== undefined) queue.detach(element);
    }
  }

  // To the wire (section 5.1.6.2)

  /** The driver has frames to send. With a delay, a second call ends it. */
  transmitSoon(queue: Virtqueue): void {
    const delay = this.#delay;
    if (delay === undefined || delay.timer.pending) {
      delay?.timer.cancel();
      this.transmit(queue);
    } else delay.timer.arm(delay.ns);
  }

  transmit(queue: Virtqueue): void {
    if (!this.#owner.live || this.#held) return;
    this.port?.burst(true);
    let sent = false;
    let good = true;
    do {
      queue.setNotification(false);
      for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
        good = this.#send(queue, element);
        sent = true;
        if (!good || this.#held) break;
      }
      if (good && !this.#held) queue.setNotification(true);
    } while (good && !this.#held && !queue.empty);
    this.port?.burst(false);
    if (sent && good) queue.notify();
  }

  #send(queue: Virtqueue, element: VirtqueueElement): boolean {
    const header = this.#owner.headerLength;
    const onWire = this.#onWire();
    if (element.outCount < 1 || (onWire > 0 && element.out.length < header)) {
      this.#owner.broken(
        element.outCount < 1 ? 'virtio-net header not in first element' : 'virtio-net header incorrect',
      );
      queue.detach(element);
      return false;
    }
    const length = element.read(this.#frame, header - onWire);
    const { port } = this;
    if (port !== undefined && length > onWire && !port.send(this.#frame, length)) {
      this.#held = true;
      port.onDrained(() => this.#release());
    }
    queue.push(element, 0);
    return true;
  }

  #release(): void {
    if (!this.#held) return;
    this.#held = false;
    if (this.transmitQueue?.ready) this.transmit(this.transmitQueue);
  }
}
