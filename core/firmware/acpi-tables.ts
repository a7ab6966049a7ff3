/** The fixed tables of an x86 machine (ACPI 6.4 chapter 5), each from the few facts it states. */
import type { TableContent, TablePointer } from './acpi-blob.ts';
import { padded } from './acpi-blob.ts';
import { concat, u8, u16, u32, u64 } from './aml.ts';

/** Generic Address Structure (5.2.3.2). */
export interface GenericAddress {
  readonly space: 'memory' | 'io';
  readonly bits: number;
  readonly address: number;
}

const NO_ADDRESS: GenericAddress = { space: 'memory', bits: 0, address: 0 };

function gas(register: GenericAddress): Uint8Array {
  return concat([register.space === 'io' ? 1 : 0, register.bits, 0, 0], u64(register.address));
}

// 5.2.10 Firmware ACPI Control Structure

export function facs(): Uint8Array {
  return concat(padded('FACS', 4), u32(64), new Uint8Array(56));
}

// 5.2.9 Fixed ACPI Description Table

/** Flags (table 5.10). */
export const FADT_FLAGS = {
  WBINVD: 1 << 0,
  PROC_C1: 1 << 2,
  PWR_BUTTON: 1 << 4,
  SLP_BUTTON: 1 << 5,
  RTC_S4: 1 << 7,
  RESET_REG_SUP: 1 << 10,
  USE_PLATFORM_CLOCK: 1 << 15,
  FORCE_APIC_CLUSTER_MODEL: 1 << 18,
  HW_REDUCED_ACPI: 1 << 20,
} as const;

/** IAPC_BOOT_ARCH (table 5.11). */
export const IAPC_8042 = 1 << 1;

export interface FadtFacts {
  readonly revision: 1 | 3 | 5;
  readonly flags: number;
  readonly iapcBootArch: number;
  /** PIC and IOAPIC; 0 where the platform is hardware-reduced. */
  readonly intModel: 0 | 1;
  readonly sciInt: number;
  /** SMI_CMD and what to write there; absent where there is no SMM to ask. */
  readonly smi?: { readonly port: number; readonly enable: number; readonly disable: number };
  /** The fixed register blocks in I/O space; absent on hardware-reduced platforms. */
  readonly pm?: { readonly base: number; readonly gpe0: number; readonly gpe0Length: number };
  readonly lvl2Latency: number;
  readonly lvl3Latency: number;
  /** CMOS index of the century. */
  readonly century: number;
  readonly reset?: { readonly register: GenericAddress; readonly value: number };
  readonly sleepControl?: GenericAddress;
  readonly sleepStatus?: GenericAddress;
}

const PM1_EVT_LEN = 4;
const PM1_CNT_LEN = 2;
const PM_TMR_LEN = 4;

/**
 * @param facsOffset absent where the platform has none (hardware-reduced)
 * @param dsdtOffset where the DSDT starts in the tables file
 */
export function fadt(facts: FadtFacts, dsdtOffset: number, facsOffset?: number): TableContent {
  const pm = facts.pm;
  const block = (offset: number, length: number): GenericAddress =>
    pm === undefined ? NO_ADDRESS : { space: 'io', bits: length * 8, address: pm.base + offset };
  const event = block(0, PM1_EVT_LEN);
  const control = block(4, PM1_CNT_LEN);
  const timer = block(8, PM_TMR_LEN);
  const gpe0: GenericAddress =
    pm === undefined ? NO_ADDRESS : { space: 'io', bits: (pm.gpe0Length * 8) & 0xff, address: pm.gpe0 };

  const pointers: TablePointer[] = [];
  if (facsOffset !== undefined) pointers.push({ at: 0, size: 4, target: facsOffset });
  pointers.push({ at: 4, size: 4, target: dsdtOffset });
  if (facts.revision > 1) pointers.push({ at: 104, size: 8, target: dsdtOffset });

  const revision1 = [
    u32(0), // FIRMWARE_CTRL
    u32(0), // DSDT
    u8(facts.intModel),
    u8(0), // Preferred_PM_Profile: unspecified
    u16(facts.sciInt),
    u32(facts.smi?.port ?? 0),
    u8(facts.smi?.enable ?? 0),
    u8(facts.smi?.disable ?? 0),
    u8(0), // S4BIOS_REQ
    u8(0), // PSTATE_CNT
    u32(event.address), // PM1a_EVT_BLK
    u32(0), // PM1b_EVT_BLK
    u32(control.address), // PM1a_CNT_BLK
    u32(0), // PM1b_CNT_BLK
    u32(0), // PM2_CNT_BLK
    u32(timer.address), // PM_TMR_BLK
    u32(gpe0.address), // GPE0_BLK
    u32(0), // GPE1_BLK
    u8(event.bits / 8),
    u8(control.bits / 8),
    u8(0), // PM2_CNT_LEN
    u8(timer.bits / 8),
    u8(pm?.gpe0Length ?? 0),
    u8(0), // GPE1_BLK_LEN
    u8(0), // GPE1_BASE
    u8(0), // CST_CNT
    u16(facts.lvl2Latency),
    u16(facts.lvl3Latency),
    new Uint8Array(4), // FLUSH_SIZE, FLUSH_STRIDE
    new Uint8Array(2), // DUTY_OFFSET, DUTY_WIDTH
    new Uint8Array(2), // DAY_ALRM, MON_ALRM
    u8(facts.century),
    u16(facts.revision === 1 ? 0 : facts.iapcBootArch),
    u8(0),
    u32(facts.flags),
  ];
  const revision3 = [
    gas(facts.reset?.register ?? NO_ADDRESS),
    u8(facts.reset?.value ?? 0),
    new Uint8Array(3), // ARM_BOOT_ARCH, minor version
    u64(0), // X_FIRMWARE_CTRL
    u64(0), // X_DSDT
    gas(event),
    gas(NO_ADDRESS), // X_PM1b_EVT_BLK
    gas(control),
    gas(NO_ADDRESS), // X_PM1b_CNT_BLK
    gas(NO_ADDRESS), // X_PM2_CNT_BLK
    gas(timer),
    gas(gpe0),
    gas(NO_ADDRESS), // X_GPE1_BLK
  ];
  const revision5 = [gas(facts.sleepControl ?? NO_ADDRESS), gas(facts.sleepStatus ?? NO_ADDRESS)];

  const body = concat(
    ...revision1,
    ...(facts.revision >= 3 ? revision3 : []),
    ...(facts.revision >= 5 ? revision5 : []),
  );
  return { signature: 'FACP', revision: facts.revision, body, pointers };
}

// 5.2.12 Multiple APIC Description Table

/** One possible CPU. An absent one is listed disabled, so that it can be plugged in later. */
export interface AcpiCpu {
  readonly apicId: number;
  readonly present: boolean;
  /** NUMA node, where the machine has nodes. */
  readonly node?: number;
}

export interface AcpiIoApic {
  readonly id: number;
  readonly address: number;
  readonly gsiBase: number;
}

export interface MadtFacts {
  readonly cpus: readonly AcpiCpu[];
  readonly ioApics: readonly AcpiIoApic[];
  /** ISA IRQ 0 arrives at GSI 2. */
  readonly timerOnGsi2: boolean;
  /** Bit n: ISA IRQ n is level-triggered and active-high, being a PCI interrupt or the SCI. */
  readonly pciIrqMask: number;
}

const LOCAL_APIC_ADDRESS = 0xfee0_0000;
const PCAT_COMPAT = 1;
const ALL_PROCESSORS = 0xff;
const LINT1 = 1;
/** MPS INTI flags (table 5.26): active high, level-triggered. */
const ACTIVE_HIGH_LEVEL = 0xd;
/** The highest id that an xAPIC entry can hold. */
const XAPIC_MAX_ID = 254;

/** Processor Local APIC (5.2.12.2), or x2APIC (5.2.12.12) where the id asks for it. Also what `_MAT` returns. */
export function localApic(uid: number, apicId: number, enabled: boolean): Uint8Array {
  const flags = enabled ? 1 : 0;
  if (apicId <= XAPIC_MAX_ID) return concat([0, 8, uid & 0xff, apicId], u32(flags));
  return concat([9, 16, 0, 0], u32(apicId), u32(flags), u32(uid));
}

function interruptOverride(source: number, gsi: number, flags: number): Uint8Array {
  return concat([2, 10, 0, source], u32(gsi), u16(flags));
}

export function madt(facts: MadtFacts): TableContent {
  const x2apic = facts.cpus.some(cpu => cpu.apicId > XAPIC_MAX_ID);
  const isaIrqs = Array.from({ length: 15 }, (_, index) => index + 1);
  const body = concat(
    u32(LOCAL_APIC_ADDRESS),
    u32(PCAT_COMPAT),
    ...facts.cpus.map((cpu, uid) => localApic(uid, cpu.apicId, cpu.present)),
    ...facts.ioApics.map(chip => concat([1, 12, chip.id, 0], u32(chip.address), u32(chip.gsiBase))),
    facts.timerOnGsi2 ? interruptOverride(0, 2, 0) : [],
    ...isaIrqs
      .filter(irq => (facts.pciIrqMask & (1 << irq)) !== 0)
      .map(irq => interruptOverride(irq, irq, ACTIVE_HIGH_LEVEL)),
    x2apic ? concat([0xa, 12, 0, 0], u32(0xffff_ffff), [LINT1, 0, 0, 0]) : concat([4, 6, ALL_PROCESSORS, 0, 0, LINT1]),
  );
  return { signature: 'APIC', revision: 1, body };
}

// IA-PC HPET Specification 1.0a, 3.2.4

export function hpet(facts: { readonly blockId: number; readonly base: number }): TableContent {
  const body = concat(u32(facts.blockId), gas({ space: 'memory', bits: 0, address: facts.base }), [0, 0, 0, 0]);
  return { signature: 'HPET', revision: 1, body };
}

// PCI Firmware Specification 3.0, 4.1.2

export interface McfgFacts {
  readonly base: number;
  /** Bytes; a bus takes 1 MiB. */
  readonly size: number;
}

export function mcfg(facts: McfgFacts): TableContent {
  const lastBus = Math.floor((facts.size - 1) / 2 ** 20) & 0x1ff;
  const body = concat(u64(0), u64(facts.base), u16(0), [0, lastBus & 0xff], u32(0));
  return { signature: 'MCFG', revision: 1, body };
}

/** Windows ACPI Emulated Devices Table: the PM timer needs reading only once. */
export function waet(): TableContent {
  return { signature: 'WAET', revision: 1, body: u32(1 << 1) };
}

// 5.2.16 System Resource Affinity Table

export interface MemoryAffinity {
  readonly base: number;
  readonly length: number;
  readonly node: number;
  readonly flags: number;
}

export const MEMORY_ENABLED = 1 << 0;
export const MEMORY_HOTPLUGGABLE = 1 << 1;
export const MEMORY_NON_VOLATILE = 1 << 2;

export function srat(cpus: readonly AcpiCpu[], memory: readonly MemoryAffinity[]): TableContent {
  const body = concat(
    u32(1),
    u64(0),
    ...cpus.map(cpu =>
      cpu.apicId <= XAPIC_MAX_ID
        ? concat([0, 16, cpu.node ?? 0, cpu.apicId], u32(1), u32(0), u32(0))
        : concat([2, 24, 0, 0], u32(cpu.node ?? 0), u32(cpu.apicId), u32(1), u32(0), u32(0)),
    ),
    ...memory.map(range =>
      concat([1, 40], u32(range.node), u16(0), u64(range.base), u64(range.length), u32(0), u32(range.flags), u64(0)),
    ),
  );
  return { signature: 'SRAT', revision: 1, body };
}

/** System Locality Distance Information Table (5.2.17): `distances[from][to]`. */
export function slit(distances: readonly (readonly number[])[]): TableContent {
  return { signature: 'SLIT', revision: 1, body: concat(u64(distances.length), ...distances) };
}

/** Splits nodes' memory at the holes below 1 MiB and below 4 GiB, as the machine maps it. */
export function memoryAffinities(facts: {
  readonly nodes: readonly number[];
  readonly below4g: number;
  readonly above4gStart: number;
  /** Persistent memory that is there. */
  readonly nvdimms?: readonly { readonly base: number; readonly length: number; readonly node: number }[];
  readonly hotplug?: { readonly base: number; readonly size: number };
}): MemoryAffinity[] {
  const HOLE_START = 0xa_0000;
  const HOLE_END = 0x10_0000;
  const ranges: MemoryAffinity[] = [];
  const push = (base: number, length: number, node: number): void => {
    if (length > 0) ranges.push({ base, length, node, flags: MEMORY_ENABLED });
  };
  let next = 0;
  facts.nodes.forEach((size, node) => {
    let base = next;
    let length = size;
    next = base + length;
    if (base <= HOLE_START && next > HOLE_START) {
      push(base, HOLE_START - base, node);
      if (next <= HOLE_END) {
        next = HOLE_END;
        return;
      }
      base = HOLE_END;
      length = next - HOLE_END;
    }
    if (base <= facts.below4g && next > facts.below4g) {
      push(base, facts.below4g - base, node);
      length = next - facts.below4g;
      base = facts.above4gStart;
      next = base + length;
    }
    push(base, length, node);
  });
  for (const { base, length, node } of facts.nvdimms ?? []) {
    ranges.push({ base, length, node, flags: MEMORY_ENABLED | MEMORY_NON_VOLATILE });
  }
  // Some old systems count on a fixed number of entries.
  while (ranges.length < facts.nodes.length + 2) ranges.push({ base: 0, length: 0, node: 0, flags: 0 });
  if (facts.hotplug !== undefined && facts.hotplug.size > 0) {
    ranges.push({
      base: facts.hotplug.base,
      length: facts.hotplug.size,
      node: facts.nodes.length - 1,
      flags: MEMORY_ENABLED | MEMORY_HOTPLUGGABLE,
    });
  }
  return ranges;
}
