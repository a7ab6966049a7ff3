import type { Dma } from '../../core/memory/dma.ts';
import { isBroadcast, isGroup } from '../../core/net/ethernet.ts';
import { COUNTED } from './layout.ts';

/** A queue's counters of 64 bits, each as two words, the low one first: as the driver wants to see them. */
export function count(counters: Uint32Array, which: number, by = 1): void {
  const low = (counters[2 * which] ?? 0) + by;
  counters[2 * which] = low;
  if (low > 0xffff_ffff) counters[2 * which + 1] = (counters[2 * which + 1] ?? 0) + 1;
}

/** A packet and its bytes, either way. */
export function countPacket(counters: Uint32Array, frame: Uint8Array, length: number): void {
  const kind = !isGroup(frame) ? COUNTED.UNICAST : isBroadcast(frame) ? COUNTED.EVERYONE : COUNTED.GROUP;
  count(counters, kind);
  count(counters, kind + 1, length);
}

export function showCounters(dma: Dma, address: number, counters: Uint32Array): void {
  dma.write(address, new Uint8Array(counters.slice().buffer));
}
