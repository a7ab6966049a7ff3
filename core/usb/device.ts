import { Device } from '../device/device.ts';
import type { DeviceContext } from '../device/device-type.ts';
import { type PropSet, type PropValues, prop } from '../device/property.ts';
import { SouthbridgeError } from '../errors.ts';
import { usbNodes } from '../firmware/boot-order.ts';
import { field, type SavedValue } from '../state/fields.ts';
import { devicePathOf, UsbBus } from './bus.ts';
import { ControlPipe, controlPipeState } from './control-pipe.ts';
import {
  ATTRIBUTE,
  bosDescriptor,
  type ConfigurationDescription,
  configurationDescriptor,
  DESCRIPTOR,
  deviceDescriptor,
  deviceQualifier,
  ENDPOINT_IN,
  type InterfaceDescription,
  languageDescriptor,
  MICROSOFT_REQUEST,
  MICROSOFT_SIGNATURE,
  MICROSOFT_STRING,
  microsoftDescriptor,
  type SpeedDescription,
  stringDescriptor,
  type UsbDescription,
} from './descriptors.ts';
import { UsbEndpoint } from './endpoint.ts';
import { PID, type Pid, type UsbPacket } from './packet.ts';
import type { UsbPort } from './port.ts';
import {
  deviceIn,
  deviceOut,
  FEATURE,
  interfaceIn,
  interfaceOut,
  REQUEST,
  STALL,
  vendorDeviceIn,
  vendorInterfaceIn,
} from './request.ts';
import { commonSpeed, SPEED_MASK, speedNames, type UsbSpeed } from './speed.ts';

const ENDPOINTS = 15;
const INTERFACES = 16;

/** The properties that every USB device has, with QEMU's names. */
export const usbProperties = {
  port: prop.string(),
  serial: prop.string(),
  'msos-desc': prop.bit({ default: true }),
} as const;

/** A USB device: descriptors, standard requests (USB 2.0, chapter 9) and endpoints. What it is for is the subclass's. */
export abstract class UsbDevice<S extends PropSet = PropSet> extends Device<S> {
  readonly usbBus: UsbBus;
  readonly #usb = this.state(
    1,
    {
      /** Attached, then reset by the host: only now does it have an address (figure 9-1). */
      attached: field.bool(),
      reset: field.bool(),
      address: field.u8(),
      speed: field.oneOf(['low', 'full', 'high', 'super'], 'full'),
      remoteWakeup: field.bool(),
      configuration: field.u8(),
      alternates: field.bytes(INTERFACES),
    },
    { name: 'usb', onReset: 'keep' },
  );
  readonly #control = new ControlPipe(
    this.state(1, controlPipeState, { name: 'control', onReset: 'keep' }),
    (request, value, index, length, data) => this.#request(request, value, index, length, data),
  );
  readonly #endpoint0 = new UsbEndpoint(this, 0, undefined);
  readonly #in: readonly UsbEndpoint[];
  readonly #out: readonly UsbEndpoint[];
  readonly #interfaces: (InterfaceDescription | undefined)[] = new Array(INTERFACES).fill(undefined);
  #configuration: ConfigurationDescription | undefined;
  #port: UsbPort | undefined;
  #serial: string | undefined;

  constructor(context: DeviceContext<S>) {
    super(context);
    if (!(context.bus instanceof UsbBus))
      throw new SouthbridgeError('ERR_DEVICE_TYPE', `'${context.type.type}' needs a USB bus`);
    this.usbBus = context.bus;
    const side = (pid: Pid): UsbEndpoint[] =>
      Array.from({ length: ENDPOINTS }, (_, index) => new UsbEndpoint(this, index + 1, pid));
    this.#in = side(PID.IN);
    this.#out = side(PID.OUT);
    this.defineProperty({
      name: 'attached',
      type: 'bool',
      get: () => this.#usb.attached,
      ...(this.attachedSettable && { set: (value: unknown) => this.#setAttached(value) }),
    });
  }

  // What a subclass says and does

  /** What QEMU calls it in messages and in `info usb`. */
  abstract readonly productName: string;
  protected abstract readonly description: UsbDescription;

  /** The speeds that it can have; by default those that it has descriptors for. */
  protected get speeds(): number {
    const { full, high, super: fastest } = this.description;
    return (
      (full === undefined ? 0 : SPEED_MASK.full) |
      (high === undefined ? 0 : SPEED_MASK.high) |
      (fastest === undefined ? 0 : SPEED_MASK.super)
    );
  }

  /** Part of its node in firmware's device paths. */
  protected get firmwareKind(): string {
    return this.typeName;
  }

  /** The host has reset the device. */
  protected busReset(): void {}

  /** A control request other than the standard ones: see ControlHandler. */
  protected controlRequest(request: number, value: number, index: number, length: number, data: Uint8Array): number {
    void request;
    void value;
    void index;
    void length;
    void data;
    return STALL;
  }

  /** A packet of an endpoint other than 0: sets its status, and moves data with `put` and `take`. */
  protected abstract handleData(packet: UsbPacket): void;

  /** The host no longer wants a packet that was put off with status `async`. */
  protected cancelled(packet: UsbPacket): void {
    void packet;
  }

  protected interfaceChanged(number: number, before: number, after: number): void {
    void number;
    void before;
    void after;
  }

  /** The controller has no more packets for the endpoint for now: what was held back for more may go. */
  endpointStopped(endpoint: UsbEndpoint): void {
    void endpoint;
  }

  /** A device below with this address: hubs only. */
  findBelow(address: number): UsbDevice | undefined {
    void address;
    return undefined;
  }

  /** Everything but being plugged into the port: backends, further ports. */
  protected setUp(): void {}

  /** Whether the device is on its port from the start. */
  protected get attachesItself(): boolean {
    return true;
  }

  /** Whether a user may plug it in and pull it out while it stays on its port (qom-set of `attached`). */
  protected get attachedSettable(): boolean {
    return false;
  }

  #setAttached(value: unknown): void {
    if (value === true) this.plugIn();
    else if (value === false) this.pullOut();
    else throw new SouthbridgeError('ERR_PROPERTY_VALUE', "Invalid parameter type for 'attached', expected: boolean");
  }

  // Where it is

  protected get usbProps(): PropValues<typeof usbProperties> {
    // Every type of USB device declares the USB properties.
    return this.props as PropValues<S> & PropValues<typeof usbProperties>;
  }

  get requestedPort(): string | undefined {
    return this.usbProps.port;
  }

  get port(): UsbPort | undefined {
    return this.#port;
  }

  /** The bus gives the device its port, or takes it. */
  place(port: UsbPort | undefined): void {
    this.#port = port;
  }

  get attached(): boolean {
    return this.#usb.attached;
  }

  /** It answers to its address. */
  get addressable(): boolean {
    return this.#usb.attached && this.#usb.reset;
  }

  get address(): number {
    return this.#usb.address;
  }

  get speed(): UsbSpeed {
    return this.#usb.speed;
  }

  get supportsHighSpeed(): boolean {
    return (this.speeds & SPEED_MASK.high) !== 0;
  }

  /** bConfigurationValue of what the host has chosen; 0 before it has. */
  protected get configurationValue(): number {
    return this.#usb.configuration;
  }

  protected get remoteWakeup(): boolean {
    return this.#usb.remoteWakeup;
  }

  override get firmwareName(): string | undefined {
    return this.#port === undefined ? undefined : usbNodes(this.#port.path, this.firmwareKind).join('/');
  }

  protected override realize(): void {
    const { serial } = this.usbProps;
    const { strings, serialNumber } = this.description;
    const where = devicePathOf(this.usbBus);
    const parts = [strings[serialNumber], ...(where === undefined ? [] : [where]), this.#port?.path];
    this.#serial = serial ?? parts.join('-');
    this.setUp();
    if (this.attachesItself) this.plugIn();
  }

  override detach(): void {
    this.pullOut();
    super.detach();
  }

  /** @throws SouthbridgeError ERR_BUS_KIND where port and device have no speed in common */
  protected plugIn(): void {
    const port = this.#port;
    if (port === undefined || this.#usb.attached) return;
    if (commonSpeed(this.speeds, port.capable) === undefined) {
      throw new SouthbridgeError(
        'ERR_BUS_KIND',
        `Warning: speed mismatch trying to attach usb device "${this.productName}" (${speedNames(this.speeds)} speed) ` +
          `to bus "${this.usbBus.busName}", port "${port.path}" (${speedNames(port.capable)} speed)`,
      );
    }
    this.#usb.attached = true;
    this.connect();
  }

  protected pullOut(): void {
    if (!this.#usb.attached) return;
    this.disconnect();
    this.#usb.attached = false;
  }

  /** The port sees the device, which is in its default state with the speed that the port allows. */
  connect(): void {
    const port = this.#port;
    if (port === undefined) return;
    this.#usb.speed = commonSpeed(this.speeds, port.speeds) ?? 'full';
    this.#usb.reset = false;
    this.#configure(0);
    port.handler.portAttached(port);
  }

  /** The port no longer sees it. */
  disconnect(): void {
    if (this.#port === undefined) return;
    this.#port.handler.portDetached(this.#port);
    this.#usb.reset = false;
  }

  /** Reset signalling from the port (USB 2.0, section 7.1.7.5). */
  resetSignal(): void {
    if (!this.#usb.attached) return;
    this.#control.reset();
    this.#configure(0);
    this.busReset();
    this.#usb.remoteWakeup = false;
    this.#usb.address = 0;
    this.#usb.reset = true;
  }

  /** What a controller does that sets the address by itself (xHCI). */
  setAddress(address: number): void {
    this.#usb.address = address;
  }

  // Packets

  endpoint(pid: Pid, number: number): UsbEndpoint | undefined {
    if (number === 0) return this.#endpoint0;
    return pid === PID.IN ? this.#in[number - 1] : pid === PID.OUT ? this.#out[number - 1] : undefined;
  }

  /** Takes a packet. With status `async` the device has it, or it waits, and the owner is told when it is done. */
  submit(packet: UsbPacket): void {
    const { endpoint } = packet;
    if (endpoint === undefined) {
      packet.status = 'no-device';
      return;
    }
    if (endpoint.queue.length === 0) {
      endpoint.halted = false;
      this.#process(packet);
      if (packet.status !== 'async') return;
      packet.started = true;
    } else if (packet.stream !== 0) {
      // Streams of one endpoint do not wait for each other.
      this.#process(packet);
      if (packet.status !== 'async') return;
      packet.started = true;
    } else {
      packet.status = 'async';
      packet.started = false;
    }
    packet.inFlight = true;
    endpoint.queue.push(packet);
  }

  /** Gives `packet` up. Its owner is not told. */
  cancel(packet: UsbPacket): void {
    if (!packet.inFlight) return;
    this.#unqueue(packet);
    if (packet.started) this.cancelled(packet);
  }

  /** `packet`, which the device had put off, is finished; the next ones on its endpoint follow. */
  protected complete(packet: UsbPacket): void {
    const { endpoint } = packet;
    if (endpoint === undefined || !packet.inFlight) return;
    this.#completeOne(packet, endpoint);
    for (let next = endpoint.queue[0]; next !== undefined; next = endpoint.queue[0]) {
      if (endpoint.halted) {
        next.status = 'removed';
        this.#unqueue(next);
        if (next.started) this.cancelled(next);
        next.owner.packetDone(next);
        continue;
      }
      if (next.started) return;
      this.#process(next);
      if (next.status === 'async') {
        next.started = true;
        return;
      }
      if (next.status === 'nak') next.status = 'io-error';
      this.#completeOne(next, endpoint);
    }
  }

  /** The answer to a control request that {@link controlRequest} put off. */
  protected completeControl(packet: UsbPacket, result: number): void {
    this.#control.answer(packet, result);
    this.complete(packet);
  }

  /** The endpoint has something now: wakes a suspended host, and a controller that polls less often. */
  protected wake(endpoint: UsbEndpoint | undefined, stream = 0): void {
    const port = this.#port;
    if (port === undefined || endpoint === undefined || !this.#usb.attached) return;
    if (this.#usb.remoteWakeup) port.handler.wakeup(port);
    port.handler.ready(port, endpoint, stream);
  }

  #completeOne(packet: UsbPacket, endpoint: UsbEndpoint): void {
    if (packet.status !== 'success' || (packet.shortNotOk && packet.transferred < packet.size)) endpoint.halted = true;
    this.#unqueue(packet);
    packet.owner.packetDone(packet);
  }

  #unqueue(packet: UsbPacket): void {
    const queue = packet.endpoint?.queue;
    const index = queue?.indexOf(packet) ?? -1;
    if (index >= 0) queue?.splice(index, 1);
    packet.inFlight = false;
  }

  #process(packet: UsbPacket): void {
    packet.status = 'success';
    if (packet.endpoint?.number === 0) this.#control.process(packet);
    else this.handleData(packet);
  }

  // Standard requests

  get #microsoft(): boolean {
    return this.description.microsoft !== undefined && this.usbProps['msos-desc'];
  }

  get #speedDescription(): SpeedDescription | undefined {
    const { full, high, super: fastest } = this.description;
    return this.speed === 'super' ? fastest : this.speed === 'high' ? high : full;
  }

  #request(request: number, value: number, index: number, length: number, data: Uint8Array): number {
    const usb = this.#usb;
    switch (request) {
      case deviceOut(REQUEST.SET_ADDRESS):
        usb.address = value & 0x7f;
        return 0;
      case deviceIn(REQUEST.GET_DESCRIPTOR):
        return reply(this.#descriptor(value >> 8, value & 0xff), length, data);
      case deviceIn(REQUEST.GET_CONFIGURATION):
        data[0] = usb.configuration;
        return 1;
      case deviceOut(REQUEST.SET_CONFIGURATION):
        return this.#configure(value);
      case deviceIn(REQUEST.GET_STATUS):
        data[0] = this.#status;
        data[1] = 0;
        return 2;
      case deviceOut(REQUEST.CLEAR_FEATURE):
      case deviceOut(REQUEST.SET_FEATURE):
        if (value !== FEATURE.REMOTE_WAKEUP) return this.controlRequest(request, value, index, length, data);
        usb.remoteWakeup = request === deviceOut(REQUEST.SET_FEATURE);
        return 0;
      case deviceOut(REQUEST.SET_SEL):
      case deviceOut(REQUEST.SET_ISOCH_DELAY):
        return usb.speed === 'super' ? 0 : STALL;
      case interfaceIn(REQUEST.GET_INTERFACE):
        if (index >= (this.#configuration?.interfaceCount ?? 0)) return STALL;
        data[0] = usb.alternates[index] ?? 0;
        return 1;
      case interfaceOut(REQUEST.SET_INTERFACE):
        return this.#setInterface(index, value);
      case vendorDeviceIn(MICROSOFT_REQUEST):
      case vendorInterfaceIn(MICROSOFT_REQUEST): {
        const { microsoft } = this.description;
        if (microsoft !== undefined && this.#microsoft)
          return reply(microsoftDescriptor(microsoft, index), length, data);
        break;
      }
    }
    return this.controlRequest(request, value, index, length, data);
  }

  get #status(): number {
    const configuration = this.#configuration ?? this.#speedDescription?.configurations[0];
    const selfPowered = ((configuration?.attributes ?? 0) & ATTRIBUTE.SELF_POWERED) !== 0;
    return (selfPowered ? 1 : 0) | (this.#usb.remoteWakeup ? 2 : 0);
  }

  #descriptor(type: number, index: number): number[] | undefined {
    const { description } = this;
    const here = this.#speedDescription;
    const other = this.speed === 'high' ? description.full : description.high;
    if (here === undefined) return undefined;
    const configuration = here.configurations[index];
    const otherConfiguration = other?.configurations[index];
    switch (type) {
      case DESCRIPTOR.DEVICE:
        return deviceDescriptor(description, here, this.#microsoft);
      case DESCRIPTOR.CONFIGURATION:
        return configuration && configurationDescriptor(here, configuration, type);
      case DESCRIPTOR.STRING:
        return this.#string(index);
      case DESCRIPTOR.DEVICE_QUALIFIER:
        return other && deviceQualifier(other);
      case DESCRIPTOR.OTHER_SPEED:
        return other && otherConfiguration && configurationDescriptor(other, otherConfiguration, type);
      case DESCRIPTOR.BOS:
        return bosDescriptor(description);
      default:
        return undefined;
    }
  }

  #string(index: number): number[] | undefined {
    if (index === 0) return languageDescriptor();
    const { strings, serialNumber } = this.description;
    if (index === MICROSOFT_STRING && this.#microsoft) return stringDescriptor(MICROSOFT_SIGNATURE);
    const text = index === serialNumber ? this.#serial : this.stringFor(index, strings[index]);
    return text === undefined ? undefined : stringDescriptor(text);
  }

  /** A string that the description does not know, such as a MAC address. */
  protected stringFor(index: number, described: string | undefined): string | undefined {
    void index;
    return described;
  }

  // Configurations and interfaces

  #configure(value: number): number {
    const usb = this.#usb;
    const found = this.#speedDescription?.configurations.find(candidate => candidate.value === value);
    if (value !== 0 && found === undefined) return STALL;
    this.#configuration = found;
    usb.configuration = value;
    usb.alternates.fill(0);
    this.#settle();
    return 0;
  }

  #setInterface(number: number, alternate: number): number {
    const found = this.#configuration?.interfaces.find(
      candidate => candidate.number === number && (candidate.alternate ?? 0) === alternate,
    );
    if (found === undefined) return STALL;
    const before = this.#usb.alternates[number] ?? 0;
    this.#usb.alternates[number] = alternate;
    this.#settle();
    if (before !== alternate) this.interfaceChanged(number, before, alternate);
    return 0;
  }

  /** Endpoints follow from the configuration and the alternate settings. */
  #settle(): void {
    const { alternates } = this.#usb;
    this.#interfaces.fill(undefined);
    for (const endpoint of [...this.#in, ...this.#out]) endpoint.disable();
    for (const candidate of this.#configuration?.interfaces ?? []) {
      if ((candidate.alternate ?? 0) !== alternates[candidate.number]) continue;
      this.#interfaces[candidate.number] = candidate;
      for (const { address, type, maxPacketSize, streams } of candidate.endpoints) {
        const side = (address & ENDPOINT_IN) !== 0 ? this.#in : this.#out;
        side[(address & 0x0f) - 1]?.configure(type, candidate.number, maxPacketSize, streams ?? 0);
      }
    }
  }

  override restore(saved: SavedValue): void {
    super.restore(saved);
    const { configuration } = this.#usb;
    this.#configuration = this.#speedDescription?.configurations.find(candidate => candidate.value === configuration);
    this.#settle();
  }
}

/** As much of `descriptor` as was asked for. */
function reply(descriptor: readonly number[] | undefined, length: number, data: Uint8Array): number {
  if (descriptor === undefined) return STALL;
  const count = Math.min(descriptor.length, length);
  for (let index = 0; index < count; index++) data[index] = descriptor[index] ?? 0;
  return count;
}
