import { closeSync } from 'node:fs';
import type { Chardev } from '../char/chardev.ts';
import { SouthbridgeError } from '../errors.ts';
import { makeBlocking, socketPair } from '../host/sockets.ts';
import {
  emptyMessage,
  failedAnswer,
  TPM_HEADER,
  TPM_TAG,
  type TpmBackend,
  type TpmDone,
  type TpmState,
  type TpmUser,
  type TpmVersion,
} from './backend.ts';
import { BLOB, type Blob, CAP, CMD, INIT_DELETE_VOLATILE, TpmControlChannel } from './control-channel.ts';
import { TpmDataChannel } from './data-channel.ts';

const TPM_ORD_GET_TICKS = 0xf1;
const TPM_ORD_CONTINUE_SELF_TEST = 0x53;
const TPM2_CC_READ_CLOCK = 0x181;
/** A TPM that is there says so within this. */
const PROBE_MS = 5_000;
/** Tries, 10 ms apart, to get back storage that another process was to take over. */
const LOCK_RETRIES = 300;
const NO_LOCALITY = -1;

const COMMON_CAPS =
  CAP.INIT | CAP.SHUTDOWN | CAP.GET_TPMESTABLISHED | CAP.SET_LOCALITY | CAP.SET_DATAFD | CAP.STOP | CAP.SET_BUFFERSIZE;
const REQUIRED_CAPS = { '1.2': COMMON_CAPS, '2.0': COMMON_CAPS | CAP.RESET_TPMESTABLISHED } as const;
const STATE_CAPS = CAP.GET_STATEBLOB | CAP.SET_STATEBLOB | CAP.STOP;

/** TPM 1.2 part 2, section 16; TPM 2.0 part 2, section 6.6. */
const RESULTS: Readonly<Record<number, string>> = {
  3: 'a parameter is bad',
  9: 'operation failed',
  13: 'key could not be found',
  25: 'bad parameter size',
  32: 'encryption error',
  33: 'decryption error',
  40: 'bad key property',
  44: 'bad (encryption) mode',
  46: 'bad version identifier',
  61: 'bad locality',
  257: 'operation failed',
  2311: 'bad locality',
  154: 'insufficient amount of data',
};

/** What the emulator needs of the program. */
export interface TpmHost {
  error(message: string): void;
  /** Whether the TPM's state is still to come from another machine. */
  readonly awaitsState: () => boolean;
}

const refused = (message: string, hint?: string): SouthbridgeError => new SouthbridgeError('ERR_TPM', message, hint);
const failed = (what: string, result: number): string =>
  `tpm-emulator: ${what}: 0x${result.toString(16)} ${RESULTS[result] ?? ''}`;

/** `-tpmdev emulator`: a TPM in another process (swtpm), which is told what to do over a unix socket. */
export class TpmEmulator implements TpmBackend {
  readonly id: string;
  readonly chardev: Chardev;
  readonly #host: TpmHost;
  readonly #control: TpmControlChannel;
  #data: TpmDataChannel | undefined;
  #version: TpmVersion = '2.0';
  #caps = 0;
  #user: TpmUser | undefined;
  #locality = NO_LOCALITY;
  #established: boolean | undefined;
  /** Its storage was let go with its state, which another process may have taken over. */
  #relock = false;

  /** @throws SouthbridgeError ERR_TPM with QEMU's text */
  static open(id: string, chardev: Chardev, host: TpmHost): TpmEmulator {
    const tpm = new TpmEmulator(id, chardev, host);
    try {
      tpm.#connect();
    } catch (error) {
      tpm.#release();
      throw error;
    }
    return tpm;
  }

  private constructor(id: string, chardev: Chardev, host: TpmHost) {
    this.id = id;
    this.chardev = chardev;
    this.#host = host;
    chardev.attach({ canReceive: () => 1024, receive: () => {} });
    this.#control = new TpmControlChannel(() => chardev.exchange);
  }

  get version(): TpmVersion {
    return this.#version;
  }

  get user(): TpmUser | undefined {
    return this.#user;
  }

  claim(user: TpmUser): () => void {
    if (this.#user !== undefined) throw refused(`TPM backend '${this.id}' is already initialized`);
    this.#user = user;
    return () => {
      this.finish();
      this.#user = undefined;
    };
  }

  /** Tells the TPM that the machine has gone for good. */
  dispose(): void {
    this.finish();
    this.#report('TPM result for shutdown', 'Could not cleanly shutdown the TPM', this.#control.ask(CMD.SHUTDOWN));
    this.#release();
  }

  #release(): void {
    this.#data?.close();
    this.chardev.detach();
  }

  // Finding out what it is

  #connect(): void {
    this.#data = this.#openData();
    this.#version = this.#probe(this.#data);
    const caps = this.#control.capabilities();
    if (caps === undefined) throw refused('tpm-emulator: probing failed : the TPM does not answer');
    this.#caps = caps;
    const required = REQUIRED_CAPS[this.#version];
    if (this.#can(required)) return;
    throw refused(
      `tpm-emulator: TPM does not implement minimum set of required capabilities for TPM ${this.#version === '2.0' ? '2' : '1.2'} (0x${required.toString(16)})`,
    );
  }

  #can(caps: number): boolean {
    return (this.#caps & caps) === caps;
  }

  /** Gives the TPM one end of a pair of sockets, over which commands go. */
  #openData(): TpmDataChannel {
    const [ours, theirs] = socketPair();
    try {
      makeBlocking(theirs);
      if (this.chardev.exchange !== undefined && this.#control.ask(CMD.SET_DATAFD, [], [theirs]) === 0)
        return new TpmDataChannel(ours);
    } finally {
      closeSync(theirs);
    }
    closeSync(ours);
    throw refused(
      `tpm-emulator: Failed to send CMD_SET_DATAFD: nobody takes it at chardev '${this.chardev.label}'`,
      'the chardev has to be a unix socket on which swtpm listens (swtpm socket --ctrl type=unixio,path=...)',
    );
  }

  /** A TPM of either version answers a command of its own with a tag of its own, even if only to say that it failed. */
  #probe(data: TpmDataChannel): TpmVersion {
    const answer = new Uint8Array(1024);
    const tagFor = (tag: number, code: number): number => {
      let answered = false;
      data.exchange(emptyMessage(tag, code), answer, ok => {
        answered = ok;
      });
      data.finish(PROBE_MS);
      return answered ? ((answer[0] ?? 0) << 8) | (answer[1] ?? 0) : 0;
    };
    if (tagFor(TPM_TAG.NO_SESSIONS, TPM2_CC_READ_CLOCK) === TPM_TAG.NO_SESSIONS) return '2.0';
    if (tagFor(TPM_TAG.REQUEST_1_2, TPM_ORD_GET_TICKS) === TPM_TAG.RESPONSE_1_2) return '1.2';
    throw refused(`'${this.chardev.label}' is not emulating TPM device. Error: it does not answer as one`);
  }

  // Power

  startUp(most: number): number | undefined {
    this.cancel();
    this.finish();
    const size = this.#setBufferSize(0) ?? 4096;
    const used = Math.min(size, most);
    if (this.#setBufferSize(used) === undefined) return undefined;
    return this.#host.awaitsState() || this.#init(0) ? used : undefined;
  }

  #stop(): boolean {
    return this.#report('TPM result for CMD_STOP', 'Could not stop TPM', this.#control.ask(CMD.STOP));
  }

  /** @param wanted bytes; 0 asks */
  #setBufferSize(wanted: number): number | undefined {
    if (!this.#stop()) return undefined;
    const reply = this.#control.setBufferSize(wanted);
    return this.#report('TPM result for set buffer size ', 'Could not set buffer size', reply?.result)
      ? reply?.size
      : undefined;
  }

  #init(flags: number): boolean {
    return this.#report('TPM result for CMD_INIT', 'could not send INIT', this.#control.ask(CMD.INIT, [flags]));
  }

  /** True for a result of 0; of all else the user is told. */
  #report(what: string, silent: string, result: number | undefined): boolean {
    if (result === 0) return true;
    this.#host.error(result === undefined ? `tpm-emulator: ${silent}: the TPM does not answer` : failed(what, result));
    return false;
  }

  // Commands

  deliver(locality: number, buffer: Uint8Array, length: number, done: TpmDone): void {
    const data = this.#data;
    const end = (answered: boolean): void => {
      if (!answered) buffer.set(failedAnswer);
      done(answered, answered && isSelfTest && codeOf(buffer) === 0);
    };
    const isSelfTest = length >= TPM_HEADER.LENGTH && codeOf(buffer) === TPM_ORD_CONTINUE_SELF_TEST;
    if (data === undefined || data.busy || !this.#setLocality(locality)) end(false);
    else data.exchange(buffer.slice(0, length), buffer, end);
  }

  #setLocality(locality: number): boolean {
    if (this.#locality === locality) return true;
    const result = this.#control.ask(CMD.SET_LOCALITY, [locality << 24]);
    if (!this.#report('TPM result for set locality ', 'could not set locality ', result)) return false;
    this.#locality = locality;
    return true;
  }

  finish(): void {
    this.#data?.finish();
  }

  cancel(): void {
    if (!this.#can(CAP.CANCEL_TPM_CMD) || this.#data?.busy !== true) return;
    this.#report('Failed to cancel TPM', 'Could not cancel command', this.#control.ask(CMD.CANCEL_TPM_CMD));
  }

  get established(): boolean {
    // Asked for with each look at a register, but only a dynamic launch changes it.
    if (this.#established === undefined) {
      const established = this.#control.established();
      if (established === undefined)
        this.#host.error('tpm-emulator: Could not get the TPM established flag: the TPM does not answer');
      this.#established = established ?? false;
    }
    return this.#established;
  }

  resetEstablished(): void {
    if (this.#version !== '2.0') return;
    const result = this.#control.ask(CMD.RESET_TPMESTABLISHED, [(this.#locality & 0xff) << 24]);
    if (this.#report('TPM result for rest established flag', 'Could not reset the establishment bit', result))
      this.#established = undefined;
  }

  // State

  saveState(): TpmState {
    this.finish();
    if (!this.#can(STATE_CAPS)) throw refused('Migration disabled: TPM emulator does not support migration');
    const permanent = this.#takeBlob(BLOB.PERMANENT);
    const volatile = this.#takeBlob(BLOB.VOLATILE);
    const savestate = this.#takeBlob(BLOB.SAVESTATE);
    this.#relock = true;
    return {
      permanentFlags: permanent.flags,
      permanent: permanent.bytes,
      volatileFlags: volatile.flags,
      volatile: volatile.bytes,
      savestateFlags: savestate.flags,
      savestate: savestate.bytes,
    };
  }

  #takeBlob(type: number): Blob {
    const blob = this.#control.takeBlob(type);
    if (blob === undefined) throw refused(`tpm-emulator: could not get state blob type ${type} : the TPM breaks off`);
    if (typeof blob === 'number')
      throw refused(failed(`Getting the stateblob (type ${type}) failed with a TPM error`, blob));
    return blob;
  }

  restoreState(state: TpmState): void {
    this.finish();
    if (!this.#stop()) throw refused('tpm-emulator: Could not stop TPM');
    this.#giveBlob(BLOB.PERMANENT, { flags: state.permanentFlags, bytes: state.permanent });
    this.#giveBlob(BLOB.VOLATILE, { flags: state.volatileFlags, bytes: state.volatile });
    this.#giveBlob(BLOB.SAVESTATE, { flags: state.savestateFlags, bytes: state.savestate });
    if (!this.#init(INIT_DELETE_VOLATILE)) throw refused('tpm-emulator: the TPM does not start with the state it got');
    this.#locality = NO_LOCALITY;
    this.#established = undefined;
  }

  #giveBlob(type: number, blob: Blob): void {
    if (blob.bytes.length === 0) return;
    const result = this.#control.giveBlob(type, blob);
    if (result === undefined) throw refused(`tpm-emulator: could not set state blob type ${type} : the TPM breaks off`);
    if (result !== 0) throw refused(failed(`Setting the stateblob (type ${type}) failed with a TPM error`, result));
  }

  resumed(): void {
    if (!this.#relock || !this.#can(CAP.LOCK_STORAGE)) return;
    this.#relock = false;
    const result = this.#control.ask(CMD.LOCK_STORAGE, [LOCK_RETRIES]);
    this.#report('TPM result for CMD_LOCK_STORAGE', 'Could not lock storage within 3 seconds', result);
  }
}

const codeOf = (bytes: Uint8Array): number =>
  (((bytes[6] ?? 0) << 24) | ((bytes[7] ?? 0) << 16) | ((bytes[8] ?? 0) << 8) | (bytes[9] ?? 0)) >>> 0;
