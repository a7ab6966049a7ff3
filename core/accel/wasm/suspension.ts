import * as abi from './abi.ts';
import type { CoreMemory } from './core-memory.ts';

const FLAG_IF = 0x200;

/** Takes the CPU back from the module: it returns at once from a CPU that is halted with interrupts off. */
export class Suspension {
  /** What it hides. */
  #hidden: { readonly flags: number; readonly halted: number } | undefined;

  impose(memory: CoreMemory): void {
    if (this.#hidden !== undefined) return;
    const flags = memory.word(abi.FLAGS);
    this.#hidden = { flags, halted: memory.byte(abi.HALTED) };
    memory.setWord(abi.FLAGS, flags & ~FLAG_IF);
    memory.setByte(abi.HALTED, 1);
  }

  /** The CPU is as it was. Returns whether it was not. */
  lift(memory: CoreMemory): boolean {
    if (this.#hidden === undefined) return false;
    memory.setWord(abi.FLAGS, (memory.word(abi.FLAGS) & ~FLAG_IF) | (this.#hidden.flags & FLAG_IF));
    memory.setByte(abi.HALTED, this.#hidden.halted);
    this.#hidden = undefined;
    return true;
  }
}
