import { mapDescriptor, refuse, tableSize } from './chain.ts';
import type { VirtqueueElement } from './element.ts';
import { DESC, DESCRIPTOR_SIZE, passed, type Ring } from './ring.ts';
import type { Virtqueue } from './virtqueue.ts';

/** Both rings: flags, index, then the entries, then the other side's event index (virtio 1.2, sections 2.7.6 and 2.7.8). */
const FLAGS = 0;
const INDEX = 2;
const ENTRIES = 4;
const AVAIL_ENTRY = 2;
const USED_ENTRY = 8;

const NO_INTERRUPT = 1;
const NO_NOTIFY = 1;

/** A queue of three parts: descriptors, available ring, used ring (virtio 1.2, section 2.7). */
export class SplitRing implements Ring {
  readonly #queue: Virtqueue;
  /** The driver's index as last seen. */
  #availIndex = 0;

  constructor(queue: Virtqueue) {
    this.#queue = queue;
  }

  reset(): void {
    this.#availIndex = this.#queue.lastAvail;
  }

  get availIndex(): number {
    return this.#availIndex;
  }

  get empty(): boolean {
    return this.#availIndex === this.#queue.lastAvail && this.#readAvailIndex() === this.#queue.lastAvail;
  }

  take(element: VirtqueueElement): boolean {
    const queue = this.#queue;
    const { owner, size } = queue;
    const from = queue.lastAvail;
    if (((this.#availIndex - from) & 0xffff) > size) {
      return refuse(owner, `Guest moved used index from ${from} to ${this.#availIndex}`);
    }
    const head = queue.avail.get16(ENTRIES + (from % size) * AVAIL_ENTRY);
    queue.lastAvail = (from + 1) & 0xffff;
    if (head >= size) return refuse(owner, `Guest says index ${head} is available`);
    if (owner.eventIndex) this.#writeAvailEvent(queue.lastAvail);
    if (!this.retake(element, head)) return false;
    queue.inUse++;
    return true;
  }

  retake(element: VirtqueueElement, head: number): boolean {
    const { owner, descriptor, desc, size } = this.#queue;
    let table = desc.address;
    let entries = size;
    element.index = head;
    descriptor.load(table + head * DESCRIPTOR_SIZE, false);
    if ((descriptor.flags & DESC.INDIRECT) !== 0) {
      entries = tableSize(owner, descriptor);
      if (entries === 0) return false;
      table = descriptor.address;
      descriptor.load(table, false);
    }
    for (;;) {
      if (!mapDescriptor(owner, element, descriptor)) return false;
      if (element.inCount + element.outCount > entries) return refuse(owner, 'Looped descriptor');
      if ((descriptor.flags & DESC.NEXT) === 0) return true;
      if (descriptor.next >= entries) return refuse(owner, `Desc next is ${descriptor.next}`);
      descriptor.load(table + descriptor.next * DESCRIPTOR_SIZE, false);
    }
  }

  rewind(): boolean {
    const queue = this.#queue;
    queue.lastAvail = (queue.lastAvail - 1) & 0xffff;
    return true;
  }

  put(element: VirtqueueElement, written: number): void {
    const queue = this.#queue;
    const { used } = queue;
    const old = queue.usedIndex;
    used.putPair(ENTRIES + (old % queue.size) * USED_ENTRY, element.index, written);
    const now = (old + 1) & 0xffff;
    used.put16(INDEX, now);
    queue.usedIndex = now;
    // The indices have gone round since the last interrupt, so that it says nothing any more.
    const since = (now - queue.signalledUsed) & 0xffff;
    if (since === 0 || since >= 0x8000) queue.signalledValid = false;
  }

  wantsInterrupt(): boolean {
    const queue = this.#queue;
    const { owner, avail } = queue;
    if (owner.notifyOnEmpty && queue.inUse === 0 && queue.empty) return true;
    if (!owner.eventIndex) return (avail.get16(FLAGS) & NO_INTERRUPT) === 0;
    const valid = queue.signalledValid;
    const old = queue.signalledUsed;
    queue.signalledValid = true;
    queue.signalledUsed = queue.usedIndex;
    return !valid || passed(avail.get16(ENTRIES + queue.size * AVAIL_ENTRY), queue.usedIndex, old);
  }

  setNotification(enabled: boolean): void {
    const { owner, used } = this.#queue;
    if (owner.eventIndex) {
      if (enabled) this.#writeAvailEvent(this.#readAvailIndex());
      return;
    }
    const flags = used.get16(FLAGS);
    used.put16(FLAGS, enabled ? flags & ~NO_NOTIFY : flags | NO_NOTIFY);
  }

  #readAvailIndex(): number {
    this.#availIndex = this.#queue.avail.get16(INDEX);
    return this.#availIndex;
  }

  #writeAvailEvent(index: number): void {
    const queue = this.#queue;
    if (queue.notification) queue.used.put16(ENTRIES + queue.size * USED_ENTRY, index);
  }
}
