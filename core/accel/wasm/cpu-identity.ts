import { apicIdWidths } from '../../cpu/topology.ts';
import type { CpuIdentity } from '../accelerator.ts';
import * as abi from './abi.ts';
import type { CoreMemory } from './core-memory.ts';

const EAX = abi.GPR;
const ECX = abi.GPR + 4;
const EDX = abi.GPR + 8;
const EBX = abi.GPR + 12;

const IA32_APIC_BASE = 0x1b;
const APIC_BASE_BSP = 1 << 8;
const HTT = 1 << 28;
const LEVEL_THREAD = 1 << 8;
const LEVEL_CORE = 2 << 8;

/** Where a CPU is among the others: what CPUID says of that. */
export type CpuPosition = Pick<CpuIdentity, 'apicId' | 'topology'>;

/**
 * Makes the module's CPUID (Intel SDM volume 2A) that of one CPU of several. `leaf` and `subleaf` were asked for, and the module's
 * answer is in the registers.
 */
export function positionCpuid(memory: CoreMemory, leaf: number, subleaf: number, position: CpuPosition): void {
  const { apicId, topology } = position;
  const inPackage = topology.dies * topology.cores * topology.threads;
  const widths = apicIdWidths(topology);
  if (leaf === 1) {
    memory.setByte(EBX + 3, apicId);
    if (inPackage > 1) {
      memory.setByte(EBX + 2, inPackage);
      memory.setWord(EDX, memory.word(EDX) | HTT);
    }
  } else if (leaf === 4) {
    // Bits 26 to 31: cores in the package less one; bits 14 to 25: CPUs that share the cache less one.
    const cores = (1 << (widths.core + widths.die)) - 1;
    const threads = (1 << widths.thread) - 1;
    if (memory.word(EAX) !== 0) memory.setWord(EAX, memory.word(EAX) | (cores << 26) | (threads << 14));
  } else if (leaf === 0xb) {
    memory.setWord(EAX, 0);
    memory.setWord(EBX, 0);
    memory.setWord(ECX, subleaf & 0xff);
    memory.setWord(EDX, apicId);
    if (subleaf === 0) {
      memory.setWord(EAX, widths.thread);
      memory.setWord(EBX, topology.threads);
      memory.setWord(ECX, subleaf | LEVEL_THREAD);
    } else if (subleaf === 1) {
      memory.setWord(EAX, widths.thread + widths.core + widths.die);
      memory.setWord(EBX, inPackage);
      memory.setWord(ECX, subleaf | LEVEL_CORE);
    }
  }
}

/**
 * Carries out CPUID or RDMSR for one CPU of several, where the module alone would not know the answer.
 * @param original does what the module does
 */
export function answer(
  question: number,
  memory: CoreMemory,
  original: abi.Core,
  position: CpuPosition,
  first: boolean,
): void {
  const leaf = memory.word(EAX);
  const index = memory.word(ECX);
  if (question === abi.ASK_CPUID) {
    original.instr_0FA2();
    positionCpuid(memory, leaf, index, position);
  } else {
    const privileged = memory.byte(abi.CPL) === 0;
    original.instr_0F32();
    if (privileged && index === IA32_APIC_BASE && first) memory.setWord(EAX, memory.word(EAX) | APIC_BASE_BSP);
  }
}
