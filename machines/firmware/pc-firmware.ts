/** What a PC tells its firmware: fills fw_cfg, and keeps it true from one reset to the next. */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { LOADER_FILE, RSDP_FILE, TABLES_FILE } from '../../core/firmware/acpi-blob.ts';
import { type AcpiFiles, type NvdimmSlots, pcAcpi } from '../../core/firmware/acpi-build.ts';
import { slicOem } from '../../core/firmware/acpi-table-option.ts';
import {
  type AcpiCpu,
  FADT_FLAGS,
  type FadtFacts,
  IAPC_8042,
  type McfgFacts,
  memoryAffinities,
} from '../../core/firmware/acpi-tables.ts';
import type { BootDevice } from '../../core/firmware/boot-order.ts';
import type { CxlFacts } from '../../core/firmware/cedt.ts';
import type { DsdtFacts } from '../../core/firmware/dsdt.ts';
import { AMD_HYPERTRANSPORT, type E820Entry } from '../../core/firmware/e820.ts';
import type { FwCfg } from '../../core/firmware/fw-cfg.ts';
import type { HmatFacts } from '../../core/firmware/hmat.ts';
import {
  addCommonItems,
  addX86Items,
  refreshBootFiles,
  SYSTEM_STATES_FILE,
  setHpets,
  systemStatesFile,
} from '../../core/firmware/machine-items.ts';
import { SMBIOS_ANCHOR_FILE, SMBIOS_TABLES_FILE, smbiosFiles } from '../../core/firmware/smbios.ts';
import { SmbiosOptions } from '../../core/firmware/smbios-options.ts';
import { NVDIMM_PAGE_FILE, NVDIMM_PAGE_SIZE } from '../../core/firmware/ssdt-nvdimm.ts';
import { TPM_CONFIG_FILE, TPM_LOG_FILE, TPM_LOG_SIZE, type TpmFacts, tpmConfig } from '../../core/firmware/tpm.ts';
import { placeSegments } from '../../core/loader/boot.ts';
import { E820 } from '../../core/loader/image.ts';
import { bootRom, firmwareKernel } from '../../core/loader/kernel.ts';
import type { Machine } from '../../core/machine/machine.ts';
import type { PciBus } from '../../core/pci/pci-bus.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { acpiErst } from '../../devices/acpi-erst/acpi-erst.ts';
import { MEMORY_HOTPLUG_BASE } from '../../devices/acpi-memory-hotplug.ts';
import { isDescribed } from '../../devices/ipmi/bmc.ts';
import { pvpanic } from '../../devices/pvpanic.ts';
import { VmGenId } from '../../devices/vmgenid.ts';
import { describeBus, describeExpanders, type HotplugKnowledge, tpmFacts, window64 } from './acpi-description.ts';
import { initrdFile, kernelFile } from './boot-files.ts';
import { biosGeometries, bootDevices } from './boot-path.ts';
import { iommuTables } from './iommu-tables.ts';

const GIB = 2 ** 30;
const IO_APIC = { id: 0, address: 0xfec0_0000, gsiBase: 0 } as const;
const HPET_BASE = 0xfed0_0000;
/** Three timers, 64 bits, legacy replacement, 100 MHz: what the HPET's capability register says of itself. */
const HPET_BLOCK_ID = 0x8086_a201;
/** ISA interrupts that PCI links and the SCI use: 5, 9, 10 and 11. */
const PCI_IRQ_MASK = 0x0e20;
const SMI_PORT = 0xb2;
const CMOS_CENTURY = 0x32;
const NO_C_STATE = 0xfff;
const CLUSTER_MODEL_CPUS = 8;

/** The power management of a chipset, as the tables describe it. */
export interface PmFacts {
  readonly chipset: 'i440fx' | 'q35';
  /** ACPI_ENABLE and ACPI_DISABLE. */
  readonly smi: { readonly enable: number; readonly disable: number };
  readonly gpe0: { readonly base: number; readonly length: number };
  readonly cpuHotplugBase: number;
  readonly pciHotplug: { readonly base: number; readonly root: boolean; readonly bridges: boolean };
  readonly sleep: { readonly s3: boolean; readonly s4: boolean; readonly s4Value: number };
}

export const PIIX4_PM: Omit<PmFacts, 'sleep' | 'pciHotplug'> = {
  chipset: 'i440fx',
  smi: { enable: 0xf1, disable: 0xf0 },
  gpe0: { base: 0xafe0, length: 4 },
  cpuHotplugBase: 0xaf00,
};
export const ICH9_PM: Omit<PmFacts, 'sleep' | 'pciHotplug'> = {
  chipset: 'q35',
  smi: { enable: 2, disable: 3 },
  gpe0: { base: 0x620, length: 0x10 },
  cpuHotplugBase: 0xcd8,
};
/** PM1a event block, where firmware programs both chipsets to have it. */
const PM_BASE = 0x600;
const PCI_HOTPLUG_LENGTH = 0x18;

export interface PcFirmwareFacts {
  readonly machine: Machine;
  readonly fwCfg: FwCfg;
  readonly pm: PmFacts;
  readonly rootBus: PciBus;
  readonly hotplug: HotplugKnowledge | undefined;
  /** Bytes below and above 4 GiB. */
  readonly ram: { readonly low: number; readonly high: number };
  /** Every possible CPU in order of its number. */
  readonly cpus: readonly AcpiCpu[];
  /** Leaf 1 of CPUID: EAX and EDX, and whether the vendor is AMD. */
  readonly cpuid: { readonly version: number; readonly features: number; readonly amd: boolean };
  /** Whether SMM answers at the SMI command port; QEMU's tables say so even where firmware needs none. */
  readonly smm: boolean;
  /** Names for SMBIOS: `Standard PC (i440FX + PIIX, 1996)` and the machine type. */
  readonly product: string;
  readonly version: string;
  /** Bytes that firmware may use for 64-bit BARs: 2 GiB for i440FX, 32 GiB for q35. */
  readonly hole64Size: number;
  /** NUMA nodes in bytes; empty without NUMA. */
  readonly nodes?: readonly number[];
  readonly distances?: readonly (readonly number[])[];
  readonly hmat?: HmatFacts;
  /** The memory-mapped configuration space while it is on (q35). */
  readonly mcfg?: () => McfgFacts | undefined;
  /** Slots for persistent memory, and what is in them now. */
  readonly nvdimm?: () => NvdimmSlots;
  /** CXL, where the machine has it: what the tables say, and the end of its addresses. */
  readonly cxl?: { readonly end: number; facts(): CxlFacts };
  /** Tells the guest that the generation id changed. */
  readonly generationChanged?: () => void;
  readonly oem?: { readonly id: string; readonly tableId: string };
}

/** The contents of a host file, or undefined where it cannot be read. */
function readable(path: string): Uint8Array | undefined {
  try {
    return readFileSync(path);
  } catch {
    return undefined;
  }
}

/** Fills fw_cfg. What depends on devices that are still to come is done on the first reset, before the firmware runs. */
export class PcFirmware {
  readonly #facts: PcFirmwareFacts;
  readonly #roms: BootDevice[] = [];
  readonly #smbiosOptions = new SmbiosOptions(readable);
  #prepared = false;
  #built = false;

  constructor(facts: PcFirmwareFacts) {
    this.#facts = facts;
    const { machine, fwCfg } = facts;
    const { config } = machine;
    for (const parameters of config.smbios) this.#smbiosOptions.add(Object.entries(parameters));
    addCommonItems(fwCfg, {
      ...(config.uuid !== undefined && { uuid: config.uuid }),
      ramSize: config.ramSize,
      graphics: config.graphics,
      cpus: facts.cpus.filter(cpu => cpu.present).length,
      boot: {
        menu: config.boot.menu ?? false,
        ...(config.boot.splashTimeMs !== undefined && { splashTimeMs: config.boot.splashTimeMs }),
        ...(config.boot.rebootTimeoutMs !== undefined && { rebootTimeoutMs: config.boot.rebootTimeoutMs }),
        ...(config.boot.splash !== undefined && { splash: readFileSync(config.boot.splash) }),
      },
    });
    addX86Items(fwCfg, {
      apicIdLimit: Math.max(...facts.cpus.map(cpu => cpu.apicId)) + 1,
      e820: this.#memoryMap(),
      numa: {
        cpus: facts.cpus.map(cpu => ({ apicId: cpu.apicId, node: cpu.node ?? 0 })),
        nodes: facts.nodes ?? [],
      },
      userTables: config.acpiTables,
    });
    fwCfg.addFile(SYSTEM_STATES_FILE, systemStatesFile(facts.pm.sleep));
    this.#addKernel();
    for (const rom of config.optionRoms) this.#addRom(rom.file, rom.bootIndex);
    machine.onReset(() => this.#reset());
  }

  #reset(): void {
    const { machine, fwCfg } = this.#facts;
    if (!this.#prepared) this.#prepare();
    this.#built = false;
    const strict = machine.config.boot.strict ?? false;
    refreshBootFiles(fwCfg, [...this.#roms, ...bootDevices(machine)], strict, biosGeometries(machine));
  }

  get #hasHpet(): boolean {
    return [...this.#facts.machine.devices()].some(device => device.type.type === 'hpet');
  }

  /** All devices of the command line are there: adds the files that speak of them. */
  #prepare(): void {
    this.#prepared = true;
    const { machine, fwCfg } = this.#facts;
    if (machine.memoryBus !== undefined && machine.memoryBus.span > 0) {
      // Firmware puts no BAR below.
      const end = Buffer.alloc(8);
      const taken = this.#facts.cxl?.end ?? machine.memoryBus.end;
      end.writeBigUInt64LE(BigInt(Math.ceil(taken / GIB) * GIB));
      fwCfg.addFile('etc/reserved-memory-end', end);
    }
    const { expanders } = this.#facts.rootBus;
    if (expanders.length > 0) {
      // Firmware looks for as many root buses beside bus 0.
      const count = Buffer.alloc(8);
      count.writeUInt32LE(expanders.length);
      fwCfg.addFile('etc/extra-pci-roots', count);
    }
    if (this.#hasHpet) setHpets(fwCfg, [{ blockId: HPET_BLOCK_ID, base: HPET_BASE, minTick: 0 }]);
    const smbios = this.#smbios();
    fwCfg.addFile(SMBIOS_TABLES_FILE, smbios.tables);
    fwCfg.addFile(SMBIOS_ANCHOR_FILE, smbios.anchor);
    for (const device of machine.devices()) {
      if (device instanceof VmGenId) this.#addGenerationId(device);
      if (device.type.type === pvpanic.type) this.#addPvpanicPort(device.props);
    }
    if (machine.config.acpi) {
      const acpi = this.#acpi();
      const rebuild = { selected: () => this.#rebuild() };
      fwCfg.addFile(TABLES_FILE, acpi.tables, rebuild);
      fwCfg.addFile(RSDP_FILE, acpi.rsdp, rebuild);
      fwCfg.addFile(LOADER_FILE, acpi.loader, rebuild);
      if (this.#facts.nvdimm !== undefined) fwCfg.addFile(NVDIMM_PAGE_FILE, new Uint8Array(NVDIMM_PAGE_SIZE));
      // The firmware's event log, of no bytes where there is no TPM.
      const tpm = this.#tpm();
      fwCfg.addFile(TPM_LOG_FILE, new Uint8Array(tpm === undefined ? 0 : TPM_LOG_SIZE));
      if (tpm?.ppi === true) fwCfg.addFile(TPM_CONFIG_FILE, tpmConfig(tpm));
    }
    for (const file of machine.config.fwCfg) fwCfg.addFile(file.name, file.contents);
  }

  /** The firmware has programmed PCI by the time it asks for the tables: they say where things are now. */
  #rebuild(): void {
    if (this.#built) return;
    this.#built = true;
    const { fwCfg } = this.#facts;
    const acpi = this.#acpi();
    fwCfg.setFile(TABLES_FILE, acpi.tables);
    fwCfg.setFile(RSDP_FILE, acpi.rsdp);
    fwCfg.setFile(LOADER_FILE, acpi.loader);
  }

  #addGenerationId(device: VmGenId): void {
    device.addFiles(this.#facts.fwCfg);
    device.changed.connect(level => {
      if (level) this.#facts.generationChanged?.();
    });
  }

  #addPvpanicPort(props: Readonly<Record<string, unknown>>): void {
    const port = Buffer.alloc(2);
    port.writeUInt16LE(Number(props['ioport'] ?? 0));
    this.#facts.fwCfg.setFile('etc/pvpanic-port', port);
  }

  #memoryMap(): E820Entry[] {
    const { ram, cpuid } = this.#facts;
    const map: E820Entry[] = cpuid.amd ? [AMD_HYPERTRANSPORT] : [];
    map.push({ base: 0, length: ram.low, type: 'ram' });
    if (ram.high > 0) map.push({ base: 4 * GIB, length: ram.high, type: 'ram' });
    return map;
  }

  // Kernel and option ROMs

  /** `-kernel`, as firmware boots it: items, and a boot ROM that comes first. */
  #addKernel(): void {
    const { machine, fwCfg, ram } = this.#facts;
    const { kernel, initrd, append } = machine.config;
    if (kernel === undefined) return;
    const memory = [{ address: 0, size: ram.low, type: E820.RAM }];
    if (ram.high > 0) memory.push({ address: 4 * GIB, size: ram.high, type: E820.RAM });
    const boot = firmwareKernel(kernelFile(kernel), {
      memory,
      kernelName: kernel,
      ...(append !== undefined && { commandLine: append }),
      ...(initrd !== undefined && { initrd: initrdFile(initrd) }),
    });
    for (const item of boot.items) fwCfg.setItem(item.selector, item.bytes);
    if (boot.segments.length > 0) machine.onReset(() => placeSegments(machine.memory, boot.segments));
    this.#addRom(boot.rom, 0, bootRom(boot.rom));
  }

  #addRom(file: string, bootIndex: number, image = this.#facts.machine.services.romImage(file)): void {
    const { fwCfg } = this.#facts;
    const name = `genroms/${basename(file)}`;
    fwCfg.addFile(name, image);
    if (bootIndex >= 0) this.#roms.push({ index: bootIndex, path: `/rom@${name}` });
  }

  // SMBIOS

  #smbios(): { readonly tables: Uint8Array; readonly anchor: Uint8Array } {
    const { machine, cpuid, rootBus } = this.#facts;
    const { config } = machine;
    const { sockets, dies, cores, threads } = config.cpus;
    return smbiosFiles({
      options: this.#smbiosOptions,
      defaults: { manufacturer: 'QEMU', product: this.#facts.product, version: this.#facts.version },
      ...(config.uuid !== undefined && { uuid: config.uuid }),
      entryPoint: config.options['smbios-entry-point-type'] === '64' ? '64' : '32',
      sockets,
      coresPerSocket: dies * cores,
      threadsPerSocket: dies * cores * threads,
      cpuid,
      ramSize: config.ramSize,
      ramRanges: this.#memoryMap().filter(entry => entry.type === 'ram'),
      ipmi: [...machine.devices()].filter(isDescribed).map(device => device.ipmi),
      findPci: id => {
        const device = machine.findDevice(id);
        return device instanceof PciDevice && device.pciBus === rootBus ? { bus: 0, devfn: device.devfn } : undefined;
      },
    });
  }

  // ACPI

  #acpi(): AcpiFiles {
    const facts = this.#facts;
    const { machine, cpus, ram, nodes = [], distances } = facts;
    const { memoryBus } = machine;
    const mcfg = facts.mcfg?.();
    const nvdimm = facts.nvdimm?.();
    const slic = slicOem(machine.config.acpiTables);
    const tpm = this.#tpm();
    return pcAcpi({
      ...(facts.oem !== undefined && { oem: facts.oem }),
      dsdt: this.#dsdt(mcfg),
      fadt: this.#fadt(),
      madt: { cpus, ioApics: [IO_APIC], timerOnGsi2: true, pciIrqMask: PCI_IRQ_MASK },
      ...(this.#hasHpet && { hpet: { blockId: HPET_BLOCK_ID, base: HPET_BASE } }),
      ...(nodes.length > 0 && {
        numa: {
          memory: memoryAffinities({
            nodes,
            below4g: ram.low,
            above4gStart: 4 * GIB,
            ...(nvdimm !== undefined && { nvdimms: nvdimm.modules }),
            ...(memoryBus !== undefined && { hotplug: { base: memoryBus.base, size: memoryBus.span } }),
          }),
          ...(distances !== undefined && { distances }),
          ...(facts.hmat !== undefined && { hmat: facts.hmat }),
        },
      }),
      ...(mcfg !== undefined && { mcfg }),
      ...this.#erst(),
      ...(tpm !== undefined && { tpm }),
      ...(nvdimm !== undefined && { nvdimm }),
      ...(facts.cxl !== undefined && { cxl: facts.cxl.facts() }),
      more: iommuTables(facts.rootBus, IO_APIC.id),
      userTables: machine.config.acpiTables,
      ...(slic !== undefined && { slicOem: slic }),
      vmGenId: [...machine.devices()].some(device => device instanceof VmGenId),
    });
  }

  #tpm(): TpmFacts | undefined {
    for (const device of this.#facts.machine.devices()) {
      const facts = tpmFacts(device);
      if (facts !== undefined) return facts;
    }
    return undefined;
  }

  /** The store of error records, at the address that firmware gave it. */
  #erst(): { readonly erst?: { readonly base: number } } {
    for (const device of this.#facts.machine.devices())
      if (device instanceof PciDevice && device.type.type === acpiErst.type)
        return { erst: { base: Math.max(0, device.bars[0]?.address ?? 0) } };
    return {};
  }

  #fadt(): FadtFacts {
    const { pm, cpus, smm } = this.#facts;
    const flags =
      FADT_FLAGS.WBINVD |
      FADT_FLAGS.PROC_C1 |
      FADT_FLAGS.SLP_BUTTON |
      FADT_FLAGS.RTC_S4 |
      FADT_FLAGS.USE_PLATFORM_CLOCK |
      (cpus.length > CLUSTER_MODEL_CPUS ? FADT_FLAGS.FORCE_APIC_CLUSTER_MODEL : 0);
    const common = {
      iapcBootArch: IAPC_8042,
      intModel: 1,
      sciInt: 9,
      ...(smm && { smi: { port: SMI_PORT, ...pm.smi } }),
      pm: { base: PM_BASE, gpe0: pm.gpe0.base, gpe0Length: pm.gpe0.length },
      lvl2Latency: NO_C_STATE,
      lvl3Latency: NO_C_STATE,
      century: CMOS_CENTURY,
    } as const;
    // Revision 1 for i440FX, as Windows 2000 knows no other.
    if (pm.chipset === 'i440fx') return { ...common, revision: 1, flags };
    const reset = { register: { space: 'io', bits: 8, address: 0xcf9 }, value: 0xf } as const;
    return { ...common, revision: 3, flags: flags | FADT_FLAGS.RESET_REG_SUP, reset };
  }

  #dsdt(mcfg: McfgFacts | undefined): DsdtFacts {
    const { machine, pm, rootBus, hotplug, cpus, ram, fwCfg } = this.#facts;
    const tpm = this.#tpm();
    return {
      chipset: pm.chipset,
      rootUid: 0,
      hasHpet: this.#hasHpet,
      cpuHotplug: { cpus, base: pm.cpuHotplugBase },
      memoryHotplug: { base: MEMORY_HOTPLUG_BASE, slots: machine.config.ramSlots },
      nvdimm: this.#facts.nvdimm !== undefined,
      pciHotplug: { ...pm.pciHotplug, length: PCI_HOTPLUG_LENGTH },
      rootBus: describeBus(rootBus, hotplug),
      expanders: describeExpanders(rootBus),
      pciHole: { min: ram.low, max: IO_APIC.address - 1 },
      pciHole64: this.#hole64(),
      ...(mcfg !== undefined && { mcfg }),
      ...(tpm !== undefined && { tpm }),
      gpe0: pm.gpe0,
      sleep: pm.sleep,
      fwCfg: { iobase: 0x510, dma: fwCfg.dmaEnabled },
    };
  }

  /** Where 64-bit BARs lie, and in any case room for more: from the end of memory that there may be, rounded to GiB. */
  #hole64(): { readonly min: number; readonly max: number } {
    const { machine, rootBus, ram, cxl, hole64Size } = this.#facts;
    const memoryBus = machine.memoryBus;
    const memoryEnd = memoryBus === undefined || memoryBus.span === 0 ? 4 * GIB + ram.high : memoryBus.end;
    const behind = cxl?.end ?? memoryEnd;
    const used = window64(rootBus);
    const roundUp = (address: number): number => Math.ceil(address / GIB) * GIB;
    const min = used?.min ?? roundUp(behind);
    const end = roundUp(min + hole64Size);
    return { min, max: Math.max(end, (used?.max ?? 0) + 1) - 1 };
  }
}
