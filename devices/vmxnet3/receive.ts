import type { Dma } from '../../core/memory/dma.ts';
import { copyUntagged, ETHERNET, get16, isTagType, padFrame } from '../../core/net/ethernet.ts';
import { LARGEST_FRAME } from '../../core/net/frame-stream.ts';
import { Packet, PROTOCOL } from '../../core/net/packet.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { COUNTED, COUNTERS, DESCRIPTOR, FEATURE, HASHED, QUEUE, RXC, RXD } from './layout.ts';
import type { Ring } from './ring.ts';
import { count, countPacket } from './statistics.ts';
import type { Steering } from './steering.ts';

/** Buffers of one frame at most: nobody needs as many. */
const MOST_FRAGMENTS = 1024;

export const receiveState = {
  vector: field.u8(),
  /** Where the driver describes the queue. */
  description: field.number(),
  counters: field.words(2 * COUNTERS),
  /** The driver has been asked to say when it has brought buffers. */
  waits: field.bool(),
};

/** A receive queue: two rings of buffers, of which the second has none for a frame's beginning, and completions. */
export interface ReceiveQueue {
  readonly rings: readonly [Ring, Ring];
  readonly completions: Ring;
  readonly state: StateValues<typeof receiveState>;
}

/** What the receiver needs of its card. */
export interface ReceiveHost {
  readonly dma: Dma;
  readonly features: number;
  /** How many of the queues the driver has set up. */
  readonly receiveQueues: number;
  /** Buffers that one frame may have; 0 where the driver does not say. */
  readonly maxFragments: number;
  /** A frame may have a head in one buffer and a body in others. */
  readonly compound: boolean;
}

/** Puts frames into the driver's buffers. */
export class Receiver {
  readonly queues: readonly ReceiveQueue[];
  readonly #host: ReceiveHost;
  readonly #steering: Steering;
  readonly #packet = new Packet();
  readonly #words = new Uint32Array(DESCRIPTOR / 4);
  readonly #completion = new Uint8Array(DESCRIPTOR);
  readonly #view = new DataView(this.#completion.buffer);
  readonly #padded = new Uint8Array(ETHERNET.SHORTEST);
  readonly #untagged = new Uint8Array(LARGEST_FRAME);
  /** The buffers of a frame: where, how long, and which descriptor of which ring each is. */
  readonly #addresses = new Float64Array(MOST_FRAGMENTS);
  readonly #lengths = new Uint16Array(MOST_FRAGMENTS);
  readonly #indices = new Uint16Array(MOST_FRAGMENTS);
  readonly #rings = new Uint8Array(MOST_FRAGMENTS);
  #found = 0;
  #tag = -1;

  constructor(queues: readonly ReceiveQueue[], host: ReceiveHost, steering: Steering) {
    this.queues = queues;
    this.#host = host;
    this.#steering = steering;
  }

  /** Stores a frame. Returns the queue that got it; undefined where there is no room for it. */
  store(frame: Uint8Array, length: number): ReceiveQueue | undefined {
    let bytes = frame;
    let size = length;
    if (length < ETHERNET.SHORTEST) {
      padFrame(frame, length, this.#padded);
      bytes = this.#padded;
      size = ETHERNET.SHORTEST;
    }
    const { features, receiveQueues } = this.#host;
    this.#packet.parse(bytes, size);
    const index = this.#steering.steer(this.#packet, bytes, receiveQueues);
    const queue = this.queues[index];
    if (queue === undefined) return undefined;
    const status = (features & FEATURE.RXCSUM) !== 0 ? this.#checksums(bytes) : 0;
    this.#tag = -1;
    if ((features & FEATURE.RXVLAN) !== 0 && isTagType(get16(bytes, ETHERNET.TYPE))) {
      this.#tag = get16(bytes, ETHERNET.HEADER);
      size = copyUntagged(bytes, size, this.#untagged);
      bytes = this.#untagged;
    }
    if (!this.#findRoom(queue, size)) {
      // The driver may have brought some just before it saw that it is to say so.
      this.#await(queue, true);
      if (!this.#findRoom(queue, size)) return undefined;
    }
    this.#await(queue, false);
    this.#fill(queue, index, bytes, size, status);
    return queue;
  }

  // Buffers

  /** Finds buffers for `size` bytes, or as many as one frame may have. Takes none where there are not enough. */
  #findRoom({ rings, completions }: ReceiveQueue, size: number): boolean {
    const [first, second] = rings;
    const { next: firstNext, generation: firstGeneration } = first;
    const { next: secondNext, generation: secondGeneration } = second;
    const most = Math.min(this.#host.maxFragments || MOST_FRAGMENTS, MOST_FRAGMENTS);
    this.#found = 0;
    for (let left = size; left > 0 && this.#found < most; ) {
      const length = completions.size === 0 ? -1 : this.#take(first, second);
      if (length < 0) {
        first.rewind(firstNext, firstGeneration);
        second.rewind(secondNext, secondGeneration);
        return false;
      }
      left -= Math.min(left, length);
    }
    return true;
  }

  /** Takes the next buffer. Returns its length; -1 where there is none. */
  #take(first: Ring, second: Ring): number {
    if (this.#found === 0 || !this.#host.compound) return this.#takeHead(first);
    if (this.#isOurs(first) && ((this.#words[2] ?? 0) & RXD.BODY) !== 0) return this.#keep(first, 0);
    return this.#isOurs(second) ? this.#keep(second, 1) : -1;
  }

  /** Bodies before it are passed over. */
  #takeHead(ring: Ring): number {
    for (let tries = 0; tries < ring.size && this.#isOurs(ring); tries++) {
      if (((this.#words[2] ?? 0) & RXD.BODY) === 0) return this.#keep(ring, 0);
      ring.advance();
    }
    return -1;
  }

  #isOurs(ring: Ring): boolean {
    return (
      ring.size > 0 &&
      this.#host.dma.readWords(ring.address, this.#words) &&
      (this.#words[2] ?? 0) >>> RXC.GENERATION_SHIFT === ring.generation
    );
  }

  #keep(ring: Ring, number: number): number {
    const words = this.#words;
    const at = this.#found++;
    const length = (words[2] ?? 0) & RXD.LENGTH;
    this.#addresses[at] = (words[0] ?? 0) + (words[1] ?? 0) * 2 ** 32;
    this.#lengths[at] = length;
    this.#indices[at] = ring.next;
    this.#rings[at] = number;
    ring.advance();
    return length;
  }

  // Completions

  #fill(queue: ReceiveQueue, index: number, bytes: Uint8Array, size: number, status: number): void {
    const { dma, receiveQueues } = this.#host;
    let done = 0;
    for (let at = 0; at < this.#found; at++) {
      const part = Math.min(size - done, this.#lengths[at] ?? 0);
      dma.write(this.#addresses[at] ?? 0, bytes, done, part);
      done += part;
    }
    const whole = done === size;
    if (whole) countPacket(queue.state.counters, bytes, size);
    else count(queue.state.counters, COUNTED.RECEIVE_ERRORS);
    const { kind, hash } = this.#steering;
    let left = done;
    for (let at = 0; at < this.#found; at++) {
      const last = at === this.#found - 1;
      const part = Math.min(left, this.#lengths[at] ?? 0);
      left -= part;
      let first = (this.#indices[at] ?? 0) | ((index + (this.#rings[at] ?? 0) * receiveQueues) << RXC.RING_SHIFT);
      if (at === 0) first |= RXC.START | (kind << RXC.HASH_SHIFT);
      if (last) first |= RXC.END | (status === 0 && whole ? RXC.NO_CHECKSUM : 0);
      let third = part;
      if (last && !whole) third |= RXC.ERROR;
      if (last && whole && this.#tag >= 0) third |= RXC.TAG | (this.#tag << RXC.TAG_SHIFT);
      const hashed = at === 0 && kind !== HASHED.NONE ? hash : 0;
      this.#complete(queue.completions, first, hashed, third, last && whole ? status : 0);
    }
  }

  #complete(ring: Ring, first: number, second: number, third: number, fourth: number): void {
    const { dma } = this.#host;
    const view = this.#view;
    view.setUint32(0, first, true);
    view.setUint32(4, second, true);
    view.setUint32(8, third, true);
    dma.write(ring.address, this.#completion, 0, DESCRIPTOR - 4);
    // The generation goes last, so that the driver never sees half of a completion.
    const generation = ring.generation << RXC.GENERATION_SHIFT;
    dma.write32(ring.address + DESCRIPTOR - 4, (fourth | RXC.TYPE | generation) >>> 0);
    ring.advance();
  }

  /** What a completion says of the checksums; 0 where there are none that were looked at. */
  #checksums(frame: Uint8Array): number {
    const packet = this.#packet;
    const { version, l4, protocol } = packet;
    if (version === 0 || l4 === 0) return 0;
    let status = RXC.FRAME_GOOD | (version === 4 ? RXC.IPV4 : RXC.IPV6);
    status |= protocol === PROTOCOL.TCP ? RXC.TCP : RXC.UDP;
    if (version === 6 || packet.networkChecksumGood(frame)) status |= RXC.NETWORK_GOOD;
    if (packet.transportChecksumGood(frame)) status |= RXC.TRANSPORT_GOOD;
    return status;
  }

  /** Asks the driver of a queue without buffers, by the memory that describes it, to say when it has brought some; or no longer to. */
  #await(queue: ReceiveQueue, wanted: boolean): void {
    if (queue.state.waits === wanted) return;
    queue.state.waits = wanted;
    this.#host.dma.write8(queue.state.description + QUEUE.CONTROL, wanted ? 1 : 0);
  }
}
