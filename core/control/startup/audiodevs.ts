import { AudioBackend } from '../../audio/backend.ts';
import type { SampleFormat } from '../../audio/format.ts';
import { WavBackend } from '../../audio/wav.ts';
import { isObject, type JsonObject } from '../json/value.ts';
import { OptionError } from '../options/opts.ts';
import type { Program } from '../program.ts';

const FORMATS: readonly SampleFormat[] = ['u8', 's8', 'u16', 's16', 'u32', 's32'];
const COMMON = ['driver', 'id', 'in', 'out', 'timer-period'];

/**
 * One `-audiodev`.
 * @throws OptionError with QEMU's words
 */
export function addAudiodev(program: Program, value: JsonObject): void {
  const { driver, id } = value;
  if (typeof driver !== 'string') throw new OptionError("Parameter 'driver' is missing");
  if (typeof id !== 'string') throw new OptionError("Parameter 'id' is missing");
  if (driver !== 'none' && driver !== 'wav')
    throw new OptionError(`Parameter 'driver' does not accept value '${driver}'`);
  const known = driver === 'wav' ? [...COMMON, 'path'] : COMMON;
  for (const key of Object.keys(value))
    if (!known.includes(key)) throw new OptionError(`Parameter '${key}' is unexpected`);
  if (program.audiodevs.size === 0) {
    program.backends.provide('audiodev', name => {
      const found = program.audiodevs.get(name);
      if (found === undefined) throw new OptionError(`can't find value '${name}'`);
      return found;
    });
  }
  const backend = driver === 'wav' ? wav(id, value) : new AudioBackend(id, driver);
  program.audiodevs.set(id, backend);
  program.resources.push(backend);
}

function wav(id: string, value: JsonObject): WavBackend {
  const out = isObject(value['out']) ? value['out'] : {};
  const number = (key: string, fallback: number): number =>
    out[key] === undefined ? fallback : Number(String(out[key]));
  const format = FORMATS.find(candidate => candidate === (out['format'] ?? 's16'));
  const channels = number('channels', 2);
  const frequency = number('frequency', 44_100);
  if (format === undefined)
    throw new OptionError(`Parameter 'format' does not accept value '${String(out['format'])}'`);
  if (channels < 1 || channels > 2 || !Number.isInteger(channels)) throw new OptionError('wav: one or two channels');
  if (!Number.isInteger(frequency) || frequency < 1000 || frequency > 384_000)
    throw new OptionError('wav: a frequency from 1000 to 384000');
  const path = value['path'];
  return new WavBackend(id, typeof path === 'string' ? path : 'qemu.wav', { format, channels, frequency });
}
