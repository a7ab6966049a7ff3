import { ms } from '../../../core/clock/units.ts';
import type { DeviceContext } from '../../../core/device/device-type.ts';
import { type PropSet, type PropValues, prop } from '../../../core/device/property.ts';
import type { InputHandler } from '../../../core/display/input.ts';
import { SouthbridgeError } from '../../../core/errors.ts';
import { field } from '../../../core/state/fields.ts';
import {
  ATTRIBUTE,
  ENDPOINT_IN,
  type InterfaceDescription,
  type SpeedDescription,
  type UsbDescription,
} from '../../../core/usb/descriptors.ts';
import { UsbDevice, usbProperties } from '../../../core/usb/device.ts';
import { TRANSFER } from '../../../core/usb/endpoint.ts';
import { PID, type UsbPacket } from '../../../core/usb/packet.ts';
import { classInterfaceIn, classInterfaceOut, interfaceIn, REQUEST, STALL } from '../../../core/usb/request.ts';
import { giveReport } from './reports.ts';

export const hidProperties = { ...usbProperties, usb_version: prop.u32({ default: 2 }) } as const;

const HID_CLASS = 0x03;
const DESCRIPTOR = { HID: 0x21, REPORT: 0x22 } as const;
/** Class requests (HID 1.11, section 7.2). */
const HID_REQUEST = {
  GET_REPORT: classInterfaceIn(0x01),
  GET_IDLE: classInterfaceIn(0x02),
  GET_PROTOCOL: classInterfaceIn(0x03),
  SET_REPORT: classInterfaceOut(0x09),
  SET_IDLE: classInterfaceOut(0x0a),
  SET_PROTOCOL: classInterfaceOut(0x0b),
} as const;
/** The idle rate's unit (section 7.2.4). */
const IDLE_UNIT = ms(4);
const REPORT_PROTOCOL = 1;
const ENDPOINT = 1;
const VENDOR = 0x0627;
const PRODUCT = 0x0001;
const REPORT_ROOM = 8;

/** What tells one HID device from another. */
export interface HidKind {
  /** In the device's strings: `Tablet`. */
  readonly name: string;
  readonly serial: string;
  /** bInterfaceSubClass and bInterfaceProtocol (section 4.2, 4.3). */
  readonly subclass: number;
  readonly protocol: number;
  /** bcdHID as QEMU's devices have it. */
  readonly release: number;
  readonly report: Uint8Array;
  readonly maxPacketSize: number;
  /** bInterval at high speed: 2 to the power of it less 1, in microframes. */
  readonly highSpeedInterval: number;
  /** Has a boot protocol. */
  readonly boot: boolean;
}

const STRING = { MANUFACTURER: 1, PRODUCT: 2, CONFIGURATION: 3, SERIAL: 4 } as const;
const FULL_SPEED_INTERVAL = 10;

function speedDescription(kind: HidKind, usb: number, maxPacketSize0: number, interval: number): SpeedDescription {
  const { report, release } = kind;
  const description: InterfaceDescription = {
    number: 0,
    class: HID_CLASS,
    subclass: kind.subclass,
    protocol: kind.protocol,
    extra: [
      [
        9,
        DESCRIPTOR.HID,
        release & 0xff,
        release >> 8,
        0,
        1,
        DESCRIPTOR.REPORT,
        report.length & 0xff,
        report.length >> 8,
      ],
    ],
    endpoints: [
      { address: ENDPOINT | ENDPOINT_IN, type: TRANSFER.INTERRUPT, maxPacketSize: kind.maxPacketSize, interval },
    ],
  };
  return {
    usb,
    maxPacketSize0,
    configurations: [
      {
        value: 1,
        name: STRING.CONFIGURATION,
        attributes: ATTRIBUTE.ALWAYS | ATTRIBUTE.REMOTE_WAKEUP,
        maxPower: 50,
        interfaceCount: 1,
        interfaces: [description],
      },
    ],
  };
}

/** @param version 1: full speed only; 2: high speed too */
function describe(kind: HidKind, version: number): UsbDescription {
  return {
    vendor: VENDOR,
    product: PRODUCT,
    release: 0,
    manufacturerName: STRING.MANUFACTURER,
    productName: STRING.PRODUCT,
    serialNumber: STRING.SERIAL,
    strings: {
      [STRING.MANUFACTURER]: 'QEMU',
      [STRING.PRODUCT]: `QEMU USB ${kind.name}`,
      [STRING.CONFIGURATION]: `HID ${kind.name}`,
      [STRING.SERIAL]: kind.serial,
    },
    full: speedDescription(kind, 0x0100, 8, FULL_SPEED_INTERVAL),
    ...(version === 2 && { high: speedDescription(kind, 0x0200, 64, kind.highSpeedInterval) }),
    microsoft: { selectiveSuspend: true },
  };
}

/** A keyboard or pointing device: reports, idle rate and protocol (HID 1.11). What is reported is the subclass's. */
export abstract class UsbHid<S extends PropSet = typeof hidProperties> extends UsbDevice<S> {
  protected readonly description: UsbDescription;
  readonly productName: string;
  readonly #kind: HidKind;
  readonly #s = this.state(
    1,
    { protocol: field.u8(REPORT_PROTOCOL), idle: field.u8(), idlePending: field.bool() },
    { name: 'hid', onReset: 'keep' },
  );
  readonly #idleTimer = this.clock.timer('idle', () => this.#idleOver(), { onReset: 'keep' });
  readonly #report = new Uint8Array(REPORT_ROOM);

  constructor(context: DeviceContext<S>, kind: HidKind) {
    super(context);
    this.#kind = kind;
    this.description = describe(kind, this.hidProps.usb_version);
    this.productName = `QEMU USB ${kind.name}`;
  }

  protected get hidProps(): PropValues<typeof hidProperties> {
    // Every type of HID device declares these properties.
    return this.props as PropValues<S> & PropValues<typeof hidProperties>;
  }

  /** Receives what a person does. */
  protected abstract readonly input: InputHandler;
  protected abstract get hasEvents(): boolean;
  /** Takes the next report off the queue, or repeats the last one. Returns its length, at most `length`. */
  protected abstract nextReport(report: Uint8Array, length: number): number;
  /** A report from the host; false where the device takes none. */
  protected abstract setReport(data: Uint8Array, length: number): boolean;
  /** The guest's driver has begun to listen. */
  protected abstract listened(): void;
  protected abstract clear(): void;

  protected override setUp(): void {
    const version = this.hidProps.usb_version;
    if (version !== 1 && version !== 2)
      throw new SouthbridgeError('ERR_PROPERTY_VALUE', `Invalid usb version ${version} for usb hid device`);
    this.onUnrealize(this.services.input.register(this.input));
  }

  protected override busReset(): void {
    Object.assign(this.#s, { protocol: REPORT_PROTOCOL, idle: 0, idlePending: false });
    this.#idleTimer.cancel();
    this.clear();
  }

  /** There is something to report. */
  protected changed(): void {
    this.wake(this.endpoint(PID.IN, ENDPOINT));
  }

  protected override handleData(packet: UsbPacket): void {
    if (packet.pid !== PID.IN || packet.endpoint?.number !== ENDPOINT) {
      packet.status = 'stall';
      return;
    }
    this.listened();
    if (!this.hasEvents && !this.#s.idlePending) {
      packet.status = 'nak';
      return;
    }
    this.#armIdle();
    packet.put(this.#report, 0, this.#next(this.#report, packet.size));
  }

  protected override controlRequest(
    request: number,
    value: number,
    _index: number,
    length: number,
    data: Uint8Array,
  ): number {
    const s = this.#s;
    switch (request) {
      case interfaceIn(REQUEST.GET_DESCRIPTOR):
        return value >> 8 === DESCRIPTOR.REPORT ? giveReport(this.#kind.report, data, length) : STALL;
      case HID_REQUEST.GET_REPORT:
        return this.#next(data, length);
      case HID_REQUEST.SET_REPORT:
        return this.setReport(data, length) ? 0 : STALL;
      case HID_REQUEST.GET_PROTOCOL:
        if (!this.#kind.boot) return STALL;
        data[0] = s.protocol;
        return 1;
      case HID_REQUEST.SET_PROTOCOL:
        if (!this.#kind.boot) return STALL;
        s.protocol = value & 0xff;
        return 0;
      case HID_REQUEST.GET_IDLE:
        data[0] = s.idle;
        return 1;
      case HID_REQUEST.SET_IDLE:
        s.idle = value >> 8;
        this.#armIdle();
        this.listened();
        return 0;
      default:
        return STALL;
    }
  }

  #next(report: Uint8Array, length: number): number {
    this.#s.idlePending = false;
    return this.nextReport(report, Math.min(length, REPORT_ROOM));
  }

  #armIdle(): void {
    if (this.#s.idle === 0) this.#idleTimer.cancel();
    else this.#idleTimer.arm(this.#s.idle * IDLE_UNIT);
  }

  #idleOver(): void {
    this.#s.idlePending = true;
    this.changed();
  }
}
