import type { CpuHost } from '../../cpu/resolve.ts';
import { didYouMean, SouthbridgeError } from '../../errors.ts';

/** One CPUID leaf as KVM takes it (struct kvm_cpuid_entry2). */
export interface CpuidEntry {
  readonly leaf: number;
  readonly index: number;
  /** Bit 0 (KVM_CPUID_FLAG_SIGNIFCANT_INDEX): the leaf has several indices. */
  readonly flags: number;
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

const ENTRY_SIZE = 40;
const HEADER_SIZE = 8;
const INDEXED = 1;

export const CPU_MODELS = ['qemu64', 'max', 'host'] as const;
export type CpuModel = (typeof CPU_MODELS)[number];

/** What a CPU model depends on besides the host. */
export interface CpuTopology {
  readonly apicId: number;
  /** Cores of the one socket. */
  readonly cpus: number;
  readonly irqchip: boolean;
}

/** @throws SouthbridgeError ERR_CPU_MODEL where there is no such model */
export function cpuModel(name: string): CpuModel {
  const model = CPU_MODELS.find(candidate => candidate === name);
  if (model !== undefined) return model;
  throw new SouthbridgeError(
    'ERR_CPU_MODEL',
    `unable to find CPU model '${name}'`,
    didYouMean(name, CPU_MODELS, '-cpu help'),
  );
}

/** The leaves that a guest sees. `supported` is what KVM can virtualize here: no model has more. */
export function cpuidOf(model: CpuModel, supported: readonly CpuidEntry[], topology: CpuTopology): CpuidEntry[] {
  return model === 'qemu64' ? qemu64(supported, topology) : hostModel(supported, topology);
}

/** What KVM can virtualize here, as the CPU models ask for it. */
export function cpuHostOf(supported: readonly CpuidEntry[]): CpuHost {
  const registers = { EAX: 'eax', EBX: 'ebx', ECX: 'ecx', EDX: 'edx' } as const;
  return {
    isHostCpu: true,
    supports({ cpuid }, bit) {
      if (cpuid === undefined) return false;
      const entry = supported.find(
        ({ leaf, index }) => leaf === cpuid.leaf && (cpuid.subleaf === undefined || index === cpuid.subleaf),
      );
      return entry !== undefined && ((entry[registers[cpuid.register]] >>> bit) & 1) === 1;
    },
  };
}

const bits = (...positions: number[]): number => positions.reduce((mask, position) => mask | (1 << position), 0);

/** CPUID.1:EDX and ECX, 8000_0001:EDX and ECX, 4000_0001:EAX (Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E). */
const HTT = 28;
const FEATURES_EDX = bits(0, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26);
const FEATURES_ECX = bits(0, 13);
const X2APIC = bits(21);
const HYPERVISOR = bits(31);
const TSC_DEADLINE = bits(24);
const AMD_EDX = bits(11, 20, 29);
/** The bits of 1:EDX that AMD repeats in 8000_0001:EDX. */
const AMD_ALIASES = 0x0183_f3ff;
const AMD_ECX_LAHF = bits(0);
const AMD_ECX_CMP_LEGACY = bits(1);
/** kvmclock, no PIO delay, kvmclock2, async page faults, steal time, PV EOI, stable kvmclock. */
const KVM_FEATURES = bits(0, 1, 3, 4, 5, 6, 24);
const KVM_LEAF = 0x4000_0000;
const KVM_FEATURES_LEAF = 0x4000_0001;
const PHYSICAL_BITS = 40;
const VIRTUAL_BITS = 48;

/** Family 15, model 107, stepping 1. */
const QEMU64_VERSION = (0xf << 8) | (0x6 << 16) | (0xb << 4) | 1;
const QEMU64_NAME = 'QEMU Virtual CPU version 2.5+';

function qemu64(supported: readonly CpuidEntry[], topology: CpuTopology): CpuidEntry[] {
  const { apicId, cpus } = topology;
  const host = (leaf: number): CpuidEntry => find(supported, leaf, 0);
  const vendor = host(0);
  const amd = text([vendor.ebx, vendor.edx, vendor.ecx]) === 'AuthenticAMD';
  const multicore = cpus > 1;
  const edx = FEATURES_EDX & host(1).edx;
  const ecx = ((FEATURES_ECX | (topology.irqchip ? X2APIC : 0)) & host(1).ecx) | HYPERVISOR;
  const cores = multicore ? cpus << 16 : 0;
  const extendedEcx = AMD_ECX_LAHF & host(0x8000_0001).ecx;
  const extendedEdx = (AMD_EDX | (amd ? edx & AMD_ALIASES : 0)) & host(0x8000_0001).edx;
  const name = words(QEMU64_NAME.padEnd(48, '\0'));
  const entries: CpuidEntry[] = [
    leaf(0, 0xd, vendor.ebx, vendor.ecx, vendor.edx),
    leaf(1, QEMU64_VERSION, (apicId << 24) | cores | (8 << 8), ecx, edx | (multicore ? bits(HTT) : 0)),
    ...(amd ? [leaf(2, 0, 0, 0, 0)] : [leaf(2, 1, 0, 0x4d, 0x2c_307d), ...deterministicCaches(cpus)]),
    leaf(5, 0, 0, 3, 0),
    indexed(7, 0, 0, 0, 0, 0),
    ...topologyLeaves(apicId, cpus),
    indexed(0xd, 0, 0, 0, 0, 0),
    leaf(0x8000_0000, 0x8000_000a | 0, vendor.ebx, vendor.ecx, vendor.edx),
    leaf(0x8000_0001, QEMU64_VERSION, 0, extendedEcx | (multicore && amd ? AMD_ECX_CMP_LEGACY : 0), extendedEdx),
    leaf(0x8000_0002, ...quad(name, 0)),
    leaf(0x8000_0003, ...quad(name, 4)),
    leaf(0x8000_0004, ...quad(name, 8)),
    leaf(0x8000_0005, 0x01ff_01ff, 0x01ff_01ff, 0x4002_0140, 0x4002_0140),
    leaf(0x8000_0006, 0, 0x4200_4200, 0x0200_8140, 0x0080_8140),
    leaf(0x8000_0008, PHYSICAL_BITS | (VIRTUAL_BITS << 8), 0, multicore ? cpus - 1 : 0, 0),
  ];
  return [...entries, ...kvmLeaves(supported)];
}

/** CPUID.4 of an Intel host: 32 KiB L1s, 4 MiB L2, 16 MiB L3, lines of 64 bytes. */
function deterministicCaches(cpus: number): CpuidEntry[] {
  const cores = (ceilingPowerOf2(cpus) - 1) << 26;
  const ways = (count: number): number => ((count - 1) << 22) | 63;
  return [
    indexed(4, 0, 0x121 | cores, ways(8), 63, 1),
    indexed(4, 1, 0x122 | cores, ways(8), 63, 1),
    indexed(4, 2, 0x143 | cores, ways(16), 4095, 1),
    indexed(4, 3, 0x163 | cores | ((ceilingPowerOf2(cpus) - 1) << 14), ways(16), 16383, 6),
    indexed(4, 4, 0, 0, 0, 0),
  ];
}

/** CPUID.0B: one thread a core, all cores in one package. */
function topologyLeaves(apicId: number, cpus: number): CpuidEntry[] {
  const shift = Math.ceil(Math.log2(cpus));
  return [
    indexed(0xb, 0, 0, 1, 0x100, apicId),
    indexed(0xb, 1, shift, cpus, 0x201, apicId),
    indexed(0xb, 2, 0, 0, 2, apicId),
  ];
}

function kvmLeaves(supported: readonly CpuidEntry[]): CpuidEntry[] {
  const signature = find(supported, KVM_LEAF, 0);
  if (signature.ebx === 0) return [];
  return [
    leaf(KVM_LEAF, KVM_FEATURES_LEAF, signature.ebx, signature.ecx, signature.edx),
    leaf(KVM_FEATURES_LEAF, find(supported, KVM_FEATURES_LEAF, 0).eax & KVM_FEATURES, 0, 0, 0),
  ];
}

/** `host` and `max`: all that KVM can virtualize, with this machine's topology. */
function hostModel(supported: readonly CpuidEntry[], topology: CpuTopology): CpuidEntry[] {
  const { apicId, cpus, irqchip } = topology;
  const entries: CpuidEntry[] = [];
  for (const entry of supported) {
    if (entry.leaf === 0xb || entry.leaf === 0x1f) continue;
    if (entry.leaf === 1) {
      const ebx = (entry.ebx & 0xff00) | (apicId << 24) | (cpus > 1 ? cpus << 16 : 0);
      const timers = irqchip ? TSC_DEADLINE | X2APIC : 0;
      const ecx = (irqchip ? entry.ecx | timers : entry.ecx & ~(TSC_DEADLINE | X2APIC)) | HYPERVISOR;
      entries.push({ ...entry, ebx, ecx, edx: cpus > 1 ? entry.edx | bits(HTT) : entry.edx & ~bits(HTT) });
    } else if (entry.leaf === 4) {
      const cores = entry.eax & 31 ? (ceilingPowerOf2(cpus) - 1) << 26 : 0;
      entries.push({ ...entry, eax: (entry.eax & 0x3fff) | cores });
    } else if (entry.leaf === 0x8000_0008) {
      entries.push({ ...entry, ecx: cpus > 1 ? cpus - 1 : 0 });
    } else {
      entries.push(entry);
    }
  }
  return [...entries, ...topologyLeaves(apicId, cpus)];
}

function find(entries: readonly CpuidEntry[], leafNumber: number, index: number): CpuidEntry {
  const found = entries.find(entry => entry.leaf === leafNumber && entry.index === index);
  return found ?? leaf(leafNumber, 0, 0, 0, 0);
}

function leaf(number: number, eax: number, ebx: number, ecx: number, edx: number): CpuidEntry {
  return { leaf: number, index: 0, flags: 0, eax, ebx, ecx, edx };
}

function indexed(number: number, index: number, eax: number, ebx: number, ecx: number, edx: number): CpuidEntry {
  return { leaf: number, index, flags: INDEXED, eax, ebx, ecx, edx };
}

const ceilingPowerOf2 = (count: number): number => 2 ** Math.ceil(Math.log2(count));

function words(string: string): number[] {
  const bytes = Buffer.from(string, 'latin1');
  return Array.from({ length: bytes.length / 4 }, (_, index) => bytes.readUInt32LE(4 * index));
}

function quad(all: readonly number[], at: number): [number, number, number, number] {
  return [all[at] ?? 0, all[at + 1] ?? 0, all[at + 2] ?? 0, all[at + 3] ?? 0];
}

function text(registers: readonly number[]): string {
  const bytes = Buffer.alloc(4 * registers.length);
  for (const [index, value] of registers.entries()) bytes.writeUInt32LE(value >>> 0, 4 * index);
  return bytes.toString('latin1');
}

/** struct kvm_cpuid2: a count, padding, entries of 40 bytes. */
export function encodeCpuid(entries: readonly CpuidEntry[]): DataView<ArrayBuffer> {
  const table = cpuidTable(entries.length);
  for (const [number, entry] of entries.entries()) {
    const at = HEADER_SIZE + number * ENTRY_SIZE;
    const fields = [entry.leaf, entry.index, entry.flags, entry.eax, entry.ebx, entry.ecx, entry.edx];
    for (const [index, value] of fields.entries()) table.setUint32(at + 4 * index, value >>> 0, true);
  }
  return table;
}

/** An empty struct kvm_cpuid2 with room for `count` entries. */
export function cpuidTable(count: number): DataView<ArrayBuffer> {
  const table = new DataView(new ArrayBuffer(HEADER_SIZE + count * ENTRY_SIZE));
  table.setUint32(0, count, true);
  return table;
}

export function decodeCpuid(table: DataView): CpuidEntry[] {
  return Array.from({ length: table.getUint32(0, true) }, (_, number) => {
    const word = (index: number): number => table.getUint32(HEADER_SIZE + number * ENTRY_SIZE + 4 * index, true);
    return { leaf: word(0), index: word(1), flags: word(2), eax: word(3), ebx: word(4), ecx: word(5), edx: word(6) };
  });
}
