import { Device } from '../../../core/device/device.ts';
import { type DeviceContext, deviceType } from '../../../core/device/device-type.ts';
import { prop } from '../../../core/device/property.ts';
import { SystemBus } from '../../../core/device/system-bus.ts';
import { SouthbridgeError } from '../../../core/errors.ts';
import { Dma, shielded } from '../../../core/memory/dma.ts';
import { MemoryRegion } from '../../../core/memory/memory-region.ts';
import type { SavedRecord } from '../../../core/state/fields.ts';
import { UsbBus } from '../../../core/usb/bus.ts';
import { usbHub } from '../hub.ts';
import { XhciController } from './controller.ts';
import { MAX_INTERRUPTERS, MAX_SLOTS, MSIX_TABLE, xhciRegisters } from './registers.ts';
import { commonProperties } from './xhci.ts';

const properties = {
  ...commonProperties,
  intrs: prop.u32({ default: MAX_INTERRUPTERS }),
  slots: prop.u32({ default: MAX_SLOTS }),
} as const;

/** The controller without PCI, at a fixed place in memory: an interrupt line for each interrupter. */
export class SysbusXhci extends Device<typeof properties> {
  readonly interrupts;
  readonly region: MemoryRegion;
  readonly #usbBus: UsbBus;
  readonly #controller: XhciController;

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    const { bus } = context;
    if (!(bus instanceof SystemBus))
      throw new SouthbridgeError('ERR_DEVICE_TYPE', `'${context.type.type}' goes onto the system bus`);
    const interrupters = Math.min(MAX_INTERRUPTERS, Math.max(1, this.props.intrs));
    this.interrupts = Array.from({ length: interrupters }, (_, index) => this.output(`irq${index}`, 'sysbus-irq'));
    const name = this.id === undefined ? 'usb-bus.0' : `${this.id}.0`;
    this.#usbBus = new UsbBus(name, { services: this.services, home: bus.home, owner: this, hub: usbHub });
    const dma = new Dma(bus.dmaSpace);
    this.#controller = new XhciController(
      this.typeName,
      {
        ...this.props,
        interrupters,
        slots: Math.min(MAX_SLOTS, Math.max(1, this.props.slots)),
        superSpeedFirst: true,
        nec: false,
      },
      {
        clock: this.clock,
        dma,
        log: this.log,
        system: this.services.system,
        bus: this.#usbBus,
        bank: hooks => this.bank(xhciRegisters, hooks),
        state: (version, fields, options) => this.state(version, fields, options),
        interrupt: (index, level) => {
          this.interrupts[index]?.set(level);
          return false;
        },
      },
    );
    this.region = MemoryRegion.io('xhci-registers', MSIX_TABLE, shielded(dma, this.#controller.registers), {
      impl: { min: 4, max: 4 },
    });
  }

  protected override realize(): void {
    this.onUnrealize(this.#controller.open());
    this.onUnrealize(() => this.region.dispose());
    this.addBus(this.#usbBus);
  }

  protected override resetHold(): void {
    this.#controller.reset();
  }

  override save(): SavedRecord {
    this.#controller.save();
    return super.save();
  }

  protected override restored(): void {
    super.restored();
    this.#controller.restored();
  }
}

export const sysbusXhci = deviceType({
  type: 'sysbus-xhci',
  summary: 'xHCI USB controller at a fixed address',
  category: 'usb',
  bus: 'System',
  parents: ['sys-bus-device', 'device'],
  userCreatable: false,
  hotpluggable: false,
  properties,
  create: SysbusXhci,
});
