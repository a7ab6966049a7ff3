import { mapDescriptor, tableSize } from './chain.ts';
import type { VirtqueueElement } from './element.ts';
import { DESC, DESCRIPTOR_SIZE, passed, type Ring } from './ring.ts';
import type { Virtqueue } from './virtqueue.ts';

/** Offsets in a descriptor (virtio 1.2, section 2.8.13). */
const LENGTH = 8;
const ID = 12;
const DESC_FLAGS = 14;

/** Event suppression structures (section 2.8.14): a ring position with its turn, then flags. */
const EVENT_POSITION = 0;
const EVENT_FLAGS = 2;
const EVENT = { ENABLE: 0, DISABLE: 1, AT_DESCRIPTOR: 2 } as const;

/** A queue of one ring that both sides write (virtio 1.2, section 2.8). Which turn it is, a flag in each descriptor says. */
export class PackedRing implements Ring {
  readonly #queue: Virtqueue;

  constructor(queue: Virtqueue) {
    this.#queue = queue;
  }

  reset(): void {}

  get empty(): boolean {
    const { desc, lastAvail, lastAvailWrap } = this.#queue;
    const flags = desc.get16(lastAvail * DESCRIPTOR_SIZE + DESC_FLAGS);
    const available = (flags & DESC.AVAIL) !== 0;
    const used = (flags & DESC.USED) !== 0;
    return available === used || available !== lastAvailWrap;
  }

  take(element: VirtqueueElement): boolean {
    const queue = this.#queue;
    if (!this.retake(element, queue.lastAvail)) return false;
    queue.inUse += element.descriptors;
    queue.lastAvail += element.descriptors;
    if (queue.lastAvail >= queue.size) {
      queue.lastAvail -= queue.size;
      queue.lastAvailWrap = !queue.lastAvailWrap;
    }
    if (queue.notification && queue.owner.eventIndex) this.#writeEventPosition();
    return true;
  }

  retake(element: VirtqueueElement, position: number): boolean {
    const { owner, descriptor, desc, size } = this.#queue;
    element.position = position;
    descriptor.load(desc.address + position * DESCRIPTOR_SIZE, true);
    if ((descriptor.flags & DESC.INDIRECT) !== 0) return this.#takeTable(element);
    let next = position;
    let count = 1;
    for (;;) {
      if (!mapDescriptor(owner, element, descriptor)) return false;
      if ((descriptor.flags & DESC.NEXT) === 0) break;
      if (count === size) {
        owner.broken('Looped descriptor');
        return false;
      }
      next = next + 1 === size ? 0 : next + 1;
      count++;
      descriptor.load(desc.address + next * DESCRIPTOR_SIZE, true);
    }
    // The last descriptor of a chain has the buffer's id (section 2.8.6).
    element.index = descriptor.id;
    element.descriptors = count;
    return true;
  }

  rewind(descriptors: number): boolean {
    const queue = this.#queue;
    queue.lastAvail -= descriptors;
    if (queue.lastAvail < 0) {
      queue.lastAvail += queue.size;
      queue.lastAvailWrap = !queue.lastAvailWrap;
    }
    return true;
  }

  put(element: VirtqueueElement, written: number): void {
    const queue = this.#queue;
    const { desc } = queue;
    const at = queue.usedIndex * DESCRIPTOR_SIZE;
    desc.put32(at + LENGTH, written);
    desc.put16(at + ID, element.index);
    desc.put16(at + DESC_FLAGS, queue.usedWrap ? DESC.AVAIL | DESC.USED : 0);
    queue.usedIndex += element.descriptors;
    if (queue.usedIndex >= queue.size) {
      queue.usedIndex -= queue.size;
      queue.usedWrap = !queue.usedWrap;
      queue.signalledValid = false;
    }
  }

  wantsInterrupt(): boolean {
    const queue = this.#queue;
    const { avail, size } = queue;
    const position = avail.get16(EVENT_POSITION);
    const flags = avail.get16(EVENT_FLAGS);
    const valid = queue.signalledValid;
    const old = queue.signalledUsed;
    queue.signalledValid = true;
    queue.signalledUsed = queue.usedIndex;
    if (flags === EVENT.DISABLE) return false;
    if (flags === EVENT.ENABLE || !valid) return true;
    const event = position & 0x7fff;
    return passed(position >>> 15 === (queue.usedWrap ? 1 : 0) ? event : event - size, queue.usedIndex, old);
  }

  setNotification(enabled: boolean): void {
    const { owner, used } = this.#queue;
    if (!enabled) {
      used.put16(EVENT_FLAGS, EVENT.DISABLE);
      return;
    }
    if (owner.eventIndex) this.#writeEventPosition();
    used.put16(EVENT_FLAGS, owner.eventIndex ? EVENT.AT_DESCRIPTOR : EVENT.ENABLE);
  }

  /** The device's position with its turn, in the form of an event (section 2.8.14). */
  #writeEventPosition(): void {
    const { used, lastAvail, lastAvailWrap } = this.#queue;
    used.put16(EVENT_POSITION, lastAvail | (lastAvailWrap ? 0x8000 : 0));
  }

  /** All entries of an indirect table count; they have no chain (section 2.8.7). */
  #takeTable(element: VirtqueueElement): boolean {
    const { owner, descriptor } = this.#queue;
    const id = descriptor.id;
    const count = tableSize(owner, descriptor);
    const table = descriptor.address;
    for (let index = 0; index < count; index++) {
      descriptor.load(table + index * DESCRIPTOR_SIZE, true);
      if (!mapDescriptor(owner, element, descriptor)) return false;
    }
    element.index = id;
    element.descriptors = 1;
    return count > 0;
  }
}
