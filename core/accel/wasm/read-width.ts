import * as abi from './abi.ts';
import type { CoreMemory } from './core-memory.ts';
import { MAX_LENGTH, measure } from './instruction-length.ts';

const PAGE = 4096;
/** MOVZX and MOVSX from 16 bits; MOV to a segment register. */
const ALWAYS_WORD = new Set([0x0fb7, 0x0fbf, 0x8e]);
/** Bit 0 of an opcode is its operand's width, in those that have bytes at all (Intel SDM volume 2, appendix B.1.4.3). */
const HAS_WIDTH = /^(?:[0-3][0-389ab]|8[0-9ab]|a[0-7abc-f]|c[01]|d[0-3]|f[67ef])$/;

/**
 * The module reads 16 bits outside RAM as two bytes, which a register of 16 bits would answer wrongly. What the guest meant
 * is told by the function that compiled code calls, or else by the instruction that is being interpreted.
 */
export class ReadWidth {
  readonly #memory: CoreMemory;
  readonly #ramBase: () => number;
  /** Bytes that compiled code is reading; 0 where it is not compiled code that reads. */
  #compiled = 0;
  readonly #code = new Uint8Array(MAX_LENGTH + 1);

  constructor(memory: CoreMemory, ramBase: () => number) {
    this.#memory = memory;
    this.#ramBase = ramBase;
  }

  /** Puts itself between compiled code and the module's functions for reading. */
  watch(instance: abi.Instance): void {
    const { core, forCompiledCode } = instance;
    for (const [name, width] of abi.JIT_READS) {
      const read = core[name];
      forCompiledCode[name] = (a = 0, b = 0, c = 0) => {
        this.#compiled = width;
        const result = read(a, b, c);
        this.#compiled = 0;
        return result;
      };
    }
  }

  /** Whether the byte that is being read is the first of two. */
  get isWord(): boolean {
    return this.#compiled === 0 ? this.#interpretingWord() : this.#compiled === 2;
  }

  #interpretingWord(): boolean {
    const memory = this.#memory;
    const ip = memory.word(abi.PREVIOUS_IP);
    if ((ip & -PAGE) !== memory.word(abi.CODE_PAGE)) return false;
    const at = this.#ramBase() + (memory.word(abi.CODE_DISTANCE) ^ ip);
    const length = Math.min(MAX_LENGTH, PAGE - (ip & (PAGE - 1)));
    const { bytes } = memory;
    for (let index = 0; index < length; index++) this.#code[index] = bytes[at + index] ?? 0;
    const { opcode, operand32 } = measure(this.#code, memory.byte(abi.CODE_32) !== 0);
    if (ALWAYS_WORD.has(opcode)) return true;
    return !operand32 && (opcode & 1) !== 0 && HAS_WIDTH.test(opcode.toString(16).padStart(2, '0'));
  }
}
