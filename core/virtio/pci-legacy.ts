import type { IoHandler } from '../memory/memory-region.ts';
import { bit, NO_VECTOR, QUEUES_MAX, STATUS, VIRTIO_F } from './features.ts';
import { legacyLayout } from './legacy-layout.ts';
import { LEGACY, LEGACY_PAGE } from './pci-registers.ts';
import type { VirtioDevice } from './virtio-device.ts';
import type { VirtioPci } from './virtio-pci.ts';

/** The registers of a legacy or transitional function (virtio 1.2, section 4.1.4.10), in its first BAR. */
export class PciLegacyRegisters implements IoHandler {
  readonly #function: VirtioPci;
  readonly #device: VirtioDevice;

  constructor(func: VirtioPci, device: VirtioDevice) {
    this.#function = func;
    this.#device = device;
  }

  #config(): number {
    return this.#function.msix?.enabled ? LEGACY.CONFIG_WITH_MSIX : LEGACY.CONFIG;
  }

  read(offset: number, size: number): number {
    const config = this.#config();
    if (offset >= config) return this.#device.configRead(offset - config, size);
    const value = this.#read(offset);
    return size === 4 ? value : value & (2 ** (8 * size) - 1);
  }

  #read(offset: number): number {
    const device = this.#device;
    const queue = device.queue(device.queueSelect);
    switch (offset) {
      case LEGACY.HOST_FEATURES:
        return Number(device.hostFeatures & 0xffff_ffffn);
      case LEGACY.GUEST_FEATURES:
        return Number(device.guestFeatures & 0xffff_ffffn);
      case LEGACY.QUEUE_PFN:
        return ((queue?.desc.address ?? 0) / LEGACY_PAGE) >>> 0;
      case LEGACY.QUEUE_NUM:
        return queue?.size ?? 0;
      case LEGACY.QUEUE_SEL:
        return device.queueSelect;
      case LEGACY.STATUS:
        return device.status;
      case LEGACY.ISR:
        return this.#function.takeIsr();
      case LEGACY.CONFIG_VECTOR:
        return device.configVector;
      case LEGACY.QUEUE_VECTOR:
        return queue?.vector ?? NO_VECTOR;
      default:
        return 0xffff_ffff;
    }
  }

  write(offset: number, size: number, value: number): void {
    const config = this.#config();
    const device = this.#device;
    if (offset >= config) {
      device.configWrite(offset - config, size, value);
      return;
    }
    const queue = device.queue(device.queueSelect);
    switch (offset) {
      case LEGACY.GUEST_FEATURES:
        device.acceptFeatures(this.#negotiated(value));
        return;
      case LEGACY.QUEUE_PFN:
        if (value === 0) this.#function.resetFromDriver();
        else if (queue !== undefined) legacyLayout(queue, value * LEGACY_PAGE, LEGACY_PAGE);
        return;
      case LEGACY.QUEUE_SEL:
        if (value < QUEUES_MAX) device.queueSelect = value;
        return;
      case LEGACY.QUEUE_NOTIFY:
        device.notified(value);
        return;
      case LEGACY.STATUS:
        this.#writeStatus(value & 0xff);
        return;
      case LEGACY.CONFIG_VECTOR:
        device.configVector = this.#function.validVector(value);
        return;
      case LEGACY.QUEUE_VECTOR:
        if (queue !== undefined) queue.vector = this.#function.validVector(value);
        return;
    }
  }

  /** A driver that accepts what no driver should takes nothing at all. */
  #negotiated(value: number): bigint {
    const features = BigInt(value);
    return (features & bit(VIRTIO_F.BAD_FEATURE)) === 0n ? features : 0n;
  }

  #writeStatus(status: number): void {
    this.#device.setStatus(status);
    if (this.#device.status === 0) this.#function.resetFromDriver();
    if (status === (STATUS.ACKNOWLEDGE | STATUS.DRIVER)) this.#function.forceBusMaster();
  }
}
