import { Bus, type DeviceHome } from '../device/bus.ts';
import { Device } from '../device/device.ts';
import type { PropSet } from '../device/property.ts';
import type { DeviceServices } from '../device/services.ts';
import { SouthbridgeError } from '../errors.ts';
import type { GuestRam } from '../memory/guest-ram.ts';
import type { MemoryBackend } from '../memory/memory-backend.ts';
import { MemoryRegion } from '../memory/memory-region.ts';

const PAGE = 4096;
const GIB = 2 ** 30;
/** As many as the ACPI tables have names for. */
const MAX_SLOTS = 256;

/** Modules whose contents go with the power, and modules that keep them. */
export type MemoryKind = 'dimm' | 'nvdimm';

/** What management tools are told of memory that was plugged in; sizes and addresses in bytes. */
export type MemoryReport =
  | {
      readonly type: MemoryKind;
      readonly data: {
        readonly id?: string;
        readonly addr: number;
        readonly slot: number;
        readonly node: number;
        readonly size: number;
        readonly memdev: string;
        readonly hotplugged: boolean;
        readonly hotpluggable: boolean;
      };
    }
  | {
      readonly type: 'virtio-pmem';
      readonly data: { readonly id?: string; readonly memaddr: number; readonly size: number; readonly memdev: string };
    }
  | {
      readonly type: 'virtio-mem';
      readonly data: {
        readonly id?: string;
        readonly memaddr: number;
        readonly node: number;
        readonly 'requested-size': number;
        readonly size: number;
        readonly 'max-size': number;
        readonly 'block-size': number;
        readonly memdev: string;
      };
    };

/** Memory at a place of its own behind all other: a module, or what a device of another bus has. */
export interface PluggedMemory {
  /** The id by which the user knows the device. */
  readonly userId: string | undefined;
  readonly address: number;
  /** Bytes of the address space. */
  readonly span: number;
  /** Bytes that the guest may use. */
  readonly plugged: number;
  readonly report: MemoryReport;
}

/** Who tells the guest of modules of one kind that come and go while it runs. */
export interface MemoryHotplugController {
  plugged(dimm: MemoryDevice): void;
  /**
   * Asks the guest to let go of the memory; `done` is called once it has.
   * @throws SouthbridgeError ERR_MEMORY_DEVICE where such modules stay
   */
  requestUnplug(dimm: MemoryDevice, done: () => void): void;
}

export interface MemoryBusParts {
  readonly services: DeviceServices;
  readonly home: DeviceHome;
  /** Where the guest's memory is. */
  readonly memory: MemoryRegion;
  /** Physical address of the first byte that memory devices may have. */
  readonly base: number;
  /** Bytes that memory devices may have together: QEMU's `maxmem` without the initial memory. */
  readonly capacity: number;
  readonly slotCount: number;
  /** NUMA nodes; 0 without NUMA. */
  readonly nodeCount: number;
  /** Makes memory part of the guest's saved state until what is returned is called. */
  readonly adopt: (ram: GuestRam) => () => void;
}

/** A memory module: takes its contents from a backend, and its address and slot from its bus. */
export abstract class MemoryDevice<S extends PropSet = PropSet> extends Device<S> implements PluggedMemory {
  readonly kind: MemoryKind = 'dimm';
  abstract readonly backend: MemoryBackend | undefined;
  abstract readonly node: number;
  /** What the user asked for; 0 and -1 leave it to the bus. */
  abstract readonly wanted: { readonly address: number; readonly slot: number };
  /** Physical address, once it is on its bus. */
  address = 0;
  slot = -1;

  /** Bytes that the guest sees. */
  get size(): number {
    return this.backend?.size ?? 0;
  }

  get userId(): string | undefined {
    return this.id;
  }

  get span(): number {
    return this.size;
  }

  get plugged(): number {
    return this.size;
  }

  get report(): MemoryReport {
    return {
      type: this.kind,
      data: {
        ...(this.id !== undefined && { id: this.id }),
        addr: this.address,
        slot: this.slot,
        node: this.node,
        size: this.size,
        memdev: this.backend?.path ?? '',
        hotplugged: this.hotplugged,
        hotpluggable: this.type.hotpluggable,
      },
    };
  }

  /** @throws SouthbridgeError where a module of this kind cannot be made of `backend` */
  check(_backend: MemoryBackend): void {}

  protected override realize(): void {
    this.defineProperty({ name: 'addr', type: 'uint64', get: () => this.address });
    this.defineProperty({ name: 'slot', type: 'int32', get: () => this.slot });
    this.defineProperty({ name: 'size', type: 'uint64', get: () => this.size });
    this.defineProperty({ name: 'memdev', type: 'link<memory-backend>', get: () => this.backend?.path ?? '' });
    if (this.bus instanceof MemoryBus && this.backend !== undefined) {
      this.onUnrealize(this.bus.map(this, this.backend));
    }
  }
}

/** Where memory modules go: slots, and a stretch of the physical address space behind all other memory. */
export class MemoryBus extends Bus {
  readonly slotCount: number;
  readonly base: number;
  /** Set by the machine's power management, where it can tell the guest. */
  readonly controllers = new Map<MemoryKind, MemoryHotplugController>();
  readonly #parts: MemoryBusParts;
  readonly #others = new Set<PluggedMemory>();

  /** @throws SouthbridgeError ERR_MEMORY_SLOTS where there are more slots than the tables can describe, or part of a page */
  constructor(parts: MemoryBusParts) {
    super('memory-device', 'device-memory', parts);
    if (parts.slotCount > MAX_SLOTS) {
      throw new SouthbridgeError('ERR_MEMORY_SLOTS', `unsupported amount of memory slots: ${parts.slotCount}`);
    }
    if (parts.capacity % PAGE !== 0) {
      throw new SouthbridgeError(
        'ERR_MEMORY_SLOTS',
        `maximum memory size must by aligned to multiple of ${PAGE} bytes`,
      );
    }
    this.#parts = parts;
    this.base = parts.base;
    this.slotCount = parts.slotCount;
  }

  /** Bytes of address space: each slot has room to be aligned to a large page. */
  get span(): number {
    return this.#parts.capacity === 0 ? 0 : this.#parts.capacity + this.slotCount * GIB;
  }

  /** First address behind it. */
  get end(): number {
    return this.base + this.span;
  }

  /** Bytes that are plugged in. */
  get plugged(): number {
    return this.all.reduce((sum, memory) => sum + memory.plugged, 0);
  }

  /** Whatever has a place here, by address. */
  get all(): readonly PluggedMemory[] {
    return [...this.dimms, ...this.#others].sort((a, b) => a.address - b.address);
  }

  /** NUMA nodes that memory may belong to: without NUMA, one. */
  get nodeCount(): number {
    return Math.max(1, this.#parts.nodeCount);
  }

  get dimms(): readonly MemoryDevice[] {
    return this.devices.filter(device => device instanceof MemoryDevice);
  }

  dimmAt(slot: number): MemoryDevice | undefined {
    return this.dimms.find(dimm => dimm.slot === slot);
  }

  override addressOf(device: Device): string | undefined {
    return device instanceof MemoryDevice ? String(device.slot) : undefined;
  }

  protected override attached(device: Device): void {
    if (!(device instanceof MemoryDevice)) return;
    const { backend } = device;
    if (backend === undefined) throw refused("'memdev' property is not set");
    if (device.kind === 'nvdimm' && !this.controllers.has('nvdimm'))
      throw refused("nvdimm is not enabled: missing 'nvdimm' in '-M'");
    if (backend.mapped) throw refused(`can't use already busy memdev: ${backend.id}`);
    const nodes = this.nodeCount;
    if (device.node >= nodes) {
      throw refused(`'DIMM property node has value ${device.node}' which exceeds the number of numa nodes: ${nodes}`);
    }
    device.check(backend);
    device.slot = this.#freeSlot(device.wanted.slot);
    device.address = this.#freeAddress(device.wanted.address, device.size, backend.alignment);
  }

  /**
   * A place for the memory of a device of another bus.
   *
   * @param wanted address; 0 leaves it to the bus
   * @param alignment bytes that address and size are multiples of
   * @throws SouthbridgeError ERR_MEMORY_DEVICE where there is none
   */
  placeFor(wanted: number, size: number, alignment: number): number {
    if (this.span === 0) {
      throw refused('memory devices (e.g. for memory hotplug) are not enabled, please specify the maxmem option');
    }
    return this.#freeAddress(wanted, size, alignment);
  }

  /** Gives the memory of a device of another bus, which has its place already, to the guest; the returned function undoes it. */
  occupy(memory: PluggedMemory, backend: MemoryBackend): () => void {
    const unmap = this.map(memory, backend);
    this.#others.add(memory);
    return () => {
      this.#others.delete(memory);
      unmap();
    };
  }

  /** Maps what the guest sees of memory that has just got its address; the returned function undoes it. */
  map(place: PluggedMemory, backend: MemoryBackend): () => void {
    const { memory, adopt } = this.#parts;
    const undone = [backend.claim()];
    const undo = (): void => {
      for (const step of undone.splice(0).reverse()) step();
    };
    try {
      let mapped = 0;
      for (const ram of backend.contents()) {
        undone.push(adopt(ram));
        const size = Math.min(ram.size, place.span - mapped);
        if (size === 0) continue;
        const whole = ram.readonly ? MemoryRegion.rom(ram) : MemoryRegion.ram(ram);
        const region = size === ram.size ? whole : MemoryRegion.alias(`${ram.name}-memory`, whole, 0, size);
        memory.add(region, place.address + mapped, 0);
        undone.push(() => memory.remove(region));
        mapped += size;
      }
    } catch (error) {
      undo();
      throw error;
    }
    return undo;
  }

  #freeSlot(wanted: number): number {
    if (this.slotCount === 0) throw refused("no slots where allocated, please specify the 'slots' option");
    if (wanted !== -1) {
      if (wanted < 0 || wanted >= this.slotCount) {
        throw refused(`invalid slot number ${wanted}, valid range is [0-${this.slotCount - 1}]`);
      }
      if (this.dimmAt(wanted) !== undefined) throw refused(`slot ${wanted} is busy`);
      return wanted;
    }
    for (let slot = 0; slot < this.slotCount; slot++) if (this.dimmAt(slot) === undefined) return slot;
    throw refused('no free slots available');
  }

  #freeAddress(wanted: number, size: number, alignment: number): number {
    const { capacity } = this.#parts;
    const used = this.all.reduce((sum, memory) => sum + memory.span, 0);
    if (used + size > capacity) {
      throw refused(
        `not enough space, currently 0x${hex(used)} in use of total space for memory devices 0x${hex(capacity)}`,
      );
    }
    if (wanted % alignment !== 0) throw refused(`address must be aligned to 0x${hex(alignment)} bytes`);
    if (size % alignment !== 0) throw refused(`backend memory size must be multiple of 0x${hex(alignment)}`);
    if (wanted !== 0 && (wanted < this.base || wanted + size > this.end)) {
      throw refused(
        `can't add memory device [0x${hex(wanted)}:0x${hex(size)}], usable range for memory devices [0x${hex(this.base)}:0x${hex(this.span)}]`,
      );
    }
    let address = wanted === 0 ? Math.ceil(this.base / alignment) * alignment : wanted;
    for (const there of this.all) {
      const end = there.address + there.span;
      if (address >= end || address + size <= there.address) continue;
      if (wanted !== 0) {
        throw refused(`address range conflicts with memory device id='${there.userId ?? '(unnamed)'}'`);
      }
      address = Math.ceil(end / alignment) * alignment;
    }
    if (address + size > this.end) {
      throw refused(
        'could not find position in guest address space for memory device - memory fragmented due to alignments',
      );
    }
    return address;
  }
}

/** Why a module cannot be plugged in, or taken out. */
export function refused(message: string): SouthbridgeError {
  return new SouthbridgeError('ERR_MEMORY_DEVICE', message);
}

const hex = (value: number): string => value.toString(16);
