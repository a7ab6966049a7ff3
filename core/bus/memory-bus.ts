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
/** What a DIMM's address and size are multiples of: large pages of the host's. */
const ALIGNMENT = 2 ** 21;
/** As many as the ACPI tables have names for. */
const MAX_SLOTS = 256;

/** Who tells the guest of DIMMs that come and go while it runs: the ACPI memory hotplug registers. */
export interface MemoryHotplugController {
  plugged(dimm: MemoryDevice): void;
  /** Asks the guest to let go of the memory; `done` is called once it has. */
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
  abstract readonly backend: MemoryBackend | undefined;
  abstract readonly node: number;
  /** What the user asked for; 0 and -1 leave it to the bus. */
  abstract readonly wanted: { readonly address: number; readonly slot: number };
  /** Physical address, once it is on its bus. */
  address = 0;
  slot = -1;

  get size(): number {
    return this.backend?.size ?? 0;
  }
}

/** Where memory modules go: slots, and a stretch of the physical address space behind all other memory. */
export class MemoryBus extends Bus {
  readonly slotCount: number;
  readonly base: number;
  /** Set by the machine's power management, where it can tell the guest. */
  hotplugController: MemoryHotplugController | undefined;
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
    if (backend.mapped) throw refused(`can't use already busy memdev: ${backend.id}`);
    const nodes = Math.max(1, this.#parts.nodeCount);
    if (device.node >= nodes) {
      throw refused(`'DIMM property node has value ${device.node}' which exceeds the number of numa nodes: ${nodes}`);
    }
    device.slot = this.#freeSlot(device.wanted.slot);
    device.address = this.#freeAddress(device.wanted.address, backend.size);
  }

  /** Maps the memory of a module that has just got its address; the returned function undoes it. */
  map(dimm: MemoryDevice, backend: MemoryBackend): () => void {
    const { memory, adopt } = this.#parts;
    const undone = [backend.claim()];
    const undo = (): void => {
      for (const step of undone.splice(0).reverse()) step();
    };
    try {
      let address = dimm.address;
      for (const ram of backend.contents()) {
        const region = MemoryRegion.ram(ram);
        undone.push(adopt(ram));
        memory.add(region, address, 0);
        undone.push(() => memory.remove(region));
        address += ram.size;
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

  #freeAddress(wanted: number, size: number): number {
    const { capacity } = this.#parts;
    if (this.plugged + size > capacity) {
      throw refused(
        `not enough space, currently 0x${hex(this.plugged)} in use of total space for memory devices 0x${hex(capacity)}`,
      );
    }
    if (wanted % ALIGNMENT !== 0) throw refused(`address must be aligned to 0x${hex(ALIGNMENT)} bytes`);
    if (size % ALIGNMENT !== 0) throw refused(`backend memory size must be multiple of 0x${hex(ALIGNMENT)}`);
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
      address = Math.ceil((dimm.address + dimm.size) / ALIGNMENT) * ALIGNMENT;
    }
    if (address + size > this.end) {
      throw refused(
        'could not find position in guest address space for memory device - memory fragmented due to alignments',
      );
    }
    return address;
  }
}

function refused(message: string): SouthbridgeError {
  return new SouthbridgeError('ERR_MEMORY_DEVICE', message);
}

const hex = (value: number): string => value.toString(16);
