import { BlockBackend, type BlockDevice } from '../../core/block/backend.ts';
import { type BlockSizes, blockProperties, blockSizes } from '../../core/block/device-properties.ts';
import { type Geometry, guessGeometry } from '../../core/block/geometry.ts';
import { BlockGraph } from '../../core/block/graph.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { type PropSet, type PropValues, prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import type { ScsiCommand } from '../../core/scsi/command.ts';
import { ScsiDevice, scsiProperties } from '../../core/scsi/scsi-device.ts';
import type { ScsiRequest, ScsiTask } from '../../core/scsi/scsi-request.ts';
import { SENSE, type Sense } from '../../core/scsi/sense.ts';
import { SPC_3 } from '../../core/scsi/target-request.ts';
import { field } from '../../core/state/fields.ts';
import { emptyDrive } from '../empty-drive.ts';
import { DiskCommand } from './disk-command.ts';
import { DiskTransfer, TRANSFERS } from './disk-transfer.ts';

const CD_BLOCK = 2048;
const VERSION = '2.5+';
const SERIAL_AS_ID = 20;
const DISCARD_GRANULARITY = 4096;
const GIB = 2n ** 30n;
const IO_MAX = 0x7fff_ffff;
/** START STOP UNIT (SBC-3, section 5.25): bits of byte 4. */
const START = 0x01;
const LOAD_EJECT = 0x02;
const POWER_CONDITION = 0xf0;

/** The properties that disks and CD-ROM drives share, with QEMU's names. */
const driveProperties = {
  ...scsiProperties,
  ...blockProperties,
  ver: prop.string(),
  serial: prop.string(),
  vendor: prop.string(),
  product: prop.string(),
  device_id: prop.string(),
  wwn: prop.u64({ default: 0n }),
  port_wwn: prop.u64({ default: 0n }),
  port_index: prop.u16({ default: 0 }),
  max_io_size: prop.u64({ default: BigInt(IO_MAX) }),
  scsi_version: prop.i32({ default: SPC_3 }),
  quirk_mode_page_vendor_specific_apple: prop.bit({ default: false }),
} as const;

const diskProperties = {
  ...driveProperties,
  removable: prop.bit({ default: false }),
  dpofua: prop.bit({ default: false }),
  max_unmap_size: prop.u64({ default: GIB }),
  rotation_rate: prop.u16({ default: 0 }),
  cyls: prop.u32({ default: 0 }),
  heads: prop.u32({ default: 0 }),
  secs: prop.u32({ default: 0 }),
  lcyls: prop.u32({ default: 0 }),
  lheads: prop.u32({ default: 0 }),
  lsecs: prop.u32({ default: 0 }),
} as const;

const cdProperties = {
  ...driveProperties,
  quirk_mode_page_apple_vendor: prop.bit({ default: false }),
  quirk_mode_sense_rom_use_dbd: prop.bit({ default: false }),
  quirk_mode_page_truncated: prop.bit({ default: false }),
} as const;

const mediaFields = {
  trayOpen: field.bool(),
  trayLocked: field.bool(),
  newMedium: field.bool(),
  ejectRequest: field.bool(),
  /** After its removal, a new medium is to be reported. */
  changed: field.bool(),
  /** The last block, as of the last reset or READ CAPACITY. */
  lastBlock: field.number(),
  blockSize: field.u32(),
} as const;

/** Who the device says it is. */
export interface DiskIdentity {
  readonly vendor: string;
  readonly product: string;
  readonly version: string;
  readonly serial: string | undefined;
  /** Empty for none. */
  readonly deviceId: string;
  readonly wwn: bigint;
  readonly portWwn: bigint;
  readonly portIndex: number;
  readonly rotationRate: number;
}

/** Limits that the device reports, in bytes. */
export interface DiskLimits {
  readonly minIo: number;
  readonly optIo: number;
  readonly maxIo: number;
  readonly maxUnmap: number;
}

/** Departures from the standards that old guests want. */
export interface DiskQuirks {
  readonly vendorPage: boolean;
  readonly applePage: boolean;
  readonly blockDescriptor: boolean;
  readonly truncatedPage: boolean;
}

const refused = (message: string): SouthbridgeError => new SouthbridgeError('ERR_DRIVE', message);

/** A disk or CD-ROM drive: who it is, its medium and its tray. What its commands do is in the requests. */
export abstract class ScsiDiskBase<S extends PropSet = PropSet> extends ScsiDevice<S> {
  readonly media = this.state(1, mediaFields, { onReset: 'keep' });
  identity: DiskIdentity = NOBODY;
  limits: DiskLimits = { minIo: 0, optIo: 0, maxIo: IO_MAX, maxUnmap: 0 };
  geometry: Geometry = { cylinders: 0, heads: 0, sectors: 0 };
  discardGranularity = 0;
  physicalExponent = 0;
  #backend: BlockBackend | undefined;

  abstract readonly removable: boolean;
  abstract readonly dpofua: boolean;
  abstract readonly quirks: DiskQuirks;
  protected abstract readonly product: string;

  protected get driveProps(): PropValues<typeof driveProperties> {
    // Every type of drive declares the drive properties.
    return this.props as PropValues<S> & PropValues<typeof driveProperties>;
  }

  /** Block size of the drive, from what the user says. */
  protected abstract settleBlockSize(sizes: BlockSizes): number;
  protected abstract settleGeometry(backend: BlockBackend): Geometry;
  protected abstract readonly maxUnmap: bigint;
  protected abstract readonly rotationRate: number;

  get backend(): BlockBackend {
    if (this.#backend === undefined) throw refused('drive property not set');
    return this.#backend;
  }

  get scsiVersion(): number {
    return this.driveProps.scsi_version;
  }

  get writable(): boolean {
    return this.kind === 'disk' && !this.backend.readOnly;
  }

  /** Whole blocks that the medium has. */
  get blocks(): number {
    return Math.floor((this.#backend?.length ?? 0) / this.blockSize);
  }

  get lastBlock(): number {
    return this.media.lastBlock;
  }

  /** Takes the size of the medium as it is now for the range of addresses. */
  measure(): void {
    this.media.lastBlock = Math.max(0, this.blocks - 1);
  }

  /** No blocks at the very end are in range, too. */
  inRange(lba: number, blocks: number): boolean {
    return lba + blocks <= this.media.lastBlock + 1;
  }

  selectBlockSize(size: number): void {
    this.blockSize = size;
    this.media.blockSize = size;
  }

  protected override newCommand(tag: number, command: ScsiCommand, task: ScsiTask): ScsiRequest {
    return TRANSFERS.has(command.opcode)
      ? new DiskTransfer(this, tag, command, task)
      : new DiskCommand(this, tag, command, task);
  }

  // Medium and tray

  startStop(action: number): Sense | undefined {
    const { media } = this;
    const open = (action & START) === 0;
    // The tray only moves by itself, not with a change of the power condition.
    if ((action & POWER_CONDITION) !== 0 || (action & LOAD_EJECT) === 0 || !this.removable) return undefined;
    if (open && !media.trayOpen && media.trayLocked) {
      return this.backend.inserted ? SENSE.REMOVAL_PREVENTED : SENSE.REMOVAL_PREVENTED_WHILE_EMPTY;
    }
    if (media.trayOpen !== open) {
      media.trayOpen = open;
      this.#trayMoved();
    }
    return undefined;
  }

  #trayMoved(): void {
    const { backend } = this;
    backend.graph.emit({
      event: 'DEVICE_TRAY_MOVED',
      device: backend.name,
      id: this.id ?? this.path,
      trayOpen: this.media.trayOpen,
    });
  }

  /** A change shows as a removal first and then as a new medium, for drivers that know no events (MMC-5, section 4.1.6). */
  #mediumChanged(inserted: boolean): void {
    const { media } = this;
    const wasOpen = media.trayOpen;
    media.changed = inserted;
    media.trayOpen = !inserted;
    media.newMedium = true;
    media.ejectRequest = false;
    this.setAttention(SENSE.MEDIUM_REMOVED);
    if (media.trayOpen !== wasOpen) this.#trayMoved();
  }

  protected override attentionReported(): void {
    if (!this.media.changed) return;
    this.media.changed = false;
    this.setAttention(SENSE.MEDIUM_CHANGED);
  }

  #ejectRequested(force: boolean): void {
    this.media.ejectRequest = true;
    if (force) this.media.trayLocked = false;
  }

  #resized(): void {
    if (this.kind === 'disk') this.reportChange(SENSE.CAPACITY_CHANGED);
  }

  /** What the block layer sees of the drive. */
  #blockDevice(): BlockDevice {
    const name = (): string => this.id ?? this.path;
    return {
      get id() {
        return name();
      },
      removable: this.removable,
      resized: () => this.#resized(),
      ...(this.removable && {
        changeMedium: inserted => this.#mediumChanged(inserted),
        ejectRequest: force => this.#ejectRequested(force),
        trayOpen: () => this.media.trayOpen,
        mediumLocked: () => this.media.trayLocked,
      }),
    };
  }

  // The life cycle

  protected override realize(): void {
    const props = this.driveProps;
    const backend = props.drive ?? this.#emptyBackend();
    if (!this.removable && !backend.inserted) throw refused('Device needs media, but drive is empty');
    const sizes = blockSizes(props);
    this.geometry = this.settleGeometry(backend);
    const isDisk = this.kind === 'disk';
    const device = this.#blockDevice();
    backend.attachDevice(device, {
      writable: isDisk && !backend.readOnly,
      shareRw: props['share-rw'],
      resizable: isDisk,
    });
    this.#backend = backend;
    this.onUnrealize(() => backend.detachDevice(device));
    this.#applyPolicies(backend);
    this.#settle(backend, sizes);
    this.onUnrealize(
      this.services.system.onRunning(() => {
        backend.resetIoStatus();
        this.restartRequests();
      }),
    );
  }

  #settle(backend: BlockBackend, sizes: BlockSizes): void {
    const props = this.driveProps;
    this.selectBlockSize(this.settleBlockSize(sizes));
    this.measure();
    this.discardGranularity = sizes.discardGranularity ?? Math.max(sizes.logical, DISCARD_GRANULARITY);
    this.physicalExponent = Math.log2(sizes.physical / sizes.logical);
    this.identity = {
      vendor: props.vendor ?? 'QEMU',
      product: props.product ?? this.product,
      version: props.ver ?? VERSION,
      serial: props.serial,
      deviceId: props.device_id ?? props.serial?.slice(0, SERIAL_AS_ID) ?? backend.name,
      wwn: props.wwn,
      portWwn: props.port_wwn,
      portIndex: props.port_index,
      rotationRate: this.rotationRate,
    };
    const aligned = Math.floor(IO_MAX / backend.requestAlignment) * backend.requestAlignment;
    this.limits = {
      minIo: sizes.minIo,
      optIo: sizes.optIo,
      maxIo: Math.min(aligned, Number(props.max_io_size) || aligned),
      maxUnmap: Number(this.maxUnmap),
    };
  }

  /** A drive without `drive=` is empty; only one with a tray of its own can be. */
  #emptyBackend(): BlockBackend {
    if (this.kind === 'disk') throw refused('drive property not set');
    // Without a block layer nobody can put a medium in.
    return emptyDrive(this.services) ?? new BlockBackend(new BlockGraph([]));
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

  protected override resetHold(): void {
    super.resetHold();
    this.measure();
    this.media.trayLocked = false;
    this.media.trayOpen = false;
  }

  protected override restored(): void {
    this.blockSize = this.media.blockSize;
  }
}

const NOBODY: DiskIdentity = {
  vendor: '',
  product: '',
  version: '',
  serial: undefined,
  deviceId: '',
  wwn: 0n,
  portWwn: 0n,
  portIndex: 0,
  rotationRate: 0,
};

/** A hard disk. */
class ScsiHardDisk extends ScsiDiskBase<typeof diskProperties> {
  readonly kind = 'disk';
  protected readonly product = 'QEMU HARDDISK';

  get removable(): boolean {
    return this.props.removable;
  }

  get dpofua(): boolean {
    return this.props.dpofua;
  }

  get quirks(): DiskQuirks {
    const vendorPage = this.props.quirk_mode_page_vendor_specific_apple;
    return { vendorPage, applePage: false, blockDescriptor: true, truncatedPage: false };
  }

  protected get maxUnmap(): bigint {
    return this.props.max_unmap_size;
  }

  protected get rotationRate(): number {
    return this.props.rotation_rate;
  }

  protected override settleBlockSize(sizes: BlockSizes): number {
    return sizes.logical;
  }

  protected override settleGeometry(backend: BlockBackend): Geometry {
    const { cyls, heads, secs } = this.props;
    if (cyls !== 0 || heads !== 0 || secs !== 0) {
      for (const [name, value, max] of [
        ['cyls', cyls, 65535],
        ['heads', heads, 255],
        ['secs', secs, 255],
      ] as const) {
        if (value < 1 || value > max) throw refused(`${name} must be between 1 and ${max}`);
      }
      return { cylinders: cyls, heads, sectors: secs };
    }
    return guessGeometry(backend.peekBootSector(), backend.length).geometry;
  }
}

/** A CD/DVD-ROM drive. */
class ScsiCd extends ScsiDiskBase<typeof cdProperties> {
  readonly kind = 'cd';
  readonly removable = true;
  readonly dpofua = false;
  protected readonly product = 'QEMU CD-ROM';
  protected readonly maxUnmap = 0n;
  protected readonly rotationRate = 0;

  get quirks(): DiskQuirks {
    const { props } = this;
    return {
      vendorPage: props.quirk_mode_page_vendor_specific_apple,
      applePage: props.quirk_mode_page_apple_vendor,
      blockDescriptor: props.quirk_mode_sense_rom_use_dbd,
      truncatedPage: props.quirk_mode_page_truncated,
    };
  }

  protected override settleBlockSize(): number {
    return this.props.physical_block_size || CD_BLOCK;
  }

  protected override settleGeometry(): Geometry {
    return { cylinders: 0, heads: 0, sectors: 0 };
  }
}

const common = {
  bus: 'SCSI',
  category: 'storage',
  parents: ['scsi-disk-base', 'scsi-device', 'device'],
  hotpluggable: true,
} as const;

export const scsiHd = deviceType({
  ...common,
  type: 'scsi-hd',
  summary: 'virtual SCSI disk',
  properties: diskProperties,
  create: ScsiHardDisk,
});
export const scsiCd = deviceType({
  ...common,
  type: 'scsi-cd',
  summary: 'virtual SCSI CD-ROM',
  properties: cdProperties,
  create: ScsiCd,
});
