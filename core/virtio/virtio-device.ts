import { Device } from '../device/device.ts';
import type { DeviceContext } from '../device/device-type.ts';
import { type PropSet, type PropValues, prop } from '../device/property.ts';
import { SouthbridgeError } from '../errors.ts';
import type { Dma } from '../memory/dma.ts';
import { asRecord, field, loadValues, type SavedRecord, type SavedValue, saveValues } from '../state/fields.ts';
import { bit, has, ISR, LEGACY_FEATURES, NO_VECTOR, QUEUES_MAX, STATUS, VIRTIO_F } from './features.ts';
import type { QueueOwner } from './ring.ts';
import { VirtioBus, type VirtioTransport } from './virtio-bus.ts';
import { queueFields, Virtqueue } from './virtqueue.ts';

/** The properties that every virtio device has: features that all kinds share. */
export const virtioProperties = {
  indirect_desc: prop.bit({ default: true }),
  event_idx: prop.bit({ default: true }),
  notify_on_empty: prop.bit({ default: true }),
  any_layout: prop.bit({ default: true }),
  iommu_platform: prop.bit({ default: false }),
  packed: prop.bit({ default: false }),
  queue_reset: prop.bit({ default: true }),
  'use-started': prop.bool({ default: true }),
  'use-disabled-flag': prop.bool({ default: true }),
  'x-disable-legacy-check': prop.bool({ default: false }),
} as const;

export type VirtioProps = typeof virtioProperties;

const commonFields = {
  guestFeatures: field.u64(),
  status: field.u8(),
  isr: field.u8(),
  queueSelect: field.u16(),
  configVector: field.u16(NO_VECTOR),
  generation: field.u32(),
  disabled: field.bool(),
  broken: field.bool(),
  queues: field.list(field.record(queueFields), QUEUES_MAX),
} as const;

/** What a kind of device says of itself. */
export interface VirtioKind {
  /** Device id (virtio 1.2, section 5). */
  readonly id: number;
  /** Bytes of its configuration space. */
  readonly configSize: number;
  /** Features that only mean something to drivers from before version 1. */
  readonly legacyFeatures?: bigint;
}

/**
 * A virtio device, whatever it is reached through: features, status, configuration space, queues (virtio 1.2, section 2). A
 * subclass calls {@link begin} and {@link addQueue} when it is realized, and implements what its kind does.
 */
export abstract class VirtioDevice<S extends PropSet = PropSet> extends Device<S> implements QueueOwner {
  readonly dma: Dma;
  readonly transport: VirtioTransport;
  readonly queues: Virtqueue[] = [];
  kind: VirtioKind = { id: 0, configSize: 0 };
  /** The configuration space as last read or written. */
  config: Uint8Array = new Uint8Array(0);
  hostFeatures = 0n;
  #guestFeatures = 0n;
  #status = 0;
  isr = 0;
  queueSelect = 0;
  configVector = NO_VECTOR;
  generation = 0;
  #disabled = false;
  #broken = false;
  eventIndex = false;
  packed = false;
  notifyOnEmpty = false;

  constructor(context: DeviceContext<S>) {
    super(context);
    if (!(context.bus instanceof VirtioBus)) {
      throw new SouthbridgeError(
        'ERR_DEVICE_TYPE',
        `'${context.type.type}' is a virtio device; its type must say bus: 'virtio-bus'`,
      );
    }
    this.transport = context.bus.transport;
    this.dma = this.transport.dma;
  }

  get #commonProps(): PropValues<VirtioProps> {
    // Every type of virtio device has these among its properties.
    return this.props as PropValues<VirtioProps>;
  }

  // What a kind of device says and does

  /** The features that it offers, of its own and of `common`. */
  protected offeredFeatures(common: bigint): bigint {
    return common;
  }

  /** The driver has accepted `features`. */
  protected featuresAccepted(features: bigint): void {
    void features;
  }

  /** Has as many queues as the state that is about to be restored, where a device may have more or fewer. */
  protected shapeQueues(count: number): void {
    void count;
  }

  /** Whether the device can work with what the driver has accepted. */
  protected validFeatures(features: bigint): boolean {
    return !this.#commonProps.iommu_platform || has(features, VIRTIO_F.IOMMU_PLATFORM);
  }

  /** Fills in the configuration space. */
  protected readConfig(config: DataView): void {
    void config;
  }

  /** The driver has written the configuration space. */
  protected configWritten(config: DataView): void {
    void config;
  }

  /** The driver is about to change the device status from {@link status} to `status`. */
  protected statusChanging(status: number): void {
    void status;
  }

  /** Lets go of what it is doing; the queues are about to be reset. */
  protected virtioReset(): void {}

  /** Queue `queue` alone is about to be reset, by RING_RESET. */
  protected queueReset(queue: Virtqueue): void {
    void queue;
  }

  // For kinds of devices

  /** Says what it is. Call it before {@link addQueue}. */
  protected begin(kind: VirtioKind): void {
    this.kind = kind;
    this.config = new Uint8Array(kind.configSize);
    const props = this.#commonProps;
    const wanted: readonly (readonly [boolean, number])[] = [
      [props.indirect_desc, VIRTIO_F.INDIRECT_DESC],
      [props.event_idx, VIRTIO_F.EVENT_IDX],
      [props.notify_on_empty, VIRTIO_F.NOTIFY_ON_EMPTY],
      [props.any_layout, VIRTIO_F.ANY_LAYOUT],
      [props.iommu_platform, VIRTIO_F.IOMMU_PLATFORM],
      [props.packed, VIRTIO_F.RING_PACKED],
      [props.queue_reset, VIRTIO_F.RING_RESET],
    ];
    let features = this.transport.transportFeatures();
    for (const [on, feature] of wanted) if (on) features |= bit(feature);
    this.hostFeatures = this.offeredFeatures(features);
  }

  protected addQueue(size: number, handle: (queue: Virtqueue) => void): Virtqueue {
    const queue = new Virtqueue(this.queues.length, size, this, handle);
    this.queues.push(queue);
    return queue;
  }

  /** Whether the driver has accepted the feature. */
  accepted(feature: number): boolean {
    return has(this.#guestFeatures, feature);
  }

  /** The configuration space has changed by itself (virtio 1.2, section 2.3). */
  configChanged(): void {
    if ((this.#status & STATUS.DRIVER_OK) === 0) return;
    this.isr |= ISR.QUEUE | ISR.CONFIG;
    this.generation = (this.generation + 1) >>> 0;
    this.transport.interrupt(this.configVector);
  }

  // For its queues

  get disabled(): boolean {
    return this.#disabled || this.#broken;
  }

  /** After this the device does nothing until it is reset (virtio 1.2, section 2.1.2). */
  broken(message: string): void {
    this.log.guestError(message);
    if (this.accepted(VIRTIO_F.VERSION_1)) {
      this.#status |= STATUS.DEVICE_NEEDS_RESET;
      this.configChanged();
    }
    this.#broken = true;
  }

  interrupt(vector: number): void {
    this.isr |= ISR.QUEUE;
    this.transport.interrupt(vector);
  }

  // For transports

  get isBroken(): boolean {
    return this.#broken;
  }

  /** Set while the function may not master its bus. */
  set disabled(disabled: boolean) {
    this.#disabled = disabled;
  }

  get guestFeatures(): bigint {
    return this.#guestFeatures;
  }

  get status(): number {
    return this.#status;
  }

  get running(): boolean {
    return (this.#status & STATUS.DRIVER_OK) !== 0;
  }

  /** What a driver of version 1 is offered. */
  get modernFeatures(): bigint {
    return this.hostFeatures & ~(LEGACY_FEATURES | (this.kind.legacyFeatures ?? 0n));
  }

  queue(index: number): Virtqueue | undefined {
    return this.queues[index];
  }

  /** The driver accepts `features`; what was not offered is not accepted. */
  acceptFeatures(features: bigint): void {
    // Section 2.2.1: once negotiation has finished, nothing changes.
    if ((this.#status & STATUS.FEATURES_OK) !== 0) return;
    this.#setFeatures(features & this.hostFeatures);
    this.featuresAccepted(this.#guestFeatures);
  }

  /** The driver writes the device status; 0 resets. Refused where the features do not fit together (section 3.1.1). */
  setStatus(status: number): void {
    const finishing = (status & ~this.#status & STATUS.FEATURES_OK) !== 0;
    if (this.accepted(VIRTIO_F.VERSION_1) && finishing && !this.validFeatures(this.#guestFeatures)) return;
    this.statusChanging(status);
    this.#status = status;
  }

  /** The driver says that queue `index` has buffers. */
  notified(index: number): void {
    const queue = this.queues[index];
    if (queue?.ready && !this.#broken) queue.handle(queue);
  }

  resetQueue(index: number): void {
    const queue = this.queues[index];
    if (queue === undefined) return;
    this.queueReset(queue);
    queue.reset();
  }

  configRead(offset: number, size: number): number {
    const { config } = this;
    if (offset + size > config.length) return size === 4 ? 0xffff_ffff : 2 ** (8 * size) - 1;
    this.readConfig(new DataView(config.buffer));
    let value = 0;
    for (let index = 0; index < size; index++) value |= (config[offset + index] ?? 0) << (8 * index);
    return value >>> 0;
  }

  configWrite(offset: number, size: number, value: number): void {
    const { config } = this;
    if (offset + size > config.length) return;
    for (let index = 0; index < size; index++) config[offset + index] = value >>> (8 * index);
    this.configWritten(new DataView(config.buffer));
  }

  /** The driver's reset, or the machine's: as it was in the beginning (section 2.4). */
  resetVirtio(): void {
    this.setStatus(0);
    this.virtioReset();
    this.#setFeatures(0n);
    this.#status = 0;
    this.#disabled = false;
    this.#broken = false;
    this.isr = 0;
    this.queueSelect = 0;
    this.configVector = NO_VECTOR;
    for (const queue of this.queues) queue.reset();
    this.transport.interrupt(NO_VECTOR);
  }

  protected override resetHold(): void {
    this.resetVirtio();
  }

  override attach(): void {
    super.attach();
    this.readConfig(new DataView(this.config.buffer));
    this.transport.plugged(this);
  }

  override save(): SavedRecord {
    const { isr, queueSelect, configVector, generation } = this;
    const common = saveValues(commonFields, {
      guestFeatures: this.#guestFeatures,
      status: this.#status,
      isr,
      queueSelect,
      configVector,
      generation,
      disabled: this.#disabled,
      broken: this.#broken,
      queues: this.queues.map(queue => queue.save()),
    });
    return { ...super.save(), virtio: common, config: this.config.slice() };
  }

  override restore(saved: SavedValue): void {
    const record = asRecord(saved, this.path);
    const common = loadValues(commonFields, record['virtio'], `${this.path}.virtio`);
    const config = field.bytes(this.config.length).load(record['config'] ?? null, `${this.path}.config`);
    this.shapeQueues(common.queues.length);
    if (common.queues.length !== this.queues.length) {
      throw new SouthbridgeError('ERR_STATE_VALUE', `the saved state of ${this.path} has another number of queues`);
    }
    this.#setFeatures(common.guestFeatures & this.hostFeatures);
    this.#status = common.status;
    this.isr = common.isr;
    this.queueSelect = common.queueSelect;
    this.configVector = common.configVector;
    this.generation = common.generation;
    this.#disabled = common.disabled;
    this.#broken = common.broken;
    this.config.set(config);
    for (const [index, queue] of common.queues.entries()) this.queues[index]?.restore(queue);
    super.restore(saved);
  }

  #setFeatures(features: bigint): void {
    this.#guestFeatures = features;
    this.eventIndex = has(features, VIRTIO_F.EVENT_IDX);
    this.packed = has(features, VIRTIO_F.RING_PACKED);
    this.notifyOnEmpty = has(features, VIRTIO_F.NOTIFY_ON_EMPTY);
    // Section 6.1: without the feature addresses are those of memory, whatever IOMMU there is.
    this.dma.translating = has(features, VIRTIO_F.IOMMU_PLATFORM);
  }
}
