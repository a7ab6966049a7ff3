import { performance } from 'node:perf_hooks';
import type { DebugOptions, DebugTrap, GuestBus } from '../accelerator.ts';
import * as abi from './abi.ts';
import { Breakpoints } from './breakpoints.ts';
import type { CoreMemory } from './core-memory.ts';
import type { WasmCpu } from './cpu.ts';
import type { GuestMemory } from './guest-memory.ts';
import { Stepper, type Watch } from './stepper.ts';

const INT3 = 0xcc;
/** How long a slice of single steps may take. */
const STEPPING_MS = 5;

/** What the debugger needs of the VM that it debugs. */
export interface DebugHost {
  readonly instance: abi.Instance;
  readonly memory: CoreMemory;
  readonly cpu: WasmCpu;
  readonly ram: GuestMemory;
  readonly bus: GuestBus;
  translate(linear: number): number | undefined;
  /** Runs the module's main loop; `access` takes the guest's memory accesses meanwhile. */
  run(access?: Pick<GuestBus, 'memoryRead' | 'memoryWrite'>): void;
  /** Ends the run at the module's next check, which comes at once. */
  endRun(): void;
  letInterruptsIn(): void;
}

export interface DebugEvent {
  /** Linear address of the instruction that comes next. */
  readonly address: number;
  readonly trap: DebugTrap;
}

/** Runs the guest for a debugger: breakpoints at full speed, single steps, and watchpoints by single steps. */
export class GuestDebug {
  readonly #host: DebugHost;
  readonly #options: DebugOptions;
  readonly #stepper: Stepper;
  readonly #breakpoints: Breakpoints;
  #trapped = false;
  #armed = false;
  /** The guest runs at full speed until it meets a breakpoint. */
  #toBreakpoint = false;
  /** The instruction at which the guest was resumed: its breakpoint has been seen. */
  #resumedAt: number | undefined;

  constructor(host: DebugHost, options: DebugOptions) {
    this.#host = host;
    this.#options = options;
    const { instance, memory, cpu, ram, bus } = host;
    this.#stepper = new Stepper(instance, memory, cpu, ram, bus, () => host.endRun());
    this.#breakpoints = new Breakpoints(memory, cpu, ram, linear => host.translate(linear));
    this.#resumedAt = this.#ip;
  }

  /** Called at each of the module's checks. True where the run is to end: at a breakpoint, or to set breakpoints anew. */
  check(): boolean {
    if (this.#host.cpu.halted && this.#breakpoints.hit) this.#trapped = true;
    return this.#trapped || this.#stale;
  }

  /** The guest may have got other code. */
  codeMayChange(): void {
    if (this.#stale) this.#host.endRun();
  }

  get #stale(): boolean {
    return this.#toBreakpoint && this.#breakpoints.overwritten;
  }

  /** Takes everything of the debugger's out of guest memory: somebody may look. */
  withdraw(): void {
    this.#breakpoints.disarm();
    this.#armed = false;
  }

  /** One slice. Returns what the guest ran into, if anything. */
  run(): DebugEvent | undefined {
    if (this.#options.reflect === 'software-breakpoint' && this.#resumedAt !== undefined) {
      this.#step([]);
      this.#resumedAt = undefined;
    }
    if (this.#options.singleStep) {
      const watch = this.#step(this.#watches());
      return this.#event(watch < 0 ? { kind: 'step' } : { kind: 'hardware', index: watch });
    }
    return this.#options.hardware.some(({ kind }) => kind !== 'execute')
      ? this.#runWatching()
      : this.#runToBreakpoint();
  }

  #runToBreakpoint(): DebugEvent | undefined {
    const addresses = this.#executeAddresses();
    if (this.#resumedAt !== undefined && addresses.includes(this.#ip)) {
      this.withdraw();
      this.#step([]);
    }
    this.#resumedAt = undefined;
    if (!this.#armed || this.#breakpoints.moved || this.#breakpoints.overwritten) this.#breakpoints.arm(addresses);
    this.#armed = true;
    this.#trapped = false;
    this.#host.letInterruptsIn();
    this.#toBreakpoint = true;
    this.#host.run();
    this.#toBreakpoint = false;
    return this.#trapped ? this.#taken(addresses) : undefined;
  }

  #taken(addresses: readonly number[]): DebugEvent | undefined {
    this.#trapped = false;
    const address = this.#breakpoints.unwind();
    this.withdraw();
    if (address !== undefined) {
      if (addresses.includes(address)) return this.#event(this.#hardware(address));
      if (this.#options.softwareBreakpoints) return this.#event({ kind: 'software-breakpoint' });
      this.#step([]);
    }
    // The guest's own: its handler runs, beyond the instruction that is patched.
    this.#step([]);
    return undefined;
  }

  #runWatching(): DebugEvent | undefined {
    const until = performance.now() + STEPPING_MS;
    const addresses = this.#executeAddresses();
    const watches = this.#watches();
    do {
      const ip = this.#ip;
      if (this.#resumedAt !== ip) {
        if (addresses.includes(ip)) return this.#event(this.#hardware(ip));
        if (this.#options.softwareBreakpoints && this.#byteAt(ip) === INT3)
          return this.#event({ kind: 'software-breakpoint' });
      }
      this.#resumedAt = undefined;
      const touched = this.#step(watches);
      if (touched >= 0) return this.#event({ kind: 'hardware', index: this.#watchIndices()[touched] ?? 0 });
      if (!this.#stepper.shadow) this.#host.letInterruptsIn();
    } while (!this.#host.cpu.halted && performance.now() < until);
    return undefined;
  }

  #step(watches: readonly Watch[]): number {
    const { cpu } = this.#host;
    if (cpu.halted) return -1;
    return this.#stepper.step(
      linear => this.#host.translate(linear),
      watches,
      () => this.#host.run(this.#stepper),
    );
  }

  get #ip(): number {
    return this.#host.memory.word(abi.INSTRUCTION_POINTER) >>> 0;
  }

  #event(trap: DebugTrap): DebugEvent {
    return { address: this.#ip, trap };
  }

  #hardware(address: number): DebugTrap {
    const index = this.#options.hardware.findIndex(
      point => point.kind === 'execute' && Number(BigInt.asUintN(32, point.address)) === address,
    );
    return { kind: 'hardware', index };
  }

  #executeAddresses(): number[] {
    return this.#options.hardware
      .filter(({ kind }) => kind === 'execute')
      .map(({ address }) => Number(BigInt.asUintN(32, address)));
  }

  #watchIndices(): number[] {
    return this.#options.hardware.flatMap(({ kind }, index) => (kind === 'execute' ? [] : [index]));
  }

  #watches(): Watch[] {
    return this.#watchIndices().map(index => {
      const point = this.#options.hardware[index];
      const linear = Number(BigInt.asUintN(32, point?.address ?? 0n));
      return {
        address: this.#host.translate(linear) ?? Number.POSITIVE_INFINITY,
        length: point?.length ?? 1,
        writesOnly: point?.kind === 'write',
      };
    });
  }

  #byteAt(linear: number): number | undefined {
    const gpa = this.#host.translate(linear);
    return gpa === undefined ? undefined : this.#host.ram.byteAt(gpa);
  }
}
