import type { VirtqueueElement } from './element.ts';
import { QUEUE_SIZE_MAX } from './features.ts';
import { DESC, DESCRIPTOR_SIZE, type QueueOwner } from './ring.ts';
import type { Descriptor } from './ring-memory.ts';

/** Adds the buffer of `descriptor` to `element` (virtio 1.2, section 2.7.4.2). False, and said, where it breaks the rules. */
export function mapDescriptor(owner: QueueOwner, element: VirtqueueElement, descriptor: Descriptor): boolean {
  const writable = (descriptor.flags & DESC.WRITE) !== 0;
  if (!writable && element.inCount > 0) return refuse(owner, 'Incorrect order for descriptors');
  if (descriptor.length === 0) return refuse(owner, 'virtio: zero sized buffers are not allowed');
  if (element.inCount + element.outCount >= QUEUE_SIZE_MAX) {
    return refuse(owner, 'virtio: too many write descriptors in indirect table');
  }
  if (!element.map(owner.dma, descriptor.address, descriptor.length, writable)) {
    return refuse(owner, 'virtio: bogus descriptor or out of resources');
  }
  return true;
}

/** How many descriptors an indirect table has; 0, and said, where its length is wrong. */
export function tableSize(owner: QueueOwner, descriptor: Descriptor): number {
  if (descriptor.length > 0 && descriptor.length % DESCRIPTOR_SIZE === 0) return descriptor.length / DESCRIPTOR_SIZE;
  refuse(owner, 'Invalid size for indirect buffer table');
  return 0;
}

export function refuse(owner: QueueOwner, message: string): false {
  owner.broken(message);
  return false;
}
