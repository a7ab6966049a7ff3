import type { Dma } from '../../core/memory/dma.ts';
import { ETHERNET, get16, isBroadcast, isFor, isGroup, isTagType } from '../../core/net/ethernet.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { SHARED } from './layout.ts';

const MODE = { UNICAST: 1, GROUPS: 2, EVERYONE: 4, ALL_GROUPS: 8, PROMISCUOUS: 0x10 } as const;
const VLAN_WORDS = 128;
/** Tags of no network: only the priority, and the one that is reserved (IEEE 802.1Q, table 9-2). */
const NO_VLAN = [0, 0xfff] as const;

export const filterState = {
  mode: field.u32(),
  vlans: field.words(VLAN_WORDS),
  groups: field.buffer(0xffff),
};

/** Which frames are for this card. All of it is copied from the shared memory when the driver says so. */
export class ReceiveFilter {
  readonly #s: StateValues<typeof filterState>;
  readonly #dma: Dma;

  constructor(state: StateValues<typeof filterState>, dma: Dma) {
    this.#s = state;
    this.#dma = dma;
  }

  readMode(shared: number): void {
    this.#s.mode = this.#dma.read32(shared + SHARED.RX_MODE);
  }

  readVlans(shared: number): void {
    this.#dma.readWords(shared + SHARED.VLANS, this.#s.vlans);
  }

  readGroups(shared: number): void {
    const dma = this.#dma;
    const groups = new Uint8Array(dma.read16(shared + SHARED.GROUPS_LENGTH));
    const address = dma.readAddress(shared + SHARED.GROUPS);
    if (groups.length > 0) dma.read(address, groups);
    this.#s.groups = groups;
  }

  passes(frame: Uint8Array, mac: Uint8Array): boolean {
    const { mode } = this.#s;
    if ((mode & MODE.PROMISCUOUS) !== 0) return true;
    if (!this.#onVlan(frame)) return false;
    if (!isGroup(frame)) return (mode & MODE.UNICAST) !== 0 && isFor(frame, mac);
    if (isBroadcast(frame)) return (mode & MODE.EVERYONE) !== 0;
    return (mode & MODE.ALL_GROUPS) !== 0 || ((mode & MODE.GROUPS) !== 0 && this.#inGroups(frame));
  }

  #onVlan(frame: Uint8Array): boolean {
    if (!isTagType(get16(frame, ETHERNET.TYPE))) return true;
    const vlan = get16(frame, ETHERNET.HEADER) & 0xfff;
    if (vlan === NO_VLAN[0] || vlan === NO_VLAN[1]) return true;
    return (((this.#s.vlans[vlan >>> 5] ?? 0) >>> (vlan & 31)) & 1) !== 0;
  }

  #inGroups(frame: Uint8Array): boolean {
    const { groups } = this.#s;
    for (let at = 0; at + ETHERNET.ADDRESS <= groups.length; at += ETHERNET.ADDRESS) {
      if (isFor(frame, groups, at)) return true;
    }
    return false;
  }
}
