import { type AudioFormat, fromStereo, Resampler, toStereo } from './format.ts';

/** Somebody who listens to what a backend plays. */
export interface AudioListener {
  readonly format: AudioFormat;
  /** The first voice has begun to play, or the last has stopped. */
  playing(on: boolean): void;
  samples(bytes: Uint8Array): void;
}

/** One source of sound of a backend's, as it plays. */
export interface PlayedVoice {
  readonly format: AudioFormat;
}

/** Where the sound of devices goes to, and where it comes from (QEMU's `-audiodev`). This one plays it to its listeners alone. */
export class AudioBackend {
  readonly id: string;
  readonly driver: string;
  readonly #listeners = new Map<AudioListener, Map<PlayedVoice, Resampler>>();
  readonly #playing = new Set<PlayedVoice>();

  constructor(id: string, driver: string) {
    this.id = id;
    this.driver = driver;
  }

  /** `voice` begins to play. */
  start(voice: PlayedVoice): void {
    this.#playing.add(voice);
    if (this.#playing.size === 1) for (const listener of this.#listeners.keys()) listener.playing(true);
  }

  stop(voice: PlayedVoice): void {
    if (!this.#playing.delete(voice)) return;
    for (const [listener, resamplers] of this.#listeners) {
      resamplers.delete(voice);
      if (this.#playing.size === 0) listener.playing(false);
    }
  }

  /** Whole frames of `voice`'s format, as the guest's time goes. */
  play(voice: PlayedVoice, bytes: Uint8Array): void {
    if (this.#listeners.size === 0) return;
    const stereo = toStereo(bytes, voice.format);
    for (const [listener, resamplers] of this.#listeners) {
      let resampler = resamplers.get(voice);
      if (resampler === undefined) {
        resampler = new Resampler(voice.format.frequency, listener.format.frequency);
        resamplers.set(voice, resampler);
      }
      const frames = resampler.convert(stereo);
      if (frames.length > 0) listener.samples(fromStereo(frames, listener.format));
    }
  }

  listen(listener: AudioListener): () => void {
    this.#listeners.set(listener, new Map());
    if (this.#playing.size > 0) listener.playing(true);
    return () => this.#listeners.delete(listener);
  }

  dispose(): void {}
}
