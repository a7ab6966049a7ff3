import { performance } from 'node:perf_hooks';
import type { DeadlineSource, InstructionClock } from '../accelerator.ts';
import * as abi from './abi.ts';
import type { CoreMemory } from './core-memory.ts';

const NS_PER_MS = 1e6;

/**
 * The time that TSC and local APIC timer count. It is the machine's virtual clock; where instructions are counted it is the
 * other way round, and the count drives the clock.
 */
export class VmTime {
  readonly #clock: DeadlineSource;
  readonly #nsPerInstruction: number;
  #memory: CoreMemory | undefined;
  /** The counter's value that is already in `#instructions`. */
  #counted = 0;
  #instructions = 0;
  #warpedNs = 0;

  constructor(clock: DeadlineSource, icount: InstructionClock | undefined) {
    this.#clock = clock;
    this.#nsPerInstruction = icount === undefined ? 0 : 2 ** icount.shift;
    if (this.counting) clock.virtual?.driveBy(() => this.#countedNs());
  }

  get counting(): boolean {
    return this.#nsPerInstruction > 0;
  }

  /** Nanoseconds of virtual time. */
  nowNs(): number {
    return this.#clock.virtual?.now() ?? (this.counting ? this.#countedNs() : performance.now() * NS_PER_MS);
  }

  /** Nanoseconds until the next timer of a device. */
  untilDeadlineNs(): number {
    if (!this.counting) return this.#clock.untilDeadline();
    const { virtual } = this.#clock;
    return virtual === undefined ? Number.POSITIVE_INFINITY : Math.max(0, virtual.nextDeadlineNs - virtual.now());
  }

  /** A halted guest has slept for so long: counted time does not pass by itself. */
  warp(ns: number): void {
    this.#warpedNs += ns;
  }

  /** Instructions that nobody executed are about to be added to the counter. */
  discount(instructions: number): void {
    this.#count();
    this.#counted = (this.#counted + instructions) >>> 0;
  }

  /** The counter starts anew, perhaps in another instance. */
  restart(memory: CoreMemory): void {
    this.#memory = memory;
    this.#counted = memory.word(abi.INSTRUCTION_COUNTER) >>> 0;
  }

  #countedNs(): number {
    this.#count();
    return this.#instructions * this.#nsPerInstruction + this.#warpedNs;
  }

  #count(): void {
    if (this.#memory === undefined) return;
    const counter = this.#memory.word(abi.INSTRUCTION_COUNTER) >>> 0;
    this.#instructions += (counter - this.#counted) >>> 0;
    this.#counted = counter;
  }
}
