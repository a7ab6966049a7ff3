import { fold, sumWords } from './checksum.ts';
import { ETHER_TYPE, ETHERNET, get16, get32, isTagType, put16, put32 } from './ethernet.ts';

export const PROTOCOL = { TCP: 6, UDP: 17 } as const;

/** Headers of IPv6 that stand before the transport's (RFC 8200, section 4). */
const EXTENSION = { HOP_BY_HOP: 0, ROUTING: 43, FRAGMENT: 44, AUTHENTICATION: 51, DESTINATION: 60 } as const;
/** More of them than anyone sends. */
const MAX_EXTENSIONS = 8;
const IPV4_HEADER = 20;
const IPV6_HEADER = 40;
const TCP_HEADER = 20;
const UDP_HEADER = 8;
const MAX_TAGS = 2;
const HOME_ADDRESS = 0xc9;
const ROUTING_TYPE_2 = 2;
const TCP_FLAGS = 13;
const TCP_PSH_FIN = 0x09;
const LARGEST = 0x1_1000;

/** Where a packet's headers are. One object is used for packet after packet; nothing is allocated. */
export class Packet {
  /** The type behind the VLAN tags. */
  etherType = 0;
  /** Where the network header is, and its version: 4, 6, or 0 for another. */
  l3 = 0;
  version = 0;
  /** The whole datagram's length, headers included, as its header says and as much of it as there is. */
  l3Length = 0;
  fragment = false;
  /** Where the transport header is, and which protocol's; 0 where there is none that is whole. */
  l4 = 0;
  protocol = 0;
  /** Where TCP's or UDP's data begin. */
  payload = 0;
  /** Where the addresses are that a flow is known by: with IPv6's home address and routing headers heeded. */
  source = 0;
  destination = 0;
  /** Those of the fixed header. */
  fixedSource = 0;
  fixedDestination = 0;
  hasExtensions = false;

  get addressLength(): number {
    return this.version === 4 ? 4 : 16;
  }

  /** Finds the headers of the frame that is in the bytes of `frame` from `start` to before `length`. */
  parse(frame: Uint8Array, length: number, start = 0): void {
    this.version = 0;
    this.l4 = 0;
    this.protocol = 0;
    this.payload = 0;
    this.fragment = false;
    this.hasExtensions = false;
    this.l3Length = 0;
    let at = start + ETHERNET.TYPE;
    let type = get16(frame, at);
    for (let tags = 0; isTagType(type) && tags < MAX_TAGS; tags++) {
      at += ETHERNET.VLAN_HEADER;
      type = get16(frame, at);
    }
    this.etherType = type;
    this.l3 = at + 2;
    if (type === ETHER_TYPE.IPV4) this.#parseIpv4(frame, length);
    else if (type === ETHER_TYPE.IPV6) this.#parseIpv6(frame, length);
  }

  #parseIpv4(frame: Uint8Array, length: number): void {
    const { l3 } = this;
    const header = ((frame[l3] ?? 0) & 0xf) * 4;
    if (l3 + IPV4_HEADER > length || (frame[l3] ?? 0) >> 4 !== 4 || header < IPV4_HEADER || l3 + header > length)
      return;
    const total = get16(frame, l3 + 2);
    if (total < header) return;
    this.version = 4;
    this.l3Length = Math.min(total, length - l3);
    this.fixedSource = l3 + 12;
    this.fixedDestination = l3 + 16;
    this.source = this.fixedSource;
    this.destination = this.fixedDestination;
    this.fragment = (get16(frame, l3 + 6) & 0x3fff) !== 0;
    if (!this.fragment) this.#findTransport(frame, l3 + header, frame[l3 + 9] ?? 0);
  }

  #parseIpv6(frame: Uint8Array, length: number): void {
    const { l3 } = this;
    if (l3 + IPV6_HEADER > length || (frame[l3] ?? 0) >> 4 !== 6) return;
    this.version = 6;
    this.l3Length = Math.min(IPV6_HEADER + get16(frame, l3 + 4), length - l3);
    this.fixedSource = l3 + 8;
    this.fixedDestination = l3 + 24;
    this.source = this.fixedSource;
    this.destination = this.fixedDestination;
    const end = l3 + this.l3Length;
    let next = frame[l3 + 6] ?? 0;
    let at = l3 + IPV6_HEADER;
    for (let count = 0; count < MAX_EXTENSIONS; count++) {
      if (at + 8 > end || !isExtension(next)) break;
      this.hasExtensions = true;
      const units = frame[at + 1] ?? 0;
      const size =
        next === EXTENSION.FRAGMENT ? 8 : next === EXTENSION.AUTHENTICATION ? (units + 2) * 4 : (units + 1) * 8;
      if (at + size > end) return;
      if (next === EXTENSION.FRAGMENT && (get16(frame, at + 2) & 0xfff9) !== 0) this.fragment = true;
      if (next === EXTENSION.ROUTING) this.#takeRouting(frame, at, size);
      if (next === EXTENSION.DESTINATION) this.#takeHomeAddress(frame, at, size);
      next = frame[at] ?? 0;
      at += size;
    }
    if (!this.fragment) this.#findTransport(frame, at, next);
  }

  /** Mobile IPv6's routing header has the home address, which flows are known by (RFC 6275, section 6.4). */
  #takeRouting(frame: Uint8Array, at: number, size: number): void {
    if (size >= 24 && frame[at + 2] === ROUTING_TYPE_2 && frame[at + 3] === 1) this.destination = at + 8;
  }

  /** The home address option (RFC 6275, section 6.3). */
  #takeHomeAddress(frame: Uint8Array, at: number, size: number): void {
    for (let option = at + 2; option < at + size; ) {
      const kind = frame[option] ?? 0;
      if (kind === 0) {
        option++;
        continue;
      }
      const length = frame[option + 1] ?? 0;
      if (kind === HOME_ADDRESS && length === 16 && option + 18 <= at + size) {
        this.source = option + 2;
        return;
      }
      option += 2 + length;
    }
  }

  #findTransport(frame: Uint8Array, at: number, protocol: number): void {
    const end = this.l3 + this.l3Length;
    if (protocol === PROTOCOL.TCP) {
      const header = ((frame[at + 12] ?? 0) >> 4) * 4;
      if (at + TCP_HEADER > end || header < TCP_HEADER || at + header > end) return;
      this.payload = at + header;
    } else if (protocol === PROTOCOL.UDP) {
      if (at + UDP_HEADER > end) return;
      this.payload = at + UDP_HEADER;
    } else return;
    this.l4 = at;
    this.protocol = protocol;
  }

  /** Whether the IPv4 header's checksum is right. */
  networkChecksumGood(frame: Uint8Array): boolean {
    return fold(sumWords(frame, this.l3, this.l3 + ((frame[this.l3] ?? 0) & 0xf) * 4)) === 0;
  }

  /** Whether TCP's or UDP's checksum is right; UDP's may be left out over IPv4 (RFC 768). */
  transportChecksumGood(frame: Uint8Array): boolean {
    if (this.protocol === PROTOCOL.UDP && this.version === 4 && get16(frame, this.l4 + 6) === 0) return true;
    return fold(this.#transportSum(frame, this.l3 + this.l3Length)) === 0;
  }

  putNetworkChecksum(frame: Uint8Array): void {
    const header = ((frame[this.l3] ?? 0) & 0xf) * 4;
    put16(frame, this.l3 + 10, 0);
    put16(frame, this.l3 + 10, fold(sumWords(frame, this.l3, this.l3 + header)));
  }

  /** TCP's or UDP's checksum over the whole datagram (RFC 9293, section 3.1; RFC 768; RFC 8200, section 8.1). */
  putTransportChecksum(frame: Uint8Array): void {
    const place = this.l4 + (this.protocol === PROTOCOL.TCP ? 16 : 6);
    put16(frame, place, 0);
    const sum = fold(this.#transportSum(frame, this.l3 + this.l3Length));
    // A UDP checksum of 0 means that there is none.
    put16(frame, place, sum === 0 && this.protocol === PROTOCOL.UDP ? 0xffff : sum);
  }

  #transportSum(frame: Uint8Array, end: number): number {
    const pseudo = sumWords(frame, this.fixedSource, this.fixedSource + this.addressLength * 2);
    return pseudo + this.protocol + (end - this.l4) + sumWords(frame, this.l4, end);
  }
}

const isExtension = (header: number): boolean =>
  header === EXTENSION.HOP_BY_HOP ||
  header === EXTENSION.ROUTING ||
  header === EXTENSION.FRAGMENT ||
  header === EXTENSION.AUTHENTICATION ||
  header === EXTENSION.DESTINATION;

/** Cuts a TCP packet that is too large for the wire into ones that are not (TCP segmentation offload). */
export class Segmenter {
  readonly #segment = new Uint8Array(LARGEST);
  readonly #packet = new Packet();

  /**
   * Calls `send` for each segment, whose bytes are only valid during the call.
   * @param packet what `frame` holds: TCP over IP
   * @param segmentSize bytes of data in each but the last
   */
  segment(
    frame: Uint8Array,
    packet: Packet,
    segmentSize: number,
    send: (segment: Uint8Array, length: number) => void,
  ): void {
    const header = packet.payload;
    const end = packet.l3 + packet.l3Length;
    const size = Math.max(1, segmentSize);
    const segment = this.#segment;
    const part = this.#packet;
    const sequence = get32(frame, packet.l4 + 4);
    const identification = get16(frame, packet.l3 + 4);
    let number = 0;
    for (let from = header; from < end; from += size, number++) {
      const length = Math.min(size, end - from);
      copy(frame, 0, segment, 0, header);
      copy(frame, from, segment, header, length);
      if (packet.version === 4) {
        put16(segment, packet.l3 + 2, header - packet.l3 + length);
        put16(segment, packet.l3 + 4, identification + number);
      } else {
        put16(segment, packet.l3 + 4, header - packet.l3 - IPV6_HEADER + length);
      }
      put32(segment, packet.l4 + 4, (sequence + from - header) >>> 0);
      if (from + length < end) segment[packet.l4 + TCP_FLAGS] = (segment[packet.l4 + TCP_FLAGS] ?? 0) & ~TCP_PSH_FIN;
      part.parse(segment, header + length);
      if (part.version === 4) part.putNetworkChecksum(segment);
      if (part.l4 !== 0) part.putTransportChecksum(segment);
      send(segment, header + length);
    }
  }
}

function copy(from: Uint8Array, at: number, to: Uint8Array, toAt: number, length: number): void {
  for (let index = 0; index < length; index++) to[toAt + index] = from[at + index] ?? 0;
}
