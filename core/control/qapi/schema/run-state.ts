import { command, event } from '../declare.ts';
import { bool, enumeration, opt, struct, uint32, uint64, union } from '../types.ts';

export const RunState = enumeration('RunState', [
  'debug',
  'inmigrate',
  'internal-error',
  'io-error',
  'paused',
  'postmigrate',
  'prelaunch',
  'finish-migrate',
  'restore-vm',
  'running',
  'save-vm',
  'shutdown',
  'suspended',
  'watchdog',
  'guest-panicked',
  'colo',
]);
export const StatusInfo = struct('StatusInfo', { running: bool, singlestep: bool, status: RunState });
export const WatchdogAction = enumeration('WatchdogAction', [
  'reset',
  'shutdown',
  'poweroff',
  'pause',
  'debug',
  'none',
  'inject-nmi',
]);
export const RebootAction = enumeration('RebootAction', ['reset', 'shutdown']);
export const ShutdownAction = enumeration('ShutdownAction', ['poweroff', 'pause']);
export const PanicAction = enumeration('PanicAction', ['pause', 'shutdown', 'exit-failure', 'none']);
export const ShutdownCause = enumeration('ShutdownCause', [
  'none',
  'host-error',
  'host-qmp-quit',
  'host-qmp-system-reset',
  'host-signal',
  'host-ui',
  'guest-shutdown',
  'guest-reset',
  'guest-panic',
  'subsystem-reset',
  'snapshot-load',
]);
export const GuestPanicAction = enumeration('GuestPanicAction', ['pause', 'poweroff', 'run']);
export const GuestPanicInformationType = enumeration('GuestPanicInformationType', ['hyper-v', 's390']);
export const GuestPanicInformationHyperV = struct('GuestPanicInformationHyperV', {
  arg1: uint64,
  arg2: uint64,
  arg3: uint64,
  arg4: uint64,
  arg5: uint64,
});
export const S390CrashReason = enumeration('S390CrashReason', [
  'unknown',
  'disabled-wait',
  'extint-loop',
  'pgmint-loop',
  'opint-loop',
]);
export const GuestPanicInformationS390 = struct('GuestPanicInformationS390', {
  core: uint32,
  'psw-mask': uint64,
  'psw-addr': uint64,
  reason: S390CrashReason,
});
export const GuestPanicInformation = union('GuestPanicInformation', { type: GuestPanicInformationType }, 'type', {
  'hyper-v': GuestPanicInformationHyperV,
  s390: GuestPanicInformationS390,
});
export const MemoryFailureRecipient = enumeration('MemoryFailureRecipient', ['hypervisor', 'guest']);
export const MemoryFailureAction = enumeration('MemoryFailureAction', ['ignore', 'inject', 'fatal', 'reset']);
export const MemoryFailureFlags = struct('MemoryFailureFlags', { 'action-required': bool, recursive: bool });

export const commands = {
  'query-status': command('Whether the machine runs, and why not', { returns: StatusInfo, preconfig: true }),
  'watchdog-set-action': command("What the watchdog's expiry does", { args: { action: WatchdogAction } }),
  'set-action': command('What the program does on guest events', {
    args: {
      reboot: opt(RebootAction),
      shutdown: opt(ShutdownAction),
      panic: opt(PanicAction),
      watchdog: opt(WatchdogAction),
    },
    preconfig: true,
  }),
};

export const events = {
  SHUTDOWN: event({ guest: bool, reason: ShutdownCause }),
  POWERDOWN: event({}),
  RESET: event({ guest: bool, reason: ShutdownCause }),
  STOP: event({}),
  RESUME: event({}),
  SUSPEND: event({}),
  SUSPEND_DISK: event({}),
  WAKEUP: event({}),
  WATCHDOG: event({ action: WatchdogAction }),
  GUEST_PANICKED: event({ action: GuestPanicAction, info: opt(GuestPanicInformation) }),
  GUEST_CRASHLOADED: event({ action: GuestPanicAction, info: opt(GuestPanicInformation) }),
  MEMORY_FAILURE: event({ recipient: MemoryFailureRecipient, action: MemoryFailureAction, flags: MemoryFailureFlags }),
};
