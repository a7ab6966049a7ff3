import { SouthbridgeError } from '../../errors.ts';
import type { DebugOptions, Vcpu } from '../accelerator.ts';
import type { CpuState } from '../cpu-state.ts';
import type { WasmCpu } from './cpu.ts';

/** The VM behind the CPU; what it is made of may be replaced. */
interface VcpuHost {
  readonly cpu: WasmCpu;
  setDebug(options: DebugOptions | undefined): void;
  translate(linear: number): number | undefined;
  readLapic(): Uint32Array;
}

/** The VM's one CPU. */
export class WasmVcpu implements Vcpu {
  readonly index = 0;
  readonly #vm: VcpuHost;

  constructor(vm: VcpuHost) {
    this.#vm = vm;
  }

  get halted(): boolean {
    return this.#vm.cpu.halted;
  }

  get programCounter(): number {
    return this.#vm.cpu.programCounter;
  }

  readState(): CpuState {
    return this.#vm.cpu.read();
  }

  writeState(state: CpuState): void {
    if (state.efer !== 0n) {
      throw new SouthbridgeError(
        'ERR_CPU_STATE',
        'the wasm accelerator has no long mode',
        'choose another accelerator with -accel',
      );
    }
    this.#vm.cpu.write(state);
  }

  readLapic(): Uint32Array {
    return this.#vm.readLapic();
  }

  setDebug(options: DebugOptions | undefined): void {
    this.#vm.setDebug(options);
  }

  translate(linear: bigint): number | undefined {
    return this.#vm.translate(Number(BigInt.asUintN(32, linear)));
  }
}
