import type { CpuHost, ResolvedCpu } from '../cpu/resolve.ts';
import type { GuestRam } from '../memory/guest-ram.ts';
import type { CpuState } from './cpu-state.ts';

/** What an accelerator can do, so that machines and the command line can refuse early and by name. */
export interface AcceleratorCaps {
  /**
   * Whether the interrupt controllers are the accelerator's own: by choice (kvm), never (qtest), or as long as there is one CPU
   * (wasm). An accelerator without them may yet have local APICs.
   */
  readonly irqchip: 'optional' | 'never' | 'one-cpu';
  /** Whether the i8254 comes with the irqchip; where it does not, the machine has its own. */
  readonly pit: boolean;
  /** CPUs that it can run. A machine may have more, which then stay off. */
  readonly maxCpus: number;
  /** Whether CPUs that are plugged in later stay off, too. */
  readonly fixedCpus?: boolean;
  /** Largest guest-physical address that RAM may reach, in bytes. */
  readonly maxRam: number;
  readonly longMode: boolean;
  readonly readonlyMemory: boolean;
  readonly ioeventfd: boolean;
  readonly irqfd: boolean;
  readonly coalescedIo: boolean;
  readonly dirtyLog: boolean;
  /** Whether its CPUs enter system management mode on an SMI; firmware leaves SMM alone where the chipset says they do not. */
  readonly smm?: boolean;
  /** Whether a debugger may have as many hardware breakpoints and watchpoints as it likes; four where not. */
  readonly unlimitedBreakpoints?: boolean;
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
  | { readonly reason: 'debug'; readonly cpu: number; readonly address: number; readonly trap?: DebugTrap }
  | { readonly reason: 'system-event'; readonly cpu: number; readonly event: 'reset' | 'shutdown' | 'crash' };

/** What a guest under a debugger ran into. */
export type DebugTrap =
  | { readonly kind: 'step' | 'software-breakpoint' }
  /** `index` is that of {@link DebugOptions.hardware}. */
  | { readonly kind: 'hardware'; readonly index: number };

/** What a debugger wants of one vCPU. */
export interface DebugOptions {
  /** Stop after each instruction. */
  readonly singleStep: boolean;
  /** `int3` in guest memory is the debugger's. One that is not is given back with `reflect`. */
  readonly softwareBreakpoints: boolean;
  /** At most four unless {@link AcceleratorCaps.unlimitedBreakpoints}; `length` is 1, 2, 4 or 8 bytes, 1 for `execute` (Intel SDM volume 3, section 17.2.4). */
  readonly hardware: readonly { kind: 'execute' | 'write' | 'access'; address: bigint; length: number }[];
  /** Delivers to the guest the trap that it last stopped for, which was its own. */
  readonly reflect?: 'software-breakpoint' | 'hardware';
}

/** A guest access that an eventfd stands for. */
export interface Doorbell {
  readonly space: 'pio' | 'mmio';
  readonly address: number;
  /** Width of the write in bytes; 0 where any will do. */
  readonly size: 0 | 1 | 2 | 4 | 8;
  /** Only a write of this value. */
  readonly value?: number;
}

/** A message-signalled interrupt that an irqfd can deliver. */
export interface MsiRoute {
  readonly gsi: number;
  update(address: number, data: number): void;
  release(): void;
}

/** Channel 2 of the accelerator's i8254 as port 61h sees it. */
export interface SpeakerChannel {
  gate: boolean;
  readonly out: boolean;
  /** Hertz of the square wave; 0 where it makes none. */
  readonly frequency: number;
}

/** What a vCPU says it is, where the accelerator can tell it. */
export interface CpuIdentity {
  readonly cpu: ResolvedCpu;
  readonly apicId: number;
  /** Dies in a socket, cores in a die, threads in a core. */
  readonly topology: { readonly dies: number; readonly cores: number; readonly threads: number };
  /** Bits of a physical address. */
  readonly physicalBits: number;
  /** Whether the guest may use the host's performance counters. */
  readonly hostPmu: boolean;
}

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
  /** Where `irqchip` is false and the local APICs are the accelerator's all the same: a CPU has served a level-triggered interrupt. */
  endOfInterrupt?(vector: number): void;
  /** What the CPUs are until `setIdentity` says it. */
  readonly cpuModel?: string;
  /** The APIC ID of each CPU; by default its number. */
  readonly apicIds?: readonly number[];
  /** Those of CPUs that may come later, whose numbers follow. */
  readonly laterApicIds?: readonly number[];
  /** Bytes of RAM below 4 GiB; the wasm accelerator keeps guest RAM inside its own memory. */
  readonly lowRam: number;
  /** Only where {@link AcceleratorCaps.icount} is true. */
  readonly icount?: InstructionClock;
  /** The VM has stopped itself; it is not running when this is called. */
  stopped(stop: VmStop): void;
}

/** The general registers of a CPU whose access is being answered, for a device that takes arguments in them. */
export interface AccessRegisters {
  /** Fills `into` with bits 31:0 of the first eight of {@link GPR_NAMES}. */
  read(into: Uint32Array): void;
  /** The registers that differ get these values, and zeros above (Intel SDM volume 1, section 3.4.1.1). */
  write(from: Uint32Array): void;
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
  /** Absent where the i8254 is not the accelerator's. */
  readonly speaker?: SpeakerChannel;

  /** From now on a write that matches signals the eventfd `fd` and does not exit. Returns what undoes it. */
  ioeventfd?(fd: number, doorbell: Doorbell): () => void;
  /** Each signal of the eventfd `fd` raises `gsi`; with `resampleFd` as a level that its EOI lowers and signals. */
  irqfd?(fd: number, gsi: number, resampleFd?: number): () => void;
  /** A new GSI that stands for a message, for `irqfd`. */
  msiRoute?(address: number, data: number): MsiRoute;
  /** Writes here may wait: they reach the bus, in order, before the next exit is answered or with `flushCoalesced`. */
  coalesce?(space: 'pio' | 'mmio', address: number, size: number): () => void;
  flushCoalesced?(): void;
  /** Starts or stops recording which pages of the RAM mapped at `gpa` the guest writes. */
  logDirty?(gpa: number, on: boolean): void;
  /** One bit a page, from the first page on, of what the guest has written since the last call. */
  readDirty?(gpa: number): Uint8Array;
  /** All that the accelerator keeps of the guest but its RAM; of a paused VM. */
  saveState?(): Uint8Array;
  /** @throws SouthbridgeError ERR_STATE_FORMAT, with nothing changed, where the bytes are not such a state */
  restoreState?(state: Uint8Array): void;

  /** The CPUs that are there, in the order of their numbers, of which some may be missing. */
  readonly vcpus: readonly Vcpu[];
  /** A CPU comes, and waits to be started. Undefined, or no method, where the accelerator cannot run it. */
  plugCpu?(index: number): Vcpu | undefined;
  /** A CPU that came goes. */
  unplugCpu?(index: number): void;
  /** Those of the CPU whose access is being answered; undefined where none is. */
  readonly accessRegisters?: AccessRegisters | undefined;
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
}

export interface Vcpu {
  readonly index: number;
  readonly halted: boolean;
  /** The kernel's number of the thread that runs this vCPU and nothing else; undefined where there is none. */
  readonly threadId?: number | undefined;
  /** The linear address of the instruction under way, while it accesses a device; absent where {@link readState} tells. */
  readonly programCounter?: number;
  readState(): CpuState;
  writeState(state: CpuState): void;
  /** The local APIC's page, a word for each 16 bytes of it; undefined where the accelerator has none. */
  readLapic?(): Uint32Array | undefined;
  /** Makes the CPU what its model and the user's wishes say. Once, before it first runs. */
  setIdentity?(identity: CpuIdentity): void;
  /** Puts the vCPU under a debugger, or with undefined takes it out again. */
  setDebug?(options: DebugOptions | undefined): void;
  /** The guest-physical address of a linear one; undefined where nothing is mapped there. */
  translate?(linear: bigint): number | undefined;
}
