import { type PropSet, type PropValues, prop } from '../../core/device/property.ts';
import type { InputEvent, InputHandler } from '../../core/display/input.ts';
import { field } from '../../core/state/fields.ts';
import { STATUS, VIRTIO_ID } from '../../core/virtio/features.ts';
import { VirtioDevice, virtioProperties } from '../../core/virtio/virtio-device.ts';
import type { Virtqueue } from '../../core/virtio/virtqueue.ts';

const QUEUE_SIZE = 64;
const EVENT_SIZE = 8;
/** More events than this between two reports are dropped. */
const MAX_BATCH = 128;

/** Configuration space (virtio 1.2, section 5.8.4). */
const CONFIG = { SELECT: 0, SUBSEL: 1, LENGTH: 2, DATA: 8, SIZE: 136 } as const;
export const SELECT = { NAME: 0x01, SERIAL: 0x02, DEVICE_IDS: 0x03, EVENT_BITS: 0x11, ABSOLUTE: 0x12 } as const;

/** Types and codes of events (Linux, input-event-codes.h). */
export const EV = { SYN: 0x00, KEY: 0x01, REL: 0x02, ABS: 0x03, LED: 0x11, REP: 0x14 } as const;
export const REL = { X: 0x00, Y: 0x01, WHEEL: 0x08 } as const;
export const ABS = { X: 0x00, Y: 0x01 } as const;

export const inputProperties = {
  ...virtioProperties,
  serial: prop.string(),
  display: prop.string(),
  head: prop.u32({ default: 0 }),
} as const;

/** What a kind of input device says of itself: the answers of its configuration space, by selection. */
export interface InputDescription {
  readonly name: string;
  /** Product and version. */
  readonly identity: readonly [number, number];
  /** Codes of each type of event that there are. */
  readonly codes: ReadonlyMap<number, Iterable<number>>;
  /** Highest value of each absolute axis. */
  readonly axes?: ReadonlyMap<number, number>;
}

const BUS_VIRTUAL = 0x06;
const VENDOR = 0x0627;

/** The bits of `codes`, in as many bytes as that takes. */
function bitmap(codes: Iterable<number>): Uint8Array {
  const list = [...codes];
  const bytes = new Uint8Array(list.length === 0 ? 1 : (Math.max(...list) >> 3) + 1);
  for (const code of list) bytes[code >> 3] = (bytes[code >> 3] ?? 0) | (1 << (code & 7));
  return bytes;
}

/** Input device (virtio 1.2, section 5.8): events to the driver, and lights from it. */
export abstract class VirtioInput<S extends PropSet & typeof inputProperties> extends VirtioDevice<S> {
  readonly #s = this.state(1, { select: field.u8(), subsel: field.u8() }, { onReset: 'keep' });
  readonly #event = new Uint8Array(EVENT_SIZE);
  readonly #view = new DataView(this.#event.buffer);
  #batch: { readonly type: number; readonly code: number; readonly value: number }[] = [];
  #active = false;
  readonly #handler: InputHandler = ((device: VirtioInput<S>) => ({
    get name() {
      return device.description.name;
    },
    get kinds() {
      return device.kinds;
    },
    input: event => device.input(event),
    sync: () => device.#sync(),
  }))(this);

  protected abstract readonly kinds: ReadonlySet<InputEvent['kind']>;
  protected abstract readonly description: InputDescription;
  protected abstract input(event: InputEvent): void;

  /** The driver has sent an event: a light. */
  protected statusEvent(type: number, code: number, value: number): void {
    void type;
    void code;
    void value;
  }

  /** Adds an event to those that the next report has. */
  protected report(type: number, code: number, value: number): void {
    if (this.#active && this.#batch.length < MAX_BATCH) this.#batch.push({ type, code, value });
  }

  /** Reports what has come together (section 5.8.6.1); without room for all, all is dropped. */
  #sync(): void {
    const batch = this.#batch.splice(0);
    const queue = this.queues[0];
    if (batch.length === 0 || queue === undefined || !this.#active) return;
    batch.push({ type: EV.SYN, code: 0, value: 0 });
    const elements = [];
    for (const _ of batch) {
      const element = queue.pop();
      if (element === undefined) break;
      elements.push(element);
    }
    if (elements.length < batch.length) {
      for (const element of elements.reverse()) queue.unpop(element);
      return;
    }
    for (const [index, element] of elements.entries()) {
      const { type = 0, code = 0, value = 0 } = batch[index] ?? {};
      this.#view.setUint16(0, type, true);
      this.#view.setUint16(2, code, true);
      this.#view.setInt32(4, value, true);
      queue.push(element, element.write(this.#event));
    }
    queue.notify();
  }

  protected override realize(): void {
    this.begin({ id: VIRTIO_ID.INPUT, configSize: CONFIG.SIZE });
    this.addQueue(QUEUE_SIZE, () => {});
    this.addQueue(QUEUE_SIZE, queue => this.#takeStatus(queue));
    this.onUnrealize(this.services.input.register(this.#handler));
  }

  protected override statusChanging(status: number): void {
    if ((status & STATUS.DRIVER_OK) !== 0) this.#setActive(true);
  }

  protected override virtioReset(): void {
    this.#setActive(false);
    Object.assign(this.#s, { select: 0, subsel: 0 });
  }

  protected override restored(): void {
    this.#setActive(this.running);
  }

  /** What a person does goes to the device that a driver has switched on last. */
  #setActive(active: boolean): void {
    if (active === this.#active) return;
    this.#active = active;
    this.#batch = [];
    if (active) this.services.input.activate(this.#handler);
    else this.services.input.deactivate(this.#handler);
  }

  protected override readConfig(config: DataView): void {
    const answer = this.#answer();
    for (let at = 0; at < CONFIG.SIZE; at++) config.setUint8(at, 0);
    config.setUint8(CONFIG.SELECT, this.#s.select);
    config.setUint8(CONFIG.SUBSEL, this.#s.subsel);
    config.setUint8(CONFIG.LENGTH, answer.length);
    for (const [index, byte] of answer.entries()) config.setUint8(CONFIG.DATA + index, byte);
  }

  protected override configWritten(config: DataView): void {
    this.#s.select = config.getUint8(CONFIG.SELECT);
    this.#s.subsel = config.getUint8(CONFIG.SUBSEL);
  }

  /** Section 5.8.4: what has been selected; nothing where there is no such thing. */
  #answer(): Uint8Array {
    const { name, identity, codes, axes } = this.description;
    const { select, subsel } = this.#s;
    const { serial } = this.props as PropValues<typeof inputProperties>;
    if (select === SELECT.NAME && subsel === 0) return Buffer.from(name, 'latin1');
    if (select === SELECT.SERIAL && subsel === 0) return Buffer.from(serial ?? '', 'latin1').subarray(0, 128);
    if (select === SELECT.DEVICE_IDS && subsel === 0)
      return new Uint8Array(Uint16Array.of(BUS_VIRTUAL, VENDOR, ...identity).buffer);
    if (select === SELECT.EVENT_BITS) {
      const list = codes.get(subsel);
      return list === undefined ? new Uint8Array(0) : bitmap(list);
    }
    const maximum = select === SELECT.ABSOLUTE ? axes?.get(subsel) : undefined;
    return maximum === undefined ? new Uint8Array(0) : new Uint8Array(Uint32Array.of(0, maximum, 0, 0, 0).buffer);
  }

  #takeStatus(queue: Virtqueue): void {
    for (let element = queue.pop(); element !== undefined; element = queue.pop()) {
      this.#event.fill(0);
      if (element.read(this.#event) === EVENT_SIZE)
        this.statusEvent(this.#view.getUint16(0, true), this.#view.getUint16(2, true), this.#view.getInt32(4, true));
      queue.push(element, 0);
      queue.notify();
    }
  }
}
