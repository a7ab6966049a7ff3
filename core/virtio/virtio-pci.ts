import type { DeviceContext, DeviceType } from '../device/device-type.ts';
import { prop } from '../device/property.ts';
import { SouthbridgeError } from '../errors.ts';
import { MemoryRegion } from '../memory/memory-region.ts';
import { COMMAND } from '../pci/config-space.ts';
import type { PciIdentity } from '../pci/identity.ts';
import { PciDevice } from '../pci/pci-device.ts';
import { asRecord, type SavedRecord, type SavedValue } from '../state/fields.ts';
import { bit, has, ISR, NO_VECTOR, VIRTIO_F } from './features.ts';
import { PciCommonRegisters } from './pci-common.ts';
import { PciLegacyRegisters } from './pci-legacy.ts';
import { BAR, CAP, CAP_TYPE, LAYOUT, LEGACY } from './pci-registers.ts';
import { QueueSetups } from './queue-registers.ts';
import { VirtioBus, type VirtioTransport } from './virtio-bus.ts';
import type { VirtioDevice } from './virtio-device.ts';

const CAP_VENDOR = 0x09;
const MODERN_BAR_SIZE = 0x4000;
/** One page for each queue's doorbell, with `page-per-vq`. */
const PAGED_BAR_SIZE = 0x80_0000;
const PAGE = 0x1000;
const DOORBELL = 4;
const QUEUES = 1024;

/** What firmware is told of the function, and must not be told of the device behind it once more. */
const FUNCTION_ONLY = new Set(['bootindex', 'lcyls', 'lheads', 'lsecs']);

const UNSPECIFIED = 0xffff_ffff;

export const MODERN_DEVICE_BASE = 0x1040;

/** What all virtio PCI functions have. */
export const virtioPciProperties = {
  ioeventfd: prop.bit({ default: true }),
  vectors: prop.u32({ default: UNSPECIFIED, help: 'MSI-X vectors; 0 for none' }),
  'disable-legacy': prop.onOffAuto({ default: 'auto' }),
  'disable-modern': prop.bool({ default: false }),
  'virtio-pci-bus-master-bug-migration': prop.bit({ default: false }),
  'migrate-extra': prop.bit({ default: true }),
  'modern-pio-notify': prop.bit({ default: false }),
  'x-disable-pcie': prop.bit({ default: false }),
  'page-per-vq': prop.bit({ default: false }),
  'x-ignore-backend-features': prop.bool({ default: false }),
  ats: prop.bit({ default: false }),
  'x-ats-page-aligned': prop.bit({ default: true }),
  'x-pcie-deverr-init': prop.bit({ default: true }),
  'x-pcie-lnkctl-init': prop.bit({ default: true }),
  'x-pcie-pm-init': prop.bit({ default: true }),
  'x-pcie-flr-init': prop.bit({ default: true }),
  aer: prop.bit({ default: false }),
} as const;

type Props = typeof virtioPciProperties;

/** Where a function has its registers of version 1: base address registers, and offsets in that of the structures. */
export interface VirtioPciPlaces {
  readonly modernBar: number;
  readonly msixBar: number;
  readonly modernIoBar: number;
  readonly common: number;
  readonly isr: number;
  readonly device: number;
  readonly notify: number;
  /** Bytes of the common structure, and of the ISR status. */
  readonly area: number;
}

const USUAL_PLACES: VirtioPciPlaces = {
  modernBar: BAR.MODERN,
  msixBar: BAR.MSIX,
  modernIoBar: BAR.MODERN_IO,
  common: LAYOUT.COMMON,
  isr: LAYOUT.ISR,
  device: LAYOUT.DEVICE,
  notify: LAYOUT.NOTIFY,
  area: LAYOUT.AREA,
};

/** What a kind of device has to do with its PCI function. */
export interface VirtioPciKind {
  /** The device behind the function. */
  readonly backend: DeviceType;
  /** Device id (virtio 1.2, section 5). */
  readonly virtioId: number;
  /** PCI device id of a transitional function (section 4.1.2.1); kinds that came with version 1 have none and are never legacy. */
  readonly legacyId?: number;
  readonly class: number;
  /**
   * The property for the number of queues, and the value of it that stands for one for each CPU; `fixed` others are there
   * besides those.
   */
  readonly queues?: { readonly property: string; readonly auto: number; readonly fixed: number };
  /** MSI-X vectors by default, from the properties of both. */
  vectors(props: Readonly<Record<string, unknown>>): number;
  /** How the name of the type fixes what properties otherwise say. */
  readonly flavour: 'generic' | 'transitional' | 'non-transitional';
  readonly rom?: string;
  /** For functions whose base address registers hold more than virtio's; `paged` is `page-per-vq`. */
  places?(paged: boolean): VirtioPciPlaces;
}

interface Modes {
  readonly legacy: boolean;
  readonly modern: boolean;
  readonly express: boolean;
}

/** A PCI function with a virtio device behind it (virtio 1.2, section 4.1): version 1, legacy, or both (transitional). */
export abstract class VirtioPci extends PciDevice<Props> implements VirtioTransport {
  readonly #kind: VirtioPciKind;
  readonly #modes: Modes;
  readonly #bus: VirtioBus;
  readonly #setups = new QueueSetups();
  readonly #selectors = this.state(1, PciCommonRegisters.state, { onReset: 'keep' });
  /** The structures of version 1. */
  protected readonly modernBar: MemoryRegion;
  readonly #places: VirtioPciPlaces;
  #pciCapability = 0;
  #vectors = 0;

  constructor(context: DeviceContext<Props>, kind: VirtioPciKind) {
    const modes = modesOf(context, kind);
    super({ ...context, type: { ...context.type, pci: identityOf(kind, modes, context.props) } });
    this.#kind = kind;
    this.#modes = modes;
    const paged = this.props['page-per-vq'];
    this.#places = kind.places?.(paged) ?? USUAL_PLACES;
    this.modernBar = MemoryRegion.container('virtio-pci', paged ? PAGED_BAR_SIZE : MODERN_BAR_SIZE);
    this.#bus = this.addBus(new VirtioBus('virtio-bus', this, { services: context.services, owner: this }));
  }

  /** The device behind the function. */
  get device(): VirtioDevice | undefined {
    return this.#bus.device;
  }

  get vectors(): number {
    return this.#vectors;
  }

  override get fixture(): string | undefined {
    return this.device?.fixture;
  }

  transportFeatures(): bigint {
    const { legacy, modern } = this.#modes;
    return (modern ? bit(VIRTIO_F.VERSION_1) : 0n) | (legacy ? bit(VIRTIO_F.BAD_FEATURE) : 0n);
  }

  interrupt(vector: number): void {
    if (this.msix?.enabled) {
      if (vector !== NO_VECTOR) this.notify(vector);
    } else this.irq.set(((this.device?.isr ?? 0) & ISR.QUEUE) !== 0);
  }

  protected override realize(): void {
    if (!this.#modes.legacy && !this.#modes.modern) {
      throw new SouthbridgeError(
        'ERR_VIRTIO_MODE',
        'device cannot work as neither modern nor legacy mode is enabled',
        'Set either disable-modern or disable-legacy to off',
      );
    }
    if (this.#modes.express) this.addPowerManagement(true);
    if (this.#modes.express && this.props['x-pcie-flr-init']) this.addFunctionLevelReset();
    const { vectors } = this.props;
    const { backend } = this.#kind;
    const values = this.#withQueues();
    this.#vectors = vectors === UNSPECIFIED ? this.#kind.vectors(values) : vectors;
    const own = Object.entries(values).filter(
      ([name]) => Object.hasOwn(backend.properties, name) && !FUNCTION_ONLY.has(name),
    );
    this.#bus.plug(backend, {}, Object.fromEntries(own));
  }

  /** The properties, with a queue for each CPU where the user has not said how many. */
  #withQueues(): Readonly<Record<string, unknown>> {
    const values: Readonly<Record<string, unknown>> = this.props;
    const { queues } = this.#kind;
    if (queues === undefined || values[queues.property] !== queues.auto) return values;
    return { ...values, [queues.property]: Math.min(this.services.cpuCount, QUEUES - queues.fixed) };
  }

  plugged(device: VirtioDevice): void {
    if (this.#isModern(device)) this.#addModern(device);
    if (this.#vectors > 0) this.#addVectors(Math.min(this.#vectors, 2048));
    if (this.#modes.legacy) this.#addLegacy(device);
    // What can be asked of the device can be asked of its function.
    for (const property of device.properties) {
      if (this.property(property.name) === undefined) this.defineProperty(property);
    }
  }

  /** A backend from before version 1 takes the device along: drivers would take the capabilities for a promise. */
  #isModern(device: VirtioDevice): boolean {
    const { legacy, modern } = this.#modes;
    if (!modern || this.props['x-ignore-backend-features'] || has(device.hostFeatures, VIRTIO_F.VERSION_1))
      return modern;
    if (legacy) return false;
    throw new SouthbridgeError(
      'ERR_VIRTIO_MODE',
      "Device doesn't support modern mode, and legacy mode is disabled",
      'Set disable-legacy to off',
    );
  }

  /** The driver has asked for a reset through either set of registers. */
  resetFromDriver(): void {
    this.device?.resetVirtio();
    this.#setups.reset();
  }

  protected override resetHold(): void {
    this.#setups.reset();
  }

  #addLegacy(device: VirtioDevice): void {
    const registers = new PciLegacyRegisters(this, device);
    const header = this.#vectors > 0 ? LEGACY.CONFIG_WITH_MSIX : LEGACY.CONFIG;
    const size = 2 ** Math.ceil(Math.log2(header + device.kind.configSize));
    this.bar(BAR.LEGACY, this.shielded(registers), { size, space: 'io' });
  }

  #addModern(device: VirtioDevice): void {
    const common = new PciCommonRegisters(this, device, this.#setups, this.#selectors);
    const stride = this.props['page-per-vq'] ? PAGE : DOORBELL;
    const area = (offset: number, name: string, size: number, region: Parameters<typeof MemoryRegion.io>[2]): void =>
      this.modernBar.add(MemoryRegion.io(`virtio-pci-${name}`, size, this.shielded(region)), offset);
    const places = this.#places;
    area(places.common, 'common', places.area, common);
    area(places.isr, 'isr', places.area, { read: () => this.takeIsr(), write: () => {} });
    area(places.device, 'device', LAYOUT.AREA, {
      read: (offset, size) => device.configRead(offset, size),
      write: (offset, size, value) => device.configWrite(offset, size, value),
    });
    area(places.notify, 'notify', stride * QUEUES, {
      read: () => 0,
      write: offset => device.notified(Math.floor(offset / stride)),
    });
    const { modernBar, modernIoBar } = places;
    this.#capability(CAP_TYPE.COMMON, modernBar, places.common, places.area);
    this.#capability(CAP_TYPE.ISR, modernBar, places.isr, places.area);
    this.#capability(CAP_TYPE.DEVICE, modernBar, places.device, LAYOUT.AREA);
    const notify = this.#capability(CAP_TYPE.NOTIFY, modernBar, places.notify, stride * QUEUES, 4);
    this.config.set32(notify + CAP.NOTIFY_MULTIPLIER, stride);
    if (this.props['modern-pio-notify']) {
      this.bar(
        modernIoBar,
        this.shielded({ read: () => 0, write: (_offset, _size, queue) => device.notified(queue) }),
        {
          size: 4,
          space: 'io',
        },
      );
      this.#capability(CAP_TYPE.NOTIFY, modernIoBar, 0, 4, 4);
    }
    this.bar(modernBar, this.modernBar, { size: this.modernBar.size, wide: true, prefetchable: true });
    const access = this.#capability(CAP_TYPE.PCI, 0, 0, 0, 4);
    const { config } = this;
    config.writable[access + CAP.BAR] = 0xff;
    for (const at of [CAP.OFFSET, CAP.SIZE, CAP.PCI_DATA]) config.mask32(config.writable, access + at, 0xffff_ffff);
    this.#pciCapability = access;
  }

  #addVectors(vectors: number): void {
    const bar = this.#places.msixBar;
    const declaration = { vectors, bar };
    const contents = this.addMsix(declaration).exclusiveBar(declaration);
    this.bar(bar, contents, { size: contents.size });
  }

  #capability(type: number, bar: number, offset: number, size: number, extra = 0): number {
    const { config } = this;
    const at = config.addCapability(CAP_VENDOR, CAP.BYTES + extra);
    config.set8(at + CAP.LENGTH, CAP.BYTES + extra);
    config.set8(at + CAP.TYPE, type);
    config.set8(at + CAP.BAR, bar);
    config.set32(at + CAP.OFFSET, offset);
    config.set32(at + CAP.SIZE, size);
    return at;
  }

  /** Reading the ISR status acknowledges the interrupt (section 4.1.4.5). */
  takeIsr(): number {
    const { device } = this;
    if (device === undefined) return 0;
    const { isr } = device;
    device.isr = 0;
    this.irq.lower();
    return isr;
  }

  /** The vector that is assigned where software asks for `vector` (section 4.1.5.1.2). */
  validVector(vector: number): number {
    return vector < this.#vectors ? vector : NO_VECTOR;
  }

  /** Drivers from before Linux 2.6.34 forget bus mastering. */
  forceBusMaster(): void {
    this.configWrite(4, 1, this.config.command | COMMAND.MASTER);
  }

  override configRead(offset: number, size: number): number {
    if (this.#accessesBar(offset, size)) this.#readThroughConfig();
    return super.configRead(offset, size);
  }

  protected override configWritten(offset: number, size: number): void {
    const { device } = this;
    if (device !== undefined && offset <= 4 && offset + size > 4) {
      const master = (this.config.command & COMMAND.MASTER) !== 0;
      device.disabled = !master;
      if (!master) device.setStatus(device.status & ~4);
    }
    if (this.#accessesBar(offset, size)) this.#writeThroughConfig();
  }

  /** The capability through which software without access to the BARs reaches them (section 4.1.4.9). */
  #accessesBar(offset: number, size: number): boolean {
    const data = this.#pciCapability + CAP.PCI_DATA;
    return this.#pciCapability !== 0 && offset < data + 4 && data < offset + size;
  }

  #readThroughConfig(): void {
    const target = this.#configTarget();
    if (target === undefined) return;
    const value = target.region.handler.read(target.offset, target.size);
    for (let index = 0; index < target.size; index++) {
      this.config.set8(this.#pciCapability + CAP.PCI_DATA + index, value >>> (8 * index));
    }
  }

  #writeThroughConfig(): void {
    const target = this.#configTarget();
    if (target === undefined) return;
    const value = this.config.read(this.#pciCapability + CAP.PCI_DATA, target.size);
    target.region.handler.write(target.offset, target.size, value);
  }

  #configTarget(): { readonly region: MemoryRegion; readonly offset: number; readonly size: number } | undefined {
    const size = this.config.get32(this.#pciCapability + CAP.SIZE);
    const offset = this.config.get32(this.#pciCapability + CAP.OFFSET);
    if (size !== 1 && size !== 2 && size !== 4) return undefined;
    const region = this.modernBar.children.find(
      candidate => offset >= candidate.offset && offset + size <= candidate.offset + candidate.size,
    );
    // An address that is not a multiple of the size is software's mistake (section 4.1.4.9.2).
    if (region === undefined || offset % size !== 0) return undefined;
    return { region, offset: offset - region.offset, size };
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

function modesOf(context: DeviceContext<Props>, kind: VirtioPciKind): Modes {
  const { props, bus } = context;
  const below = bus.owner instanceof PciDevice && 'express' in bus && bus.express === true;
  if (kind.flavour === 'transitional') return { legacy: true, modern: true, express: false };
  const disableLegacy = props['disable-legacy'];
  const legacy =
    kind.legacyId !== undefined &&
    kind.flavour === 'generic' &&
    (disableLegacy === 'off' || (disableLegacy === 'auto' && !below));
  const modern = kind.flavour === 'non-transitional' || !props['disable-modern'];
  return { legacy, modern, express: below && modern && !props['x-disable-pcie'] };
}

function identityOf(kind: VirtioPciKind, modes: Modes, props: object): PciIdentity {
  const chosen = 'class' in props && typeof props.class === 'number' && props.class > 0 ? props.class << 8 : kind.class;
  const common: Omit<PciIdentity, 'device'> = {
    vendor: 0x1af4,
    class: chosen,
    pin: 'A',
    ...(modes.express && { express: 'endpoint' as const }),
    ...(kind.rom !== undefined && { rom: kind.rom }),
  };
  // Legacy and transitional functions are known by their subsystem id (section 4.1.2.3).
  if (modes.legacy && kind.legacyId !== undefined) {
    return { ...common, device: kind.legacyId, revision: 0, subsystem: kind.virtioId };
  }
  return { ...common, device: MODERN_DEVICE_BASE + kind.virtioId, revision: 1 };
}
