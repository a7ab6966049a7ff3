import { Bus, type DeviceHome } from '../device/bus.ts';
import { Device } from '../device/device.ts';
import { type DeviceContext, type DeviceType, deviceType } from '../device/device-type.ts';
import { ObjectNode, type PropertyValue } from '../device/object.ts';
import { type Prop, type PropSet, prop } from '../device/property.ts';
import type { DeviceServices } from '../device/services.ts';
import { SouthbridgeError } from '../errors.ts';
import { FEATURE_ALIASES, FEATURES, featureNamed } from './features.ts';
import { CPU_NAMES, CPU_TYPE_SUFFIX, type CpuModel, type CpuName } from './model.ts';
import { ANY_CPU, type CpuHost, featureWordInfo, type ResolvedCpu, resolveCpu } from './resolve.ts';

const UNSET = 0xffff_ffff;
/** Bits of IA32_PERF_CAPABILITIES that are no LBR format. */
const NO_LBR_FORMAT = 0xffff_ffff_ffff_ffc0n;
const TCG_PHYSICAL_BITS = 40;
const DEFAULT_UCODE_AMD = 0x0100_0065n;
const DEFAULT_UCODE_INTEL = 0x1_0000_0000n;

const off = prop.bool({ default: false });
const on = prop.bool({ default: true });
const as = <T>(type: string, property: Prop<T>): Prop<T> => ({ ...property, type });

/** Hyper-V enlightenments (Microsoft's Hypervisor Top Level Functional Specification), all off by default. */
const HYPERV_FEATURES = [
  ...[
    'relaxed',
    'vapic',
    'time',
    'crash',
    'reset',
    'vpindex',
    'runtime',
    'synic',
    'stimer',
    'frequencies',
    'reenlightenment',
  ],
  ...[
    'tlbflush',
    'evmcs',
    'ipi',
    'stimer-direct',
    'avic',
    'apicv',
    'emsr-bitmap',
    'xmm-input',
    'tlbflush-ext',
    'tlbflush-direct',
  ],
  ...['syndbg', 'passthrough', 'enforce-cpuid'],
];

/** What a CPU takes besides features, with QEMU's names. */
const settings = {
  'apic-id': prop.u32({ default: UNSET }),
  'thread-id': prop.i32({ default: -1 }),
  'core-id': prop.i32({ default: -1 }),
  'die-id': prop.i32({ default: -1 }),
  'socket-id': prop.i32({ default: -1 }),
  'node-id': prop.i32({ default: -1 }),
  vendor: as('string', prop.string()),
  family: as('int', prop.u32()),
  model: as('int', prop.u32()),
  stepping: as('int', prop.u32()),
  'model-id': as('string', prop.string()),
  'tsc-frequency': as('int', prop.u64({ default: 0n })),
  level: prop.u32({ default: UNSET }),
  xlevel: prop.u32({ default: UNSET }),
  xlevel2: prop.u32({ default: UNSET }),
  'level-func7': prop.u32({ default: UNSET }),
  'min-level': prop.u32({ default: 0 }),
  'min-xlevel': prop.u32({ default: 0 }),
  'min-xlevel2': prop.u32({ default: 0 }),
  'full-cpuid-auto-level': on,
  'x-intel-pt-auto-level': on,
  'phys-bits': prop.u32({ default: 0 }),
  'host-phys-bits': off,
  'host-phys-bits-limit': prop.u8({ default: 0 }),
  'fill-mtrr-mask': on,
  'ucode-rev': prop.u64({ default: 0n }),
  pmu: off,
  'lbr-fmt': prop.u64({ default: NO_LBR_FORMAT }),
  check: on,
  enforce: off,
  'x-force-features': off,
  kvm: on,
  migratable: on,
  'cpuid-0xb': on,
  'x-vendor-cpuid-only': on,
  lmce: off,
  'l3-cache': on,
  'legacy-cache': on,
  'kvm-no-smi-migration': off,
  'kvm-pv-enforce-cpuid': off,
  'vmware-cpuid-freq': on,
  'tcg-cpuid': on,
  'x-migrate-smi-count': on,
  'start-powered-off': off,
  'hv-spinlocks': prop.u32({ default: UNSET }),
  'hv-no-nonarch-coresharing': prop.onOffAuto({ default: 'off', help: 'on/off/auto' }),
  'hv-version-id-build': prop.u32({ default: 0x3839 }),
  'hv-version-id-major': prop.u16({ default: 10 }),
  'hv-version-id-minor': prop.u16({ default: 0 }),
  'hv-version-id-spack': prop.u32({ default: 0 }),
  'hv-version-id-sbranch': prop.u8({ default: 0 }),
  'hv-version-id-snumber': prop.u32({ default: 0 }),
  'hv-vendor-id': prop.string(),
  'x-hv-max-vps': prop.i32({ default: -1 }),
  'x-hv-synic-kvm-only': off,
} as const;

/** What can only be read of a CPU. */
export const CPU_VALUES = [
  { name: 'feature-words', type: 'X86CPUFeatureWordInfo' },
  { name: 'filtered-features', type: 'X86CPUFeatureWordInfo' },
  { name: 'unavailable-features', type: 'strList' },
  { name: 'crash-information', type: 'GuestPanicInformation' },
] as const;

const properties: PropSet = {
  ...settings,
  ...Object.fromEntries(HYPERV_FEATURES.map(name => [`hv-${name}`, off])),
  ...Object.fromEntries([...FEATURES, ...FEATURE_ALIASES.map(([alias]) => alias)].map(name => [name, prop.bool()])),
};

/** What CPUs plug into: it knows what the accelerator can do. QEMU's CPUs have no bus, so it is in no listing. */
export class CpuBus extends Bus {
  readonly host: CpuHost;

  constructor(parts: { services: DeviceServices; home: DeviceHome; host: CpuHost }) {
    super('x86-cpu', 'cpu-bus', parts);
    this.host = parts.host;
  }
}

/** One logical processor as management tools see it: what model it is, what it can do and where it sits. */
export class X86Cpu extends Device<typeof settings> {
  readonly model: CpuModel;
  readonly resolved: ResolvedCpu;
  /** CPU number, from 0. */
  index = -1;
  apicId: number;
  nodeId: number;
  readonly #place = { socket: -1, die: -1, core: -1, thread: -1 };

  constructor(context: DeviceContext<typeof settings>) {
    super(context);
    const host = context.bus instanceof CpuBus ? context.bus.host : ANY_CPU;
    this.model = modelOfType(context.type.type);
    this.resolved = this.#resolve(host);
    const { props } = this;
    this.apicId = props['apic-id'];
    this.nodeId = props['node-id'];
    this.#place = {
      socket: props['socket-id'],
      die: props['die-id'],
      core: props['core-id'],
      thread: props['thread-id'],
    };
    this.#defineValues();
    this.addChild('lapic', new ObjectNode('apic'));
  }

  get place(): { readonly socket: number; readonly die: number; readonly core: number; readonly thread: number } {
    return this.#place;
  }

  /** Seats the CPU: from then on its ids are these. */
  seat(index: number, apicId: number, place: X86Cpu['place']): void {
    this.index = index;
    this.apicId = apicId;
    Object.assign(this.#place, place);
  }

  protected override realize(): void {
    if (this.model.needsHost && !(this.bus instanceof CpuBus && this.bus.host.isHostCpu)) {
      throw new SouthbridgeError('ERR_CPU_MODEL', `CPU model '${this.model.name}' requires KVM or HVF`);
    }
    const { enforce } = this.props;
    const host = this.bus instanceof CpuBus && this.bus.host.isHostCpu ? 'Host' : 'TCG';
    if (enforce && this.resolved.filtered.size > 0) {
      throw new SouthbridgeError('ERR_CPU_FEATURE', `${host} doesn't support requested features`);
    }
  }

  /** Bits of a physical address. */
  get physicalBits(): number {
    const { features } = this.resolved;
    if (features.has('lm')) return this.props['phys-bits'] === 0 ? TCG_PHYSICAL_BITS : this.props['phys-bits'];
    return features.has('pse36') ? 36 : 32;
  }

  #resolve(host: CpuHost): ResolvedCpu {
    const { props } = this;
    const given: Readonly<Record<string, unknown>> = props;
    const features = new Map<string, boolean>();
    for (const [alias, feature] of FEATURE_ALIASES)
      if (typeof given[alias] === 'boolean') features.set(feature, given[alias]);
    for (const feature of FEATURES) if (typeof given[feature] === 'boolean') features.set(feature, given[feature]);
    const set = (value: number): number | undefined => (value === UNSET ? undefined : value);
    const atLeast = (value: number): number | undefined => (value === 0 ? undefined : value);
    return resolveCpu(
      {
        model: this.model,
        features,
        vendor: props.vendor,
        family: props.family,
        modelNumber: props.model,
        stepping: props.stepping,
        modelId: props['model-id'],
        level: set(props.level),
        xlevel: set(props.xlevel),
        xlevel2: set(props.xlevel2),
        levelFunc7: set(props['level-func7']),
        minLevel: atLeast(props['min-level']),
        minXlevel: atLeast(props['min-xlevel']),
        minXlevel2: atLeast(props['min-xlevel2']),
        autoLevel: props['full-cpuid-auto-level'],
        migratable: props.migratable,
      },
      host,
    );
  }

  #defineValues(): void {
    const { resolved } = this;
    const define = (name: string, type: string, get: () => PropertyValue): void =>
      this.defineProperty({ name, type, get });
    for (const feature of FEATURES) define(feature, 'bool', () => resolved.features.has(feature));
    for (const [alias, feature] of FEATURE_ALIASES) define(alias, 'bool', () => resolved.features.has(feature));
    define('vendor', 'string', () => resolved.vendor);
    define('family', 'int', () => resolved.family);
    define('model', 'int', () => resolved.model);
    define('stepping', 'int', () => resolved.stepping);
    define('model-id', 'string', () => resolved.modelId);
    define('level', 'uint32', () => resolved.level);
    define('xlevel', 'uint32', () => resolved.xlevel);
    define('xlevel2', 'uint32', () => resolved.xlevel2);
    define('level-func7', 'uint32', () => resolved.levelFunc7);
    define('min-level', 'uint32', () => resolved.minLevel);
    define('min-xlevel', 'uint32', () => resolved.minXlevel);
    define('min-xlevel2', 'uint32', () => resolved.minXlevel2);
    define('phys-bits', 'uint32', () => this.physicalBits);
    define('ucode-rev', 'uint64', () => this.props['ucode-rev'] || this.#defaultMicrocode);
    define('hv-vendor-id', 'str', () => this.props['hv-vendor-id'] ?? 'Microsoft Hv');
    define('apic-id', 'uint32', () => this.apicId);
    define('node-id', 'int32', () => this.nodeId);
    define('socket-id', 'int32', () => this.#place.socket);
    define('die-id', 'int32', () => this.#place.die);
    define('core-id', 'int32', () => this.#place.core);
    define('thread-id', 'int32', () => this.#place.thread);
    define('parent_bus', 'link<bus>', () => '');
    define('feature-words', 'X86CPUFeatureWordInfo', () => featureWordInfo(resolved));
    define('filtered-features', 'X86CPUFeatureWordInfo', () =>
      featureWordInfo({ vendor: '', features: resolved.filtered }),
    );
    define('unavailable-features', 'strList', () => [...resolved.filtered]);
    this.defineProperty({
      name: 'crash-information',
      type: 'GuestPanicInformation',
      get: () => {
        throw new SouthbridgeError('ERR_PROPERTY_READ', 'No crash occurred');
      },
    });
  }

  get #defaultMicrocode(): bigint {
    return this.resolved.vendor === 'AuthenticAMD' ? DEFAULT_UCODE_AMD : DEFAULT_UCODE_INTEL;
  }
}

const types = new Map<string, DeviceType<typeof settings, X86Cpu>>();

/** The device type of a CPU name: `Nehalem` is `Nehalem-x86_64-cpu`. */
export function x86CpuType(cpu: CpuName): DeviceType<typeof settings, X86Cpu> {
  const known = types.get(cpu.name);
  if (known !== undefined) return known;
  const type = deviceType({
    type: cpu.name + CPU_TYPE_SUFFIX,
    summary: cpu.model.description,
    bus: 'x86-cpu',
    category: 'cpu',
    // qemu64 and the others are made by models; `max` is also the parent of `host`.
    parents: [...(cpu.name === 'host' ? [`max${CPU_TYPE_SUFFIX}`] : []), 'x86_64-cpu', 'cpu', 'device'],
    userCreatable: true,
    hotpluggable: true,
    // The features are properties as well; `settings` are those whose values the class reads by name.
    properties: properties as PropSet & typeof settings,
    create: X86Cpu,
  });
  types.set(cpu.name, type);
  return type;
}

/** Every CPU type, for listings. */
export function x86CpuTypes(): DeviceType<typeof settings, X86Cpu>[] {
  return [...CPU_NAMES.values()].map(x86CpuType);
}

function modelOfType(type: string): CpuModel {
  const name = CPU_NAMES.get(type.slice(0, -CPU_TYPE_SUFFIX.length));
  if (name === undefined) throw new SouthbridgeError('ERR_CPU_MODEL', `unable to find CPU model '${type}'`);
  return name.model;
}

/** The property that a spelling of the user's means: underscores and aliases become the feature's name. */
export function cpuPropertyNamed(name: string): string {
  return Object.hasOwn(properties, name) ? name : (featureNamed(name) ?? name);
}
