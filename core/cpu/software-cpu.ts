import type { CpuHost } from './resolve.ts';

/**
 * What management programs find that CPU models may have on a software CPU: what QEMU 7.2 emulates without KVM, so that CPU
 * definitions made for one hold for the other. The guest itself asks the software CPU, which answers CPUID by what it is.
 */
const FEATURES = new Set(
  [
    'fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush acpi mmx fxsr sse sse2 ss',
    'pni pclmulqdq monitor ssse3 fma cx16 sse4.1 sse4.2 movbe popcnt aes xsave avx f16c rdrand hypervisor',
    'fsgsbase bmi1 avx2 smep bmi2 erms mpx adx smap pcommit clflushopt clwb',
    'umip pku vaes la57 pks',
    'syscall nx mmxext pdpe1gb rdtscp lm 3dnowext 3dnow',
    'lahf-lm svm cr8legacy abm sse4a',
    'npt vgif svme-addr-chk',
    'xsaveopt xgetbv1 arat',
  ].flatMap(word => word.split(' ')),
);

export const SOFTWARE_CPU: CpuHost = {
  isHostCpu: false,
  defaults: new Map([['vme', false]]),
  supports: (word, bit) => FEATURES.has(word.names[bit] ?? ''),
};
