import { availableParallelism } from 'node:os';
import { performance } from 'node:perf_hooks';
import type { VmStop } from '../accelerator.ts';
import * as abi from './abi.ts';
import type { NativeScheduler } from './addon.ts';
import { CpuExits, type RunLoopHost } from './run-loop-host.ts';
import type { KvmVcpu } from './vcpu.ts';

/** How long to look for the next exit of a vCPU after one has been answered, on a host with a core to spare. */
const ATTENTION_MS = 0.01;

/**
 * The vCPUs of a machine but the first, each on a native thread of its own. Their exits are answered on the thread that
 * owns the devices, between those of the vCPU that it runs itself.
 */
export class ThreadedCpus {
  readonly #cpus: readonly CpuExits[];
  readonly #coresToSpare: boolean;
  #running = false;
  #answered: KvmVcpu | undefined;

  constructor(cpus: readonly KvmVcpu[], host: RunLoopHost, scheduler: NativeScheduler) {
    this.#cpus = cpus.map(cpu => new CpuExits(cpu, host));
    this.#coresToSpare = availableParallelism() > cpus.length + 1;
    for (const cpu of cpus) cpu.native.startThread(scheduler);
  }

  /** The one whose exit is being answered. */
  get answered(): KvmVcpu | undefined {
    return this.#answered;
  }

  start(): void {
    this.#running = true;
    for (const { cpu } of this.#cpus) cpu.native.unpark();
  }

  /** Answers the exits that wait, and on a host with a core to spare those that follow at once. */
  answer(): VmStop | undefined {
    let until = 0;
    do {
      let answered = false;
      for (const exits of this.#cpus) {
        if (Atomics.load(exits.words, abi.RUN_THREAD_STATE) !== abi.THREAD_EXITED) continue;
        answered = true;
        const stop = this.#answer(exits);
        if (stop !== undefined) return stop;
      }
      if (answered && this.#coresToSpare && until === 0) until = performance.now() + ATTENTION_MS;
    } while (until > 0 && performance.now() < until);
    return undefined;
  }

  /** Brings all of them out of the guest, with no instruction half done. */
  park(): void {
    this.#running = false;
    for (const { cpu } of this.#cpus) cpu.native.park();
    for (const exits of this.#cpus) this.#settle(exits);
  }

  /** Runs `action` with that vCPU outside the guest. */
  settled<T>(cpu: KvmVcpu, answering: boolean, action: () => T): T {
    const exits = this.#cpus.find(candidate => candidate.cpu === cpu);
    if (exits === undefined || !this.#running) return action();
    cpu.native.park();
    // While one exit is being answered, another CPU's has to wait: devices are not entered twice.
    if (answering) cpu.native.awaitParked();
    else this.#settle(exits);
    try {
      return action();
    } finally {
      if (this.#running) cpu.native.unpark();
    }
  }

  close(): void {
    this.#running = false;
    for (const { cpu } of this.#cpus) cpu.native.close();
  }

  #settle(exits: CpuExits): void {
    while (exits.cpu.native.awaitParked()) this.#answer(exits);
  }

  #answer(exits: CpuExits): VmStop | undefined {
    this.#answered = exits.cpu;
    const stop = exits.answer();
    this.#answered = undefined;
    exits.cpu.native.resume();
    return stop;
  }
}
