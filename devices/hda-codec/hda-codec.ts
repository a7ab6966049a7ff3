import type { AudioBackend } from '../../core/audio/backend.ts';
import type { AudioFormat } from '../../core/audio/format.ts';
import { attenuate } from '../../core/audio/gain.ts';
import { PlayedVoice, RecordedVoice } from '../../core/audio/voice.ts';
import { HdaCodec, hdaProperties } from '../../core/bus/hda.ts';
import { type DeviceContext, deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { field } from '../../core/state/fields.ts';
import {
  AMPLIFIER_STEPS,
  type CodecDescription,
  type CodecKind,
  describeCodec,
  type Node,
  PARAMETER,
} from './nodes.ts';

/** Verbs: of twelve bits with eight of payload, and of four with sixteen (HD Audio 1.0a, section 7.3.3). */
const VERB = {
  SET_STREAM_FORMAT: 0x200,
  SET_AMPLIFIER: 0x300,
  SET_STREAM: 0x706,
  SET_PIN_CONTROL: 0x707,
  GET_STREAM_FORMAT: 0xa00,
  GET_AMPLIFIER: 0xb00,
  PARAMETERS: 0xf00,
  GET_CONNECTIONS: 0xf02,
  GET_STREAM: 0xf06,
  GET_PIN_CONTROL: 0xf07,
  GET_CONFIGURATION: 0xf1c,
  GET_SUBSYSTEM_ID: 0xf20,
} as const;
const LONG_VERB = 0x7_0000;
const AMPLIFIER = {
  LEFT: 1 << 13,
  RIGHT: 1 << 12,
  SET_LEFT: 1 << 13,
  SET_RIGHT: 1 << 12,
  MUTE: 0x80,
  GAIN: 0x7f,
} as const;
/** 16 bits, two channels, 48 kHz. */
const DEFAULT_FORMAT = 0x0011;
const STREAM_NUMBERS = 16;

const properties = {
  ...hdaProperties,
  audiodev: prop.backend<AudioBackend>('audiodev'),
  debug: prop.u32({ default: 0 }),
  mixer: prop.bool({ default: true }),
  'use-timer': prop.bool({ default: true }),
} as const;

const converterState = {
  stream: field.u8(),
  channel: field.u8(),
  format: field.u16(DEFAULT_FORMAT),
  gainLeft: field.u8(),
  gainRight: field.u8(),
  muteLeft: field.bool(),
  muteRight: field.bool(),
};

/** A codec with an output converter and, but for `hda-output`, one for input. */
abstract class AudioCodec extends HdaCodec<typeof properties> {
  readonly #description: CodecDescription;
  readonly #running = this.state(1, { bits: field.u32() }, { name: 'running' });
  readonly #converters = {
    output: this.state(1, converterState, { name: 'output', onReset: 'keep' }),
    input: this.state(1, converterState, { name: 'input', onReset: 'keep' }),
  };
  readonly #played = new PlayedVoice(this.props.audiodev, this.clock, 'playback', bytes => this.#fill(bytes));
  readonly #recorded = new RecordedVoice(this.props.audiodev, this.clock, 'recording', bytes => {
    this.link.controller.transfer(this.#converters.input.stream, false, bytes);
  });

  constructor(context: DeviceContext<typeof properties>, kind: CodecKind) {
    super(context);
    this.#description = describeCodec(kind, context.props.mixer);
    Object.assign(this.#converters.output, { gainLeft: AMPLIFIER_STEPS, gainRight: AMPLIFIER_STEPS });
  }

  protected override realize(): void {
    this.#setFormats();
    this.onUnrealize(() => this.#stop());
  }

  protected override resetHold(): void {
    this.#stop();
  }

  protected override restored(): void {
    for (const direction of ['output', 'input'] as const)
      this.#voice(direction).resume(audioFormat(this.#converters[direction].format), this.#runs(direction));
  }

  override command(id: number, data: number): void {
    const node = this.#description.nodes.find(candidate => candidate.id === id);
    const long = (data & LONG_VERB) === LONG_VERB;
    const verb = long ? (data >> 8) & 0xfff : (data >> 8) & 0xf00;
    const payload = long ? data & 0xff : data & 0xffff;
    const answer = node === undefined ? 0 : this.#execute(node, verb, payload);
    this.link.controller.response(this, true, answer >>> 0);
  }

  override streamChanged(stream: number, running: boolean, output: boolean): void {
    const bit = 1 << (stream + (output ? STREAM_NUMBERS : 0));
    this.#running.bits = (running ? this.#running.bits | bit : this.#running.bits & ~bit) >>> 0;
    this.#follow(output ? 'output' : 'input');
  }

  #execute(node: Node, verb: number, payload: number): number {
    switch (verb) {
      case VERB.PARAMETERS:
        return node.parameters.get(payload) ?? 0;
      case VERB.GET_SUBSYSTEM_ID:
        return this.#description.identity;
      case VERB.GET_CONNECTIONS:
        return payload === 0 && node.parameters.has(PARAMETER.CONNECTIONS) ? (node.connection ?? 0) : 0;
      case VERB.GET_CONFIGURATION:
        return node.configuration ?? 0;
      case VERB.GET_PIN_CONTROL:
        return node.pinControl ?? 0;
      default:
        return node.converter === undefined ? 0 : this.#convert(node.converter, verb, payload);
    }
  }

  /** Verbs of converters. */
  #convert(direction: 'output' | 'input', verb: number, payload: number): number {
    const s = this.#converters[direction];
    switch (verb) {
      case VERB.SET_STREAM:
        Object.assign(s, { stream: payload >> 4, channel: payload & 0x0f });
        this.#voice(direction).stop();
        this.#follow(direction);
        return 0;
      case VERB.GET_STREAM:
        return (s.stream << 4) | s.channel;
      case VERB.SET_STREAM_FORMAT:
        s.format = payload;
        this.#voice(direction).format = audioFormat(payload);
        return 0;
      case VERB.GET_STREAM_FORMAT:
        return s.format;
      case VERB.GET_AMPLIFIER:
        return (payload & AMPLIFIER.LEFT) !== 0
          ? s.gainLeft | (s.muteLeft ? AMPLIFIER.MUTE : 0)
          : s.gainRight | (s.muteRight ? AMPLIFIER.MUTE : 0);
      case VERB.SET_AMPLIFIER: {
        const [gain, mute] = [payload & AMPLIFIER.GAIN, (payload & AMPLIFIER.MUTE) !== 0];
        if ((payload & AMPLIFIER.SET_LEFT) !== 0) Object.assign(s, { gainLeft: gain, muteLeft: mute });
        if ((payload & AMPLIFIER.SET_RIGHT) !== 0) Object.assign(s, { gainRight: gain, muteRight: mute });
        return 0;
      }
      default:
        return 0;
    }
  }

  #voice(direction: 'output' | 'input'): PlayedVoice | RecordedVoice {
    return direction === 'output' ? this.#played : this.#recorded;
  }

  /** A converter works while the stream that it has been given runs. */
  #follow(direction: 'output' | 'input'): void {
    if (this.#runs(direction)) this.#voice(direction).start();
    else this.#voice(direction).stop();
  }

  #runs(direction: 'output' | 'input'): boolean {
    const bit = this.#converters[direction].stream + (direction === 'output' ? STREAM_NUMBERS : 0);
    return ((this.#running.bits >>> bit) & 1) !== 0;
  }

  #setFormats(): void {
    this.#played.format = audioFormat(this.#converters.output.format);
    this.#recorded.format = audioFormat(this.#converters.input.format);
  }

  #stop(): void {
    this.#played.stop();
    this.#recorded.stop();
  }

  #fill(bytes: Uint8Array): number {
    if (!this.link.controller.transfer(this.#converters.output.stream, true, bytes)) return 0;
    if (this.props.mixer) this.#amplify(bytes);
    return bytes.length;
  }

  /** Gains and mutes of the output amplifier, for samples of 16 bits. */
  #amplify(bytes: Uint8Array): void {
    const { gainLeft, gainRight, muteLeft, muteRight } = this.#converters.output;
    const gain = (mute: boolean, steps: number): number => (mute ? 0 : Math.min(1, steps / AMPLIFIER_STEPS));
    attenuate(bytes, this.#played.format, gain(muteLeft, gainLeft), gain(muteRight, gainRight));
  }
}

/** A stream's format (section 3.7.1); of more than two channels the first two are heard. */
function audioFormat(value: number): AudioFormat {
  const base = (value & 0x4000) !== 0 ? 44_100 : 48_000;
  const multiple = Math.min(4, ((value >> 11) & 7) + 1);
  const divisor = ((value >> 8) & 7) + 1;
  const bits = (value >> 4) & 7;
  return {
    format: bits === 0 ? 's8' : bits === 1 ? 's16' : 's32',
    channels: Math.min(2, (value & 0x0f) + 1),
    frequency: Math.floor((base * multiple) / divisor),
  };
}

class OutputCodec extends AudioCodec {
  constructor(context: DeviceContext<typeof properties>) {
    super(context, 'output');
  }
}

class DuplexCodec extends AudioCodec {
  constructor(context: DeviceContext<typeof properties>) {
    super(context, 'duplex');
  }
}

class MicroCodec extends AudioCodec {
  constructor(context: DeviceContext<typeof properties>) {
    super(context, 'micro');
  }
}

const common = {
  bus: 'HDA',
  category: 'sound',
  parents: ['hda-audio', 'hda-codec', 'device'],
  hotpluggable: true,
  properties,
} as const;

export const hdaOutput = deviceType({
  ...common,
  type: 'hda-output',
  summary: 'HD Audio codec with a line output',
  create: OutputCodec,
});

export const hdaDuplex = deviceType({
  ...common,
  type: 'hda-duplex',
  summary: 'HD Audio codec with line output and input',
  create: DuplexCodec,
});

export const hdaMicro = deviceType({
  ...common,
  type: 'hda-micro',
  summary: 'HD Audio codec with a speaker and a microphone',
  create: MicroCodec,
});
