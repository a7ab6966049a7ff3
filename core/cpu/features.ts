/**
 * The features of x86 CPUs by name, and where software finds them: CPUID leaves (Intel SDM volume 2A, CPUID; AMD APM volume 3,
 * appendix E) and feature MSRs (Intel SDM volume 4). Names are those of QEMU's CPU properties.
 */

/** One register full of feature bits. */
export interface FeatureWord {
  /** `7:0.EBX` is EBX of CPUID leaf 7, subleaf 0; `MSR 10A` a model-specific register. */
  readonly key: string;
  readonly cpuid:
    | { readonly leaf: number; readonly subleaf: number | undefined; readonly register: CpuidRegister }
    | undefined;
  /** Feature names by bit; undefined where a bit has none. */
  readonly names: readonly (string | undefined)[];
}

export type CpuidRegister = 'EAX' | 'EBX' | 'ECX' | 'EDX';

/** Names from bit 0 up, eight between bars; a dash is a bit without a name. */
const TABLE: readonly (readonly [key: string, names: string])[] = [
  [
    '1.EDX',
    `fpu vme de pse tsc msr pae mce
     | cx8 apic - sep mtrr pge mca cmov
     | pat pse36 pn clflush - ds acpi mmx
     | fxsr sse sse2 ss ht tm ia64 pbe`,
  ],
  [
    '1.ECX',
    `pni pclmulqdq dtes64 monitor ds-cpl vmx smx est
     | tm2 ssse3 cid - fma cx16 xtpr pdcm
     | - pcid dca sse4.1 sse4.2 x2apic movbe popcnt
     | tsc-deadline aes xsave - avx f16c rdrand hypervisor`,
  ],
  [
    '7:0.EBX',
    `fsgsbase tsc-adjust sgx bmi1 hle avx2 - smep
     | bmi2 erms invpcid rtm - - mpx -
     | avx512f avx512dq rdseed adx smap avx512ifma pcommit clflushopt
     | clwb intel-pt avx512pf avx512er avx512cd sha-ni avx512bw avx512vl`,
  ],
  [
    '7:0.ECX',
    `- avx512vbmi umip pku - waitpkg avx512vbmi2 -
     | gfni vaes vpclmulqdq avx512vnni avx512bitalg - avx512-vpopcntdq -
     | la57 - - - - - rdpid -
     | bus-lock-detect cldemote - movdiri movdir64b - sgxlc pks`,
  ],
  [
    '7:0.EDX',
    `- - avx512-4vnniw avx512-4fmaps fsrm - - -
     | avx512-vp2intersect - md-clear - - - serialize -
     | tsx-ldtrk - - arch-lbr - - amx-bf16 avx512-fp16
     | amx-tile amx-int8 spec-ctrl stibp - arch-capabilities core-capability ssbd`,
  ],
  ['7:1.EAX', '- - - - avx-vnni avx512-bf16'],
  [
    '8000_0001.EDX',
    `- - - - - - - -
     | - - - syscall - - - -
     | - - - - nx - mmxext -
     | - fxsr-opt pdpe1gb rdtscp - lm 3dnowext 3dnow`,
  ],
  [
    '8000_0001.ECX',
    `lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse
     | 3dnowprefetch osvw ibs xop skinit wdt - lwp
     | fma4 tce - nodeid-msr - tbm topoext perfctr-core
     | perfctr-nb`,
  ],
  ['8000_0007.EDX', '- - - - - - - - | invtsc'],
  [
    '8000_0008.EBX',
    `clzero - xsaveerptr - - - - -
     | - wbnoinvd - - ibpb - ibrs amd-stibp
     | - - - - - - - -
     | amd-ssbd virt-ssbd amd-no-ssb`,
  ],
  ['C000_0001.EDX', '- - xstore xstore-en - - xcrypt xcrypt-en | ace2 ace2-en phe phe-en pmm pmm-en'],
  [
    '4000_0001.EAX',
    `kvmclock kvm-nopiodelay kvm-mmu kvmclock kvm-asyncpf kvm-steal-time kvm-pv-eoi kvm-pv-unhalt
     | - kvm-pv-tlb-flush - kvm-pv-ipi kvm-poll-control kvm-pv-sched-yield kvm-asyncpf-int kvm-msi-ext-dest-id
     | - - - - - - - -
     | kvmclock-stable-bit`,
  ],
  ['4000_0001.EDX', 'kvm-hint-dedicated'],
  [
    '8000_000A.EDX',
    `npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists
     | - - pause-filter - pfthreshold avic - v-vmsave-vmload
     | vgif - - - - - - -
     | - - - - svme-addr-chk`,
  ],
  ['D:1.EAX', 'xsaveopt xsavec xgetbv1 xsaves xfd'],
  ['6.EAX', '- - arat'],
  ['D:0.EAX', ''],
  ['D:0.EDX', ''],
  ['MSR 10A', 'rdctl-no ibrs-all rsba skip-l1dfl-vmentry ssb-no mds-no pschange-mc-no tsx-ctrl | taa-no'],
  ['MSR CF', '- - - - - split-lock-detect'],
  ['MSR 345', '- - - - - - - - | - - - - - full-width-write'],
  [
    'MSR 48E',
    `- - vmx-vintr-pending vmx-tsc-offset - - - vmx-hlt-exit
     | - vmx-invlpg-exit vmx-mwait-exit vmx-rdpmc-exit vmx-rdtsc-exit - - vmx-cr3-load-noexit
     | vmx-cr3-store-noexit - - vmx-cr8-load-exit vmx-cr8-store-exit vmx-flexpriority vmx-vnmi-pending vmx-movdr-exit
     | vmx-io-exit vmx-io-bitmap - vmx-mtf vmx-msr-bitmap vmx-monitor-exit vmx-pause-exit vmx-secondary-ctls`,
  ],
  [
    'MSR 48B',
    `vmx-apicv-xapic vmx-ept vmx-desc-exit vmx-rdtscp-exit vmx-apicv-x2apic vmx-vpid vmx-wbinvd-exit vmx-unrestricted-guest
     | vmx-apicv-register vmx-apicv-vid vmx-ple vmx-rdrand-exit vmx-invpcid-exit vmx-vmfunc vmx-shadow-vmcs vmx-encls-exit
     | vmx-rdseed-exit vmx-pml - - vmx-xsaves - - -
     | - vmx-tsc-scaling`,
  ],
  ['MSR 48D', 'vmx-intr-exit - - vmx-nmi-exit - vmx-vnmi vmx-preemption-timer vmx-posted-intr'],
  [
    'MSR 48F',
    `- - vmx-exit-nosave-debugctl - - - - -
     | - - - - vmx-exit-load-perf-global-ctrl - - vmx-exit-ack-intr
     | - - vmx-exit-save-pat vmx-exit-load-pat vmx-exit-save-efer vmx-exit-load-efer vmx-exit-save-preemption-timer vmx-exit-clear-bndcfgs
     | - vmx-exit-clear-rtit-ctl - - - vmx-exit-load-pkrs`,
  ],
  [
    'MSR 490',
    `- - vmx-entry-noload-debugctl - - - - -
     | - vmx-entry-ia32e-mode - - - vmx-entry-load-perf-global-ctrl vmx-entry-load-pat vmx-entry-load-efer
     | vmx-entry-load-bndcfgs - vmx-entry-load-rtit-ctl - - - vmx-entry-load-pkrs`,
  ],
  [
    'MSR 485',
    `- - - - - vmx-store-lma vmx-activity-hlt vmx-activity-shutdown
     | vmx-activity-wait-sipi - - - - - - -
     | - - - - - - - -
     | - - - - - vmx-vmwrite-vmexit-fields vmx-zero-len-inject`,
  ],
  [
    'MSR 48C',
    `vmx-ept-execonly - - - - - vmx-page-walk-4 vmx-page-walk-5
     | - - - - - - - -
     | vmx-ept-2mb vmx-ept-1gb - - vmx-invept vmx-eptad vmx-ept-advanced-exitinfo -
     | - vmx-invept-single-context vmx-invept-all-context - - - - -
     | vmx-invvpid - - - - - - -
     | vmx-invvpid-single-addr vmx-invept-single-context vmx-invvpid-all-context vmx-invept-single-context-noglobals`,
  ],
  [
    'MSR 480',
    `- - - - - - - -
     | - - - - - - - -
     | - - - - - - - -
     | - - - - - - - -
     | - - - - - - - -
     | - - - - - - - -
     | - - - - - - vmx-ins-outs vmx-true-ctls`,
  ],
  ['MSR 491', 'vmx-eptp-switching'],
  ['14:0.ECX', '- - - - - - - - | - - - - - - - - | - - - - - - - - | - - - - - - - intel-pt-lip'],
  ['12:0.EAX', 'sgx1 sgx2'],
  ['12:0.EBX', 'sgx-exinfo'],
  ['12:1.EAX', '- sgx-debug sgx-mode64 - sgx-provisionkey sgx-tokenkey - sgx-kss'],
  ['D:1.ECX', ''],
  ['D:1.EDX', ''],
];

export const FEATURE_WORDS: readonly FeatureWord[] = TABLE.map(([key, names]) => {
  const [, leaf, subleaf, register] = /^([0-9A-F_]+)(?::(\d))?\.(E[ABCD]X)$/.exec(key) ?? [];
  return {
    key,
    cpuid:
      leaf === undefined || register === undefined
        ? undefined
        : {
            leaf: Number.parseInt(leaf.replace('_', ''), 16),
            subleaf: subleaf === undefined ? undefined : Number(subleaf),
            register: register as CpuidRegister,
          },
    names: names === '' ? [] : names.split(/[\s|]+/).map(name => (name === '-' ? undefined : name)),
  };
});

/** Every feature name, in the order of the words. */
export const FEATURES: readonly string[] = [
  ...new Set(FEATURE_WORDS.flatMap(word => word.names.filter(name => name !== undefined))),
];

/** Other spellings that QEMU takes besides underscores for dashes and dots. */
const ALIASES: ReadonlyMap<string, string> = new Map([
  ['sse3', 'pni'],
  ['pclmuldq', 'pclmulqdq'],
  ['sse4-1', 'sse4.1'],
  ['sse4-2', 'sse4.2'],
  ['xd', 'nx'],
  ['ffxsr', 'fxsr-opt'],
  ['i64', 'lm'],
]);

/** Aliases that are properties of their own in the object model: alias and feature. */
export const FEATURE_ALIASES: readonly (readonly [alias: string, feature: string])[] = [
  ...ALIASES,
  ...[
    ...['ds-cpl', 'tsc-adjust', 'fxsr-opt', 'lahf-lm', 'cmp-legacy', 'nodeid-msr', 'perfctr-core', 'perfctr-nb'],
    ...['kvm-nopiodelay', 'kvm-mmu', 'kvm-asyncpf', 'kvm-asyncpf-int', 'kvm-steal-time', 'kvm-pv-eoi', 'kvm-pv-unhalt'],
    ...['kvm-poll-control', 'svm-lock', 'nrip-save', 'tsc-scale', 'vmcb-clean', 'pause-filter'],
  ].map(feature => [feature.replaceAll('-', '_'), feature] as const),
  ['sse4_1', 'sse4.1'],
  ['sse4_2', 'sse4.2'],
];

const KNOWN = new Set(FEATURES);

/** The feature that `name` means in any of its spellings; undefined where it means none. */
export function featureNamed(name: string): string | undefined {
  const dashed = name.replaceAll('_', '-');
  const feature = ALIASES.get(dashed) ?? dashed;
  return KNOWN.has(feature) ? feature : undefined;
}

/** The value of a feature word where exactly `features` are there; words wider than 32 bits are cut to their low half. */
export function wordValue(word: FeatureWord, features: ReadonlySet<string>): number {
  let value = 0;
  for (const [bit, name] of word.names.entries()) {
    if (bit < 32 && name !== undefined && features.has(name)) value |= 1 << bit;
  }
  return value >>> 0;
}

/** The features that are set in `value` of a word. */
export function featuresOf(word: FeatureWord, value: number): string[] {
  return word.names.flatMap((name, bit) =>
    name !== undefined && bit < 32 && ((value >>> bit) & 1) !== 0 ? [name] : [],
  );
}

/** The word of that key. */
export function featureWord(key: string): FeatureWord | undefined {
  return FEATURE_WORDS.find(word => word.key === key);
}
