import type { VmStop } from '../accelerator.ts';
import { codeReport, registersReport } from '../registers-report.ts';
import type { WasmCpu } from './cpu.ts';

/** The module's messages when it panics where hardware would raise a double fault, and then shut down. */
const UNHANDLED_FAULT = /handler|VME/;

/** Why the VM stops by itself: a headline, and what the CPU was about to do. */
export class Failures {
  readonly #cpu: () => WasmCpu;
  readonly #byteAt: (linear: bigint) => number | undefined;
  /** What the module said before it trapped. */
  panic = '';
  /** What a device threw; the first of several. */
  ofDevice: unknown;

  constructor(cpu: () => WasmCpu, byteAt: (linear: bigint) => number | undefined) {
    this.#cpu = cpu;
    this.#byteAt = byteAt;
  }

  /** The module trapped with `error`. */
  trapped(error: unknown, cpu: number): VmStop {
    const { panic } = this;
    this.panic = '';
    if (error instanceof RangeError || UNHANDLED_FAULT.test(panic))
      return { reason: 'shutdown', cpu, report: this.#report('the CPU shut down: a triple fault') };
    const why = panic === '' ? String(error) : panic;
    return { reason: 'internal-error', cpu, report: this.#report(`v86.wasm: ${why}`) };
  }

  /** A device has failed, or undefined. */
  deviceFailed(cpu: number): VmStop | undefined {
    if (this.ofDevice === undefined) return undefined;
    const report = this.#report(`a device failed: ${String(this.ofDevice)}`);
    this.ofDevice = undefined;
    return { reason: 'internal-error', cpu, report };
  }

  #report(headline: string): string {
    const state = this.#cpu().read();
    return `${headline}\n${registersReport(state)}${codeReport(state, this.#byteAt)}`;
  }
}
