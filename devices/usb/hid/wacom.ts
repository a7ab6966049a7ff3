import { deviceType } from '../../../core/device/device-type.ts';
import { ABSOLUTE_MAX, type InputButton, type InputEvent, type InputHandler } from '../../../core/display/input.ts';
import { field } from '../../../core/state/fields.ts';
import { ATTRIBUTE, ENDPOINT_IN, type UsbDescription } from '../../../core/usb/descriptors.ts';
import { UsbDevice, usbProperties } from '../../../core/usb/device.ts';
import { TRANSFER } from '../../../core/usb/endpoint.ts';
import { PID, type UsbPacket } from '../../../core/usb/packet.ts';
import { classInterfaceIn, classInterfaceOut, interfaceIn, REQUEST, STALL } from '../../../core/usb/request.ts';
import { giveReport, wacomReport } from './reports.ts';

/** Class requests (HID 1.11, section 7.2). Wacom's driver asks for the mode by a request in the wrong direction, too. */
const HID_REQUEST = {
  GET_REPORT: classInterfaceIn(0x01),
  GET_IDLE: classInterfaceIn(0x02),
  GET_MODE: classInterfaceOut(0x01),
  SET_MODE: classInterfaceOut(0x09),
  SET_IDLE: classInterfaceOut(0x0a),
} as const;

const DESCRIPTOR = { HID: 0x21, REPORT: 0x22 } as const;

/** What it takes itself for: a mouse, or until it is told so by Wacom's driver the tablet that it is. */
const MODE = { MOUSE: 1, TABLET: 2 } as const;

/** Steps of the PenPartner. */
const WIDTH = 5040;
const HEIGHT = 3780;

const MOUSE_REPORT = 4;
const TABLET_REPORT = 7;
/** Buttons in reports of either kind. The tablet's are the tip, the stylus' button and the eraser. */
const MOUSE_BITS: Readonly<Partial<Record<InputButton, number>>> = { left: 0x01, right: 0x02, middle: 0x04 };
const TABLET_BITS = { LEFT: 0x01, MIDDLE: 0x20, RIGHT: 0x40 } as const;
/** Pressure: from -127, for none. */
const NO_PRESSURE = 0x81;

const ENDPOINT = 1;
const STRING = { MANUFACTURER: 1, PRODUCT: 2, SERIAL: 3 } as const;
const REPORT_ROOM = 8;

const description: UsbDescription = {
  vendor: 0x056a,
  product: 0x0000,
  release: 0x4210,
  manufacturerName: STRING.MANUFACTURER,
  productName: STRING.PRODUCT,
  serialNumber: STRING.SERIAL,
  strings: { [STRING.MANUFACTURER]: 'QEMU', [STRING.PRODUCT]: 'Wacom PenPartner', [STRING.SERIAL]: '1' },
  full: {
    usb: 0x0110,
    maxPacketSize0: 8,
    configurations: [
      {
        value: 1,
        attributes: ATTRIBUTE.ALWAYS,
        maxPower: 40,
        interfaceCount: 1,
        interfaces: [
          {
            number: 0,
            class: 0x03,
            subclass: 0x01,
            protocol: 0x02,
            extra: [[9, DESCRIPTOR.HID, 0x01, 0x10, 0, 1, DESCRIPTOR.REPORT, wacomReport.length, 0]],
            endpoints: [{ address: ENDPOINT | ENDPOINT_IN, type: TRANSFER.INTERRUPT, maxPacketSize: 8, interval: 10 }],
          },
        ],
      },
    ],
  },
};

const clamp = (value: number): number => Math.max(-128, Math.min(127, value));

/** Wacom's PenPartner, a graphics tablet. */
class UsbWacom extends UsbDevice<typeof usbProperties> {
  readonly productName = 'QEMU PenPartner Tablet';
  protected readonly description = description;
  readonly #s = this.state(
    1,
    {
      mode: field.u8(MODE.MOUSE),
      idle: field.u8(),
      changed: field.bool(true),
      listening: field.bool(),
      buttons: field.u8(),
      x: field.u16(),
      y: field.u16(),
      moveX: field.number(),
      moveY: field.number(),
      wheel: field.number(),
    },
    { name: 'tablet', onReset: 'keep' },
  );
  readonly #report = new Uint8Array(REPORT_ROOM);
  /** Takes the handler that is registered away; there is one once the guest listens. */
  #deafen: (() => void) | undefined;

  protected override setUp(): void {
    this.onUnrealize(() => this.#stopListening());
  }

  protected override busReset(): void {
    Object.assign(this.#s, { mode: MODE.MOUSE, buttons: 0, x: 0, y: 0, moveX: 0, moveY: 0, wheel: 0 });
  }

  protected override restored(): void {
    super.restored();
    this.#deafen?.();
    this.#deafen = undefined;
    if (this.#s.listening) this.#listen();
  }

  // What a person does

  #listen(): void {
    if (this.#deafen !== undefined) return;
    this.#s.listening = true;
    const handler: InputHandler = {
      name: 'QEMU PenPartner tablet',
      kinds: new Set(['button', this.#s.mode === MODE.MOUSE ? 'relative' : 'absolute'] as const),
      input: event => this.#event(event),
      sync: () => {
        this.#s.changed = true;
        this.wake(this.endpoint(PID.IN, ENDPOINT));
      },
    };
    this.#deafen = this.services.input.register(handler);
    this.services.input.activate(handler);
  }

  #stopListening(): void {
    this.#s.listening = false;
    this.#deafen?.();
    this.#deafen = undefined;
  }

  #event(event: InputEvent): void {
    const s = this.#s;
    if (event.kind === 'relative') {
      if (event.axis === 'x') s.moveX += event.value;
      else s.moveY += event.value;
    } else if (event.kind === 'absolute') {
      if (event.axis === 'x') s.x = Math.trunc((event.value * WIDTH) / ABSOLUTE_MAX);
      else s.y = Math.trunc((event.value * HEIGHT) / ABSOLUTE_MAX);
    } else if (event.kind === 'button') {
      const bit = MOUSE_BITS[event.button] ?? 0;
      s.buttons = event.down ? s.buttons | bit : s.buttons & ~bit;
      if (event.down && event.button === 'wheel-up') s.wheel--;
      if (event.down && event.button === 'wheel-down') s.wheel++;
    }
  }

  // Requests

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
        return value >> 8 === DESCRIPTOR.REPORT ? giveReport(wacomReport, data, length) : STALL;
      case HID_REQUEST.SET_MODE:
        this.#stopListening();
        s.mode = data[0] ?? 0;
        return 0;
      case HID_REQUEST.GET_MODE:
        data[0] = 0;
        data[1] = s.mode;
        return 2;
      case HID_REQUEST.GET_REPORT:
        return giveReport(this.#report, data, this.#poll(length));
      case HID_REQUEST.GET_IDLE:
        data[0] = s.idle;
        return 1;
      case HID_REQUEST.SET_IDLE:
        s.idle = value >> 8;
        return 0;
      default:
        return STALL;
    }
  }

  protected override handleData(packet: UsbPacket): void {
    const s = this.#s;
    if (packet.pid !== PID.IN || packet.endpoint?.number !== ENDPOINT) {
      packet.status = 'stall';
      return;
    }
    if (!s.changed && s.idle === 0) {
      packet.status = 'nak';
      return;
    }
    s.changed = false;
    packet.put(this.#report, 0, this.#poll(packet.size));
  }

  /** The next report, for which there is room of `length` bytes. Returns its length. */
  #poll(length: number): number {
    const { mode } = this.#s;
    if (mode === MODE.MOUSE) return this.#pollMouse(length);
    return mode === MODE.TABLET ? this.#pollTablet(length) : 0;
  }

  #pollMouse(length: number): number {
    this.#listen();
    const s = this.#s;
    const [x, y, wheel] = [clamp(s.moveX), clamp(s.moveY), clamp(s.wheel)];
    s.moveX -= x;
    s.moveY -= y;
    s.wheel -= wheel;
    this.#report[0] = s.buttons;
    this.#report[1] = x;
    this.#report[2] = y;
    this.#report[3] = wheel;
    return Math.min(length, MOUSE_REPORT);
  }

  #pollTablet(length: number): number {
    this.#listen();
    if (length < TABLET_REPORT) return 0;
    const { mode, x, y, buttons } = this.#s;
    const { left = 0, right = 0, middle = 0 } = MOUSE_BITS;
    const pressed =
      ((buttons & left) !== 0 ? TABLET_BITS.LEFT : 0) |
      ((buttons & right) !== 0 ? TABLET_BITS.RIGHT : 0) |
      ((buttons & middle) !== 0 ? TABLET_BITS.MIDDLE : 0);
    this.#report.set([mode, x & 0xff, x >> 8, y & 0xff, y >> 8, pressed & 0xf0]);
    this.#report[6] = (pressed & 0x3f) !== 0 ? 0 : NO_PRESSURE;
    return TABLET_REPORT;
  }
}

export const usbWacomTablet = deviceType({
  type: 'usb-wacom-tablet',
  summary: 'QEMU PenPartner Tablet',
  bus: 'usb-bus',
  category: 'input',
  parents: ['usb-device', 'device'],
  hotpluggable: true,
  properties: usbProperties,
  create: UsbWacom,
});
