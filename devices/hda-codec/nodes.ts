/** Parameters of nodes (HD Audio 1.0a, section 7.3.4). */
export const PARAMETER = {
  VENDOR_ID: 0x00,
  SUBSYSTEM_ID: 0x01,
  REVISION_ID: 0x02,
  NODE_COUNT: 0x04,
  FUNCTION_TYPE: 0x05,
  FUNCTION_CAPABILITIES: 0x08,
  WIDGET_CAPABILITIES: 0x09,
  PCM: 0x0a,
  STREAM_FORMATS: 0x0b,
  PIN_CAPABILITIES: 0x0c,
  AMPLIFIER_IN: 0x0d,
  CONNECTIONS: 0x0e,
  POWER_STATES: 0x0f,
  GPIO: 0x11,
  AMPLIFIER_OUT: 0x12,
} as const;

/** Widget capabilities: the type in bits 20 to 23, and what the widget has. */
const WIDGET = { OUTPUT: 0 << 20, INPUT: 1 << 20, PIN: 4 << 20 } as const;
const HAS = {
  STEREO: 0x001,
  INPUT_AMPLIFIER: 0x002,
  OUTPUT_AMPLIFIER: 0x004,
  OWN_AMPLIFIER: 0x008,
  OWN_FORMATS: 0x010,
  CONNECTIONS: 0x100,
} as const;
/** 16 to 96 kHz, of 16 bits. */
const PCM_FORMATS = 0x2_01fc;
const PCM_STREAMS = 1;
const PIN = { OUTPUT: 1 << 4, INPUT: 1 << 5 } as const;
const PIN_ENABLED = { OUTPUT: 0x40, INPUT: 0x20 } as const;
const REVISION = 0x0010_0101;
const AUDIO_FUNCTION = 1;
/** Delays of eight samples either way. */
const FUNCTION_DELAYS = 0x0808;
const VENDOR = 0x1af4;

/** Steps of an amplifier, the highest of which is 0 dB; and its capabilities with mute and steps of 1 dB. */
export const AMPLIFIER_STEPS = 0x4a;
const AMPLIFIER = ((1 << 31) | (3 << 16) | (AMPLIFIER_STEPS << 8) | AMPLIFIER_STEPS) >>> 0;

/** The default configuration of a pin (section 7.3.3.31): device, colour and association. */
const JACK = { LINE_OUT: 0x0 << 20, SPEAKER: 0x1 << 20, LINE_IN: 0x8 << 20, MICROPHONE: 0xa << 20 } as const;
const GREEN = 4 << 12;
const RED = 5 << 12;

/** One node of a codec. */
export interface Node {
  readonly id: number;
  readonly parameters: ReadonlyMap<number, number>;
  readonly configuration?: number;
  readonly pinControl?: number;
  readonly connection?: number;
  /** The converter that it is, by its direction. */
  readonly converter?: 'output' | 'input';
}

/** A codec's nodes, and the identity that it answers with. */
export interface CodecDescription {
  readonly identity: number;
  readonly nodes: readonly Node[];
}

export type CodecKind = 'output' | 'duplex' | 'micro';
const IDENTITIES: Readonly<Record<CodecKind, number>> = { output: 0x10, duplex: 0x20, micro: 0x30 };

/** The nodes of a codec; with `mixer` its converters have amplifiers. */
export function describeCodec(kind: CodecKind, mixer: boolean): CodecDescription {
  const identity = ((VENDOR << 16) | IDENTITIES[kind] | (mixer ? 2 : 1)) >>> 0;
  const amplifier = mixer ? AMPLIFIER : 0;
  const record = kind !== 'output';
  const nodes: Node[] = [
    { id: 0, parameters: root(identity) },
    { id: 1, parameters: audioFunction(identity, record ? 4 : 2) },
    { id: 2, parameters: outputConverter(amplifier), converter: 'output' },
    {
      id: 3,
      parameters: pin(PIN.OUTPUT, true),
      configuration: (kind === 'micro' ? JACK.SPEAKER : JACK.LINE_OUT) | GREEN | 0x10,
      pinControl: PIN_ENABLED.OUTPUT,
      connection: 2,
    },
  ];
  if (record) {
    nodes.push(
      { id: 4, parameters: inputConverter(amplifier), converter: 'input', connection: 5 },
      {
        id: 5,
        parameters: pin(PIN.INPUT, false),
        configuration: (kind === 'micro' ? JACK.MICROPHONE : JACK.LINE_IN) | RED | 0x20,
        pinControl: PIN_ENABLED.INPUT,
      },
    );
  }
  return { identity, nodes };
}

const root = (identity: number): ReadonlyMap<number, number> =>
  new Map([
    [PARAMETER.VENDOR_ID, identity],
    [PARAMETER.SUBSYSTEM_ID, identity],
    [PARAMETER.REVISION_ID, REVISION],
    [PARAMETER.NODE_COUNT, 0x0001_0001],
  ]);

const audioFunction = (identity: number, widgets: number): ReadonlyMap<number, number> =>
  new Map([
    [PARAMETER.FUNCTION_TYPE, AUDIO_FUNCTION],
    [PARAMETER.SUBSYSTEM_ID, identity],
    [PARAMETER.NODE_COUNT, 0x0002_0000 | widgets],
    [PARAMETER.PCM, PCM_FORMATS],
    [PARAMETER.STREAM_FORMATS, PCM_STREAMS],
    [PARAMETER.AMPLIFIER_IN, 0],
    [PARAMETER.AMPLIFIER_OUT, 0],
    [PARAMETER.GPIO, 0],
    [PARAMETER.FUNCTION_CAPABILITIES, FUNCTION_DELAYS],
    [PARAMETER.POWER_STATES, 0],
  ]);

const outputConverter = (amplifier: number): ReadonlyMap<number, number> =>
  new Map([
    [
      PARAMETER.WIDGET_CAPABILITIES,
      WIDGET.OUTPUT | HAS.OWN_FORMATS | HAS.OWN_AMPLIFIER | HAS.OUTPUT_AMPLIFIER | HAS.STEREO,
    ],
    [PARAMETER.PCM, PCM_FORMATS],
    [PARAMETER.STREAM_FORMATS, PCM_STREAMS],
    [PARAMETER.AMPLIFIER_IN, 0],
    [PARAMETER.AMPLIFIER_OUT, amplifier],
  ]);

const inputConverter = (amplifier: number): ReadonlyMap<number, number> =>
  new Map([
    [
      PARAMETER.WIDGET_CAPABILITIES,
      WIDGET.INPUT | HAS.CONNECTIONS | HAS.OWN_FORMATS | HAS.OWN_AMPLIFIER | HAS.INPUT_AMPLIFIER | HAS.STEREO,
    ],
    [PARAMETER.CONNECTIONS, 1],
    [PARAMETER.PCM, PCM_FORMATS],
    [PARAMETER.STREAM_FORMATS, PCM_STREAMS],
    [PARAMETER.AMPLIFIER_IN, amplifier],
    [PARAMETER.AMPLIFIER_OUT, 0],
  ]);

const pin = (capability: number, connected: boolean): ReadonlyMap<number, number> =>
  new Map([
    [PARAMETER.WIDGET_CAPABILITIES, WIDGET.PIN | (connected ? HAS.CONNECTIONS : 0) | HAS.STEREO],
    [PARAMETER.PIN_CAPABILITIES, capability],
    ...(connected ? [[PARAMETER.CONNECTIONS, 1] as const] : []),
    [PARAMETER.AMPLIFIER_IN, 0],
    [PARAMETER.AMPLIFIER_OUT, 0],
  ]);
