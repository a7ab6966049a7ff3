import type { Dma } from '../../core/memory/dma.ts';
import { fold, sumWords } from '../../core/net/checksum.ts';
import { field, type StateValues } from '../../core/state/fields.ts';

/** The lower command word of a transmit descriptor (Intel 8254x software developer's manual, section 3.3.3). */
const CMD = {
  EOP: 1 << 24,
  TSE_OR_IC: 1 << 26,
  RS: 1 << 27,
  RPS: 1 << 28,
  DEXT: 1 << 29,
  VLE: 1 << 30,
  IDE: 1 << 31,
} as const;
const DTYP_DATA = 1 << 20;
/** Context descriptors use two bits of their own (section 3.3.6). */
const TUCMD = { TCP: 1 << 24, IPV4: 1 << 25 } as const;
const POPTS = { IXSM: 1, TXSM: 2 } as const;
const DESCRIPTOR = 16;
const DD = 1;
const VLAN_HEADER = 4;
/** The two addresses at the front of a frame. */
const ADDRESSES = 12;
/** The largest packet that can be put together, as QEMU's. */
const MAX_PACKET = 0x1_0000;
const HEADER_MAX = 256;
const TCP_PSH_FIN = 0x09;
/** Segments of one packet at most: a megabyte in pieces of 256 bytes. What is beyond them fails. */
const MAX_SEGMENTS = 4096;
/** Bytes moved after which others have their turn: a ring may ask for terabytes. */
export const TURN = 4 * 2 ** 20;
/** When the rest follows, nanoseconds. */
export const TURN_GAP_NS = 1000;

const context = {
  ipcss: field.u8(),
  ipcso: field.u8(),
  ipcse: field.u16(),
  tucss: field.u8(),
  tucso: field.u8(),
  tucse: field.u16(),
  payload: field.u32(),
  header: field.u8(),
  mss: field.u16(),
  tcp: field.bool(),
  ipv4: field.bool(),
};
type Context = StateValues<typeof context>;

export const transmitState = {
  checksum: field.record(context),
  segmentation: field.record(context),
  size: field.u32(),
  sum: field.u8(),
  segmenting: field.bool(),
  frames: field.u16(),
  vlan: field.bool(),
  vlanTag: field.u16(),
  data: field.bytes(MAX_PACKET + VLAN_HEADER),
  headerBytes: field.bytes(HEADER_MAX),
};

/** What software wants of a descriptor: that its end be told, and that the interrupt be delayed. */
export const PROCESSED = { REPORTED: 1, DELAYED: 2 } as const;

/** What the transmitter needs of its card. */
export interface TransmitHost {
  readonly dma: Dma;
  readonly vlanEnabled: boolean;
  readonly vlanType: number;
  /** Every descriptor's end is told, asked for or not. */
  readonly reportsAll?: boolean;
  /** Sends the first `length` bytes of `frame`. */
  send(frame: Uint8Array, length: number): void;
  /** A TCP segmentation context was used. */
  segmented(failed: boolean): void;
}

/** Puts packets together from descriptors: checksums, segmentation, VLAN tags. */
export class Transmitter {
  readonly #s: StateValues<typeof transmitState>;
  readonly #host: TransmitHost;
  readonly #words = new Uint32Array(DESCRIPTOR / 4);
  /** Bytes moved; whoever looks at it sets it back. */
  moved = 0;

  constructor(state: StateValues<typeof transmitState>, host: TransmitHost) {
    this.#s = state;
    this.#host = host;
  }

  /** Carries out the descriptor at `address`. Returns what of {@link PROCESSED} is true of it. */
  process(address: number): number {
    const { dma } = this.#host;
    if (!dma.readWords(address, this.#words)) return 0;
    const lower = this.#words[2] ?? 0;
    const upper = this.#words[3] ?? 0;
    if ((lower & (CMD.DEXT | DTYP_DATA)) === CMD.DEXT) this.#takeContext(lower, upper);
    else this.#takeData(lower, upper);
    const reported = (lower & (CMD.RS | CMD.RPS)) !== 0 || this.#host.reportsAll === true;
    if (reported) {
      // The status is in the low byte of the upper word; errors of a former life are cleared.
      dma.write32(address + 12, ((upper | DD) & ~0x0e) >>> 0);
    }
    return (reported ? PROCESSED.REPORTED : 0) | ((lower & CMD.IDE) !== 0 ? PROCESSED.DELAYED : 0);
  }

  #takeContext(lower: number, upper: number): void {
    const target = (lower & CMD.TSE_OR_IC) !== 0 ? this.#s.segmentation : this.#s.checksum;
    const setup = this.#words[0] ?? 0;
    const layer4 = this.#words[1] ?? 0;
    target.ipcss = setup & 0xff;
    target.ipcso = (setup >>> 8) & 0xff;
    target.ipcse = setup >>> 16;
    target.tucss = layer4 & 0xff;
    target.tucso = (layer4 >>> 8) & 0xff;
    target.tucse = layer4 >>> 16;
    target.payload = lower & 0xf_ffff;
    target.header = (upper >>> 8) & 0xff;
    target.mss = upper >>> 16;
    target.tcp = (lower & TUCMD.TCP) !== 0;
    target.ipv4 = (lower & TUCMD.IPV4) !== 0;
    this.#s.frames = 0;
    // A TCP checksum at offset 0 cannot be meant: it is where TCP's is.
    if (target.tucso === 0) target.tucso = target.tucss + (target.tcp ? 16 : 6);
  }

  #takeData(lower: number, upper: number): void {
    const s = this.#s;
    const extended = (lower & (CMD.DEXT | DTYP_DATA)) === (CMD.DEXT | DTYP_DATA);
    if (extended) {
      if (s.size === 0) s.sum = (upper >>> 8) & 0xff;
      s.segmenting = (lower & CMD.TSE_OR_IC) !== 0;
    } else {
      s.segmenting = false;
    }
    if (this.#host.vlanEnabled && (lower & CMD.VLE) !== 0 && (s.segmenting || (lower & CMD.EOP) !== 0)) {
      s.vlan = true;
      s.vlanTag = upper >>> 16;
    }
    const buffer = (this.#words[0] ?? 0) + (this.#words[1] ?? 0) * 2 ** 32;
    const length = extended ? lower & 0xf_ffff : lower & 0xffff;
    if (s.segmenting) this.#fillSegments(buffer, length);
    else this.#fill(buffer, Math.min(length, MAX_PACKET - s.size));
    if ((lower & CMD.EOP) === 0) return;
    // Of a packet that was cut without a rest only the header is left.
    const header = s.segmenting ? s.segmentation.header + (s.frames > 0 ? 1 : 0) : 0;
    if (s.size >= header) this.#sendPacket();
    s.frames = 0;
    s.sum = 0;
    s.vlan = false;
    s.size = 0;
    s.segmenting = false;
  }

  #fill(buffer: number, length: number): void {
    const s = this.#s;
    this.#host.dma.read(buffer, s.data, s.size, length);
    s.size += length;
    this.moved += length;
  }

  /** Sends a packet each time that header and payload make a whole one; the header is used again for the next. */
  #fillSegments(buffer: number, length: number): void {
    const s = this.#s;
    const { header, mss } = s.segmentation;
    const whole = header + mss;
    let at = buffer;
    let left = length;
    while (left > 0) {
      if (s.frames >= MAX_SEGMENTS) {
        this.#host.segmented(true);
        break;
      }
      const step = Math.min(left, Math.max(0, whole - s.size), MAX_PACKET - s.size);
      if (step === 0) break;
      const before = s.size;
      this.#fill(at, step);
      if (before < header && s.size >= header) copy(s.data, s.headerBytes, header);
      if (s.size === whole) {
        this.#sendPacket();
        copy(s.headerBytes, s.data, header);
        s.size = header;
      }
      at += step;
      left -= step;
    }
  }

  #sendPacket(): void {
    const s = this.#s;
    const used = s.segmenting ? s.segmentation : s.checksum;
    this.moved += s.size;
    if (s.segmenting) this.#adjustHeaders(used);
    if ((s.sum & POPTS.TXSM) !== 0) this.#putChecksum(used.tucso, used.tucss, used.tucse);
    if ((s.sum & POPTS.IXSM) !== 0) this.#putChecksum(used.ipcso, used.ipcss, used.ipcse);
    if (s.vlan) {
      // The tag goes behind the two addresses; what follows them moves.
      s.data.copyWithin(ADDRESSES + VLAN_HEADER, ADDRESSES, s.size);
      this.#put16(ADDRESSES, this.#host.vlanType);
      this.#put16(ADDRESSES + 2, s.vlanTag);
      this.#host.send(s.data, s.size + VLAN_HEADER);
    } else {
      this.#host.send(s.data, s.size);
    }
  }

  /** Lengths, identification, sequence number and flags of one segment (section 3.5). */
  #adjustHeaders(used: Context): void {
    const s = this.#s;
    if (used.ipv4) {
      this.#put16(used.ipcss + 2, s.size - used.ipcss);
      this.#put16(used.ipcss + 4, this.#get16(used.ipcss + 4) + s.frames);
    } else {
      this.#put16(used.ipcss + 4, s.size - used.ipcss);
    }
    const layer4Length = s.size - used.tucss;
    if (used.tcp) {
      const sent = s.frames * used.mss;
      const sequence = (this.#get16(used.tucss + 4) * 0x1_0000 + this.#get16(used.tucss + 6) + sent) >>> 0;
      this.#put16(used.tucss + 4, sequence >>> 16);
      this.#put16(used.tucss + 6, sequence);
      const flags = used.tucss + 13;
      if (used.payload - sent > used.mss) s.data[flags] = (s.data[flags] ?? 0) & ~TCP_PSH_FIN;
      else if (s.frames > 0) this.#host.segmented(false);
    } else {
      this.#put16(used.tucss + 4, layer4Length);
    }
    if ((s.sum & POPTS.TXSM) !== 0) {
      // Software has put the sum of the pseudo-header there, without the length.
      this.#put16(used.tucso, ~fold(this.#get16(used.tucso) + layer4Length) & 0xffff);
    }
    s.frames++;
  }

  #putChecksum(at: number, start: number, end: number): void {
    const { size, data } = this.#s;
    const last = end !== 0 && end < size ? end + 1 : size;
    if (at + 2 > last || at + 2 > size) return;
    this.#put16(at, fold(sumWords(data, start, last)));
  }

  #get16(at: number): number {
    const { data } = this.#s;
    return ((data[at] ?? 0) << 8) | (data[at + 1] ?? 0);
  }

  #put16(at: number, value: number): void {
    const { data } = this.#s;
    if (at + 1 >= data.length) return;
    data[at] = value >>> 8;
    data[at + 1] = value;
  }
}

function copy(from: Uint8Array, to: Uint8Array, length: number): void {
  for (let at = 0; at < length; at++) to[at] = from[at] ?? 0;
}
