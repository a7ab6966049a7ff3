import type { Virtqueue } from './virtqueue.ts';

const DESCRIPTOR = 16;
const AVAIL_HEADER = 4;

/** The parts of a legacy queue follow each other from `address`, the used ring aligned (virtio 1.2, section 2.7.2). */
export function legacyLayout(queue: Virtqueue, address: number, alignment: number): void {
  const avail = address + queue.size * DESCRIPTOR;
  const end = avail + AVAIL_HEADER + queue.size * 2;
  queue.setAddresses(address, avail, Math.ceil(end / alignment) * alignment);
}
