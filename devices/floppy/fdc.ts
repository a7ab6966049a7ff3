import { type IoResult, whenDone } from '../../core/block/backend.ts';
import { IoVector } from '../../core/block/io-vector.ts';
import { IsaDevice, type IsaDmaChannel } from '../../core/bus/isa.ts';
import { ms } from '../../core/clock/units.ts';
import type { DeviceContext } from '../../core/device/device-type.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { FloppyBus, type FloppyDrive } from './drive.ts';
import { DRIVE_TYPES, type DriveType } from './formats.ts';

/** Section numbers are those of Intel's 82077AA datasheet; the controller says it is an 82078. */

/** Registers by offset (section 2.1). */
const REG = { SRA: 0, SRB: 1, DOR: 2, TDR: 3, MSR: 4, FIFO: 5, DIR: 7 } as const;
const SRA = { nDRV2: 0x40, INT_PENDING: 0x80 } as const;
const SRB = { MTR0: 0x01, MTR1: 0x02, DR0: 0x20, RESET: 0xc0 } as const;
const DOR = { SELECT: 0x01, nRESET: 0x04, DMA: 0x08, MOTOR0: 0x10, MOTOR1: 0x20 } as const;
const TDR_BOOT_SELECT = 0x04;
const DSR = { RATE: 0x03, POWER_DOWN: 0x40, RESET: 0x80 } as const;
const MSR = { BUSY: 0x10, NON_DMA: 0x20, DIO: 0x40, RQM: 0x80 } as const;
const DIR_CHANGED = 0x80;

/** Status bytes of results (section 6.2). */
const ST0 = { HEAD: 0x04, UNIT: 0x03, SEEK: 0x20, ABNORMAL: 0x40, INVALID: 0x80, READY_CHANGED: 0xc0 } as const;
const ST1 = { MISSING_ADDRESS: 0x01, NOT_WRITABLE: 0x02, END_OF_CYLINDER: 0x80 } as const;
const ST2 = { NOT_SATISFIED: 0x04, EQUAL: 0x08 } as const;
const ST3 = { WRITE_PROTECTED: 0x40, TRACK0: 0x10, ALWAYS: 0x28 } as const;

const SECTOR = 512;
/** Both sides of a track of 36 sectors. */
const TRACK_BUFFER = 72 * SECTOR;
const SECTOR_SIZE_CODE = 2;
const VERSION = 0x90;
const PART_ID = 0x41;
/** A reset reports each of four drives in turn (section 5.2.5, "Drive polling"). */
const RESET_INTERRUPTS = 4;
const DEFAULT_CONFIG = 0x60;
const READ_ID_NS = ms(20);
/** Bounds of an empty drive: seeks go anywhere. */
const EMPTY = { sectors: 0xff, tracks: 0xff } as const;

type Direction = 'read' | 'write' | 'verify' | 'scan-equal' | 'scan-low' | 'scan-high';

interface Command {
  readonly value: number;
  readonly mask: number;
  /** Bytes that follow the first. */
  readonly parameters: number;
  run(controller: FloppyController): void;
}

const headState = {
  track: field.u8(),
  head: field.u8(),
  sector: field.u8(1),
  perpendicular: field.u8(),
  changed: field.bool(true),
  sectorsPerTrack: field.u8(),
};

const controllerState = {
  sra: field.u8(),
  srb: field.u8(SRB.RESET),
  dor: field.u8(DOR.nRESET),
  tdr: field.u8(),
  dsr: field.u8(),
  msr: field.u8(),
  status0: field.u8(),
  current: field.u8(),
  phase: field.oneOf(['command', 'execution', 'result'] as const, 'command'),
  fifo: field.bytes(SECTOR),
  position: field.u32(),
  length: field.u32(1),
  direction: field.oneOf(['read', 'write', 'verify', 'scan-equal', 'scan-low', 'scan-high'] as const, 'write'),
  multiTrack: field.bool(),
  lastSector: field.u8(),
  timer0: field.u8(),
  timer1: field.u8(),
  precompensation: field.u8(),
  config: field.u8(DEFAULT_CONFIG),
  lock: field.bool(),
  powerDown: field.u8(),
  resetInterrupts: field.u8(),
};

const properties = {
  iobase: prop.u32({ default: 0x3f0 }),
  irq: prop.u32({ default: 6 }),
  dma: prop.u32({ default: 2 }),
  fdtypeA: prop.enum(DRIVE_TYPES, {
    default: 'auto',
    typeName: 'FdcDriveType',
  }),
  fdtypeB: prop.enum(DRIVE_TYPES, {
    default: 'auto',
    typeName: 'FdcDriveType',
  }),
  fallback: prop.enum(DRIVE_TYPES, {
    default: '288',
    typeName: 'FdcDriveType',
  }),
  bootindexA: prop.bootIndex({ default: -1 }),
  bootindexB: prop.bootIndex({ default: -1 }),
} as const;

/** The PC's floppy disk controller (`isa-fdc`). */
export class FloppyController extends IsaDevice<typeof properties> {
  readonly cable: FloppyBus;
  readonly s = this.state(1, controllerState, { onReset: 'keep' });
  readonly #heads = [0, 1].map(unit => this.state(1, headState, { name: `drive${unit}`, onReset: 'keep' }));
  readonly #interrupt = this.unlistedOutput('irq');
  readonly #result = this.clock.timer('result', () => this.#finishReadId());
  #dmaChannel: IsaDmaChannel | undefined;
  /** The sector in the FIFO, as a byte offset on the medium; -1 where it is none. */
  #loaded = -1;
  /** What was read from the medium last, and from where; -1 where nothing. */
  readonly #track = new Uint8Array(TRACK_BUFFER);
  #trackAt = -1;
  #waiting = false;
  #epoch = 0;
  readonly #scanned = new Uint8Array(SECTOR);

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    this.cable = this.addBus(new FloppyBus({ services: this.services, home: context.bus.home, owner: this }));
  }

  protected override realize(): void {
    const { iobase, irq, dma } = this.props;
    const handler = {
      read: (offset: number) => this.#read(offset + 1),
      write: (offset: number, _size: number, value: number) => this.#write(offset + 1, value),
    };
    const bytes = { impl: { min: 1, max: 1 } } as const;
    // Port 3F6h, between FIFO and DIR, is the IDE channel's.
    this.ports(iobase + 1, 5, handler, bytes, 'fdc');
    this.ports(
      iobase + 7,
      1,
      { read: () => this.#read(REG.DIR), write: (_offset, _size, value) => this.#write(REG.DIR, value) },
      bytes,
      'fdc',
    );
    this.connectIrq(this.#interrupt, irq);
    this.#dmaChannel = this.isaBus.dmaChannel(dma, this.typeName);
    this.#dmaChannel?.register((_channel, position, size) => this.#transfer(position, size));
  }

  override get firmwareName(): string {
    return `fdc@${this.props.iobase.toString(16).padStart(4, '0')}`;
  }

  /** The type of drive `unit`, for CMOS. */
  driveType(unit: number): DriveType {
    const drive = this.cable.drives[unit];
    if (drive === undefined) return 'none';
    drive.settleType(this.props.fallback);
    return drive.driveType;
  }

  protected override resetHold(): void {
    this.#watchMedia();
    this.#resetController(false);
    Object.assign(this.s, { tdr: 0, dsr: 0, config: DEFAULT_CONFIG, lock: false });
  }

  #watchMedia(): void {
    for (const [unit, drive] of this.cable.drives.entries()) {
      if (drive === undefined) continue;
      drive.settleType(this.props.fallback);
      drive.mediumChanged = () => {
        this.#head(unit).changed = true;
        this.#head(unit).sectorsPerTrack = 0;
        this.#loaded = -1;
      };
    }
  }

  #resetController(interrupt: boolean): void {
    const { s } = this;
    this.#epoch++;
    this.#waiting = false;
    this.#loaded = -1;
    this.#trackAt = -1;
    this.#clearInterrupt();
    s.sra = this.cable.drives[1] === undefined ? SRA.nDRV2 : 0;
    s.srb = SRB.RESET;
    s.current = 0;
    s.dor = DOR.nRESET | (this.#dmaChannel === undefined ? 0 : DOR.DMA);
    s.msr = MSR.RQM;
    s.resetInterrupts = 0;
    s.multiTrack = false;
    this.#result.cancel();
    for (const unit of [0, 1]) this.#seek(unit, 0, 0, 1);
    this.#toCommandPhase();
    if (!interrupt) return;
    s.status0 |= ST0.READY_CHANGED;
    this.#raiseInterrupt();
    s.resetInterrupts = RESET_INTERRUPTS;
  }

  #clearInterrupt(): void {
    this.s.status0 = 0;
    this.s.sra &= ~SRA.INT_PENDING;
    this.#interrupt.lower();
  }

  #raiseInterrupt(): void {
    this.s.sra |= SRA.INT_PENDING;
    this.s.resetInterrupts = 0;
    this.#interrupt.raise();
  }

  // Drives

  /** The unit that a selection means: TDR may swap the two (section 2.1.4). */
  #unit(selection: number): 0 | 1 {
    const swapped = (this.s.tdr & TDR_BOOT_SELECT) !== 0;
    return (selection & 1) === (swapped ? 1 : 0) ? 0 : 1;
  }

  #head(unit: number): StateValues<typeof headState> {
    const head = this.#heads[unit & 1];
    if (head === undefined) throw new RangeError(`no floppy unit ${unit}`);
    return head;
  }

  get #current(): { unit: 0 | 1; head: StateValues<typeof headState>; drive: FloppyDrive | undefined } {
    const unit = this.#unit(this.s.current);
    return { unit, head: this.#head(unit), drive: this.cable.drives[unit] };
  }

  #shape(unit: number): { sectors: number; tracks: number; sides: number; rate: number } {
    const drive = this.cable.drives[unit];
    if (drive === undefined) return { sectors: 0, tracks: 0, sides: 1, rate: 0 };
    const format = drive.format(this.props.fallback);
    if (format === undefined) return { ...EMPTY, sides: 1, rate: 0 };
    // FORMAT TRACK and RESTORE may have set another number of sectors.
    const chosen = this.#head(unit).sectorsPerTrack;
    return { ...format, sectors: chosen === 0 ? format.sectors : chosen };
  }

  #sectorNumber(unit: number): number {
    const { track, head, sector } = this.#head(unit);
    const { sectors, sides } = this.#shape(unit);
    return (track * sides + head) * sectors + sector - 1;
  }

  /** Moves the heads: whether the place is there, and whether the track is another than before. */
  #seek(unit: number, head: number, track: number, sector: number): 'same' | 'moved' | 'no-track' | 'no-sector' {
    const shape = this.#shape(unit);
    const heads = this.#head(unit);
    const drive = this.cable.drives[unit];
    if (track > shape.tracks || (head !== 0 && shape.sides === 1)) return 'no-track';
    if (sector > shape.sectors) return 'no-sector';
    let moved = false;
    if (heads.head !== head || heads.track !== track || heads.sector !== sector) {
      heads.head = head;
      if (heads.track !== track) {
        if (drive?.inserted) heads.changed = false;
        moved = true;
      }
      heads.track = track;
      heads.sector = sector;
    }
    if (drive === undefined || !drive.inserted) return 'no-track';
    return moved ? 'moved' : 'same';
  }

  // Registers

  #read(register: number): number {
    const { s } = this;
    switch (register) {
      case REG.SRA:
        return s.sra;
      case REG.SRB:
        return s.srb;
      case REG.DOR:
        return s.dor | s.current;
      case REG.TDR:
        return s.tdr;
      case REG.MSR:
        s.dsr &= ~DSR.POWER_DOWN;
        s.dor |= DOR.nRESET;
        return s.msr;
      case REG.FIFO:
        return this.#readFifo();
      default:
        return this.#current.head.changed ? DIR_CHANGED : 0;
    }
  }

  #write(register: number, value: number): void {
    const { s } = this;
    if (register === REG.DOR) return this.#writeDor(value);
    if ((s.dor & DOR.nRESET) === 0) return;
    switch (register) {
      case REG.TDR:
        s.tdr = value & TDR_BOOT_SELECT;
        return;
      case REG.MSR:
        return this.#writeDsr(value);
      case REG.FIFO:
        return this.#writeFifo(value);
      case REG.DIR:
        s.dsr = (s.dsr & ~DSR.RATE) | (value & DSR.RATE);
        return;
      default:
    }
  }

  #writeDor(value: number): void {
    const { s } = this;
    const flag = (on: boolean, bit: number): void => {
      s.srb = on ? s.srb | bit : s.srb & ~bit;
    };
    flag((value & DOR.MOTOR0) !== 0, SRB.MTR0);
    flag((value & DOR.MOTOR1) !== 0, SRB.MTR1);
    flag((value & DOR.SELECT) !== 0, SRB.DR0);
    if ((value & DOR.nRESET) !== 0 && (s.dor & DOR.nRESET) === 0) {
      this.#resetController(true);
      s.dsr &= ~DSR.POWER_DOWN;
    }
    s.current = value & DOR.SELECT;
    s.dor = value;
  }

  #writeDsr(value: number): void {
    const { s } = this;
    if ((value & DSR.RESET) !== 0) this.#resetController(true);
    if ((value & DSR.POWER_DOWN) !== 0) this.#resetController(true);
    s.dsr = value;
  }

  // The FIFO (section 5: controller phases)

  #toCommandPhase(): void {
    const { s } = this;
    s.phase = 'command';
    s.direction = 'write';
    s.position = 0;
    s.length = 1;
    s.msr = (s.msr & ~(MSR.BUSY | MSR.DIO)) | MSR.RQM;
  }

  #toResultPhase(...bytes: readonly number[]): void {
    const { s } = this;
    s.fifo.set(bytes);
    s.phase = 'result';
    s.direction = 'read';
    s.position = 0;
    s.length = bytes.length;
    s.msr |= MSR.BUSY | MSR.RQM | MSR.DIO;
  }

  #readFifo(): number {
    const { s } = this;
    s.dsr &= ~DSR.POWER_DOWN;
    if ((s.msr & MSR.RQM) === 0 || (s.msr & MSR.DIO) === 0) return 0;
    const at = s.position % SECTOR;
    const value = s.fifo[at] ?? 0;
    s.position++;
    if (s.phase === 'result') {
      if (s.position === s.length) {
        this.#toCommandPhase();
        this.#clearInterrupt();
      }
      return value;
    }
    if (s.position === s.length) {
      s.msr &= ~MSR.RQM;
      this.#stop(0, 0, 0);
    } else if (s.position % SECTOR === 0 && this.#nextSector()) {
      this.#loadForHost();
    }
    return value;
  }

  /** Data of the next sector for a host that fetches it byte by byte. */
  #loadForHost(): void {
    this.s.msr &= ~MSR.RQM;
    this.#load(() => {
      this.s.msr |= MSR.RQM;
    });
  }

  #writeFifo(value: number): void {
    const { s } = this;
    if ((s.msr & MSR.RQM) === 0 || (s.msr & MSR.DIO) !== 0) return;
    s.dsr &= ~DSR.POWER_DOWN;
    const at = s.position % SECTOR;
    s.position++;
    s.fifo[at] = value;
    if (s.position === s.length) s.msr &= ~MSR.RQM;
    if (s.phase === 'execution') {
      if (at === SECTOR - 1 || s.position === s.length) this.#storeFromHost();
      return;
    }
    if (at === 0) {
      s.length = commandOf(value).parameters + 1;
      if (s.length > 1) s.msr |= MSR.RQM;
      s.msr |= MSR.BUSY;
    }
    if (s.position !== s.length) return;
    s.phase = 'execution';
    commandOf(s.fifo[0] ?? 0).run(this);
  }

  #storeFromHost(): void {
    const { s } = this;
    s.msr &= ~MSR.RQM;
    this.#store(error => {
      if (error !== 0) return this.#stop(ST0.ABNORMAL | ST0.SEEK, 0, 0);
      const more = this.#nextSector();
      if (s.position >= s.length) this.#stop(0, 0, 0);
      else if (more) s.msr |= MSR.RQM;
    });
  }

  // The medium

  #load(then: () => void): void {
    const { unit, drive } = this.#current;
    const offset = this.#sectorNumber(unit) * SECTOR;
    const backend = drive?.backend;
    if (backend === undefined) {
      this.s.fifo.fill(0);
      then();
      return;
    }
    if (this.#takeFromTrack(offset)) {
      then();
      return;
    }
    // A cylinder's worth at a time, so that a host which fetches bytes by itself need not wait between sectors.
    const bytes = Math.min(TRACK_BUFFER, Math.max(0, backend.length - offset));
    this.#wait(backend.readv(offset, IoVector.of(this.#track, 0, bytes)), error => {
      // Where the image is too small the rest of the disk is zeros.
      this.#track.fill(0, error === 0 ? bytes : 0);
      this.#trackAt = offset;
      this.#takeFromTrack(offset);
      then();
    });
  }

  #takeFromTrack(offset: number): boolean {
    const at = offset - this.#trackAt;
    if (this.#trackAt < 0 || at < 0 || at + SECTOR > TRACK_BUFFER) return false;
    this.s.fifo.set(this.#track.subarray(at, at + SECTOR));
    this.#loaded = offset;
    return true;
  }

  #store(then: (error: number) => void): void {
    const { unit, drive } = this.#current;
    const backend = drive?.backend;
    if (backend === undefined) return then(1);
    this.#wait(backend.writev(this.#sectorNumber(unit) * SECTOR, IoVector.of(this.s.fifo)), then);
  }

  #wait(result: IoResult, then: (error: number) => void): void {
    const epoch = this.#epoch;
    this.#waiting = typeof result !== 'number';
    whenDone(result, error => {
      if (epoch !== this.#epoch) return;
      this.#waiting = false;
      then(error);
    });
  }

  /** Goes on to the next sector; false at the end of what the command covers. */
  #nextSector(): boolean {
    const { s } = this;
    const { unit, head } = this.#current;
    const { sectors, sides } = this.#shape(unit);
    let { track, head: side, sector } = head;
    let more = true;
    if (sector >= sectors || sector === s.lastSector) {
      sector = 1;
      if (s.multiTrack && side === 0 && sides === 2) {
        side = 1;
      } else {
        more = s.multiTrack && sides === 2;
        if (s.multiTrack) side = 0;
        track++;
        s.status0 |= ST0.SEEK;
      }
    } else {
      sector++;
    }
    this.#loaded = -1;
    this.#seek(unit, side, track & 0xff, sector);
    return more;
  }

  // Data commands (section 6.1)

  startTransfer(direction: Direction): void {
    const { s } = this;
    const [command = 0, select = 0, track = 0, head = 0, sector = 0, size = 0, last = 0, , length = 0] = s.fifo;
    s.current = select & DOR.SELECT;
    const { unit } = this.#current;
    const fail = (status1: number): void => {
      this.#stop(ST0.ABNORMAL, status1, 0);
      s.fifo.set([track, head, sector], 3);
    };
    const found = this.#seek(unit, head, track, sector);
    if (found === 'no-track') return fail(0);
    if (found === 'no-sector') return fail(ST1.END_OF_CYLINDER);
    if (found === 'moved') s.status0 |= ST0.SEEK;
    if ((s.dsr & DSR.RATE) !== this.#shape(unit).rate) return fail(ST1.MISSING_ADDRESS);
    s.direction = direction;
    s.position = 0;
    s.multiTrack = (command & 0x80) !== 0;
    if (size === 0) {
      s.length = length;
    } else {
      const count = last - sector + 1;
      if (count < 0) return fail(ST1.MISSING_ADDRESS);
      s.length = (128 << Math.min(size, 7)) * (count + (s.multiTrack ? last : 0));
    }
    s.lastSector = last;
    this.#loaded = -1;
    this.#trackAt = -1;
    if ((s.dor & DOR.DMA) !== 0) {
      s.msr &= ~MSR.RQM;
      if (direction === 'verify') this.#transfer(0, s.length);
      else this.#dmaChannel?.request(true);
      return;
    }
    s.msr |= MSR.NON_DMA | MSR.RQM | (direction === 'write' ? 0 : MSR.DIO);
    this.#raiseInterrupt();
    if (direction !== 'write') this.#loadForHost();
  }

  /** Ends a transfer with its seven result bytes. */
  #stop(status0: number, status1: number, status2: number): void {
    const { s } = this;
    const { head } = this.#current;
    s.status0 = (s.status0 & ~(ST0.UNIT | ST0.HEAD)) | s.current | (head.head !== 0 ? ST0.HEAD : 0) | status0;
    if ((s.msr & MSR.NON_DMA) === 0) this.#dmaChannel?.request(false);
    s.msr = (s.msr | MSR.RQM | MSR.DIO) & ~MSR.NON_DMA;
    this.#toResultPhase(s.status0, status1, status2, head.track, head.head, head.sector, SECTOR_SIZE_CODE);
    this.#raiseInterrupt();
  }

  /** The DMA controller's turn: moves as much as can be moved now, and returns how far the block has come. */
  #transfer(position: number, size: number): number {
    const { s } = this;
    const channel = this.#dmaChannel;
    if ((s.msr & MSR.RQM) !== 0 || s.phase !== 'execution' || this.#waiting || channel === undefined) return position;
    const { unit, drive } = this.#current;
    const limit = Math.min(size, s.length);
    while (s.position < limit) {
      const at = s.position % SECTOR;
      const length = Math.min(limit - s.position, SECTOR - at);
      if (s.direction === 'write' && (drive === undefined || drive.readOnly)) {
        this.#stop(ST0.ABNORMAL | ST0.SEEK, drive === undefined ? 0 : ST1.NOT_WRITABLE, 0);
        return s.position;
      }
      const whole = s.direction === 'write' && at === 0 && length === SECTOR;
      if (!whole && this.#loaded !== this.#sectorNumber(unit) * SECTOR) {
        this.#load(() => {
          if (this.#resuming) channel.request(true);
        });
        if (this.#waiting) return this.#resumeLater();
      }
      const satisfied = this.#moveData(channel, at, length);
      if (this.#waiting) return this.#resumeLater();
      if (s.phase !== 'execution') return s.position;
      s.position += length;
      if (satisfied !== undefined) {
        this.#stop(0, 0, satisfied);
        return s.position;
      }
      if (s.position % SECTOR === 0 && !this.#nextSector()) break;
    }
    const moved = s.position;
    this.#stop(0, 0, s.direction.startsWith('scan') ? ST2.NOT_SATISFIED : 0);
    return moved;
  }

  #resuming = false;

  #resumeLater(): number {
    this.#resuming = true;
    return this.s.position;
  }

  /** Moves one piece; for a scan, returns ST2 once its condition is met. */
  #moveData(channel: IsaDmaChannel, at: number, length: number): number | undefined {
    const { s } = this;
    switch (s.direction) {
      case 'read':
        channel.writeMemory(s.fifo, at, s.position, length);
        return undefined;
      case 'write':
        channel.readMemory(s.fifo, at, s.position, length);
        this.#store(error => {
          if (error !== 0) this.#stop(ST0.ABNORMAL | ST0.SEEK, 0, 0);
          else if (this.#resuming) {
            this.#resuming = false;
            s.position += length;
            if (s.position < s.length && (s.position % SECTOR !== 0 || this.#nextSector())) channel.request(true);
            else this.#stop(0, 0, 0);
          }
        });
        return undefined;
      case 'verify':
        return undefined;
      default: {
        channel.readMemory(this.#scanned, 0, s.position, length);
        const order = Buffer.compare(this.#scanned.subarray(0, length), s.fifo.subarray(at, at + length));
        if (order === 0) return ST2.EQUAL;
        return (order < 0 && s.direction === 'scan-low') || (order > 0 && s.direction === 'scan-high') ? 0 : undefined;
      }
    }
  }

  /** Deleted data marks are not kept. */
  refuseDeleted(): void {
    this.log.unimplemented('deleted data');
    this.#stop(ST0.ABNORMAL | ST0.SEEK, 0, 0);
  }

  readId(): void {
    this.#current.head.head = ((this.s.fifo[1] ?? 0) >> 2) & 1;
    this.#result.arm(READ_ID_NS);
  }

  #finishReadId(): void {
    const { unit, head } = this.#current;
    const { sectors, rate } = this.#shape(unit);
    // The disk turns meanwhile: the next sector comes by.
    if (sectors !== 0) head.sector = (head.sector % sectors) + 1;
    if ((this.s.dsr & DSR.RATE) !== rate) this.#stop(ST0.ABNORMAL, ST1.MISSING_ADDRESS, 0);
    else this.#stop(0, 0, 0);
  }

  formatTrack(): void {
    this.s.current = (this.s.fifo[1] ?? 0) & DOR.SELECT;
    this.#current.head.sectorsPerTrack = this.s.fifo[3] ?? 0;
    this.#stop(0, 0, 0);
  }

  // Control commands (section 6.2)

  recalibrate(): void {
    this.s.current = (this.s.fifo[1] ?? 0) & DOR.SELECT;
    this.#seek(this.#current.unit, 0, 0, 1);
    this.#seekDone();
  }

  /** @param target the track, from where the heads are now */
  seek(target: (track: number, last: number) => number): void {
    this.s.current = (this.s.fifo[1] ?? 0) & DOR.SELECT;
    const { unit, head } = this.#current;
    this.#seek(unit, head.head, target(head.track, this.#shape(unit).tracks) & 0xff, head.sector);
    this.#seekDone();
  }

  #seekDone(): void {
    this.#toCommandPhase();
    this.s.status0 |= ST0.SEEK;
    this.#raiseInterrupt();
  }

  senseInterrupt(): void {
    const { s } = this;
    const { head } = this.#current;
    let status: number;
    if (s.resetInterrupts > 0) {
      status = ST0.READY_CHANGED + RESET_INTERRUPTS - s.resetInterrupts;
      s.resetInterrupts--;
    } else if ((s.sra & SRA.INT_PENDING) === 0) {
      this.#toResultPhase(ST0.INVALID);
      return;
    } else {
      status = (s.status0 & ~(ST0.HEAD | ST0.UNIT)) | s.current;
    }
    this.#toResultPhase(status, head.track);
    this.#clearInterrupt();
    s.status0 = ST0.READY_CHANGED;
  }

  senseDrive(): void {
    const { s } = this;
    const select = s.fifo[1] ?? 0;
    s.current = select & DOR.SELECT;
    const { head, drive } = this.#current;
    head.head = (select >> 2) & 1;
    const protect = drive === undefined || drive.readOnly ? ST3.WRITE_PROTECTED : 0;
    this.#toResultPhase(protect | (head.track === 0 ? ST3.TRACK0 : 0) | (head.head << 2) | s.current | ST3.ALWAYS);
  }

  specify(): void {
    const { s } = this;
    s.timer0 = ((s.fifo[1] ?? 0) >> 4) & 0x0f;
    s.timer1 = (s.fifo[2] ?? 0) >> 1;
    s.dor = ((s.fifo[2] ?? 0) & 1) !== 0 ? s.dor & ~DOR.DMA : s.dor | DOR.DMA;
    this.#toCommandPhase();
  }

  configure(): void {
    this.s.config = this.s.fifo[2] ?? 0;
    this.s.precompensation = this.s.fifo[3] ?? 0;
    this.#toCommandPhase();
  }

  perpendicular(): void {
    const value = this.s.fifo[1] ?? 0;
    if ((value & 0x80) !== 0) this.#current.head.perpendicular = value & 7;
    this.#toCommandPhase();
  }

  lock(): void {
    this.s.lock = ((this.s.fifo[0] ?? 0) & 0x80) !== 0;
    this.#toResultPhase(this.s.lock ? 0x10 : 0);
  }

  dumpRegisters(): void {
    const { s } = this;
    const { unit, head } = this.#current;
    const track = (selection: number): number => this.#head(this.#unit(selection)).track;
    this.#toResultPhase(
      ...[
        track(0),
        track(1),
        0,
        0,
        s.timer0,
        (s.timer1 << 1) | ((s.dor & DOR.DMA) !== 0 ? 1 : 0),
        this.#shape(unit).sectors,
      ],
      ...[(s.lock ? 0x80 : 0) | (head.perpendicular << 2), s.config, s.precompensation],
    );
  }

  saveRegisters(): void {
    const { s } = this;
    const { unit, head } = this.#current;
    const track = (selection: number): number => this.#head(this.#unit(selection)).track;
    this.#toResultPhase(
      ...[0, 0, track(0), track(1), 0, 0, s.timer0, s.timer1, this.#shape(unit).sectors],
      ...[(s.lock ? 0x80 : 0) | (head.perpendicular << 2), s.config, s.precompensation, s.powerDown, 0, 0],
    );
  }

  restoreRegisters(): void {
    const { s } = this;
    const at = (index: number): number => s.fifo[index] ?? 0;
    this.#head(this.#unit(0)).track = at(3);
    this.#head(this.#unit(1)).track = at(4);
    const { head } = this.#current;
    s.timer0 = at(7);
    s.timer1 = at(8);
    head.sectorsPerTrack = at(9);
    s.lock = (at(10) & 0x80) !== 0;
    head.perpendicular = (at(10) >> 2) & 0x0f;
    s.config = at(11);
    s.precompensation = at(12);
    s.powerDown = at(13);
    this.#toCommandPhase();
  }

  powerDownMode(): void {
    this.s.powerDown = this.s.fifo[1] ?? 0;
    this.#toResultPhase(this.s.powerDown);
  }

  /** Echoes the last drive's specification where it is asked for (82078 datasheet). */
  driveSpecification(): void {
    const { s } = this;
    const last = s.fifo[s.position - 1] ?? 0;
    if ((last & 0x80) !== 0 && (last & 0x40) === 0) return this.#toCommandPhase();
    if ((last & 0x80) !== 0) return this.#toResultPhase(s.fifo[1] ?? 0, s.fifo[1] ?? 0, 0, 0);
    const { head } = this.#current;
    this.#toResultPhase(0x80 | (head.head << 2) | s.current);
  }

  answer(...bytes: readonly number[]): void {
    if (bytes.length === 0) this.#toCommandPhase();
    else this.#toResultPhase(...bytes);
  }

  protected override restored(): void {
    this.#watchMedia();
    this.#loaded = -1;
  }
}

/** Section 6: the first that fits the command byte is meant. */
const COMMANDS: readonly Command[] = [
  { value: 0x06, mask: 0x1f, parameters: 8, run: fdc => fdc.startTransfer('read') },
  { value: 0x05, mask: 0x3f, parameters: 8, run: fdc => fdc.startTransfer('write') },
  { value: 0x0f, mask: 0xff, parameters: 2, run: fdc => fdc.seek(() => fdc.s.fifo[2] ?? 0) },
  { value: 0x08, mask: 0xff, parameters: 0, run: fdc => fdc.senseInterrupt() },
  { value: 0x07, mask: 0xff, parameters: 1, run: fdc => fdc.recalibrate() },
  { value: 0x0d, mask: 0xbf, parameters: 5, run: fdc => fdc.formatTrack() },
  { value: 0x02, mask: 0xbf, parameters: 8, run: fdc => fdc.startTransfer('read') },
  { value: 0x4e, mask: 0xff, parameters: 17, run: fdc => fdc.restoreRegisters() },
  { value: 0x2e, mask: 0xff, parameters: 0, run: fdc => fdc.saveRegisters() },
  { value: 0x0c, mask: 0x1f, parameters: 8, run: fdc => fdc.refuseDeleted() },
  { value: 0x11, mask: 0x1f, parameters: 8, run: fdc => fdc.startTransfer('scan-equal') },
  { value: 0x16, mask: 0x1f, parameters: 8, run: fdc => fdc.startTransfer('verify') },
  { value: 0x19, mask: 0x1f, parameters: 8, run: fdc => fdc.startTransfer('scan-low') },
  { value: 0x1d, mask: 0x1f, parameters: 8, run: fdc => fdc.startTransfer('scan-high') },
  { value: 0x09, mask: 0x3f, parameters: 8, run: fdc => fdc.refuseDeleted() },
  { value: 0x0a, mask: 0xbf, parameters: 1, run: fdc => fdc.readId() },
  { value: 0x03, mask: 0xff, parameters: 2, run: fdc => fdc.specify() },
  { value: 0x04, mask: 0xff, parameters: 1, run: fdc => fdc.senseDrive() },
  { value: 0x12, mask: 0xff, parameters: 1, run: fdc => fdc.perpendicular() },
  { value: 0x13, mask: 0xff, parameters: 3, run: fdc => fdc.configure() },
  { value: 0x17, mask: 0xff, parameters: 2, run: fdc => fdc.powerDownMode() },
  { value: 0x33, mask: 0xff, parameters: 1, run: fdc => fdc.answer() },
  { value: 0x8e, mask: 0xff, parameters: 5, run: fdc => fdc.driveSpecification() },
  { value: 0x8f, mask: 0xff, parameters: 2, run: fdc => fdc.seek(track => Math.max(0, track - (fdc.s.fifo[2] ?? 0))) },
  { value: 0xcd, mask: 0xff, parameters: 10, run: fdc => fdc.answer(ST0.INVALID) },
  {
    value: 0xcf,
    mask: 0xff,
    parameters: 2,
    run: fdc => fdc.seek((track, last) => Math.min(Math.max(0, last - 1), track + (fdc.s.fifo[2] ?? 0))),
  },
  { value: 0x14, mask: 0x7f, parameters: 0, run: fdc => fdc.lock() },
  { value: 0x0e, mask: 0xff, parameters: 0, run: fdc => fdc.dumpRegisters() },
  { value: 0x10, mask: 0xff, parameters: 0, run: fdc => fdc.answer(VERSION) },
  { value: 0x18, mask: 0xff, parameters: 0, run: fdc => fdc.answer(PART_ID) },
  { value: 0x05, mask: 0x1f, parameters: 8, run: fdc => fdc.startTransfer('write') },
];
const UNKNOWN: Command = { value: 0, mask: 0, parameters: 0, run: fdc => fdc.answer(ST0.INVALID) };

function commandOf(byte: number): Command {
  return COMMANDS.find(({ value, mask }) => (byte & mask) === value) ?? UNKNOWN;
}

export const isaFdc = deviceType({
  type: 'isa-fdc',
  summary: 'virtual floppy controller',
  bus: 'ISA',
  category: 'storage',
  parents: ['isa-device', 'device'],
  properties,
  create: FloppyController,
});
