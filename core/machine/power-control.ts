import type { VmStop } from '../accel/accelerator.ts';
import type { ShutdownCause, SystemControl } from '../device/services.ts';
import { SouthbridgeError } from '../errors.ts';
import type { Machine } from './machine.ts';
import { needsReset, type RunState } from './run-state.ts';

type WakeupReason = 'rtc' | 'pmtimer' | 'other';
type WatchdogAction = 'reset' | 'shutdown' | 'poweroff' | 'pause' | 'debug' | 'none' | 'inject-nmi';

/** What happens on an event of the guest's (QEMU's `-action`). */
export interface PowerPolicy {
  reboot: 'reset' | 'shutdown';
  shutdown: 'poweroff' | 'pause';
  panic: 'pause' | 'shutdown' | 'exit-failure' | 'none';
  watchdog: WatchdogAction;
}

/**
 * A machine's power and run state. Requests of devices are collected while the guest runs and carried out between two of its
 * instructions, in QEMU's order: suspend, shutdown, reset, wakeup.
 */
export class PowerControl implements SystemControl {
  readonly policy: PowerPolicy = { reboot: 'reset', shutdown: 'poweroff', panic: 'shutdown', watchdog: 'reset' };
  readonly #machine: Machine;
  readonly #powerdownListeners = new Set<() => void>();
  readonly #suspendListeners = new Set<() => void>();
  readonly #runningListeners = new Set<() => void>();
  readonly #stoppedListeners = new Set<() => void>();
  readonly #wakeupListeners = new Set<(reason: WakeupReason) => void>();
  readonly #finished: ((exitCode: number) => void)[] = [];
  #state: RunState = 'prelaunch';
  #resetCause: ShutdownCause | undefined;
  #shutdownCause: ShutdownCause | undefined;
  #exitCode = 0;
  #suspend = false;
  #wakeup: WakeupReason | undefined;
  #scheduled = false;
  #held = false;
  #finishedWith: number | undefined;
  /** A device asked to stop while resetting is under way, and the like: what the state will be afterwards. */
  #report = '';
  #debugStop: Extract<VmStop, { reason: 'debug' }> | undefined;

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  get state(): RunState {
    return this.#state;
  }

  get running(): boolean {
    return this.#state === 'running' && !this.#held;
  }

  /**
   * Until {@link release}, a machine that is started is `running` to those who ask, but its CPUs, clocks and devices wait: its
   * memory is still on the way.
   */
  hold(): void {
    this.#held = true;
  }

  release(): void {
    if (!this.#held) return;
    this.#held = false;
    if (this.#state === 'running') this.#setRunning();
    this.#schedule();
  }

  /** What the accelerator said when the guest stopped by itself. */
  get report(): string {
    return this.#report;
  }

  /** Where the guest last stopped for a debugger. */
  get debugStop(): Extract<VmStop, { reason: 'debug' }> | undefined {
    return this.#debugStop;
  }

  /** Sets the state without starting or stopping anything: for migration. */
  setState(state: RunState): void {
    this.#state = state;
  }

  /** Calls `listener` with the exit status when the machine has been shut down for good. */
  onFinished(listener: (exitCode: number) => void): void {
    if (this.#finishedWith !== undefined) listener(this.#finishedWith);
    else this.#finished.push(listener);
  }

  // The user's side

  start(): void {
    if (this.#state === 'running') return;
    if (needsReset(this.#state))
      throw new SouthbridgeError(
        'ERR_RESET_NEEDED',
        'Resetting the Virtual Machine is required',
        'use system_reset first',
      );
    if (this.#held) this.#state = 'running';
    else this.#setRunning();
    this.#machine.emit('RESUME');
  }

  stop(state: RunState): void {
    if (this.#held && this.#state === 'running') {
      this.#state = state;
      this.#machine.emit('STOP');
      return;
    }
    if (!this.running && this.#state !== 'suspended') {
      if (this.#state === 'prelaunch' || state !== 'paused')
        this.#state = this.#state === 'prelaunch' && state === 'paused' ? 'prelaunch' : state;
      return;
    }
    this.#halt();
    this.#state = state;
    this.#machine.emit('STOP');
  }

  /** The power button. */
  pressPowerButton(): void {
    this.#machine.emit('POWERDOWN');
    for (const listener of [...this.#powerdownListeners]) listener();
  }

  // SystemControl

  requestReset(cause: ShutdownCause): void {
    if (this.policy.reboot === 'shutdown' && cause !== 'subsystem-reset' && cause !== 'snapshot-load') {
      this.#shutdownCause ??= cause;
    } else {
      this.#resetCause ??= cause;
    }
    this.#schedule();
  }

  requestShutdown(cause: ShutdownCause, exitCode = 0): void {
    this.#shutdownCause ??= cause;
    this.#exitCode = exitCode;
    this.#schedule();
  }

  requestSuspend(): void {
    if (this.#state === 'suspended') return;
    this.#suspend = true;
    this.#schedule();
  }

  requestWakeup(reason: WakeupReason): void {
    if (this.#state !== 'suspended') return;
    this.#wakeup = reason;
    this.#schedule();
  }

  guestPanicked(action: 'pause' | 'poweroff' | 'run', loaded: boolean): void {
    if (loaded) {
      this.#machine.emit('GUEST_CRASHLOADED', { action: 'run' });
      return;
    }
    void action;
    const { panic } = this.policy;
    if (panic === 'none') {
      this.#machine.emit('GUEST_PANICKED', { action: 'run' });
      return;
    }
    const keep = panic === 'pause' || this.policy.shutdown === 'pause';
    this.#machine.emit('GUEST_PANICKED', { action: 'pause' });
    this.stop('guest-panicked');
    if (keep) return;
    this.#machine.emit('GUEST_PANICKED', { action: 'poweroff' });
    this.requestShutdown('guest-panic', panic === 'exit-failure' ? 1 : 0);
  }

  watchdogExpired(): void {
    const action = this.policy.watchdog;
    this.#machine.emit('WATCHDOG', { action });
    if (action === 'reset') this.requestReset('guest-reset');
    else if (action === 'shutdown') this.pressPowerButton();
    else if (action === 'poweroff') this.requestShutdown('guest-shutdown');
    else if (action === 'pause') this.stop('watchdog');
    else if (action === 'inject-nmi') this.injectNmi();
  }

  onPowerdown(listener: () => void): () => void {
    return add(this.#powerdownListeners, listener);
  }

  onRunning(listener: () => void): () => void {
    return add(this.#runningListeners, listener);
  }

  onStopped(listener: () => void): () => void {
    return add(this.#stoppedListeners, listener);
  }

  onSuspend(listener: () => void): () => void {
    return add(this.#suspendListeners, listener);
  }

  onWakeup(listener: (reason: WakeupReason) => void): () => void {
    return add(this.#wakeupListeners, listener);
  }

  injectNmi(): void {
    this.#machine.vm.injectNmi();
  }

  emit(event: string, data: Readonly<Record<string, unknown>>): void {
    this.#machine.emit(event, data);
  }

  /** The accelerator gave up: a triple fault resets as a PC does, anything else stops the machine. */
  vmStopped(stop: VmStop): void {
    if (stop.reason === 'system-event') {
      if (stop.event === 'reset') this.requestReset('guest-reset');
      else if (stop.event === 'shutdown') this.requestShutdown('guest-shutdown');
      else this.guestPanicked('pause', false);
      return;
    }
    if (stop.reason === 'debug') {
      this.#debugStop = stop;
      this.stop('debug');
      return;
    }
    this.#report = stop.report;
    this.#machine.emit('CPU_REPORT', { reason: stop.reason, cpu: stop.cpu, report: stop.report });
    if (stop.reason === 'shutdown') this.requestReset('guest-reset');
    else this.stop('internal-error');
  }

  dispose(): void {
    this.#powerdownListeners.clear();
    this.#suspendListeners.clear();
    this.#wakeupListeners.clear();
    this.#shutdownCause = undefined;
    this.#resetCause = undefined;
  }

  /** Carries out what was asked for; the guest is between two instructions. */
  process(): void {
    this.#scheduled = false;
    if (this.#suspend) {
      this.#suspend = false;
      this.#halt();
      this.#state = 'suspended';
      this.#machine.emit('SUSPEND');
      for (const listener of [...this.#suspendListeners]) listener();
    }
    if (this.#shutdownCause !== undefined) {
      const cause = this.#shutdownCause;
      this.#shutdownCause = undefined;
      this.#shutDown(cause);
      return;
    }
    if (this.#resetCause !== undefined && !this.#held) {
      const cause = this.#resetCause;
      this.#resetCause = undefined;
      this.reset(cause);
    }
    if (this.#wakeup !== undefined) {
      const reason = this.#wakeup;
      this.#wakeup = undefined;
      this.#wakeUp(reason);
    }
  }

  /** Resets the whole machine and lets it go on if it was running. */
  reset(cause: ShutdownCause): void {
    const resume = this.running || this.#state === 'suspended';
    if (resume) this.#halt();
    this.#machine.resetDevices();
    if (cause !== 'subsystem-reset') this.#machine.emit('RESET', { guest: isGuest(cause), reason: cause });
    if (needsReset(this.#state)) this.#state = 'prelaunch';
    if (resume) this.#setRunning();
  }

  #wakeUp(reason: WakeupReason): void {
    this.#machine.resetDevices();
    for (const listener of [...this.#wakeupListeners]) listener(reason);
    this.#setRunning();
    this.#machine.emit('WAKEUP');
  }

  #shutDown(cause: ShutdownCause): void {
    this.#machine.emit('SHUTDOWN', { guest: isGuest(cause), reason: cause });
    const stays =
      this.policy.shutdown === 'pause' && cause !== 'host-qmp-quit' && cause !== 'host-signal' && cause !== 'host-ui';
    if (stays) {
      if (this.running || this.#state === 'suspended') this.stop('shutdown');
      else this.#state = 'shutdown';
      return;
    }
    // Nobody is told that a machine which is going away has stopped.
    if (this.running) this.#halt();
    this.#state = 'shutdown';
    this.#finishedWith = this.#exitCode;
    for (const listener of this.#finished.splice(0)) listener(this.#exitCode);
  }

  #setRunning(): void {
    this.#state = 'running';
    if (this.#machine.accelerator.name !== 'qtest') this.#machine.clocks.virtual.resume();
    this.#machine.clocks.setServed(this.#machine.accelerator.name !== 'qtest');
    this.#machine.vm.start();
    for (const listener of [...this.#runningListeners]) listener();
  }

  #halt(): void {
    this.#machine.vm.pause();
    this.#machine.clocks.virtual.suspend();
    this.#machine.clocks.setServed(false);
    for (const listener of [...this.#stoppedListeners]) listener();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    this.#machine.vm.kick();
    setImmediate(() => {
      if (this.#scheduled) this.process();
    });
  }
}

function isGuest(cause: ShutdownCause): boolean {
  return cause.startsWith('guest-');
}

function add<T>(listeners: Set<T>, listener: T): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}
