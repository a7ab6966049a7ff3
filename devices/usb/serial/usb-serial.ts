import type { Chardev, CharUser, SerialParameters } from '../../../core/char/chardev.ts';
import { deviceType } from '../../../core/device/device-type.ts';
import { prop } from '../../../core/device/property.ts';
import { SouthbridgeError } from '../../../core/errors.ts';
import { field } from '../../../core/state/fields.ts';
import { ATTRIBUTE, ENDPOINT_IN, type UsbDescription } from '../../../core/usb/descriptors.ts';
import { UsbDevice, usbProperties } from '../../../core/usb/device.ts';
import { TRANSFER } from '../../../core/usb/endpoint.ts';
import { MAX_PACKET_BYTES, PID, type UsbPacket } from '../../../core/usb/packet.ts';
import { endpointOut, REQUEST, STALL, vendorDeviceIn, vendorDeviceOut } from '../../../core/usb/request.ts';

/** Vendor requests of the FT232BM (FTDI; Linux, drivers/usb/serial/ftdi_sio.h, has them in public). */
const FTDI = {
  RESET: vendorDeviceOut(0),
  SET_MODEM_CONTROL: vendorDeviceOut(1),
  SET_FLOW_CONTROL: vendorDeviceOut(2),
  SET_BAUD_RATE: vendorDeviceOut(3),
  SET_DATA: vendorDeviceOut(4),
  GET_MODEM_STATUS: vendorDeviceIn(5),
  SET_EVENT_CHAR: vendorDeviceOut(6),
  SET_ERROR_CHAR: vendorDeviceOut(7),
  SET_LATENCY: vendorDeviceOut(9),
  GET_LATENCY: vendorDeviceIn(10),
} as const;

/** What RESET resets. */
const RESET = { ALL: 0, RECEIVER: 1 } as const;
/** Lines in the low byte of SET_MODEM_CONTROL; those that it is about are in the high one. */
const DTR = 1 << 0;
const RTS = 1 << 1;
const XON_XOFF = 1 << 2;
/** Fields of SET_DATA. */
const DATA = { BITS: 0xff, PARITY_SHIFT: 8, PARITY: 7, STOP_SHIFT: 11, STOP: 3, BREAK: 1 << 14 } as const;
const PARITIES: readonly (SerialParameters['parity'] | undefined)[] = ['none', 'odd', 'even'];
const STOP_BITS: readonly (number | undefined)[] = [1, undefined, 2];

/** The two bytes in front of what is received in each packet: modem status, of which bit 0 is always set, and line status. */
const HEADER = 2;
const MODEM = { ALWAYS: 1 << 0, CTS: 1 << 4, DSR: 1 << 5, RI: 1 << 6, RLSD: 1 << 7 } as const;
const LINE = { BREAK: 1 << 4, HOLDING_EMPTY: 1 << 5, EMPTY: 1 << 6 } as const;

/** Eighths by which the divisor of the baud rate is more than its whole part, from bits 14, 15 and 16. */
const EIGHTHS = [0, 4, 2, 1, 3, 5, 6, 7] as const;
const CLOCK = 24_000_000;

const ENDPOINT = { IN: 1, OUT: 2 } as const;
const PACKET = 64;
const ROOM = 496;
const EVENT_CHAR = 0x0d;

const STRING = { MANUFACTURER: 1, PRODUCT: 2, SERIAL: 4 } as const;

const description: UsbDescription = {
  vendor: 0x0403,
  product: 0x6001,
  release: 0x0400,
  manufacturerName: STRING.MANUFACTURER,
  productName: STRING.PRODUCT,
  serialNumber: STRING.SERIAL,
  strings: { [STRING.MANUFACTURER]: 'QEMU', [STRING.PRODUCT]: 'QEMU USB SERIAL', [STRING.SERIAL]: '1' },
  full: {
    usb: 0x0200,
    maxPacketSize0: 8,
    configurations: [
      {
        value: 1,
        attributes: ATTRIBUTE.ALWAYS | ATTRIBUTE.REMOTE_WAKEUP,
        maxPower: 50,
        interfaceCount: 1,
        interfaces: [
          {
            number: 0,
            class: 0xff,
            subclass: 0xff,
            protocol: 0xff,
            endpoints: [
              { address: ENDPOINT.IN | ENDPOINT_IN, type: TRANSFER.BULK, maxPacketSize: PACKET },
              { address: ENDPOINT.OUT, type: TRANSFER.BULK, maxPacketSize: PACKET },
            ],
          },
        ],
      },
    ],
  },
};

const properties = {
  ...usbProperties,
  chardev: prop.backend<Chardev>('chardev'),
  'always-plugged': prop.bool({ default: false, help: 'whether it is there while nobody has opened the chardev' }),
};

/** A serial port behind FTDI's chip, which comes and goes with whoever is at the other end. */
class UsbSerial extends UsbDevice<typeof properties> implements CharUser {
  readonly productName = 'QEMU USB Serial';
  protected readonly description = description;
  readonly #s = this.state(
    1,
    {
      received: field.buffer(ROOM),
      /** What the chardev has not taken yet of the last packet. */
      sending: field.buffer(MAX_PACKET_BYTES),
      breakPending: field.bool(),
      eventChar: field.u8(EVENT_CHAR),
      errorChar: field.u8(),
      flowControl: field.u8(),
      xon: field.u8(),
      xoff: field.u8(),
      latency: field.u8(),
      lines: field.u8(),
      speed: field.u32(),
      dataBits: field.u8(8),
      stopBits: field.u8(1),
      parity: field.oneOf(['none', 'even', 'odd'], 'none'),
    },
    { name: 'serial', onReset: 'keep' },
  );
  readonly #header = new Uint8Array(HEADER);

  protected override setUp(): void {
    const { chardev } = this.props;
    if (chardev === undefined) throw new SouthbridgeError('ERR_PROPERTY_MISSING', 'Property chardev is required');
    chardev.attach(this);
    this.onUnrealize(() => chardev.detach());
  }

  protected override get attachesItself(): boolean {
    return this.props['always-plugged'] || this.props.chardev?.isOpen === true;
  }

  protected override busReset(): void {
    this.#resetPort();
  }

  #resetPort(): void {
    Object.assign(this.#s, {
      eventChar: EVENT_CHAR,
      breakPending: false,
      received: new Uint8Array(0),
      flowControl: 0,
    });
    this.props.chardev?.acceptInput();
  }

  // The host's side

  canReceive(): number {
    return this.attached ? ROOM - this.#s.received.length : 0;
  }

  receive(bytes: Uint8Array): void {
    this.#s.received = Buffer.concat([this.#s.received, bytes]);
    this.wake(this.endpoint(PID.IN, ENDPOINT.IN));
  }

  drained(): void {
    this.#send();
    if (this.#s.sending.length === 0) this.wake(this.endpoint(PID.OUT, ENDPOINT.OUT));
  }

  event(event: Parameters<NonNullable<CharUser['event']>>[0]): void {
    if (event === 'break') this.#s.breakPending = true;
    // Who was there already is seen when the device is plugged in.
    if (!this.realized || this.props['always-plugged']) return;
    if (event === 'opened') this.plugIn();
    if (event === 'closed') this.pullOut();
  }

  #send(): void {
    const s = this.#s;
    while (s.sending.length > 0) {
      const taken = this.props.chardev?.write(s.sending) ?? s.sending.length;
      if (taken === 0) return;
      s.sending = s.sending.slice(taken);
    }
  }

  get #modemStatus(): number {
    const lines = this.props.chardev?.modemLines();
    if (lines === undefined) return MODEM.ALWAYS | MODEM.CTS | MODEM.DSR | MODEM.RLSD;
    return (
      MODEM.ALWAYS |
      (lines.cts ? MODEM.CTS : 0) |
      (lines.dsr ? MODEM.DSR : 0) |
      (lines.ri ? MODEM.RI : 0) |
      (lines.dcd ? MODEM.RLSD : 0)
    );
  }

  // Control requests

  protected override controlRequest(
    request: number,
    value: number,
    index: number,
    _length: number,
    data: Uint8Array,
  ): number {
    const s = this.#s;
    switch (request) {
      case endpointOut(REQUEST.CLEAR_FEATURE):
        return 0;
      case FTDI.RESET:
        if (value === RESET.ALL) this.#resetPort();
        if (value === RESET.RECEIVER) s.received = new Uint8Array(0);
        return 0;
      case FTDI.SET_MODEM_CONTROL:
        s.lines = (s.lines & ~(value >> 8)) | (value & (value >> 8) & (DTR | RTS));
        this.props.chardev?.setOutputs({ dtr: (s.lines & DTR) !== 0, rts: (s.lines & RTS) !== 0 });
        return 0;
      case FTDI.SET_FLOW_CONTROL:
        s.flowControl = index >> 8;
        if ((s.flowControl & XON_XOFF) !== 0) Object.assign(s, { xon: value & 0xff, xoff: value >> 8 });
        return 0;
      case FTDI.SET_BAUD_RATE:
        s.speed = baudRate(value, index);
        this.#setParameters();
        return 0;
      case FTDI.SET_DATA:
        return this.#setData(value) ? 0 : STALL;
      case FTDI.GET_MODEM_STATUS:
        data[0] = this.#modemStatus;
        data[1] = LINE.HOLDING_EMPTY | LINE.EMPTY;
        return HEADER;
      case FTDI.SET_EVENT_CHAR:
        s.eventChar = value & 0xff;
        return 0;
      case FTDI.SET_ERROR_CHAR:
        s.errorChar = value & 0xff;
        return 0;
      case FTDI.SET_LATENCY:
        s.latency = value & 0xff;
        return 0;
      case FTDI.GET_LATENCY:
        data[0] = s.latency;
        return 1;
      default:
        return STALL;
    }
  }

  /** Data bits other than 7 and 8 are 8, as the chip has them; marks, spaces and one and a half stop bits are refused. */
  #setData(value: number): boolean {
    const s = this.#s;
    const parity = PARITIES[(value >> DATA.PARITY_SHIFT) & DATA.PARITY];
    const stopBits = STOP_BITS[(value >> DATA.STOP_SHIFT) & DATA.STOP];
    s.dataBits = (value & DATA.BITS) === 7 ? 7 : 8;
    if (parity === undefined) return false;
    s.parity = parity;
    if (stopBits === undefined) return false;
    s.stopBits = stopBits;
    this.#setParameters();
    this.props.chardev?.setBreak((value & DATA.BREAK) !== 0);
    return true;
  }

  #setParameters(): void {
    const { speed, parity, dataBits, stopBits } = this.#s;
    this.props.chardev?.setParameters({ speed, parity, dataBits, stopBits });
  }

  // Data

  protected override handleData(packet: UsbPacket): void {
    const number = packet.endpoint?.number;
    if (packet.pid === PID.OUT && number === ENDPOINT.OUT) this.#take(packet);
    else if (packet.pid === PID.IN && number === ENDPOINT.IN) this.#give(packet);
    else packet.status = 'stall';
  }

  /** The guest waits while the other end takes nothing. */
  #take(packet: UsbPacket): void {
    const s = this.#s;
    if (s.sending.length > 0) {
      packet.status = 'nak';
      return;
    }
    const bytes = new Uint8Array(packet.size);
    packet.take(bytes, 0, packet.size);
    s.sending = bytes;
    this.#send();
  }

  /** A header for each 64 bytes, whatever the controller takes at once. */
  #give(packet: UsbPacket): void {
    const s = this.#s;
    this.#header[0] = this.#modemStatus;
    this.#header[1] = 0;
    if (packet.size <= HEADER) {
      packet.status = 'nak';
    } else if (s.breakPending) {
      s.breakPending = false;
      this.#header[1] = LINE.BREAK;
      packet.put(this.#header, 0, HEADER);
    } else if (s.received.length === 0) {
      packet.status = 'nak';
    } else {
      let given = 0;
      while (given < s.received.length && packet.left > HEADER) {
        packet.put(this.#header, 0, HEADER);
        given += packet.put(s.received, given, Math.min(PACKET - HEADER, s.received.length - given));
      }
      s.received = s.received.slice(given);
      this.props.chardev?.acceptInput();
    }
  }
}

/** Bits 13:0 of `value` are the divisor's whole part; 0 and 1 alone stand for the two highest rates. */
function baudRate(value: number, index: number): number {
  const whole = value & 0x3fff;
  const eighths = EIGHTHS[(value >> 14) | ((index & 1) << 2)] ?? 0;
  if (whole === 0 && eighths === 0) return CLOCK / 8;
  if (whole === 1 && eighths === 0) return CLOCK / 12;
  return Math.floor(CLOCK / (8 * whole + eighths));
}

export const usbSerial = deviceType({
  type: 'usb-serial',
  summary: 'QEMU USB Serial',
  bus: 'usb-bus',
  category: 'input',
  parents: ['usb-serial-dev', 'usb-device', 'device'],
  hotpluggable: true,
  properties,
  create: UsbSerial,
});
