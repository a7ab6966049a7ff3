import * as abi from './abi.ts';
import type { CoreMemory } from './core-memory.ts';
import { afterInit, afterStartUp, type WasmCpu } from './cpu.ts';

const REGISTERS_SIZE = abi.STATE_END - abi.STATE_START;
const TSC_OFFSET_SIZE = 8;
/** Bytes that a CPU is made of. */
export const CONTEXT_SIZE = REGISTERS_SIZE + TSC_OFFSET_SIZE;
const FLAG_IF = 0x200;
const NOWHERE = -1;

/** One CPU, which may be missing: its registers while the module executes another, and what waits for it until it is between two instructions. */
export class CpuContext {
  readonly index: number;
  /** What the module's memory holds from `STATE_START` on, then the TSC's offset. */
  readonly bytes: Uint8Array = new Uint8Array(CONTEXT_SIZE);
  /** It is plugged in. */
  present: boolean;
  nmiWanted = false;
  initWanted = false;
  /** It has had an INIT, and waits for a start-up message. */
  waiting = false;
  /** The page that a start-up message named, or -1. */
  startPage = NOWHERE;

  constructor(index: number, present: boolean) {
    this.index = index;
    this.present = present;
  }

  /** A non-maskable interrupt arrives: one that comes before the CPU has been started is lost. */
  nonMaskable(): void {
    this.nmiWanted = !this.waiting;
  }

  /** An INIT arrives (Intel SDM volume 3, section 9.4.1): a start-up message before it is void. */
  init(): void {
    this.initWanted = true;
    this.startPage = NOWHERE;
  }

  /** A start-up message arrives: one that nobody waits for is lost. */
  startMessage(page: number): void {
    if (this.waiting || this.initWanted) this.startPage = page;
  }

  /** The CPU, which is the current one, does what those messages say. Returns whether there was an INIT. */
  startUp(cpu: WasmCpu): boolean {
    const { initWanted, startPage } = this;
    if (initWanted) {
      this.initWanted = false;
      this.nmiWanted = false;
      this.waiting = this.index !== 0;
      cpu.write(afterInit(cpu.read()));
    }
    if (this.waiting && startPage !== NOWHERE) {
      this.waiting = false;
      cpu.write(afterStartUp(cpu.read(), startPage));
    }
    this.startPage = NOWHERE;
    return initWanted;
  }

  reset(): void {
    this.nmiWanted = false;
    this.initWanted = false;
    this.startPage = NOWHERE;
    this.waiting = this.index !== 0;
  }
}

/** The machine's CPUs, of which the module executes one at a time: its registers are in the module's memory. */
export class CpuSet {
  readonly contexts: readonly CpuContext[];
  #memory: CoreMemory;
  #cpu: WasmCpu;
  #current = 0;
  /** What the first CPU is after a reset, and so each that comes. */
  readonly #afterReset = new Uint8Array(CONTEXT_SIZE);

  /** @param present how many are plugged in @param possible how many may be */
  constructor({ present, possible }: { present: number; possible: number }, memory: CoreMemory, cpu: WasmCpu) {
    this.contexts = Array.from({ length: possible }, (_, index) => new CpuContext(index, index < present));
    this.#memory = memory;
    this.#cpu = cpu;
  }

  /** Moves to a new instance of the module. */
  attach(memory: CoreMemory, cpu: WasmCpu): void {
    this.#memory = memory;
    this.#cpu = cpu;
    cpu.bootstrap = this.#current === 0;
  }

  /** Which CPU the module executes. */
  get current(): number {
    return this.#current;
  }

  /** The module executes that CPU from now on. */
  select(index: number): void {
    if (index === this.#current) return;
    this.#exchange(index);
    this.#cpu.forgetTranslations();
  }

  /** The result of `action`, which only reads, and sees that CPU's registers in the module's memory; even within an instruction. */
  peek<T>(index: number, action: () => T): T {
    const current = this.#current;
    if (index === current) return action();
    this.#exchange(index);
    try {
      return action();
    } finally {
      this.#exchange(current);
    }
  }

  /** All CPUs are as the current one, the first, after a reset; the others wait to be started. */
  reset(): void {
    for (const context of this.contexts) {
      context.reset();
      this.#store(context.bytes);
    }
    this.#store(this.#afterReset);
  }

  /** A CPU that is not the current one, and may have run before, is as after a reset; its TSC goes with the first CPU's. */
  powerOn(index: number): void {
    const context = this.contexts[index];
    if (context === undefined) return;
    context.reset();
    context.bytes.set(this.#afterReset.subarray(0, REGISTERS_SIZE));
    this.peek(0, () => {
      const { bytes } = this.#memory;
      context.bytes.set(bytes.subarray(abi.TSC_OFFSET, abi.TSC_OFFSET + TSC_OFFSET_SIZE), REGISTERS_SIZE);
    });
  }

  halted(index: number): boolean {
    return this.#byte(index, abi.HALTED) !== 0;
  }

  interruptsEnabled(index: number): boolean {
    return (this.#byte(index, abi.FLAGS + 1) & (FLAG_IF >> 8)) !== 0;
  }

  /** IA32_APIC_BASE.EN. */
  apicEnabled(index: number): boolean {
    return this.#byte(index, abi.APIC_ENABLED) !== 0;
  }

  /** The next CPU in turn, the current one last, of those for which `ready` holds; or -1. */
  next(ready: (context: CpuContext) => boolean): number {
    const { contexts } = this;
    for (let step = 1; step <= contexts.length; step++) {
      const context = contexts[(this.#current + step) % contexts.length];
      if (context !== undefined && ready(context)) return context.index;
    }
    return NOWHERE;
  }

  /** Brings {@link CpuContext.bytes} of the current CPU up to date. */
  save(): void {
    const context = this.contexts[this.#current];
    if (context !== undefined) this.#store(context.bytes);
  }

  /** Takes all CPUs from their contexts' bytes; that one is executed next. The TSC goes on as if `ticks` had not passed. */
  restore(current: number, ticks: bigint): void {
    for (const { bytes } of this.contexts) {
      const view = new DataView(bytes.buffer);
      view.setBigUint64(REGISTERS_SIZE, view.getBigUint64(REGISTERS_SIZE, true) + ticks, true);
    }
    this.#load(current);
  }

  #byte(index: number, offset: number): number {
    if (index === this.#current) return this.#memory.byte(offset);
    return this.contexts[index]?.bytes[offset - abi.STATE_START] ?? 0;
  }

  #exchange(index: number): void {
    this.save();
    this.#load(index);
  }

  #store(bytes: Uint8Array): void {
    const { bytes: memory } = this.#memory;
    bytes.set(memory.subarray(abi.STATE_START, abi.STATE_END));
    bytes.set(memory.subarray(abi.TSC_OFFSET, abi.TSC_OFFSET + TSC_OFFSET_SIZE), REGISTERS_SIZE);
  }

  /** Instructions are counted for all CPUs together. */
  #load(index: number): void {
    const context = this.contexts[index];
    if (context === undefined) return;
    const { bytes } = this.#memory;
    const instructions = this.#memory.word(abi.INSTRUCTION_COUNTER);
    bytes.set(context.bytes.subarray(0, REGISTERS_SIZE), abi.STATE_START);
    bytes.set(context.bytes.subarray(REGISTERS_SIZE), abi.TSC_OFFSET);
    this.#memory.setWord(abi.INSTRUCTION_COUNTER, instructions);
    this.#current = index;
    this.#cpu.bootstrap = index === 0;
  }
}
