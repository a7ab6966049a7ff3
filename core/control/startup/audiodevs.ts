import { AudioBackend } from '../../audio/backend.ts';
import type { SampleFormat } from '../../audio/format.ts';
import { WavBackend } from '../../audio/wav.ts';
import { isObject, type Json, type JsonObject } from '../json/value.ts';
import { OptionError } from '../options/opts.ts';
import type { Program } from '../program.ts';

const FORMATS: readonly SampleFormat[] = ['u8', 's8', 'u16', 's16', 'u32', 's32'];
/** What `-audiodev` can be. */
export const AUDIO_DRIVERS = ['none', 'wav'] as const;
/** What both directions of a backend take (QAPI AudiodevPerDirectionOptions), with the values' kinds. */
const DIRECTION: Readonly<Record<string, 'boolean' | 'integer' | 'format'>> = {
  'mixing-engine': 'boolean',
  'fixed-settings': 'boolean',
  frequency: 'integer',
  channels: 'integer',
  voices: 'integer',
  format: 'format',
  'buffer-length': 'integer',
};
const COMMON = ['driver', 'id', 'in', 'out', 'timer-period'];

/**
 * One `-audiodev`.
 * @throws OptionError with QEMU's words
 */
export function addAudiodev(program: Program, value: JsonObject): void {
  const { driver, id } = value;
  if (typeof driver !== 'string') throw new OptionError("Parameter 'driver' is missing");
  if (typeof id !== 'string') throw new OptionError("Parameter 'id' is missing");
  if (!AUDIO_DRIVERS.some(known => known === driver))
    throw new OptionError(`Parameter 'driver' does not accept value '${driver}'`);
  const known = driver === 'wav' ? [...COMMON, 'path'] : COMMON;
  for (const key of Object.keys(value))
    if (!known.includes(key)) throw new OptionError(`Parameter '${key}' is unexpected`);
  for (const direction of ['in', 'out'] as const) checkDirection(direction, value[direction]);
  if (value['timer-period'] !== undefined) integer('timer-period', value['timer-period']);
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

/** @throws OptionError with QEMU's words */
function checkDirection(direction: 'in' | 'out', given: Json | undefined): void {
  if (given === undefined) return;
  if (!isObject(given)) throw new OptionError(`Parameter '${direction}' expects an object`);
  for (const [key, value] of Object.entries(given)) {
    const name = `${direction}.${key}`;
    switch (DIRECTION[key]) {
      case 'boolean':
        if (typeof value !== 'boolean' && !['on', 'off', 'yes', 'no', 'true', 'false'].includes(String(value)))
          throw new OptionError(`Parameter '${name}' expects 'on' or 'off'`);
        break;
      case 'integer':
        integer(name, value);
        break;
      case 'format':
        if (value !== 'f32' && !FORMATS.some(format => format === value))
          throw new OptionError(`Parameter '${name}' does not accept value '${String(value)}'`);
        break;
      default:
        throw new OptionError(`Parameter '${name}' is unexpected`);
    }
  }
}

function integer(name: string, value: Json): number {
  if (!/^(0x[0-9a-f]+|[0-9]+)$/i.test(String(value))) throw new OptionError(`Parameter '${name}' expects integer`);
  return Number(value);
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
