import type { Dma } from '../memory/dma.ts';
import type { VirtqueueElement } from './element.ts';

/** Descriptor flags (virtio 1.2, sections 2.7.5 and 2.8.13). */
export const DESC = { NEXT: 1, WRITE: 2, INDIRECT: 4, AVAIL: 1 << 7, USED: 1 << 15 } as const;

export const DESCRIPTOR_SIZE = 16;

/** What a virtqueue needs of its device. */
export interface QueueOwner {
  readonly dma: Dma;
  /** Bus mastering is off, or the driver has broken the rules: no queue has anything. */
  readonly disabled: boolean;
  readonly eventIndex: boolean;
  readonly packed: boolean;
  readonly notifyOnEmpty: boolean;
  /** The driver has broken the rules; the device stops until it is reset. */
  broken(message: string): void;
  /** A queue interrupt through `vector`. */
  interrupt(vector: number): void;
}

/** What the two layouts of a queue in memory do differently. */
export interface Ring {
  reset(): void;
  readonly empty: boolean;
  /** Takes the next available chain into `element`. False where it breaks the rules, which has then been said. */
  take(element: VirtqueueElement): boolean;
  /** Takes again the chain that `key` names: the head of a split ring's, the position of a packed one's. */
  retake(element: VirtqueueElement, key: number): boolean;
  /** Gives the last `count` chains back as if they had never been taken. */
  rewind(descriptors: number): boolean;
  /** Returns a chain to the driver. */
  put(element: VirtqueueElement, written: number): void;
  /** Whether the driver wants an interrupt for what was put since the last question. */
  wantsInterrupt(): boolean;
  /** Tells the driver whether to notify of new buffers. */
  setNotification(enabled: boolean): void;
}

/** Whether index `event` lies among those that came since `old` (virtio 1.2, section 2.7.7.2): modulo 2^16. */
export function passed(event: number, now: number, old: number): boolean {
  return ((now - event - 1) & 0xffff) < ((now - old) & 0xffff);
}
