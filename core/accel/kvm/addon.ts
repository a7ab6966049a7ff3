import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SouthbridgeError } from '../../errors.ts';

/** What an ioctl takes: nothing, a number, or bytes in the layout of Linux's `<linux/kvm.h>`. */
export type IoctlArgument = number | ArrayBufferView | undefined;

/** A failed system call, with Node's own fields. */
export interface SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
}

export interface NativeVm {
  systemIoctl(request: number, argument?: IoctlArgument): number;
  ioctl(request: number, argument?: IoctlArgument): number;
  /** Holds `bytes` until the slot is set again or the VM closes; size 0 removes the slot. */
  setMemory(slot: number, flags: number, gpa: number, bytes: Uint8Array | undefined, size: number): void;
  /** Reads one bit a page of a slot and clears them in the kernel. */
  dirtyLog(slot: number, bitmap: Uint8Array): void;
  close(): void;
}

export interface NativeVcpu {
  /** The kvm_run page, the PIO data page and the coalesced ring; detached once the vCPU is closed. */
  readonly page: ArrayBuffer;
  ioctl(request: number, argument?: IoctlArgument): number;
  /** Finishes the answered exit's instruction; true where that made another exit. */
  complete(): boolean;
  /** Gives this vCPU a thread of its own, parked. Its state is word `RUN_THREAD_STATE` of the page. */
  startThread(scheduler: NativeScheduler): void;
  /** The thread's exit has been answered. */
  resume(): void;
  /** Asks the thread to leave the guest; `awaitParked` waits for it: true where an exit must be answered first. */
  park(): void;
  awaitParked(): boolean;
  unpark(): void;
  close(): void;
}

export interface NativeScheduler {
  /** The function that enters the guest once on this thread; the outcome is `exit_reason` in the vCPU's page. */
  bind(vcpu: NativeVcpu): () => void;
  /** Asks for a slice soon. */
  wake(): void;
  /** While on, vCPU threads do not ask for a slice: the device thread looks at them by itself. */
  setAttentive(on: boolean): void;
  /** Nanoseconds from now until the next device timer; Infinity for none. */
  setDeadline(ns: number): void;
  /** Whether this VM keeps the process alive. */
  setRef(on: boolean): void;
  close(): void;
}

export interface Addon {
  readonly KvmVm: new () => NativeVm;
  readonly KvmVcpu: new (vm: NativeVm, id: number) => NativeVcpu;
  /** `slice` runs in the event loop's check phase, once after each `wake`. */
  readonly Scheduler: new (
    slice: () => void,
  ) => NativeScheduler;
}

const ADDON = join('native', 'build', 'Release', 'southbridge.node');
let loaded: Addon | undefined;

/**
 * The native addon, loaded once.
 * @throws SouthbridgeError ERR_ADDON_MISSING where it has not been built, ERR_ADDON_LOAD where this Node cannot load it
 */
export function loadAddon(): Addon {
  if (loaded !== undefined) return loaded;
  const path = join(packageRoot(), ADDON);
  if (!existsSync(path)) {
    throw new SouthbridgeError(
      'ERR_ADDON_MISSING',
      `the native addon ${path} has not been built`,
      "run 'npm run build' in the package's folder; it needs a C++17 compiler, make and python3 (Debian: build-essential, python3)",
    );
  }
  try {
    loaded = createRequire(import.meta.url)(path) as Addon;
  } catch (cause) {
    throw new SouthbridgeError(
      'ERR_ADDON_LOAD',
      `the native addon ${path} cannot be loaded: ${cause instanceof Error ? cause.message : String(cause)}`,
      "rebuild it for this host and this Node with 'npm run build'",
      { cause },
    );
  }
  return loaded;
}

export function isSystemError(error: unknown): error is SystemError {
  return error instanceof Error && 'errno' in error && 'syscall' in error && 'code' in error;
}

function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json')) && folder !== dirname(folder)) folder = dirname(folder);
  return folder;
}
