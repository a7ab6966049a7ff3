import { Device } from '../device/device.ts';
import type { DeviceContext } from '../device/device-type.ts';
import { prop } from '../device/property.ts';
import { SystemBus } from '../device/system-bus.ts';
import { SouthbridgeError } from '../errors.ts';
import type { IrqLine } from '../irq/line.ts';
import { Dma } from '../memory/dma.ts';
import { type IoHandler, MemoryRegion } from '../memory/memory-region.ts';
import { asRecord, field, type SavedRecord, type SavedValue } from '../state/fields.ts';
import { bit, QUEUE_SIZE_MAX, QUEUES_MAX, VIRTIO_F } from './features.ts';
import { legacyLayout } from './legacy-layout.ts';
import { MMIO } from './mmio-registers.ts';
import { QueueSetups } from './queue-registers.ts';
import { VirtioBus, type VirtioTransport } from './virtio-bus.ts';
import type { VirtioDevice } from './virtio-device.ts';
import type { Virtqueue } from './virtqueue.ts';

const MAGIC = 0x7472_6976;
const VENDOR = 0x554d_4551;
const LEGACY_VERSION = 1;
const VERSION = 2;
const WINDOW = 0x200;

export const virtioMmioProperties = {
  format_transport_address: prop.bool({ default: true }),
  'force-legacy': prop.bool({ default: true }),
  ioeventfd: prop.bit({ default: true }),
} as const;

/** Of the used ring of a driver that says nothing of it: SeaBIOS takes a page for granted. Bytes. */
const LEGACY_ALIGNMENT = 4096;

/** A window of registers with a virtio device behind it (virtio 1.2, section 4.2), or none. The machine places it. */
export class VirtioMmio extends Device<typeof virtioMmioProperties> implements VirtioTransport, IoHandler {
  readonly dma: Dma;
  /** Where the registers are, for the machine to map. */
  readonly region: MemoryRegion;
  readonly irq: IrqLine = this.output('irq', 'sysbus-irq');

  readonly #bus: VirtioBus;
  readonly #setups = new QueueSetups();
  readonly #saved = this.state(1, {
    deviceSelect: field.u8(),
    driverSelect: field.u8(),
    driverFeatures: field.words(2),
    pageShift: field.u8(),
    alignment: field.u32(LEGACY_ALIGNMENT),
  });

  override get mappedRegions(): readonly { readonly offset: number; readonly size: number }[] {
    return this.region.parent === undefined ? [] : [{ offset: this.region.offset, size: WINDOW }];
  }

  constructor(context: DeviceContext<typeof virtioMmioProperties>) {
    super(context);
    if (!(context.bus instanceof SystemBus)) {
      throw new SouthbridgeError('ERR_DEVICE_TYPE', `'${context.type.type}' goes on the system bus`);
    }
    this.dma = new Dma(context.bus.dmaSpace);
    this.region = MemoryRegion.io('virtio-mmio', WINDOW, this);
    const count = [...context.bus.devices].filter(device => device instanceof VirtioMmio).length;
    this.#bus = this.addBus(
      new VirtioBus(`virtio-mmio-bus.${count}`, this, {
        services: context.services,
        owner: this,
        home: context.bus.home,
      }),
    );
  }

  get device(): VirtioDevice | undefined {
    return this.#bus.device;
  }

  #legacy(): boolean {
    return this.props['force-legacy'];
  }

  transportFeatures(): bigint {
    return this.#legacy() ? 0n : bit(VIRTIO_F.VERSION_1);
  }

  plugged(): void {}

  interrupt(): void {
    this.irq.set((this.device?.isr ?? 0) !== 0);
  }

  protected override resetHold(): void {
    this.#setups.reset();
  }

  override detach(): void {
    this.region.parent?.remove(this.region);
    super.detach();
  }

  // Registers (sections 4.2.2 and 4.2.4)

  read(offset: number, size: number): number {
    const { device } = this;
    // Who looks whether there is a device finds none (section 4.2.2.1).
    if (device === undefined)
      return offset === MMIO.MAGIC
        ? MAGIC
        : offset === MMIO.VERSION
          ? this.#version()
          : offset === MMIO.VENDOR_ID
            ? VENDOR
            : 0;
    if (offset >= MMIO.CONFIG) return device.configRead(offset - MMIO.CONFIG, size);
    if (size !== 4) {
      this.log.guestError('wrong size access to register!');
      return 0;
    }
    return this.#read(device, offset);
  }

  #version(): number {
    return this.#legacy() ? LEGACY_VERSION : VERSION;
  }

  #read(device: VirtioDevice, offset: number): number {
    const queue = device.queue(device.queueSelect);
    switch (offset) {
      case MMIO.MAGIC:
        return MAGIC;
      case MMIO.VERSION:
        return this.#version();
      case MMIO.DEVICE_ID:
        return device.kind.id;
      case MMIO.VENDOR_ID:
        return VENDOR;
      case MMIO.DEVICE_FEATURES:
        return this.#features(device);
      case MMIO.QUEUE_NUM_MAX:
        return queue === undefined || queue.size === 0 ? 0 : QUEUE_SIZE_MAX;
      case MMIO.QUEUE_PFN:
        return this.#legacy() ? Math.floor((queue?.desc.address ?? 0) / 2 ** this.#saved.pageShift) >>> 0 : 0;
      case MMIO.QUEUE_READY:
        return !this.#legacy() && this.#setups.at(device.queueSelect).enabled ? 1 : 0;
      case MMIO.INTERRUPT_STATUS:
        return device.isr;
      case MMIO.STATUS:
        return device.status;
      case MMIO.CONFIG_GENERATION:
        return this.#legacy() ? 0 : device.generation;
      case MMIO.SHM_LEN_LOW:
      case MMIO.SHM_LEN_HIGH:
        // There is no shared memory, which a length of all ones says (section 4.2.2).
        return 0xffff_ffff;
      default:
        return 0;
    }
  }

  #features(device: VirtioDevice): number {
    const select = this.#saved.deviceSelect;
    if (this.#legacy()) return select === 0 ? Number(device.hostFeatures & 0xffff_ffffn) : 0;
    return Number((device.modernFeatures >> BigInt(32 * select)) & 0xffff_ffffn);
  }

  write(offset: number, size: number, value: number): void {
    const { device } = this;
    if (device === undefined) return;
    if (offset >= MMIO.CONFIG) {
      device.configWrite(offset - MMIO.CONFIG, size, value);
      return;
    }
    if (size !== 4) {
      this.log.guestError('wrong size access to register!');
      return;
    }
    this.#write(device, offset, value);
  }

  #write(device: VirtioDevice, offset: number, value: number): void {
    const saved = this.#saved;
    const queue = device.queue(device.queueSelect);
    switch (offset) {
      case MMIO.DEVICE_FEATURES_SEL:
        saved.deviceSelect = value === 0 ? 0 : 1;
        return;
      case MMIO.DRIVER_FEATURES_SEL:
        saved.driverSelect = value === 0 ? 0 : 1;
        return;
      case MMIO.DRIVER_FEATURES:
        saved.driverFeatures[saved.driverSelect] = value;
        if (!this.#legacy()) return;
        // A legacy driver has 32 features, and never says that it has finished.
        if (saved.driverSelect === 0) device.acceptFeatures(BigInt(value));
        return;
      case MMIO.QUEUE_SEL:
        if (value < QUEUES_MAX) device.queueSelect = value;
        return;
      case MMIO.QUEUE_NUM:
        this.#setups.at(device.queueSelect).size = value & 0xffff;
        queue?.resize(value);
        return;
      case MMIO.QUEUE_NOTIFY:
        device.notified(value);
        return;
      case MMIO.INTERRUPT_ACK:
        device.isr &= ~value;
        this.interrupt();
        return;
      case MMIO.STATUS:
        this.#writeStatus(device, value & 0xff);
        return;
      default:
        if (this.#legacy()) this.#writeLegacy(queue, offset, value);
        else this.#writeQueue(device, offset, value);
    }
  }

  #writeStatus(device: VirtioDevice, status: number): void {
    const { driverFeatures } = this.#saved;
    const FEATURES_OK = 8;
    if (!this.#legacy() && (status & FEATURES_OK) !== 0) {
      device.acceptFeatures((BigInt(driverFeatures[1] ?? 0) << 32n) | BigInt(driverFeatures[0] ?? 0));
    }
    device.setStatus(status);
    if (device.status !== 0) return;
    device.resetVirtio();
    this.#setups.reset();
    driverFeatures.fill(0);
  }

  #writeLegacy(queue: Virtqueue | undefined, offset: number, value: number): void {
    const saved = this.#saved;
    if (offset === MMIO.GUEST_PAGE_SIZE) {
      // The size is a power of two; a driver that says otherwise gets the next one down.
      saved.pageShift = value === 0 ? 0 : 31 - Math.clz32(value);
    } else if (offset === MMIO.QUEUE_ALIGN) {
      if (value !== 0) saved.alignment = value;
    } else if (offset === MMIO.QUEUE_PFN) {
      if (value === 0) this.device?.resetVirtio();
      else if (queue !== undefined) legacyLayout(queue, value * 2 ** saved.pageShift, saved.alignment);
    }
  }

  #writeQueue(device: VirtioDevice, offset: number, value: number): void {
    const selected = device.queueSelect;
    const setup = this.#setups.at(selected);
    if (offset === MMIO.QUEUE_READY) {
      setup.enabled = (value & 1) !== 0;
      if (!setup.enabled) return;
      device.queue(selected)?.resize(setup.size);
      this.#setups.apply(device, selected);
      return;
    }
    const word = MMIO.QUEUE_WORDS.indexOf(offset);
    if (word >= 0) setup.words[word] = value;
    else this.log.guestError(`bad register offset 0x${offset.toString(16)}`);
  }

  override save(): SavedRecord {
    return { ...super.save(), queues: QueueSetups.state.save(this.#setups.save()) };
  }

  override restore(saved: SavedValue): void {
    const record = asRecord(saved, this.path);
    const queues = QueueSetups.state.load(record['queues'] ?? null, `${this.path}.queues`);
    super.restore(saved);
    this.#setups.restore(queues);
  }
}
