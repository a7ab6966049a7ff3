import type { AudioBackend } from '../../audio/backend.ts';
import type { AudioFormat } from '../../audio/format.ts';
import { AUDIO_OPERATION } from './protocol.ts';

export type { AudioFormat } from '../../audio/format.ts';

/** What a client hears of the machine's sound (QEMU's audio messages, "RFB protocol"). */
export class VncAudio {
  readonly #backend: AudioBackend;
  readonly #send: (operation: number, samples?: Uint8Array) => void;
  #format: AudioFormat = { format: 's16', channels: 2, frequency: 44_100 };
  #stop: (() => void) | undefined;

  constructor(backend: AudioBackend, send: (operation: number, samples?: Uint8Array) => void) {
    this.#backend = backend;
    this.#send = send;
  }

  /** A format counts from the next {@link enable} on. */
  setFormat(format: AudioFormat): void {
    this.#format = format;
  }

  enable(): void {
    this.#stop ??= this.#backend.listen({
      format: this.#format,
      playing: on => this.#send(on ? AUDIO_OPERATION.BEGIN : AUDIO_OPERATION.END),
      samples: bytes => this.#send(AUDIO_OPERATION.DATA, bytes),
    });
  }

  disable(): void {
    this.#stop?.();
    this.#stop = undefined;
  }

  dispose(): void {
    this.disable();
  }
}
