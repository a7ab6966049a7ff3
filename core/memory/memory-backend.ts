import type { GuestRam } from './guest-ram.ts';

/** Host memory that a user set aside for the guest (`-object memory-backend-*`). */
export interface MemoryBackend {
  readonly id: string;
  /** Bytes. */
  readonly size: number;
  /** Bytes: what the address and size of a memory module of it are multiples of, the host's pages. */
  readonly alignment: number;
  /** In the object tree: `/objects/ram0`. */
  readonly path: string;
  /** The file that it is, from offset 0 on; without one it is memory of this process alone. */
  readonly file?: { readonly fd: number; readonly shared: boolean } | undefined;
  /** Whether a part of the machine has it; two cannot. */
  readonly mapped: boolean;
  /** Takes it; the object cannot be deleted until what is returned is called. */
  claim(): () => void;
  /**
   * The memory, in stretches of at most 4 GiB: the same each time, with what it holds, and set aside when it is first asked for.
   * @throws SouthbridgeError ERR_RAM_ALLOCATION where the host refuses it
   */
  contents(): readonly GuestRam[];
  /** Has the host keep what was written; `done` is told whether it does, which only a file can. */
  sync(done: (kept: boolean) => void): void;
  /** Gives whole pages back to the host. What is there then reads as zeros. Bytes. */
  discard(offset: number, length: number): void;
}

/** Calls `copy` with each stretch's part of the `length` bytes from `offset` on: where it begins, bytes done before it, its bytes. */
export function eachStretch(
  backend: MemoryBackend,
  offset: number,
  length: number,
  copy: (bytes: Uint8Array<ArrayBufferLike>, from: number, done: number, size: number) => void,
): void {
  let from = offset;
  let done = 0;
  for (const { bytes, size } of backend.contents()) {
    const here = Math.min(size - from, length - done);
    if (here > 0) {
      copy(bytes, from, done, here);
      from += here;
      done += here;
    }
    from -= size;
  }
}
