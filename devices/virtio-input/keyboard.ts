import { deviceType } from '../../core/device/device-type.ts';
import { type InputEvent, LED } from '../../core/display/input.ts';
import { linuxKey, linuxKeys } from '../../core/display/keys.ts';
import { field } from '../../core/state/fields.ts';
import { VIRTIO_ID } from '../../core/virtio/features.ts';
import { virtioPciType } from '../../core/virtio/virtio-pci-types.ts';
import { EV, type InputDescription, inputProperties, VirtioInput } from './virtio-input.ts';

/** Lights by their codes: num lock, caps lock, scroll lock. */
const LIGHTS: readonly number[] = [LED.NUM_LOCK, LED.CAPS_LOCK, LED.SCROLL_LOCK];

class VirtioKeyboard extends VirtioInput<typeof inputProperties> {
  protected readonly kinds: ReadonlySet<InputEvent['kind']> = new Set(['key'] as const);
  readonly #lights = this.state(1, { leds: field.u8() }, { name: 'lights', onReset: 'keep' });
  protected readonly description: InputDescription = {
    name: 'QEMU Virtio Keyboard',
    identity: [1, 1],
    codes: new Map<number, Iterable<number>>([
      [EV.KEY, [...linuxKeys()]],
      [EV.LED, LIGHTS.keys()],
      [EV.REP, []],
    ]),
  };

  protected override input(event: InputEvent): void {
    if (event.kind !== 'key') return;
    const code = linuxKey(event.key);
    if (code !== undefined) this.report(EV.KEY, code, event.down ? 1 : 0);
  }

  protected override statusEvent(type: number, code: number, value: number): void {
    const light = LIGHTS[code];
    if (type !== EV.LED || light === undefined) return;
    this.#lights.leds = value !== 0 ? this.#lights.leds | light : this.#lights.leds & ~light;
    this.services.input.leds = this.#lights.leds;
  }
}

export const virtioKeyboardDevice = deviceType({
  type: 'virtio-keyboard-device',
  summary: 'Keyboard (virtio)',
  bus: 'virtio-bus',
  category: 'input',
  parents: ['virtio-input-hid-device', 'virtio-input-device', 'virtio-device', 'device'],
  properties: inputProperties,
  create: VirtioKeyboard,
});

export const virtioKeyboardPci = virtioPciType({
  name: 'virtio-keyboard',
  summary: 'Keyboard (virtio, PCI)',
  category: 'input',
  backend: virtioKeyboardDevice,
  virtioId: VIRTIO_ID.INPUT,
  class: 0x09_0000,
  vectors: () => 2,
});
