import type { Machine } from '../../machine/machine.ts';

/** How long the CPUs run between two pauses, in milliseconds. */
const RUN_MS = 10;

/** Keeps the CPUs from running for a share of the time, so that a migration can catch up with what they write. */
export class CpuThrottle {
  readonly #machine: Machine;
  #percentage = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** Of their time, that the CPUs are kept from running; 0 to 99. */
  get percentage(): number {
    return this.#percentage;
  }

  set(percentage: number): void {
    this.#percentage = percentage;
    if (this.#timer === undefined && percentage > 0) this.#run();
  }

  /** The CPUs run freely again, if the machine does. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#percentage = 0;
    if (this.#machine.power.running) this.#machine.vm.start();
  }

  #run(): void {
    if (this.#machine.power.running) this.#machine.vm.start();
    this.#timer = setTimeout(() => this.#pause(), RUN_MS).unref();
  }

  #pause(): void {
    if (this.#machine.power.running) this.#machine.vm.pause();
    const pauseMs = (RUN_MS * this.#percentage) / (100 - this.#percentage);
    this.#timer = setTimeout(() => this.#run(), pauseMs).unref();
  }
}
