import { Bus, type DeviceHome } from '../device/bus.ts';
import type { Device } from '../device/device.ts';
import type { DeviceType } from '../device/device-type.ts';
import type { DeviceServices } from '../device/services.ts';
import { SouthbridgeError } from '../errors.ts';
import { PciBus } from '../pci/pci-bus.ts';
import { PciDevice } from '../pci/pci-device.ts';
import { UsbDevice } from './device.ts';
import type { UsbPort } from './port.ts';

/** How QEMU calls the kind of bus. */
const KIND = 'usb-bus';

/** The ports of a further controller that takes over devices of this one's that it cannot drive (EHCI 1.0, section 4.2). */
export type RegisterCompanion = (ports: readonly UsbPort[], firstPort: number) => void;

export interface UsbBusParts {
  readonly services: DeviceServices;
  readonly home: DeviceHome;
  readonly owner: Device;
  /** What is put on the last free port when a device without a port of its own arrives. */
  readonly hub: DeviceType;
  /** Takes a companion's ports; absent where the controller has no companions. Throws where they do not fit. */
  readonly registerCompanion?: RegisterCompanion;
}

/** A host controller's bus: its root ports, and those of the hubs below. */
export class UsbBus extends Bus {
  readonly registerCompanion: RegisterCompanion | undefined;
  /** Grows with each bus that is made: the order in which a machine counts its buses. */
  readonly sequence: number;
  readonly #hub: DeviceType;
  readonly #free: UsbPort[] = [];
  readonly #used: UsbPort[] = [];
  static #made = 0;

  constructor(busName: string, parts: UsbBusParts) {
    super(KIND, busName, parts);
    this.#hub = parts.hub;
    this.registerCompanion = parts.registerCompanion;
    this.sequence = UsbBus.#made++;
  }

  /** Ports with a device, in the order in which they were taken. */
  get usedPorts(): readonly UsbPort[] {
    return this.#used;
  }

  addPort(port: UsbPort): void {
    this.#free.push(port);
  }

  /** Takes a hub's port away, with what is on it. */
  removePort(port: UsbPort): void {
    if (port.device !== undefined) this.unplug(port.device);
    const index = this.#free.indexOf(port);
    if (index >= 0) this.#free.splice(index, 1);
  }

  override addressOf(device: Device): string | undefined {
    return device instanceof UsbDevice ? device.port?.path : undefined;
  }

  protected override attached(device: Device): void {
    if (!(device instanceof UsbDevice)) return;
    const port = this.#choosePort(device);
    this.#free.splice(this.#free.indexOf(port), 1);
    this.#used.push(port);
    port.device = device;
    device.place(port);
  }

  protected override detached(device: Device): void {
    if (!(device instanceof UsbDevice) || device.port === undefined) return;
    const { port } = device;
    const index = this.#used.indexOf(port);
    if (index < 0) return;
    this.#used.splice(index, 1);
    port.device = undefined;
    this.#free.push(port);
    device.place(undefined);
  }

  #choosePort(device: UsbDevice): UsbPort {
    const wanted = device.requestedPort;
    if (wanted !== undefined) {
      const found = this.#free.find(({ path }) => path === wanted);
      if (found !== undefined) return found;
      throw new SouthbridgeError('ERR_BUS_ADDRESS', `usb port ${wanted} (bus ${this.busName}) not found (in use?)`);
    }
    // The last port would leave no room for more, so a hub goes there first.
    if (this.#free.length === 1 && device.typeName !== this.#hub.type) this.plug(this.#hub, {}, {});
    const [first] = this.#free;
    if (first !== undefined) return first;
    throw new SouthbridgeError(
      'ERR_BUS_FULL',
      `tried to attach usb device ${device.productName} to a bus with no free ports`,
    );
  }
}

/** `ID.0` for a controller with an id; otherwise a number that no other controller without an id has. */
export function usbBusName(controller: PciDevice): string {
  if (controller.id !== undefined) return `${controller.id}.0`;
  let number = 0;
  for (const other of allFunctions(controller.pciBus))
    if (other.id === undefined) number += other.buses.filter(bus => bus instanceof UsbBus).length;
  return `${KIND}.${number}`;
}

/**
 * The bus that companions name with `masterbus`.
 * @throws SouthbridgeError ERR_BUS_UNKNOWN, ERR_BUS_KIND
 */
export function masterBus(
  controller: PciDevice,
  name: string,
): { readonly bus: UsbBus; readonly register: RegisterCompanion } {
  for (const { buses } of allFunctions(controller.pciBus)) {
    const bus = buses.find(candidate => candidate.busName === name);
    if (!(bus instanceof UsbBus)) continue;
    const register = bus.registerCompanion;
    if (register !== undefined) return { bus, register };
    throw new SouthbridgeError(
      'ERR_BUS_KIND',
      `Can't use USB bus '${name}' as masterbus, it doesn't support companion controllers`,
    );
  }
  throw new SouthbridgeError('ERR_BUS_UNKNOWN', `USB bus '${name}' not found`);
}

/** Where a controller is, as QEMU writes it in serial numbers: `0000:00:1d.7`, with bridges on the way. */
export function devicePathOf(bus: Bus): string | undefined {
  let path = '';
  for (let here: Device | undefined = bus.owner; here instanceof PciDevice; here = here.pciBus.owner)
    path = `:${(here.devfn >> 3).toString(16).padStart(2, '0')}.${here.devfn & 7}${path}`;
  return path === '' ? undefined : `0000:00${path}`;
}

function* allFunctions(bus: PciBus): Generator<PciDevice> {
  let root = bus;
  while (root.owner instanceof PciDevice) root = root.owner.pciBus;
  yield* functionsBelow(root);
}

function* functionsBelow(bus: PciBus): Generator<PciDevice> {
  for (const found of bus.functions) {
    yield found;
    for (const below of found.buses) if (below instanceof PciBus) yield* functionsBelow(below);
  }
}
