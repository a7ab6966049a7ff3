import { emptyMessage, TPM_TAG, type TpmBackend, type TpmDone, type TpmState, type TpmUser } from '../tpm/backend.ts';

const TPM_RC_FAILURE = 0x101;
const NOTHING = new Uint8Array(0);

/** A TPM 2.0 that says of each command, and at once, that it failed. */
export class StandInTpm implements TpmBackend {
  readonly id: string;
  readonly version = '2.0';
  readonly established = false;
  user: TpmUser | undefined;

  constructor(id: string) {
    this.id = id;
  }

  claim(user: TpmUser): () => void {
    this.user = user;
    return () => {
      this.user = undefined;
    };
  }

  startUp(most: number): number {
    return most;
  }

  deliver(_locality: number, buffer: Uint8Array, _length: number, done: TpmDone): void {
    buffer.set(emptyMessage(TPM_TAG.NO_SESSIONS, TPM_RC_FAILURE));
    done(true, false);
  }

  finish(): void {}
  cancel(): void {}
  resetEstablished(): void {}
  resumed(): void {}
  restoreState(): void {}

  saveState(): TpmState {
    return {
      permanentFlags: 0,
      permanent: NOTHING,
      volatileFlags: 0,
      volatile: NOTHING,
      savestateFlags: 0,
      savestate: NOTHING,
    };
  }
}
