import * as abi from './abi.ts';
import type { BusImports } from './bus-port.ts';
import { CompiledCode } from './compiled-code.ts';
import { CoreMemory } from './core-memory.ts';
import { WasmCpu } from './cpu.ts';
import { ReadWidth } from './read-width.ts';

/** One instance of the module and what hangs on it; replaced when the module breaks. */
export interface Engine {
  readonly instance: abi.Instance;
  readonly core: abi.Core;
  readonly memory: CoreMemory;
  readonly code: CompiledCode;
  readonly cpu: WasmCpu;
  readonly reads: ReadWidth;
}

/** What the module calls for. */
export interface EngineHooks {
  readonly bus: BusImports;
  readonly ramBase: () => number;
  nowMs(): number;
  check(): void;
  random(): number;
  /** The JIT has generated code, which the module is to be told of soon. */
  codeReady(): void;
  panicked(text: string): void;
  /** Answers {@link abi.ASK_INTERRUPT}; and {@link abi.ASK_CPUID} and {@link abi.ASK_RDMSR}: 1 where it is done, 0 for the module to do it. */
  ask(question: number): number;
}

/** @param chips whether the module is to have interrupt controllers; where not, it is one CPU of several, and asks which. */
export function makeEngine(hooks: EngineHooks, chips: boolean): Engine {
  const { bus } = hooks;
  const instance = abi.instantiate(abi.load(chips), {
    ...bus,
    ...(!chips && { io_port_read32: port => (port < abi.ASK_CPUID ? bus.io_port_read32(port) : hooks.ask(port)) }),
    microtick: () => hooks.nowMs(),
    run_hardware_timers: () => {
      hooks.check();
      return 0;
    },
    cpu_event_halt: () => {},
    stop_idling: () => {},
    get_rand_int: () => hooks.random(),
    codegen_finalize: (index, start, stateFlags, pointer, length) => {
      const from = pointer >>> 0;
      code.compile(index, start, stateFlags, memory.bytes.subarray(from, from + (length >>> 0)));
      hooks.codeReady();
    },
    jit_clear_func: index => code.drop(index),
    console_log_from_wasm: (pointer, length) => {
      const from = pointer >>> 0;
      hooks.panicked(Buffer.from(memory.bytes.subarray(from, from + (length >>> 0))).toString('utf8'));
    },
  });
  const { core } = instance;
  const memory = new CoreMemory(instance.memory);
  const code = new CompiledCode(instance);
  const reads = new ReadWidth(memory, hooks.ramBase);
  reads.watch(instance);
  const cpu = new WasmCpu(core, memory, hooks.ramBase);
  abi.checkLayout(instance);
  memory.setByte(abi.APIC_PRESENT, 1);
  memory.setByte(abi.APIC_ENABLED, 1);
  return { instance, core, memory, code, cpu, reads };
}
