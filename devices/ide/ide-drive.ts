import { BlockBackend, type BlockDevice } from '../../core/block/backend.ts';
import { driveProperty } from '../../core/block/device-properties.ts';
import { automatic, guessGeometry, type Translation } from '../../core/block/geometry.ts';
import { BlockGraph } from '../../core/block/graph.ts';
import { Device } from '../../core/device/device.ts';
import type { DeviceContext } from '../../core/device/device-type.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { type PropSet, type PropValues, prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { emptyDrive } from '../empty-drive.ts';
import type { AtaChannel } from './channel.ts';
import { SECTOR } from './task-file.ts';
import type { AtaUnit } from './unit.ts';

const UNSET = 0xffff_ffff;

/** The properties that every IDE drive has, with QEMU's names. */
const driveProperties = {
  drive: driveProperty,
  unit: prop.u32({ default: UNSET }),
  ver: prop.string(),
  serial: prop.string(),
  model: prop.string(),
  wwn: prop.u64({ default: 0n }),
  bootindex: prop.bootIndex({ default: -1 }),
  backend_defaults: prop.onOffAuto({ default: 'auto' }),
  logical_block_size: prop.size({ default: 0, description: 'A power of two between 512 B and 2 MiB' }),
  physical_block_size: prop.size({ default: 0, description: 'A power of two between 512 B and 2 MiB' }),
  min_io_size: prop.size({ default: 0 }),
  opt_io_size: prop.size({ default: 0 }),
  discard_granularity: prop.size({ default: UNSET }),
  'write-cache': prop.onOffAuto({ default: 'auto' }),
  'share-rw': prop.bool({ default: false }),
  rerror: prop.enum(['auto', 'report', 'ignore', 'stop'], { default: 'auto', typeName: 'BlockdevOnError' }),
  werror: prop.enum(['auto', 'report', 'ignore', 'enospc', 'stop'], { default: 'auto', typeName: 'BlockdevOnError' }),
  'account-invalid': prop.onOffAuto({ default: 'auto' }),
  'account-failed': prop.onOffAuto({ default: 'auto' }),
} as const;

const diskProperties = {
  ...driveProperties,
  cyls: prop.u32({ default: 0 }),
  heads: prop.u32({ default: 0 }),
  secs: prop.u32({ default: 0 }),
  lcyls: prop.u32({ default: 0 }),
  lheads: prop.u32({ default: 0 }),
  lsecs: prop.u32({ default: 0 }),
  'bios-chs-trans': prop.enum(['auto', 'none', 'lba', 'large', 'rechs'], {
    default: 'auto',
    typeName: 'BiosAtaTranslation',
  }),
  rotation_rate: prop.u16({ default: 0 }),
} as const;

const VERSION = '2.5+';
const MAX_CYLINDERS = 65535;
const MAX_HEADS = 16;
const MAX_SECTORS_PER_TRACK = 255;
const MAX_BLOCK_SIZE = 2 * 2 ** 20;

interface DriveGeometry {
  readonly cylinders: number;
  readonly heads: number;
  readonly sectors: number;
}

const refused = (message: string): SouthbridgeError => new SouthbridgeError('ERR_DRIVE', message);

/** A drive on an IDE bus: who it is, and its medium. What it does is the channel's unit. */
export abstract class IdeDrive<S extends PropSet = PropSet> extends Device<S> {
  abstract readonly removable: boolean;
  #unit: AtaUnit | undefined;
  #backend: BlockBackend | undefined;
  #busNumber = 0;
  #unitNumber = 0;
  #serial = '';

  constructor(context: DeviceContext<S>) {
    super(context);
    this.defineProperty({ name: 'unit', type: 'uint32', get: () => this.#unitNumber });
    this.defineProperty({ name: 'serial', type: 'str', get: () => this.#serial });
  }

  protected abstract readonly model: string;
  protected abstract readonly rotationRate: number;
  /** @throws SouthbridgeError where what the user chose is not possible */
  protected abstract settleGeometry(backend: BlockBackend): DriveGeometry;

  protected get driveProps(): PropValues<typeof driveProperties> {
    // Every type of drive declares the drive properties.
    return this.props as PropValues<S> & PropValues<typeof driveProperties>;
  }

  /** The unit number that was asked for. */
  get requestedUnit(): number | undefined {
    const { unit } = this.driveProps;
    return unit === UNSET ? undefined : unit;
  }

  get backend(): BlockBackend | undefined {
    return this.#backend;
  }

  get unit(): AtaUnit | undefined {
    return this.#unit;
  }

  override get firmwareName(): string {
    return `drive@${this.#busNumber.toString(16)}`;
  }

  /** Where the drive is, before it is realized. */
  place(channel: AtaChannel, busNumber: number, unit: 0 | 1): void {
    this.#unit = channel.units[unit];
    this.#busNumber = busNumber;
    this.#unitNumber = unit;
  }

  protected override realize(): void {
    const unit = this.#unit;
    if (unit === undefined) throw new TypeError('an IDE drive is placed before it is realized');
    const { props, removable } = { props: this.driveProps, removable: this.removable };
    const backend = props.drive ?? this.#emptyBackend();
    this.#checkBlockSizes();
    if (!removable && !backend.inserted) throw refused('Device needs media, but drive is empty');
    const geometry = this.settleGeometry(backend);
    if (!removable && backend.readOnly) throw refused("Can't use a read-only drive");
    const device = this.#blockDevice(unit);
    backend.attachDevice(device, { writable: !removable, shareRw: props['share-rw'], resizable: !removable });
    this.#backend = backend;
    this.#applyPolicies(backend);
    this.#serial = props.serial ?? `QM${String(this.#busNumber * 2 + this.#unitNumber + 1).padStart(5, '0')}`;
    const physical = props.physical_block_size || SECTOR;
    unit.connect({
      kind: removable ? 'cd' : 'disk',
      backend,
      serial: this.#serial.slice(0, 20),
      version: (props.ver ?? VERSION).slice(0, 8),
      model: (props.model ?? this.model).slice(0, 40),
      wwn: props.wwn,
      trim: props.discard_granularity !== 0,
      rotationRate: this.rotationRate,
      physicalExponent: Math.log2(physical / SECTOR),
      ...geometry,
      trayMoved: open => this.#trayMoved(open),
    });
    this.onUnrealize(
      this.services.system.onRunning(() => {
        backend.resetIoStatus();
        unit.resumed();
      }),
    );
    this.onUnrealize(() => {
      unit.disconnect();
      backend.detachDevice(device);
    });
  }

  /** A drive without `drive=` is empty; only one with a tray can be. */
  #emptyBackend(): BlockBackend {
    if (!this.removable) throw refused('No drive specified');
    // Without a block layer nobody can put a medium in.
    return emptyDrive(this.services) ?? new BlockBackend(new BlockGraph([]));
  }

  #checkBlockSizes(): void {
    const {
      logical_block_size: logical,
      physical_block_size: physical,
      discard_granularity: discard,
      min_io_size,
      opt_io_size,
    } = this.driveProps;
    for (const [name, size] of [
      ['logical_block_size', logical],
      ['physical_block_size', physical],
    ] as const) {
      if (size !== 0 && (size < SECTOR || size > MAX_BLOCK_SIZE || (size & (size - 1)) !== 0)) {
        throw refused(`Property .${name} doesn't take value ${size}; it must be a power of 2 between 512 and 2097152`);
      }
    }
    if (discard !== UNSET && discard !== 0 && discard !== SECTOR)
      throw refused('discard_granularity must be 512 for ide');
    if ((logical || SECTOR) > (physical || SECTOR))
      throw refused('logical_block_size > physical_block_size not supported');
    if (min_io_size % (logical || SECTOR) !== 0) throw refused('min_io_size must be a multiple of logical_block_size');
    if (opt_io_size % (logical || SECTOR) !== 0) throw refused('opt_io_size must be a multiple of logical_block_size');
    if ((logical || SECTOR) !== SECTOR) throw refused('logical_block_size must be 512 for IDE');
  }

  #applyPolicies(backend: BlockBackend): void {
    const props = this.driveProps;
    if (props.rerror !== 'auto') backend.onReadError = props.rerror;
    if (props.werror !== 'auto') backend.onWriteError = props.werror;
    if (props['write-cache'] !== 'auto') backend.writeCache = props['write-cache'] === 'on';
    if (props['account-invalid'] !== 'auto') backend.stats.accountInvalid = props['account-invalid'] === 'on';
    if (props['account-failed'] !== 'auto') backend.stats.accountFailed = props['account-failed'] === 'on';
    backend.enableIoStatus();
  }

  #trayMoved(open: boolean): void {
    const backend = this.#backend;
    backend?.graph.emit({ event: 'DEVICE_TRAY_MOVED', device: backend.name, id: this.id ?? this.path, trayOpen: open });
  }

  /** What the block layer sees of the drive. */
  #blockDevice(unit: AtaUnit): BlockDevice {
    const { removable } = this;
    return {
      id: this.id ?? this.path,
      removable,
      resized: () => unit.resized(),
      ...(removable && {
        changeMedium: inserted => this.#changeMedium(unit, inserted),
        ejectRequest: force => unit.ejectRequested(force),
        trayOpen: () => unit.s.trayOpen,
        mediumLocked: () => unit.s.trayLocked,
      }),
    };
  }

  #changeMedium(unit: AtaUnit, inserted: boolean): void {
    const wasOpen = unit.s.trayOpen;
    unit.mediumChanged(inserted);
    if (unit.s.trayOpen !== wasOpen) this.#trayMoved(unit.s.trayOpen);
  }
}

/** A hard disk. */
export class IdeDisk extends IdeDrive<typeof diskProperties> {
  readonly removable = false;
  protected readonly model = 'QEMU HARDDISK';
  geometry: DriveGeometry = { cylinders: 0, heads: 0, sectors: 0 };
  translation: Translation = 'none';

  protected get rotationRate(): number {
    return this.props.rotation_rate;
  }

  protected override settleGeometry(backend: BlockBackend): DriveGeometry {
    const { cyls, heads, secs, 'bios-chs-trans': chosen } = this.props;
    if (cyls === 0 && heads === 0 && secs === 0) {
      const { geometry, translation } = guessGeometry(backend.peekBootSector(), backend.length);
      this.geometry = geometry;
      this.translation = translation;
    } else {
      const check = (name: string, value: number, max: number): void => {
        if (value < 1 || value > max) throw refused(`${name} must be between 1 and ${max}`);
      };
      check('cyls', cyls, MAX_CYLINDERS);
      check('heads', heads, MAX_HEADS);
      check('secs', secs, MAX_SECTORS_PER_TRACK);
      this.geometry = { cylinders: cyls, heads, sectors: secs };
      this.translation = automatic(this.geometry);
    }
    if (chosen !== 'auto') this.translation = chosen;
    return this.geometry;
  }
}

/** A CD/DVD-ROM drive. */
export class IdeCd extends IdeDrive<typeof driveProperties> {
  readonly removable = true;
  protected readonly model = 'QEMU DVD-ROM';
  protected readonly rotationRate = 0;

  protected override settleGeometry(): DriveGeometry {
    return { cylinders: 0, heads: 0, sectors: 0 };
  }
}

const common = { bus: 'IDE', category: 'storage', parents: ['ide-device', 'device'] } as const;

export const ideHd = deviceType({
  ...common,
  type: 'ide-hd',
  summary: 'virtual IDE disk',
  properties: diskProperties,
  create: IdeDisk,
});
export const ideCd = deviceType({
  ...common,
  type: 'ide-cd',
  summary: 'virtual IDE CD-ROM',
  properties: driveProperties,
  create: IdeCd,
});
