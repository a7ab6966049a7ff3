import type { DebugOptions } from '../../accel/accelerator.ts';
import type { CpuState } from '../../accel/cpu-state.ts';
import type { AddressSpace } from '../../memory/address-space.ts';
import { translate } from '../debug/translate.ts';

const INT3 = 0xcc;
const MAX_HARDWARE = 4;

interface SoftwareBreakpoint {
  readonly physical: number;
  readonly original: number;
  uses: number;
}

type Hardware = DebugOptions['hardware'][number];

/** The breakpoints and watchpoints of a debugger: `int3` in guest memory, and the CPU's debug registers. */
export class Breakpoints {
  readonly #memory: AddressSpace;
  readonly #software = new Map<bigint, SoftwareBreakpoint>();
  #hardware: readonly Hardware[] = [];

  readonly #unlimited: boolean;

  /** @param unlimited whether the CPUs have as many hardware breakpoints as one likes, so that no code need be changed */
  constructor(memory: AddressSpace, unlimited: boolean) {
    this.#memory = memory;
    this.#unlimited = unlimited;
  }

  get software(): boolean {
    return this.#software.size > 0;
  }

  get hardware(): readonly Hardware[] {
    return this.#hardware;
  }

  /** `Z0`; false where the address is not mapped or is in a ROM. */
  insertSoftware(cpu: CpuState, address: bigint): boolean {
    if (this.#unlimited) return this.insertHardware('execute', address, 1);
    const known = this.#software.get(address);
    if (known !== undefined) {
      known.uses++;
      return true;
    }
    const physical = translate(cpu, this.#memory, address);
    if (physical === undefined) return false;
    const original = this.#memory.read(physical, 1);
    this.#memory.writeBytes(physical, Uint8Array.of(INT3), 0, 1);
    if (this.#memory.read(physical, 1) !== INT3) return false;
    this.#software.set(address, { physical, original, uses: 1 });
    return true;
  }

  /** `z0`. */
  removeSoftware(address: bigint): boolean {
    if (this.#unlimited) return this.removeHardware('execute', address);
    const known = this.#software.get(address);
    if (known === undefined) return false;
    if (--known.uses > 0) return true;
    this.#software.delete(address);
    if (this.#memory.read(known.physical, 1) === INT3)
      this.#memory.writeBytes(known.physical, Uint8Array.of(known.original), 0, 1);
    return true;
  }

  /** `Z1` to `Z4`; false where all four debug registers are taken or the length does not fit. */
  insertHardware(kind: Hardware['kind'], address: bigint, length: number): boolean {
    const full = !this.#unlimited && this.#hardware.length >= MAX_HARDWARE;
    if (full || ![1, 2, 4, 8].includes(length)) return false;
    this.#hardware = [...this.#hardware, { kind, address, length: kind === 'execute' ? 1 : length }];
    return true;
  }

  removeHardware(kind: Hardware['kind'], address: bigint): boolean {
    const index = this.#hardware.findIndex(entry => entry.kind === kind && entry.address === address);
    if (index >= 0) this.#hardware = this.#hardware.toSpliced(index, 1);
    return index >= 0;
  }

  /** What the debugger reads shows the original bytes, not its `int3`. */
  hide(bytes: Uint8Array, address: bigint): void {
    for (const [at, { original }] of this.#software) {
      const offset = Number(at - address);
      if (offset >= 0 && offset < bytes.length) bytes[offset] = original;
    }
  }

  clear(): void {
    for (const address of [...this.#software.keys()]) {
      const known = this.#software.get(address);
      if (known !== undefined) known.uses = 1;
      this.removeSoftware(address);
    }
    this.#hardware = [];
  }
}
