import { SouthbridgeError } from '../errors.ts';
import type { pciProperties } from '../pci/identity.ts';
import type { Device } from './device.ts';
import type { DeviceInput, DeviceType, DeviceTypeInfo } from './device-type.ts';
import { ObjectNode } from './object.ts';
import type { PropInput } from './property.ts';
import type { DeviceServices } from './services.ts';

/** Where devices on a bus go in the object tree when they have an id, and when not: QEMU's `/machine/peripheral`, `-anon`. */
export interface DeviceHome {
  /** @param byUser the user asked for the device (`-device`), not the machine */
  adopt(device: Device, byUser: boolean): void;
  disown(device: Device): void;
}

/** What buses themselves may be told: PCI's slot, and what else every function has. */
export type Placement = PropInput<typeof pciProperties>;

/**
 * A plugin bus: makes devices, gives them their addresses and takes them out again. Subclasses say what an address is.
 */
export abstract class Bus extends ObjectNode {
  /** What {@link DeviceTypeInfo.bus} must be to plug in here. */
  readonly kind: string;
  /** QEMU's name of the bus, as in `bus=pci.0`. */
  readonly busName: string;
  readonly services: DeviceServices;
  readonly home: DeviceHome;
  /** The device that provides this bus; absent for the root. */
  readonly owner: Device | undefined;
  /** True once the machine has been built: what is plugged in from then on is hot-plugged. */
  hotplugging = false;
  readonly #devices: Device[] = [];

  constructor(
    kind: string,
    busName: string,
    parts: { services: DeviceServices; home: DeviceHome; owner?: Device | undefined; typeName?: string },
  ) {
    super(parts.typeName ?? kind);
    this.kind = kind;
    this.busName = busName;
    this.services = parts.services;
    this.home = parts.home;
    this.owner = parts.owner;
    this.defineProperty({ name: 'realized', type: 'bool', get: () => true });
    this.defineProperty({ name: 'type', type: 'string', get: () => this.typeName });
  }

  override get typeChain(): readonly string[] {
    return [this.typeName, 'bus', 'object'];
  }

  get devices(): readonly Device[] {
    return this.#devices;
  }

  /** Where on this bus `device` is, if the bus has addresses: unique, and the same in any machine that is built alike. */
  addressOf(device: Device): string | undefined {
    void device;
    return undefined;
  }

  /** Whether a device of `type` fits. */
  accepts(type: DeviceTypeInfo): boolean {
    return type.bus === this.kind;
  }

  /** QEMU's wording for "no free address"; undefined while there is room. */
  get full(): boolean {
    return false;
  }

  /**
   * Makes a device and plugs it in.
   * @param placement where: the bus's own properties and the device's
   * @param props the device's other properties; text is parsed as on the command line
   * @param byUser the user asked for the device, not the machine
   * @throws SouthbridgeError ERR_PROPERTY_* for a bad value, ERR_BUS_* where it does not fit, or what the device throws
   */
  plug<S extends DeviceType>(
    type: S,
    placement: DeviceInput<S> & Placement = {},
    props: DeviceInput<S> = {},
    id?: string,
    byUser = false,
  ): ReturnType<S['make']> {
    if (!this.accepts(type)) {
      throw new SouthbridgeError(
        'ERR_BUS_KIND',
        `Device '${type.type}' can't go on ${this.kind} bus`,
        `it needs a ${type.bus} bus`,
      );
    }
    const device = type.make(this, this.services, id, {
      ...this.services.globals?.(type),
      ...placement,
      ...props,
    }) as ReturnType<S['make']>;
    this.insert(device, byUser);
    return device;
  }

  /** Takes a device that was made for this bus. */
  insert(device: Device, byUser = false): void {
    this.home.adopt(device, byUser);
    try {
      this.attached(device);
      this.#devices.push(device);
      device.attach();
    } catch (error) {
      this.#forget(device);
      throw error;
    }
    if (!this.hotplugging) return;
    device.reset();
    for (const below of device.buses) below.beginHotplugging();
  }

  /** What is plugged in from now on, here and below, is hot-plugged. */
  beginHotplugging(): void {
    this.hotplugging = true;
    for (const device of this.#devices) for (const below of device.buses) below.beginHotplugging();
  }

  /** Takes `device` out and lets go of all that it holds. */
  unplug(device: Device): void {
    if (!this.#devices.includes(device)) return;
    device.detach();
    this.#forget(device);
  }

  removeAll(): void {
    for (const device of [...this.#devices].reverse()) this.unplug(device);
  }

  resetPhase(phase: 'enter' | 'hold' | 'exit'): void {
    // A copy: a hotplug controller may take devices out on reset.
    for (const device of [...this.#devices]) device.resetPhase(phase);
    if (phase === 'hold') this.resetHold();
  }

  /** A bus reset of its own, such as PCI's. */
  protected resetHold(): void {}

  /** Gives `device` its address. Throws where there is none. */
  protected attached(device: Device): void {
    void device;
  }

  /** Undoes {@link attached}; is also called where that failed. */
  protected detached(device: Device): void {
    void device;
  }

  #forget(device: Device): void {
    this.detached(device);
    const index = this.#devices.indexOf(device);
    if (index >= 0) this.#devices.splice(index, 1);
    this.home.disown(device);
  }
}

/** QEMU's name of a bus that its owner's id does not give one: counted among those of its kind in the whole machine. */
export function countedBusName(kind: string, near: Bus): string {
  const prefix = kind.toLowerCase();
  const pattern = new RegExp(`^${prefix}\\.\\d+$`);
  const count = (bus: Bus): number => {
    let found = bus.kind === kind && pattern.test(bus.busName) ? 1 : 0;
    for (const device of bus.devices) for (const below of device.buses) found += count(below);
    return found;
  };
  let root = near;
  while (root.owner !== undefined) root = root.owner.bus;
  return `${prefix}.${count(root)}`;
}
