import { errno } from '../../core/block/io-error.ts';
import { IoVector } from '../../core/block/io-vector.ts';
import { identifyDisk, putSize, setModes, setWriteCache } from './identify.ts';
import { COMMAND, DEVICE, MAX_MULTIPLE, SECTOR, STATUS } from './task-file.ts';
import type { AtaUnit, DmaCommand } from './unit.ts';

/** SET FEATURES subcommands (ATA/ATAPI-6, section 8.36). */
const FEATURE = {
  WRITE_CACHE: 0x02,
  TRANSFER_MODE: 0x03,
  NO_REVERT: 0x66,
  NO_WRITE_CACHE: 0x82,
  REVERT: 0xcc,
} as const;
/** Look-ahead, power management, acoustic management and the like: accepted, without a visible effect. */
const FEATURES_WITHOUT_EFFECT: ReadonlySet<number> = new Set([
  0x05, 0x42, 0x55, 0x67, 0x69, 0x85, 0x96, 0x9a, 0xaa, 0xc2,
]);

/** DATA SET MANAGEMENT: what it may be used for, and the size of one range (ATA8-ACS-2, section 7.9). */
const TRIM = 0x01;
const TRIM_ENTRY = 8;
/** CHECK POWER MODE: active or idle. */
const POWER_ACTIVE = 0xff;

/** Carries out a command. True: it is over, and the interrupt is due. */
export type Handler = (command: number) => boolean;

/** What a hard disk does (ATA/ATAPI-6, section 8). */
export class DiskCommands {
  readonly #unit: AtaUnit;
  readonly #vector = new IoVector();
  readonly #handlers = new Map<number, Handler>();

  constructor(unit: AtaUnit) {
    this.#unit = unit;
    this.#register();
  }

  /** What does `command`, or undefined where no disk knows it. */
  handler(command: number): Handler | undefined {
    return this.#handlers.get(command);
  }

  #register(): void {
    const on = (commands: readonly number[], handler: Handler): void => {
      for (const command of commands) this.#handlers.set(command, handler);
    };
    const C = COMMAND;
    on([C.READ_SECTORS, C.READ_SECTORS_ONCE, C.READ_SECTORS_EXT], command =>
      this.#read(command === C.READ_SECTORS_EXT, 1),
    );
    on([C.READ_MULTIPLE, C.READ_MULTIPLE_EXT], command =>
      this.#read(command === C.READ_MULTIPLE_EXT, this.#unit.s.multiple),
    );
    on([C.WRITE_SECTORS, C.WRITE_SECTORS_ONCE, C.WRITE_SECTORS_EXT, C.WRITE_VERIFY], command =>
      this.#write(command === C.WRITE_SECTORS_EXT, 1),
    );
    on([C.WRITE_MULTIPLE, C.WRITE_MULTIPLE_EXT], command =>
      this.#write(command === C.WRITE_MULTIPLE_EXT, this.#unit.s.multiple),
    );
    on([C.READ_DMA, C.READ_DMA_ONCE, C.READ_DMA_EXT], command =>
      this.#transfer('dma-read', command === C.READ_DMA_EXT),
    );
    on([C.WRITE_DMA, C.WRITE_DMA_ONCE, C.WRITE_DMA_EXT], command =>
      this.#transfer('dma-write', command === C.WRITE_DMA_EXT),
    );
    on([C.DATA_SET_MANAGEMENT], () => this.#dataSetManagement());
    on([C.VERIFY, C.VERIFY_ONCE, C.VERIFY_EXT], command => this.#verify(command === C.VERIFY_EXT));
    on([C.READ_NATIVE_MAX, C.READ_NATIVE_MAX_EXT], command => this.#readNativeMax(command === C.READ_NATIVE_MAX_EXT));
    on([C.RECALIBRATE, C.SEEK], () => this.#seekDone());
    on([C.FLUSH_CACHE, C.FLUSH_CACHE_EXT], () => this.flush());
    on([C.IDENTIFY], () => this.#identify());
    on([C.SET_FEATURES], () => this.setFeatures());
    on([C.SMART], () => this.#smart());
    on([C.SET_MULTIPLE], () => this.#setMultiple());
    on([C.INITIALIZE_PARAMETERS], () => this.#initializeParameters());
    on([C.EXECUTE_DIAGNOSTIC], () => this.#diagnose());
    on([C.CHECK_POWER, C.CHECK_POWER_OLD], () => {
      this.#unit.s.count = POWER_ACTIVE;
      return this.#seekDone();
    });
    on([C.SECURITY_FREEZE_LOCK], () => {
      this.#unit.s.count = 0;
      return this.#seekDone();
    });
    on([C.STANDBY_IMMEDIATE, C.IDLE_IMMEDIATE, C.STANDBY, C.IDLE, C.SLEEP], () => true);
    on([C.STANDBY_IMMEDIATE_OLD, C.IDLE_IMMEDIATE_OLD, C.STANDBY_OLD, C.IDLE_OLD, C.SLEEP_OLD], () => true);
  }

  // PIO (section 9.5 and 9.6)

  #read(lba48: boolean, perPhase: number): boolean {
    const unit = this.#unit;
    if (!unit.present || perPhase === 0) return this.#abort();
    unit.takeCount(lba48);
    unit.s.perPhase = perPhase;
    this.readPart();
    return false;
  }

  /** The next sectors of a PIO read. */
  readPart(): void {
    const unit = this.#unit;
    const { s } = unit;
    s.status = STATUS.DRDY | STATUS.DSC;
    s.error = 0;
    const sectors = Math.min(s.count, s.perPhase);
    if (sectors === 0) {
      unit.stop();
      return;
    }
    const backend = unit.medium?.backend;
    const { lba } = unit;
    if (backend === undefined || !unit.inRange(lba, sectors)) {
      this.#abort();
      unit.channel.raiseIrq();
      return;
    }
    s.status |= STATUS.BSY;
    unit.channel.rememberForRetry(unit);
    const vector = this.#vector.clear().add(s.buffer, 0, sectors * SECTOR);
    unit.request(backend.readv(lba * SECTOR, vector), error => {
      s.status &= ~STATUS.BSY;
      if (error !== 0 && unit.failed(error, 'pio-read')) return;
      unit.advance(sectors);
      unit.startPhase(0, sectors * SECTOR, 'read');
      unit.channel.raiseIrq();
    });
  }

  #write(lba48: boolean, perPhase: number): boolean {
    const unit = this.#unit;
    const { s } = unit;
    if (!unit.present || perPhase === 0) return this.#abort();
    unit.takeCount(lba48);
    s.perPhase = perPhase;
    s.status = STATUS.DRDY | STATUS.DSC;
    unit.startPhase(0, Math.min(s.count, perPhase) * SECTOR, 'write');
    return false;
  }

  /** The host has given the next sectors of a PIO write. */
  writePart(): void {
    const unit = this.#unit;
    const { s } = unit;
    s.status = STATUS.DRDY | STATUS.DSC;
    const sectors = Math.min(s.count, s.perPhase);
    const backend = unit.medium?.backend;
    const { lba } = unit;
    if (backend === undefined || !unit.inRange(lba, sectors)) {
      this.#abort();
      unit.channel.raiseIrq();
      return;
    }
    s.status |= STATUS.BSY;
    const vector = this.#vector.clear().add(s.buffer, 0, sectors * SECTOR);
    unit.request(backend.writev(lba * SECTOR, vector), error => {
      s.status &= ~STATUS.BSY;
      if (error !== 0 && unit.failed(error, 'pio-write')) return;
      unit.advance(sectors);
      if (s.count === 0) unit.stop();
      else unit.startPhase(0, Math.min(s.count, s.perPhase) * SECTOR, 'write');
      unit.channel.raiseIrq();
    });
  }

  // DMA (section 9.8)

  #transfer(command: DmaCommand, lba48: boolean): boolean {
    const unit = this.#unit;
    if (!unit.present) return this.#abort();
    unit.takeCount(lba48);
    unit.s.status = STATUS.DRDY | STATUS.DSC | STATUS.DRQ;
    unit.startDma(command);
    return false;
  }

  #dataSetManagement(): boolean {
    const unit = this.#unit;
    if (unit.s.features !== TRIM || !unit.present) return this.#abort();
    unit.s.status = STATUS.DRDY | STATUS.DSC | STATUS.DRQ;
    unit.startDma('trim');
    return false;
  }

  /** The host's engine has started: the whole command is one request. */
  runDma(): void {
    const unit = this.#unit;
    const { s, list, transport } = unit;
    const bytes = s.count * SECTOR;
    const command = s.dmaCommand;
    s.described = transport.prepare(unit, bytes);
    if (list.length < bytes) {
      // The descriptors end too soon: the engine stops, and there is no interrupt.
      s.status = STATUS.DRDY | STATUS.DSC;
      unit.commit(0);
      unit.setInactive(false);
      return;
    }
    const backend = unit.medium?.backend;
    const { lba } = unit;
    if (backend === undefined || (command !== 'trim' && !unit.inRange(lba, s.count))) {
      unit.dmaFailed();
      return;
    }
    if (command === 'trim') {
      this.#trim(bytes);
      return;
    }
    const toMemory = command === 'dma-read';
    const vector = list.begin(toMemory);
    const result = toMemory ? backend.readv(lba * SECTOR, vector) : backend.writev(lba * SECTOR, vector);
    unit.request(
      result,
      error => {
        if (error === errno.EINVAL) unit.dmaFailed();
        else if (error === 0 || !unit.failed(error, toMemory ? 'dma-read' : 'dma-write')) this.dmaDone();
        else unit.commit(0);
      },
      () => list.finish(toMemory),
    );
  }

  /** The whole command's data is transferred. */
  dmaDone(): void {
    const unit = this.#unit;
    const { s } = unit;
    const bytes = s.count * SECTOR;
    unit.commit(bytes);
    unit.advance(s.count);
    s.status = STATUS.DRDY | STATUS.DSC;
    unit.channel.raiseIrq();
    unit.setInactive(s.described > bytes);
  }

  #trim(bytes: number): void {
    const { list } = this.#unit;
    const ranges = new Uint8Array(bytes);
    list.copyFrom(ranges);
    this.#trimFrom(new DataView(ranges.buffer), 0);
  }

  /** Ranges of 48 bits of address and 16 of length, one after the other. */
  #trimFrom(ranges: DataView, from: number): void {
    const unit = this.#unit;
    const backend = unit.medium?.backend;
    for (let at = from; at < ranges.byteLength; at += TRIM_ENTRY) {
      const sectors = ranges.getUint16(at + 6, true);
      if (sectors === 0) continue;
      const lba = ranges.getUint32(at, true) + ranges.getUint16(at + 4, true) * 2 ** 32;
      if (backend === undefined || !unit.inRange(lba, sectors)) {
        unit.dmaFailed();
        return;
      }
      const result = backend.discard(lba * SECTOR, sectors * SECTOR);
      if (result === 0) continue;
      unit.request(result, error => {
        if (error === 0 || !unit.failed(error, 'trim')) this.#trimFrom(ranges, at + TRIM_ENTRY);
      });
      return;
    }
    this.dmaDone();
  }

  // Without data

  /** FLUSH CACHE; also a packet device's. */
  flush(): boolean {
    const unit = this.#unit;
    const { s } = unit;
    const done = (): void => {
      s.status = STATUS.DRDY | STATUS.DSC;
      unit.transport.commandDone();
      unit.channel.raiseIrq();
    };
    const backend = unit.medium?.backend;
    if (backend === undefined) {
      done();
      return false;
    }
    s.status |= STATUS.BSY;
    unit.channel.rememberForRetry(unit);
    unit.request(backend.flush(), error => {
      if (error === 0 || error === errno.ENOMEDIUM || !unit.failed(error, 'flush')) done();
    });
    return false;
  }

  #verify(lba48: boolean): boolean {
    this.#unit.takeCount(lba48);
    return this.#seekDone();
  }

  #readNativeMax(lba48: boolean): boolean {
    const unit = this.#unit;
    if (unit.sectorCount === 0) return this.#abort();
    unit.takeCount(lba48);
    unit.lba = unit.sectorCount - 1;
    return this.#seekDone();
  }

  #setMultiple(): boolean {
    const { s } = this.#unit;
    const sectors = s.count & 0xff;
    if (sectors > MAX_MULTIPLE || (sectors & (sectors - 1)) !== 0) return this.#abort();
    s.multiple = sectors;
    return this.#seekDone();
  }

  #initializeParameters(): boolean {
    const unit = this.#unit;
    const { s } = unit;
    // A track without sectors would make nonsense of all addresses.
    if (!unit.present || (s.count & 0xff) === 0) return this.#abort();
    s.heads = (s.device & DEVICE.HEAD) + 1;
    s.sectors = s.count & 0xff;
    return this.#seekDone();
  }

  #diagnose(): boolean {
    this.#unit.diagnose();
    return false;
  }

  /** SET FEATURES; also a packet device's. */
  setFeatures(): boolean {
    const unit = this.#unit;
    const { s } = unit;
    const backend = unit.medium?.backend;
    if (backend === undefined) return this.#abort();
    switch (s.features) {
      case FEATURE.WRITE_CACHE:
      case FEATURE.NO_WRITE_CACHE:
        backend.writeCache = s.features === FEATURE.WRITE_CACHE;
        setWriteCache(s.identity, backend.writeCache);
        if (!backend.writeCache) return this.flush();
        break;
      case FEATURE.REVERT:
      case FEATURE.NO_REVERT:
        s.revertOnReset = s.features === FEATURE.REVERT;
        break;
      case FEATURE.TRANSFER_MODE:
        if (!setModes(s.identity, s.count & 0xff)) return this.#abort();
        break;
      default:
        if (!FEATURES_WITHOUT_EFFECT.has(s.features)) return this.#abort();
    }
    return this.#seekDone();
  }

  // From the buffer

  #identify(): boolean {
    const unit = this.#unit;
    const { s, medium } = unit;
    if (medium === undefined) return this.#abort();
    if (!s.identified) {
      identifyDisk(s.identity, {
        ...medium,
        cylinders: medium.cylinders,
        heads: s.heads,
        sectorsPerTrack: s.sectors,
        sectorCount: unit.sectorCount,
        multiple: s.multiple,
        writeCache: medium.backend.writeCache,
        queueDepth: unit.queueDepth,
      });
      s.identified = true;
    }
    return this.#reply(s.identity);
  }

  /** The medium has another size. */
  resized(): void {
    const { s, sectorCount } = this.#unit;
    if (s.identified) putSize(s.identity, sectorCount);
  }

  #smart(): boolean {
    const answer = this.#unit.smart.execute(this.#unit.s);
    if (answer === 'refused') return this.#abort();
    return answer === 'done' ? this.#seekDone() : this.#reply(answer);
  }

  /** One sector for the host. */
  #reply(bytes: Uint8Array): boolean {
    const unit = this.#unit;
    const { s } = unit;
    s.buffer.set(bytes);
    s.status = STATUS.DRDY | STATUS.DSC;
    unit.startPhase(0, SECTOR, 'stop');
    unit.channel.raiseIrq();
    return false;
  }

  #seekDone(): boolean {
    this.#unit.s.status |= STATUS.DSC;
    return true;
  }

  #abort(): boolean {
    this.#unit.abort();
    return true;
  }
}
