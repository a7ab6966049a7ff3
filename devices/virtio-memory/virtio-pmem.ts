import { type MemoryReport, refused } from '../../core/bus/memory-bus.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { field } from '../../core/state/fields.ts';
import type { VirtqueueElement } from '../../core/virtio/element.ts';
import { VIRTIO_ID } from '../../core/virtio/features.ts';
import { virtioPciType } from '../../core/virtio/virtio-pci-types.ts';
import type { Virtqueue } from '../../core/virtio/virtqueue.ts';
import { functionProperties, memoryProperties, VirtioMemoryDevice } from './memory-device.ts';

/** Offsets in the configuration space (virtio 1.2, section 5.19.4). */
const CONFIG = { START: 0, SIZE: 8, BYTES: 16 } as const;
const QUEUE_SIZE = 128;

/** What a flush came to (section 5.19.6): one word. */
const RESPONSE_SIZE = 4;
const RET = { KEPT: 0, FAILED: 1 } as const;

interface Flush {
  readonly element: VirtqueueElement;
  /** Undefined while the host is at it. */
  ret: number | undefined;
}

/** Persistent memory (virtio 1.2, section 5.19): the guest asks the device, not the processor, to have what it wrote kept. */
class VirtioPmem extends VirtioMemoryDevice<typeof memoryProperties> {
  readonly backend = this.props.memdev;
  readonly wanted = Number(this.props.memaddr);
  /** Flushes that the driver waits for, as its queue knows them: whoever takes over begins them anew. */
  readonly #saved = this.state(1, { waiting: field.list(field.number(), QUEUE_SIZE) }, { onReset: 'keep' });
  readonly #flushes = new Set<Flush>();
  readonly #response = new Uint8Array(RESPONSE_SIZE);
  #queue: Virtqueue | undefined;

  get plugged(): number {
    return this.span;
  }

  get report(): MemoryReport {
    const { address, span, userId } = this;
    const memdev = this.backend?.path ?? '';
    return {
      type: 'virtio-pmem',
      data: { ...(userId !== undefined && { id: userId }), memaddr: address, size: span, memdev },
    };
  }

  protected override realize(): void {
    const memdev = this.takePlace(1);
    if (memdev.mapped) throw refused(`can't use already busy memdev: ${memdev.id}`);
    this.begin({ id: VIRTIO_ID.PMEM, configSize: CONFIG.BYTES });
    this.#queue = this.addQueue(QUEUE_SIZE, queue => this.#serve(queue));
    this.onUnrealize(this.services.system.onRunning(() => this.#answer()));
    this.showMemory(memdev);
  }

  protected override readConfig(config: DataView): void {
    config.setBigUint64(CONFIG.START, BigInt(this.address), true);
    config.setBigUint64(CONFIG.SIZE, BigInt(this.span), true);
  }

  protected override virtioReset(): void {
    for (const { element } of this.#flushes) element.revoke();
    this.#flushes.clear();
    this.#saved.waiting = [];
  }

  protected override restored(): void {
    this.#flushes.clear();
    for (const key of this.#saved.waiting) {
      const element = this.#queue?.retake(key);
      if (element !== undefined) this.#flush(element);
    }
  }

  #serve(queue: Virtqueue): void {
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      if (element.outCount < 1 || element.inCount < 1) {
        this.broken('virtio-pmem request not proper');
        queue.detach(element);
        return;
      }
      this.#saved.waiting = [...this.#saved.waiting, queue.keyOf(element)];
      this.#flush(element);
    }
  }

  #flush(element: VirtqueueElement): void {
    const flush: Flush = { element, ret: undefined };
    this.#flushes.add(flush);
    this.backend?.sync(kept => {
      flush.ret = kept ? RET.KEPT : RET.FAILED;
      this.#answer();
    });
  }

  /** Tells the driver of what is done, unless its memory is to be left alone for now. */
  #answer(): void {
    const queue = this.#queue;
    if (queue === undefined || !this.services.system.running) return;
    let answered = false;
    for (const flush of this.#flushes) {
      if (flush.ret === undefined) continue;
      this.#flushes.delete(flush);
      this.#saved.waiting = this.#saved.waiting.filter(key => key !== queue.keyOf(flush.element));
      this.#response[0] = flush.ret;
      queue.push(flush.element, flush.element.write(this.#response));
      answered = true;
    }
    if (answered) queue.notify();
  }
}

export const virtioPmemDevice = deviceType({
  type: 'virtio-pmem',
  summary: 'Persistent memory (virtio)',
  bus: 'virtio-bus',
  category: 'storage',
  parents: ['virtio-device', 'device'],
  properties: memoryProperties,
  create: VirtioPmem,
});

export const virtioPmemPci = virtioPciType({
  name: 'virtio-pmem',
  summary: 'Persistent memory (virtio, PCI)',
  aliases: [],
  category: 'misc',
  backend: virtioPmemDevice,
  virtioId: VIRTIO_ID.PMEM,
  class: 0x00_ff00,
  properties: functionProperties,
  vectors: () => 0,
});
