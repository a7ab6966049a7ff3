/** The control channel of swtpm (its man page swtpm_ioctls(3)): all but the commands that a guest gives. Fields are big-endian. */
import type { FdExchange } from '../char/chardev.ts';

export const CMD = {
  GET_CAPABILITY: 1,
  INIT: 2,
  SHUTDOWN: 3,
  GET_TPMESTABLISHED: 4,
  SET_LOCALITY: 5,
  CANCEL_TPM_CMD: 9,
  RESET_TPMESTABLISHED: 11,
  GET_STATEBLOB: 12,
  SET_STATEBLOB: 13,
  STOP: 14,
  SET_DATAFD: 16,
  SET_BUFFERSIZE: 17,
  LOCK_STORAGE: 19,
} as const;

export const CAP = {
  INIT: 1 << 0,
  SHUTDOWN: 1 << 1,
  GET_TPMESTABLISHED: 1 << 2,
  SET_LOCALITY: 1 << 3,
  CANCEL_TPM_CMD: 1 << 5,
  RESET_TPMESTABLISHED: 1 << 7,
  GET_STATEBLOB: 1 << 8,
  SET_STATEBLOB: 1 << 9,
  STOP: 1 << 10,
  SET_DATAFD: 1 << 12,
  SET_BUFFERSIZE: 1 << 13,
  LOCK_STORAGE: 1 << 16,
} as const;

/** PTM_INIT_FLAG_DELETE_VOLATILE: the volatile state is for this start alone. */
export const INIT_DELETE_VOLATILE = 1;

export const BLOB = { PERMANENT: 1, VOLATILE: 2, SAVESTATE: 3 } as const;
const STATE_DECRYPTED = 1;
/** A result with this bit set is no failure: there is no such state. */
const NON_FATAL = 0x800;
/** More than any TPM remembers. */
export const BLOB_MAX = 2 ** 20;

const RESULT = 4;
const BLOB_HEADER = 16;

export interface Blob {
  readonly flags: number;
  readonly bytes: Uint8Array;
}

/** Says and asks, and waits in place for the answer. Undefined says that the other side has gone or stays silent. */
export class TpmControlChannel {
  readonly #exchange: () => FdExchange | undefined;
  readonly #sent = new DataView(new ArrayBuffer(4 + 12));
  readonly #reply = new DataView(new ArrayBuffer(BLOB_HEADER));

  constructor(exchange: () => FdExchange | undefined) {
    this.#exchange = exchange;
  }

  /** A command with 32-bit parameters. Returns its result, 0 for success. */
  ask(command: number, parameters: readonly number[] = [], fds: readonly number[] = []): number | undefined {
    return this.#say(command, parameters, fds) && this.#hear(0, RESULT) ? this.#reply.getUint32(0) : undefined;
  }

  /** A bit of {@link CAP} for each thing that it can; all that we ask for lie in the low half of 64. */
  capabilities(): number | undefined {
    return this.#say(CMD.GET_CAPABILITY) && this.#hear(0, 8) ? this.#reply.getUint32(4) : undefined;
  }

  established(): boolean | undefined {
    return this.#say(CMD.GET_TPMESTABLISHED) && this.#hear(0, 8) ? this.#reply.getUint8(4) !== 0 : undefined;
  }

  /** The size is 0 where the result says why not. */
  setBufferSize(wanted: number): { readonly result: number; readonly size: number } | undefined {
    if (!this.#say(CMD.SET_BUFFERSIZE, [wanted]) || !this.#hear(0, RESULT)) return undefined;
    const result = this.#reply.getUint32(0);
    if (result !== 0) return { result, size: 0 };
    // The size, and between what it may be.
    return this.#hear(RESULT, 12) ? { result, size: this.#reply.getUint32(4) } : undefined;
  }

  /** Takes a part of what the TPM remembers, or the result that says why not. */
  takeBlob(type: number): Blob | number | undefined {
    if (!this.#say(CMD.GET_STATEBLOB, [STATE_DECRYPTED, type, 0]) || !this.#hear(0, BLOB_HEADER)) return undefined;
    const result = this.#reply.getUint32(0);
    if (result !== 0 && (result & NON_FATAL) === 0) return result;
    const flags = this.#reply.getUint32(4);
    const length = this.#reply.getUint32(8);
    if (length !== this.#reply.getUint32(12) || length > BLOB_MAX) return undefined;
    const bytes = new Uint8Array(length);
    if (length > 0 && this.#exchange()?.readNow(bytes) !== true) return undefined;
    return { flags, bytes };
  }

  giveBlob(type: number, { flags, bytes }: Blob): number | undefined {
    const given =
      this.#say(CMD.SET_STATEBLOB, [flags, type, bytes.length]) && this.#exchange()?.sendNow(bytes) === true;
    return given && this.#hear(0, RESULT) ? this.#reply.getUint32(0) : undefined;
  }

  #say(command: number, parameters: readonly number[] = [], fds: readonly number[] = []): boolean {
    this.#sent.setUint32(0, command);
    for (const [index, parameter] of parameters.entries()) this.#sent.setUint32(4 + 4 * index, parameter);
    return this.#exchange()?.sendNow(new Uint8Array(this.#sent.buffer, 0, 4 + 4 * parameters.length), fds) ?? false;
  }

  #hear(at: number, length: number): boolean {
    return this.#exchange()?.readNow(new Uint8Array(this.#reply.buffer, at, length)) ?? false;
  }
}
