import * as abi from './abi.ts';
import type { CoreMemory } from './core-memory.ts';
import type { WasmCpu } from './cpu.ts';
import type { GuestMemory } from './guest-memory.ts';

const INT3 = 0xcc;
const HLT = 0xf4;
const BREAKPOINT_VECTOR = 3;
const FLAG_VM = 1 << 17;
const GATE_32 = 8;
const DESCRIPTOR_SIZE = 8;
const SELECTOR_LDT = 4;
const DESCRIPTOR_DB = 1 << 22;
const DESCRIPTOR_G = 1 << 23;

type Translate = (linear: number) => number | undefined;

interface Patch {
  readonly gpa: number;
  readonly original: number;
}

interface Gate {
  /** Linear. */
  readonly handler: number;
  readonly wide: boolean;
}

/**
 * Breakpoints at full speed. The module takes an `int3` to the guest's handler without telling anybody, so while the guest
 * runs, that handler begins with a HLT, which it does tell. The trap is then undone: what `int3` pushed is popped.
 */
export class Breakpoints {
  readonly #memory: CoreMemory;
  readonly #cpu: WasmCpu;
  readonly #ram: GuestMemory;
  readonly #translate: Translate;
  #patches: Patch[] = [];
  #gate: Gate | undefined;

  constructor(memory: CoreMemory, cpu: WasmCpu, ram: GuestMemory, translate: Translate) {
    this.#memory = memory;
    this.#cpu = cpu;
    this.#ram = ram;
    this.#translate = translate;
  }

  get armed(): boolean {
    return this.#patches.length > 0;
  }

  /** Sets `int3` at these linear addresses, as far as there is RAM there now, and waits for it at its handler. */
  arm(addresses: readonly number[]): void {
    this.disarm();
    for (const address of addresses) this.#patch(address, INT3);
    this.#gate = this.#findGate();
    if (this.#gate !== undefined) this.#patch(this.#gate.handler, HLT);
  }

  /** Puts guest memory back as it was. */
  disarm(): void {
    for (const { gpa, original } of this.#patches.reverse()) this.#store(gpa, original);
    this.#patches = [];
    this.#gate = undefined;
  }

  /** Whether the guest has another handler by now than the one that is patched. */
  get moved(): boolean {
    return this.#findGate()?.handler !== this.#gate?.handler;
  }

  /** Whether the CPU is in the handler's first instruction. */
  get hit(): boolean {
    const ip = this.#memory.word(abi.INSTRUCTION_POINTER) >>> 0;
    return this.#gate !== undefined && ip === (this.#gate.handler + 1) >>> 0;
  }

  /** Undoes the trap. Returns the linear address of the `int3`, or undefined where it came from virtual-8086 mode. */
  unwind(): number | undefined {
    const memory = this.#memory;
    const width = this.#gate?.wide === true ? 4 : 2;
    const stack32 = memory.byte(abi.STACK_32) !== 0;
    const stackBase = memory.word(abi.SEGMENT_BASE + 4 * abi.SS);
    let stack = memory.word(abi.GPR + 16);
    const pop = (): number => {
      const at = this.#translate((stackBase + (stack32 ? stack : stack & 0xffff)) >>> 0) ?? 0;
      stack += width;
      return width === 4 ? memory.view.getInt32(this.#ram.base + at, true) : memory.half(this.#ram.base + at);
    };
    const ip = pop();
    const selector = pop() & 0xffff;
    const popped = pop();
    const flags = width === 4 ? popped : (memory.word(abi.FLAGS) & ~0xffff) | popped;
    if ((flags & FLAG_VM) !== 0) return undefined;
    const protectedMode = memory.byte(abi.PROTECTED_MODE) !== 0;
    const outer = protectedMode && (selector & 3) > memory.byte(abi.CPL);
    if (outer) {
      const outerStack = pop();
      this.#loadSegment(abi.SS, pop() & 0xffff);
      memory.setWord(abi.GPR + 16, outerStack);
      memory.setByte(abi.CPL, selector & 3);
    } else {
      memory.setWord(abi.GPR + 16, stack32 ? stack : (memory.word(abi.GPR + 16) & ~0xffff) | (stack & 0xffff));
    }
    this.#loadSegment(abi.CS, selector);
    memory.setWord(abi.FLAGS, flags);
    memory.setWord(abi.FLAGS_CHANGED, 0);
    memory.setByte(abi.HALTED, 0);
    const address = (memory.word(abi.SEGMENT_BASE + 4 * abi.CS) + ip - 1) >>> 0;
    memory.setWord(abi.INSTRUCTION_POINTER, address);
    memory.setWord(abi.PREVIOUS_IP, address);
    this.#cpu.forgetTranslations();
    return address;
  }

  /** The handler of vector 3 (Intel SDM volume 3, sections 6.11 and 20.1.4). */
  #findGate(): Gate | undefined {
    const memory = this.#memory;
    const table = memory.word(abi.IDTR_BASE) >>> 0;
    if (memory.byte(abi.PROTECTED_MODE) === 0) {
      const vector = this.#word((table + 4 * BREAKPOINT_VECTOR) >>> 0);
      return vector === undefined ? undefined : { handler: ((vector >>> 16) << 4) + (vector & 0xffff), wide: false };
    }
    const low = this.#word((table + DESCRIPTOR_SIZE * BREAKPOINT_VECTOR) >>> 0);
    const high = this.#word((table + DESCRIPTOR_SIZE * BREAKPOINT_VECTOR + 4) >>> 0);
    if (low === undefined || high === undefined || (high & 0x8000) === 0) return undefined;
    const wide = ((high >> 8) & GATE_32) !== 0;
    const offset = (wide ? high & ~0xffff : 0) | (low & 0xffff);
    const code = this.#descriptor(low >>> 16);
    return code === undefined ? undefined : { handler: (code.base + offset) >>> 0, wide };
  }

  #descriptor(selector: number): { base: number; limit: number; access: number; big: boolean } | undefined {
    const memory = this.#memory;
    const local = (selector & SELECTOR_LDT) !== 0;
    const table = local ? memory.word(abi.SEGMENT_BASE + 4 * abi.LDTR) : memory.word(abi.GDTR_BASE);
    const low = this.#word((table + (selector & ~7)) >>> 0);
    const high = this.#word((table + (selector & ~7) + 4) >>> 0);
    if (low === undefined || high === undefined) return undefined;
    const limit = (low & 0xffff) | (high & 0xf_0000);
    return {
      base: (low >>> 16) | ((high & 0xff) << 16) | (high & 0xff00_0000),
      limit: (high & DESCRIPTOR_G) !== 0 ? (limit << 12) | 0xfff : limit,
      access: (high >> 8) & 0xff,
      big: (high & DESCRIPTOR_DB) !== 0,
    };
  }

  #loadSegment(index: number, selector: number): void {
    const memory = this.#memory;
    memory.setHalf(abi.SELECTORS + 2 * index, selector);
    if (memory.byte(abi.PROTECTED_MODE) === 0) {
      memory.setWord(abi.SEGMENT_BASE + 4 * index, selector << 4);
      return;
    }
    const descriptor = this.#descriptor(selector);
    if (descriptor === undefined) return;
    memory.setWord(abi.SEGMENT_BASE + 4 * index, descriptor.base);
    memory.setWord(abi.SEGMENT_LIMIT + 4 * index, descriptor.limit);
    memory.setByte(abi.SEGMENT_ACCESS + index, descriptor.access);
    memory.setByte(abi.SEGMENT_IS_NULL + index, 0);
    memory.setByte(index === abi.CS ? abi.CODE_32 : abi.STACK_32, descriptor.big ? 1 : 0);
  }

  #word(linear: number): number | undefined {
    const at = this.#translate(linear);
    return at === undefined || at + 4 > this.#ram.size
      ? undefined
      : this.#memory.view.getInt32(this.#ram.base + at, true);
  }

  #patch(linear: number, opcode: number): void {
    const gpa = this.#translate(linear);
    if (gpa === undefined || gpa >= this.#ram.size) return;
    const original = this.#ram.byteAt(gpa) ?? 0;
    this.#patches.push({ gpa, original });
    this.#store(gpa, opcode);
  }

  #store(gpa: number, value: number): void {
    this.#memory.setByte(this.#ram.base + gpa, value);
    this.#ram.dirty(gpa, 1);
  }
}
