import type { Device } from '../device/device.ts';
import type { GuestRam } from '../memory/guest-ram.ts';
import type { DriverPort } from '../register/register.ts';
import { STATUS, VIRTIO_F } from '../virtio/features.ts';
import { COMMON, LAYOUT } from '../virtio/pci-registers.ts';
import type { Bench, PciProbe } from './bench.ts';
import { type DriverQueue, PackedDriverQueue, SplitDriverQueue } from './virtio-driver-queue.ts';

const MODERN_BAR = 4;
const DOORBELL = 4;
const PAGE = 4096;

/**
 * The driver's side of a virtio PCI function of version 1 (virtio 1.2, section 3.1), for hardware tests: negotiates, makes
 * queues in the bench's RAM, and fills and empties them.
 */
export class VirtioDriver {
  readonly port: DriverPort;
  readonly ram: GuestRam;
  features = 0n;
  #next: number;

  /** @param memory where in the bench's RAM the driver may put queues and buffers */
  constructor(lab: Bench, probe: PciProbe<Device>, memory = 0x10_0000) {
    this.port = probe.port(MODERN_BAR);
    this.ram = lab.ram;
    this.#next = memory;
  }

  /** Zeroed RAM for the driver's own use; returns its address. */
  allocate(bytes: number, alignment = 16): number {
    const address = Math.ceil(this.#next / alignment) * alignment;
    this.#next = address + bytes;
    this.ram.bytes.fill(0, address, address + bytes);
    return address;
  }

  /** Takes memory from `address` on again: nothing there is in use any more. */
  rewind(address: number): void {
    this.#next = address;
  }

  get status(): number {
    return this.port.read(COMMON.DEVICE_STATUS, 1);
  }

  set status(status: number) {
    this.port.write(COMMON.DEVICE_STATUS, 1, status);
  }

  /** What the device offers. */
  get offered(): bigint {
    let features = 0n;
    for (const word of [1, 0]) {
      this.port.write(COMMON.DEVICE_FEATURE_SELECT, 4, word);
      features = (features << 32n) | BigInt(this.port.read(COMMON.DEVICE_FEATURE, 4));
    }
    return features;
  }

  /** Resets the device and accepts those of `wanted` that it offers, and VERSION_1. Returns what was accepted. */
  negotiate(wanted: bigint): bigint {
    this.status = 0;
    this.status = STATUS.ACKNOWLEDGE | STATUS.DRIVER;
    const features = (wanted | (1n << BigInt(VIRTIO_F.VERSION_1))) & this.offered;
    for (const word of [0, 1]) {
      this.port.write(COMMON.DRIVER_FEATURE_SELECT, 4, word);
      this.port.write(COMMON.DRIVER_FEATURE, 4, Number((features >> BigInt(32 * word)) & 0xffff_ffffn));
    }
    this.status = STATUS.ACKNOWLEDGE | STATUS.DRIVER | STATUS.FEATURES_OK;
    this.features = features;
    return features;
  }

  /** Sets up queue `index`, split or packed as was negotiated. */
  queue(index: number, size?: number): DriverQueue {
    const { port } = this;
    port.write(COMMON.QUEUE_SELECT, 2, index);
    if (size !== undefined) port.write(COMMON.QUEUE_SIZE, 2, size);
    const entries = port.read(COMMON.QUEUE_SIZE, 2);
    const desc = this.allocate(entries * 16, PAGE);
    const driver = this.allocate(6 + entries * 2, PAGE);
    const device = this.allocate(6 + entries * 8, PAGE);
    const words = [COMMON.QUEUE_DESC_LOW, COMMON.QUEUE_DRIVER_LOW, COMMON.QUEUE_DEVICE_LOW];
    for (const [part, address] of [desc, driver, device].entries()) {
      port.write(words[part] ?? 0, 4, address);
      port.write((words[part] ?? 0) + 4, 4, 0);
    }
    port.write(COMMON.QUEUE_MSIX_VECTOR, 2, index + 1);
    port.write(COMMON.QUEUE_ENABLE, 2, 1);
    const kick = (): void => port.write(LAYOUT.NOTIFY + index * DOORBELL, 2, index);
    const parts = { ram: this.ram, size: entries, desc, driver, device, kick };
    const packed = (this.features & (1n << BigInt(VIRTIO_F.RING_PACKED))) !== 0n;
    return packed ? new PackedDriverQueue(parts) : new SplitDriverQueue(parts);
  }

  /** The device may begin. */
  start(): void {
    this.status = this.status | STATUS.DRIVER_OK;
  }

  readConfig(offset: number, size: 1 | 2 | 4): number {
    return this.port.read(LAYOUT.DEVICE + offset, size);
  }

  writeConfig(offset: number, size: 1 | 2 | 4, value: number): void {
    this.port.write(LAYOUT.DEVICE + offset, size, value);
  }
}
