import { randomBytes } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { SOFTWARE_CPU } from '../../cpu/software-cpu.ts';
import type { GuestRam } from '../../memory/guest-ram.ts';
import { xorshift } from '../../rng/xorshift.ts';
import type { DebugOptions, Vcpu, Vm, VmOptions, VmStop } from '../accelerator.ts';
import { codeReport, registersReport } from '../registers-report.ts';
import * as abi from './abi.ts';
import { BusPort } from './bus-port.ts';
import { CompiledCode } from './compiled-code.ts';
import { CoreMemory } from './core-memory.ts';
import { WasmCpu } from './cpu.ts';
import { GuestDebug } from './guest-debug.ts';
import { GuestMemory } from './guest-memory.ts';
import { DELIVERY_NMI, Irqchip } from './irqchip.ts';
import { deliverNmi } from './nmi.ts';
import { translate } from './paging.ts';
import { ReadWidth } from './read-width.ts';
import { WasmVcpu } from './vcpu.ts';
import { decodeState, encodeState } from './vm-state.ts';
import { VmTime } from './vm-time.ts';

const FLAG_IF = 0x200;
const NS_PER_MS = 1e6;
/** The longest that the event loop waits for the guest, whatever the guest's clock says. */
const SLICE_LIMIT_MS = 10;
/** An event loop turn that took longer had work to do; more may come of it, so the next one is soon. */
const BUSY_TURN_MS = 0.05;
/** Node's timers count whole milliseconds; less than this is waited for by polling. */
const SHORTEST_SLEEP_MS = 0.5;
const LONGEST_SLEEP_MS = 2 ** 31 - 1;
const RESET_CS_BASE = 0xffff_0000n;
const RESET_IP = 0xfff0n;
const RESET_SELECTOR = 0xf000;
/** The module's messages when it panics where hardware would raise a double fault, and then shut down. */
const UNHANDLED_FAULT = /handler|VME/;

/** One instance of the module and what hangs on it; replaced when the module breaks. */
interface Engine {
  readonly instance: abi.Instance;
  readonly core: abi.Core;
  readonly memory: CoreMemory;
  readonly code: CompiledCode;
  readonly cpu: WasmCpu;
}

/** A virtual machine with one CPU, which the thread that owns the devices runs in slices of a millisecond. */
export class WasmVm implements Vm {
  readonly cpuHost = SOFTWARE_CPU;
  readonly vcpus: readonly Vcpu[];
  readonly #options: VmOptions;
  readonly #bus: BusPort;
  readonly #ram: GuestMemory;
  readonly #irqchip: Irqchip;
  readonly #time: VmTime;
  #engine: Engine;
  #running = false;
  #inSlice = false;
  /** The module is executing instructions, rather than waiting at a check. */
  #executing = false;
  #checkPending = false;
  #sliceEndWanted = false;
  /** What a slice that was ended early hides from the module. */
  #suspended: { readonly flags: number; readonly halted: number } | undefined;
  /** The slice was ended early, so that a halted CPU may yet have an interrupt to take. */
  #cutShort = false;
  #resetWanted = false;
  #nmiWanted = false;
  #disposed = false;
  #broken = false;
  #failure: unknown;
  #panic = '';
  #debugOptions: DebugOptions | undefined;
  #debug: GuestDebug | undefined;
  /** The run under way is of a single instruction: timers wait. */
  #stepping = false;
  #apicDueMs = Number.POSITIVE_INFINITY;
  #sliceStartedMs = 0;
  #sliceEndedMs = 0;
  /** The slice ends at its first check. */
  #shortSlice = false;
  #random: number;
  #immediate: NodeJS.Immediate | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: VmOptions) {
    this.#options = options;
    this.#bus = new BusPort(options.bus, error => this.#failed(error));
    this.#random = options.icount === undefined ? randomBytes(4).readInt32LE() | 1 : 1;
    this.#time = new VmTime(options.clock, options.icount);
    this.#engine = this.#newEngine();
    const { instance, core, memory } = this.#engine;
    this.#ram = new GuestMemory(instance, memory, options.lowRam);
    this.#irqchip = new Irqchip(core, memory);
    this.vcpus = [new WasmVcpu(this)];
    this.#powerOn();
    options.clock.onDeadline(() => this.#deadlineMoved());
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
    this.#debug?.codeMayChange();
  }

  // --- interrupts

  setIrq(gsi: number, level: boolean): void {
    if (this.#disposed || this.#broken) return;
    this.#irqchip.setIrq(gsi, level);
    if (level) this.#interruptPending();
  }

  injectMsi(_address: number, data: number): void {
    const delivery = (data >> 8) & 7;
    if (delivery === DELIVERY_NMI) this.injectNmi();
    else if (this.#irqchip.message(data & 0xff, delivery, (data & 0x8000) !== 0)) this.#interruptPending();
  }

  readLapic(): Uint32Array {
    return this.#irqchip.readLapic();
  }

  injectNmi(): void {
    this.#nmiWanted = true;
    this.kick();
  }

  // --- running

  start(): void {
    if (this.#running || this.#disposed) return;
    this.#running = true;
    this.#debug = undefined;
    this.#runSoon();
  }

  pause(): void {
    this.#running = false;
    this.#cancel();
    if (this.#inSlice) this.#endSliceSoon();
    else this.#debug?.withdraw();
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

  get cpu(): WasmCpu {
    return this.#engine.cpu;
  }

  saveState(): Uint8Array {
    const { core, memory, code } = this.#engine;
    code.announce();
    core.store_current_tsc();
    return encodeState({
      nowMs: this.#nowMs(),
      levels: this.#irqchip.levels,
      random: this.#random,
      cpu: memory.bytes.slice(abi.STATE_START, abi.STATE_END),
      irqchip: this.#irqchip.save(),
      shadowed: this.#ram.saveShadowed(),
    });
  }

  restoreState(bytes: Uint8Array): void {
    const state = decodeState(bytes, this.#ram.size, this.#irqchip.save().length);
    if (this.#broken) this.#replaceEngine();
    const { core, memory, code, cpu } = this.#engine;
    code.announce();
    core.reset_cpu();
    memory.bytes.set(state.cpu, abi.STATE_START);
    this.#irqchip.restore(state.irqchip, state.levels);
    this.#irqchip.shiftTimer(this.#nowMs() - state.nowMs);
    this.#ram.restoreShadowed(state.shadowed);
    this.#random = state.random;
    cpu.forgetTranslations();
    core.set_tsc(memory.word(abi.TSC), memory.word(abi.TSC + 4));
    this.#time.restart(memory);
  }

  // --- the engine

  #newEngine(): Engine {
    const instance = abi.instantiate(abi.load(), {
      ...this.#bus.imports(),
      microtick: () => this.#nowMs(),
      run_hardware_timers: () => this.#check(),
      cpu_event_halt: () => {},
      stop_idling: () => {},
      get_rand_int: () => this.#nextRandom(),
      codegen_finalize: (index, start, stateFlags, pointer, length) => {
        const from = pointer >>> 0;
        engine.code.compile(index, start, stateFlags, memory.bytes.subarray(from, from + (length >>> 0)));
        this.#checkSoon();
      },
      jit_clear_func: index => engine.code.drop(index),
      console_log_from_wasm: (pointer, length) => {
        const from = pointer >>> 0;
        this.#panic += Buffer.from(memory.bytes.subarray(from, from + (length >>> 0))).toString('utf8');
      },
    });
    const memory = new CoreMemory(instance.memory);
    const reads = new ReadWidth(memory, () => this.#ram.base);
    reads.watch(instance);
    this.#bus.isWord = () => reads.isWord;
    const cpu = new WasmCpu(instance.core, memory, () => this.#ram.base);
    const engine: Engine = { instance, core: instance.core, memory, code: new CompiledCode(instance), cpu };
    abi.checkLayout(instance);
    memory.setByte(abi.APIC_PRESENT, 1);
    memory.setByte(abi.APIC_ENABLED, 1);
    return engine;
  }

  /** The module trapped, and nothing says what state its locks and its stack are in: RAM moves to a new one. */
  #replaceEngine(): void {
    this.#engine = this.#newEngine();
    this.#broken = false;
    const { instance, core, memory } = this.#engine;
    this.#ram.moveTo(instance, memory);
    this.#irqchip.attach(core, memory);
    this.#time.restart(memory);
    this.#debug = undefined;
  }

  #resetNow(): void {
    this.#resetWanted = false;
    this.#nmiWanted = false;
    if (this.#broken) this.#replaceEngine();
    this.#engine.code.announce();
    this.#powerOn();
    this.#irqchip.reset();
    this.#ram.restoreRoms();
  }

  /** Intel SDM volume 3, table 9-1: the first instruction is 16 bytes below 4 GiB. */
  #powerOn(): void {
    const { core, cpu, memory } = this.#engine;
    core.reset_cpu();
    memory.setByte(abi.APIC_ENABLED, 1);
    const state = cpu.read();
    state.gpr.fill(0n);
    const data = { ...state.ds, selector: 0, base: 0n, limit: 0xffff, unusable: false };
    cpu.write({
      ...state,
      rip: RESET_IP,
      cs: { ...state.cs, selector: RESET_SELECTOR, base: RESET_CS_BASE, limit: 0xffff },
      ds: data,
      es: data,
      fs: data,
      gs: data,
      ss: data,
      gdtr: { base: 0n, limit: 0xffff },
      idtr: { base: 0n, limit: 0xffff },
      halted: false,
    });
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
    const { cpu, code } = this.#engine;
    let stop: VmStop | undefined;
    try {
      this.#runTimers();
      if (this.#debugOptions !== undefined) stop = this.#runDebugged(this.#debugOptions);
      else {
        this.#letInterruptsIn();
        if (!cpu.halted && this.#running && !this.#sliceEndWanted) this.#runModule();
      }
      code.announce();
    } catch (error) {
      this.#executing = false;
      this.#broken = true;
      this.#resume();
      this.#crashed(error);
    } finally {
      this.#inSlice = false;
    }
    if (stop !== undefined) this.#stop(stop);
    this.#endSlice();
    this.#sliceEndedMs = performance.now();
  }

  #runModule(): void {
    this.#executing = true;
    this.#engine.core.main_loop();
    this.#executing = false;
    this.#resume();
  }

  #runDebugged(options: DebugOptions): VmStop | undefined {
    this.#debug ??= this.#newDebug(options);
    if (this.#engine.cpu.halted && !options.singleStep) this.#letInterruptsIn();
    if (!this.#running || this.#sliceEndWanted || (this.#engine.cpu.halted && !options.singleStep)) return undefined;
    const event = this.#debug.run();
    return event === undefined ? undefined : { reason: 'debug', cpu: 0, ...event };
  }

  #newDebug(options: DebugOptions): GuestDebug {
    const { instance, memory, cpu } = this.#engine;
    const host = {
      instance,
      memory,
      cpu,
      ram: this.#ram,
      bus: this.#options.bus,
      translate: (linear: number) => this.translate(linear),
      run: (access?: BusPort['memory']) => {
        this.#stepping = access !== undefined;
        this.#bus.memory = access ?? this.#options.bus;
        const sliceEndWanted = this.#sliceEndWanted;
        try {
          this.#runModule();
        } finally {
          this.#bus.memory = this.#options.bus;
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
  setDebug(options: DebugOptions | undefined): void {
    this.#debug?.withdraw();
    this.#debug = undefined;
    this.#debugOptions = options;
    this.#bus.portAccessed = options === undefined ? undefined : () => this.#debug?.codeMayChange();
  }

  #endSlice(): void {
    if (this.#disposed) return;
    if (this.#failure !== undefined && this.#running) {
      this.#stop({
        reason: 'internal-error',
        cpu: 0,
        report: this.#report(`a device failed: ${String(this.#failure)}`),
      });
      this.#failure = undefined;
    }
    if (this.#resetWanted) this.#resetNow();
    if (!this.#running) this.#debug?.withdraw();
    if (!this.#running) return;
    if (this.#engine.cpu.halted && !this.#cutShort) this.#sleep();
    else this.#runSoon();
  }

  /** A halted guest costs nothing until its next timer, or until somebody kicks. */
  #sleep(): void {
    this.#cancel();
    const deviceNs = this.#time.untilDeadlineNs();
    const ms = Math.min(deviceNs / NS_PER_MS, this.#apicDueMs);
    if (this.#time.counting && ms !== Number.POSITIVE_INFINITY) {
      if (this.#options.icount?.sleep !== true || ms < SHORTEST_SLEEP_MS) {
        this.#time.warp(ms * NS_PER_MS);
        this.#runSoon();
        return;
      }
      this.#timer = setTimeout(
        () => {
          this.#time.warp(ms * NS_PER_MS);
          this.#slice();
        },
        Math.min(LONGEST_SLEEP_MS, ms),
      );
      return;
    }
    if (ms < SHORTEST_SLEEP_MS) this.#runSoon();
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
    if (this.#stepping || this.#debug?.check() === true) {
      this.#suspend();
      this.#executing = executing;
      return 0;
    }
    if (memory.byte(abi.HALTED) === 0) code.announce();
    this.#runTimers();
    if (this.#sliceIsOver()) this.#suspend();
    this.#executing = executing;
    return 0;
  }

  #sliceIsOver(): boolean {
    if (this.#sliceEndWanted || this.#shortSlice || !this.#running) return true;
    return performance.now() - this.#sliceStartedMs > SLICE_LIMIT_MS;
  }

  #runTimers(): void {
    if (this.#time.untilDeadlineNs() <= 0) this.#options.clock.expire();
    this.#irqchip.refreshLevels();
    this.#apicDueMs = this.#engine.core.apic_timer(this.#nowMs());
  }

  #letInterruptsIn(): void {
    if (this.#nmiWanted) {
      this.#nmiWanted = false;
      deliverNmi(this.#engine.core, this.#engine.memory, this.#irqchip, this.#ram, linear => this.translate(linear));
    }
    this.#engine.core.handle_irqs();
  }

  /** Takes the CPU back from the module: it returns at once from a CPU that is halted with interrupts off. */
  #suspend(): void {
    if (this.#suspended !== undefined) return;
    const { memory } = this.#engine;
    const flags = memory.word(abi.FLAGS);
    this.#suspended = { flags, halted: memory.byte(abi.HALTED) };
    memory.setWord(abi.FLAGS, flags & ~FLAG_IF);
    memory.setByte(abi.HALTED, 1);
  }

  #resume(): void {
    if (this.#suspended === undefined) return;
    const { memory } = this.#engine;
    memory.setWord(abi.FLAGS, (memory.word(abi.FLAGS) & ~FLAG_IF) | (this.#suspended.flags & FLAG_IF));
    memory.setByte(abi.HALTED, this.#suspended.halted);
    this.#suspended = undefined;
    this.#cutShort = true;
  }

  #endSliceSoon(): void {
    this.#sliceEndWanted = true;
    this.#checkSoon();
  }

  #interruptPending(): void {
    if (this.#executing) {
      if (this.#engine.cpu.interruptsEnabled) this.#checkSoon();
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
    this.#failure ??= error;
    this.#endSliceSoon();
  }

  #crashed(error: unknown): void {
    const panic = this.#panic;
    this.#panic = '';
    const shutdown = error instanceof RangeError || UNHANDLED_FAULT.test(panic);
    if (shutdown) this.#stop({ reason: 'shutdown', cpu: 0, report: this.#report('the CPU shut down: a triple fault') });
    else
      this.#stop({
        reason: 'internal-error',
        cpu: 0,
        report: this.#report(`v86.wasm: ${panic === '' ? String(error) : panic}`),
      });
  }

  #stop(stop: VmStop): void {
    this.#running = false;
    this.#cancel();
    this.#debug?.withdraw();
    this.#options.stopped(stop);
  }

  #report(headline: string): string {
    const state = this.#engine.cpu.read();
    return `${headline}\n${registersReport(state)}${codeReport(state, linear => this.#byteAt(linear))}`;
  }

  #byteAt(linear: bigint): number | undefined {
    const gpa = this.translate(Number(BigInt.asUintN(32, linear)));
    return gpa === undefined ? undefined : this.#ram.byteAt(gpa);
  }
}
