import {
  ATTRIBUTE,
  DESCRIPTOR,
  type InterfaceDescription,
  type UsbDescription,
} from '../../../core/usb/descriptors.ts';
import { TRANSFER } from '../../../core/usb/endpoint.ts';

export const RATE = 48_000;
export const ENDPOINT = 1;
/** The stream's interface, and the unit that mutes it and has its volume. */
export const STREAM = 1;
export const FEATURE_UNIT = 2;

/** Channels in each setting of the stream's interface; there is none in the first. */
export const SETTINGS = [0, 2, 6, 8] as const;

/** A frame of USB, a millisecond, brings so many bytes. */
export const packetBytes = (channels: number): number => (RATE / 1000) * 2 * channels;

const STRING = {
  MANUFACTURER: 1,
  PRODUCT: 2,
  SERIAL: 3,
  CONFIGURATION: 4,
  CONTROL: 5,
  INPUT_TERMINAL: 6,
  FEATURE_UNIT: 7,
  OUTPUT_TERMINAL: 8,
  NO_STREAM: 9,
  STREAM: 10,
} as const;

const CLASS = 0x01;
const SUBCLASS = { CONTROL: 0x01, STREAMING: 0x02 } as const;
/** As QEMU's device has it, where the class has no protocols. */
const PROTOCOL = 0x04;
const CS_ENDPOINT = 0x25;
/** Isochronous, synchronous, data (USB 2.0, table 9-13). */
const SYNCHRONOUS_DATA = 0x0d;

const TERMINAL = { USB_STREAMING: 0x0101, SPEAKER: 0x0301 } as const;
const INPUT_TERMINAL = 1;
const OUTPUT_TERMINAL = 3;
const CONTROL = { MUTE: 1 << 0, VOLUME: 1 << 1 } as const;
/** Front left and right; and centre, bass, both sides and both backs (Audio 1.0, section 3.7.2.3). */
const PLACES: Readonly<Record<number, number>> = { 2: 0x0003, 8: 0x063f };

const word = (value: number): number[] => [value & 0xff, value >> 8];

/** Class-specific descriptors of the control interface (Audio 1.0, section 4.3.2): pipe, volume, speaker, of `channels`. */
function controlDescriptors(channels: number): number[][] {
  const body = [
    [
      ...[12, DESCRIPTOR.CS_INTERFACE, 2, INPUT_TERMINAL, ...word(TERMINAL.USB_STREAMING), 0, channels],
      ...[...word(PLACES[channels] ?? 0), 0, STRING.INPUT_TERMINAL],
    ],
    [
      ...[9 + 2 * channels, DESCRIPTOR.CS_INTERFACE, 6, FEATURE_UNIT, INPUT_TERMINAL, 2, ...word(CONTROL.MUTE)],
      ...Array.from({ length: channels }, () => word(CONTROL.VOLUME)).flat(),
      STRING.FEATURE_UNIT,
    ],
    [
      ...[9, DESCRIPTOR.CS_INTERFACE, 3, OUTPUT_TERMINAL, ...word(TERMINAL.SPEAKER), 0, FEATURE_UNIT],
      STRING.OUTPUT_TERMINAL,
    ],
  ];
  const header = [9, DESCRIPTOR.CS_INTERFACE, 1, ...word(0x0100), ...word(9 + body.flat().length), 1, STREAM];
  const [input = [], feature = [], output = []] = body;
  return [header, input, feature, output];
}

function stream(alternate: number, channels: number): InterfaceDescription {
  if (channels === 0) {
    const none = { number: STREAM, class: CLASS, subclass: SUBCLASS.STREAMING, name: STRING.NO_STREAM };
    return { ...none, endpoints: [] };
  }
  return {
    number: STREAM,
    alternate,
    class: CLASS,
    subclass: SUBCLASS.STREAMING,
    name: STRING.STREAM,
    extra: [
      // Section 4.5.2: PCM.
      [7, DESCRIPTOR.CS_INTERFACE, 1, INPUT_TERMINAL, 0, ...word(1)],
      // Section 4.5.3: type I, 16 bits in two bytes, one rate.
      [11, DESCRIPTOR.CS_INTERFACE, 2, 1, channels, 2, 16, 1, ...word(RATE & 0xffff), RATE >> 16],
    ],
    endpoints: [
      {
        address: ENDPOINT,
        type: TRANSFER.ISOCHRONOUS,
        attributes: SYNCHRONOUS_DATA,
        audio: true,
        maxPacketSize: packetBytes(channels),
        interval: 1,
        extra: [7, CS_ENDPOINT, 1, 0, 0, 0, 0],
      },
    ],
  };
}

/** @param multi whether there are settings of six and of eight channels */
export function usbAudioDescription(multi: boolean): UsbDescription {
  const settings = multi ? SETTINGS : SETTINGS.slice(0, 2);
  return {
    vendor: 0x46f4,
    product: 0x0002,
    release: 0,
    manufacturerName: STRING.MANUFACTURER,
    productName: STRING.PRODUCT,
    serialNumber: STRING.SERIAL,
    strings: {
      [STRING.MANUFACTURER]: 'QEMU',
      [STRING.PRODUCT]: 'QEMU USB Audio',
      [STRING.SERIAL]: '1',
      [STRING.CONFIGURATION]: 'Audio Configuration',
      [STRING.CONTROL]: 'Audio Device',
      [STRING.INPUT_TERMINAL]: 'Audio Output Pipe',
      [STRING.FEATURE_UNIT]: 'Audio Output Volume Control',
      [STRING.OUTPUT_TERMINAL]: 'Audio Output Terminal',
      [STRING.NO_STREAM]: 'Audio Output - Disabled',
      [STRING.STREAM]: 'Audio Output - 48 kHz Stereo',
    },
    full: {
      usb: 0x0100,
      maxPacketSize0: 64,
      configurations: [
        {
          value: 1,
          name: STRING.CONFIGURATION,
          attributes: ATTRIBUTE.ALWAYS | ATTRIBUTE.SELF_POWERED,
          maxPower: 0x32,
          interfaceCount: 2,
          interfaces: [
            {
              number: 0,
              class: CLASS,
              subclass: SUBCLASS.CONTROL,
              protocol: PROTOCOL,
              name: STRING.CONTROL,
              extra: controlDescriptors(multi ? 8 : 2),
              endpoints: [],
            },
            ...settings.map((channels, alternate) => stream(alternate, channels)),
          ],
        },
      ],
    },
  };
}
