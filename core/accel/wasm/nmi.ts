import * as abi from './abi.ts';
import type { CoreMemory } from './core-memory.ts';
import type { GuestMemory } from './guest-memory.ts';
import type { InterruptChips } from './interrupt-chips.ts';

const FLAG_IF = 0x200;
const NMI_VECTOR = 2;
/** What an interrupt pushes through a 16-bit gate, without and with a change of stack: 3 words or 5. */
const NARROW_FRAMES = [6, 10];

/**
 * Delivers a non-maskable interrupt (Intel SDM volume 3, section 6.7) between two instructions. The module has none: its 8259A
 * is made to answer with vector 2, interrupts are let in, and the guest's own IF goes into the frame.
 */
export function deliverNmi(
  core: abi.Core,
  memory: CoreMemory,
  chips: InterruptChips,
  ram: GuestMemory,
  translate: (linear: number) => number | undefined,
): void {
  const flags = memory.word(abi.FLAGS);
  const stackBefore = memory.word(abi.GPR + 16);
  memory.setWord(abi.FLAGS, flags | FLAG_IF);
  chips.asVector(NMI_VECTOR, () => core.handle_irqs());
  if ((flags & FLAG_IF) !== 0) return;
  const stack = memory.word(abi.GPR + 16);
  const mask = memory.byte(abi.STACK_32) !== 0 ? -1 : 0xffff;
  const width = NARROW_FRAMES.includes((stackBefore - stack) & mask) ? 2 : 4;
  const linear = memory.word(abi.SEGMENT_BASE + 4 * abi.SS) + ((stack + 2 * width) & mask);
  const at = translate(linear >>> 0);
  if (at === undefined || at + 4 > ram.size) return;
  memory.setByte(ram.base + at + 1, memory.byte(ram.base + at + 1) & ~(FLAG_IF >> 8));
}
