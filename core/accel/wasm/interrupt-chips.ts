import type * as abi from './abi.ts';
import type { CoreMemory } from './core-memory.ts';

/** What stands between the devices' interrupts and the CPUs: the module's own chips, or local APICs of ours. */
export interface InterruptChips {
  /** Moves to a new instance of the module. */
  attach(core: abi.Core, memory: CoreMemory): void;
  /** Level of input `gsi`; only where the 8259A pair and the IOAPIC are the module's. */
  setIrq(gsi: number, level: boolean): void;
  /** A message-signalled interrupt (Intel SDM volume 3, section 11.11). */
  message(address: number, data: number): void;
  /** The machine's NMI line is pulsed. */
  nonMaskableLine(): void;
  /** Runs the local timers. Returns when the next of them is due, in nanoseconds of virtual time. */
  runTimers(nowNs: number): number;
  /** A CPU's local APIC, a word for each 16 bytes of it, as the CPU reads it. */
  readLapic(cpu: number): Uint32Array;
  /** Makes `action` see an interrupt of that vector, which must be 2. */
  asVector(vector: number, action: () => void): void;
  reset(): void;
  /** The registers as bytes, always as many. */
  save(): Uint8Array;
  /** @param deltaMs how much later it is by this machine's clock than it was by that of the saved one */
  restore(state: Uint8Array, levels: number, deltaMs: number): void;
  /** The levels of all inputs. */
  readonly levels: number;
}

/** Who hears of what the chips have for a CPU. */
export interface InterruptTargets {
  /** That CPU has an interrupt to take, unless EFLAGS.IF or its local APIC hold it back. */
  interrupted(cpu: number): void;
  nonMaskable(cpu: number): void;
}
