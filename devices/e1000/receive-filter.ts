import { RCTL } from './registers.ts';

const BROADCAST = 0xff;
const ADDRESSES = 16;
const ADDRESS_VALID = 0x8000_0000;
/** Which bits of the destination index the multicast table, by RCTL.MO (Intel 8254x manual, section 13.5.1). */
const MULTICAST_SHIFT = [4, 3, 2, 0] as const;
const VLAN_ID = 0xfff;

/** Whether the card takes a frame with this destination (section 3.2.1); the tables are those of RA, MTA and VFTA. */
export function accepts(
  frame: Uint8Array,
  control: number,
  addresses: Uint32Array,
  multicast: Uint32Array,
  vlans: Uint32Array,
  vlanType: number,
): boolean {
  const isBroadcast =
    frame[0] === BROADCAST &&
    frame[1] === BROADCAST &&
    frame[2] === BROADCAST &&
    frame[3] === BROADCAST &&
    frame[4] === BROADCAST &&
    frame[5] === BROADCAST;
  const isGroup = ((frame[0] ?? 0) & 1) !== 0;
  const type = ((frame[12] ?? 0) << 8) | (frame[13] ?? 0);
  if (type === (vlanType & 0xffff) && (control & RCTL.VFE) !== 0) {
    const id = (((frame[14] ?? 0) << 8) | (frame[15] ?? 0)) & VLAN_ID;
    if ((((vlans[id >> 5] ?? 0) >>> (id & 31)) & 1) === 0) return false;
  }
  if (!isGroup && (control & RCTL.UPE) !== 0) return true;
  if (isGroup && (control & RCTL.MPE) !== 0) return true;
  if (isBroadcast && (control & RCTL.BAM) !== 0) return true;
  const low = ((frame[0] ?? 0) | ((frame[1] ?? 0) << 8) | ((frame[2] ?? 0) << 16) | ((frame[3] ?? 0) << 24)) >>> 0;
  const high = (frame[4] ?? 0) | ((frame[5] ?? 0) << 8);
  for (let index = 0; index < ADDRESSES; index++) {
    const upper = addresses[index * 2 + 1] ?? 0;
    if ((upper & ADDRESS_VALID) !== 0 && addresses[index * 2] === low && (upper & 0xffff) === high) return true;
  }
  const shift = MULTICAST_SHIFT[(control >>> RCTL.MO_SHIFT) & 3] ?? 4;
  const hash = ((((frame[5] ?? 0) << 8) | (frame[4] ?? 0)) >> shift) & 0xfff;
  return isGroup && (((multicast[hash >> 5] ?? 0) >>> (hash & 31)) & 1) === 1;
}
