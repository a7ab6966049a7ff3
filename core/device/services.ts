import type { AccessRegisters } from '../accel/accelerator.ts';
import type { MemoryBus } from '../bus/memory-bus.ts';
import type { HostClock, RealtimeClock, VirtualClock } from '../clock/clock.ts';
import type { InputHub } from '../display/input.ts';
import type { DisplayHub } from '../display/screen.ts';
import type { BootTarget } from '../machine/boot-target.ts';
import type { GuestRam } from '../memory/guest-ram.ts';
import type { SharedMemory } from '../memory/shared-memory.ts';
import type { NetCards } from '../net/net-cards.ts';
import type { TraceHub } from '../trace/trace.ts';
import type { DeviceTypeInfo } from './device-type.ts';
import type { BackendLookup } from './property.ts';

/** Why the machine resets or goes down, with QEMU's names (QAPI ShutdownCause). */
export type ShutdownCause =
  | 'host-error'
  | 'host-qmp-quit'
  | 'host-qmp-system-reset'
  | 'host-signal'
  | 'host-ui'
  | 'guest-shutdown'
  | 'guest-reset'
  | 'guest-panic'
  | 'subsystem-reset'
  | 'snapshot-load';

/** The machine's power, as its devices may ask for it. All take effect once the access under way is finished. */
export interface SystemControl {
  /** Whether the guest runs; while it does not, devices leave its memory alone. */
  readonly running: boolean;
  requestReset(cause: ShutdownCause): void;
  /** @param exitCode the process's exit status where the guest chooses one (isa-debug-exit) */
  requestShutdown(cause: ShutdownCause, exitCode?: number): void;
  /** ACPI S3. Wakes up on {@link requestWakeup}. */
  requestSuspend(): void;
  requestWakeup(reason: 'rtc' | 'pmtimer' | 'other'): void;
  /** The guest's kernel has crashed (pvpanic). */
  guestPanicked(action: 'pause' | 'poweroff' | 'run', loaded: boolean): void;
  /** A watchdog has fired: `-watchdog-action` says what happens. */
  watchdogExpired(device: string): void;
  /** What the power button does: the guest is asked to go down by itself. */
  pressPowerButton(): void;
  /** Calls `listener` when the power button is pressed (QMP system_powerdown). Returns a function that removes it. */
  onPowerdown(listener: () => void): () => void;
  /** Calls `listener` each time the guest begins to run or goes on. Returns a function that removes it. */
  onRunning(listener: () => void): () => void;
  /** Calls `listener` each time the guest has stopped, before anything is saved. Returns a function that removes it. */
  onStopped(listener: () => void): () => void;
  onSuspend(listener: () => void): () => void;
  onWakeup(listener: (reason: 'rtc' | 'pmtimer' | 'other') => void): () => void;
  injectNmi(): void;
  /** An event of the machine for management tools, with QEMU's name and data: `DEVICE_DELETED`, `RTC_CHANGE`, ... */
  emit(event: string, data: Readonly<Record<string, unknown>>): void;
}

/** All that a device may touch of the world, handed to it: no global, no machine. */
export interface DeviceServices {
  /** The guest's time. */
  readonly clock: VirtualClock;
  /** The host's time of day, for real-time clocks. */
  readonly hostClock: HostClock;
  /** For what a person looks at. */
  readonly realtimeClock: RealtimeClock;
  readonly trace: TraceHub;
  readonly backends: BackendLookup;
  /** What the user set for every device of a type or of an ancestor of it: QEMU's `-global`. */
  globals?(type: DeviceTypeInfo): Readonly<Record<string, string>>;
  readonly system: SystemControl;
  /** Keyboards and pointers register here for what a person does. */
  readonly input: InputHub;
  /** Display adapters register here for who looks at them. */
  readonly displays: DisplayHub;
  /** Network cards register here for who sends them announcing. */
  readonly netCards: NetCards;
  /** The contents of a ROM image by its file name, searched as QEMU does; throws a named error where there is none. */
  romImage(name: string): Uint8Array;
  /** Adds RAM of a device's own to the guest's state: snapshots hold it. Returns a function that takes it out again. */
  guestRam(ram: GuestRam): () => void;
  /** The guest's RAM that other processes can map. */
  readonly sharedMemory: SharedMemory;
  /** Bytes of RAM that the machine has (`-m`). */
  readonly ramSize: number;
  /** The same with the memory modules that are plugged in now. */
  currentRamSize(): number;
  /** Where devices with memory for the guest put it; undefined where the machine takes none. */
  memoryBus(): MemoryBus | undefined;
  /** For devices that load programs. */
  readonly boot: BootTarget;
  /** CPUs that the machine starts with (`-smp`). */
  readonly cpuCount: number;
  /** The registers of the CPU whose access is being answered; undefined where the access is nobody's (qtest, a monitor). */
  accessRegisters?(): AccessRegisters | undefined;
  /** Uniform in [0, 1); seeded, so that a run can be repeated. */
  random(): number;
}
