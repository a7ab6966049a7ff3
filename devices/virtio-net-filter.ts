/** Addresses that the filter table has room for; QEMU's. */
export const MAC_TABLE_SIZE = 64;
const MAC = 6;
const VLAN_TAG = 0x8100;
const MULTICAST = 1;

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

  reset(): void {
    this.promiscuous = true;
    this.allMulticast = false;
    this.allUnicast = false;
    this.noMulticast = false;
    this.noUnicast = false;
    this.noBroadcast = false;
    this.unicastOverflow = false;
    this.multicastOverflow = false;
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

  /** Whether the card whose own address is `mac` takes `frame`. */
  passes(frame: Uint8Array, mac: Uint8Array): boolean {
    if (this.promiscuous) return true;
    if (((frame[12] ?? 0) << 8) + (frame[13] ?? 0) === VLAN_TAG) {
      const vlan = (((frame[14] ?? 0) << 8) | (frame[15] ?? 0)) & 0xfff;
      if (((this.vlans[vlan >>> 5] ?? 0) & (1 << (vlan & 31))) === 0) return false;
    }
    if (((frame[0] ?? 0) & MULTICAST) !== 0) {
      if (isBroadcast(frame)) return !this.noBroadcast;
      if (this.noMulticast) return false;
      return this.allMulticast || this.multicastOverflow || this.#inTable(frame, this.firstMulticast, this.used);
    }
    if (this.noUnicast) return false;
    if (this.allUnicast || this.unicastOverflow || same(frame, mac, 0)) return true;
    return this.#inTable(frame, 0, this.firstMulticast);
  }

  #inTable(frame: Uint8Array, from: number, to: number): boolean {
    for (let index = from; index < to; index++) if (same(frame, this.table, index * MAC)) return true;
    return false;
  }
}

function same(frame: Uint8Array, addresses: Uint8Array, at: number): boolean {
  for (let index = 0; index < MAC; index++) if (frame[index] !== addresses[at + index]) return false;
  return true;
}

function isBroadcast(frame: Uint8Array): boolean {
  for (let index = 0; index < MAC; index++) if (frame[index] !== 0xff) return false;
  return true;
}
