import * as abi from './abi.ts';
import type { CoreMemory } from './core-memory.ts';
import type { WasmCpu } from './cpu.ts';
import type { GuestMemory } from './guest-memory.ts';

const INT3 = 0xcc;
const HLT = 0xf4;
const BREAKPOINT_VECTOR = 3;
const FLAG_VM = 1 << 17;
const CR0_PG = 1 << 31;
const GATE_32 = 8;
const DESCRIPTOR_SIZE = 8;
const SELECTOR_LDT = 4;
const DESCRIPTOR_DB = 1 << 22;
const DESCRIPTOR_G = 1 << 23;

type Translate = (linear: number) => number | undefined;

interface Patch {
  readonly linear: number;
  readonly gpa: number;
  readonly original: number;
  readonly opcode: number;
}

interface Gate {
  /** Linear. */
  readonly handler: number;
  readonly wide: boolean;
}

/**
 * Breakpoints at full speed. A HLT is what the module tells of, so one stands at a breakpoint: as long as all code is in ring 0,
 * which it is before there is paging. Then it is an `int3`, which the module takes to the guest's handler without telling anybody,
 * and that handler begins with a HLT. The trap is then undone: what `int3` pushed is popped.
 */
export class Breakpoints {
  readonly #memory: CoreMemory;
  readonly #cpu: WasmCpu;
  readonly #ram: GuestMemory;
  readonly #translate: Translate;
  #patches: Patch[] = [];
  #addresses: readonly number[] = [];
  #gate: Gate | undefined;

  constructor(memory: CoreMemory, cpu: WasmCpu, ram: GuestMemory, translate: Translate) {
    this.#memory = memory;
    this.#cpu = cpu;
    this.#ram = ram;
    this.#translate = translate;
  }

  /** Sets traps at these linear addresses, as far as there is RAM there now, and waits for them. */
  arm(addresses: readonly number[]): void {
    this.disarm();
    this.#addresses = addresses;
    this.#gate = this.#findGate();
    for (const address of addresses) this.#patch(address, this.#gate !== undefined && this.#paging ? INT3 : HLT);
    // Debuggers write `int3` of their own, too.
    if (this.#gate !== undefined) this.#patch(this.#gate.handler, HLT);
  }

  /** Puts guest memory back as it was; what the guest has overwritten meanwhile stays. */
  disarm(): void {
    for (const { gpa, original, opcode } of this.#patches.reverse())
      if (this.#ram.byteAt(gpa) === opcode) this.#store(gpa, original);
    this.#patches = [];
    this.#gate = undefined;
  }

  /** Whether the guest has another handler by now. */
  get moved(): boolean {
    return this.#findGate()?.handler !== this.#gate?.handler;
  }

  /** Whether there is other code by now, or none, where the traps were set. */
  get overwritten(): boolean {
    return this.#addresses.some(linear => !this.#holds(linear));
  }

  /** Whether the CPU has halted because of a trap. */
  get hit(): boolean {
    return this.#patches.some(({ linear, opcode }) => opcode === HLT && linear === this.#haltedAt);
  }

  /**
   * Undoes the trap. Returns the linear address of the `int3`; or undefined where none led to the handler, which many vectors may
   * share, or one of virtual-8086 mode: the CPU is then at the handler's first instruction.
   */
  unwind(): number | undefined {
    const memory = this.#memory;
    const halted = this.#haltedAt;
    if (halted !== this.#gate?.handler) return this.#goBack(halted);
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
    const protectedMode = memory.byte(abi.PROTECTED_MODE) !== 0;
    const codeBase = protectedMode ? (this.#descriptor(selector)?.base ?? 0) : selector << 4;
    if ((flags & FLAG_VM) !== 0 || this.#byteAt((codeBase + ip - 1) >>> 0) !== INT3) {
      this.#goBack(halted);
      return this.#addresses.includes(halted) ? halted : undefined;
    }
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
    return this.#goBack((memory.word(abi.SEGMENT_BASE + 4 * abi.CS) + ip - 1) >>> 0);
  }

  /** The CPU runs again, from the linear address `address`. */
  #goBack(address: number): number {
    const memory = this.#memory;
    memory.setByte(abi.HALTED, 0);
    memory.setWord(abi.INSTRUCTION_POINTER, address);
    memory.setWord(abi.PREVIOUS_IP, address);
    this.#cpu.forgetTranslations();
    return address;
  }

  /** Linear address of the HLT that the CPU has just executed. */
  get #haltedAt(): number {
    return (this.#memory.word(abi.INSTRUCTION_POINTER) - 1) >>> 0;
  }

  get #paging(): boolean {
    return (this.#memory.word(abi.CR) & CR0_PG) !== 0;
  }

  #byteAt(linear: number): number | undefined {
    const gpa = this.#translate(linear);
    return gpa === undefined ? undefined : this.#ram.byteAt(gpa);
  }

  /** Whether the trap for `linear` is where it has to be, if it can be anywhere. */
  #holds(linear: number): boolean {
    const gpa = this.#translate(linear);
    const patch = this.#patches.find(other => other.linear === linear);
    if (gpa === undefined || gpa >= this.#ram.size) return patch === undefined;
    const byte = this.#ram.byteAt(gpa);
    return patch?.gpa === gpa && (byte === INT3 || byte === HLT);
  }

  /** The handler of vector 3 (Intel SDM volume 3, sections 6.11 and 20.1.4). */
  #findGate(): Gate | undefined {
    const memory = this.#memory;
    const table = memory.word(abi.IDTR_BASE) >>> 0;
    if (memory.byte(abi.PROTECTED_MODE) === 0) {
      const vector = this.#word((table + 4 * BREAKPOINT_VECTOR) >>> 0);
      return vector === undefined ? undefined : { handler: ((vector >>> 16) << 4) + (vector & 0xffff), wide: false };
    }
    if (memory.half(abi.IDTR_LIMIT) < DESCRIPTOR_SIZE * (BREAKPOINT_VECTOR + 1) - 1) return undefined;
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
    this.#patches.push({ linear, gpa, original, opcode });
    this.#store(gpa, opcode);
  }

  #store(gpa: number, value: number): void {
    this.#memory.setByte(this.#ram.base + gpa, value);
    this.#ram.dirty(gpa, 1);
  }
}
