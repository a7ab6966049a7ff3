import type { CpuHost } from '../cpu/resolve.ts';
import type { GuestRam } from '../memory/guest-ram.ts';
import type { CpuState } from './cpu-state.ts';

/** What an accelerator can do, so that machines and the command line can refuse early and by name. */
export interface AcceleratorCaps {
  /** Whether the interrupt controllers are the accelerator's own: always (wasm), by choice (kvm), never (qtest). */
  readonly irqchip: 'always' | 'optional' | 'never';
  /** Whether the i8254 comes with the irqchip; where it does not, the machine has its own. */
  readonly pit: boolean;
  readonly maxCpus: number;
  /** Largest guest-physical address that RAM may reach, in bytes. */
  readonly maxRam: number;
  readonly longMode: boolean;
  readonly readonlyMemory: boolean;
  readonly ioeventfd: boolean;
  readonly irqfd: boolean;
  readonly coalescedIo: boolean;
  readonly dirtyLog: boolean;
  /** Whether virtual time can count instructions. */
  readonly icount?: boolean;
}

/** An accelerator: something that runs guest code against a machine's buses. */
export interface Accelerator {
  readonly name: string;
  readonly summary: string;
  readonly caps: AcceleratorCaps;
  /** Throws a SouthbridgeError that says why, where this host cannot run it (no /dev/kvm, no permission, no addon). */
  probe(): void;
  createVm(options: VmOptions): Vm;
}

/**
 * The machine's buses as a vCPU sees them: what each exit calls. Values are little-endian unsigned numbers of at most
 * 32 bits; a 64-bit access comes as two. Implementations never throw.
 */
export interface GuestBus {
  portRead(port: number, size: number): number;
  portWrite(port: number, size: number, value: number): void;
  memoryRead(address: number, size: number): number;
  memoryWrite(address: number, size: number, value: number): void;
  /**
   * A string instruction's accesses to one port (`rep insw`), all at once: fills `count` elements of `size` bytes at
   * `offset` of `data`. False where that port has no faster way; the accelerator then makes them one by one.
   */
  portReadString?(port: number, size: number, data: Uint8Array, offset: number, count: number): boolean;
  /** The same for `rep outsw`. */
  portWriteString?(port: number, size: number, data: Uint8Array, offset: number, count: number): boolean;
}

/** Where the accelerator learns when the next device timer is due. Times are nanoseconds. */
export interface DeadlineSource {
  /** Nanoseconds of host time until the next timer; 0 if one is due, Infinity if there is none. */
  untilDeadline(): number;
  /** Runs all timers that are due. */
  expire(): void;
  /** Called by the accelerator once: `changed` is to be called whenever the next deadline moved earlier. */
  onDeadline(changed: () => void): void;
  /** The machine's virtual clock, for an accelerator whose CPU has no time of its own. */
  readonly virtual?: GuestClock;
}

/** The guest's time, in nanoseconds. */
export interface GuestClock {
  now(): number;
  readonly nextDeadlineNs: number;
  /** Takes time from `source`, nanoseconds that only grow, from now on. */
  driveBy(source: () => number): void;
}

/** Virtual time that counts instructions instead of passing by itself (QEMU's `-icount`), so that a run can be repeated. */
export interface InstructionClock {
  /** An instruction takes 2^shift nanoseconds. */
  readonly shift: number;
  /** Whether a halted guest sleeps until its next timer, or skips the time at once. */
  readonly sleep: boolean;
}

/** The interrupt controller in front of the CPU where the irqchip is ours: the i8259 pair's INTR and INTA (8259A datasheet). */
export interface InterruptSource {
  /** The level of INTR. */
  readonly pending: boolean;
  /** The interrupt-acknowledge cycle: returns the vector, 0 to 255. */
  acknowledge(): number;
  /** Called by the accelerator once: `changed` is to be called whenever INTR rises. */
  onPending(changed: () => void): void;
}

/** Why a VM stopped by itself. */
export type VmStop =
  | { readonly reason: 'shutdown'; readonly cpu: number; readonly report: string }
  | { readonly reason: 'internal-error'; readonly cpu: number; readonly report: string }
  | { readonly reason: 'debug'; readonly cpu: number; readonly address: number }
  | { readonly reason: 'system-event'; readonly cpu: number; readonly event: 'reset' | 'shutdown' | 'crash' };

export interface VmOptions {
  readonly bus: GuestBus;
  readonly clock: DeadlineSource;
  readonly cpus: number;
  /** True where PIC, IOAPIC and LAPIC are to be the accelerator's. */
  readonly irqchip: boolean;
  /** Whether the accelerator is to have the i8254 too; by default it comes with the irqchip. */
  readonly pit?: boolean;
  /** Needed where `irqchip` is false. */
  readonly interrupts?: InterruptSource;
  readonly cpuModel?: string;
  /** Bytes of RAM below 4 GiB; the wasm accelerator keeps guest RAM inside its own memory. */
  readonly lowRam: number;
  /** Only where {@link AcceleratorCaps.icount} is true. */
  readonly icount?: InstructionClock;
  /** The VM has stopped itself; it is not running when this is called. */
  stopped(stop: VmStop): void;
}

/** One virtual machine. All methods are called on the thread that owns the devices. */
export interface Vm {
  /** Guest RAM that this accelerator wants to own (wasm); undefined, or no method, where any {@link GuestRam} will do. */
  allocateRam?(name: string, size: number): GuestRam | undefined;
  /** Shows `size` bytes of `ram` from `offset` at guest-physical `gpa`. All page-aligned. */
  mapRam(gpa: number, ram: GuestRam, offset: number, size: number, readonly: boolean): void;
  unmapRam(gpa: number, size: number): void;
  /** Sets the level of an irqchip input: 0 to 15 ISA, up to 23 the IOAPIC's. */
  setIrq(gsi: number, level: boolean): void;
  /** Delivers a message-signalled interrupt (PCI 3.0, section 6.8). `address` is exact to 2^53. */
  injectMsi(address: number, data: number): void;
  /** A non-maskable interrupt to every CPU. */
  injectNmi(): void;
  /** Devices wrote guest RAM: wasm drops translated code, kvm does nothing. */
  dmaWritten(gpa: number, length: number): void;
  readonly vcpus: readonly Vcpu[];
  /** What CPU features guests may have; everything where absent. */
  readonly cpuHost?: CpuHost;
  /** Lets the vCPUs run, interleaved with the event loop, until `pause` or a stop. */
  start(): void;
  /** Returns once no vCPU is in the guest and all state can be read. Idempotent. */
  pause(): void;
  /** Makes a running vCPU notice work soon; safe at any time. */
  kick(): void;
  /** Puts all vCPUs, and the accelerator's own chips, in their power-on state. */
  reset(): void;
  /** Releases every fd, thread and mapping. Idempotent. */
  dispose(): void;
  /** The CPUs and the accelerator's own chips, whole, without RAM. The VM must not be running. */
  saveState?(): Uint8Array;
  /** @throws SouthbridgeError ERR_STATE_FORMAT where `state` is not one of {@link saveState}'s */
  restoreState?(state: Uint8Array): void;
}

export interface Vcpu {
  readonly index: number;
  readonly halted: boolean;
  readState(): CpuState;
  writeState(state: CpuState): void;
}
