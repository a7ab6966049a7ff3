import { type DeviceContext, deviceType } from '../../../core/device/device-type.ts';
import { prop } from '../../../core/device/property.ts';
import { type InputEvent, type InputHandler, LED } from '../../../core/display/input.ts';
import { field } from '../../../core/state/fields.ts';
import { type HidKind, hidProperties, UsbHid } from './hid.ts';
import { keyboardReport } from './reports.ts';
import { FIRST_MODIFIER, usageOf } from './usages.ts';

const KEYBOARD: HidKind = {
  name: 'Keyboard',
  serial: '68284',
  subclass: 1,
  protocol: 1,
  release: 0x0111,
  report: keyboardReport,
  maxPacketSize: 8,
  highSpeedInterval: 7,
  boot: true,
};
const QUEUE_LENGTH = 16;
const RELEASED = 0x100;
const KEYS_DOWN = 16;
const REPORT_KEYS = 6;
const REPORT_SIZE = 8;
/** In all keys of a report: more are down than it has room for (HID Usage Tables, section 10). */
const ERROR_ROLL_OVER = 1;

/** By their bits in an output report (HID Usage Tables, section 11). */
const HID_LEDS: readonly number[] = [LED.NUM_LOCK, LED.CAPS_LOCK, LED.SCROLL_LOCK];

const properties = { ...hidProperties, display: prop.string() } as const;

/** A boot keyboard. Each report tells one change, so that none is lost between two polls. */
class UsbKeyboard extends UsbHid<typeof properties> {
  readonly #s = this.state(
    1,
    {
      /** Usages, with RELEASED for a key that goes up, oldest first. */
      queue: field.list(field.u16(), QUEUE_LENGTH),
      modifiers: field.u8(),
      down: field.list(field.u8(), KEYS_DOWN),
      /** Bits 0 to 4: num lock, caps lock, scroll lock, compose, kana. */
      leds: field.u8(),
    },
    { name: 'keyboard', onReset: 'keep' },
  );
  protected readonly input: InputHandler = {
    name: 'QEMU HID Keyboard',
    kinds: new Set(['key'] as const),
    input: event => this.#event(event),
    sync: () => {},
  };

  constructor(context: DeviceContext<typeof properties>) {
    super(context, KEYBOARD);
  }

  protected override setUp(): void {
    super.setUp();
    // A keyboard that somebody plugs in is the one to type on.
    this.services.input.activate(this.input);
  }

  #event(event: InputEvent): void {
    const usage = event.kind === 'key' ? usageOf(event.key) : undefined;
    if (event.kind !== 'key' || usage === undefined || this.#s.queue.length >= QUEUE_LENGTH) return;
    this.#s.queue.push(event.down ? usage : usage | RELEASED);
    this.changed();
  }

  protected get hasEvents(): boolean {
    return this.#s.queue.length > 0;
  }

  protected nextReport(report: Uint8Array, length: number): number {
    if (length < 2) return 0;
    this.#take();
    const { down, modifiers } = this.#s;
    report[0] = modifiers;
    report[1] = 0;
    for (let index = 0; index < REPORT_KEYS; index++)
      report[2 + index] = down.length > REPORT_KEYS ? ERROR_ROLL_OVER : (down[index] ?? 0);
    return Math.min(length, REPORT_SIZE);
  }

  #take(): void {
    const s = this.#s;
    const next = s.queue.shift();
    if (next === undefined) return;
    const usage = next & 0xff;
    const released = (next & RELEASED) !== 0;
    if (usage >= FIRST_MODIFIER) {
      const bit = 1 << (usage - FIRST_MODIFIER);
      s.modifiers = released ? s.modifiers & ~bit : s.modifiers | bit;
      return;
    }
    const index = s.down.indexOf(usage);
    if (released && index >= 0) s.down.splice(index, 1);
    else if (!released && index < 0 && s.down.length < KEYS_DOWN) s.down.push(usage);
  }

  protected setReport(data: Uint8Array, length: number): boolean {
    if (length === 0) return true;
    const lights = data[0] ?? 0;
    this.#s.leds = lights;
    this.services.input.leds = HID_LEDS.reduce(
      (leds, led, bit) => (((lights >> bit) & 1) === 0 ? leds : leds | led),
      0,
    );
    return true;
  }

  protected listened(): void {}

  protected clear(): void {
    Object.assign(this.#s, { queue: [], down: [], modifiers: 0 });
  }
}

export const usbKbd = deviceType({
  type: 'usb-kbd',
  summary: 'USB keyboard',
  bus: 'usb-bus',
  category: 'input',
  parents: ['usb-hid', 'usb-device', 'device'],
  hotpluggable: true,
  properties,
  create: UsbKeyboard,
});
