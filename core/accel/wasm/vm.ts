import { randomBytes } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { SOFTWARE_CPU } from '../../cpu/software-cpu.ts';
import type { GuestRam } from '../../memory/guest-ram.ts';
import { xorshift } from '../../rng/xorshift.ts';
import type { AccessRegisters, DebugOptions, GuestBus, Vcpu, Vm, VmOptions, VmStop } from '../accelerator.ts';
import * as abi from './abi.ts';
import { BusPort } from './bus-port.ts';
import { afterReset, type WasmCpu } from './cpu.ts';
import { answer, type CpuPosition } from './cpu-identity.ts';
import { type CpuContext, CpuSet } from './cpu-set.ts';
import { Debuggers } from './debuggers.ts';
import { type Engine, makeEngine } from './engine.ts';
import { Failures } from './failures.ts';
import { GuestDebug } from './guest-debug.ts';
import { GuestMemory } from './guest-memory.ts';
import type { InterruptChips } from './interrupt-chips.ts';
import { Irqchip } from './irqchip.ts';
import { LocalApics } from './local-apics.ts';
import { deliverNmi } from './nmi.ts';
import { translate } from './paging.ts';
import { Suspension } from './suspension.ts';
import { WasmVcpu } from './vcpu.ts';
import { decodeState, encodeState } from './vm-state.ts';
import { VmTime } from './vm-time.ts';

const NS_PER_MS = 1e6;
/** The longest that the event loop waits for the guest, whatever the guest's clock says. */
const SLICE_LIMIT_MS = 10;
/** An event loop turn that took longer had work to do; more may come of it, so the next one is soon. */
const BUSY_TURN_MS = 0.05;
/** How long several CPUs take turns before the event loop has its own. */
const TURNS_MS = 1;
/** Node's timers count whole milliseconds; less than this is waited for by polling. */
const SHORTEST_SLEEP_MS = 0.5;
const LONGEST_SLEEP_MS = 2 ** 31 - 1;

const ALONE: CpuPosition = { apicId: 0, topology: { dies: 1, cores: 1, threads: 1 } };

/** A virtual machine, whose CPUs the thread that owns the devices runs in turn, in slices of a millisecond. */
export class WasmVm implements Vm {
  readonly cpuHost = SOFTWARE_CPU;
  vcpus: readonly Vcpu[];
  readonly #options: VmOptions;
  /** The buses as the CPUs see them. */
  readonly #guestBus: GuestBus;
  readonly #bus: BusPort;
  readonly #ram: GuestMemory;
  readonly #chips: InterruptChips;
  /** The chips, where they are ours. */
  readonly #apics: LocalApics | undefined;
  readonly #cpus: CpuSet;
  /** What CPUID says of each CPU. */
  readonly #positions: CpuPosition[];
  readonly #time: VmTime;
  #engine: Engine;
  #running = false;
  #inSlice = false;
  /** The module is executing instructions, rather than waiting at a check. */
  #executing = false;
  #checkPending = false;
  #sliceEndWanted = false;
  readonly #suspension = new Suspension();
  /** The slice was ended early, so that a halted CPU may yet have an interrupt to take. */
  #cutShort = false;
  #resetWanted = false;
  #disposed = false;
  #broken = false;
  readonly #failures = new Failures(
    () => this.#engine.cpu,
    linear => this.#byteAt(linear),
  );
  readonly #debuggers = new Debuggers();
  /** The module's own answer to a question is wanted. */
  #asking = false;
  /** The run under way is of a single instruction: timers wait. */
  #stepping = false;
  /** When the next local timer is due, in nanoseconds of virtual time. */
  #apicDueNs = Number.POSITIVE_INFINITY;
  #sliceStartedMs = 0;
  #sliceEndedMs = 0;
  /** The slice ends at its first check. */
  #shortSlice = false;
  #random: number;
  #immediate: NodeJS.Immediate | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: VmOptions) {
    this.#options = options;
    this.#random = options.icount === undefined ? randomBytes(4).readInt32LE() | 1 : 1;
    this.#time = new VmTime(options.clock, options.icount);
    const first = options.apicIds ?? Array.from({ length: options.cpus }, (_, index) => index);
    // The module's own chips are for one CPU.
    const ids = options.irqchip ? first : [...first, ...(options.laterApicIds ?? [])];
    this.#positions = ids.map(apicId => ({ ...ALONE, apicId }));
    this.#bus = new BusPort(options.bus, error => this.#failed(error));
    this.#engine = this.#newEngine();
    const { instance, core, memory, cpu } = this.#engine;
    this.#ram = new GuestMemory(instance, memory, options.lowRam);
    this.#cpus = new CpuSet({ present: options.cpus, possible: ids.length }, memory, cpu);
    this.#apics = options.irqchip ? undefined : this.#newApics(ids);
    this.#chips = this.#apics ?? new Irqchip(core, memory, this.#targets);
    this.#guestBus = this.#apics?.busOf(options.bus) ?? options.bus;
    this.#bus.connect(this.#guestBus);
    this.vcpus = this.#presentCpus();
    this.#powerOn();
    options.clock.onDeadline(() => this.#deadlineMoved());
  }

  #newApics(apicIds: readonly number[]): LocalApics {
    const { memory } = this.#engine;
    const { interrupts, endOfInterrupt } = this.#options;
    return new LocalApics(memory, {
      apicIds,
      external: interrupts,
      nowNs: () => this.#time.nowNs(),
      endOfInterrupt: vector => endOfInterrupt?.(vector),
      targets: this.#targets,
    });
  }

  // --- memory

  allocateRam(name: string, size: number): GuestRam | undefined {
    return this.#ram.allocate(name, size);
  }

  mapRam(gpa: number, ram: GuestRam, offset: number, size: number, readonly: boolean): void {
    this.#ram.map(gpa, ram, offset, size, readonly);
  }

  unmapRam(gpa: number, size: number): void {
    this.#ram.unmap(gpa, size);
  }

  dmaWritten(gpa: number, length: number): void {
    if (this.#disposed) return;
    this.#ram.dirty(gpa, length);
    this.#debug()?.codeMayChange();
  }

  // --- interrupts

  setIrq(gsi: number, level: boolean): void {
    if (!this.#disposed && !this.#broken) this.#chips.setIrq(gsi, level);
  }

  injectMsi(address: number, data: number): void {
    if (!this.#disposed && !this.#broken) this.#chips.message(address, data);
  }

  readLapic(cpu: number): Uint32Array {
    return this.#chips.readLapic(cpu);
  }

  injectNmi(): void {
    this.#chips.nonMaskableLine();
  }

  /** What interrupts do to the CPUs. */
  readonly #targets = {
    interrupted: (cpu: number): void => this.#interruptPending(cpu),
    nonMaskable: (cpu: number): void => this.#between(cpu, context => context.nonMaskable()),
    init: (cpu: number): void => this.#between(cpu, context => context.init()),
    startUp: (cpu: number, page: number): void => this.#between(cpu, context => context.startMessage(page)),
    apicEnabled: (cpu: number): boolean => this.#cpus.contexts[cpu]?.present === true && this.#cpus.apicEnabled(cpu),
  };

  /** Something waits for a CPU that it takes between two of its turns. */
  #between(cpu: number, note: (context: CpuContext) => void): void {
    const context = this.#cpus.contexts[cpu];
    if (context?.present !== true) return;
    note(context);
    this.kick();
  }

  // --- CPUs that come and go

  #presentCpus(): Vcpu[] {
    return this.#cpus.contexts.flatMap(({ index, present }) => (present ? new WasmVcpu(this, index) : []));
  }

  plugCpu(index: number): Vcpu | undefined {
    const context = this.#cpus.contexts[index];
    if (context === undefined) return undefined;
    // It may have been unplugged in the middle of its turn.
    if (this.#cpus.current === index) this.#switchTo(0);
    this.#cpus.powerOn(index);
    this.#apics?.initialize(index);
    context.present = true;
    this.vcpus = this.#presentCpus();
    return this.vcpus.find(cpu => cpu.index === index);
  }

  unplugCpu(index: number): void {
    const context = this.#cpus.contexts[index];
    if (context === undefined || index === 0) return;
    context.present = false;
    context.reset();
    this.vcpus = this.#presentCpus();
    this.kick();
  }

  // --- running

  start(): void {
    if (this.#running || this.#disposed) return;
    this.#running = true;
    this.#debuggers.forget();
    this.#runSoon();
  }

  pause(): void {
    this.#running = false;
    this.#cancel();
    if (this.#inSlice) this.#endSliceSoon();
    else this.#debug()?.withdraw();
  }

  kick(): void {
    if (this.#inSlice) this.#endSliceSoon();
    else if (this.#running) this.#runSoon();
  }

  reset(): void {
    if (this.#inSlice) {
      this.#resetWanted = true;
      this.#endSliceSoon();
      return;
    }
    this.#resetNow();
  }

  dispose(): void {
    if (this.#disposed) return;
    this.pause();
    this.#disposed = true;
  }

  // --- state

  /** The result of `action`, which only reads, and sees that CPU's state. */
  readCpu<T>(index: number, action: (cpu: WasmCpu) => T): T {
    return this.#cpus.peek(index, () => action(this.#engine.cpu));
  }

  get accessRegisters(): AccessRegisters | undefined {
    return this.#executing ? this.#engine.cpu.accessRegisters : undefined;
  }

  /** `action` changes that CPU's state. */
  changeCpu(index: number, action: (cpu: WasmCpu) => void): void {
    const { current } = this.#cpus;
    this.#switchTo(index);
    action(this.#engine.cpu);
    this.#switchTo(current);
  }

  /** See {@link Vcpu.setIdentity}. */
  setPosition(index: number, position: CpuPosition): void {
    this.#positions[index] = position;
  }

  saveState(): Uint8Array {
    const { code } = this.#engine;
    code.announce();
    this.#cpus.save();
    return encodeState({
      nowMs: this.#nowMs(),
      levels: this.#chips.levels,
      random: this.#random,
      current: this.#cpus.current,
      cpus: this.#cpus.contexts,
      irqchip: this.#chips.save(),
      shadowed: this.#ram.saveShadowed(),
    });
  }

  restoreState(bytes: Uint8Array): void {
    const { contexts } = this.#cpus;
    const state = decodeState(bytes, this.#ram.size, contexts.length, this.#chips.save().length);
    if (this.#broken) this.#replaceEngine();
    const { core, memory, code, cpu } = this.#engine;
    code.announce();
    core.reset_cpu();
    const deltaMs = this.#nowMs() - state.nowMs;
    for (const context of contexts) Object.assign(context, state.cpus[context.index]);
    this.#cpus.restore(state.current, BigInt(Math.round(deltaMs * abi.TICKS_PER_MS)));
    this.#chips.restore(state.irqchip, state.levels, deltaMs);
    this.#apics?.switchTo(state.current);
    this.#ram.restoreShadowed(state.shadowed);
    this.#random = state.random;
    cpu.forgetTranslations();
    this.#time.restart(memory);
  }

  // --- the engine

  #newEngine(): Engine {
    const hooks = {
      bus: this.#bus.imports(),
      ramBase: () => this.#ram.base,
      nowMs: () => this.#nowMs(),
      check: () => this.#check(),
      random: () => this.#nextRandom(),
      codeReady: () => {
        this.#ram.codeCompiled();
        this.#checkSoon();
      },
      panicked: (text: string) => {
        this.#failures.panic += text;
      },
      ask: (question: number) => this.#answer(question),
    };
    const engine = makeEngine(hooks, this.#options.irqchip);
    this.#bus.isWord = () => engine.reads.isWord;
    return engine;
  }

  #answer(question: number): number {
    if (question === abi.ASK_INTERRUPT) {
      const vector = this.#apics?.acknowledge() ?? -1;
      return vector < 0 ? 0 : 1 | (vector << 8);
    }
    if (this.#asking) return 0;
    const { memory, core } = this.#engine;
    const { current } = this.#cpus;
    this.#asking = true;
    answer(question, memory, core, this.#positions[current] ?? ALONE, current === 0);
    this.#asking = false;
    return 1;
  }

  /** The module trapped, and nothing says what state its locks and its stack are in: RAM moves to a new one. */
  #replaceEngine(): void {
    this.#engine = this.#newEngine();
    this.#broken = false;
    const { instance, core, memory, cpu } = this.#engine;
    this.#ram.moveTo(instance, memory);
    this.#cpus.attach(memory, cpu);
    this.#chips.attach(core, memory);
    this.#time.restart(memory);
    this.#debuggers.forget();
  }

  #resetNow(): void {
    this.#resetWanted = false;
    if (this.#broken) this.#replaceEngine();
    this.#engine.code.announce();
    this.#switchTo(0);
    this.#powerOn();
    this.#chips.reset();
    this.#ram.restoreRoms();
  }

  /** All CPUs, of which the first is the current one. */
  #powerOn(): void {
    const { core, cpu, memory } = this.#engine;
    core.reset_cpu();
    memory.setByte(abi.APIC_ENABLED, 1);
    cpu.write(afterReset(cpu.read()));
    this.#cpus.reset();
    this.#time.restart(memory);
  }

  // --- the run loop

  #runSoon(): void {
    this.#cancel();
    this.#immediate = setImmediate(() => this.#slice());
  }

  #cancel(): void {
    if (this.#immediate !== undefined) clearImmediate(this.#immediate);
    clearTimeout(this.#timer);
    this.#immediate = undefined;
    this.#timer = undefined;
  }

  #slice(): void {
    this.#immediate = undefined;
    if (!this.#running) return;
    this.#inSlice = true;
    this.#sliceEndWanted = false;
    this.#cutShort = false;
    this.#sliceStartedMs = performance.now();
    this.#shortSlice = this.#sliceStartedMs - this.#sliceEndedMs > BUSY_TURN_MS && !this.#time.counting;
    let stop: VmStop | undefined;
    try {
      this.#runTimers();
      stop = this.#apics !== undefined ? this.#takeTurns() : this.#takeTurn();
    } catch (error) {
      this.#executing = false;
      this.#broken = true;
      this.#resume();
      this.#stop(this.#failures.trapped(error, this.#cpus.current));
    } finally {
      this.#inSlice = false;
    }
    if (stop !== undefined) this.#stop(stop);
    this.#endSlice();
    this.#sliceEndedMs = performance.now();
  }

  /** Runs the CPUs that have something to do one after the other, each until its next check. */
  #takeTurns(): VmStop | undefined {
    do {
      const next = this.#cpus.next(this.#isReady);
      if (next < 0) return undefined;
      this.#switchTo(next);
      const context = this.#cpus.contexts[next];
      if (context?.startUp(this.#engine.cpu) === true) this.#apics?.initialize(next);
      const stop = context?.waiting === true ? undefined : this.#takeTurn();
      this.#debug()?.withdraw();
      if (stop !== undefined) return stop;
      this.#runTimers();
    } while (this.#running && !this.#sliceEndWanted && performance.now() - this.#sliceStartedMs < TURNS_MS);
    return undefined;
  }

  #takeTurn(): VmStop | undefined {
    const { cpu, code } = this.#engine;
    let stop: VmStop | undefined;
    const options = this.#debuggers.optionsOf(this.#cpus.current);
    if (options !== undefined) stop = this.#runDebugged(options);
    else {
      this.#letInterruptsIn();
      if (!cpu.halted && this.#running && !this.#sliceEndWanted) this.#runModule();
    }
    code.announce();
    return stop;
  }

  /** Whether a CPU has something to do. */
  readonly #isReady = ({ index, initWanted, startPage, waiting, nmiWanted }: CpuContext): boolean => {
    if (initWanted || startPage >= 0) return true;
    const { stepped } = this.#debuggers;
    if (waiting || (stepped ?? index) !== index) return false;
    if (index === stepped || nmiWanted || !this.#cpus.halted(index)) return true;
    return this.#cpus.interruptsEnabled(index) && (this.#apics?.pendingFor(index) ?? false);
  };

  #switchTo(index: number): void {
    if (index === this.#cpus.current) return;
    this.#cpus.select(index);
    this.#apics?.switchTo(index);
  }

  #runModule(): void {
    this.#executing = true;
    this.#engine.core.main_loop();
    this.#executing = false;
    this.#resume();
  }

  #runDebugged(options: DebugOptions): VmStop | undefined {
    const { current } = this.#cpus;
    const debug = this.#debuggers.of(current, () => this.#newDebug(options));
    if (this.#engine.cpu.halted && !options.singleStep) this.#letInterruptsIn();
    if (!this.#running || this.#sliceEndWanted || (this.#engine.cpu.halted && !options.singleStep)) return undefined;
    const event = debug.run();
    return event === undefined ? undefined : { reason: 'debug', cpu: current, ...event };
  }

  #newDebug(options: DebugOptions): GuestDebug {
    const { instance, memory, cpu } = this.#engine;
    const host = {
      instance,
      memory,
      cpu,
      ram: this.#ram,
      bus: this.#guestBus,
      translate: (linear: number) => this.translate(linear),
      run: (access?: BusPort['memory']) => {
        this.#stepping = access !== undefined;
        this.#bus.memory = access ?? this.#guestBus;
        const sliceEndWanted = this.#sliceEndWanted;
        try {
          this.#runModule();
        } finally {
          this.#bus.memory = this.#guestBus;
          if (this.#stepping) this.#sliceEndWanted = sliceEndWanted;
          this.#stepping = false;
        }
      },
      endRun: () => this.#checkSoon(),
      letInterruptsIn: () => this.#letInterruptsIn(),
    };
    return new GuestDebug(host, options);
  }

  /** See {@link Vcpu.setDebug}. */
  setDebug(index: number, options: DebugOptions | undefined): void {
    this.#debuggers.set(index, options);
    this.#bus.portAccessed = this.#debuggers.present ? () => this.#debug()?.codeMayChange() : undefined;
  }

  /** The debugger's hand on the current CPU. */
  #debug(): GuestDebug | undefined {
    return this.#debuggers.at(this.#cpus.current);
  }

  #endSlice(): void {
    if (this.#disposed) return;
    const failure = this.#running ? this.#failures.deviceFailed(this.#cpus.current) : undefined;
    if (failure !== undefined) this.#stop(failure);
    if (this.#resetWanted) this.#resetNow();
    if (!this.#running) this.#debug()?.withdraw();
    if (!this.#running) return;
    if (this.#idle()) this.#sleep();
    else this.#runSoon();
  }

  #idle(): boolean {
    if (this.#apics !== undefined) return this.#cpus.next(this.#isReady) < 0;
    return this.#engine.cpu.halted && !this.#cutShort;
  }

  /** A halted guest costs nothing until its next timer, or until somebody kicks. */
  #sleep(): void {
    this.#cancel();
    const apicNs = Math.max(0, this.#apicDueNs - this.#time.nowNs());
    const ns = Math.min(this.#time.untilDeadlineNs(), apicNs);
    const ms = ns / NS_PER_MS;
    if (this.#time.counting && ns !== Number.POSITIVE_INFINITY) {
      const wake = (): void => {
        this.#time.warp(Math.ceil(ns));
        this.#runSoon();
      };
      if (this.#options.icount?.sleep !== true || ms < SHORTEST_SLEEP_MS) wake();
      else this.#timer = setTimeout(wake, Math.min(LONGEST_SLEEP_MS, ms));
    } else if (ms < SHORTEST_SLEEP_MS) this.#runSoon();
    else this.#timer = setTimeout(() => this.#slice(), Math.min(LONGEST_SLEEP_MS, Math.max(1, Math.floor(ms))));
  }

  #deadlineMoved(): void {
    if (this.#timer !== undefined) this.#sleep();
  }

  /** The module's regular check: timers fire, and interrupts that they raise are taken right after it. */
  #check(): number {
    const { memory, code } = this.#engine;
    const executing = this.#executing;
    this.#executing = false;
    this.#checkPending = false;
    if (this.#stepping || this.#debug()?.check() === true) {
      this.#suspension.impose(memory);
      this.#executing = executing;
      return 0;
    }
    if (memory.byte(abi.HALTED) === 0) code.announce();
    this.#runTimers();
    if (this.#sliceIsOver() || (this.#apics !== undefined && this.#anotherIsReady())) this.#suspension.impose(memory);
    this.#executing = executing;
    return 0;
  }

  #sliceIsOver(): boolean {
    if (this.#sliceEndWanted || this.#shortSlice || !this.#running) return true;
    return performance.now() - this.#sliceStartedMs > SLICE_LIMIT_MS;
  }

  #anotherIsReady(): boolean {
    const next = this.#cpus.next(this.#isReady);
    return next >= 0 && next !== this.#cpus.current;
  }

  #runTimers(): void {
    if (this.#time.untilDeadlineNs() <= 0) this.#options.clock.expire();
    this.#apicDueNs = this.#chips.runTimers(this.#time.nowNs());
  }

  #letInterruptsIn(): void {
    const context = this.#cpus.contexts[this.#cpus.current];
    if (context?.nmiWanted === true) {
      context.nmiWanted = false;
      deliverNmi(this.#engine.core, this.#engine.memory, this.#chips, this.#ram, linear => this.translate(linear));
    }
    this.#engine.core.handle_irqs();
  }

  #resume(): void {
    if (this.#suspension.lift(this.#engine.memory)) this.#cutShort = true;
  }

  #endSliceSoon(): void {
    this.#sliceEndWanted = true;
    this.#checkSoon();
  }

  #interruptPending(cpu: number): void {
    if (this.#executing) {
      if (cpu !== this.#cpus.current || this.#engine.cpu.interruptsEnabled) this.#checkSoon();
    } else if (!this.#inSlice && this.#running) {
      this.#runSoon();
    }
  }

  /** Makes the module believe that it is time for its next check, which is up to a millisecond away. */
  #checkSoon(): void {
    if (!this.#executing || this.#checkPending) return;
    this.#checkPending = true;
    const { memory } = this.#engine;
    this.#time.discount(abi.INSTRUCTIONS_PER_CHECK);
    memory.setWord(abi.INSTRUCTION_COUNTER, memory.word(abi.INSTRUCTION_COUNTER) + abi.INSTRUCTIONS_PER_CHECK);
  }

  /** The guest-physical address of `linear`, or undefined where nothing is mapped. */
  translate(linear: number): number | undefined {
    const { memory } = this.#engine;
    return translate(linear, memory.word(abi.CR), memory.word(abi.CR + 12), memory.word(abi.CR + 16), address =>
      address + 4 <= this.#ram.size ? memory.view.getInt32(this.#ram.base + address, true) : undefined,
    );
  }

  // --- time and chance

  #nowMs(): number {
    return this.#time.nowNs() / NS_PER_MS;
  }

  /** RDRAND of a repeatable run must be repeatable. */
  #nextRandom(): number {
    this.#random = xorshift(this.#random);
    return this.#random;
  }

  // --- failures

  #failed(error: unknown): void {
    this.#failures.ofDevice ??= error;
    this.#endSliceSoon();
  }

  #stop(stop: VmStop): void {
    this.#running = false;
    this.#cancel();
    this.#debug()?.withdraw();
    this.#options.stopped(stop);
  }

  #byteAt(linear: bigint): number | undefined {
    const gpa = this.translate(Number(BigInt.asUintN(32, linear)));
    return gpa === undefined ? undefined : this.#ram.byteAt(gpa);
  }
}
