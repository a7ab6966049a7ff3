import { Bus } from '../core/device/bus.ts';
import type { Device } from '../core/device/device.ts';
import type { DeviceContext } from '../core/device/device-type.ts';
import { deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { SouthbridgeError } from '../core/errors.ts';
import type { VirtqueueElement } from '../core/virtio/element.ts';
import { bit, QUEUES_MAX, STATUS, VIRTIO_ID } from '../core/virtio/features.ts';
import { VirtioDevice, virtioProperties } from '../core/virtio/virtio-device.ts';
import { virtioPciTypes } from '../core/virtio/virtio-pci-types.ts';
import type { Virtqueue } from '../core/virtio/virtqueue.ts';

/** Feature bits (virtio 1.2, section 5.3.3). */
const F = { SIZE: 0, MULTIPORT: 1, EMERG_WRITE: 2 } as const;

/** Offsets in the configuration space (section 5.3.4). */
const CONFIG = { MAX_PORTS: 4, EMERG_WR: 8 } as const;
const CONFIG_SIZE = 12;

/** Events of the control queues (section 5.3.6.2). */
export const EVENT = {
  DEVICE_READY: 0,
  DEVICE_ADD: 1,
  DEVICE_REMOVE: 2,
  PORT_READY: 3,
  CONSOLE_PORT: 4,
  RESIZE: 5,
  PORT_OPEN: 6,
  PORT_NAME: 7,
} as const;
const CONTROL_SIZE = 8;

const PORT_QUEUE = 128;
const CONTROL_QUEUE = 32;
const PORTS_LIMIT = QUEUES_MAX / 2 - 1;

const properties = {
  ...virtioProperties,
  max_ports: prop.u32({ default: 31 }),
  'emergency-write': prop.bit({ default: true }),
} as const;

/** A port as its device sees it. */
export interface SerialPort {
  readonly number: number;
  readonly portName: string | undefined;
  /** A console, which the guest hooks up to its terminal (section 5.3.6.2.1). */
  readonly console: boolean;
  readonly hostConnected: boolean;
  guestConnected: boolean;
  /** The guest has bytes. */
  outputReady(queue: Virtqueue): void;
  /** The guest has room. */
  inputReady(): void;
  /** One byte without queues, from a guest in trouble. */
  emergencyWrite(byte: number): void;
  /** The guest has opened or closed the port. */
  guestOpened(open: boolean): void;
  /** The device was reset: nothing is held any more. */
  guestReset(): void;
}

/** Where ports plug into a virtio serial device. */
export class VirtioSerialBus extends Bus {
  readonly serial: VirtioSerial;

  constructor(name: string, serial: VirtioSerial, context: DeviceContext) {
    super('virtio-serial-bus', name, { services: context.services, home: context.bus.home, owner: serial });
    this.serial = serial;
  }

  override addressOf(device: Device): string | undefined {
    return this.serial.numberOf(device)?.toString();
  }
}

/** Console device (virtio 1.2, section 5.3): up to 511 ports, each with a queue in each direction. */
export class VirtioSerial extends VirtioDevice<typeof properties> {
  readonly #ports = new Map<number, SerialPort>();
  readonly #message = new Uint8Array(CONTROL_SIZE);
  readonly #messageView = new DataView(this.#message.buffer);
  #controlIn: Virtqueue | undefined;

  protected override realize(): void {
    const ports = this.props.max_ports;
    if (ports === 0) throw refused('Maximum number of serial ports not specified');
    if (ports > PORTS_LIMIT) throw refused(`maximum ports supported: ${PORTS_LIMIT}`);
    this.begin({
      id: VIRTIO_ID.CONSOLE,
      configSize: this.props['emergency-write'] ? CONFIG_SIZE : CONFIG.EMERG_WR,
    });
    this.#addPortQueues();
    this.#controlIn = this.addQueue(CONTROL_QUEUE, () => {});
    this.addQueue(CONTROL_QUEUE, queue => this.#control(queue));
    for (let port = 1; port < ports; port++) this.#addPortQueues();
  }

  /** The first port's queues come before the control queues, all others after them (section 5.3.2). */
  #addPortQueues(): void {
    this.addQueue(PORT_QUEUE, queue => this.#portOf(queue)?.inputReady());
    this.addQueue(PORT_QUEUE, queue => this.#output(queue));
  }

  #portOf(queue: Virtqueue): SerialPort | undefined {
    const pair = queue.index >>> 1;
    return this.#ports.get(pair === 0 ? 0 : pair - 1);
  }

  /** A port's queue towards the guest. */
  inputOf(port: number): Virtqueue | undefined {
    return this.queues[port === 0 ? 0 : 2 * (port + 1)];
  }

  /** A port's queue from the guest. */
  outputOf(port: number): Virtqueue | undefined {
    return this.queues[port === 0 ? 1 : 2 * (port + 1) + 1];
  }

  get multiport(): boolean {
    return this.accepted(F.MULTIPORT);
  }

  protected override offeredFeatures(common: bigint): bigint {
    return (
      common |
      (this.props.max_ports > 1 ? bit(F.MULTIPORT) : 0n) |
      (this.props['emergency-write'] ? bit(F.EMERG_WRITE) : 0n)
    );
  }

  protected override readConfig(config: DataView): void {
    config.setUint32(0, 0, true);
    config.setUint32(CONFIG.MAX_PORTS, this.props.max_ports, true);
    if (config.byteLength > CONFIG.EMERG_WR) config.setUint32(CONFIG.EMERG_WR, 0, true);
  }

  protected override configWritten(config: DataView): void {
    if (config.byteLength <= CONFIG.EMERG_WR) return;
    const character = config.getUint32(CONFIG.EMERG_WR, true);
    if (character !== 0) this.#ports.get(0)?.emergencyWrite(character & 0xff);
    config.setUint32(CONFIG.EMERG_WR, 0, true);
  }

  /** A driver that knows of one port only never says that it has opened it. */
  protected override statusChanging(status: number): void {
    if ((status & STATUS.DRIVER_OK) === 0) {
      this.virtioReset();
      return;
    }
    const first = this.#ports.get(0);
    if (first !== undefined && !this.multiport) first.guestConnected = true;
  }

  protected override virtioReset(): void {
    for (const port of this.#ports.values()) {
      port.guestReset();
      if (!port.guestConnected) continue;
      port.guestConnected = false;
      port.guestOpened(false);
    }
  }

  // Ports

  /** The number of a port. */
  numberOf(device: Device): number | undefined {
    for (const [number, port] of this.#ports) if (Object.is(port, device)) return number;
    return undefined;
  }

  /** The number that a port gets: the one it asks for, or the first free one; 0 is for a console. */
  numberFor(wanted: number | undefined, console: boolean): number {
    const { max_ports: limit } = this.props;
    if (wanted !== undefined) {
      if (this.#ports.has(wanted)) throw refused(`virtio-serial-bus: A port already exists at id ${wanted}`);
      if (wanted < limit) return wanted;
      throw refused(`virtio-serial-bus: Out-of-range port id specified, max. allowed: ${limit - 1}`);
    }
    if (console && !this.#ports.has(0)) return 0;
    for (let number = 1; number < limit; number++) if (!this.#ports.has(number)) return number;
    throw refused('virtio-serial-bus: Maximum port limit for this device reached');
  }

  addPort(port: SerialPort): void {
    for (const other of this.#ports.values()) {
      if (port.portName !== undefined && other.portName === port.portName) {
        throw refused(`virtio-serial-bus: A port already exists by name ${port.portName}`);
      }
    }
    this.#ports.set(port.number, port);
    this.tell(port.number, EVENT.DEVICE_ADD, 1);
    this.configChanged();
  }

  removePort(port: SerialPort): void {
    if (this.#ports.get(port.number) !== port) return;
    const output = this.outputOf(port.number);
    if (output !== undefined) this.#discard(output);
    this.tell(port.number, EVENT.DEVICE_REMOVE, 1);
    this.#ports.delete(port.number);
  }

  #output(queue: Virtqueue): void {
    const port = this.#portOf(queue);
    if (port?.hostConnected) port.outputReady(queue);
    else this.#discard(queue);
  }

  #discard(queue: Virtqueue): void {
    if (!queue.ready) return;
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) queue.push(element, 0);
    queue.notify();
  }

  /** What the host left of a closed port is thrown away. */
  discardOutput(port: number): void {
    const queue = this.outputOf(port);
    if (queue !== undefined) this.#discard(queue);
  }

  // Control messages (section 5.3.6.2)

  /** Tells the driver something about a port, with a text where there is one. Lost where the driver has no buffer. */
  tell(port: number, event: number, value: number, text?: string): void {
    const queue = this.#controlIn;
    if (queue === undefined || !this.running) return;
    const element = queue.pop();
    if (element === undefined) return;
    const length = this.#compose(element, port, event, value, text);
    queue.push(element, length);
    queue.notify();
  }

  #compose(element: VirtqueueElement, port: number, event: number, value: number, text: string | undefined): number {
    const view = this.#messageView;
    view.setUint32(0, port, true);
    view.setUint16(4, event, true);
    view.setUint16(6, value, true);
    const length = element.write(this.#message);
    return text === undefined ? length : length + element.write(Buffer.from(`${text}\0`), CONTROL_SIZE);
  }

  #control(queue: Virtqueue): void {
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      const complete = element.read(this.#message) === CONTROL_SIZE;
      const view = this.#messageView;
      const port = view.getUint32(0, true);
      const event = view.getUint16(4, true);
      const value = view.getUint16(6, true);
      queue.push(element, 0);
      if (complete) this.#handle(port, event, value);
    }
    queue.notify();
  }

  #handle(number: number, event: number, value: number): void {
    if (event === EVENT.DEVICE_READY) {
      if (value === 0) this.log.guestError('the driver cannot use the device');
      else for (const port of this.#ports.keys()) this.tell(port, EVENT.DEVICE_ADD, 1);
      return;
    }
    const port = this.#ports.get(number);
    if (port === undefined) {
      this.log.guestError(`unexpected port id ${number}`);
    } else if (event === EVENT.PORT_READY) {
      if (value === 0) this.log.guestError(`the driver cannot use port ${number}`);
      else this.#describe(port);
    } else if (event === EVENT.PORT_OPEN) {
      port.guestConnected = value !== 0;
      port.guestOpened(value !== 0);
    }
  }

  #describe(port: SerialPort): void {
    if (port.console) this.tell(port.number, EVENT.CONSOLE_PORT, 1);
    if (port.portName !== undefined) this.tell(port.number, EVENT.PORT_NAME, 1, port.portName);
    if (port.hostConnected) this.tell(port.number, EVENT.PORT_OPEN, 1);
  }
}

/** As the others, with the bus for its ports, which libvirt and old command lines know by the function's id. */
class VirtioSerialDevice extends VirtioSerial {
  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    const { id } = context.bus.owner ?? this;
    const name = id === undefined ? 'virtio-serial-bus.0' : `${id}.0`;
    this.addBus(new VirtioSerialBus(name, this, { ...context, bus: context.bus.owner?.bus ?? context.bus }));
  }
}

function refused(message: string): SouthbridgeError {
  return new SouthbridgeError('ERR_PROPERTY_VALUE', message);
}

export const virtioSerialDevice = deviceType({
  type: 'virtio-serial-device',
  summary: 'Console device (virtio)',
  bus: 'virtio-bus',
  category: 'input',
  parents: ['virtio-device', 'device'],
  properties,
  create: VirtioSerialDevice,
});

export const [virtioSerialPci, virtioSerialPciTransitional, virtioSerialPciNonTransitional] = virtioPciTypes({
  name: 'virtio-serial',
  summary: 'Console device (virtio, PCI)',
  category: 'input',
  backend: virtioSerialDevice,
  virtioId: VIRTIO_ID.CONSOLE,
  legacyId: 0x1003,
  class: 0x07_8000,
  properties: {
    class: prop.u32({ default: 0, help: 'PCI class and sub-class instead of other communication' }),
    vectors: prop.u32({ default: 2 }),
  },
  vectors: () => 2,
});
