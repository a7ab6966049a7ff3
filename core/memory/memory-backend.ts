/** Host memory that a user set aside for the guest (`-object memory-backend-*`). */
export interface MemoryBackend {
  readonly id: string;
  /** Bytes. */
  readonly size: number;
  /** In the object tree: `/objects/ram0`. */
  readonly path: string;
  /** Whether a part of the machine has it; two cannot. */
  readonly mapped: boolean;
  /** Takes it; the object cannot be deleted until what is returned is called. */
  claim(): () => void;
}
