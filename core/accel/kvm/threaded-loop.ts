import { availableParallelism } from 'node:os';
import { performance } from 'node:perf_hooks';
import type { VmStop } from '../accelerator.ts';
import * as abi from './abi.ts';
import type { Addon, NativeScheduler } from './addon.ts';
import { CpuExits, DeadlineKeeper, type RunLoop, type RunLoopHost } from './run-loop.ts';
import type { KvmVcpu } from './vcpu.ts';

/** How long the device thread looks for another exit after it has answered one, on a host with a core to spare. */
const ATTENTION_MS = 0.05;
/** The event loop gets its turn at least this often. */
const SLICE_MS = 1;

/** Several vCPUs, each on a native thread; the thread that owns the devices answers their exits. */
export class ThreadedLoop implements RunLoop {
  readonly #host: RunLoopHost;
  readonly #cpus: readonly CpuExits[];
  readonly #scheduler: NativeScheduler;
  readonly #deadline: DeadlineKeeper;
  readonly #coresToSpare: boolean;
  #running = false;
  #answering = false;
  #closed = false;

  constructor(addon: Addon, cpus: readonly KvmVcpu[], host: RunLoopHost) {
    this.#host = host;
    this.#cpus = cpus.map(cpu => new CpuExits(cpu, host));
    this.#scheduler = new addon.Scheduler(() => this.#slice());
    this.#deadline = new DeadlineKeeper(host.clock, this.#scheduler, () => {
      if (this.#running && !this.#answering) this.#deadline.arm();
    });
    this.#coresToSpare = availableParallelism() > cpus.length;
    for (const cpu of cpus) cpu.native.startThread(this.#scheduler);
  }

  get answering(): boolean {
    return this.#answering;
  }

  get running(): boolean {
    return this.#running;
  }

  start(): void {
    if (this.#running || this.#closed) return;
    this.#running = true;
    this.#scheduler.setRef(true);
    this.#scheduler.wake();
    for (const { cpu } of this.#cpus) cpu.native.unpark();
  }

  pause(): void {
    if (!this.#running) return;
    this.#running = false;
    this.#scheduler.setRef(false);
    if (!this.#answering) this.#parkAll();
  }

  kick(): void {
    if (this.#running) this.#scheduler.wake();
  }

  settled<T>(cpu: KvmVcpu, action: () => T): T {
    const exits = this.#cpus[cpu.index];
    if (exits === undefined || !this.#running) return action();
    // While one exit is being answered, another CPU's has to wait: devices are not entered twice.
    if (this.#answering) {
      cpu.native.park();
      cpu.native.awaitParked();
    } else {
      this.#park(exits);
    }
    try {
      return action();
    } finally {
      if (this.#running) cpu.native.unpark();
    }
  }

  close(): void {
    this.pause();
    this.#closed = true;
    for (const { cpu } of this.#cpus) cpu.native.close();
    this.#scheduler.close();
  }

  #slice(): void {
    if (!this.#running) return;
    this.#answering = true;
    let stop: VmStop | undefined;
    try {
      this.#deadline.expire();
      stop = this.#coresToSpare ? this.#answerAttentively() : this.#answerAll().stop;
    } finally {
      this.#answering = false;
      if (!this.#closed) this.#endSlice(stop);
    }
  }

  #endSlice(stop: VmStop | undefined): void {
    if (stop !== undefined) this.#running = false;
    if (!this.#running) this.#parkAll();
    this.#host.afterSlice();
    if (stop !== undefined) {
      this.#scheduler.setRef(false);
      this.#host.stopped(stop);
    }
    if (this.#running && this.#deadline.moved) this.#deadline.arm();
  }

  /** One look at every vCPU. */
  #answerAll(): { answered: boolean; stop: VmStop | undefined } {
    let answered = false;
    for (const exits of this.#cpus) {
      if (Atomics.load(exits.words, abi.RUN_THREAD_STATE) !== abi.THREAD_EXITED) continue;
      answered = true;
      const stop = exits.answer();
      exits.cpu.native.resume();
      if (stop !== undefined || !this.#running) return { answered, stop };
    }
    return { answered, stop: undefined };
  }

  /** Looks until nothing has come for a while; meanwhile no vCPU needs to wake this thread. */
  #answerAttentively(): VmStop | undefined {
    const start = performance.now();
    let last = start;
    this.#scheduler.setAttentive(true);
    for (;;) {
      const { answered, stop } = this.#answerAll();
      if (stop !== undefined || !this.#running) {
        this.#scheduler.setAttentive(false);
        return stop;
      }
      const now = performance.now();
      if (answered) last = now;
      if (now - last < ATTENTION_MS && now - start < SLICE_MS) continue;
      this.#scheduler.setAttentive(false);
      if (this.#cpus.some(exits => Atomics.load(exits.words, abi.RUN_THREAD_STATE) === abi.THREAD_EXITED)) {
        this.#scheduler.wake();
      }
      return undefined;
    }
  }

  #parkAll(): void {
    for (const { cpu } of this.#cpus) cpu.native.park();
    for (const exits of this.#cpus) this.#park(exits);
  }

  #park(exits: CpuExits): void {
    const { native } = exits.cpu;
    native.park();
    while (native.awaitParked()) {
      exits.answer();
      native.resume();
    }
  }
}
