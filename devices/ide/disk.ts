import { type BlockDevice, type IoResult, whenDone } from '../../core/block/backend.ts';
import { guessGeometry, type Translation } from '../../core/block/geometry.ts';
import { IoVector } from '../../core/block/io-vector.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { field } from '../../core/state/fields.ts';
import { driveProperties, IdeDrive } from './drive.ts';
import { identifyDisk } from './identify.ts';
import { Smart, smartState } from './smart.ts';
import { COMMAND, DEVICE, MAX_MULTIPLE, SECTOR, SIGNATURE, STATUS } from './task-file.ts';

const properties = {
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

const MAX_CYLINDERS = 65535;
const MAX_HEADS = 16;
const MAX_SECTORS_PER_TRACK = 255;

/** SET FEATURES subcommands (section 8.36). */
const FEATURE = {
  WRITE_CACHE: 0x02,
  TRANSFER_MODE: 0x03,
  NO_WRITE_CACHE: 0x82,
  REVERT: 0xcc,
  NO_REVERT: 0x66,
} as const;
const FEATURES_WITHOUT_EFFECT = new Set([
  0xaa,
  0x55,
  0x05,
  0x85,
  0x69,
  0x67,
  0x96,
  0x9a,
  0x42,
  0xc2,
  FEATURE.REVERT,
  FEATURE.NO_REVERT,
]);
/** What words 62, 63 and 88 of IDENTIFY say of modes 0 to 2, and Ultra DMA 0 to 5. */
const SINGLE_WORD_MODES = 0x07;
const MULTIWORD_MODES = 0x07;
const ULTRA_MODES = 0x3f;

const TRIM = 0x01;
const TRIM_ENTRY = 8;
/** CHECK POWER MODE: active or idle. */
const POWER_ACTIVE = 0xff;

type Transfer = 'read' | 'write' | 'trim';

const diskState = {
  modes: field.words(3),
  /** How far a DMA command has come, in bytes. */
  dmaDone: field.number(),
};

/** An ATA hard disk (`ide-hd`). */
export class IdeDisk extends IdeDrive<typeof properties> {
  readonly removable = false;
  protected readonly signature = SIGNATURE.ATA;
  protected readonly idleStatus = STATUS.DRDY | STATUS.DSC;
  readonly #disk = this.state(1, diskState, { name: 'disk' });
  readonly #smart = new Smart(this.state(1, smartState, { name: 'smart', onReset: 'keep' }));
  geometry = { cylinders: 0, heads: 0, sectors: 0 };
  translation: Translation = 'none';
  /** As INITIALIZE DEVICE PARAMETERS set them. */
  readonly #logical = this.state(1, { heads: field.u8(), sectors: field.u8() }, { name: 'geometry', onReset: 'keep' });
  #bounce = new Uint8Array(0);

  protected readonly blockDevice: BlockDevice = { id: '', removable: false };

  protected override realize(): void {
    Object.assign(this.blockDevice, { id: this.id ?? this.path });
    const { backend } = this;
    if (backend !== undefined && !backend.inserted)
      throw new SouthbridgeError('ERR_BACKEND', 'Device needs media, but drive is empty');
    if (backend?.readOnly) throw new SouthbridgeError('ERR_BACKEND', "Can't use a read-only drive");
    this.takeBackend(true);
    const size = (name: string, value: number): number => {
      if (value !== 0 && value !== SECTOR)
        throw new SouthbridgeError('ERR_BLOCK_SIZE', `${name} must be ${SECTOR} for IDE`);
      return SECTOR;
    };
    size('logical_block_size', this.props.logical_block_size);
    this.#settleGeometry();
    this.#logical.heads = this.geometry.heads;
    this.#logical.sectors = this.geometry.sectors;
  }

  protected override resetEnter(): void {
    super.resetEnter();
    this.#disk.modes = Uint32Array.of(SINGLE_WORD_MODES, MULTIWORD_MODES, ULTRA_MODES | (1 << 13));
  }

  #settleGeometry(): void {
    const { cyls, heads, secs } = this.props;
    const chosen = this.props['bios-chs-trans'];
    const mbr = new Uint8Array(SECTOR);
    const { backend } = this;
    // A backend that answers later has its geometry guessed from its size alone.
    if (backend !== undefined && backend.length >= SECTOR) void backend.readv(0, IoVector.of(mbr));
    const guess = guessGeometry(mbr, backend?.length ?? 0);
    if (cyls === 0 && heads === 0 && secs === 0) {
      this.geometry = guess.geometry;
      this.translation = guess.translation;
    } else {
      const between = (name: string, value: number, max: number): void => {
        if (value < 1 || value > max)
          throw new SouthbridgeError('ERR_GEOMETRY', `${name} must be between 1 and ${max}`);
      };
      between('cyls', cyls, MAX_CYLINDERS);
      between('heads', heads, MAX_HEADS);
      between('secs', secs, MAX_SECTORS_PER_TRACK);
      this.geometry = { cylinders: cyls, heads, sectors: secs };
      this.translation = cyls <= 1024 && heads <= 16 && secs <= 63 ? 'none' : 'lba';
    }
    if (chosen !== 'auto') this.translation = chosen;
  }

  get #sectors(): number {
    return Math.floor((this.backend?.length ?? 0) / SECTOR);
  }

  // Commands (section 8)

  protected override execute(command: number): boolean | undefined {
    const { s } = this;
    switch (command) {
      case COMMAND.READ_SECTORS_EXT:
      case COMMAND.READ_DMA_EXT:
      case COMMAND.READ_MULTIPLE_EXT:
      case COMMAND.WRITE_SECTORS_EXT:
      case COMMAND.WRITE_DMA_EXT:
      case COMMAND.WRITE_MULTIPLE_EXT:
      case COMMAND.VERIFY_EXT:
      case COMMAND.READ_NATIVE_MAX_EXT:
        s.lba48 = true;
        break;
      default:
        s.lba48 = false;
    }
    switch (command) {
      case COMMAND.READ_SECTORS:
      case COMMAND.READ_SECTORS_ONCE:
      case COMMAND.READ_SECTORS_EXT:
        return this.#readPio(1);
      case COMMAND.READ_MULTIPLE:
      case COMMAND.READ_MULTIPLE_EXT:
        return s.multiple === 0 ? false : this.#readPio(s.multiple);
      case COMMAND.WRITE_SECTORS:
      case COMMAND.WRITE_SECTORS_ONCE:
      case COMMAND.WRITE_SECTORS_EXT:
      case COMMAND.WRITE_VERIFY:
        return this.#writePio(1);
      case COMMAND.WRITE_MULTIPLE:
      case COMMAND.WRITE_MULTIPLE_EXT:
        return s.multiple === 0 ? false : this.#writePio(s.multiple);
      case COMMAND.READ_DMA:
      case COMMAND.READ_DMA_ONCE:
      case COMMAND.READ_DMA_EXT:
        return this.#startDma('read');
      case COMMAND.WRITE_DMA:
      case COMMAND.WRITE_DMA_ONCE:
      case COMMAND.WRITE_DMA_EXT:
        return this.#startDma('write');
      case COMMAND.DATA_SET_MANAGEMENT:
        return (s.features & TRIM) !== 0 ? this.#startDma('trim') : false;
      case COMMAND.FLUSH_CACHE:
      case COMMAND.FLUSH_CACHE_EXT:
        return this.#flush();
      case COMMAND.IDENTIFY:
        return this.#identify();
      case COMMAND.SET_FEATURES:
        return this.#setFeatures();
      case COMMAND.SMART:
        return this.#doSmart();
      default:
        return this.#executeSimple(command);
    }
  }

  #executeSimple(command: number): boolean | undefined {
    const { s } = this;
    switch (command) {
      case COMMAND.RECALIBRATE:
      case COMMAND.SEEK:
      case COMMAND.VERIFY:
      case COMMAND.VERIFY_ONCE:
      case COMMAND.VERIFY_EXT:
        if (s.lba48 || command !== COMMAND.RECALIBRATE) this.#widenCount();
        s.status |= STATUS.DSC;
        return true;
      case COMMAND.READ_NATIVE_MAX:
      case COMMAND.READ_NATIVE_MAX_EXT:
        if (this.#sectors === 0) return false;
        this.#widenCount();
        this.#setLba(this.#sectors - 1);
        s.status |= STATUS.DSC;
        return true;
      case COMMAND.EXECUTE_DIAGNOSTIC:
        this.diagnose();
        this.host.commandDone(this);
        this.raiseIrq();
        return undefined;
      case COMMAND.INITIALIZE_PARAMETERS:
        this.#logical.heads = (s.device & DEVICE.HEAD) + 1;
        this.#logical.sectors = s.count & 0xff;
        s.status |= STATUS.DSC;
        return true;
      case COMMAND.SET_MULTIPLE: {
        const count = s.count & 0xff;
        if (count > MAX_MULTIPLE || (count & (count - 1)) !== 0) return false;
        s.multiple = count;
        s.status |= STATUS.DSC;
        return true;
      }
      case COMMAND.CHECK_POWER:
      case COMMAND.CHECK_POWER_OLD:
        s.count = POWER_ACTIVE;
        s.status |= STATUS.DSC;
        return true;
      case COMMAND.STANDBY_IMMEDIATE:
      case COMMAND.STANDBY_IMMEDIATE_OLD:
      case COMMAND.IDLE_IMMEDIATE:
      case COMMAND.IDLE_IMMEDIATE_OLD:
      case COMMAND.STANDBY:
      case COMMAND.STANDBY_OLD:
      case COMMAND.IDLE:
      case COMMAND.IDLE_OLD:
      case COMMAND.SLEEP:
      case COMMAND.SLEEP_OLD:
        return true;
      default:
        return false;
    }
  }

  // Addresses (section 6.2)

  #lba(): number {
    const { s } = this;
    const low = s.lbaLow | (s.lbaMid << 8) | (s.lbaHigh << 16);
    if ((s.device & DEVICE.LBA) !== 0) {
      if (!s.lba48) return (s.device & DEVICE.HEAD) * 2 ** 24 + low;
      return (s.hobHigh * 0x1_0000 + (s.hobMid << 8) + s.hobLow) * 2 ** 24 + low;
    }
    const cylinder = s.lbaMid | (s.lbaHigh << 8);
    const { heads, sectors } = this.#logical;
    return (cylinder * heads + (s.device & DEVICE.HEAD)) * sectors + s.lbaLow - 1;
  }

  #setLba(lba: number): void {
    const { s } = this;
    if ((s.device & DEVICE.LBA) === 0) {
      const { heads, sectors } = this.#logical;
      const perCylinder = heads * sectors;
      const cylinder = Math.floor(lba / perCylinder);
      s.lbaMid = cylinder & 0xff;
      s.lbaHigh = (cylinder >> 8) & 0xff;
      s.device = (s.device & ~DEVICE.HEAD) | (Math.floor((lba % perCylinder) / sectors) & DEVICE.HEAD);
      s.lbaLow = ((lba % perCylinder) % sectors) + 1;
      return;
    }
    s.lbaLow = lba & 0xff;
    s.lbaMid = Math.floor(lba / 2 ** 8) & 0xff;
    s.lbaHigh = Math.floor(lba / 2 ** 16) & 0xff;
    if (s.lba48) {
      s.hobLow = Math.floor(lba / 2 ** 24) & 0xff;
      s.hobMid = Math.floor(lba / 2 ** 32) & 0xff;
      s.hobHigh = Math.floor(lba / 2 ** 40) & 0xff;
    } else {
      s.device = (s.device & ~DEVICE.HEAD) | (Math.floor(lba / 2 ** 24) & DEVICE.HEAD);
    }
  }

  /** The count means 256, or 65536, where it is 0. */
  #widenCount(): void {
    const { s } = this;
    if (!s.lba48) s.count = (s.count & 0xff) === 0 ? 256 : s.count & 0xff;
    else s.count = (s.hobCount << 8) | (s.count & 0xff);
    this.#left = s.lba48 && s.count === 0 ? 65536 : s.count;
  }

  /** Sectors that a command has left; the Count register shows its low byte. */
  #left = 0;

  #advance(sectors: number): void {
    this.#setLba(this.#lba() + sectors);
    this.#left -= sectors;
    this.s.count = this.#left & 0xffff;
  }

  #inRange(lba: number, sectors: number): boolean {
    return lba >= 0 && lba + sectors <= this.#sectors;
  }

  // PIO

  #readPio(perPhase: number): undefined {
    this.#widenCount();
    this.#perPhase = perPhase;
    this.#readPart();
    return undefined;
  }

  #perPhase = 1;

  #readPart(): void {
    const { s, backend } = this;
    const sectors = Math.min(this.#left, this.#perPhase);
    if (sectors === 0) {
      s.status = STATUS.DRDY | STATUS.DSC;
      this.host.commandDone(this);
      return;
    }
    s.status = STATUS.DRDY | STATUS.DSC | STATUS.BSY;
    const lba = this.#lba();
    if (backend === undefined || !this.#inRange(lba, sectors)) return this.#failed();
    const target = IoVector.of(s.buffer, 0, sectors * SECTOR);
    this.#request(backend.readv(lba * SECTOR, target), true, () => {
      this.#advance(sectors);
      this.raiseIrqAfterPhase(() => this.startPhase(sectors * SECTOR, true, 'read'));
    });
  }

  /** The data is there before the interrupt says so. */
  raiseIrqAfterPhase(start: () => void): void {
    this.raiseIrq();
    start();
  }

  #writePio(perPhase: number): undefined {
    this.#widenCount();
    this.#perPhase = perPhase;
    this.s.status = STATUS.DRDY | STATUS.DSC;
    this.startPhase(Math.min(this.#left, perPhase) * SECTOR, false, 'write');
    return undefined;
  }

  protected override phaseEnded(end: string): void {
    if (end === 'read') this.#readPart();
    else if (end === 'write') this.#writePart();
  }

  #writePart(): void {
    const { s, backend } = this;
    s.status = STATUS.DRDY | STATUS.DSC | STATUS.BSY;
    const sectors = Math.min(this.#left, this.#perPhase);
    const lba = this.#lba();
    if (backend === undefined || !this.#inRange(lba, sectors)) return this.#failed();
    this.#request(backend.writev(lba * SECTOR, IoVector.of(s.buffer, 0, sectors * SECTOR)), false, () => {
      this.#advance(sectors);
      s.status &= ~STATUS.BSY;
      if (this.#left === 0) {
        this.host.commandDone(this);
        this.raiseIrq();
      } else {
        this.raiseIrqAfterPhase(() => this.startPhase(Math.min(this.#left, this.#perPhase) * SECTOR, false, 'write'));
      }
    });
  }

  #failed(): void {
    this.abort();
    this.finish();
  }

  /** Waits for the backend; errors go by `rerror` and `werror`. */
  #request(result: IoResult, isRead: boolean, then: () => void): void {
    const current = this.begin();
    whenDone(result, error => {
      if (!current()) return;
      if (error !== 0 && this.backend?.requestFailed(isRead, error) !== 'ignore') {
        this.#failed();
        return;
      }
      then();
    });
  }

  // DMA

  #startDma(transfer: Transfer): boolean | undefined {
    const { dma } = this.host;
    if (dma === undefined) return false;
    this.#widenCount();
    this.s.status = STATUS.DRDY | STATUS.DSC | STATUS.DRQ;
    dma.ready(this, () => this.#runDma(transfer));
    return undefined;
  }

  #runDma(transfer: Transfer): void {
    const { s, backend } = this;
    const { dma } = this.host;
    if (dma === undefined || backend === undefined) return;
    const bytes = this.#left * SECTOR;
    const described = dma.prepare(bytes);
    if (described < bytes) {
      // The list is too short: no interrupt, and the engine stops.
      s.status = STATUS.DRDY | STATUS.DSC;
      dma.done(false);
      this.host.commandDone(this);
      return;
    }
    const lba = this.#lba();
    if (transfer !== 'trim' && !this.#inRange(lba, this.#left)) return this.#dmaFailed();
    if (this.#bounce.length < bytes) this.#bounce = new Uint8Array(bytes);
    const more = described > bytes;
    if (transfer === 'read') {
      this.#dmaRequest(backend.readv(lba * SECTOR, IoVector.of(this.#bounce, 0, bytes)), true, () => {
        dma.toMemory(this.#bounce, bytes);
        this.#dmaFinished(more);
      });
      return;
    }
    dma.fromMemory(this.#bounce, bytes);
    if (transfer === 'write') {
      this.#dmaRequest(backend.writev(lba * SECTOR, IoVector.of(this.#bounce, 0, bytes)), false, () =>
        this.#dmaFinished(more),
      );
    } else {
      this.#trim(bytes, 0, more);
    }
  }

  #dmaRequest(result: IoResult, isRead: boolean, then: () => void): void {
    const current = this.begin();
    whenDone(result, error => {
      if (!current()) return;
      if (error !== 0 && this.backend?.requestFailed(isRead, error) !== 'ignore') this.#dmaFailed();
      else then();
    });
  }

  #dmaFinished(more: boolean): void {
    this.#advance(this.#left);
    this.s.status = STATUS.DRDY | STATUS.DSC;
    this.raiseIrq();
    this.host.dma?.done(more);
    this.host.commandDone(this);
  }

  #dmaFailed(): void {
    this.abort();
    this.host.dma?.done(false);
    this.host.commandDone(this);
    this.raiseIrq();
  }

  /** DATA SET MANAGEMENT with TRIM (ATA8-ACS, section 7.5): entries of 48 bits of LBA and 16 of length. */
  #trim(bytes: number, from: number, more: boolean): void {
    const { backend } = this;
    const view = new DataView(this.#bounce.buffer, this.#bounce.byteOffset, bytes);
    for (let at = from; at < bytes; at += TRIM_ENTRY) {
      const lba = view.getUint32(at, true) + view.getUint16(at + 4, true) * 2 ** 32;
      const count = view.getUint16(at + 6, true);
      if (count === 0) continue;
      if (backend === undefined || !this.#inRange(lba, count)) return this.#dmaFailed();
      const result = backend.discard(lba * SECTOR, count * SECTOR);
      if (result === 0) continue;
      const next = at + TRIM_ENTRY;
      this.#dmaRequest(result, false, () => this.#trim(bytes, next, more));
      return;
    }
    this.#dmaFinished(more);
  }

  // The rest

  #flush(): undefined {
    const { s, backend } = this;
    s.status |= STATUS.BSY;
    const done = (): void => {
      s.status = STATUS.DRDY | STATUS.DSC;
      this.finish();
    };
    if (backend === undefined) done();
    else this.#request(backend.flush(), false, done);
    return undefined;
  }

  #identify(): undefined {
    const { s, backend, geometry } = this;
    const words = identifyDisk({
      serial: this.serialText,
      version: this.props.ver ?? '2.5+',
      model: this.props.model ?? 'QEMU HARDDISK',
      wwn: this.props.wwn,
      queueDepth: this.host.dma !== undefined && 'queueDepth' in this.host ? Number(this.host.queueDepth) : 0,
      sectors: this.#sectors,
      cylinders: geometry.cylinders,
      heads: geometry.heads,
      sectorsPerTrack: geometry.sectors,
      multiple: s.multiple,
      writeCache: backend?.writeCache ?? false,
      trim: this.props.discard_granularity !== 0,
      rotationRate: this.props.rotation_rate,
      physicalExponent: Math.max(0, Math.log2((this.props.physical_block_size || SECTOR) / SECTOR)),
      modes: [this.#disk.modes[0] ?? 0, this.#disk.modes[1] ?? 0, this.#disk.modes[2] ?? 0],
    });
    s.buffer.set(new Uint8Array(words.buffer));
    s.status = STATUS.DRDY | STATUS.DSC;
    this.raiseIrqAfterPhase(() => this.startPhase(SECTOR, true, 'stop'));
    return undefined;
  }

  #setFeatures(): boolean | undefined {
    const { s, backend } = this;
    if (s.features === FEATURE.WRITE_CACHE) {
      if (backend !== undefined) backend.writeCache = true;
    } else if (s.features === FEATURE.NO_WRITE_CACHE) {
      if (backend !== undefined) backend.writeCache = false;
      return this.#flush();
    } else if (s.features === FEATURE.TRANSFER_MODE) {
      if (!this.#setTransferMode(s.count & 0xff)) return false;
    } else if (!FEATURES_WITHOUT_EFFECT.has(s.features)) {
      return false;
    }
    s.status |= STATUS.DSC;
    return true;
  }

  /** Mode values of table 44: PIO default and flow control, single word, multiword and Ultra DMA. */
  #setTransferMode(value: number): boolean {
    const kind = value >> 3;
    if (![0, 1, 2, 4, 8].includes(kind)) return false;
    const selected = 1 << ((value & 7) + 8);
    this.#disk.modes = Uint32Array.of(
      SINGLE_WORD_MODES | (kind === 2 ? selected : 0),
      MULTIWORD_MODES | (kind === 4 ? selected : 0),
      ULTRA_MODES | (kind === 8 ? selected : 0),
    );
    return true;
  }

  #doSmart(): boolean | undefined {
    const answer = this.#smart.execute(this.s);
    if (answer === 'refused') return false;
    const { s } = this;
    if (answer === 'done') {
      s.status |= STATUS.DSC;
      return true;
    }
    s.buffer.set(answer);
    s.status = STATUS.DRDY | STATUS.DSC;
    this.raiseIrqAfterPhase(() => this.startPhase(SECTOR, true, 'stop'));
    return undefined;
  }
}

export const ideHd = deviceType({
  type: 'ide-hd',
  summary: 'virtual IDE disk',
  bus: 'IDE',
  category: 'storage',
  parents: ['ide-device', 'device'],
  properties,
  create: IdeDisk,
});
