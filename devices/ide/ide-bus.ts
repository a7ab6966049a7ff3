import { Bus, type DeviceHome } from '../../core/device/bus.ts';
import type { Device } from '../../core/device/device.ts';
import type { DeviceServices } from '../../core/device/services.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import type { PciDevice } from '../../core/pci/pci-device.ts';
import type { AtaChannel } from './channel.ts';
import { IdeDrive } from './ide-drive.ts';

export interface IdeBusParts {
  readonly services: DeviceServices;
  readonly home: DeviceHome;
  readonly owner: Device;
  readonly channel: AtaChannel;
  /** Drives that there may be: 2 on a cable, 1 on a SATA port. */
  readonly units: 1 | 2;
  readonly number: number;
}

/**
 * What a PCI controller's first bus is called and counted from: by the controller's id, or with a number that no other
 * controller without an id has.
 */
export function busNames(controller: PciDevice, id: string | undefined): (index: number) => string {
  if (id !== undefined) return index => `${id}.${index}`;
  let first = 0;
  for (const other of controller.pciBus.functions) {
    if (other.id === undefined) first += other.buses.filter(bus => bus instanceof IdeBus).length;
  }
  return index => `ide.${first + index}`;
}

/** A cable for up to two drives, or a SATA link for one. */
export class IdeBus extends Bus {
  readonly channel: AtaChannel;
  readonly units: number;
  readonly number: number;
  readonly #drives: (IdeDrive | undefined)[] = [undefined, undefined];

  constructor(busName: string, parts: IdeBusParts) {
    super('IDE', busName, parts);
    this.channel = parts.channel;
    this.units = parts.units;
    this.number = parts.number;
  }

  /** The drives by their unit numbers. */
  get drives(): readonly (IdeDrive | undefined)[] {
    return this.#drives;
  }

  override get full(): boolean {
    return this.#drives.slice(0, this.units).every(drive => drive !== undefined);
  }

  override addressOf(device: Device): string | undefined {
    const unit = this.#drives.findIndex(drive => drive === device);
    return unit < 0 ? undefined : String(unit);
  }

  protected override attached(device: Device): void {
    if (!(device instanceof IdeDrive)) return;
    const unit = device.requestedUnit ?? (this.#drives[0] === undefined ? 0 : 1);
    if (unit >= this.units) {
      throw new SouthbridgeError(
        'ERR_BUS_ADDRESS',
        `Can't create IDE unit ${unit}, bus supports only ${this.units} units`,
      );
    }
    if (this.#drives[unit] !== undefined) throw new SouthbridgeError('ERR_BUS_ADDRESS', `IDE unit ${unit} is in use`);
    this.#drives[unit] = device;
    device.place(this.channel, this.number, unit === 0 ? 0 : 1);
  }

  protected override detached(device: Device): void {
    const unit = this.#drives.findIndex(drive => drive === device);
    if (unit >= 0) this.#drives[unit] = undefined;
  }
}
