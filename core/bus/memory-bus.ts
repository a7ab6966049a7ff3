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
export abstract class MemoryDevice<S extends PropSet = PropSet> extends Device<S> {
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
    return this.dimms.reduce((sum, dimm) => sum + dimm.size, 0);
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
    const nodes = Math.max(1, this.#parts.nodeCount);
    if (device.node >= nodes) {
      throw refused(`'DIMM property node has value ${device.node}' which exceeds the number of numa nodes: ${nodes}`);
    }
    device.check(backend);
    device.slot = this.#freeSlot(device.wanted.slot);
    device.address = this.#freeAddress(device.wanted.address, device.size, backend.alignment);
  }

  /** Maps what the guest sees of a module that has just got its address; the returned function undoes it. */
  map(dimm: MemoryDevice, backend: MemoryBackend): () => void {
    const { memory, adopt } = this.#parts;
    const undone = [backend.claim()];
    const undo = (): void => {
      for (const step of undone.splice(0).reverse()) step();
    };
    try {
      let mapped = 0;
      for (const ram of backend.contents()) {
        undone.push(adopt(ram));
        const size = Math.min(ram.size, dimm.size - mapped);
        if (size === 0) continue;
        const whole = ram.readonly ? MemoryRegion.rom(ram) : MemoryRegion.ram(ram);
        const region = size === ram.size ? whole : MemoryRegion.alias(`${ram.name}-memory`, whole, 0, size);
        memory.add(region, dimm.address + mapped, 0);
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
    if (this.plugged + size > capacity) {
      throw refused(
        `not enough space, currently 0x${hex(this.plugged)} in use of total space for memory devices 0x${hex(capacity)}`,
      );
    }
    if (wanted % alignment !== 0) throw refused(`address must be aligned to 0x${hex(alignment)} bytes`);
    if (size % alignment !== 0) throw refused(`backend memory size must be multiple of 0x${hex(alignment)}`);
    if (wanted !== 0 && (wanted < this.base || wanted + size > this.end)) {
      throw refused(
        `can't add memory device [0x${hex(wanted)}:0x${hex(size)}], usable range for memory devices [0x${hex(this.base)}:0x${hex(this.span)}]`,
      );
    }
    let address = wanted === 0 ? this.base : wanted;
    for (const dimm of [...this.dimms].sort((a, b) => a.address - b.address)) {
      if (address >= dimm.address + dimm.size || address + size <= dimm.address) continue;
      if (wanted !== 0) {
        throw refused(`address range conflicts with memory device id='${dimm.id ?? '(unnamed)'}'`);
      }
      address = Math.ceil((dimm.address + dimm.size) / alignment) * alignment;
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
