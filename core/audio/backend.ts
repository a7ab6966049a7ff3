import { type AudioFormat, fromStereo, toStereo } from './format.ts';
import { Mixer } from './mixer.ts';

/** Somebody who listens to what a backend plays. */
export interface AudioListener {
  readonly format: AudioFormat;
  /** The first voice has begun to play, or the last has stopped. */
  playing(on: boolean): void;
  samples(bytes: Uint8Array): void;
}

/** One source of sound of a backend's, as it plays. */
export interface Playing {
  readonly format: AudioFormat;
}

/** Where the sound of devices goes to, and where it comes from (QEMU's `-audiodev`). This one plays it to its listeners alone. */
export class AudioBackend {
  readonly id: string;
  readonly driver: string;
  readonly #listeners = new Map<AudioListener, Mixer>();
  readonly #playing = new Set<Playing>();

  constructor(id: string, driver: string) {
    this.id = id;
    this.driver = driver;
  }

  /** `voice` begins to play, in the format that it has now. */
  start(voice: Playing): void {
    this.#playing.add(voice);
    for (const [listener, mixer] of this.#listeners) {
      mixer.add(voice, voice.format);
      if (this.#playing.size === 1) listener.playing(true);
    }
  }

  stop(voice: Playing): void {
    if (!this.#playing.delete(voice)) return;
    for (const [listener, mixer] of this.#listeners) {
      mixer.remove(voice);
      if (this.#playing.size === 0) listener.playing(false);
    }
  }

  /** Whole frames of `voice`'s format, as the guest's time goes. */
  play(voice: Playing, bytes: Uint8Array): void {
    if (this.#listeners.size === 0) return;
    const stereo = toStereo(bytes, voice.format);
    for (const mixer of this.#listeners.values()) mixer.play(voice, stereo);
  }

  listen(listener: AudioListener): () => void {
    const mixer = new Mixer(listener.format.frequency, stereo => listener.samples(fromStereo(stereo, listener.format)));
    for (const voice of this.#playing) mixer.add(voice, voice.format);
    this.#listeners.set(listener, mixer);
    if (this.#playing.size > 0) listener.playing(true);
    return () => this.#listeners.delete(listener);
  }

  dispose(): void {}
}
