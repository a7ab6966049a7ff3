import type { AudioBackend } from '../../../audio/backend.ts';
import { WaveFile } from '../../../audio/wav.ts';
import type { Program, Resource } from '../../program.ts';
import { QmpError } from '../../qapi/error.ts';
import { type HmpCommand, hmp } from '../command.ts';

const FREQUENCIES: readonly [least: number, most: number] = [1000, 384_000];

const FAILED = 'Failed to add wave capture\n';

/** A file that gets what one backend plays. */
class Capture implements Resource {
  readonly #path: string;
  readonly #file: WaveFile;
  readonly #stop: () => void;

  constructor(backend: AudioBackend, path: string, file: WaveFile) {
    this.#path = path;
    this.#file = file;
    this.#stop = backend.listen({ format: file.format, playing: () => undefined, samples: bytes => file.write(bytes) });
  }

  get report(): string {
    const { frequency, channels, format } = this.#file.format;
    const bits = format === 'u8' ? 8 : 16;
    return `Capturing audio(${frequency},${bits},${channels}) to ${this.#path}: ${this.#file.length} bytes`;
  }

  dispose(): void {
    this.#stop();
    this.#file.close();
  }
}

const captures = new WeakMap<Program, Capture[]>();

/** `info capture`. */
export const captureReport = (program: Program): string =>
  (captures.get(program) ?? []).map((capture, index) => `[${index}]: ${capture.report}\n`).join('');

/** Recording what the guest plays. */
export const SOUND_COMMANDS: readonly HmpCommand[] = [
  hmp(
    'wavcapture',
    'path:F,audiodev:s,freq:i?,bits:i?,nchannels:i?',
    'path audiodev [frequency [bits [channels]]]',
    'record what an audio backend plays into a WAVE file (default: 44100 16 2)',
    ({ program }, args) => {
      const name = args.text('audiodev');
      const backend = program.audiodevs.get(name);
      if (backend === undefined) return `Audiodev '${name}' not found\n`;
      const bits = Number(args.optionalInteger('bits') ?? 16n);
      const channels = Number(args.optionalInteger('nchannels') ?? 2n);
      const frequency = Number(args.optionalInteger('freq') ?? 44_100n);
      if (bits !== 8 && bits !== 16) return `incorrect bit count ${bits}, must be 8 or 16\n${FAILED}`;
      if (channels !== 1 && channels !== 2) return `incorrect channel count ${channels}, must be 1 or 2\n${FAILED}`;
      const [least, most] = FREQUENCIES;
      if (frequency < least || frequency > most) throw new QmpError(`a frequency from ${least} to ${most}`);
      const path = args.text('path');
      const file = new WaveFile(path, { format: bits === 8 ? 'u8' : 's16', channels, frequency });
      const capture = new Capture(backend, path, file);
      captures.set(program, [...(captures.get(program) ?? []), capture]);
      program.resources.push(capture);
      return undefined;
    },
  ),
  hmp('stopcapture', 'n:i', 'index', 'end a recording, by its number in info capture', ({ program }, args) => {
    const running = captures.get(program) ?? [];
    const capture = running[Number(args.integer('n'))];
    if (capture === undefined) return undefined;
    capture.dispose();
    captures.set(
      program,
      running.filter(each => each !== capture),
    );
    return undefined;
  }),
];
