import { FEATURE_WORDS, type FeatureWord, featureWord, wordValue } from './features.ts';
import type { CpuModel } from './model.ts';

/** What the user asked for on top of a model. Undefined: as the model and its features have it. */
export interface CpuSettings {
  readonly model: CpuModel;
  /** Features by canonical name: on or off. */
  readonly features: ReadonlyMap<string, boolean>;
  readonly vendor?: string | undefined;
  readonly family?: number | undefined;
  readonly modelNumber?: number | undefined;
  readonly stepping?: number | undefined;
  readonly modelId?: string | undefined;
  readonly level?: number | undefined;
  readonly xlevel?: number | undefined;
  readonly xlevel2?: number | undefined;
  readonly levelFunc7?: number | undefined;
  readonly minLevel?: number | undefined;
  readonly minXlevel?: number | undefined;
  readonly minXlevel2?: number | undefined;
  /** Whether features raise the levels (`full-cpuid-auto-level`). Default: true. */
  readonly autoLevel?: boolean;
  /** For `max` and `host`: only what can be migrated. Default: true. */
  readonly migratable?: boolean;
}

/** What the accelerator can do. */
export interface CpuHost {
  /** Whether a bit of a feature word may be set. */
  supports(word: FeatureWord, bit: number): boolean;
  /** True where the host's CPU runs the guest: KVM. */
  readonly isHostCpu: boolean;
  /** Who the host's CPU is: `host` and `max` are the same, and every model has its vendor. */
  readonly identity?: Pick<ResolvedCpu, 'vendor' | 'family' | 'model' | 'stepping' | 'modelId'>;
  /** What the accelerator switches on or off for all models but `host`, `max` and `base`. */
  readonly defaults?: ReadonlyMap<string, boolean>;
}

/** No CPU at all: everything may be claimed. */
export const ANY_CPU: CpuHost = { supports: () => true, isHostCpu: false };

/** A CPU with all decisions taken. */
export interface ResolvedCpu {
  readonly vendor: string;
  readonly family: number;
  readonly model: number;
  readonly stepping: number;
  readonly modelId: string;
  readonly level: number;
  readonly xlevel: number;
  readonly xlevel2: number;
  readonly levelFunc7: number;
  readonly minLevel: number;
  readonly minXlevel: number;
  readonly minXlevel2: number;
  readonly features: ReadonlySet<string>;
  /** Asked for, but not possible here. */
  readonly filtered: ReadonlySet<string>;
}

/** Features that go with another: without the first, the rest goes (Intel SDM volume 3, appendix A; volume 2A, CPUID). */
const DEPENDENTS: readonly (readonly [feature: string, dependents: readonly string[]])[] = [
  ['arch-capabilities', namesIn('MSR 10A')],
  ['core-capability', namesIn('MSR CF')],
  ['pdcm', namesIn('MSR 345')],
  ['vmx', ['MSR 48E', 'MSR 48D', 'MSR 48F', 'MSR 490', 'MSR 485', 'MSR 480'].flatMap(key => namesIn(key))],
  ['lm', ['vmx-entry-ia32e-mode']],
  ['vmx-secondary-ctls', namesIn('MSR 48B')],
  ['xsaves', ['vmx-xsaves']],
  ['rdrand', ['vmx-rdrand-exit']],
  ['invpcid', ['vmx-invpcid-exit']],
  ['mpx', ['vmx-exit-clear-bndcfgs', 'vmx-entry-load-bndcfgs']],
  ['rdseed', ['vmx-rdseed-exit']],
  ['intel-pt', namesIn('14:0.ECX')],
  ['rdtscp', ['vmx-rdtscp-exit']],
  ['vmx-ept', [...namesIn('MSR 48C', 0, 32), 'vmx-unrestricted-guest']],
  ['vmx-vpid', namesIn('MSR 48C', 32, 64)],
  ['vmx-vmfunc', namesIn('MSR 491')],
  ['svm', namesIn('8000_000A.EDX')],
];

/** Leaves that raise the levels; leaf 7's EBX does so even on machines older than the rule. */
const LEVEL_WORDS = [
  ...['1.EDX', '1.ECX', '6.EAX', '7:0.ECX', '7:1.EAX', '8000_0001.EDX', '8000_0001.ECX', '8000_0007.EDX'],
  ...['8000_0008.EBX', 'C000_0001.EDX', '8000_000A.EDX', 'D:1.EAX'],
];

/** What `max` does not switch on by itself: it needs a topology to match, or an owner's consent. */
const NEVER_AUTOMATIC = new Set(['topoext', ...namesIn('4000_0001.EDX')]);
const NOT_MIGRATABLE = new Set(['invtsc']);

function namesIn(key: string, from = 0, to = 64): string[] {
  return (
    featureWord(key)
      ?.names.slice(from, to)
      .filter(name => name !== undefined) ?? []
  );
}

/** The model with the user's wishes, what follows from them, and what the host allows. */
export function resolveCpu(settings: CpuSettings, host: CpuHost): ResolvedCpu {
  const { model } = settings;
  const features = new Set(model.features);
  if (model.name !== 'base' && !model.everything) features.add('hypervisor');
  if (model.name !== 'base' && !model.everything) {
    for (const [name, on] of host.defaults ?? []) {
      if (on) features.add(name);
      else features.delete(name);
    }
  }
  if (model.everything) addEverything(features, host, settings.migratable ?? true);
  for (const [name, on] of settings.features) {
    if (on) features.add(name);
    else features.delete(name);
  }
  const filtered = new Set<string>();
  for (const [feature, dependents] of DEPENDENTS) {
    if (features.has(feature)) continue;
    for (const name of dependents) {
      if (features.delete(name) && settings.features.get(name) === true) filtered.add(name);
    }
  }
  if (!host.isHostCpu) for (const name of namesIn('4000_0001.EAX')) features.delete(name);
  const levels = raiseLevels(settings, features);
  filter(features, filtered, host);
  const identity = model.everything ? { ...model, ...host.identity } : model;
  return {
    vendor: settings.vendor ?? host.identity?.vendor ?? model.vendor,
    family: settings.family ?? identity.family,
    model: settings.modelNumber ?? identity.model,
    stepping: settings.stepping ?? identity.stepping,
    modelId: settings.modelId ?? identity.modelId,
    ...levels,
    features,
    filtered,
  };
}

function addEverything(features: Set<string>, host: CpuHost, migratable: boolean): void {
  for (const word of FEATURE_WORDS) {
    for (const [bit, name] of word.names.entries()) {
      if (name === undefined || NEVER_AUTOMATIC.has(name) || !host.supports(word, bit)) continue;
      if (!(host.isHostCpu && migratable && NOT_MIGRATABLE.has(name))) features.add(name);
    }
  }
}

function filter(features: Set<string>, filtered: Set<string>, host: CpuHost): void {
  for (const word of FEATURE_WORDS) {
    for (const [bit, name] of word.names.entries()) {
      if (name !== undefined && features.has(name) && !host.supports(word, bit)) {
        features.delete(name);
        filtered.add(name);
      }
    }
  }
}

type Levels = Pick<
  ResolvedCpu,
  'level' | 'xlevel' | 'xlevel2' | 'levelFunc7' | 'minLevel' | 'minXlevel' | 'minXlevel2'
>;

function raiseLevels(settings: CpuSettings, features: ReadonlySet<string>): Levels {
  const { model, autoLevel = true } = settings;
  let minLevel = settings.minLevel ?? model.level;
  let minXlevel = settings.minXlevel ?? model.xlevel;
  let minXlevel2 = settings.minXlevel2 ?? 0;
  let minFunc7 = 0;
  for (const key of autoLevel ? ['7:0.EBX', ...LEVEL_WORDS] : ['7:0.EBX']) {
    const word = featureWord(key);
    if (word?.cpuid === undefined || wordValue(word, features) === 0) continue;
    const { leaf, subleaf } = word.cpuid;
    if (leaf >= 0xc000_0000) minXlevel2 = Math.max(minXlevel2, leaf);
    else if (leaf >= 0x8000_0000) minXlevel = Math.max(minXlevel, leaf);
    else minLevel = Math.max(minLevel, leaf);
    if (leaf === 7) minFunc7 = Math.max(minFunc7, subleaf ?? 0);
  }
  if (autoLevel) {
    if (features.has('intel-pt')) minLevel = Math.max(minLevel, 0x14);
    if (features.has('sgx')) minLevel = Math.max(minLevel, 0x12);
    if (features.has('svm')) minXlevel = Math.max(minXlevel, 0x8000_000a);
  }
  return {
    ...{ minLevel, minXlevel, minXlevel2 },
    level: settings.level ?? minLevel,
    xlevel: settings.xlevel ?? minXlevel,
    xlevel2: settings.xlevel2 ?? minXlevel2,
    levelFunc7: settings.levelFunc7 ?? minFunc7,
  };
}

/** State components of XSAVE by bit, and the feature that each belongs to (Intel SDM volume 1, section 13.1). */
const XSAVE_COMPONENTS: readonly (readonly [bit: number, feature: string])[] = [
  ...([
    [0, 'xsave'],
    [1, 'xsave'],
    [2, 'avx'],
    [3, 'mpx'],
    [4, 'mpx'],
    [5, 'avx512f'],
    [6, 'avx512f'],
  ] as const),
  ...([
    [7, 'avx512f'],
    [9, 'pku'],
    [15, 'arch-lbr'],
    [17, 'amx-tile'],
    [18, 'amx-tile'],
  ] as const),
];
/** Components of the IA32_XSS MSR: supervisor state. */
const SUPERVISOR_COMPONENTS = 1 << 15;
/** The bits of 1.EDX that AMD repeats in 8000_0001.EDX (AMD APM volume 3, appendix E). */
const AMD_ALIASES = 0x0183_f3ff;

/** The value that software finds in a feature word of `cpu`. */
export function cpuWord(cpu: Pick<ResolvedCpu, 'features' | 'vendor'>, word: FeatureWord): number {
  const value = wordValue(word, cpu.features);
  if (word.key === 'D:0.EAX') return xsaveMask(cpu.features) & ~SUPERVISOR_COMPONENTS;
  if (word.key === 'D:1.ECX') return xsaveMask(cpu.features) & SUPERVISOR_COMPONENTS;
  if (word.key === '8000_0001.EDX' && cpu.vendor === 'AuthenticAMD') {
    const basic = featureWord('1.EDX');
    return ((value & ~AMD_ALIASES) | (basic === undefined ? 0 : wordValue(basic, cpu.features) & AMD_ALIASES)) >>> 0;
  }
  return value;
}

function xsaveMask(features: ReadonlySet<string>): number {
  if (!features.has('xsave')) return 0;
  return XSAVE_COMPONENTS.reduce((mask, [bit, feature]) => (features.has(feature) ? mask | (1 << bit) : mask), 0);
}

/** QEMU's X86CPUFeatureWordInfo list (QAPI), in its order: the last word first. */
export function featureWordInfo(
  cpu: Pick<ResolvedCpu, 'features' | 'vendor'>,
): { 'cpuid-input-eax': number; 'cpuid-input-ecx'?: number; 'cpuid-register': string; features: number }[] {
  return FEATURE_WORDS.flatMap(word => {
    if (word.cpuid === undefined) return [];
    const { leaf, subleaf, register } = word.cpuid;
    return [
      {
        'cpuid-register': register,
        ...(subleaf !== undefined && { 'cpuid-input-ecx': subleaf }),
        'cpuid-input-eax': leaf,
        features: cpuWord(cpu, word),
      },
    ];
  }).reverse();
}
