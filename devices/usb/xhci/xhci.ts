import { type DeviceContext, deviceType } from '../../../core/device/device-type.ts';
import { type PropSet, type PropValues, prop } from '../../../core/device/property.ts';
import { MemoryRegion } from '../../../core/memory/memory-region.ts';
import type { MsiDeclaration } from '../../../core/pci/identity.ts';
import { PciDevice } from '../../../core/pci/pci-device.ts';
import type { SavedRecord } from '../../../core/state/fields.ts';
import { UsbBus, usbBusName } from '../../../core/usb/bus.ts';
import { usbHub } from '../hub.ts';
import { XhciController } from './controller.ts';
import { MAX_INTERRUPTERS, MAX_SLOTS, MEMORY_SIZE, MSIX_PENDING, MSIX_TABLE, xhciRegisters } from './registers.ts';

/** In configuration space: MSI, MSI-X and PCI Express capabilities, cache line size, release number. */
const MSI_AT = 0x70;
const MSIX_AT = 0x90;
const EXPRESS_AT = 0xa0;
const CACHE_LINE_SIZE = 0x0c;
const SBRN = 0x60;

export const commonProperties = {
  streams: prop.bit({ default: true }),
  p2: prop.u32({ default: 4 }),
  p3: prop.u32({ default: 4 }),
} as const;

const necProperties = {
  ...commonProperties,
  // QEMU's has none either, unless they are asked for.
  streams: prop.bit({ default: false }),
  msi: prop.onOffAuto({ default: 'auto' }),
  msix: prop.onOffAuto({ default: 'auto' }),
  'superspeed-ports-first': prop.bit({ default: true }),
  'force-pcie-endcap': prop.bit({ default: false }),
  intrs: prop.u32({ default: MAX_INTERRUPTERS }),
  slots: prop.u32({ default: MAX_SLOTS }),
} as const;

/** The controller as a PCI function. */
abstract class Xhci<S extends PropSet> extends PciDevice<S> {
  readonly #usbBus: UsbBus;
  readonly #controller: XhciController;

  constructor(context: DeviceContext<S>) {
    super(context);
    const { config } = this;
    config.set8(CACHE_LINE_SIZE, 0x10);
    config.set8(SBRN, 0x30);
    this.#usbBus = new UsbBus(usbBusName(this), {
      services: this.services,
      home: this.pciBus.home,
      owner: this,
      hub: usbHub,
    });
    this.#controller = this.#makeController();
    this.#mapRegisters(
      MemoryRegion.io('xhci-registers', MSIX_TABLE, this.shielded(this.#controller.registers), {
        impl: { min: 4, max: 4 },
      }),
    );
  }

  // What the types differ in

  protected abstract get hasMsix(): boolean;
  protected abstract get interrupterCount(): number;
  protected abstract get slotCount(): number;
  protected abstract get superSpeedFirst(): boolean;
  protected abstract get forceExpress(): boolean;
  /** Answers NEC's own commands. */
  protected abstract get nec(): boolean;

  protected get xhciProps(): PropValues<typeof commonProperties> {
    // Both types declare these.
    return this.props as PropValues<S> & PropValues<typeof commonProperties>;
  }

  #makeController(): XhciController {
    return new XhciController(
      this.typeName,
      {
        ...this.xhciProps,
        interrupters: this.interrupterCount,
        slots: this.slotCount,
        superSpeedFirst: this.superSpeedFirst,
        nec: this.nec,
      },
      {
        clock: this.clock,
        dma: this.dma,
        log: this.log,
        system: this.services.system,
        bus: this.#usbBus,
        bank: hooks => this.bank(xhciRegisters, hooks),
        state: (version, fields, options) => this.state(version, fields, options),
        interrupt: (index, level) => this.#interrupt(index, level),
      },
    );
  }

  /** INTx follows interrupter 0, unless messages are in use. */
  #interrupt(index: number, level: boolean): boolean {
    if (!this.messageSignalled) {
      if (index === 0) this.irq.set(level);
      return false;
    }
    if (level) this.notify(index);
    return level;
  }

  #mapRegisters(registers: MemoryRegion): void {
    const memory = MemoryRegion.container('xhci', MEMORY_SIZE);
    memory.add(registers, 0);
    if (!this.pciBus.express && this.forceExpress) this.addExpressCapability(0, EXPRESS_AT);
    if (this.hasMsix) {
      const msix = this.addMsix({
        vectors: this.interrupterCount,
        bar: 0,
        table: MSIX_TABLE,
        pba: MSIX_PENDING,
        offset: MSIX_AT,
      });
      memory.add(msix.table, MSIX_TABLE);
      memory.add(msix.pending, MSIX_PENDING);
    }
    this.bar(0, memory, { size: MEMORY_SIZE, wide: true });
  }

  protected override realize(): void {
    this.onUnrealize(this.#controller.open());
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

class NecXhci extends Xhci<typeof necProperties> {
  protected get nec(): boolean {
    return true;
  }

  protected get interrupterCount(): number {
    return 2 ** Math.ceil(Math.log2(Math.min(MAX_INTERRUPTERS, Math.max(1, this.props.intrs))));
  }

  protected get slotCount(): number {
    return Math.min(MAX_SLOTS, Math.max(1, this.props.slots));
  }

  protected get superSpeedFirst(): boolean {
    return this.props['superspeed-ports-first'];
  }

  protected get forceExpress(): boolean {
    return this.props['force-pcie-endcap'];
  }

  protected get hasMsix(): boolean {
    return this.props.msix !== 'off';
  }

  protected override get msiDeclaration(): MsiDeclaration | undefined {
    return this.props.msi === 'off' ? undefined : { vectors: this.interrupterCount, offset: MSI_AT };
  }
}

class QemuXhci extends Xhci<typeof commonProperties> {
  protected get nec(): boolean {
    return false;
  }

  protected get interrupterCount(): number {
    return MAX_INTERRUPTERS;
  }

  protected get slotCount(): number {
    return MAX_SLOTS;
  }

  protected get superSpeedFirst(): boolean {
    return true;
  }

  protected get forceExpress(): boolean {
    return false;
  }

  protected get hasMsix(): boolean {
    return true;
  }
}

const common = {
  summary: 'xHCI USB controller',
  category: 'usb',
  parents: ['pci-xhci', 'pci-device', 'device'],
} as const;
const express = {
  pin: 'A',
  express: 'endpoint',
  expressCapability: { version: 2, offset: EXPRESS_AT, after: 'msi' },
} as const;

export const necUsbXhci = deviceType({
  ...common,
  type: 'nec-usb-xhci',
  properties: necProperties,
  pci: { vendor: 0x1033, device: 0x0194, revision: 0x03, class: 0x0c0330, ...express },
  create: NecXhci,
});

export const qemuXhci = deviceType({
  ...common,
  type: 'qemu-xhci',
  properties: commonProperties,
  pci: { vendor: 0x1b36, device: 0x000d, revision: 0x01, class: 0x0c0330, ...express },
  create: QemuXhci,
});
