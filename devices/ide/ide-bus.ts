import { Bus, type DeviceHome } from '../../core/device/bus.ts';
import type { Device } from '../../core/device/device.ts';
import type { DeviceServices } from '../../core/device/services.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { IdeDrive } from './drive.ts';
import type { IdeHost } from './host.ts';

export interface IdeBusParts {
  readonly services: DeviceServices;
  readonly home: DeviceHome;
  readonly owner: Device;
  readonly host: IdeHost;
  /** Number of drives that there may be: 2 on a cable, 1 on a SATA port. */
  readonly units: 1 | 2;
  readonly number: number;
}

/** A cable for up to two drives, or a SATA link for one. */
export class IdeBus extends Bus {
  readonly host: IdeHost;
  readonly units: number;
  readonly number: number;
  readonly #drives: (IdeDrive | undefined)[] = [undefined, undefined];

  constructor(busName: string, parts: IdeBusParts) {
    super('IDE', busName, parts);
    this.host = parts.host;
    this.units = parts.units;
    this.number = parts.number;
  }

  get drives(): readonly (IdeDrive | undefined)[] {
    return this.#drives;
  }

  override get full(): boolean {
    return this.#drives.slice(0, this.units).every(drive => drive !== undefined);
  }

  protected override attached(device: Device): void {
    if (!(device instanceof IdeDrive)) return;
    const wanted = device.requestedUnit;
    const unit = wanted < 0 ? this.#drives.indexOf(undefined) : wanted;
    if (unit < 0 || unit >= this.units) {
      throw new SouthbridgeError(
        'ERR_BUS_ADDRESS',
        wanted < 0 ? 'IDE unit is in use' : `Can't create IDE unit ${unit}, bus supports only ${this.units} units`,
      );
    }
    if (this.#drives[unit] !== undefined) throw new SouthbridgeError('ERR_BUS_ADDRESS', `IDE unit ${unit} is in use`);
    this.#drives[unit] = device;
    device.connectTo(this.host, this.number, unit);
  }

  protected override detached(device: Device): void {
    const unit = this.#drives.findIndex(drive => drive === device);
    if (unit >= 0) this.#drives[unit] = undefined;
  }
}
