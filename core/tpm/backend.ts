/** A TPM of the host's, as the interface that the guest sees (FIFO or CRB) uses it. */

export type TpmVersion = '1.2' | '2.0';

/** An interface that has a TPM behind it; only one at a time may. */
export interface TpmUser {
  readonly model: 'tpm-tis' | 'tpm-crb';
}

/** What a TPM remembers, as it says it itself: opaque, with the flags that say whether a part is encrypted. */
export interface TpmState {
  permanentFlags: number;
  permanent: Uint8Array;
  volatileFlags: number;
  volatile: Uint8Array;
  savestateFlags: number;
  savestate: Uint8Array;
}

/**
 * @param answered false where there is a made-up answer, as the TPM gave none
 * @param selfTestDone the command was a self test, and passed
 */
export type TpmDone = (answered: boolean, selfTestDone: boolean) => void;

export interface TpmBackend {
  readonly id: string;
  readonly version: TpmVersion;
  readonly user: TpmUser | undefined;
  /** Whether a dynamic launch has happened (the inverse of the interfaces' tpmEstablished). */
  readonly established: boolean;
  /** Makes `user` the one that has it. Returns a function that ends that. @throws SouthbridgeError ERR_TPM where another has it */
  claim(user: TpmUser): () => void;
  /**
   * Powers the TPM up, as after a reset of the platform; an answer that is outstanding is thrown away.
   * @param most bytes that the interface has room for
   * @returns the bytes that a command or an answer may have, or undefined where the TPM does not start
   */
  startUp(most: number): number | undefined;
  /**
   * Has the first `length` bytes of `buffer` carried out as a command. Before `done` is called the answer replaces them. One command
   * at a time.
   */
  deliver(locality: number, buffer: Uint8Array, length: number, done: TpmDone): void;
  /** Waits for the answer that is outstanding. */
  finish(): void;
  /** Asks the TPM to end the command that is under way early. Its answer still comes. */
  cancel(): void;
  /** TPM 2.0: forgets that there was a dynamic launch. */
  resetEstablished(): void;
  /** @throws SouthbridgeError ERR_TPM in QEMU's words */
  saveState(): TpmState;
  /** The machine runs (on): where its state was saved in between, what the TPM keeps on disk is its own again. */
  resumed(): void;
  /** @throws SouthbridgeError ERR_TPM in QEMU's words */
  restoreState(state: TpmState): void;
}

/** Header of commands and answers (TPM 2.0 part 1, section 18): tag, size of all, command or response code; big-endian. */
export const TPM_HEADER = { TAG: 0, SIZE: 2, CODE: 6, LENGTH: 10 } as const;
export const TPM_TAG = { REQUEST_1_2: 0xc1, RESPONSE_1_2: 0xc4, NO_SESSIONS: 0x8001 } as const;

/** What a command or an answer says that its size is. */
export const messageSize = (bytes: Uint8Array): number =>
  (((bytes[2] ?? 0) << 24) | ((bytes[3] ?? 0) << 16) | ((bytes[4] ?? 0) << 8) | (bytes[5] ?? 0)) >>> 0;

/** A header with nothing behind it: the least command, the least answer. */
export function emptyMessage(tag: number, code: number): Uint8Array {
  const bytes = new Uint8Array(TPM_HEADER.LENGTH);
  const view = new DataView(bytes.buffer);
  view.setUint16(TPM_HEADER.TAG, tag);
  view.setUint32(TPM_HEADER.SIZE, bytes.length);
  view.setUint32(TPM_HEADER.CODE, code);
  return bytes;
}

const TPM_FAIL = 9;

/** What a guest is told when there is nobody to carry out its command: TPM_FAIL (TPM 1.2 part 2, section 16). */
export const failedAnswer: Uint8Array = emptyMessage(TPM_TAG.RESPONSE_1_2, TPM_FAIL);
