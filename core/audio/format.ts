/** How samples lie in memory: signedness and width, least significant byte first, frame by frame. */
export type SampleFormat = 'u8' | 's8' | 'u16' | 's16' | 'u32' | 's32';

export interface AudioFormat {
  readonly format: SampleFormat;
  /** Of more than two the first two are heard. */
  readonly channels: number;
  /** Frames a second. */
  readonly frequency: number;
}

const BYTES: Readonly<Record<SampleFormat, number>> = { u8: 1, s8: 1, u16: 2, s16: 2, u32: 4, s32: 4 };

export const sampleBytes = (format: SampleFormat): number => BYTES[format];
export const frameBytes = ({ format, channels }: AudioFormat): number => BYTES[format] * channels;

/** A sample as a signed number of 16 bits. */
function readSample(view: DataView, at: number, format: SampleFormat): number {
  switch (format) {
    case 'u8':
      return (view.getUint8(at) - 0x80) << 8;
    case 's8':
      return view.getInt8(at) << 8;
    case 'u16':
      return view.getUint16(at, true) - 0x8000;
    case 's16':
      return view.getInt16(at, true);
    case 'u32':
      return (view.getUint32(at, true) >>> 16) - 0x8000;
    default:
      return view.getInt32(at, true) >> 16;
  }
}

function writeSample(view: DataView, at: number, format: SampleFormat, value: number): void {
  switch (format) {
    case 'u8':
      view.setUint8(at, (value >> 8) + 0x80);
      break;
    case 's8':
      view.setInt8(at, value >> 8);
      break;
    case 'u16':
      view.setUint16(at, value + 0x8000, true);
      break;
    case 's16':
      view.setInt16(at, value, true);
      break;
    case 'u32':
      view.setUint32(at, (value + 0x8000) * 0x1_0000, true);
      break;
    default:
      view.setInt32(at, value * 0x1_0000, true);
  }
}

/** Whole frames as pairs of left and right, of 16 bits each; one channel is heard on both sides. */
export function toStereo(bytes: Uint8Array, from: AudioFormat): Int16Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const width = BYTES[from.format];
  const frames = Math.floor(bytes.length / (width * from.channels));
  const stereo = new Int16Array(frames * 2);
  for (let frame = 0; frame < frames; frame++) {
    const at = frame * width * from.channels;
    const left = readSample(view, at, from.format);
    stereo[frame * 2] = left;
    stereo[frame * 2 + 1] = from.channels === 1 ? left : readSample(view, at + width, from.format);
  }
  return stereo;
}

/** Pairs of left and right as frames of another format; one channel gets the mean of both. */
export function fromStereo(stereo: Int16Array, to: AudioFormat): Uint8Array {
  const width = BYTES[to.format];
  const frames = stereo.length / 2;
  const bytes = new Uint8Array(frames * width * to.channels);
  const view = new DataView(bytes.buffer);
  for (let frame = 0; frame < frames; frame++) {
    const left = stereo[frame * 2] ?? 0;
    const right = stereo[frame * 2 + 1] ?? 0;
    const at = frame * width * to.channels;
    if (to.channels === 1) writeSample(view, at, to.format, (left + right) >> 1);
    else {
      writeSample(view, at, to.format, left);
      writeSample(view, at + width, to.format, right);
    }
  }
  return bytes;
}

/** Silence of a format, in one byte pattern a sample. */
export function fillSilence(bytes: Uint8Array, { format }: AudioFormat): void {
  if (!format.startsWith('u')) {
    bytes.fill(0);
    return;
  }
  const width = BYTES[format];
  for (let index = 0; index < bytes.length; index++) bytes[index] = index % width === width - 1 ? 0x80 : 0;
}

/** Changes the rate of pairs of left and right, by straight lines between frames, from one piece to the next. */
export class Resampler {
  readonly #step: number;
  #position = 0;
  #left = 0;
  #right = 0;

  constructor(from: number, to: number) {
    this.#step = from / to;
  }

  convert(input: Int16Array): Int16Array {
    if (this.#step === 1) return input;
    const frames = input.length / 2;
    const output: number[] = [];
    // Position 0 is the last frame of the piece before.
    for (; this.#position < frames; this.#position += this.#step) {
      const index = Math.floor(this.#position);
      const part = this.#position - index;
      const fromLeft = index === 0 ? this.#left : (input[index * 2 - 2] ?? 0);
      const fromRight = index === 0 ? this.#right : (input[index * 2 - 1] ?? 0);
      output.push(
        Math.round(fromLeft + ((input[index * 2] ?? 0) - fromLeft) * part),
        Math.round(fromRight + ((input[index * 2 + 1] ?? 0) - fromRight) * part),
      );
    }
    this.#position -= frames;
    this.#left = input[input.length - 2] ?? this.#left;
    this.#right = input[input.length - 1] ?? this.#right;
    return Int16Array.from(output);
  }
}
