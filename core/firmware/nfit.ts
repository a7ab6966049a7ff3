/** The NVDIMM Firmware Interface Table (ACPI 6.4 section 5.2.25): which memory keeps its contents, and on which modules it is. */
import type { TableContent } from './acpi-blob.ts';
import { concat, u16, u32, u64, uuidBytes } from './aml.ts';

/** One module that is there. */
export interface NvdimmFacts {
  readonly slot: number;
  /** Physical address, and bytes from there. */
  readonly base: number;
  readonly length: number;
  /** NUMA node. */
  readonly node: number;
  /** What the guest writes is not kept. */
  readonly unarmed: boolean;
}

/** Who sees to it that what was written is kept when power fails: the CPU, caches included, or only the memory controller. */
export type NvdimmPersistence = 'cpu' | 'mem-ctrl';

/** Address range type: byte addressable persistent memory. */
const PERSISTENT_MEMORY = '66f0d379-b4f3-4074-ac43-0d3318b78cdb';
/** 5.2.25.2, table 5.132: the control region is for hotplug too; the proximity domain is valid. */
const RANGE_FLAGS = (1 << 0) | (1 << 1);
/** UEFI memory attributes: write-back cacheable, non-volatile. */
const WRITE_BACK = 0x8;
const NON_VOLATILE = 0x8000;
const NOT_ARMED = 1 << 3;
const INTEL = 0x8086;
const DEVICE_ID = 1;
const REVISION = 1;
/** JEDEC JESD-245: byte addressable, without energy of its own. */
const FORMAT_INTERFACE = 0x301;
/** Serial numbers are this and the slot. */
const SERIAL_BASE = 0x12_3456;
/** 5.2.25.9: what is flushed when power fails. */
const CAPABILITIES = { cpu: 0b11, 'mem-ctrl': 0b10 } as const;

/** How the tables and `_ADR` name the module of a slot; 0 is the root device. */
export function nvdimmHandle(slot: number): number {
  return slot + 1;
}

/** Structures refer to one another by number: two for each slot, none of them 0. */
const rangeIndex = (slot: number): number => 2 * nvdimmHandle(slot);
const controlIndex = (slot: number): number => rangeIndex(slot) + 1;

/** A structure with its type and length. */
function structure(type: number, ...fields: readonly (Uint8Array | readonly number[])[]): Uint8Array {
  const body = concat(...fields);
  return concat(u16(type), u16(4 + body.length), body);
}

/** System Physical Address Range (5.2.25.2). */
function addressRange({ slot, base, length, node }: NvdimmFacts): Uint8Array {
  return structure(
    0,
    u16(rangeIndex(slot)),
    u16(RANGE_FLAGS),
    u32(0),
    u32(node),
    uuidBytes(PERSISTENT_MEMORY),
    u64(base),
    u64(length),
    u64(WRITE_BACK | NON_VOLATILE),
  );
}

/** NVDIMM Region Mapping (5.2.25.3): the whole module, not interleaved. */
function regionMapping({ slot, length, unarmed }: NvdimmFacts): Uint8Array {
  return structure(
    1,
    u32(nvdimmHandle(slot)),
    u16(0), // physical id
    u16(0), // region id
    u16(rangeIndex(slot)),
    u16(controlIndex(slot)),
    u64(length),
    u64(0), // offset in the range
    u64(0), // address on the module
    u16(0), // interleave structure
    u16(1), // interleave ways
    u16(unarmed ? NOT_ARMED : 0),
    u16(0),
  );
}

/** NVDIMM Control Region (5.2.25.6), without block windows. */
function controlRegion({ slot }: NvdimmFacts): Uint8Array {
  return structure(
    4,
    u16(controlIndex(slot)),
    u16(INTEL),
    u16(DEVICE_ID),
    u16(REVISION),
    new Uint8Array(6), // subsystem
    new Uint8Array(6),
    u32(SERIAL_BASE + slot),
    u16(FORMAT_INTERFACE),
    u16(0), // block control windows
    new Uint8Array(40),
    u16(0), // flags
    new Uint8Array(6),
  );
}

/** Platform Capabilities (5.2.25.9). */
function platformCapabilities(persistence: NvdimmPersistence): Uint8Array {
  const highest = 1;
  return structure(7, [highest, 0, 0, 0], u32(CAPABILITIES[persistence]), u32(0));
}

/** The structures of the table, which `_FIT` also returns once modules have come. */
export function nfitStructures(modules: readonly NvdimmFacts[], persistence?: NvdimmPersistence): Uint8Array {
  return concat(
    ...modules.flatMap(module => [addressRange(module), regionMapping(module), controlRegion(module)]),
    persistence === undefined ? [] : platformCapabilities(persistence),
  );
}

export function nfit(modules: readonly NvdimmFacts[], persistence?: NvdimmPersistence): TableContent {
  return { signature: 'NFIT', revision: 1, body: concat(u32(0), nfitStructures(modules, persistence)) };
}
