/** Puts a machine's tables together, in the order in which systems are used to finding them. */
import { AcpiBlob, type AcpiOem, DEFAULT_OEM, type TableContent } from './acpi-blob.ts';
import {
  type AcpiCpu,
  type FadtFacts,
  facs,
  fadt,
  hpet,
  type MadtFacts,
  type McfgFacts,
  type MemoryAffinity,
  madt,
  mcfg,
  slit,
  srat,
  waet,
} from './acpi-tables.ts';
import { type CxlFacts, cedt } from './cedt.ts';
import { type DsdtFacts, dsdt } from './dsdt.ts';
import { type MicrovmDsdtFacts, microvmDsdt } from './dsdt-microvm.ts';
import { erst } from './erst.ts';
import { type HmatFacts, hmat } from './hmat.ts';
import { type NvdimmFacts, type NvdimmPersistence, nfit } from './nfit.ts';
import { ssdtNvdimm } from './ssdt-nvdimm.ts';
import { TPM_LOG_FILE, type TpmFacts, tpmTable } from './tpm.ts';
import { vmGenId } from './vmgenid.ts';

export interface AcpiFiles {
  readonly tables: Uint8Array;
  readonly rsdp: Uint8Array;
  readonly loader: Uint8Array;
}

export interface NumaFacts {
  readonly memory: readonly MemoryAffinity[];
  /** `distances[from][to]`, where the user gave any. */
  readonly distances?: readonly (readonly number[])[];
  /** What reaching memory costs (`-machine hmat=on`). */
  readonly hmat?: HmatFacts;
}

/** Slots for persistent memory (`-machine nvdimm=on`), and what is in them. */
export interface NvdimmSlots {
  readonly slotCount: number;
  readonly modules: readonly NvdimmFacts[];
  readonly persistence?: NvdimmPersistence;
}

export interface PcAcpiFacts {
  readonly oem?: AcpiOem;
  readonly dsdt: DsdtFacts;
  readonly fadt: FadtFacts;
  readonly madt: MadtFacts;
  readonly hpet?: { readonly blockId: number; readonly base: number };
  readonly numa?: NumaFacts;
  readonly mcfg?: McfgFacts;
  /** Where the registers of the error record store are. */
  readonly erst?: { readonly base: number };
  /** The machine has a generation id. */
  readonly vmGenId?: boolean;
  readonly tpm?: TpmFacts;
  readonly nvdimm?: NvdimmSlots;
  /** CXL (`-machine cxl=on`), whether or not there are host bridges. */
  readonly cxl?: CxlFacts;
  /** Tables of devices that bring their own, before those of persistent memory. */
  readonly more?: readonly TableContent[];
  /** Complete tables that the user supplied with `-acpitable`. */
  readonly userTables?: readonly Uint8Array[];
  /** OEM fields of a user's SLIC table, which the FADT and RSDT then bear too. */
  readonly slicOem?: AcpiOem;
}

/** The tables of a pc or q35 machine, behind an RSDT. */
export function pcAcpi(facts: PcAcpiFacts): AcpiFiles {
  const oem = facts.oem ?? DEFAULT_OEM;
  const rootOem = facts.slicOem ?? oem;
  const blob = new AcpiBlob(oem);
  const facsOffset = blob.append(facs());
  const dsdtOffset = blob.add(dsdt(facts.dsdt));
  blob.list(fadt(facts.fadt, dsdtOffset, facsOffset), rootOem);
  blob.list(madt(facts.madt));
  if (facts.erst !== undefined) blob.list(erst(facts.erst.base));
  if (facts.vmGenId === true) vmGenId(blob, oem);
  if (facts.hpet !== undefined) blob.list(hpet(facts.hpet));
  if (facts.tpm !== undefined) {
    blob.loader.allocate(TPM_LOG_FILE, 1, 'high');
    blob.list(tpmTable(facts.tpm));
  }
  if (facts.numa !== undefined) listNuma(blob, facts.madt.cpus, facts.numa);
  if (facts.mcfg !== undefined) blob.list(mcfg(facts.mcfg));
  for (const table of facts.more ?? []) blob.list(table);
  if (facts.nvdimm !== undefined) listNvdimm(blob, oem, facts.nvdimm);
  if (facts.cxl !== undefined) blob.list(cedt(facts.cxl));
  blob.list(waet());
  for (const table of facts.userTables ?? []) blob.listRaw(table);
  blob.finish('RSDT', rootOem);
  return blob.files();
}

function listNvdimm(blob: AcpiBlob, oem: AcpiOem, { slotCount, modules, persistence }: NvdimmSlots): void {
  if (slotCount === 0) return;
  ssdtNvdimm(blob, oem, slotCount);
  if (modules.length > 0) blob.list(nfit(modules, persistence));
}

function listNuma(blob: AcpiBlob, cpus: readonly AcpiCpu[], numa: NumaFacts): void {
  blob.list(srat(cpus, numa.memory));
  if (numa.distances !== undefined) blob.list(slit(numa.distances));
  if (numa.hmat !== undefined) blob.list(hmat(numa.hmat));
}

export interface MicrovmAcpiFacts {
  readonly oem?: AcpiOem;
  readonly dsdt: MicrovmDsdtFacts;
  readonly fadt: FadtFacts;
  readonly madt: MadtFacts;
}

/** The tables of a hardware-reduced machine, behind an XSDT and without a FACS. */
export function microvmAcpi(facts: MicrovmAcpiFacts): AcpiFiles {
  const blob = new AcpiBlob(facts.oem);
  const dsdtOffset = blob.add(microvmDsdt(facts.dsdt));
  blob.list(fadt(facts.fadt, dsdtOffset));
  blob.list(madt(facts.madt));
  blob.finish('XSDT');
  return blob.files(1);
}
