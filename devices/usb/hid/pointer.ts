import { type DeviceContext, deviceType } from '../../../core/device/device-type.ts';
import { type PropSet, prop } from '../../../core/device/property.ts';
import type { InputButton, InputEvent, InputHandler } from '../../../core/display/input.ts';
import { field } from '../../../core/state/fields.ts';
import { type HidKind, hidProperties, UsbHid } from './hid.ts';
import { mouseReport, tabletReport } from './reports.ts';

const MOUSE: HidKind = {
  name: 'Mouse',
  serial: '89126',
  subclass: 1,
  protocol: 2,
  release: 0x0001,
  report: mouseReport,
  maxPacketSize: 4,
  highSpeedInterval: 7,
  boot: true,
};
const TABLET: HidKind = {
  name: 'Tablet',
  serial: '28754',
  subclass: 0,
  protocol: 0,
  release: 0x0001,
  report: tabletReport,
  maxPacketSize: 8,
  highSpeedInterval: 4,
  boot: false,
};
const BUTTON_BITS: Readonly<Partial<Record<InputButton, number>>> = {
  left: 0x01,
  right: 0x02,
  middle: 0x04,
  side: 0x08,
  extra: 0x10,
};
/** A power of two. One place is for the event that is being put together. */
const QUEUE_LENGTH = 16;
const PLACE = QUEUE_LENGTH - 1;
const STEP = 127;

const clamp = (value: number): number => Math.max(-STEP, Math.min(STEP, value));

/** Events of a pointing device in a ring; those that the guest has not seen are merged while no button changes. */
abstract class Pointer<S extends PropSet> extends UsbHid<S> {
  readonly #s = this.state(
    1,
    {
      x: field.words(QUEUE_LENGTH),
      y: field.words(QUEUE_LENGTH),
      wheel: field.words(QUEUE_LENGTH),
      buttons: field.bytes(QUEUE_LENGTH),
      head: field.u8(),
      count: field.u8(),
      listening: field.bool(),
    },
    { name: 'pointer', onReset: 'keep' },
  );
  readonly #relative: boolean;
  protected readonly input: InputHandler;

  constructor(context: Readonly<DeviceContext<S>>, kind: HidKind, relative: boolean) {
    super(context, kind);
    this.#relative = relative;
    this.input = {
      name: `QEMU HID ${kind.name}`,
      kinds: new Set(['button', relative ? 'relative' : 'absolute'] as const),
      input: event => this.#event(event),
      sync: () => this.#sync(),
    };
  }

  /** Pointers of `s` take signed values as words. */
  #add(words: Uint32Array, place: number, value: number): void {
    words[place] = ((words[place] ?? 0) + value) >>> 0;
  }

  #event(event: InputEvent): void {
    const s = this.#s;
    const place = (s.head + s.count) & PLACE;
    if (event.kind === 'relative') this.#add(event.axis === 'x' ? s.x : s.y, place, event.value);
    else if (event.kind === 'absolute') (event.axis === 'x' ? s.x : s.y)[place] = event.value;
    else if (event.kind === 'button') {
      const bit = BUTTON_BITS[event.button] ?? 0;
      s.buttons[place] = event.down ? (s.buttons[place] ?? 0) | bit : (s.buttons[place] ?? 0) & ~bit;
      if (event.down && event.button === 'wheel-up') this.#add(s.wheel, place, -1);
      if (event.down && event.button === 'wheel-down') this.#add(s.wheel, place, 1);
    }
  }

  #sync(): void {
    const s = this.#s;
    // Where the queue is full the event stays open, and at least the buttons are not lost.
    if (s.count === QUEUE_LENGTH - 1) return;
    const current = (s.head + s.count) & PLACE;
    const previous = (current - 1) & PLACE;
    const next = (current + 1) & PLACE;
    if (s.count > 0 && s.buttons[current] === s.buttons[previous]) {
      for (const axis of [s.x, s.y]) {
        if (this.#relative) {
          this.#add(axis, previous, axis[current] ?? 0);
          axis[current] = 0;
        } else axis[previous] = axis[current] ?? 0;
      }
      this.#add(s.wheel, previous, s.wheel[current] ?? 0);
      s.wheel[current] = 0;
      return;
    }
    s.x[next] = this.#relative ? 0 : (s.x[current] ?? 0);
    s.y[next] = this.#relative ? 0 : (s.y[current] ?? 0);
    s.wheel[next] = 0;
    s.buttons[next] = s.buttons[current] ?? 0;
    s.count++;
    this.changed();
  }

  protected get hasEvents(): boolean {
    return this.#s.count > 0;
  }

  protected nextReport(report: Uint8Array, length: number): number {
    this.listened();
    const s = this.#s;
    // Without news the last event is repeated, with all that is relative at 0.
    const place = (s.count > 0 ? s.head : s.head - 1) & PLACE;
    const wheel = this.#takeStep(s.wheel, place);
    let size: number;
    report[0] = s.buttons[place] ?? 0;
    if (this.#relative) {
      report[1] = this.#takeStep(s.x, place);
      report[2] = this.#takeStep(s.y, place);
      report[3] = -wheel;
      size = 4;
    } else {
      const [x, y] = [s.x[place] ?? 0, s.y[place] ?? 0];
      report[1] = x;
      report[2] = x >> 8;
      report[3] = y;
      report[4] = y >> 8;
      report[5] = -wheel;
      size = 6;
    }
    const rest = s.wheel[place] !== 0 || (this.#relative && (s.x[place] !== 0 || s.y[place] !== 0));
    if (s.count > 0 && !rest) {
      s.head = (s.head + 1) & PLACE;
      s.count--;
    }
    return Math.min(length, size);
  }

  /** As much of a movement as a report has room for. */
  #takeStep(words: Uint32Array, place: number): number {
    const step = clamp((words[place] ?? 0) | 0);
    this.#add(words, place, -step);
    return step;
  }

  protected setReport(): boolean {
    return false;
  }

  protected listened(): void {
    if (this.#s.listening) return;
    this.#s.listening = true;
    this.services.input.activate(this.input);
  }

  protected clear(): void {
    const s = this.#s;
    for (const values of [s.x, s.y, s.wheel, s.buttons]) values.fill(0);
    s.head = 0;
    s.count = 0;
  }

  protected override restored(): void {
    super.restored();
    if (this.#s.listening) this.services.input.activate(this.input);
  }
}

class UsbMouse extends Pointer<typeof hidProperties> {
  constructor(context: DeviceContext<typeof hidProperties>) {
    super(context, MOUSE, true);
  }
}

const tabletProperties = { ...hidProperties, display: prop.string(), head: prop.u32({ default: 0 }) } as const;

class UsbTablet extends Pointer<typeof tabletProperties> {
  constructor(context: DeviceContext<typeof tabletProperties>) {
    super(context, TABLET, false);
  }
}

const common = {
  bus: 'usb-bus',
  category: 'input',
  parents: ['usb-hid', 'usb-device', 'device'],
  hotpluggable: true,
} as const;

export const usbMouse = deviceType({
  ...common,
  type: 'usb-mouse',
  summary: 'USB mouse',
  properties: hidProperties,
  create: UsbMouse,
});
export const usbTablet = deviceType({
  ...common,
  type: 'usb-tablet',
  summary: 'USB tablet',
  properties: tabletProperties,
  create: UsbTablet,
});
