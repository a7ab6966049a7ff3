import { closeSync, openSync, writeSync } from 'node:fs';
import { hostError, reason } from '../block/io-error.ts';
import { SouthbridgeError } from '../errors.ts';
import { AudioBackend } from './backend.ts';
import { type AudioFormat, frameBytes, sampleBytes } from './format.ts';

const HEADER_SIZE = 44;
const PCM = 1;

/** The header of a WAVE file (Microsoft's "Multimedia Data Standards Update"), for so many bytes of samples. */
function waveHeader({ format, channels, frequency }: AudioFormat, length: number): Buffer {
  const bytes = sampleBytes(format);
  const header = Buffer.alloc(HEADER_SIZE);
  header.write('RIFF', 0, 'latin1');
  header.writeUInt32LE(length + HEADER_SIZE - 8, 4);
  header.write('WAVEfmt ', 8, 'latin1');
  header.writeUInt32LE(16, 16);
  header.writeUInt16LE(PCM, 20);
  header.writeUInt16LE(channels, 22);
  header.writeUInt32LE(frequency, 24);
  header.writeUInt32LE(frequency * channels * bytes, 28);
  header.writeUInt16LE(channels * bytes, 32);
  header.writeUInt16LE(bytes * 8, 34);
  header.write('data', 36, 'latin1');
  header.writeUInt32LE(length, 40);
  return header;
}

/** Samples of one format in a WAVE file, whose header is complete once it is closed. */
export class WaveFile {
  readonly format: AudioFormat;
  #fd: number | undefined;
  #length = 0;

  /** @throws SouthbridgeError ERR_AUDIO_FILE */
  constructor(path: string, format: AudioFormat) {
    this.format = format;
    try {
      this.#fd = openSync(path, 'w');
    } catch (cause) {
      const why = reason(hostError(cause));
      throw new SouthbridgeError('ERR_AUDIO_FILE', `Failed to open wave file '${path}': ${why}`, undefined, { cause });
    }
    writeSync(this.#fd, waveHeader(format, 0));
  }

  /** Bytes of samples. */
  get length(): number {
    return this.#length;
  }

  write(bytes: Uint8Array): void {
    const whole = bytes.length - (bytes.length % frameBytes(this.format));
    if (this.#fd === undefined) return;
    writeSync(this.#fd, bytes, 0, whole);
    this.#length += whole;
  }

  close(): void {
    if (this.#fd === undefined) return;
    writeSync(this.#fd, waveHeader(this.format, this.#length), 0, HEADER_SIZE, 0);
    closeSync(this.#fd);
    this.#fd = undefined;
  }
}

/** Writes what is played to a file; silence between two sounds is left out. */
export class WavBackend extends AudioBackend {
  readonly #file: WaveFile;

  /** @throws SouthbridgeError ERR_AUDIO_FILE */
  constructor(id: string, path: string, format: AudioFormat) {
    super(id, 'wav');
    this.#file = new WaveFile(path, format);
    this.listen({ format, playing: () => {}, samples: bytes => this.#file.write(bytes) });
  }

  override dispose(): void {
    this.#file.close();
  }
}
