import { SouthbridgeError } from '../errors.ts';
import { hostCalls } from './calls.ts';

/** Sets of system calls that the process can give up; their members are in `native/sandbox.cc`. */
export interface DeniedCalls {
  /** Those that the C library no longer uses. */
  readonly obsolete: boolean;
  /** Those that change who the process is. */
  readonly privileges: boolean;
  /** New processes and programs; threads stay possible. */
  readonly spawn: boolean;
  /** Priorities, schedulers and CPU affinity: these fail, the others end the process. */
  readonly resources: boolean;
}

const BASE = 1;
const BITS = { obsolete: 2, privileges: 4, spawn: 8, resources: 16 } as const satisfies Record<
  keyof DeniedCalls,
  number
>;

let spawnDenied = false;

/** Whether this host can filter the system calls of a running process. */
export function canSandbox(): boolean {
  try {
    return hostCalls().canSandbox();
  } catch {
    return false;
  }
}

/**
 * Gives up system calls for good, in all threads, and the right to gain privileges by executing programs with it. A denied call
 * ends the process with SIGSYS.
 *
 * @throws SouthbridgeError ERR_SANDBOX where the kernel refuses
 */
export function enterSandbox(denied: DeniedCalls): void {
  const chosen = (Object.keys(BITS) as (keyof DeniedCalls)[]).filter(set => denied[set]);
  try {
    hostCalls().enterSandbox(chosen.reduce((bits, set) => bits | BITS[set], BASE));
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw new SouthbridgeError('ERR_SANDBOX', `failed to load seccomp syscall filter in kernel: ${why}`);
  }
  spawnDenied ||= denied.spawn;
}

/**
 * To be called before another program is started: in the sandbox the attempt would end this one.
 *
 * @param what who wants to start it
 * @throws SouthbridgeError ERR_SANDBOX
 */
export function mayStartPrograms(what: string): void {
  if (!spawnDenied) return;
  throw new SouthbridgeError(
    'ERR_SANDBOX',
    `${what} would start a program, which '-sandbox spawn=deny' forbids`,
    "take '-sandbox on,spawn=allow', or have it started from outside",
  );
}
