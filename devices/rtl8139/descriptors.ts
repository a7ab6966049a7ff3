import type { Dma } from '../../core/memory/dma.ts';
import { ETHER_TYPE, ETHERNET, put16 } from '../../core/net/ethernet.ts';
import { Packet, PROTOCOL, Segmenter } from '../../core/net/packet.ts';
import { field, type StateValues } from '../../core/state/fields.ts';

const DESCRIPTOR = 16;
const LARGEST = 0x1_0000;
/** Rings have at most this many descriptors (RTL8139C+ data sheet, section 6.2). */
const RING = 64;
/** Bits of descriptors' first word (sections 6.2.1 and 6.2.2). */
const OWN = 0x8000_0000;
const EOR = 0x4000_0000;
const FS = 0x2000_0000;
const LS = 0x1000_0000;
const TX = { LGSEN: 1 << 27, IPCS: 1 << 18, UDPCS: 1 << 17, TCPCS: 1 << 16, MSS_SHIFT: 16, MSS: 0x7ff } as const;
/** Underrun, and the kinds of errors, which a status reports. */
const TX_ERRORS = 0x02f0_0000;
const TX_TAGC = 1 << 17;
const RX = {
  MAR: 1 << 26,
  PAM: 1 << 25,
  BAR: 1 << 24,
  PID_SHIFT: 16,
  IPF: 1 << 15,
  UDPF: 1 << 14,
  TCPF: 1 << 13,
  SIZE: 0x1fff,
} as const;
/** What PID says a packet is. */
const PID = { OTHER: 0, TCP: 1, UDP: 2, IP: 3 } as const;
const RX_TAVA = 1 << 16;
const TAG_AT = 12;

export const ringState = {
  transmitNext: field.u32(),
  receiveNext: field.u32(),
  assembled: field.bytes(LARGEST + ETHERNET.VLAN_HEADER),
  size: field.u32(),
};

/** How a destination was matched, as the receive status says. */
export type Match = 'group' | 'own' | 'broadcast' | 'promiscuous';

/** What the rings need of their card. */
export interface RingHost {
  readonly dma: Dma;
  send(frame: Uint8Array, length: number): void;
}

/** C+ mode: rings of descriptors, with checksums and segmentation (section 6.2). */
export class DescriptorRings {
  readonly #s: StateValues<typeof ringState>;
  readonly #host: RingHost;
  readonly #bytes = new Uint8Array(DESCRIPTOR);
  readonly #words = new DataView(this.#bytes.buffer);
  readonly #packet = new Packet();
  readonly #segmenter = new Segmenter();
  readonly #sendSegment = (segment: Uint8Array, length: number): void => this.#sendTagged(segment, length);
  #tag = 0;
  #tagged = false;

  constructor(state: StateValues<typeof ringState>, host: RingHost) {
    this.#s = state;
    this.#host = host;
  }

  restartTransmit(): void {
    this.#s.transmitNext = 0;
  }

  restartReceive(): void {
    this.#s.receiveNext = 0;
  }

  /** Sends what the ring at `base` holds; returns how many descriptors that was. */
  transmit(base: number): number {
    let count = 0;
    while (count < RING && this.#transmitOne(base)) count++;
    return count;
  }

  #transmitOne(base: number): boolean {
    const s = this.#s;
    const { dma } = this.#host;
    const at = base + s.transmitNext * DESCRIPTOR;
    if (!dma.read(at, this.#bytes)) return false;
    const command = this.#words.getUint32(0, true);
    const vlan = this.#words.getUint32(4, true);
    if ((command & OWN) === 0) return false;
    if ((command & FS) !== 0) s.size = 0;
    const length = Math.min(command & 0xffff, LARGEST - s.size);
    const buffer = this.#words.getUint32(8, true) + this.#words.getUint32(12, true) * 2 ** 32;
    dma.read(buffer, s.assembled, s.size, length);
    s.size += length;
    s.transmitNext = (command & EOR) !== 0 ? 0 : (s.transmitNext + 1) % RING;
    dma.write32(at, (command & ~(OWN | TX_ERRORS)) >>> 0);
    if ((command & LS) !== 0) this.#sendAssembled(command, vlan);
    return true;
  }

  #sendAssembled(command: number, vlan: number): void {
    const s = this.#s;
    const { assembled, size } = s;
    const packet = this.#packet;
    s.size = 0;
    this.#tagged = (vlan & TX_TAGC) !== 0;
    // The tag's bytes stand in the descriptor as on the wire.
    this.#tag = ((vlan & 0xff) << 8) | ((vlan >>> 8) & 0xff);
    const wanted = command & (TX.LGSEN | TX.IPCS | TX.UDPCS | TX.TCPCS);
    if (wanted !== 0) {
      packet.parse(assembled, size);
      if (packet.version === 4 && (command & TX.LGSEN) !== 0 && packet.protocol === PROTOCOL.TCP) {
        this.#segmenter.segment(assembled, packet, (command >>> TX.MSS_SHIFT) & TX.MSS, this.#sendSegment);
        return;
      }
      if (packet.version === 4 && (command & TX.LGSEN) === 0) this.#putChecksums(command);
    }
    this.#sendTagged(assembled, size);
  }

  #putChecksums(command: number): void {
    const { assembled } = this.#s;
    const packet = this.#packet;
    if ((command & TX.IPCS) !== 0) packet.putNetworkChecksum(assembled);
    if (packet.l4 === 0) return;
    const wanted = packet.protocol === PROTOCOL.TCP ? TX.TCPCS : TX.UDPCS;
    if ((command & wanted) !== 0) packet.putTransportChecksum(assembled);
  }

  #sendTagged(frame: Uint8Array, length: number): void {
    if (length === 0) return;
    if (!this.#tagged || length < TAG_AT) {
      this.#host.send(frame, length);
      return;
    }
    frame.copyWithin(TAG_AT + ETHERNET.VLAN_HEADER, TAG_AT, length);
    put16(frame, TAG_AT, ETHER_TYPE.VLAN);
    put16(frame, TAG_AT + 2, this.#tag);
    this.#host.send(frame, length + ETHERNET.VLAN_HEADER);
  }

  /**
   * Puts a frame into the ring's next buffer. Returns false where none is ready or it does not fit.
   * @param tag the VLAN tag that has been taken out of it, or -1
   */
  receive(
    base: number,
    frame: Uint8Array,
    length: number,
    checksum: number,
    match: Match,
    tag: number,
    check: boolean,
  ): boolean {
    const s = this.#s;
    const { dma } = this.#host;
    const words = this.#words;
    const at = base + s.receiveNext * DESCRIPTOR;
    if (!dma.read(at, this.#bytes)) return false;
    const command = words.getUint32(0, true);
    const total = length + ETHERNET.CHECKSUM;
    if ((command & OWN) === 0 || total > (command & RX.SIZE)) return false;
    const vlan = (words.getUint32(4, true) & ~(RX_TAVA | 0xffff)) >>> 0;
    const buffer = words.getUint32(8, true) + words.getUint32(12, true) * 2 ** 32;
    dma.write(buffer, frame, 0, length);
    dma.write32(buffer + length, checksum);
    const status = (command & EOR) | FS | LS | MATCHED[match] | (check ? this.#judge(frame, length) : 0) | total;
    dma.write32(at + 4, tag < 0 ? vlan : (vlan | RX_TAVA | ((tag & 0xff) << 8) | (tag >>> 8)) >>> 0);
    dma.write32(at, status >>> 0);
    s.receiveNext = (command & EOR) !== 0 ? 0 : (s.receiveNext + 1) % RING;
    return true;
  }

  /** What the frame is, and which of its checksums are wrong. */
  #judge(frame: Uint8Array, length: number): number {
    const packet = this.#packet;
    packet.parse(frame, length);
    if (packet.version !== 4) return PID.OTHER;
    let status = packet.networkChecksumGood(frame) ? 0 : RX.IPF;
    if (packet.l4 === 0) return status | (PID.IP << RX.PID_SHIFT);
    const tcp = packet.protocol === PROTOCOL.TCP;
    if (!packet.transportChecksumGood(frame)) status |= tcp ? RX.TCPF : RX.UDPF;
    return status | ((tcp ? PID.TCP : PID.UDP) << RX.PID_SHIFT);
  }
}

const MATCHED: Readonly<Record<Match, number>> = { group: RX.MAR, own: RX.PAM, broadcast: RX.BAR, promiscuous: 0 };
