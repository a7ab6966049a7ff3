import { ms } from '../../core/clock/units.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { field } from '../../core/state/fields.ts';
import { ATTRIBUTE, ENDPOINT_IN, type UsbDescription } from '../../core/usb/descriptors.ts';
import { UsbDevice, usbProperties } from '../../core/usb/device.ts';
import { TRANSFER, type UsbEndpoint } from '../../core/usb/endpoint.ts';
import { PID, type UsbPacket } from '../../core/usb/packet.ts';
import { type PortHandler, UsbPort } from '../../core/usb/port.ts';
import {
  classDeviceIn,
  classDeviceOut,
  classOtherIn,
  classOtherOut,
  endpointOut,
  REQUEST,
  STALL,
} from '../../core/usb/request.ts';
import { SPEED_MASK } from '../../core/usb/speed.ts';

const MAX_PORTS = 8;
/** Hubs behind each other (USB 2.0, section 4.1.1). */
const MAX_DEPTH = 5;
const HUB_CLASS = 0x09;
const HUB_DESCRIPTOR = 0x29;
const ENDPOINT = 1;
/** wHubCharacteristics (table 11-13): individual over-current protection; power switching of no kind, or of each port. */
const CHARACTERISTICS = 0x000a;
const CHARACTERISTICS_POWER = 0x0009;
const POWER_GOOD_MS = 2;
/** Between switching a port on and seeing what is there. */
const POWER_ON_NS = ms(5);

/** wPortStatus, and wPortChange for the first five (tables 11-21, 11-22). */
const STATUS = { CONNECTION: 0x01, ENABLE: 0x02, SUSPEND: 0x04, RESET: 0x10, POWER: 0x100, LOW_SPEED: 0x200 } as const;
const CHANGES = 0x1f;
/** Port features (table 11-17). */
const PORT = {
  ENABLE: 1,
  SUSPEND: 2,
  RESET: 4,
  POWER: 8,
  C_CONNECTION: 16,
  C_ENABLE: 17,
  C_SUSPEND: 18,
  C_OVER_CURRENT: 19,
  C_RESET: 20,
} as const;
/** Hub class requests (table 11-16). */
const HUB_REQUEST = {
  CLEAR_HUB_FEATURE: classDeviceOut(REQUEST.CLEAR_FEATURE),
  SET_HUB_FEATURE: classDeviceOut(REQUEST.SET_FEATURE),
  CLEAR_PORT_FEATURE: classOtherOut(REQUEST.CLEAR_FEATURE),
  SET_PORT_FEATURE: classOtherOut(REQUEST.SET_FEATURE),
  GET_HUB_DESCRIPTOR: classDeviceIn(REQUEST.GET_DESCRIPTOR),
  GET_HUB_STATUS: classDeviceIn(REQUEST.GET_STATUS),
  GET_PORT_STATUS: classOtherIn(REQUEST.GET_STATUS),
} as const;

const description: UsbDescription = {
  vendor: 0x0409,
  product: 0x55aa,
  release: 0x0101,
  manufacturerName: 1,
  productName: 2,
  serialNumber: 3,
  strings: { 1: 'QEMU', 2: 'QEMU USB Hub', 3: '314159' },
  full: {
    usb: 0x0110,
    class: HUB_CLASS,
    maxPacketSize0: 8,
    configurations: [
      {
        value: 1,
        attributes: ATTRIBUTE.ALWAYS | ATTRIBUTE.SELF_POWERED | ATTRIBUTE.REMOTE_WAKEUP,
        interfaceCount: 1,
        interfaces: [
          {
            number: 0,
            class: HUB_CLASS,
            endpoints: [
              {
                address: ENDPOINT | ENDPOINT_IN,
                type: TRANSFER.INTERRUPT,
                maxPacketSize: 1 + Math.ceil(MAX_PORTS / 8),
                interval: 0xff,
              },
            ],
          },
        ],
      },
    ],
  },
};

const properties = {
  ...usbProperties,
  ports: prop.u32({ default: MAX_PORTS }),
  'port-power': prop.bool({ default: false }),
} as const;

/** A full-speed hub (USB 2.0, chapter 11). */
class UsbHub extends UsbDevice<typeof properties> implements PortHandler {
  readonly productName = 'QEMU USB Hub';
  protected readonly description = description;
  readonly #s = this.state(
    1,
    { status: field.words(MAX_PORTS), change: field.words(MAX_PORTS) },
    { name: 'hub', onReset: 'keep' },
  );
  readonly #powerTimer = this.clock.timer('port-power', () => this.#powerGood(), { onReset: 'keep' });
  readonly #report = new Uint8Array(2);
  #ports: readonly UsbPort[] = [];

  protected override get firmwareKind(): string {
    return 'hub';
  }

  protected override setUp(): void {
    const { ports } = this.props;
    const { port } = this;
    if (ports < 1 || ports > MAX_PORTS) {
      throw new SouthbridgeError('ERR_PROPERTY_RANGE', `num_ports (${ports}) out of range (1..${MAX_PORTS})`);
    }
    if (port !== undefined && port.depth >= MAX_DEPTH)
      throw new SouthbridgeError('ERR_BUS_ADDRESS', 'usb hub chain too deep');
    const speeds = SPEED_MASK.low | SPEED_MASK.full;
    this.#ports = Array.from({ length: ports }, (_, index) => new UsbPort(this, index, speeds, port));
    for (const downstream of this.#ports) this.usbBus.addPort(downstream);
    this.busReset();
  }

  override detach(): void {
    for (const downstream of this.#ports) this.usbBus.removePort(downstream);
    super.detach();
  }

  override findBelow(address: number): UsbDevice | undefined {
    for (const [index, port] of this.#ports.entries()) {
      if (((this.#s.status[index] ?? 0) & STATUS.ENABLE) === 0) continue;
      const found = port.find(address);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  protected override busReset(): void {
    this.#s.status.fill(0);
    this.#s.change.fill(0);
    this.#ports.forEach((_, index) => {
      this.#set(index, STATUS.POWER);
      this.#look(index);
    });
  }

  // Port status; both tell whether the host is to know

  #set(index: number, bit: number): boolean {
    const { status, change } = this.#s;
    if (((status[index] ?? 0) & bit) !== 0) return false;
    status[index] = (status[index] ?? 0) | bit;
    change[index] = (change[index] ?? 0) | (bit & CHANGES);
    return (bit & CHANGES) !== 0;
  }

  #clear(index: number, bit: number): boolean {
    const { status, change } = this.#s;
    if (((status[index] ?? 0) & bit) === 0) return false;
    status[index] = (status[index] ?? 0) & ~bit;
    change[index] = (change[index] ?? 0) | (bit & CHANGES);
    return (bit & CHANGES) !== 0;
  }

  /** Sees whether a device is there. */
  #look(index: number): boolean {
    const device = this.#ports[index]?.device;
    if (device === undefined || !device.attached) return false;
    const news = this.#set(index, STATUS.CONNECTION);
    if (device.speed === 'low') this.#set(index, STATUS.LOW_SPEED);
    else this.#clear(index, STATUS.LOW_SPEED);
    return news;
  }

  #powerGood(): void {
    const news = this.#ports.map((_, index) => this.#look(index));
    if (news.includes(true)) this.#notify();
  }

  #notify(): void {
    this.wake(this.endpoint(PID.IN, ENDPOINT));
  }

  // What the ports tell, passed on upstream

  portAttached(port: UsbPort): void {
    this.#look(port.index);
    this.#notify();
  }

  portDetached(port: UsbPort): void {
    if (port.device !== undefined) this.childDetached(port, port.device);
    for (const bit of [STATUS.CONNECTION, STATUS.ENABLE, STATUS.SUSPEND]) this.#clear(port.index, bit);
    this.#notify();
  }

  childDetached(_port: UsbPort, child: UsbDevice): void {
    if (this.port !== undefined) this.port.handler.childDetached(this.port, child);
  }

  wakeup(port: UsbPort): void {
    if (this.#clear(port.index, STATUS.SUSPEND)) this.#notify();
  }

  ready(_port: UsbPort, endpoint: UsbEndpoint, stream: number): void {
    if (this.port !== undefined) this.port.handler.ready(this.port, endpoint, stream);
  }

  // Transfers

  protected override handleData(packet: UsbPacket): void {
    if (packet.pid !== PID.IN || packet.endpoint?.number !== ENDPOINT) {
      packet.status = 'stall';
      return;
    }
    const bytes = Math.ceil((this.#ports.length + 1) / 8);
    // Some drivers ask for the first byte only.
    if (packet.size > 1 && bytes > packet.size) {
      packet.status = 'babble';
      return;
    }
    let changed = 0;
    this.#ports.forEach((_, index) => {
      if (this.#s.change[index] !== 0) changed |= 2 << index;
    });
    // Section 11.12.4
    if (changed === 0) {
      packet.status = 'nak';
      return;
    }
    this.#report[0] = changed & 0xff;
    this.#report[1] = changed >> 8;
    packet.put(this.#report, 0, Math.min(bytes, packet.size));
  }

  protected override controlRequest(
    request: number,
    value: number,
    index: number,
    length: number,
    data: Uint8Array,
  ): number {
    switch (request) {
      case endpointOut(REQUEST.CLEAR_FEATURE):
        return value === 0 && index !== (ENDPOINT | ENDPOINT_IN) ? STALL : 0;
      case HUB_REQUEST.GET_HUB_STATUS:
        data.fill(0, 0, 4);
        return 4;
      case HUB_REQUEST.GET_PORT_STATUS:
        return this.#portStatus(index - 1, data);
      case HUB_REQUEST.SET_HUB_FEATURE:
      case HUB_REQUEST.CLEAR_HUB_FEATURE:
        return value > 1 ? STALL : 0;
      case HUB_REQUEST.SET_PORT_FEATURE:
        return this.#setPortFeature(index - 1, value);
      case HUB_REQUEST.CLEAR_PORT_FEATURE:
        return this.#clearPortFeature(index - 1, value);
      case HUB_REQUEST.GET_HUB_DESCRIPTOR:
        return this.#hubDescriptor(length, data);
      default:
        return STALL;
    }
  }

  #portStatus(index: number, data: Uint8Array): number {
    if (this.#ports[index] === undefined) return STALL;
    const [status, change] = [this.#s.status[index] ?? 0, this.#s.change[index] ?? 0];
    data[0] = status & 0xff;
    data[1] = status >> 8;
    data[2] = change & 0xff;
    data[3] = change >> 8;
    return 4;
  }

  #setPortFeature(index: number, feature: number): number {
    const port = this.#ports[index];
    if (port === undefined) return STALL;
    switch (feature) {
      case PORT.SUSPEND:
        this.#s.status[index] = (this.#s.status[index] ?? 0) | STATUS.SUSPEND;
        return 0;
      case PORT.RESET:
        this.#set(index, STATUS.RESET);
        this.#clear(index, STATUS.RESET);
        if (port.device?.attached) {
          port.device.resetSignal();
          this.#set(index, STATUS.ENABLE);
        }
        this.#notify();
        return 0;
      case PORT.POWER:
        if (this.props['port-power']) {
          this.#set(index, STATUS.POWER);
          this.#powerTimer.arm(POWER_ON_NS);
        }
        return 0;
      default:
        return STALL;
    }
  }

  #clearPortFeature(index: number, feature: number): number {
    if (this.#ports[index] === undefined) return STALL;
    const { status, change } = this.#s;
    switch (feature) {
      case PORT.ENABLE:
        status[index] = (status[index] ?? 0) & ~STATUS.ENABLE;
        return 0;
      case PORT.SUSPEND:
        this.#clear(index, STATUS.SUSPEND);
        return 0;
      case PORT.POWER:
        if (!this.props['port-power']) return STALL;
        status[index] = 0;
        change[index] = 0;
        return 0;
      case PORT.C_CONNECTION:
      case PORT.C_ENABLE:
      case PORT.C_SUSPEND:
      case PORT.C_OVER_CURRENT:
      case PORT.C_RESET:
        change[index] = (change[index] ?? 0) & ~(1 << (feature - PORT.C_CONNECTION));
        return 0;
      default:
        return STALL;
    }
  }

  /** Table 11-13: no port is removable, and all bits of the obsolete power mask are set. */
  #hubDescriptor(length: number, data: Uint8Array): number {
    const count = this.#ports.length;
    const characteristics = this.props['port-power'] ? CHARACTERISTICS_POWER : CHARACTERISTICS;
    const removable = new Array<number>(Math.ceil((count + 1) / 8)).fill(0);
    const powerMask = new Array<number>(Math.ceil(count / 8)).fill(0xff);
    const bytes = [0, HUB_DESCRIPTOR, count, characteristics, 0, POWER_GOOD_MS / 2, 0, ...removable, ...powerMask];
    bytes[0] = bytes.length;
    data.set(bytes);
    return Math.min(length, bytes.length);
  }
}

export const usbHub = deviceType({
  type: 'usb-hub',
  summary: 'USB hub',
  bus: 'usb-bus',
  category: 'bridge',
  parents: ['usb-device', 'device'],
  hotpluggable: true,
  properties,
  create: UsbHub,
});
