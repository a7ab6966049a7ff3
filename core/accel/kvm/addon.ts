import { loadNative } from '../../host/native.ts';

/** What an ioctl takes: nothing, a number, or bytes in the layout of Linux's `<linux/kvm.h>`. */
export type IoctlArgument = number | ArrayBufferView | undefined;

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
  /** The kernel's number of that thread. */
  readonly threadId: number | undefined;
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

/** @throws SouthbridgeError ERR_ADDON_MISSING, ERR_ADDON_LOAD */
export const loadAddon = (): Addon => loadNative() as Addon;
