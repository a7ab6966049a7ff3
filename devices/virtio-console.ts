import type { Chardev, CharEvent, CharUser } from '../core/char/chardev.ts';
import { Device } from '../core/device/device.ts';
import { type DeviceContext, deviceType } from '../core/device/device-type.ts';
import { prop } from '../core/device/property.ts';
import { SouthbridgeError } from '../core/errors.ts';
import { field } from '../core/state/fields.ts';
import type { VirtqueueElement } from '../core/virtio/element.ts';
import type { Virtqueue } from '../core/virtio/virtqueue.ts';
import { EVENT, type SerialPort, type VirtioSerial, VirtioSerialBus } from './virtio-serial.ts';

const ANY = 0xffff_ffff;
const CHUNK = 4096;
const NONE = -1;

const properties = {
  nr: prop.u32({ default: ANY }),
  name: prop.string(),
  chardev: prop.backend<Chardev>('chardev'),
} as const;

/** A port of a virtio serial device with a character device behind it (virtio 1.2, section 5.3). */
abstract class VirtPort extends Device<typeof properties> implements SerialPort, CharUser {
  abstract readonly console: boolean;
  readonly #saved = this.state(
    1,
    { guestConnected: field.bool(), hostConnected: field.bool(), held: field.number(NONE), sent: field.u32() },
    { onReset: 'keep' },
  );
  readonly #serial: VirtioSerial;
  readonly #chunk = new Uint8Array(CHUNK);
  #number = NONE;
  /** The guest's buffer that the host has taken a part of. */
  #element: VirtqueueElement | undefined;
  #throttled = false;
  /** Somebody is at the other end of the chardev. What the guest knows of that is {@link hostConnected}. */
  #connected = false;
  /** The state came from a snapshot: the guest has yet to learn what is different here. */
  #moved = false;

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    if (!(context.bus instanceof VirtioSerialBus)) {
      throw new SouthbridgeError('ERR_DEVICE_TYPE', `'${context.type.type}' needs a virtio serial bus`);
    }
    this.#serial = context.bus.serial;
  }

  protected override realize(): void {
    const { nr, chardev } = this.props;
    this.#number = this.#serial.numberFor(nr === ANY ? undefined : nr, this.console);
    if (this.#number === 0 && !this.console) {
      throw new SouthbridgeError(
        'ERR_PROPERTY_VALUE',
        'Port number 0 on virtio-serial devices reserved for virtconsole devices for backward compatibility.',
      );
    }
    this.#serial.addPort(this);
    this.onUnrealize(() => this.#serial.removePort(this));
    if (chardev === undefined) return;
    if (this.console) this.#connected = this.#saved.hostConnected = true;
    this.onUnrealize(() => chardev.detach());
    this.onUnrealize(this.services.system.onRunning(() => this.#arrive()));
    chardev.attach(this);
  }

  protected override restored(): void {
    this.#element = undefined;
    this.#throttled = false;
    this.#moved = true;
  }

  /** The machine runs again, perhaps elsewhere: each side hears how the other is, and what was on its way goes on. */
  #arrive(): void {
    if (!this.#moved) return;
    this.#moved = false;
    if (this.props.chardev !== undefined) this.#tellConnected(this.#connected);
    this.guestOpened(this.guestConnected);
    const queue = this.#serial.outputOf(this.#number);
    if (this.hostConnected && this.#saved.held !== NONE && queue?.ready === true) this.outputReady(queue);
  }

  get opensLater(): boolean {
    return !this.console;
  }

  get number(): number {
    return this.#number;
  }

  get portName(): string | undefined {
    return this.props.name;
  }

  get hostConnected(): boolean {
    return this.#saved.hostConnected;
  }

  get guestConnected(): boolean {
    return this.#saved.guestConnected;
  }

  set guestConnected(connected: boolean) {
    this.#saved.guestConnected = connected;
  }

  guestOpened(open: boolean): void {
    const { chardev } = this.props;
    if (!this.console) chardev?.setUserOpen(open);
    if (this.id !== undefined) this.services.system.emit('VSERPORT_CHANGE', { id: this.id, open });
    if (open) chardev?.acceptInput();
  }

  guestReset(): void {
    const queue = this.#serial.outputOf(this.#number);
    if (this.#element !== undefined) queue?.detach(this.#element);
    this.#element = undefined;
    this.#saved.held = NONE;
    this.#saved.sent = 0;
    this.#throttled = false;
  }

  // From the guest

  outputReady(queue: Virtqueue): void {
    if (this.#throttled) return;
    this.#takeSaved(queue);
    for (;;) {
      this.#element ??= queue.pop();
      const element = this.#element;
      if (element === undefined) break;
      this.#saved.held = queue.keyOf(element);
      this.#send(element);
      if (this.#throttled) break;
      this.#element = undefined;
      this.#saved.held = NONE;
      this.#saved.sent = 0;
      queue.push(element, 0);
    }
    queue.notify();
  }

  /** The buffer that was on its way when the state was saved. */
  #takeSaved(queue: Virtqueue): void {
    if (this.#element !== undefined || this.#saved.held === NONE) return;
    this.#element = queue.retake(this.#saved.held);
    if (this.#element === undefined) this.#saved.sent = 0;
  }

  #send(element: VirtqueueElement): void {
    const { chardev } = this.props;
    const saved = this.#saved;
    while (saved.sent < element.out.length) {
      const length = element.read(this.#chunk, saved.sent);
      const taken = chardev === undefined ? length : chardev.write(this.#chunk.subarray(0, length));
      // A console's output may be lost, for the guest's kernel would stand still while it waits.
      saved.sent += this.console ? length : taken;
      if (taken < length && !this.console) {
        this.#throttled = true;
        return;
      }
    }
  }

  drained(): void {
    if (!this.#throttled) return;
    this.#throttled = false;
    const queue = this.#serial.outputOf(this.#number);
    if (queue?.ready) this.outputReady(queue);
  }

  emergencyWrite(byte: number): void {
    this.props.chardev?.write(Uint8Array.of(byte));
  }

  // To the guest

  inputReady(): void {
    if (!this.console) this.props.chardev?.setUserOpen(this.guestConnected);
    if (this.guestConnected && this.hostConnected) this.props.chardev?.acceptInput();
  }

  canReceive(): number {
    const queue = this.#serial.inputOf(this.#number);
    if (!this.#serial.running || !this.services.system.running || queue === undefined || queue.empty) return 0;
    if (!this.guestConnected || !this.hostConnected) return 0;
    const element = queue.pop();
    if (element === undefined) return 0;
    const room = element.in.length;
    queue.unpop(element);
    return Math.min(room, CHUNK);
  }

  receive(bytes: Uint8Array): void {
    const queue = this.#serial.inputOf(this.#number);
    if (queue === undefined) return;
    for (let done = 0; done < bytes.length; ) {
      const element = queue.pop();
      if (element === undefined) break;
      const written = element.write(bytes, 0, done);
      queue.push(element, written);
      if (written === 0) break;
      done += written;
    }
    queue.notify();
  }

  event(event: CharEvent): void {
    if (this.console) return;
    if (event !== 'opened' && event !== 'closed') return;
    this.#connected = event === 'opened';
    this.#tellConnected(this.#connected);
  }

  #tellConnected(connected: boolean): void {
    if (connected === this.#saved.hostConnected) return;
    this.#saved.hostConnected = connected;
    if (!connected) {
      const queue = this.#serial.outputOf(this.#number);
      if (queue?.ready === true) this.#takeSaved(queue);
      if (this.#element !== undefined) queue?.push(this.#element, 0);
      this.#element = undefined;
      this.guestReset();
      this.#serial.discardOutput(this.#number);
    }
    this.#serial.tell(this.#number, EVENT.PORT_OPEN, connected ? 1 : 0);
  }
}

class VirtConsole extends VirtPort {
  get console(): boolean {
    return true;
  }
}

class VirtSerialPort extends VirtPort {
  get console(): boolean {
    return false;
  }
}

const common = { bus: 'virtio-serial-bus', category: 'input', hotpluggable: true, properties } as const;

export const virtconsole = deviceType({
  ...common,
  type: 'virtconsole',
  summary: 'Console on a virtio serial device',
  parents: ['virtserialport', 'virtio-serial-port', 'device'],
  create: VirtConsole,
});

export const virtserialport = deviceType({
  ...common,
  type: 'virtserialport',
  summary: 'Port of a virtio serial device',
  parents: ['virtio-serial-port', 'device'],
  create: VirtSerialPort,
});
