/** Ties a PC's firmware interfaces to the machine's parts: one call at the end of a machine definition. */

import { featureWord } from '../../core/cpu/features.ts';
import { cpuWord } from '../../core/cpu/resolve.ts';
import type { NvdimmSlots } from '../../core/firmware/acpi-build.ts';
import type { McfgFacts } from '../../core/firmware/acpi-tables.ts';
import { FW_CFG_KEYS, type FwCfg } from '../../core/firmware/fw-cfg.ts';
import type { HmatFacts } from '../../core/firmware/hmat.ts';
import type { NvdimmPersistence } from '../../core/firmware/nfit.ts';
import type { CpuSlot } from '../../core/machine/cpu-slots.ts';
import type { Machine } from '../../core/machine/machine.ts';
import type { PciBus } from '../../core/pci/pci-bus.ts';
import type { AcpiCpuHotplug } from '../../devices/acpi-cpu-hotplug.ts';
import type { AcpiMemoryHotplug } from '../../devices/acpi-memory-hotplug.ts';
import type { AcpiPciHotplug } from '../../devices/acpi-pci-hotplug.ts';
import type { AcpiNvdimm } from '../../devices/nvdimm/acpi-nvdimm.ts';
import { possibleCpus } from './acpi-description.ts';
import { PcFirmware, type PcFirmwareFacts, type PmFacts } from './pc-firmware.ts';

const GIB = 2 ** 30;
const VM_GENERATION_GPE = 5;

/** The chipset's power management, as a device: PIIX4's function 3 or ICH9's LPC bridge. */
export interface PmDevice {
  readonly pciHotplug?: AcpiPciHotplug;
  readonly cpuHotplug?: AcpiCpuHotplug;
  readonly memoryHotplug?: AcpiMemoryHotplug;
  readonly nvdimm?: AcpiNvdimm;
  raiseGpe(event: number): void;
}

/** `-machine nvdimm=on`. */
export interface NvdimmOptions {
  readonly persistence: NvdimmPersistence | undefined;
}

export interface PcFirmwareParts {
  readonly machine: Machine;
  readonly fwCfg: FwCfg;
  readonly pm: PmDevice;
  /** {@link PIIX4_PM} or {@link ICH9_PM}. */
  readonly chipset: Omit<PmFacts, 'sleep' | 'pciHotplug'>;
  readonly sleep: PmFacts['sleep'];
  readonly pciHotplug: PmFacts['pciHotplug'];
  readonly rootBus: PciBus;
  readonly ram: { readonly below4g: number; readonly above4g: number };
  readonly smm: boolean;
  /** Whether the tables tell what reaching memory costs. */
  readonly hmat: boolean;
  readonly nvdimm: NvdimmOptions | undefined;
  readonly cxl: PcFirmwareFacts['cxl'];
  readonly mcfg?: () => McfgFacts | undefined;
}

/** Fills fw_cfg, and wires the hotplug controllers to the machine's CPUs. */
export function installPcFirmware(parts: PcFirmwareParts): PcFirmware {
  const { machine, pm, chipset } = parts;
  wireCpus(machine, pm.cpuHotplug);
  machine.cpus.onChange(() => parts.fwCfg.setNumber(FW_CFG_KEYS.NB_CPUS, machine.guestCpuCount, 2));
  const { memoryBus, ioRoot } = machine;
  if (memoryBus !== undefined) {
    pm.memoryHotplug?.wire(memoryBus, ioRoot);
    if (parts.nvdimm !== undefined) pm.nvdimm?.wire(memoryBus, ioRoot, machine.memory, parts.nvdimm.persistence);
  }
  const { nodes } = machine.numa;
  const oemId = machine.config.options['x-oem-id'];
  const oemTableId = machine.config.options['x-oem-table-id'];
  const facts: PcFirmwareFacts = {
    machine,
    fwCfg: parts.fwCfg,
    pm: { ...chipset, sleep: parts.sleep, pciHotplug: parts.pciHotplug },
    rootBus: parts.rootBus,
    hotplug: pm.pciHotplug,
    ram: { low: parts.ram.below4g, high: parts.ram.above4g },
    cpus: possibleCpus(machine),
    cpuid: bootCpuid(machine),
    smm: parts.smm,
    product: machine.type.summary,
    version: machine.type.type,
    hole64Size: chipset.chipset === 'q35' ? 32 * GIB : 2 * GIB,
    nodes: nodes.map(node => node.memory),
    ...(machine.numa.hasDistances && {
      distances: nodes.map(from => nodes.map((_, to) => from.distances.get(to) ?? 0)),
    }),
    ...(parts.hmat && { hmat: hmatFacts(machine) }),
    ...(parts.mcfg !== undefined && { mcfg: parts.mcfg }),
    ...(parts.nvdimm !== undefined && { nvdimm: nvdimmKnowledge(machine, pm.nvdimm, parts.nvdimm) }),
    ...(parts.cxl !== undefined && { cxl: parts.cxl }),
    generationChanged: () => pm.raiseGpe(VM_GENERATION_GPE),
    oem: {
      id: typeof oemId === 'string' ? oemId : 'BOCHS ',
      tableId: typeof oemTableId === 'string' ? oemTableId : 'BXPC    ',
    },
  };
  return new PcFirmware(facts);
}

function nvdimmKnowledge(
  { config }: Machine,
  controller: AcpiNvdimm | undefined,
  { persistence }: NvdimmOptions,
): () => NvdimmSlots {
  return () => ({
    slotCount: config.ramSlots,
    modules: controller?.facts ?? [],
    ...(persistence !== undefined && { persistence }),
  });
}

/** What reaching memory costs, from the machine's NUMA configuration. */
function hmatFacts(machine: Machine): HmatFacts {
  const { nodes, tables } = machine.numa;
  return {
    nodes: nodes.map(node => ({
      hasCpu: node.hasCpu,
      ...(node.initiator !== undefined && { initiator: node.initiator }),
      caches: [...node.caches.values()],
    })),
    costs: tables.map(table => ({
      hierarchy: table.hierarchy,
      dataType: table.dataType,
      base: table.base,
      entries: table.entries.map(entry => ({
        initiator: entry.initiator,
        target: entry.target,
        value: entry.latency ?? entry.bandwidth ?? 0,
      })),
    })),
  };
}

/** Leaf 1 of the boot CPU. */
function bootCpuid(machine: Machine): PcFirmwareFacts['cpuid'] {
  const resolved = machine.cpus.plugged[0]?.cpu?.resolved;
  const word = featureWord('1.EDX');
  if (resolved === undefined || word === undefined) return { version: 0, features: 0, amd: false };
  const { family, model, stepping, vendor } = resolved;
  const extended = Math.max(0, family - 0xf);
  const version =
    stepping + ((model & 0xf) << 4) + (Math.min(family, 0xf) << 8) + ((model >> 4) << 16) + (extended << 20);
  return { version, features: cpuWord(resolved, word), amd: vendor === 'AuthenticAMD' };
}

/** Has the ACPI controller tell the guest of CPUs that come and go. */
function wireCpus(machine: Machine, controller: AcpiCpuHotplug | undefined): void {
  if (controller === undefined) return;
  const leaving = new Map<number, () => void>();
  controller.wire(possibleCpus(machine), cpu => {
    leaving.get(cpu)?.();
    leaving.delete(cpu);
  });
  machine.cpus.hotplugController = {
    plugged: (slot: CpuSlot) => controller.plugged(slot.index),
    requestUnplug: (slot: CpuSlot, done: () => void) => {
      controller.requestUnplug(slot.index, slot.cpu?.typeName ?? '');
      leaving.set(slot.index, done);
    },
  };
}
