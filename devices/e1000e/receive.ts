import type { Dma } from '../../core/memory/dma.ts';
import { ETHERNET, get16 } from '../../core/net/ethernet.ts';
import { Packet, PROTOCOL } from '../../core/net/packet.ts';
import { type HashInput, ToeplitzHash } from '../../core/net/rss.ts';
import type { Registers } from '../../core/register/register.ts';
import { type e1000eRegisters, INT, MRQC, RCTL, RFCTL, RXCSUM } from './registers.ts';

/** Legacy and extended descriptors have 16 bytes, those of packet split have 32 (82574 datasheet, section 7.1). */
const DESCRIPTOR = 16;
const SPLIT_DESCRIPTOR = 32;
const SPLIT_BUFFERS = 4;
/** Status and errors, as an extended descriptor has them (section 7.1.4.2). */
const STATUS = {
  DD: 1 << 0,
  EOP: 1 << 1,
  VP: 1 << 3,
  UDPCS: 1 << 4,
  TCPCS: 1 << 5,
  IPCS: 1 << 6,
  IPIDV: 1 << 9,
  ACK: 1 << 15,
  TYPE_SHIFT: 16,
  TCPE: 1 << 29,
  IPE: 1 << 30,
} as const;
/** What a packet is (section 7.1.5.1.1). */
const TYPE = { MAC: 0, IPV4: 1, IPV4_TRANSPORT: 2, IPV6: 5, IPV6_TRANSPORT: 6 } as const;
/** What a hash is over (section 7.1.8.1). */
const HASH = { NONE: 0, IPV4_TCP: 1, IPV4: 2, IPV6_TCP: 3, IPV6_EX: 4, IPV6: 5 } as const;
const INPUTS: readonly HashInput[] = [
  'addresses',
  'addresses-and-ports',
  'addresses',
  'extended-addresses-and-ports',
  'extended-addresses',
  'addresses',
];
const HEADER_SPLIT = 1 << 15;
const TCP_ACK = 0x10;
const TCP_FLAGS = 13;
const KEY_BYTES = 40;

/** What the receiver needs of its card. */
export interface ReceiveHost {
  readonly dma: Dma;
}

/** Puts frames into the guest's buffers: three kinds of descriptors, two queues, checksums and hashes (section 7.1). */
export class Receiver {
  readonly #regs: Registers<typeof e1000eRegisters>;
  readonly #host: ReceiveHost;
  readonly #packet = new Packet();
  readonly #hash: ToeplitzHash;
  readonly #table: Uint32Array;
  readonly #descriptor = new Uint8Array(SPLIT_DESCRIPTOR);
  readonly #view = new DataView(this.#descriptor.buffer);
  /** Sizes of the buffers that a descriptor has, and how much of each is filled. */
  readonly #sizes = new Uint32Array(SPLIT_BUFFERS);
  readonly #filled = new Uint32Array(SPLIT_BUFFERS);
  readonly #low = new Uint32Array(SPLIT_BUFFERS);
  readonly #high = new Uint32Array(SPLIT_BUFFERS);
  #queue = 0;
  #hashType = 0;
  #hashValue = 0;

  constructor(regs: Registers<typeof e1000eRegisters>, host: ReceiveHost) {
    this.#regs = regs;
    this.#host = host;
    const { buffer, byteOffset } = regs.RSSRK.values;
    this.#hash = new ToeplitzHash(new Uint8Array(buffer, byteOffset, KEY_BYTES));
    this.#table = regs.RETA.values;
  }

  /** Whether some queue has a buffer. */
  get hasRoom(): boolean {
    this.#measureBuffers();
    return this.#roomIn(0) > 0 || this.#roomIn(1) > 0;
  }

  #extended(): boolean {
    return (this.#regs.RFCTL.value & RFCTL.EXTEN) !== 0;
  }

  #splits(): boolean {
    return this.#extended() && (this.#regs.RCTL.value & RCTL.DTYP_PS) !== 0;
  }

  #checksumLength(): number {
    return (this.#regs.RCTL.value & RCTL.SECRC) !== 0 ? 0 : ETHERNET.CHECKSUM;
  }

  // Buffers

  #measureBuffers(): void {
    const control = this.#regs.RCTL.value;
    const sizes = this.#sizes;
    sizes.fill(0);
    if ((control & RCTL.DTYP_PS) !== 0) {
      const { BSIZE0, BSIZE1, BSIZE2, BSIZE3 } = this.#regs.PSRCTL;
      sizes[0] = BSIZE0 * 128;
      sizes[1] = BSIZE1 * 1024;
      sizes[2] = BSIZE2 * 1024;
      sizes[3] = BSIZE3 * 1024;
      return;
    }
    const flexible = (control >>> RCTL.FLXBUF_SHIFT) & RCTL.FLXBUF;
    const size = (control >>> RCTL.BSIZE_SHIFT) & 3;
    if (flexible !== 0) sizes[0] = flexible * 1024;
    else sizes[0] = (control & RCTL.BSEX) !== 0 && size !== 0 ? 32_768 >> size : 2048 >> size;
  }

  #bytesPerDescriptor(): number {
    const sizes = this.#sizes;
    return (sizes[0] ?? 0) + (sizes[1] ?? 0) + (sizes[2] ?? 0) + (sizes[3] ?? 0);
  }

  #freeDescriptors(queue: number): number {
    const head = this.#regs.RDH.at(queue).value;
    const tail = this.#regs.RDT.at(queue).value;
    const ring = Math.floor(this.#regs.RDLEN.at(queue).value / DESCRIPTOR);
    if (ring === 0) return 0;
    return head <= tail ? tail - head : Math.max(0, ring + tail - head);
  }

  /** Bytes that the queue's buffers still take. */
  #roomIn(queue: number): number {
    const units = this.#splits() ? SPLIT_DESCRIPTOR / DESCRIPTOR : 1;
    return Math.floor(this.#freeDescriptors(queue) / units) * this.#bytesPerDescriptor();
  }

  // Frames

  /**
   * Stores a frame. Returns the causes of interrupts, without those of a full queue; -1 where there is no room.
   * @param tag the VLAN tag that has been taken out of it, or -1
   */
  store(frame: Uint8Array, length: number, tag: number, messages: boolean): number {
    const packet = this.#packet;
    packet.parse(frame, length);
    this.#measureBuffers();
    this.#classify(frame);
    const queue = this.#queue;
    const total = length + this.#checksumLength();
    if (this.#roomIn(queue) < total) return -1;
    this.#fill(frame, length, total, tag);
    let causes = 0;
    if (total < this.#regs.RSRPD.SIZE) causes |= INT.SRPD;
    if ((this.#regs.RFCTL.value & RFCTL.ACK_DIS) === 0 && this.#isAck(frame)) causes |= INT.ACK;
    if (messages) return causes | (queue === 0 ? INT.RXQ0 : INT.RXQ1);
    return causes | INT.RXT0 | (this.#runsLow(queue) ? INT.RXDMT0 : 0);
  }

  /** As many descriptors are left as the threshold says (section 10.2.5.1, RDMTS). */
  #runsLow(queue: number): boolean {
    const shift = ((this.#regs.RCTL.value >>> RCTL.RDMTS_SHIFT) & 3) + 1;
    return this.#freeDescriptors(queue) === Math.floor(this.#regs.RDLEN.at(queue).value / DESCRIPTOR) >> shift;
  }

  #isAck(frame: Uint8Array): boolean {
    const { l4, l3, l3Length, payload, protocol } = this.#packet;
    if (l4 === 0 || protocol !== PROTOCOL.TCP || ((frame[l4 + TCP_FLAGS] ?? 0) & TCP_ACK) === 0) return false;
    return (this.#regs.RFCTL.value & RFCTL.ACK_DATA_DIS) === 0 || payload === l3 + l3Length;
  }

  #fill(frame: Uint8Array, length: number, total: number, tag: number): void {
    const { dma } = this.#host;
    const queue = this.#queue;
    const { RDBAL, RDBAH, RDH, RDLEN } = this.#regs;
    const base = RDBAH.at(queue).value * 2 ** 32 + RDBAL.at(queue).value;
    const head = RDH.at(queue);
    const size = this.#splits() ? SPLIT_DESCRIPTOR : DESCRIPTOR;
    const capacity = this.#bytesPerDescriptor();
    const header = this.#splitAt(length);
    for (let done = 0; done < total; ) {
      const address = base + head.value * DESCRIPTOR;
      if (!dma.read(address, this.#descriptor, 0, size)) return;
      this.#readBuffers();
      const part = Math.min(total - done, capacity);
      this.#copy(frame, done, Math.min(part, Math.max(0, length - done)), done === 0 ? header : 0, header > 0);
      if (done + part >= total) this.#padChecksum(done + part - Math.max(done, length));
      done += part;
      this.#writeBack(frame, address, done >= total, header, tag);
      head.value += size / DESCRIPTOR;
      if (head.value * DESCRIPTOR >= RDLEN.at(queue).value) head.value = 0;
    }
  }

  #readBuffers(): void {
    const view = this.#view;
    const buffers = this.#splits() ? SPLIT_BUFFERS : 1;
    for (let index = 0; index < SPLIT_BUFFERS; index++) {
      this.#low[index] = index < buffers ? view.getUint32(index * 8, true) : 0;
      this.#high[index] = index < buffers ? view.getUint32(index * 8 + 4, true) : 0;
      this.#filled[index] = 0;
    }
  }

  /** Where the headers of a packet that is split end; 0 where it is not (section 7.1.5). */
  #splitAt(length: number): number {
    const { version, fragment, payload, l4 } = this.#packet;
    if (!this.#splits() || version === 0) return 0;
    if (fragment && (this.#regs.RFCTL.value & RFCTL.IPFRSP_DIS) !== 0) return 0;
    const header = payload !== 0 ? payload : l4 !== 0 ? l4 : this.#packet.l3 + (version === 4 ? 20 : 40);
    return header > (this.#sizes[0] ?? 0) || header > length ? 0 : header;
  }

  /** Of a split packet the headers go into the first buffer, which further descriptors leave empty. */
  #copy(frame: Uint8Array, from: number, length: number, header: number, split: boolean): void {
    // A descriptor without a buffer is skipped over.
    if ((this.#low[0] ?? 0) === 0 && (this.#high[0] ?? 0) === 0) return;
    let at = from;
    const end = from + length;
    if (header > 0) at += this.#copyInto(0, frame, at, header);
    for (let index = split ? 1 : 0; index < SPLIT_BUFFERS && at < end; index++) {
      at += this.#copyInto(index, frame, at, end - at);
    }
  }

  #copyInto(index: number, frame: Uint8Array, at: number, length: number): number {
    const part = Math.min(length, (this.#sizes[index] ?? 0) - (this.#filled[index] ?? 0));
    const address = (this.#high[index] ?? 0) * 2 ** 32 + (this.#low[index] ?? 0) + (this.#filled[index] ?? 0);
    if (part > 0) this.#host.dma.write(address, frame, at, part);
    this.#filled[index] = (this.#filled[index] ?? 0) + part;
    return part;
  }

  /** The checksum is counted, its bytes are zeros. */
  #padChecksum(length: number): void {
    if ((this.#low[0] ?? 0) === 0 && (this.#high[0] ?? 0) === 0) return;
    let left = length;
    for (let index = this.#filled[1] !== 0 ? 1 : 0; index < SPLIT_BUFFERS && left > 0; index++) {
      left -= this.#copyInto(index, NOTHING, 0, left);
    }
  }

  // Descriptors

  #writeBack(frame: Uint8Array, address: number, last: boolean, header: number, tag: number): void {
    const view = this.#view;
    const status = STATUS.DD | (last ? this.#statusOf(frame, tag) : 0);
    const vlan = last && tag >= 0 ? tag : 0;
    if (!this.#extended()) {
      view.setUint16(8, this.#filled[0] ?? 0, true);
      view.setUint16(10, 0, true);
      view.setUint8(13, status >>> 24);
      view.setUint16(14, vlan, true);
      this.#finish(address, DESCRIPTOR, 12, status & 0xff, 1);
      return;
    }
    const size = this.#splits() ? SPLIT_DESCRIPTOR : DESCRIPTOR;
    this.#descriptor.fill(0, 0, size);
    if (last) this.#writeHash(frame);
    view.setUint16(12, this.#filled[0] ?? 0, true);
    view.setUint16(14, vlan, true);
    if (this.#splits()) {
      view.setUint16(16, header > 0 ? header | HEADER_SPLIT : 0, true);
      for (let index = 1; index < SPLIT_BUFFERS; index++)
        view.setUint16(16 + index * 2, this.#filled[index] ?? 0, true);
    }
    this.#finish(address, size, 8, status, 4);
  }

  #writeHash(frame: Uint8Array): void {
    const view = this.#view;
    if ((this.#regs.RXCSUM.value & RXCSUM.PCSD) !== 0) {
      view.setUint32(0, this.#hashType | (this.#queue << 8), true);
      view.setUint32(4, this.#hashValue, true);
    } else if (this.#packet.version === 4) view.setUint16(4, get16(frame, this.#packet.l3 + 4), true);
  }

  /** The status with DD goes last, so that software never sees a descriptor done before what it says. */
  #finish(address: number, size: number, statusAt: number, status: number, statusSize: 1 | 4): void {
    const { dma } = this.#host;
    const view = this.#view;
    if (statusSize === 1) view.setUint8(statusAt, status & ~STATUS.DD);
    else view.setUint32(statusAt, (status & ~STATUS.DD) >>> 0, true);
    dma.write(address, this.#descriptor, 0, size);
    if (statusSize === 1) dma.write8(address + statusAt, status);
    else dma.write32(address + statusAt, status >>> 0);
  }

  #statusOf(frame: Uint8Array, tag: number): number {
    const { version, l4, protocol } = this.#packet;
    const filter = this.#regs.RFCTL.value;
    let status = STATUS.EOP | (tag >= 0 ? STATUS.VP : 0);
    if ((this.#regs.RXCSUM.value & RXCSUM.PCSD) === 0 && version === 4) status |= STATUS.IPIDV;
    if (this.#isAck(frame)) status |= STATUS.ACK;
    status |= this.#typeOf(filter) << STATUS.TYPE_SHIFT;
    if (version === 0 || (version === 6 && (filter & RFCTL.IPV6_XSUM_DIS) !== 0)) return status;
    const wanted = this.#regs.RXCSUM.value;
    if ((wanted & RXCSUM.IPOFLD) !== 0 && version === 4) {
      status |= STATUS.IPCS | (this.#packet.networkChecksumGood(frame) ? 0 : STATUS.IPE);
    }
    if ((wanted & RXCSUM.TUOFLD) !== 0 && l4 !== 0) {
      status |= STATUS.TCPCS | (protocol === PROTOCOL.UDP ? STATUS.UDPCS : 0);
      if (!this.#packet.transportChecksumGood(frame)) status |= STATUS.TCPE;
    }
    return status;
  }

  #typeOf(filter: number): number {
    const { version, l4 } = this.#packet;
    if (version === 4) return l4 !== 0 ? TYPE.IPV4_TRANSPORT : TYPE.IPV4;
    if (version !== 6 || (filter & RFCTL.IPV6_DIS) !== 0) return TYPE.MAC;
    return l4 !== 0 ? TYPE.IPV6_TRANSPORT : TYPE.IPV6;
  }

  // Receive-side scaling (section 7.1.8)

  #classify(frame: Uint8Array): void {
    this.#queue = 0;
    this.#hashValue = 0;
    this.#hashType = this.#hashKind();
    if (this.#hashType === HASH.NONE) return;
    this.#hashValue = this.#hash.of(this.#packet, frame, INPUTS[this.#hashType] ?? 'addresses');
    const entry = this.#hashValue & 0x7f;
    this.#queue = (((this.#table[entry >> 2] ?? 0) >>> (8 * (entry & 3))) >>> 7) & 1;
  }

  #hashKind(): number {
    const { MRQC: command, RXCSUM: checksums, RFCTL: filter } = this.#regs;
    const wanted = command.value;
    if ((wanted & MRQC.ENABLE) !== MRQC.RSS || (checksums.value & RXCSUM.PCSD) === 0 || !this.#extended())
      return HASH.NONE;
    const { version, fragment, l4, protocol, hasExtensions } = this.#packet;
    const tcp = l4 !== 0 && protocol === PROTOCOL.TCP && !fragment;
    if (version === 4) {
      if (tcp && (wanted & MRQC.TCPIPV4) !== 0) return HASH.IPV4_TCP;
      return (wanted & MRQC.IPV4) !== 0 ? HASH.IPV4 : HASH.NONE;
    }
    if (version !== 6) return HASH.NONE;
    const { source, fixedSource, destination, fixedDestination } = this.#packet;
    const mobile = source !== fixedSource || destination !== fixedDestination;
    const refused =
      (hasExtensions && (filter.value & RFCTL.IPV6_EX_DIS) !== 0) ||
      (mobile && (filter.value & RFCTL.NEW_IPV6_EXT_DIS) !== 0);
    if (!refused) {
      if (tcp && (wanted & MRQC.TCPIPV6) !== 0) return HASH.IPV6_TCP;
      if ((wanted & MRQC.IPV6EX) !== 0) return HASH.IPV6_EX;
    }
    return (wanted & MRQC.IPV6) !== 0 ? HASH.IPV6 : HASH.NONE;
  }
}

const NOTHING = new Uint8Array(ETHERNET.CHECKSUM);
