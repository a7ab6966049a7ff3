import { type MemoryReport, refused } from '../../core/bus/memory-bus.ts';
import { type DeviceContext, deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import type { MemoryBackend } from '../../core/memory/memory-backend.ts';
import { badState, field } from '../../core/state/fields.ts';
import type { VirtqueueElement } from '../../core/virtio/element.ts';
import { bit, VIRTIO_ID } from '../../core/virtio/features.ts';
import { virtioPciType } from '../../core/virtio/virtio-pci-types.ts';
import type { Virtqueue } from '../../core/virtio/virtqueue.ts';
import { functionProperties, memoryProperties, VirtioMemoryDevice } from './memory-device.ts';

const MIB = 2 ** 20;

/** Feature bits (virtio 1.2, section 5.15.3). */
const F = { ACPI_PXM: 0, UNPLUGGED_INACCESSIBLE: 1 } as const;

/** Offsets in the configuration space (section 5.15.4). */
const CONFIG = {
  BLOCK_SIZE: 0,
  NODE_ID: 8,
  ADDR: 16,
  REGION_SIZE: 24,
  USABLE_REGION_SIZE: 32,
  PLUGGED_SIZE: 40,
  REQUESTED_SIZE: 48,
  BYTES: 56,
} as const;

/** Requests (section 5.15.6): a type, and from offset 8 on an address and a number of blocks. */
const REQUEST = { PLUG: 0, UNPLUG: 1, UNPLUG_ALL: 2, STATE: 3 } as const;
const REQUEST_SIZE = 24;
const REQUEST_ADDR = 8;
const REQUEST_BLOCKS = 16;

/** Responses: a type, and from offset 8 on the state that was asked for. */
const RESPONSE = { ACK: 0, NACK: 1, BUSY: 2, ERROR: 3 } as const;
const RESPONSE_SIZE = 10;
const RESPONSE_STATE = 8;
const STATE = { PLUGGED: 0, UNPLUGGED: 1, MIXED: 2 } as const;

const QUEUE_SIZE = 128;
const MIN_BLOCK_SIZE = MIB;
/** A block is by default as large as the host's large pages. */
const DEFAULT_BLOCK_SIZE = 2 * MIB;
/** How far beyond what is asked for the driver may go: two of Linux's memory sections. */
const USABLE_EXTENT = 256 * MIB;

const properties = {
  ...memoryProperties,
  node: prop.u32({ default: 0 }),
  prealloc: prop.bool({ default: false, help: 'whether the host sets memory aside when it is plugged' }),
  'unplugged-inaccessible': prop.onOffAuto({
    default: 'auto',
    help: 'whether drivers must promise to leave unplugged memory alone',
  }),
  'block-size': prop.size({ help: 'bytes that are plugged and unplugged as one' }),
  'requested-size': prop.size({ mutable: true, help: 'bytes that the guest is asked to have plugged' }),
  size: prop.size({ help: 'bytes that are plugged: can only be read' }),
};

/** Memory that the guest takes and gives back in blocks, as the host asks it to (virtio 1.2, section 5.15). */
class VirtioMem extends VirtioMemoryDevice<typeof properties> {
  readonly backend = this.props.memdev;
  readonly wanted = Number(this.props.memaddr);
  readonly #blockSize = this.props['block-size'] ?? DEFAULT_BLOCK_SIZE;
  readonly #saved = this.#declareState();
  readonly #request = new Uint8Array(REQUEST_SIZE);
  readonly #requestView = new DataView(this.#request.buffer);
  readonly #response = new Uint8Array(RESPONSE_SIZE);
  readonly #responseView = new DataView(this.#response.buffer);
  readonly #inaccessible: boolean;

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    const { memdev, size, 'unplugged-inaccessible': inaccessible } = this.props;
    if (size !== undefined)
      throw new SouthbridgeError('ERR_PROPERTY_VALUE', "Property 'virtio-mem.size' is not writable");
    // What is private and nobody's file costs nothing where it is only read.
    const cheap = memdev === undefined || memdev.file === undefined;
    this.#inaccessible = inaccessible === 'auto' ? !cheap : inaccessible === 'on';
    this.#saved.requested = this.props['requested-size'] ?? 0;
  }

  #declareState() {
    const blocks = Math.ceil((this.backend?.size ?? 0) / this.#blockSize);
    return this.state(
      1,
      {
        address: field.number(),
        blockSize: field.number(this.#blockSize),
        usable: field.number(),
        plugged: field.number(),
        requested: field.number(),
        /** A byte a block: 1 where it is plugged. */
        blocks: field.bytes(blocks),
      },
      { onReset: 'keep' },
    );
  }

  get plugged(): number {
    return this.#saved.plugged;
  }

  get report(): MemoryReport {
    const { address, span, userId } = this;
    return {
      type: 'virtio-mem',
      data: {
        ...(userId !== undefined && { id: userId }),
        memaddr: address,
        node: this.props.node,
        'requested-size': this.#saved.requested,
        size: this.#saved.plugged,
        'max-size': span,
        'block-size': this.#blockSize,
        memdev: this.backend?.path ?? '',
      },
    };
  }

  protected override realize(): void {
    this.#checkBlockSize();
    const memdev = this.takePlace(this.#blockSize);
    this.#check(memdev);
    this.#saved.address = this.address;
    this.#resizeUsable(this.#saved.requested, true);
    this.begin({ id: VIRTIO_ID.MEM, configSize: CONFIG.BYTES });
    this.addQueue(QUEUE_SIZE, queue => this.#serve(queue));
    this.define('size', 'size', () => this.#saved.plugged);
    this.define('block-size', 'size', () => this.#blockSize);
    this.define(
      'requested-size',
      'size',
      () => this.#saved.requested,
      value => this.#setRequested(value),
    );
    this.showMemory(memdev);
    memdev.discard(0, this.span);
    this.onUnrealize(this.services.boot.onReset(() => this.#unplugAll()));
  }

  // Configuration

  /** @throws SouthbridgeError ERR_PROPERTY_RANGE */
  #checkBlockSize(): void {
    const size = this.#blockSize;
    if (size < MIN_BLOCK_SIZE) throw wrong(`'block-size' property has to be at least 0x${MIN_BLOCK_SIZE.toString(16)}`);
    if (!Number.isInteger(Math.log2(size))) throw wrong("'block-size' property has to be a power of two");
  }

  /** @throws SouthbridgeError ERR_PROPERTY_RANGE, ERR_MEMORY_DEVICE with QEMU's words */
  #check(memdev: MemoryBackend): void {
    const { node } = this.props;
    const nodes = this.services.memoryBus()?.nodeCount ?? 1;
    if (memdev.mapped) throw refused(`'memdev' property specifies a busy memdev: ${memdev.id}`);
    if (memdev.contents().some(ram => ram.readonly)) throw refused("'memdev' property specifies an unsupported memdev");
    if (node >= nodes)
      throw wrong(`'node' property has value '${node}', which exceedsthe number of numa nodes: ${nodes}`);
    const block = `'block-size' (0x${this.#blockSize.toString(16)})`;
    if (this.#saved.requested % this.#blockSize !== 0)
      throw wrong(`'requested-size' property has to be multiples of ${block}`);
    if (this.wanted % this.#blockSize !== 0) throw wrong(`'memaddr' property has to be multiples of ${block}`);
    if (memdev.size % this.#blockSize !== 0)
      throw wrong(`'memdev' property memdev size has to be multiples of${block}`);
  }

  /** The user asks the guest for more or less; it is told even where nothing changes. */
  #setRequested(value: unknown): void {
    const wanted = prop.size().parse(value, { name: 'requested-size', owner: this.typeName }) ?? 0;
    if (wanted % this.#blockSize !== 0)
      throw wrong(`'requested-size' has to be multiples of 'block-size' (0x${this.#blockSize.toString(16)})`);
    if (wanted > this.span)
      throw wrong(`'requested-size' cannot exceed the memory backend size(0x${this.span.toString(16)})`);
    if (wanted !== this.#saved.requested) {
      this.#resizeUsable(wanted, false);
      this.#saved.requested = wanted;
    }
    this.configChanged();
  }

  protected override offeredFeatures(common: bigint): bigint {
    return common | bit(F.ACPI_PXM) | (this.#inaccessible ? bit(F.UNPLUGGED_INACCESSIBLE) : 0n);
  }

  protected override validFeatures(features: bigint): boolean {
    const promised = !this.#inaccessible || this.accepted(F.UNPLUGGED_INACCESSIBLE);
    return promised && super.validFeatures(features);
  }

  protected override restored(): void {
    const { address, blockSize } = this.#saved;
    if (address !== this.address || blockSize !== this.#blockSize)
      badState(this.path, `memory at 0x${this.address.toString(16)} in blocks of ${this.#blockSize} bytes`);
  }

  protected override readConfig(config: DataView): void {
    config.setBigUint64(CONFIG.BLOCK_SIZE, BigInt(this.#blockSize), true);
    config.setUint16(CONFIG.NODE_ID, this.props.node, true);
    config.setBigUint64(CONFIG.ADDR, BigInt(this.address), true);
    config.setBigUint64(CONFIG.REGION_SIZE, BigInt(this.span), true);
    config.setBigUint64(CONFIG.USABLE_REGION_SIZE, BigInt(this.#saved.usable), true);
    config.setBigUint64(CONFIG.PLUGGED_SIZE, BigInt(this.#saved.plugged), true);
    config.setBigUint64(CONFIG.REQUESTED_SIZE, BigInt(this.#saved.requested), true);
  }

  // Requests (section 5.15.6)

  #serve(queue: Virtqueue): void {
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      const wrongWith = this.#refusal(element);
      if (wrongWith !== undefined) {
        this.broken(`virtio-mem protocol violation: ${wrongWith}`);
        queue.detach(element);
        return;
      }
      this.#answer();
      queue.push(element, element.write(this.#response));
      queue.notify();
    }
  }

  /** Copies the request, and says what is wrong with it. */
  #refusal(element: VirtqueueElement): string | undefined {
    if (element.read(this.#request) < REQUEST_SIZE) return `invalid request size: ${REQUEST_SIZE}`;
    if (element.in.length < RESPONSE_SIZE) return `not enough space for response: ${element.in.length}`;
    const type = this.#requestView.getUint16(0, true);
    return type > REQUEST.STATE ? `unknown request type: ${type}` : undefined;
  }

  #answer(): void {
    const request = this.#requestView;
    const address = request.getUint32(REQUEST_ADDR, true) + request.getUint32(REQUEST_ADDR + 4, true) * 2 ** 32;
    const size = request.getUint16(REQUEST_BLOCKS, true) * this.#blockSize;
    this.#response.fill(0);
    let type: number = RESPONSE.ACK;
    switch (request.getUint16(0, true)) {
      case REQUEST.PLUG:
        type = this.#change(address, size, true);
        break;
      case REQUEST.UNPLUG:
        type = this.#change(address, size, false);
        break;
      case REQUEST.UNPLUG_ALL:
        this.#unplugAll();
        break;
      default:
        if (!this.#isUsable(address, size)) type = RESPONSE.ERROR;
        else this.#responseView.setUint16(RESPONSE_STATE, this.#stateOf(address, size), true);
    }
    this.#responseView.setUint16(0, type, true);
  }

  #isUsable(address: number, size: number): boolean {
    const offset = address - this.address;
    return address % this.#blockSize === 0 && size > 0 && offset >= 0 && offset + size <= this.#saved.usable;
  }

  #stateOf(address: number, size: number): number {
    const { blocks } = this.#saved;
    const first = (address - this.address) / this.#blockSize;
    const count = size / this.#blockSize;
    let plugged = 0;
    for (let block = first; block < first + count; block++) plugged += blocks[block] ?? 0;
    return plugged === count ? STATE.PLUGGED : plugged === 0 ? STATE.UNPLUGGED : STATE.MIXED;
  }

  /** All blocks must be in the other state. That a migration is under way matters nothing: it takes what memory there is. */
  #change(address: number, size: number, plug: boolean): number {
    const saved = this.#saved;
    if (!this.#isUsable(address, size)) return RESPONSE.ERROR;
    if (plug && saved.plugged + size > saved.requested) return RESPONSE.NACK;
    if (this.#stateOf(address, size) !== (plug ? STATE.UNPLUGGED : STATE.PLUGGED)) return RESPONSE.ERROR;
    const offset = address - this.address;
    if (plug && this.props.prealloc) for (const ram of this.backend?.contents() ?? []) touch(ram.bytes, offset, size);
    if (!plug) this.#discard(offset, size);
    saved.blocks.fill(plug ? 1 : 0, offset / this.#blockSize, (offset + size) / this.#blockSize);
    this.#setPlugged(saved.plugged + (plug ? size : -size));
    return RESPONSE.ACK;
  }

  #discard(offset: number, size: number): void {
    this.backend?.discard(offset, size);
    this.dma.written(this.address + offset, size);
  }

  #unplugAll(): void {
    const saved = this.#saved;
    if (saved.plugged > 0) this.#discard(0, this.span);
    saved.blocks.fill(0);
    if (saved.plugged > 0) this.#setPlugged(0);
    this.#resizeUsable(saved.requested, true);
  }

  #setPlugged(size: number): void {
    const { owner } = this.bus;
    this.#saved.plugged = size;
    this.services.system.emit('MEMORY_DEVICE_SIZE_CHANGE', {
      ...(this.userId !== undefined && { id: this.userId }),
      size,
      'qom-path': (owner ?? this).path,
    });
  }

  #resizeUsable(requested: number, canShrink: boolean): void {
    const wanted = Math.min(this.span, requested + USABLE_EXTENT);
    const usable = requested === 0 ? 0 : Math.ceil(wanted / this.#blockSize) * this.#blockSize;
    if (usable > this.#saved.usable || canShrink) this.#saved.usable = usable;
  }
}

const PAGE = 4096;

/** Has the host set pages aside: a zero where a zero is. */
function touch(bytes: Uint8Array, offset: number, size: number): void {
  const end = Math.min(offset + size, bytes.length);
  for (let at = offset; at < end; at += PAGE) bytes[at] = bytes[at] ?? 0;
}

const wrong = (message: string): SouthbridgeError => new SouthbridgeError('ERR_PROPERTY_RANGE', message);

export const virtioMemDevice = deviceType({
  type: 'virtio-mem',
  summary: 'Memory in blocks (virtio)',
  bus: 'virtio-bus',
  category: 'misc',
  parents: ['virtio-device', 'device'],
  properties,
  create: VirtioMem,
});

export const virtioMemPci = virtioPciType({
  name: 'virtio-mem',
  summary: 'Memory in blocks (virtio, PCI)',
  aliases: [],
  category: 'misc',
  backend: virtioMemDevice,
  virtioId: VIRTIO_ID.MEM,
  class: 0x00_ff00,
  properties: functionProperties,
  vectors: () => 0,
});
