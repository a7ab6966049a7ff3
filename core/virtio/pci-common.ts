import type { IoHandler } from '../memory/memory-region.ts';
import { field, type StateValues } from '../state/fields.ts';
import { QUEUES_MAX } from './features.ts';
import { COMMON } from './pci-registers.ts';
import type { QueueSetups } from './queue-registers.ts';
import type { VirtioDevice } from './virtio-device.ts';
import type { VirtioPci } from './virtio-pci.ts';

const state = {
  deviceSelect: field.u32(),
  driverSelect: field.u32(),
  driverFeatures: field.words(2),
} as const;

/** The common configuration structure (virtio 1.2, section 4.1.4.3). A register is accessed where it begins, in any width. */
export class PciCommonRegisters implements IoHandler {
  static readonly state = state;
  readonly #function: VirtioPci;
  readonly #device: VirtioDevice;
  readonly #setups: QueueSetups;
  readonly #state: StateValues<typeof state>;

  constructor(func: VirtioPci, device: VirtioDevice, setups: QueueSetups, values: StateValues<typeof state>) {
    this.#function = func;
    this.#device = device;
    this.#setups = setups;
    this.#state = values;
  }

  read(offset: number, size: number): number {
    const value = this.#read(offset);
    return size === 4 ? value : value & (2 ** (8 * size) - 1);
  }

  #read(offset: number): number {
    const device = this.#device;
    const selected = device.queueSelect;
    switch (offset) {
      case COMMON.DEVICE_FEATURE_SELECT:
        return this.#state.deviceSelect;
      case COMMON.DEVICE_FEATURE:
        return this.#state.deviceSelect > 1
          ? 0
          : Number((device.modernFeatures >> BigInt(32 * this.#state.deviceSelect)) & 0xffff_ffffn);
      case COMMON.DRIVER_FEATURE_SELECT:
        return this.#state.driverSelect;
      case COMMON.DRIVER_FEATURE:
        return this.#state.driverFeatures[this.#state.driverSelect] ?? 0;
      case COMMON.CONFIG_MSIX_VECTOR:
        return device.configVector;
      case COMMON.NUM_QUEUES:
        return device.queues.length;
      case COMMON.DEVICE_STATUS:
        return device.status;
      case COMMON.CONFIG_GENERATION:
        return device.generation & 0xff;
      case COMMON.QUEUE_SELECT:
        return selected;
      case COMMON.QUEUE_SIZE:
        return device.queue(selected)?.size ?? 0;
      case COMMON.QUEUE_MSIX_VECTOR:
        return device.queue(selected)?.vector ?? 0xffff;
      case COMMON.QUEUE_ENABLE:
        return this.#setups.at(selected).enabled ? 1 : 0;
      case COMMON.QUEUE_NOTIFY_OFF:
        return selected;
      case COMMON.QUEUE_RESET:
        return 0;
      default: {
        const word = (offset - COMMON.QUEUE_DESC_LOW) / 4;
        return this.#setups.at(selected).words[word] ?? 0;
      }
    }
  }

  write(offset: number, _size: number, value: number): void {
    const device = this.#device;
    const selected = device.queueSelect;
    const queue = device.queue(selected);
    switch (offset) {
      case COMMON.DEVICE_FEATURE_SELECT:
        this.#state.deviceSelect = value;
        return;
      case COMMON.DRIVER_FEATURE_SELECT:
        this.#state.driverSelect = value;
        return;
      case COMMON.DRIVER_FEATURE:
        this.#acceptFeatures(value);
        return;
      case COMMON.CONFIG_MSIX_VECTOR:
        device.configVector = this.#function.validVector(value);
        return;
      case COMMON.DEVICE_STATUS:
        device.setStatus(value & 0xff);
        if (device.status === 0) this.#function.resetFromDriver();
        return;
      case COMMON.QUEUE_SELECT:
        if (value < QUEUES_MAX) device.queueSelect = value;
        return;
      case COMMON.QUEUE_SIZE:
        this.#setups.at(selected).size = value & 0xffff;
        queue?.resize(value & 0xffff);
        return;
      case COMMON.QUEUE_MSIX_VECTOR:
        if (queue !== undefined) queue.vector = this.#function.validVector(value);
        return;
      case COMMON.QUEUE_ENABLE:
        this.#enable(selected, value);
        return;
      case COMMON.QUEUE_RESET:
        if (value !== 1) return;
        device.resetQueue(selected);
        this.#setups.at(selected).enabled = false;
        return;
      default: {
        const word = (offset - COMMON.QUEUE_DESC_LOW) / 4;
        const { words } = this.#setups.at(selected);
        if (word in words) words[word] = value;
      }
    }
  }

  #acceptFeatures(value: number): void {
    const { driverFeatures, driverSelect } = this.#state;
    if (driverSelect > 1) return;
    driverFeatures[driverSelect] = value;
    this.#device.acceptFeatures((BigInt(driverFeatures[1] ?? 0) << 32n) | BigInt(driverFeatures[0] ?? 0));
  }

  #enable(selected: number, value: number): void {
    const device = this.#device;
    if (value !== 1) {
      device.broken(`wrong value for queue_enable ${value.toString(16)}`);
      return;
    }
    const setup = this.#setups.at(selected);
    device.queue(selected)?.resize(setup.size);
    this.#setups.apply(device, selected);
    setup.enabled = true;
  }
}
