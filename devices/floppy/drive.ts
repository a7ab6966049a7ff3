import type { BlockBackend, BlockDevice } from '../../core/block/backend.ts';
import { driveProperty } from '../../core/block/device-properties.ts';
import { Bus, type DeviceHome } from '../../core/device/bus.ts';
import { Device } from '../../core/device/device.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import type { DeviceServices } from '../../core/device/services.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { emptyDrive } from '../empty-drive.ts';
import { DRIVE_TYPES, type DriveType, type Format, formatOf } from './formats.ts';

const UNSET = 0xffff_ffff;
const SECTOR = 512;
const UNITS = 2;
const properties = {
  drive: driveProperty,
  unit: prop.u32({ default: UNSET }),
  'drive-type': prop.enum(DRIVE_TYPES, {
    default: 'auto',
    typeName: 'FdcDriveType',
    help: 'FDC drive type, 144/288/120/none/auto',
  }),
  logical_block_size: prop.size({ default: 0, description: 'A power of two between 512 B and 2 MiB' }),
  physical_block_size: prop.size({ default: 0, description: 'A power of two between 512 B and 2 MiB' }),
  min_io_size: prop.size({ default: 0 }),
  opt_io_size: prop.size({ default: 0 }),
  discard_granularity: prop.size({ default: UNSET }),
  backend_defaults: prop.onOffAuto({ default: 'auto' }),
  'write-cache': prop.onOffAuto({ default: 'auto' }),
  'share-rw': prop.bool({ default: false }),
  'account-invalid': prop.onOffAuto({ default: 'auto' }),
  'account-failed': prop.onOffAuto({ default: 'auto' }),
} as const;

/** The cable from a floppy controller to its two drives. */
export class FloppyBus extends Bus {
  readonly #drives: (FloppyDrive | undefined)[] = [undefined, undefined];

  constructor(parts: { services: DeviceServices; home: DeviceHome; owner: Device }) {
    super('floppy-bus', 'floppy-bus.0', parts);
  }

  get drives(): readonly (FloppyDrive | undefined)[] {
    return this.#drives;
  }

  override get full(): boolean {
    return this.#drives.every(drive => drive !== undefined);
  }

  protected override attached(device: Device): void {
    if (!(device instanceof FloppyDrive)) return;
    const wanted = device.props.unit;
    const unit = wanted === UNSET ? this.#drives.indexOf(undefined) : wanted;
    if (unit < 0 || unit >= UNITS) {
      throw new SouthbridgeError(
        'ERR_BUS_ADDRESS',
        `Can't create floppy unit ${unit < 0 ? UNITS : unit}, bus supports only ${UNITS} units`,
      );
    }
    if (this.#drives[unit] !== undefined)
      throw new SouthbridgeError('ERR_BUS_ADDRESS', `Floppy unit ${unit} is in use`);
    this.#drives[unit] = device;
  }

  protected override detached(device: Device): void {
    const unit = this.#drives.findIndex(drive => drive === device);
    if (unit >= 0) this.#drives[unit] = undefined;
  }
}

/** A floppy disk drive and the medium in it. Where its heads are is the controller's to know. */
export class FloppyDrive extends Device<typeof properties> {
  /** Set by the controller: the medium has changed. */
  mediumChanged: () => void = () => {};
  #type: DriveType = 'auto';
  #backend: BlockBackend | undefined;

  protected override realize(): void {
    const { 'share-rw': shareRw } = this.props;
    this.#backend = this.props.drive ?? emptyDrive(this.services);
    const drive = this.#backend;
    this.#type = this.props['drive-type'];
    if (drive === undefined) return;
    const device: BlockDevice = { id: this.id ?? this.path, removable: true, changeMedium: () => this.mediumChanged() };
    drive.attachDevice(device, { writable: drive.inserted && !drive.readOnly, shareRw });
    this.onUnrealize(() => drive.detachDevice(device));
  }

  get backend(): BlockBackend | undefined {
    return this.#backend;
  }

  /** Settles `auto`, once: by the medium that is there, or as `fallback` says. */
  settleType(fallback: DriveType): void {
    if (this.#type !== 'auto') return;
    this.#type = this.inserted ? (formatOf(this.#sectors, 'auto', fallback)?.drive ?? fallback) : fallback;
  }

  get driveType(): DriveType {
    return this.#type;
  }

  get inserted(): boolean {
    return this.#backend?.inserted ?? false;
  }

  get readOnly(): boolean {
    return this.#backend === undefined || !this.inserted || this.#backend.readOnly;
  }

  get #sectors(): number {
    return Math.floor((this.#backend?.length ?? 0) / SECTOR);
  }

  /** How the medium is formatted; undefined without one. */
  format(fallback: DriveType): Format | undefined {
    if (!this.inserted || this.#type === 'none') return undefined;
    return formatOf(this.#sectors, this.#type, fallback);
  }
}

export const floppy = deviceType({
  type: 'floppy',
  summary: 'virtual floppy drive',
  bus: 'floppy-bus',
  category: 'storage',
  parents: ['device'],
  properties,
  create: FloppyDrive,
});
