/** What both interfaces to a TPM share: having it, starting it with the platform, and its state beside their own. */
import type { DeviceServices } from '../../core/device/services.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import type { TpmBackend, TpmUser } from '../../core/tpm/backend.ts';
import { BLOB_MAX } from '../../core/tpm/control-channel.ts';

/** Where both interfaces are (PC Client Platform TPM Profile, section 6.3). */
export const TPM_BASE = 0xfed4_0000;

/** A saved TPM, opaque to us. */
export const tpmStateFields = {
  permanentFlags: field.u32(),
  permanent: field.buffer(BLOB_MAX),
  volatileFlags: field.u32(),
  volatile: field.buffer(BLOB_MAX),
  savestateFlags: field.u32(),
  savestate: field.buffer(BLOB_MAX),
};

export class AttachedTpm {
  readonly #tpm: TpmBackend;
  readonly #services: DeviceServices;
  readonly #state: StateValues<typeof tpmStateFields>;

  /** @throws SouthbridgeError ERR_TPM where there is no TPM */
  constructor(tpm: TpmBackend | undefined, services: DeviceServices, state: StateValues<typeof tpmStateFields>) {
    if (tpm === undefined) {
      throw new SouthbridgeError(
        'ERR_TPM',
        "'tpmdev' property is required",
        '-tpmdev emulator,id=tpm0,chardev=... makes a TPM',
      );
    }
    this.#tpm = tpm;
    this.#services = services;
    this.#state = state;
  }

  /** Returns a function that gives the TPM back. @throws SouthbridgeError ERR_TPM where another device has it */
  claim(user: TpmUser): () => void {
    const release = this.#tpm.claim(user);
    const unwatch = this.#services.system.onRunning(() => this.#tpm.resumed());
    return () => {
      unwatch();
      release();
    };
  }

  get version(): TpmBackend['version'] {
    return this.#tpm.version;
  }

  /** @returns bytes of a command; 0, and the machine's end, where the TPM does not start: a guest must not do without unknowing */
  startUp(most: number): number {
    const size = this.#tpm.startUp(most);
    if (size === undefined) this.#services.system.requestShutdown('host-error', 1);
    return size ?? 0;
  }

  /** Runs `save`, with what the TPM remembers in the state. */
  saving<T>(save: () => T): T {
    this.#tpm.finish();
    Object.assign(this.#state, this.#tpm.saveState());
    try {
      return save();
    } finally {
      this.#forget();
    }
  }

  restored(): void {
    try {
      this.#tpm.restoreState(this.#state);
    } finally {
      this.#forget();
    }
  }

  /** Secrets are not kept longer than needed. */
  #forget(): void {
    for (const part of ['permanent', 'volatile', 'savestate'] as const) this.#state[part] = new Uint8Array(0);
  }
}
