import type { DeadlineSource, GuestBus, InterruptSource, VmStop } from '../accelerator.ts';
import * as abi from './abi.ts';
import type { NativeScheduler } from './addon.ts';
import { ExitServer } from './exits.ts';
import type { CoalescedWrites } from './io-offload.ts';
import type { KvmVcpu } from './vcpu.ts';

/** What a run loop tells its VM. */
export interface RunLoopHost {
  readonly bus: GuestBus;
  readonly clock: DeadlineSource;
  readonly interrupts: InterruptSource | undefined;
  readonly coalesced: CoalescedWrites;
  /** An exit that is neither a port nor a memory access: the reason to stop, or undefined where the guest goes on. */
  stopFor(cpu: KvmVcpu, words: Int32Array): VmStop | undefined;
  stopped(stop: VmStop): void;
  /** Called after each slice, outside all exits, with every instruction of this slice finished where `running` is not. */
  afterSlice(): void;
}

/** One vCPU and its exits. */
export class CpuExits extends ExitServer {
  readonly cpu: KvmVcpu;
  readonly #host: RunLoopHost;

  constructor(cpu: KvmVcpu, host: RunLoopHost) {
    super(cpu.native.page, host.bus);
    this.cpu = cpu;
    this.#host = host;
  }

  /** Answers the exit in the page; what is not an access may be a reason to stop. */
  answer(): VmStop | undefined {
    const reason = this.words[abi.RUN_EXIT_REASON];
    if (this.#host.coalesced.active) this.#host.coalesced.flush();
    if (reason === abi.EXIT_IO) this.io();
    else if (reason === abi.EXIT_MMIO) this.mmio();
    else return this.#host.stopFor(this.cpu, this.words);
    return undefined;
  }
}

/** The part of a loop that knows the device clock: it arms the addon's timer and fires what is due. */
export class DeadlineKeeper {
  readonly #clock: DeadlineSource;
  readonly #scheduler: NativeScheduler;
  /** The next deadline may have moved since it was last armed. */
  moved = true;

  constructor(clock: DeadlineSource, scheduler: NativeScheduler, movedOutside: () => void) {
    this.#clock = clock;
    this.#scheduler = scheduler;
    clock.onDeadline(() => {
      if (this.moved) return;
      this.moved = true;
      movedOutside();
    });
  }

  expire(): void {
    if (this.#clock.untilDeadline() <= 0) this.#clock.expire();
    this.moved = true;
  }

  arm(): void {
    this.moved = false;
    this.#scheduler.setDeadline(this.#clock.untilDeadline());
  }
}
