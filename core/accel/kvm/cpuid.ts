import { featureWord } from '../../cpu/features.ts';
import { type CpuHost, cpuWord, type ResolvedCpu } from '../../cpu/resolve.ts';
import type { CpuIdentity } from '../accelerator.ts';

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

const KVM_LEAF = 0x4000_0000;
const KVM_FEATURES_LEAF = 0x4000_0001;
const VIRTUAL_BITS = 48;
const VIRTUAL_BITS_LA57 = 57;

const bits = (...positions: number[]): number => positions.reduce((mask, position) => mask | (1 << position), 0);

/** Bits that KVM's list leaves to its user, because they depend on the interrupt controllers or on nothing at all. */
const X2APIC = bits(21);
const TSC_DEADLINE = bits(24);
const HYPERVISOR = bits(31);
const ARAT = bits(2);
const HTT = bits(28);
const CMP_LEGACY = bits(1);
/** The bits of 1:EDX that AMD repeats in 8000_0001:EDX (AMD APM volume 3, appendix E). */
const AMD_ALIASES = 0x0183_f3ff;

/** What QEMU switches on and off for guests of KVM whatever their model, unless that is `max`, `host` or `base`. */
const KVM_DEFAULTS: readonly (readonly [feature: string, on: boolean])[] = [
  ...['kvmclock', 'kvm-nopiodelay', 'kvm-asyncpf', 'kvm-steal-time', 'kvm-pv-eoi', 'kvmclock-stable-bit'].map(
    name => [name, true] as const,
  ),
  ...['kvm-msi-ext-dest-id', 'acpi', 'monitor', 'svm'].map(name => [name, false] as const),
];

/** What KVM can virtualize here, as the CPU models ask for it. */
export function cpuHostOf(supported: readonly CpuidEntry[], irqchip: boolean): CpuHost {
  const registers = { EAX: 'eax', EBX: 'ebx', ECX: 'ecx', EDX: 'edx' } as const;
  return {
    isHostCpu: true,
    identity: identityOf(supported),
    defaults: new Map([...KVM_DEFAULTS, ['x2apic', irqchip] as const]),
    supports({ cpuid }, bit) {
      if (cpuid === undefined) return false;
      const { leaf: number, subleaf, register } = cpuid;
      const entry = find(supported, number, subleaf ?? 0);
      let value = entry[registers[register]];
      if (number === 1 && register === 'ECX') {
        value = irqchip ? value | X2APIC | TSC_DEADLINE : value & ~(X2APIC | TSC_DEADLINE);
        value |= HYPERVISOR;
      } else if (number === 6 && register === 'EAX') {
        value |= ARAT;
      } else if (number === 0x8000_0001 && register === 'EDX') {
        value |= find(supported, 1, 0).edx & AMD_ALIASES;
      }
      return ((value >>> bit) & 1) === 1;
    },
  };
}

function identityOf(supported: readonly CpuidEntry[]): NonNullable<CpuHost['identity']> {
  const { ebx, ecx, edx } = find(supported, 0, 0);
  const { eax } = find(supported, 1, 0);
  const family = (eax >>> 8) & 0xf;
  const name = [2, 3, 4].flatMap(index => {
    const part = find(supported, 0x8000_0000 + index, 0);
    return [part.eax, part.ebx, part.ecx, part.edx];
  });
  return {
    vendor: text([ebx, edx, ecx]),
    family: family === 0xf ? family + ((eax >>> 20) & 0xff) : family,
    model: ((eax >>> 4) & 0xf) | ((eax >>> 12) & 0xf0),
    stepping: eax & 0xf,
    modelId: text(name).replace(/\0.*$/s, ''),
  };
}

/** CPUID.1:EAX: family, model and stepping with their extensions. */
export function signatureOf({ family, model, stepping }: Pick<ResolvedCpu, 'family' | 'model' | 'stepping'>): number {
  const familyBits = family > 0xf ? (0xf << 8) | ((family - 0xf) << 20) : family << 8;
  return familyBits | ((model & 0xf) << 4) | ((model >> 4) << 16) | stepping;
}

/**
 * The leaves that a guest finds (Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E). Sizes that belong to the host's
 * own silicon, those of XSAVE components, come from `supported`, what KVM can virtualize here.
 */
export function cpuidOf(identity: CpuIdentity, supported: readonly CpuidEntry[]): CpuidEntry[] {
  const { cpu, apicId, topology, physicalBits } = identity;
  const word = (key: string): number => {
    const found = featureWord(key);
    return found === undefined ? 0 : cpuWord(cpu, found);
  };
  const vendor = words(cpu.vendor.padEnd(12, '\0'));
  const [vendorB = 0, vendorD = 0, vendorC = 0] = vendor;
  const amd = cpu.vendor === 'AuthenticAMD';
  const intel = cpu.vendor === 'GenuineIntel';
  const threads = topology.cores * topology.threads;
  const several = threads > 1;
  const signature = signatureOf(cpu);
  const packageBits = width(topology.threads) + width(topology.cores) + width(topology.dies);
  const lineSize = 8 << 8;
  const modelId = words(cpu.modelId.slice(0, 48).padEnd(48, '\0'));
  const virtualBits = cpu.features.has('la57') ? VIRTUAL_BITS_LA57 : VIRTUAL_BITS;
  const basic: CpuidEntry[] = [
    leaf(0, cpu.level, vendorB, vendorC, vendorD),
    leaf(
      1,
      signature,
      (apicId << 24) | (several ? threads << 16 : 0) | lineSize,
      word('1.ECX'),
      word('1.EDX') | (several ? HTT : 0),
    ),
    ...(amd ? [] : [leaf(2, 1, 0, 0x4d, 0x2c_307d), ...deterministicCaches(topology)]),
    leaf(5, 0, 0, 3, 0),
    leaf(6, word('6.EAX'), 0, 0, 0),
    indexed(7, 0, cpu.levelFunc7, word('7:0.EBX'), word('7:0.ECX'), word('7:0.EDX')),
    ...(cpu.levelFunc7 > 0 ? [indexed(7, 1, word('7:1.EAX'), 0, 0, 0)] : []),
    ...(identity.hostPmu ? [find(supported, 0xa, 0)] : []),
    indexed(0xb, 0, width(topology.threads), topology.threads, 0x100, apicId),
    indexed(0xb, 1, packageBits, threads, 0x201, apicId),
    indexed(0xb, 2, 0, 0, 2, apicId),
    ...extendedState(word('D:0.EAX'), word('D:0.EDX'), word('D:1.EAX'), supported),
    ...(cpu.features.has('amx-tile') ? supported.filter(entry => entry.leaf === 0x1d || entry.leaf === 0x1e) : []),
  ].filter(entry => entry.leaf <= cpu.level);
  const l1 = 0x4002_0140;
  const l1Tlb = 0x01ff_01ff;
  const extended: CpuidEntry[] = [
    leaf(0x8000_0000, cpu.xlevel, vendorB, vendorC, vendorD),
    leaf(
      0x8000_0001,
      signature,
      0,
      word('8000_0001.ECX') | (several && !intel ? CMP_LEGACY : 0),
      word('8000_0001.EDX'),
    ),
    ...[2, 3, 4].map(index => leaf(0x8000_0000 + index, ...quad(modelId, 4 * (index - 2)))),
    leaf(0x8000_0005, l1Tlb, l1Tlb, l1, l1),
    leaf(0x8000_0006, 0, 0x4200_4200, 0x0200_8140, 0x0080_8140),
    leaf(0x8000_0007, 0, 0, 0, word('8000_0007.EDX')),
    leaf(
      0x8000_0008,
      cpu.features.has('lm') ? physicalBits | (virtualBits << 8) : physicalBits,
      word('8000_0008.EBX'),
      several ? (packageBits << 12) | (threads - 1) : 0,
      0,
    ),
    ...(cpu.features.has('svm') ? [leaf(0x8000_000a, 1, 0x10, 0, word('8000_000A.EDX'))] : []),
  ].filter(entry => entry.leaf <= cpu.xlevel);
  return [...basic, ...extended, ...hypervisorLeaves(word('4000_0001.EAX'), word('4000_0001.EDX'), supported)];
}

/** CPUID.4 as QEMU's models have it: 32 KiB L1s, 4 MiB L2, 16 MiB L3, lines of 64 bytes. */
function deterministicCaches({ dies, cores }: CpuIdentity['topology']): CpuidEntry[] {
  const inPackage = (ceilingPowerOf2(cores) - 1) << 26;
  const sharedBy = (ceilingPowerOf2(dies * cores) - 1) << 14;
  const ways = (count: number): number => ((count - 1) << 22) | 63;
  return [
    indexed(4, 0, 0x121 | inPackage, ways(8), 63, 1),
    indexed(4, 1, 0x122 | inPackage, ways(8), 63, 1),
    indexed(4, 2, 0x143 | inPackage, ways(16), 4095, 1),
    indexed(4, 3, 0x163 | inPackage | sharedBy, ways(16), 16383, 6),
    indexed(4, 4, 0, 0, 0, 0),
  ];
}

/** CPUID.0D: which state XSAVE keeps and where (Intel SDM volume 1, section 13.2). KVM keeps EBX up to date with XCR0. */
function extendedState(low: number, high: number, features: number, supported: readonly CpuidEntry[]): CpuidEntry[] {
  if (low === 0) return [indexed(0xd, 0, 0, 0, 0, 0)];
  const components = supported.filter(
    entry => entry.leaf === 0xd && entry.index > 1 && ((low >>> entry.index) & 1) === 1,
  );
  const legacySize = 576;
  const size = components.reduce((end, { eax, ebx }) => Math.max(end, eax + ebx), legacySize);
  return [indexed(0xd, 0, low, size, size, high), indexed(0xd, 1, features, 0, 0, 0), ...components];
}

function hypervisorLeaves(eax: number, edx: number, supported: readonly CpuidEntry[]): CpuidEntry[] {
  const signature = find(supported, KVM_LEAF, 0);
  if (signature.ebx === 0) return [];
  return [
    leaf(KVM_LEAF, KVM_FEATURES_LEAF, signature.ebx, signature.ecx, signature.edx),
    leaf(KVM_FEATURES_LEAF, eax, 0, 0, edx),
  ];
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

const width = (count: number): number => Math.ceil(Math.log2(count));
const ceilingPowerOf2 = (count: number): number => 2 ** width(count);

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
