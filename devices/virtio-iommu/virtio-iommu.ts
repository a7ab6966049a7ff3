import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import type { DmaTranslator } from '../../core/memory/dma.ts';
import type { Iommu, PciBus } from '../../core/pci/pci-bus.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { field, type SavedRecord } from '../../core/state/fields.ts';
import type { VirtqueueElement } from '../../core/virtio/element.ts';
import { bit, VIRTIO_ID } from '../../core/virtio/features.ts';
import { VirtioDevice, virtioProperties } from '../../core/virtio/virtio-device.ts';
import { virtioPciType } from '../../core/virtio/virtio-pci-types.ts';
import type { Virtqueue } from '../../core/virtio/virtqueue.ts';
import { Domain, MAPPINGS_MAX } from './domain.ts';
import {
  ATTACH_BYPASS,
  CONFIG,
  F,
  FAULT,
  HEAD_SIZE,
  MAP,
  MSI_WINDOW,
  PROBE_SIZE,
  PROPERTY,
  REQUEST,
  REQUEST_SIZE,
  S,
  type Status,
  TAIL_SIZE,
} from './protocol.ts';

const QUEUE_SIZE = 256;
const PAGE_SIZE_MASK = 0xffff_f000;
const ENDPOINTS_MAX = 0x1_0000;
/** How far a translation holds where nothing is translated. */
const EVERYTHING = 2 ** 53;
const REFUSED = -1;

const properties = { ...virtioProperties, 'boot-bypass': prop.bool({ default: true }) } as const;

/** An IOMMU of the functions of a PCI root (virtio 1.2, section 5.13): the guest's driver says what their addresses mean. */
class VirtioIommu extends VirtioDevice<typeof properties> implements Iommu {
  readonly #saved = this.state(
    1,
    {
      bypass: field.bool(true),
      domains: field.list(field.record({ id: field.u32(), bypass: field.bool() }), ENDPOINTS_MAX),
      endpoints: field.list(field.record({ id: field.u32(), domain: field.u32() }), ENDPOINTS_MAX),
      mappings: field.list(
        field.record({
          domain: field.u32(),
          start: field.number(),
          end: field.number(),
          memory: field.number(),
          flags: field.u32(),
        }),
        MAPPINGS_MAX,
      ),
    },
    { onReset: 'keep' },
  );
  readonly #domains = new Map<number, Domain>();
  /** The domain that each endpoint, by its requester id, is attached to. */
  readonly #endpoints = new Map<number, number>();
  readonly #bytes = new Uint8Array(PROBE_SIZE + TAIL_SIZE);
  readonly #view = new DataView(this.#bytes.buffer);
  readonly #faults = this.log.event('fault');
  #events: Virtqueue | undefined;

  get function(): PciDevice {
    const { owner } = this.bus;
    if (owner instanceof PciDevice) return owner;
    throw new SouthbridgeError('ERR_DEVICE_TYPE', 'VIRTIO-IOMMU is not attached to any PCI bus!');
  }

  get #root(): PciBus {
    return this.function.pciBus;
  }

  protected override realize(): void {
    const root = this.#root;
    if (root.root !== root)
      throw new SouthbridgeError('ERR_DEVICE_TYPE', 'virtio-iommu-pci must be plugged on the root bus');
    if (root.iommu !== undefined)
      throw new SouthbridgeError('ERR_DEVICE_TYPE', 'QEMU does not support multiple vIOMMUs for x86 yet.');
    this.begin({ id: VIRTIO_ID.IOMMU, configSize: CONFIG.SIZE });
    this.addQueue(QUEUE_SIZE, queue => this.#serve(queue));
    this.#events = this.addQueue(QUEUE_SIZE, () => {});
    this.#saved.bypass = this.props['boot-bypass'];
    root.iommu = this;
    this.onUnrealize(() => {
      root.iommu = undefined;
    });
  }

  protected override offeredFeatures(common: bigint): bigint {
    return Object.values(F).reduce((features, feature) => features | bit(feature), common);
  }

  protected override readConfig(config: DataView): void {
    config.setUint32(CONFIG.PAGE_SIZE_MASK, PAGE_SIZE_MASK, true);
    config.setUint32(CONFIG.PAGE_SIZE_MASK + 4, 0xffff_ffff, true);
    config.setBigUint64(CONFIG.INPUT_START, 0n, true);
    config.setBigUint64(CONFIG.INPUT_END, 2n ** 64n - 1n, true);
    config.setUint32(CONFIG.DOMAIN_START, 0, true);
    config.setUint32(CONFIG.DOMAIN_END, 0xffff_ffff, true);
    config.setUint32(CONFIG.PROBE_SIZE, PROBE_SIZE, true);
    config.setUint8(CONFIG.BYPASS, this.#saved.bypass ? 1 : 0);
  }

  protected override configWritten(config: DataView): void {
    const bypass = config.getUint8(CONFIG.BYPASS);
    if (!this.accepted(F.BYPASS_CONFIG) || bypass > 1) this.log.guestError(`bypass ${bypass}`);
    else this.#saved.bypass = bypass === 1;
  }

  /** The machine's reset; the driver's leaves the bypass as it is (section 5.13.6.1). */
  protected override resetHold(): void {
    super.resetHold();
    this.#saved.bypass = this.props['boot-bypass'];
  }

  protected override virtioReset(): void {
    this.#domains.clear();
    this.#endpoints.clear();
  }

  // Requests (section 5.13.6)

  #serve(queue: Virtqueue): void {
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      const length = element.read(this.#bytes);
      if (length < HEAD_SIZE || element.in.length < TAIL_SIZE) {
        queue.detach(element);
        this.broken('virtio-iommu bad head/tail size');
        return;
      }
      queue.push(element, this.#execute(element, length));
    }
    queue.notify();
  }

  /** Returns how much of the answer was written: the properties of a probe, and how it went. */
  #execute(element: VirtqueueElement, length: number): number {
    const type = this.#bytes[0] ?? 0;
    const size = REQUEST_SIZE.get(type);
    const probing = type === REQUEST.PROBE;
    let status: Status = S.UNSUPP;
    if (size !== undefined) status = length < size ? S.INVAL : this.#request(type);
    const at = probing ? PROBE_SIZE : 0;
    if (!probing || status !== S.OK) this.#bytes.fill(0, 0, at);
    this.#bytes.fill(0, at, at + TAIL_SIZE);
    this.#bytes[at] = status;
    // A driver that leaves no room for the properties still learns how it went.
    if (element.in.length < at + TAIL_SIZE) {
      this.#bytes[at] = S.INVAL;
      return element.write(this.#bytes, 0, at, TAIL_SIZE);
    }
    return element.write(this.#bytes, 0, 0, at + TAIL_SIZE);
  }

  #request(type: number): Status {
    const view = this.#view;
    const first = view.getUint32(4, true);
    const second = view.getUint32(8, true);
    switch (type) {
      case REQUEST.ATTACH:
        return this.#attach(first, second, view.getUint32(12, true));
      case REQUEST.DETACH:
        return this.#detach(first, second);
      case REQUEST.MAP:
        return this.#map(first);
      case REQUEST.UNMAP:
        return this.#domains.get(first)?.unmap(this.#u64(8), this.#u64(16)) ?? S.NOENT;
      default:
        return this.#probe(first);
    }
  }

  #u64(at: number): number {
    return this.#view.getUint32(at + 4, true) * 2 ** 32 + this.#view.getUint32(at, true);
  }

  #exists(endpoint: number): boolean {
    return endpoint < ENDPOINTS_MAX && this.#root.find(endpoint >> 8, endpoint & 0xff) !== undefined;
  }

  #attach(id: number, endpoint: number, flags: number): Status {
    if ((flags & ~ATTACH_BYPASS) !== 0) return S.INVAL;
    const bypass = (flags & ATTACH_BYPASS) !== 0;
    if (bypass && !this.accepted(F.BYPASS_CONFIG)) return S.INVAL;
    if (!this.#exists(endpoint)) return S.NOENT;
    const domain = this.#domains.get(id) ?? new Domain(bypass);
    if (domain.bypass !== bypass) return S.INVAL;
    if (this.#endpoints.get(endpoint) === id) return S.OK;
    this.#leave(endpoint);
    this.#domains.set(id, domain);
    this.#endpoints.set(endpoint, id);
    domain.endpoints++;
    return S.OK;
  }

  #detach(id: number, endpoint: number): Status {
    if (!this.#endpoints.has(endpoint)) return S.NOENT;
    if (this.#endpoints.get(endpoint) !== id) return S.INVAL;
    this.#leave(endpoint);
    return S.OK;
  }

  /** A domain goes with its last endpoint. */
  #leave(endpoint: number): void {
    const id = this.#endpoints.get(endpoint);
    const domain = id === undefined ? undefined : this.#domains.get(id);
    this.#endpoints.delete(endpoint);
    if (id === undefined || domain === undefined) return;
    domain.endpoints--;
    if (domain.endpoints === 0) this.#domains.delete(id);
  }

  #map(id: number): Status {
    const start = this.#u64(8);
    const end = this.#u64(16);
    const memory = this.#u64(24);
    const flags = this.#view.getUint32(32, true);
    const domain = this.#domains.get(id);
    if ((flags & ~MAP.ALL) !== 0) return S.INVAL;
    if (domain === undefined) return S.NOENT;
    if (domain.bypass || end < start) return S.INVAL;
    // No function here drives more address bits than a number can count.
    if (!Number.isSafeInteger(end) || !Number.isSafeInteger(memory + end - start)) return S.RANGE;
    return domain.map({ start, end, memory, flags });
  }

  #probe(endpoint: number): Status {
    if (!this.#exists(endpoint)) return S.NOENT;
    const view = this.#view;
    this.#bytes.fill(0);
    view.setUint16(0, PROPERTY.RESERVED, true);
    view.setUint16(2, PROPERTY.SIZE - 4, true);
    view.setUint8(4, PROPERTY.SUBTYPE_MSI);
    view.setUint32(8, MSI_WINDOW.start, true);
    view.setUint32(16, MSI_WINDOW.end, true);
    return S.OK;
  }

  // Translation

  translatorFor(device: PciDevice): DmaTranslator {
    const translate = (address: number, write: boolean): number => this.#translate(device, address, write, translator);
    const translator = { span: EVERYTHING, translate };
    return translator;
  }

  #translate(device: PciDevice, address: number, write: boolean, result: { span: number }): number {
    const endpoint = (device.pciBus.number << 8) | device.devfn;
    const id = this.#endpoints.get(endpoint);
    result.span = EVERYTHING;
    if (id === undefined && this.#saved.bypass) return address;
    if (address >= MSI_WINDOW.start && address <= MSI_WINDOW.end) {
      result.span = MSI_WINDOW.end - address + 1;
      return address;
    }
    const domain = id === undefined ? undefined : this.#domains.get(id);
    if (domain === undefined) return this.#fault(FAULT.DOMAIN, endpoint, address, 0);
    if (domain.bypass) return address;
    const mapping = domain.find(address);
    if (mapping === undefined) return this.#fault(FAULT.MAPPING, endpoint, address, 0);
    if ((mapping.flags & (write ? MAP.WRITE : MAP.READ)) === 0)
      return this.#fault(FAULT.MAPPING, endpoint, address, write ? FAULT.WRITE : FAULT.READ);
    result.span = mapping.end - address + 1;
    return mapping.memory + (address - mapping.start);
  }

  /** Tells the guest, where it has left a buffer for that. */
  #fault(reason: number, endpoint: number, address: number, access: number): number {
    if (this.#faults.enabled)
      this.#faults.emit(`reason ${reason} endpoint 0x${endpoint.toString(16)} address 0x${address.toString(16)}`);
    const queue = this.#events;
    const element = queue?.pop();
    if (queue === undefined || element === undefined) return REFUSED;
    const report = new DataView(new ArrayBuffer(FAULT.SIZE));
    report.setUint8(0, reason);
    report.setUint32(4, access | FAULT.ADDRESS, true);
    report.setUint32(8, endpoint, true);
    report.setUint32(16, address % 2 ** 32, true);
    report.setUint32(20, Math.floor(address / 2 ** 32), true);
    queue.push(element, element.write(new Uint8Array(report.buffer)));
    queue.notify();
    return REFUSED;
  }

  // State

  override save(): SavedRecord {
    const saved = this.#saved;
    saved.domains = [...this.#domains].map(([id, { bypass }]) => ({ id, bypass }));
    saved.endpoints = [...this.#endpoints].map(([id, domain]) => ({ id, domain }));
    saved.mappings = [...this.#domains].flatMap(([domain, { mappings }]) =>
      mappings.map(mapping => ({ domain, ...mapping })),
    );
    const record = super.save();
    this.#forgetSaved();
    return record;
  }

  protected override restored(): void {
    const { domains, endpoints, mappings } = this.#saved;
    this.virtioReset();
    for (const { id, bypass } of domains) this.#domains.set(id, new Domain(bypass));
    for (const { id, domain } of endpoints) {
      const found = this.#domains.get(domain);
      if (found === undefined) continue;
      this.#endpoints.set(id, domain);
      found.endpoints++;
    }
    for (const { domain, ...mapping } of mappings) this.#domains.get(domain)?.map(mapping);
    this.#forgetSaved();
  }

  #forgetSaved(): void {
    Object.assign(this.#saved, { domains: [], endpoints: [], mappings: [] });
  }
}

export const virtioIommuDevice = deviceType({
  type: 'virtio-iommu-device',
  summary: 'IOMMU (virtio)',
  bus: 'virtio-bus',
  category: 'misc',
  parents: ['virtio-device', 'device'],
  userCreatable: false,
  properties,
  create: VirtioIommu,
});

export const virtioIommuPci = virtioPciType({
  name: 'virtio-iommu',
  summary: 'IOMMU of the PCI bus (virtio)',
  category: 'misc',
  backend: virtioIommuDevice,
  virtioId: VIRTIO_ID.IOMMU,
  class: 0x00_ff00,
  properties: { 'primary-bus': prop.string({ typeName: 'link<PCI>', help: 'always the bus that it is on' }) },
  vectors: () => 0,
});
