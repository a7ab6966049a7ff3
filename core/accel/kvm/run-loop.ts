import type { InterruptSource, VmStop } from '../accelerator.ts';
import * as abi from './abi.ts';
import type { Addon, NativeScheduler } from './addon.ts';
import { CpuExits, DeadlineKeeper, type RunLoopHost } from './run-loop-host.ts';
import { ThreadedCpus } from './threaded-cpus.ts';
import type { KvmVcpu } from './vcpu.ts';

/**
 * Runs the first vCPU on the thread that owns the devices. Each slice of the event loop enters the guest again and again,
 * one call an exit, until the event loop has work: handing exits to another thread costs more than the exit itself.
 * Further vCPUs have threads of their own and interrupt this one where they need an answer.
 */
export class RunLoop {
  readonly #cpu: KvmVcpu;
  readonly #host: RunLoopHost;
  readonly #scheduler: NativeScheduler;
  readonly #exits: CpuExits;
  readonly #run: () => void;
  readonly #deadline: DeadlineKeeper;
  readonly #others: ThreadedCpus | undefined;
  readonly #vector = new Uint32Array(1);
  #running = false;
  #answering = false;
  #leave = false;
  /** The last exit was answered and KVM_RUN has not been called since. */
  #unfinished = false;
  #closed = false;

  constructor(addon: Addon, cpu: KvmVcpu, others: readonly KvmVcpu[], host: RunLoopHost) {
    this.#cpu = cpu;
    this.#host = host;
    this.#exits = new CpuExits(cpu, host);
    this.#scheduler = new addon.Scheduler(() => this.#slice());
    this.#run = this.#scheduler.bind(cpu.native);
    if (others.length > 0) this.#others = new ThreadedCpus(others, host, this.#scheduler);
    this.#deadline = new DeadlineKeeper(host.clock, this.#scheduler, () => {
      if (this.#running && !this.#answering) this.#deadline.arm();
    });
    host.interrupts?.onPending(() => {
      if (this.#running && !this.#answering && cpu.waiting) this.#scheduler.wake();
    });
  }

  /** True while an exit is being answered: a vCPU is in the middle of an instruction. */
  get answering(): boolean {
    return this.#answering;
  }

  /** The vCPU whose exit is being answered. */
  get answered(): KvmVcpu | undefined {
    return this.#others?.answered ?? (this.#answering ? this.#cpu : undefined);
  }

  get running(): boolean {
    return this.#running;
  }

  start(): void {
    if (this.#running || this.#closed) return;
    this.#running = true;
    this.#scheduler.setRef(true);
    this.#scheduler.wake();
    this.#others?.start();
  }

  pause(): void {
    if (!this.#running) return;
    this.#running = false;
    this.#scheduler.setRef(false);
    if (!this.#answering) this.#leaveGuest();
  }

  kick(): void {
    this.#leave = true;
    if (this.#running && !this.#answering) this.#scheduler.wake();
  }

  /** Runs `action` with that vCPU outside the guest and, where possible, between instructions. */
  settled<T>(cpu: KvmVcpu, action: () => T): T {
    if (this.#others !== undefined && cpu !== this.#cpu) return this.#others.settled(cpu, this.#answering, action);
    if (!this.#answering) this.#finishInstruction();
    return action();
  }

  close(): void {
    this.pause();
    this.#closed = true;
    this.#others?.close();
    this.#scheduler.close();
  }

  #slice(): void {
    if (!this.#running) return;
    this.#answering = true;
    this.#leave = false;
    let stop: VmStop | undefined;
    try {
      this.#deadline.expire();
      const { interrupts } = this.#host;
      stop = this.#others?.answer();
      stop ??= interrupts === undefined ? this.#enter() : this.#enterWithInterrupts(interrupts);
    } finally {
      this.#answering = false;
      if (!this.#closed) this.#endSlice(stop);
    }
  }

  #endSlice(stop: VmStop | undefined): void {
    if (stop !== undefined) this.#running = false;
    if (!this.#running) this.#leaveGuest();
    this.#host.afterSlice();
    if (stop !== undefined) {
      this.#scheduler.setRef(false);
      this.#host.stopped(stop);
    }
    if (this.#running && !this.#cpu.waiting) this.#scheduler.wake();
  }

  /** The hot loop where interrupts are the kernel's. */
  #enter(): VmStop | undefined {
    const run = this.#run;
    const exits = this.#exits;
    const words = exits.words;
    const { coalesced } = this.#host;
    this.#unfinished = true;
    while (!this.#leave && this.#running) {
      if (this.#deadline.moved) this.#deadline.arm();
      run();
      if (coalesced.active) coalesced.flush();
      const reason = words[abi.RUN_EXIT_REASON];
      if (reason === abi.EXIT_IO) exits.io();
      else if (reason === abi.EXIT_MMIO) exits.mmio();
      else if (reason === abi.EXIT_SLICE) break;
      else if (reason === abi.EXIT_TIMER || reason === abi.EXIT_INTR) this.#deadline.expire();
      else {
        const stop = reason === abi.EXIT_OTHERS ? this.#others?.answer() : this.#host.stopFor(this.#cpu, words);
        if (stop !== undefined) return stop;
      }
    }
    return undefined;
  }

  /** The same where they are ours: one may be injected before each entry (KVM API, section 4.16). */
  #enterWithInterrupts(interrupts: InterruptSource): VmStop | undefined {
    const run = this.#run;
    const exits = this.#exits;
    const { words, bytes } = exits;
    const cpu = this.#cpu;
    const { coalesced } = this.#host;
    this.#unfinished = true;
    while (!this.#leave && this.#running) {
      if (this.#deadline.moved) this.#deadline.arm();
      if (cpu.waiting) {
        if (!interrupts.pending || bytes[abi.RUN_IF_FLAG_BYTE] === 0) break;
        cpu.waiting = false;
      }
      if (interrupts.pending && bytes[abi.RUN_READY_FOR_INTERRUPT_BYTE] !== 0) this.#inject(interrupts.acknowledge());
      bytes[abi.RUN_REQUEST_INTERRUPT_WINDOW_BYTE] = interrupts.pending ? 1 : 0;
      run();
      if (coalesced.active) coalesced.flush();
      const reason = words[abi.RUN_EXIT_REASON];
      if (reason === abi.EXIT_IO) exits.io();
      else if (reason === abi.EXIT_MMIO) exits.mmio();
      else if (reason === abi.EXIT_SLICE) break;
      else if (reason === abi.EXIT_TIMER || reason === abi.EXIT_INTR) this.#deadline.expire();
      else if (reason === abi.EXIT_HLT) cpu.waiting = true;
      else if (reason !== abi.EXIT_IRQ_WINDOW_OPEN) {
        const stop = this.#host.stopFor(cpu, words);
        if (stop !== undefined) return stop;
      }
    }
    return undefined;
  }

  #inject(vector: number): void {
    this.#vector[0] = vector;
    this.#cpu.native.ioctl(abi.KVM_INTERRUPT, this.#vector);
    // The page says otherwise only after the next KVM_RUN, and there may be another slice before that.
    this.#exits.bytes[abi.RUN_READY_FOR_INTERRUPT_BYTE] = 0;
  }

  #leaveGuest(): void {
    this.#finishInstruction();
    this.#others?.park();
  }

  /** An answered exit is complete only once KVM_RUN has taken the answer (KVM API, section 5, "MMIO/PIO"). */
  #finishInstruction(): void {
    if (!this.#unfinished || this.#closed) return;
    this.#unfinished = false;
    while (this.#cpu.native.complete()) {
      if (this.#exits.answer() !== undefined) break;
    }
  }
}
