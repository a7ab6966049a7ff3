import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { ABSOLUTE_MAX, type InputButton, type InputEvent } from '../../core/display/input.ts';
import { VIRTIO_ID } from '../../core/virtio/features.ts';
import { virtioPciType } from '../../core/virtio/virtio-pci-types.ts';
import { ABS, EV, type InputDescription, inputProperties, REL, VirtioInput } from './virtio-input.ts';

/** Buttons by Linux's codes; a wheel that is no axis has two of its own. */
const BUTTONS: ReadonlyMap<InputButton, number> = new Map([
  ['left', 0x110],
  ['right', 0x111],
  ['middle', 0x112],
  ['side', 0x113],
  ['extra', 0x114],
  ['wheel-up', 0x151],
  ['wheel-down', 0x150],
]);

const properties = {
  ...inputProperties,
  'wheel-axis': prop.bool({ default: true }),
} as const;

/** What a mouse and a tablet have in common: buttons and a wheel. */
abstract class VirtioPointer extends VirtioInput<typeof properties> {
  protected override input(event: InputEvent): void {
    if (event.kind === 'button') this.#button(event.button, event.down);
    else if (event.kind !== 'key')
      this.report(event.kind === 'absolute' ? EV.ABS : EV.REL, event.axis === 'x' ? 0 : 1, event.value);
  }

  #button(button: InputButton, down: boolean): void {
    if (this.props['wheel-axis'] && (button === 'wheel-up' || button === 'wheel-down')) {
      if (down) this.report(EV.REL, REL.WHEEL, button === 'wheel-up' ? 1 : -1);
      return;
    }
    const code = BUTTONS.get(button);
    if (code !== undefined) this.report(EV.KEY, code, down ? 1 : 0);
  }
}

class VirtioMouse extends VirtioPointer {
  protected readonly kinds: ReadonlySet<InputEvent['kind']> = new Set(['button', 'relative'] as const);
  protected readonly description: InputDescription = {
    name: 'QEMU Virtio Mouse',
    identity: [2, this.props['wheel-axis'] ? 2 : 1],
    codes: new Map<number, Iterable<number>>([
      [EV.KEY, [...BUTTONS.values()]],
      [EV.REL, this.props['wheel-axis'] ? [REL.X, REL.Y, REL.WHEEL] : [REL.X, REL.Y]],
    ]),
  };
}

class VirtioTablet extends VirtioPointer {
  protected readonly kinds: ReadonlySet<InputEvent['kind']> = new Set(['button', 'absolute'] as const);
  protected readonly description: InputDescription = {
    name: 'QEMU Virtio Tablet',
    identity: [3, this.props['wheel-axis'] ? 2 : 1],
    codes: new Map<number, Iterable<number>>([
      [EV.KEY, [...BUTTONS.values()]],
      [EV.ABS, [ABS.X, ABS.Y]],
      ...(this.props['wheel-axis'] ? [[EV.REL, [REL.WHEEL]] as const] : []),
    ]),
    axes: new Map([
      [ABS.X, ABSOLUTE_MAX],
      [ABS.Y, ABSOLUTE_MAX],
    ]),
  };
}

const parents = ['virtio-input-hid-device', 'virtio-input-device', 'virtio-device', 'device'];

export const virtioMouseDevice = deviceType({
  type: 'virtio-mouse-device',
  summary: 'Mouse (virtio)',
  bus: 'virtio-bus',
  category: 'input',
  parents,
  properties,
  create: VirtioMouse,
});

export const virtioTabletDevice = deviceType({
  type: 'virtio-tablet-device',
  summary: 'Tablet (virtio)',
  bus: 'virtio-bus',
  category: 'input',
  parents,
  properties,
  create: VirtioTablet,
});

export const virtioMousePci = virtioPciType({
  name: 'virtio-mouse',
  summary: 'Mouse (virtio, PCI)',
  category: 'input',
  backend: virtioMouseDevice,
  virtioId: VIRTIO_ID.INPUT,
  class: 0x09_0200,
  vectors: () => 2,
});

export const virtioTabletPci = virtioPciType({
  name: 'virtio-tablet',
  summary: 'Tablet (virtio, PCI)',
  category: 'input',
  backend: virtioTabletDevice,
  virtioId: VIRTIO_ID.INPUT,
  class: 0x09_8000,
  vectors: () => 2,
});
