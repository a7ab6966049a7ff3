import { field, type StateValues } from '../state/fields.ts';
import { VirtqueueElement } from './element.ts';
import { NO_VECTOR, QUEUE_SIZE_MAX } from './features.ts';
import { PackedRing } from './packed-ring.ts';
import type { QueueOwner, Ring } from './ring.ts';
import { Descriptor, RingMemory } from './ring-memory.ts';
import { SplitRing } from './split-ring.ts';

export const queueFields = {
  size: field.u32(),
  desc: field.number(),
  avail: field.number(),
  used: field.number(),
  vector: field.u16(NO_VECTOR),
  lastAvail: field.u16(),
  lastAvailWrap: field.bool(true),
  usedIndex: field.u16(),
  usedWrap: field.bool(true),
  signalledUsed: field.u16(),
  signalledValid: field.bool(),
  notification: field.bool(true),
  inUse: field.u32(),
} as const;

/** A virtqueue (virtio 1.2, section 2.6): the device's side. Nothing is allocated per descriptor or buffer. */
export class Virtqueue {
  readonly index: number;
  readonly owner: QueueOwner;
  /** Called when the driver says that there are buffers. */
  readonly handle: (queue: Virtqueue) => void;
  /** Descriptors after a reset. */
  readonly defaultSize: number;
  readonly desc: RingMemory;
  readonly avail: RingMemory;
  readonly used: RingMemory;
  readonly descriptor: Descriptor;
  /** Descriptors; 0 for a queue that is not there. */
  size: number;
  vector = NO_VECTOR;
  /** Where the device is in the available ring, and in a packed ring on which turn. */
  lastAvail = 0;
  lastAvailWrap = true;
  usedIndex = 0;
  usedWrap = true;
  /** The used index at the last interrupt, if there was one. */
  signalledUsed = 0;
  signalledValid = false;
  notification = true;
  /** Chains (split) or descriptors (packed) that the device holds. */
  inUse = 0;
  readonly #split: SplitRing;
  readonly #packed: PackedRing;
  readonly #free: VirtqueueElement[] = [];

  constructor(index: number, size: number, owner: QueueOwner, handle: (queue: Virtqueue) => void) {
    this.index = index;
    this.size = size;
    this.defaultSize = size;
    this.owner = owner;
    this.handle = handle;
    this.desc = new RingMemory(owner.dma);
    this.avail = new RingMemory(owner.dma);
    this.used = new RingMemory(owner.dma);
    this.descriptor = new Descriptor(owner.dma);
    this.#split = new SplitRing(this);
    this.#packed = new PackedRing(this);
  }

  #ring(): Ring {
    return this.owner.packed ? this.#packed : this.#split;
  }

  /** The driver's index as last read, where it is in a ring of its own. */
  get seenAvail(): number {
    return this.owner.packed ? this.lastAvail : this.#split.availIndex;
  }

  /** Whether the driver has said where the queue is. */
  get ready(): boolean {
    return this.size > 0 && this.desc.address !== 0;
  }

  get empty(): boolean {
    return this.owner.disabled || !this.ready || this.#ring().empty;
  }

  /** The driver may make a queue smaller or larger, but neither create nor remove it. */
  resize(size: number): void {
    if ((size !== 0) === (this.size !== 0) && size <= QUEUE_SIZE_MAX) this.size = size;
  }

  setAddresses(desc: number, avail: number, used: number): void {
    if (this.size === 0) return;
    this.desc.address = desc;
    this.avail.address = avail;
    this.used.address = used;
  }

  reset(): void {
    this.size = this.defaultSize;
    this.desc.address = 0;
    this.avail.address = 0;
    this.used.address = 0;
    this.vector = NO_VECTOR;
    this.lastAvail = 0;
    this.lastAvailWrap = true;
    this.usedIndex = 0;
    this.usedWrap = true;
    this.signalledUsed = 0;
    this.signalledValid = false;
    this.notification = true;
    this.inUse = 0;
    this.#split.reset();
    this.#packed.reset();
  }

  /** The next buffer, or undefined where there is none or the driver has broken the rules. */
  pop(): VirtqueueElement | undefined {
    if (this.empty) return undefined;
    if (this.inUse >= this.size) {
      this.owner.broken('Virtqueue size exceeded');
      return undefined;
    }
    const element = this.#element();
    if (this.#ring().take(element)) return element;
    this.#free.push(element);
    return undefined;
  }

  /** Names a buffer that the device holds, so that {@link retake} finds it again after a restore. */
  keyOf(element: VirtqueueElement): number {
    return this.owner.packed ? element.position : element.index;
  }

  /** A buffer that the device held when its state was saved. */
  retake(key: number): VirtqueueElement | undefined {
    if (!this.ready) return undefined;
    const element = this.#element();
    if (this.#ring().retake(element, key)) return element;
    this.#free.push(element);
    return undefined;
  }

  /** The device has used a buffer and written `written` bytes of it. The element is the queue's again. */
  push(element: VirtqueueElement, written: number): void {
    element.written(this.owner.dma, written);
    if (!this.owner.disabled && this.ready) {
      this.#ring().put(element, written);
      this.inUse = Math.max(0, this.inUse - element.descriptors);
    }
    this.#release(element);
  }

  /** The device holds a buffer no more and the driver will not get it back: after a reset, or a broken rule. */
  detach(element: VirtqueueElement): void {
    this.inUse = Math.max(0, this.inUse - element.descriptors);
    this.#release(element);
  }

  /** Puts the buffer that was popped last back, as if it had not been. */
  unpop(element: VirtqueueElement): void {
    this.#ring().rewind(element.descriptors);
    this.detach(element);
  }

  /** Interrupts the driver, if it wants to be for what was pushed since. */
  notify(): void {
    if (!this.owner.disabled && this.ready && this.#ring().wantsInterrupt()) this.owner.interrupt(this.vector);
  }

  /** Whether the driver is to notify of new buffers. */
  setNotification(enabled: boolean): void {
    this.notification = enabled;
    if (this.ready) this.#ring().setNotification(enabled);
  }

  save(): StateValues<typeof queueFields> {
    const { size, vector, lastAvail, lastAvailWrap, usedIndex, usedWrap, signalledUsed, signalledValid, notification } =
      this;
    return {
      size,
      desc: this.desc.address,
      avail: this.avail.address,
      used: this.used.address,
      vector,
      lastAvail,
      lastAvailWrap,
      usedIndex,
      usedWrap,
      signalledUsed,
      signalledValid,
      notification,
      inUse: this.inUse,
    };
  }

  restore(saved: StateValues<typeof queueFields>): void {
    const { desc, avail, used, ...rest } = saved;
    Object.assign(this, rest);
    this.desc.address = desc;
    this.avail.address = avail;
    this.used.address = used;
    this.#split.reset();
    this.#packed.reset();
  }

  #element(): VirtqueueElement {
    const element = this.#free.pop() ?? new VirtqueueElement();
    element.clear();
    return element;
  }

  #release(element: VirtqueueElement): void {
    if (this.#free.length < QUEUE_SIZE_MAX) this.#free.push(element);
  }
}
