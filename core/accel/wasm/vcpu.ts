import { SouthbridgeError } from '../../errors.ts';
import type { CpuIdentity, DebugOptions, Vcpu } from '../accelerator.ts';
import type { CpuState } from '../cpu-state.ts';
import type { WasmCpu } from './cpu.ts';
import type { CpuPosition } from './cpu-identity.ts';

/** The VM behind the CPUs; what it is made of may be replaced. */
interface VcpuHost {
  readCpu<T>(index: number, action: (cpu: WasmCpu) => T): T;
  changeCpu(index: number, action: (cpu: WasmCpu) => void): void;
  setPosition(index: number, position: CpuPosition): void;
  setDebug(index: number, options: DebugOptions | undefined): void;
  translate(linear: number): number | undefined;
  readLapic(cpu: number): Uint32Array;
}

/** One of the VM's CPUs. */
export class WasmVcpu implements Vcpu {
  readonly index: number;
  readonly #vm: VcpuHost;

  constructor(vm: VcpuHost, index: number) {
    this.#vm = vm;
    this.index = index;
  }

  get halted(): boolean {
    return this.#vm.readCpu(this.index, cpu => cpu.halted);
  }

  get programCounter(): number {
    return this.#vm.readCpu(this.index, cpu => cpu.programCounter);
  }

  readState(): CpuState {
    return this.#vm.readCpu(this.index, cpu => cpu.read());
  }

  writeState(state: CpuState): void {
    if (state.efer !== 0n) {
      throw new SouthbridgeError(
        'ERR_CPU_STATE',
        'the wasm accelerator has no long mode',
        'choose another accelerator with -accel',
      );
    }
    this.#vm.changeCpu(this.index, cpu => cpu.write(state));
  }

  setIdentity(identity: CpuIdentity): void {
    this.#vm.setPosition(this.index, identity);
  }

  readLapic(): Uint32Array {
    return this.#vm.readLapic(this.index);
  }

  setDebug(options: DebugOptions | undefined): void {
    this.#vm.setDebug(this.index, options);
  }

  translate(linear: bigint): number | undefined {
    return this.#vm.readCpu(this.index, () => this.#vm.translate(Number(BigInt.asUintN(32, linear))));
  }
}
