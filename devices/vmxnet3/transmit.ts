import type { Dma } from '../../core/memory/dma.ts';
import { fold, sumWords } from '../../core/net/checksum.ts';
import { ETHER_TYPE, ETHERNET, put16 } from '../../core/net/ethernet.ts';
import { LARGEST_FRAME } from '../../core/net/frame-stream.ts';
import { Packet, PROTOCOL, Segmenter } from '../../core/net/packet.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { COUNTED, COUNTERS, DESCRIPTOR, OFFLOAD, TXD } from './layout.ts';
import type { Ring } from './ring.ts';
import { count, countPacket } from './statistics.ts';

/** Segments that one packet may become; what asks for more is no packet. */
const MOST_SEGMENTS = 4096;
/** Bytes moved after which others have their turn. */
const TURN = 4 * 2 ** 20;

export const transmitState = {
  vector: field.u8(),
  /** Where the driver describes the queue. */
  description: field.number(),
  counters: field.words(2 * COUNTERS),
};

/** What the transmit queues need of their card. */
export interface TransmitHost {
  readonly dma: Dma;
  /** Sends the first `length` bytes of `frame`. */
  send(frame: Uint8Array, length: number): void;
}

/** Where packets are put together; the queues share it. */
export class Assembly {
  readonly data = new Uint8Array(LARGEST_FRAME);
  readonly packet = new Packet();
  readonly segmenter = new Segmenter();
}

/** A transmit queue: descriptors of a packet's pieces, and completions for packets. */
export class TransmitQueue {
  readonly ring: Ring;
  readonly completions: Ring;
  readonly state: StateValues<typeof transmitState>;
  readonly #host: TransmitHost;
  readonly #assembly: Assembly;
  readonly #words = new Uint32Array(DESCRIPTOR / 4);
  readonly #completion = new Uint8Array(DESCRIPTOR);
  readonly #view = new DataView(this.#completion.buffer);
  /** The third and fourth word of the packet's first descriptor, which say what is to be done with it. */
  #first = 0;
  #wanted = 0;
  #size = 0;
  #good = true;
  #moved = 0;

  constructor(
    ring: Ring,
    completions: Ring,
    state: StateValues<typeof transmitState>,
    host: TransmitHost,
    assembly: Assembly,
  ) {
    this.ring = ring;
    this.completions = completions;
    this.state = state;
    this.#host = host;
    this.#assembly = assembly;
  }

  /**
   * Sends the packets that are there, one ring's full of them at most.
   * @returns `rest` where that took its time and there may be more, `done` where some were completed
   */
  process(): 'none' | 'done' | 'rest' {
    const { ring } = this;
    this.#moved = 0;
    let outcome: 'none' | 'done' = 'none';
    for (let left = ring.size; left > 0; ) {
      if (this.#moved > TURN) return 'rest';
      const { next, generation } = ring;
      const used = this.#gather(left);
      if (used === 0) {
        // Its end is not there yet: it is looked at again when the driver rings.
        ring.rewind(next, generation);
        break;
      }
      left -= used;
      const done = this.#good && this.#finish();
      if (!done) count(this.state.counters, COUNTED.SEND_ERRORS);
      this.#complete((next + used - 1) % ring.size);
      outcome = 'done';
    }
    return outcome;
  }

  /** Puts a packet together. Returns how many descriptors it has; 0 where it is not complete within `most`. */
  #gather(most: number): number {
    const { dma } = this.#host;
    const { ring } = this;
    const words = this.#words;
    this.#good = true;
    for (let used = 0; used < most; ) {
      if (!dma.readWords(ring.address, words)) return 0;
      const third = words[2] ?? 0;
      const fourth = words[3] ?? 0;
      if (((third >>> TXD.GENERATION_SHIFT) & 1) !== ring.generation) return 0;
      ring.advance();
      if (used++ === 0) {
        this.#first = third;
        this.#wanted = fourth;
        this.#size = (fourth & TXD.TAG) !== 0 ? ETHERNET.VLAN_HEADER : 0;
      }
      this.#append((words[0] ?? 0) + (words[1] ?? 0) * 2 ** 32, third & TXD.LENGTH);
      if ((fourth & TXD.END) !== 0) return used;
    }
    return 0;
  }

  #append(address: number, length: number): void {
    const { data } = this.#assembly;
    const size = length === 0 ? TXD.LONGEST : length;
    if (!this.#good || this.#size + size > data.length || !this.#host.dma.read(address, data, this.#size, size)) {
      this.#good = false;
      return;
    }
    this.#size += size;
    this.#moved += size;
  }

  /** Does what is left to be done with the packet, and sends it. Returns false where that makes no sense. */
  #finish(): boolean {
    const wanted = this.#wanted;
    const tagged = (wanted & TXD.TAG) !== 0;
    const shift = tagged ? ETHERNET.VLAN_HEADER : 0;
    if (this.#size - shift < ETHERNET.HEADER) return false;
    const { data } = this.#assembly;
    if (tagged) {
      data.copyWithin(0, shift, shift + ETHERNET.TYPE);
      put16(data, ETHERNET.TYPE, ETHER_TYPE.VLAN);
      put16(data, ETHERNET.HEADER, wanted >>> TXD.TAG_SHIFT);
    }
    const offset = this.#first >>> TXD.OFFSET_SHIFT;
    switch ((wanted >>> TXD.OFFLOAD_SHIFT) & TXD.OFFLOAD) {
      case OFFLOAD.CHECKSUM:
        if (!this.#putChecksum(offset + shift, (wanted & TXD.HEADER) + shift)) return false;
        break;
      case OFFLOAD.SEGMENTS:
        return this.#sendSegments(offset);
    }
    this.#host.send(data, this.#size);
    countPacket(this.state.counters, data, this.#size);
    return true;
  }

  /** The driver has put the sum of the pseudo-header at `place`; what is summed begins at `start`. */
  #putChecksum(place: number, start: number): boolean {
    const { data } = this.#assembly;
    if (start > place || place + 2 > this.#size) return false;
    const sum = fold(sumWords(data, start, this.#size));
    // UDP's checksum of 0 means that there is none; TCP's may as well be the other zero.
    put16(data, place, sum === 0 ? 0xffff : sum);
    return true;
  }

  #sendSegments(segmentSize: number): boolean {
    const { data, packet, segmenter } = this.#assembly;
    packet.parse(data, this.#size);
    if (packet.l4 === 0 || packet.protocol !== PROTOCOL.TCP || segmentSize === 0) return false;
    const payload = packet.l3 + packet.l3Length - packet.payload;
    if (payload > segmentSize * MOST_SEGMENTS) return false;
    const { counters } = this.state;
    countPacket(counters, data, this.#size);
    if (payload === 0) {
      if (packet.version === 4) packet.putNetworkChecksum(data);
      packet.putTransportChecksum(data);
      this.#host.send(data, this.#size);
      return true;
    }
    segmenter.segment(data, packet, segmentSize, (segment, length) => {
      count(counters, COUNTED.LARGE);
      count(counters, COUNTED.LARGE_BYTES, length);
      this.#moved += length;
      this.#host.send(segment, length);
    });
    return true;
  }

  /** Tells the driver that it may have the descriptors up to `last` back. */
  #complete(last: number): void {
    const { completions } = this;
    const { dma } = this.#host;
    this.#view.setUint32(0, last, true);
    dma.write(completions.address, this.#completion, 0, DESCRIPTOR - 4);
    dma.write32(completions.address + DESCRIPTOR - 4, (completions.generation << 31) >>> 0);
    completions.advance();
  }
}
