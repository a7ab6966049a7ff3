import { get16 } from '../../core/net/ethernet.ts';

/** Addresses that the filter table has room for; QEMU's. */
export const MAC_TABLE_SIZE = 64;
const MAC = 6;
const VLAN_TAG = 0x8100;
const MULTICAST = 1;

/** Modes as they are saved, from bit 0 on. */
const MODES = [
  'promiscuous',
  'allMulticast',
  'allUnicast',
  'noMulticast',
  'noUnicast',
  'noBroadcast',
  'unicastOverflow',
  'multicastOverflow',
] as const;
const PROMISCUOUS = 1;

/** What a card takes from the wire (virtio 1.2, section 5.1.6.5.1 and following). Frames are Ethernet frames. */
export class ReceiveFilter {
  promiscuous = true;
  allMulticast = false;
  allUnicast = false;
  noMulticast = false;
  noUnicast = false;
  noBroadcast = false;
  unicastOverflow = false;
  multicastOverflow = false;
  /** Unicast addresses first, then multicast ones. */
  readonly table = new Uint8Array(MAC_TABLE_SIZE * MAC);
  firstMulticast = 0;
  used = 0;
  /** A bit for each VLAN. */
  readonly vlans = new Uint32Array(128);

  /** The modes, a bit each in the order of {@link MODES}. */
  get flags(): number {
    return MODES.reduce((flags, name, index) => flags | (this[name] ? 1 << index : 0), 0);
  }

  set flags(flags: number) {
    for (const [index, name] of MODES.entries()) this[name] = (flags & (1 << index)) !== 0;
  }

  reset(): void {
    this.flags = PROMISCUOUS;
    this.table.fill(0);
    this.firstMulticast = 0;
    this.used = 0;
    this.vlans.fill(0);
  }

  /** All or none of the VLANs. */
  passAllVlans(all: boolean): void {
    this.vlans.fill(all ? 0xffff_ffff : 0);
  }

  setVlan(vlan: number, pass: boolean): void {
    const word = this.vlans[vlan >>> 5] ?? 0;
    const bit = 1 << (vlan & 31);
    this.vlans[vlan >>> 5] = pass ? word | bit : word & ~bit;
  }

  /** The VLANs that pass, the highest first. */
  passedVlans(): number[] {
    const vlans: number[] = [];
    for (let vlan = 4095; vlan >= 0; vlan--) {
      if (((this.vlans[vlan >>> 5] ?? 0) & (1 << (vlan & 31))) !== 0) vlans.push(vlan);
    }
    return vlans;
  }

  /** The table's addresses from index `from` to before `to`, the last first. */
  addresses(from: number, to: number): Uint8Array[] {
    const addresses: Uint8Array[] = [];
    for (let index = to - 1; index >= from; index--) addresses.push(this.table.slice(index * MAC, (index + 1) * MAC));
    return addresses;
  }

  /** Whether the card whose own address is `mac` takes the frame that begins at byte `at` of `frame`. */
  passes(frame: Uint8Array, at: number, mac: Uint8Array): boolean {
    if (this.promiscuous) return true;
    if (get16(frame, at + 12) === VLAN_TAG) {
      const vlan = get16(frame, at + 14) & 0xfff;
      if (((this.vlans[vlan >>> 5] ?? 0) & (1 << (vlan & 31))) === 0) return false;
    }
    if (((frame[at] ?? 0) & MULTICAST) !== 0) {
      if (isBroadcast(frame, at)) return !this.noBroadcast;
      if (this.noMulticast) return false;
      return this.allMulticast || this.multicastOverflow || this.#inTable(frame, at, this.firstMulticast, this.used);
    }
    if (this.noUnicast) return false;
    if (this.allUnicast || this.unicastOverflow || same(frame, at, mac, 0)) return true;
    return this.#inTable(frame, at, 0, this.firstMulticast);
  }

  #inTable(frame: Uint8Array, at: number, from: number, to: number): boolean {
    for (let index = from; index < to; index++) if (same(frame, at, this.table, index * MAC)) return true;
    return false;
  }
}

function same(frame: Uint8Array, at: number, addresses: Uint8Array, entry: number): boolean {
  for (let index = 0; index < MAC; index++) if (frame[at + index] !== addresses[entry + index]) return false;
  return true;
}

function isBroadcast(frame: Uint8Array, at: number): boolean {
  for (let index = 0; index < MAC; index++) if (frame[at + index] !== 0xff) return false;
  return true;
}
