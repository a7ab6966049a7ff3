import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { edid } from '../../core/display/edid.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { asRecord, field, type SavedRecord, type SavedValue } from '../../core/state/fields.ts';
import type { VirtqueueElement } from '../../core/virtio/element.ts';
import { bit, VIRTIO_ID } from '../../core/virtio/features.ts';
import { VirtioDevice, virtioProperties } from '../../core/virtio/virtio-device.ts';
import { virtioPciType } from '../../core/virtio/virtio-pci-types.ts';
import type { Virtqueue } from '../../core/virtio/virtqueue.ts';
import {
  COMMAND,
  CONFIG,
  EVENT_DISPLAY,
  FEATURE_EDID,
  FLAG_FENCE,
  FORMATS,
  HEADER,
  MAX_BACKING_ENTRIES,
  MAX_SCANOUTS,
  RESPONSE,
  SIZE,
} from './protocol.ts';
import { GpuResource, type Rectangle, resourceFields } from './resource.ts';
import { type Fallback, Scanout } from './scanout.ts';

const CONTROL_SIZE = 64;
const CURSOR_SIZE = 16;
const MIN_SIDE = 16;
const MAX_RESOURCES = 65_536;

export const gpuProperties = {
  ...virtioProperties,
  max_outputs: prop.u32({ default: 1 }),
  edid: prop.bit({ default: true }),
  xres: prop.u32({ default: 1280 }),
  yres: prop.u32({ default: 800 }),
  max_hostmem: prop.size({ default: 256 * 2 ** 20 }),
  blob: prop.bit({ default: false }),
} as const;

const scanoutFields = {
  resource: field.u32(),
  x: field.u32(),
  y: field.u32(),
  width: field.u32(),
  height: field.u32(),
} as const;
const gpuFields = {
  resources: field.list(field.record(resourceFields), MAX_RESOURCES),
  scanouts: field.list(field.record(scanoutFields), MAX_SCANOUTS),
};

/** GPU without 3D (virtio 1.2, section 5.7): pictures of the driver's, of which its outputs show parts. */
export class VirtioGpu extends VirtioDevice<typeof gpuProperties> {
  readonly #s = this.state(1, { eventsRead: field.u32() }, { onReset: 'keep' });
  readonly #scanouts: Scanout[] = [];
  readonly #resources = new Map<number, GpuResource>();
  readonly #command = new Uint8Array(SIZE.MAX);
  readonly #view = new DataView(this.#command.buffer);
  #hostMemory = 0;

  protected override realize(): void {
    const { max_outputs: outputs, xres, yres, blob } = this.props;
    if (outputs < 1 || outputs > MAX_SCANOUTS) throw refused(`invalid max_outputs > ${MAX_SCANOUTS}`);
    if (blob) throw refused('blob resources are not supported by this program');
    this.begin({ id: VIRTIO_ID.GPU, configSize: CONFIG.SIZE });
    this.addQueue(CONTROL_SIZE, queue => this.#serve(queue, element => this.#control(element)));
    this.addQueue(CURSOR_SIZE, queue => this.#serve(queue, element => this.#moveCursor(element)));
    const owner = this.bus.owner;
    for (let head = 0; head < outputs; head++) {
      const place = { device: owner?.id, path: owner?.path ?? this.path, head };
      const scanout = new Scanout(place, (index, width, height) => this.#suggest(index, width, height));
      if (head === 0) Object.assign(scanout, { width: xres, height: yres });
      const screen = this.services.displays.add(scanout);
      scanout.screen = screen;
      this.#scanouts.push(scanout);
      this.onUnrealize(() => this.services.displays.remove(screen));
    }
  }

  /** What the first output shows until the driver takes it over. */
  set fallback(fallback: Fallback) {
    const [first] = this.#scanouts;
    if (first !== undefined) first.fallback = fallback;
  }

  protected override offeredFeatures(common: bigint): bigint {
    return common | (this.props.edid ? bit(FEATURE_EDID) : 0n);
  }

  protected override readConfig(config: DataView): void {
    config.setUint32(CONFIG.EVENTS_READ, this.#s.eventsRead, true);
    config.setUint32(CONFIG.EVENTS_CLEAR, 0, true);
    config.setUint32(CONFIG.NUM_SCANOUTS, this.props.max_outputs, true);
    config.setUint32(CONFIG.NUM_CAPSETS, 0, true);
  }

  protected override configWritten(config: DataView): void {
    this.#s.eventsRead &= ~config.getUint32(CONFIG.EVENTS_CLEAR, true);
  }

  protected override virtioReset(): void {
    this.#resources.clear();
    this.#hostMemory = 0;
    for (const scanout of this.#scanouts) scanout.show(undefined);
  }

  /** A viewer's window has another size: the guest is told that its monitor has (section 5.7.4.1). */
  #suggest(head: number, width: number, height: number): void {
    const scanout = this.#scanouts[head];
    if (scanout === undefined || (scanout.width === width && scanout.height === height)) return;
    Object.assign(scanout, { width, height });
    this.#s.eventsRead |= EVENT_DISPLAY;
    this.configChanged();
  }

  #serve(queue: Virtqueue, command: (element: VirtqueueElement) => number): void {
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      this.#command.fill(0);
      const written = command(element);
      queue.push(element, written);
      queue.notify();
    }
  }

  /** One command of the control queue. Returns the length of the response. */
  #control(element: VirtqueueElement): number {
    const length = element.read(this.#command);
    if (length < HEADER.SIZE) return this.#respond(element, RESPONSE.OK_NODATA);
    const type = this.#view.getUint32(HEADER.TYPE, true);
    if (type === COMMAND.GET_DISPLAY_INFO) return this.#displayInfo(element);
    if (type === COMMAND.GET_EDID && this.props.edid && length >= SIZE.GET_EDID) return this.#edid(element);
    return this.#respond(element, this.#execute(type, length, element));
  }

  #execute(type: number, length: number, element: VirtqueueElement): number {
    switch (type) {
      case COMMAND.RESOURCE_CREATE_2D:
        return length < SIZE.RESOURCE_CREATE_2D ? RESPONSE.OK_NODATA : this.#create();
      case COMMAND.RESOURCE_UNREF:
        return length < SIZE.RESOURCE_UNREF ? RESPONSE.OK_NODATA : this.#unref();
      case COMMAND.SET_SCANOUT:
        return length < SIZE.SET_SCANOUT ? RESPONSE.OK_NODATA : this.#setScanout();
      case COMMAND.RESOURCE_FLUSH:
        return length < SIZE.RESOURCE_FLUSH ? RESPONSE.OK_NODATA : this.#flush();
      case COMMAND.TRANSFER_TO_HOST_2D:
        return length < SIZE.TRANSFER_TO_HOST_2D ? RESPONSE.OK_NODATA : this.#transfer();
      case COMMAND.RESOURCE_ATTACH_BACKING:
        return length < SIZE.RESOURCE_ATTACH_BACKING ? RESPONSE.OK_NODATA : this.#attach(element);
      case COMMAND.RESOURCE_DETACH_BACKING:
        return length < SIZE.RESOURCE_DETACH_BACKING ? RESPONSE.OK_NODATA : this.#detach();
      case COMMAND.GET_EDID:
        return this.props.edid ? RESPONSE.OK_NODATA : RESPONSE.ERR_UNSPEC;
      case COMMAND.RESOURCE_CREATE_BLOB:
      case COMMAND.SET_SCANOUT_BLOB:
        return RESPONSE.ERR_INVALID_PARAMETER;
      default:
        return RESPONSE.ERR_UNSPEC;
    }
  }

  // Commands (section 5.7.6.8). Offsets count from the beginning of the command

  #u32(offset: number): number {
    return this.#view.getUint32(offset, true);
  }

  #rectangle(): Rectangle {
    return { x: this.#u32(24), y: this.#u32(28), width: this.#u32(32), height: this.#u32(36) };
  }

  #create(): number {
    const [id, format, width, height] = [this.#u32(24), this.#u32(28), this.#u32(32), this.#u32(36)];
    if (id === 0 || this.#resources.has(id)) return RESPONSE.ERR_INVALID_RESOURCE_ID;
    if (!FORMATS.has(format)) return RESPONSE.ERR_INVALID_PARAMETER;
    const size = GpuResource.imageSize(width, height);
    if (size + this.#hostMemory >= this.props.max_hostmem || this.#resources.size >= MAX_RESOURCES)
      return RESPONSE.ERR_OUT_OF_MEMORY;
    this.#resources.set(id, new GpuResource(id, format, width, height));
    this.#hostMemory += size;
    return RESPONSE.OK_NODATA;
  }

  #unref(): number {
    const resource = this.#resources.get(this.#u32(24));
    if (resource === undefined) return RESPONSE.ERR_INVALID_RESOURCE_ID;
    for (const scanout of this.#scanouts) if (scanout.resource === resource) scanout.show(undefined);
    this.#resources.delete(resource.id);
    this.#hostMemory -= resource.image.length;
    return RESPONSE.OK_NODATA;
  }

  #setScanout(): number {
    const area = this.#rectangle();
    const scanout = this.#scanouts[this.#u32(40)];
    const id = this.#u32(44);
    if (scanout === undefined) return RESPONSE.ERR_INVALID_SCANOUT_ID;
    if (id === 0) {
      scanout.show(undefined);
      return RESPONSE.OK_NODATA;
    }
    const resource = this.#resources.get(id);
    if (resource === undefined) return RESPONSE.ERR_INVALID_RESOURCE_ID;
    if (!resource.contains(area) || area.width < MIN_SIDE || area.height < MIN_SIDE)
      return RESPONSE.ERR_INVALID_PARAMETER;
    scanout.show(resource, area);
    return RESPONSE.OK_NODATA;
  }

  #flush(): number {
    const resource = this.#resources.get(this.#u32(40));
    if (resource === undefined) return RESPONSE.ERR_INVALID_RESOURCE_ID;
    if (!resource.contains(this.#rectangle())) return RESPONSE.ERR_INVALID_PARAMETER;
    for (const scanout of this.#scanouts) if (scanout.resource === resource) scanout.screen?.changed();
    return RESPONSE.OK_NODATA;
  }

  #transfer(): number {
    const resource = this.#resources.get(this.#u32(48));
    if (resource === undefined) return RESPONSE.ERR_INVALID_RESOURCE_ID;
    if (!resource.attached) return RESPONSE.ERR_UNSPEC;
    const area = this.#rectangle();
    if (!resource.contains(area)) return RESPONSE.ERR_INVALID_PARAMETER;
    resource.transfer(this.dma, this.#u32(40) + this.#u32(44) * 2 ** 32, area);
    return RESPONSE.OK_NODATA;
  }

  #attach(element: VirtqueueElement): number {
    const resource = this.#resources.get(this.#u32(24));
    const count = this.#u32(28);
    if (resource === undefined) return RESPONSE.ERR_INVALID_RESOURCE_ID;
    if (resource.attached || count > MAX_BACKING_ENTRIES) return RESPONSE.ERR_UNSPEC;
    const bytes = new Uint8Array(count * SIZE.MEM_ENTRY);
    if (element.read(bytes, SIZE.RESOURCE_ATTACH_BACKING) < bytes.length) return RESPONSE.ERR_UNSPEC;
    const view = new DataView(bytes.buffer);
    const backing = Array.from({ length: count }, (_, index) => ({
      address: view.getUint32(index * 16, true) + view.getUint32(index * 16 + 4, true) * 2 ** 32,
      length: view.getUint32(index * 16 + 8, true),
    }));
    if (backing.some(({ address, length }) => length > 0 && this.dma.ramAt(address, length, false) === undefined))
      return RESPONSE.ERR_UNSPEC;
    resource.attach(backing);
    return RESPONSE.OK_NODATA;
  }

  #detach(): number {
    const resource = this.#resources.get(this.#u32(24));
    if (resource === undefined) return RESPONSE.ERR_INVALID_RESOURCE_ID;
    if (!resource.attached) return RESPONSE.ERR_UNSPEC;
    resource.detach();
    return RESPONSE.OK_NODATA;
  }

  /** Section 5.7.6.10: no response, only the buffer back. */
  #moveCursor(element: VirtqueueElement): number {
    const length = element.read(this.#command);
    const scanout = this.#scanouts[this.#u32(24)];
    if (length < SIZE.UPDATE_CURSOR || scanout === undefined) return 0;
    if (this.#u32(HEADER.TYPE) !== COMMAND.UPDATE_CURSOR) return 0;
    const id = this.#u32(40);
    const resource = this.#resources.get(id);
    if (id === 0 || resource !== undefined) scanout.setCursor(resource, this.#u32(44), this.#u32(48));
    return 0;
  }

  // Responses

  #header(size: number, type: number): DataView {
    const view = new DataView(new ArrayBuffer(size));
    view.setUint32(HEADER.TYPE, type, true);
    if ((this.#u32(HEADER.FLAGS) & FLAG_FENCE) !== 0) {
      view.setUint32(HEADER.FLAGS, FLAG_FENCE, true);
      view.setUint32(HEADER.FENCE_ID, this.#u32(HEADER.FENCE_ID), true);
      view.setUint32(HEADER.FENCE_ID + 4, this.#u32(HEADER.FENCE_ID + 4), true);
      view.setUint32(HEADER.CTX_ID, this.#u32(HEADER.CTX_ID), true);
    }
    return view;
  }

  #respond(element: VirtqueueElement, type: number): number {
    return element.write(new Uint8Array(this.#header(HEADER.SIZE, type).buffer));
  }

  #displayInfo(element: VirtqueueElement): number {
    const response = this.#header(SIZE.DISPLAY_INFO, RESPONSE.OK_DISPLAY_INFO);
    for (const { head, width, height } of this.#scanouts) {
      if (width === 0 || height === 0) continue;
      const at = HEADER.SIZE + head * 24;
      response.setUint32(at + 8, width, true);
      response.setUint32(at + 12, height, true);
      response.setUint32(at + 16, 1, true);
    }
    return element.write(new Uint8Array(response.buffer));
  }

  #edid(element: VirtqueueElement): number {
    const scanout = this.#scanouts[this.#u32(24)];
    if (scanout === undefined) return this.#respond(element, RESPONSE.ERR_INVALID_PARAMETER);
    const response = this.#header(HEADER.SIZE + 8 + SIZE.EDID, RESPONSE.OK_EDID);
    const { width, height } = scanout;
    response.setUint32(HEADER.SIZE, SIZE.EDID, true);
    const bytes = new Uint8Array(response.buffer);
    bytes.set(edid({ width: width || 1280, height: height || 800 }), HEADER.SIZE + 8);
    return element.write(bytes);
  }

  // State

  override save(): SavedRecord {
    const gpu = {
      resources: gpuFields.resources.save([...this.#resources.values()].map(resource => resource.save())),
      scanouts: gpuFields.scanouts.save(
        this.#scanouts.map(({ resource, area }) => ({ resource: resource?.id ?? 0, ...area })),
      ),
    };
    return { ...super.save(), gpu };
  }

  override restore(saved: SavedValue): void {
    const gpu = asRecord(asRecord(saved, this.path)['gpu'], `${this.path}.gpu`);
    const resources = gpuFields.resources
      .load(gpu['resources'] ?? null, `${this.path}.resources`)
      .map(each => GpuResource.restored(each));
    const scanouts = gpuFields.scanouts.load(gpu['scanouts'] ?? null, `${this.path}.scanouts`);
    if (resources.includes(undefined) || scanouts.length !== this.#scanouts.length)
      throw new SouthbridgeError('ERR_STATE_VALUE', `the saved state of ${this.path} is not of this device`);
    super.restore(saved);
    this.#resources.clear();
    this.#hostMemory = 0;
    for (const resource of resources) {
      if (resource === undefined) continue;
      this.#resources.set(resource.id, resource);
      this.#hostMemory += resource.image.length;
    }
    for (const [index, { resource: id, ...area }] of scanouts.entries()) {
      const resource = this.#resources.get(id);
      const visible = resource?.contains(area) ? resource : undefined;
      this.#scanouts[index]?.show(visible, visible === undefined ? undefined : area);
    }
  }
}

function refused(message: string): SouthbridgeError {
  return new SouthbridgeError('ERR_PROPERTY_VALUE', message);
}

export const virtioGpuDevice = deviceType({
  type: 'virtio-gpu-device',
  summary: 'GPU without 3D (virtio)',
  bus: 'virtio-bus',
  category: 'display',
  parents: ['virtio-gpu-base', 'virtio-device', 'device'],
  hotpluggable: false,
  properties: gpuProperties,
  create: VirtioGpu,
});

export const virtioGpuPci = virtioPciType({
  name: 'virtio-gpu',
  summary: 'GPU without 3D (virtio, PCI)',
  category: 'display',
  backend: virtioGpuDevice,
  virtioId: VIRTIO_ID.GPU,
  class: 0x03_8000,
  vectors: () => 3,
});
