import { ATTRIBUTE, ENDPOINT_IN, type UsbDescription } from '../../../core/usb/descriptors.ts';
import { TRANSFER } from '../../../core/usb/endpoint.ts';

/** Commands to the reader and its answers: CCID, revision 1.1, sections 6.1 and 6.2. */
export const COMMAND = {
  SET_PARAMETERS: 0x61,
  ICC_POWER_ON: 0x62,
  ICC_POWER_OFF: 0x63,
  GET_SLOT_STATUS: 0x65,
  SECURE: 0x69,
  T0_APDU: 0x6a,
  ESCAPE: 0x6b,
  GET_PARAMETERS: 0x6c,
  RESET_PARAMETERS: 0x6d,
  ICC_CLOCK: 0x6e,
  XFR_BLOCK: 0x6f,
  MECHANICAL: 0x71,
  ABORT: 0x72,
  SET_DATA_RATE: 0x73,
} as const;
export const ANSWER = {
  DATA_BLOCK: 0x80,
  SLOT_STATUS: 0x81,
  PARAMETERS: 0x82,
  ESCAPE: 0x83,
  DATA_RATE: 0x84,
} as const;
export const NOTIFY_SLOT_CHANGE = 0x50;

/** How a command that is not supported is answered, where not by the slot's status. */
export const REFUSED_WITH: ReadonlyMap<number, number> = new Map([
  [COMMAND.ESCAPE, ANSWER.ESCAPE],
  [COMMAND.SECURE, ANSWER.DATA_BLOCK],
  [COMMAND.SET_DATA_RATE, ANSWER.DATA_RATE],
]);

/** Of each message: type, length of what follows, slot, sequence number, three bytes of its own. */
export const HEADER = 10;
export const LENGTH_AT = 1;
export const SLOT_AT = 5;
export const SEQUENCE_AT = 6;
/** bProtocolNum of Get-, Reset- and SetParameters, and bChainParameter and so on of answers. */
export const OWN_AT = 7;
export const MESSAGE_MAX = HEADER + 65_544;

/** bmICCStatus and bmCommandStatus (section 6.2.6). */
export const STATUS = { ACTIVE: 0, INACTIVE: 1, ABSENT: 2, FAILED: 0x40 } as const;
/** bError (table 6.2-2). */
export const ERROR = {
  NONE: 0,
  NOT_SUPPORTED: 0,
  LENGTH: 1,
  SLOT: 5,
  ABORTED: 0xff,
  MUTE: 0xfe,
  HARDWARE: 0xfb,
} as const;

export const ENDPOINT = { INTERRUPT: 1, IN: 2, OUT: 3 } as const;
const PACKET = 64;
const STRING = { MANUFACTURER: 1, PRODUCT: 2, SERIAL: 3, INTERFACE: 4 } as const;
const word = (value: number): number[] => [value & 0xff, (value >> 8) & 0xff];
const dword = (value: number): number[] => [...word(value), ...word(value >>> 16)];

/** Automatic parameters, activation, voltage, clock and rate; PPS; IFSD exchange; TPDU level. */
const FEATURES = 0x0001_04fe;
/** Section 5.1. */
const CLASS_DESCRIPTOR = [
  0x36,
  0x21,
  ...word(0x0110),
  0, // bMaxSlotIndex
  0x07, // 5.0, 3.0 and 1.8 V
  ...dword(1), // T=0
  ...dword(4000), // kHz
  ...dword(0x1_0000),
  0,
  ...dword(9600), // bits a second
  ...dword(115_200),
  0,
  ...dword(254), // dwMaxIFSD
  ...dword(0),
  ...dword(0),
  ...dword(FEATURES),
  ...dword(0x1_0012), // dwMaxCCIDMessageLength
  0xff,
  0xff,
  ...word(0),
  0x01, // PIN verification
  1, // bMaxCCIDBusySlots
];

export const ccidDescription: UsbDescription = {
  vendor: 0x08e6,
  product: 0x4433,
  release: 0,
  manufacturerName: STRING.MANUFACTURER,
  productName: STRING.PRODUCT,
  serialNumber: STRING.SERIAL,
  strings: {
    [STRING.MANUFACTURER]: 'QEMU',
    [STRING.PRODUCT]: 'QEMU USB CCID',
    [STRING.SERIAL]: '1',
    [STRING.INTERFACE]: 'CCID Interface',
  },
  full: {
    usb: 0x0110,
    maxPacketSize0: 64,
    configurations: [
      {
        value: 1,
        attributes: ATTRIBUTE.ALWAYS | ATTRIBUTE.SELF_POWERED | ATTRIBUTE.REMOTE_WAKEUP,
        maxPower: 50,
        interfaceCount: 1,
        interfaces: [
          {
            number: 0,
            class: 0x0b,
            name: STRING.INTERFACE,
            extra: [CLASS_DESCRIPTOR],
            endpoints: [
              {
                address: ENDPOINT.INTERRUPT | ENDPOINT_IN,
                type: TRANSFER.INTERRUPT,
                maxPacketSize: PACKET,
                interval: 255,
              },
              { address: ENDPOINT.IN | ENDPOINT_IN, type: TRANSFER.BULK, maxPacketSize: PACKET },
              { address: ENDPOINT.OUT, type: TRANSFER.BULK, maxPacketSize: PACKET },
            ],
          },
        ],
      },
    ],
  },
};

/** What parameters a card has that nobody has set any for (section 6.2.3), in the longer form, T=1's. */
export const DEFAULT_PARAMETERS: Uint8Array = Uint8Array.of(0x77, 0, 0, 0, 0, 0xfe, 0);
export const T0_PARAMETERS_SIZE = 5;
