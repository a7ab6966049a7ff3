import type { BlockBackend, BlockDevice } from '../../core/block/backend.ts';
import { Device } from '../../core/device/device.ts';
import type { DeviceContext } from '../../core/device/device-type.ts';
import { type PropSet, type PropValues, prop } from '../../core/device/property.ts';
import { SouthbridgeError } from '../../core/errors.ts';
import { field } from '../../core/state/fields.ts';
import type { IdeHost } from './host.ts';
import { COMMAND, DEVICE, ERROR, MAX_MULTIPLE, REG, STATUS } from './task-file.ts';

/** The properties that every IDE drive has, with QEMU's names. */
export const driveProperties = {
  drive: prop.backend<BlockBackend>('drive', { help: 'Node name or ID of a block device to use as a backend' }),
  unit: prop.u32({ default: 0xffff_ffff }),
  ver: prop.string(),
  serial: prop.string(),
  model: prop.string(),
  wwn: prop.u64({ default: 0n }),
  bootindex: prop.i32({ default: -1 }),
  logical_block_size: prop.size({ default: 0 }),
  physical_block_size: prop.size({ default: 0 }),
  min_io_size: prop.size({ default: 0 }),
  opt_io_size: prop.size({ default: 0 }),
  discard_granularity: prop.size({ default: 0xffff_ffff }),
  backend_defaults: prop.onOffAuto({ default: 'auto' }),
  'write-cache': prop.onOffAuto({ default: 'auto' }),
  'share-rw': prop.bool({ default: false }),
  rerror: prop.enum(['auto', 'report', 'ignore', 'stop'], { default: 'auto', typeName: 'BlockdevOnError' }),
  werror: prop.enum(['auto', 'report', 'ignore', 'enospc', 'stop'], { default: 'auto', typeName: 'BlockdevOnError' }),
  'account-invalid': prop.onOffAuto({ default: 'auto' }),
  'account-failed': prop.onOffAuto({ default: 'auto' }),
} as const;

const BUFFER_SIZE = 0x1_0000;
const UNSET = 0xffff_ffff;
/** `QM00001` and so on, by place: what QEMU's drives without a serial number are called. */
const serialNumber = (place: number): string => `QM${String(place + 1).padStart(5, '0')}`;

/** What happens when the host has taken, or given, all data of a PIO phase. */
type PhaseEnd = 'stop' | 'read' | 'write' | 'packet' | 'packet-reply';

export const driveState = {
  features: field.u8(),
  error: field.u8(1),
  count: field.u16(1),
  lbaLow: field.u8(1),
  lbaMid: field.u8(),
  lbaHigh: field.u8(),
  device: field.u8(DEVICE.OBSOLETE),
  status: field.u8(STATUS.DRDY | STATUS.DSC),
  hobFeatures: field.u8(),
  hobCount: field.u8(1),
  hobLow: field.u8(),
  hobMid: field.u8(),
  hobHigh: field.u8(),
  lba48: field.bool(),
  command: field.u8(),
  multiple: field.u8(MAX_MULTIPLE),
  /** The buffer of PIO data, and how much of it the host has moved. */
  buffer: field.bytes(BUFFER_SIZE),
  at: field.u32(),
  end: field.u32(),
  toHost: field.bool(true),
  phaseEnd: field.oneOf(['stop', 'read', 'write', 'packet', 'packet-reply'] as const, 'stop'),
  irq: field.bool(),
};

/** A drive on an IDE bus: the task file, PIO and DMA phases. What the commands do is the subclass's. */
export abstract class IdeDrive<S extends PropSet = PropSet> extends Device<S> {
  readonly s = this.state(1, driveState, { name: 'task-file' });
  /** Bus number and unit. */
  place = { bus: 0, unit: 0 };
  #host: IdeHost | undefined;
  #own: BlockBackend | undefined;
  /** Grows with each reset, so that what was under way before is not heard of any more. */
  #epoch = 0;
  #busy = 0;

  abstract readonly removable: boolean;

  /** Offers commands to the subclass: false where the drive does not know it. */
  protected abstract execute(command: number): boolean | undefined;
  /** The next part of a PIO command, at the end of a phase. */
  protected abstract phaseEnded(end: PhaseEnd): void;
  /** LBA Mid and High after a reset. */
  protected abstract readonly signature: readonly [number, number];
  /** Status after a software reset or diagnostic: a packet device's has no DRDY (section 9.10). */
  protected abstract readonly idleStatus: number;

  constructor(context: DeviceContext<S>) {
    super(context);
    this.defineProperty({ name: 'unit', type: 'uint32', get: () => this.place.unit });
  }

  /** -1 for the first free one. */
  get requestedUnit(): number {
    const { unit } = this.driveProps;
    return unit === UNSET ? -1 : unit;
  }

  protected get driveProps(): PropValues<S> & PropValues<typeof driveProperties> {
    // Every type of drive declares the drive properties.
    return this.props as PropValues<S> & PropValues<typeof driveProperties>;
  }

  get backend(): BlockBackend | undefined {
    return this.#own ?? this.driveProps.drive;
  }

  /** Takes `backend` where the user gave none. */
  protected useBackend(backend: BlockBackend | undefined): void {
    this.#own = backend;
  }

  get host(): IdeHost {
    if (this.#host === undefined) throw new SouthbridgeError('ERR_DEVICE_STATE', `${this.typeName} is not on a bus`);
    return this.#host;
  }

  connectTo(host: IdeHost, bus: number, unit: number): void {
    this.#host = host;
    this.place = { bus, unit };
  }

  override get firmwareName(): string {
    return `drive@${this.place.unit.toString(16)}`;
  }

  protected get serialText(): string {
    const { serial } = this.driveProps;
    return serial ?? this.backend?.legacy?.serial ?? serialNumber(this.place.bus * 2 + this.place.unit);
  }

  /** Takes the backend. @throws SouthbridgeError where another device has it */
  protected takeBackend(writable: boolean): void {
    const { backend } = this;
    if (backend === undefined) throw new SouthbridgeError('ERR_BACKEND', 'No drive specified');
    const { rerror, werror, 'share-rw': shareRw, 'write-cache': cache } = this.driveProps;
    const device = this.blockDevice;
    backend.attachDevice(device, { writable, shareRw, resizable: true });
    this.onUnrealize(() => backend.detachDevice(device));
    if (rerror !== 'auto') backend.onReadError = rerror;
    if (werror !== 'auto') backend.onWriteError = werror;
    if (cache !== 'auto') backend.writeCache = cache === 'on';
    backend.enableIoStatus();
  }

  // The task file

  readRegister(register: number, highOrder: boolean): number {
    const { s } = this;
    switch (register) {
      case REG.ERROR:
        return highOrder ? s.hobFeatures : s.error;
      case REG.COUNT:
        return highOrder ? s.hobCount : s.count & 0xff;
      case REG.LBA_LOW:
        return highOrder ? s.hobLow : s.lbaLow;
      case REG.LBA_MID:
        return highOrder ? s.hobMid : s.lbaMid;
      case REG.LBA_HIGH:
        return highOrder ? s.hobHigh : s.lbaHigh;
      case REG.DEVICE:
        return s.device;
      default:
        return s.status;
    }
  }

  /** Writing a register keeps what was in it as the high-order byte of a 48-bit command (section 6.20). */
  writeRegister(register: number, value: number): void {
    const { s } = this;
    switch (register) {
      case REG.ERROR:
        s.hobFeatures = s.features;
        s.features = value;
        break;
      case REG.COUNT:
        s.hobCount = s.count & 0xff;
        s.count = value;
        break;
      case REG.LBA_LOW:
        s.hobLow = s.lbaLow;
        s.lbaLow = value;
        break;
      case REG.LBA_MID:
        s.hobMid = s.lbaMid;
        s.lbaMid = value;
        break;
      case REG.LBA_HIGH:
        s.hobHigh = s.lbaHigh;
        s.lbaHigh = value;
        break;
      default:
        s.device = value | DEVICE.OBSOLETE;
    }
  }

  /** The Device register's DEV bit, which both drives of a cable show alike. */
  showUnit(unit: 0 | 1): void {
    this.s.device = (this.s.device & ~DEVICE.DEV) | (unit === 1 ? DEVICE.DEV : 0);
  }

  get busyOrData(): boolean {
    return (this.s.status & (STATUS.BSY | STATUS.DRQ)) !== 0;
  }

  /** A write to the Command register. */
  issue(command: number): void {
    const { s } = this;
    if (this.busyOrData && !(command === COMMAND.DEVICE_RESET && this.removable)) return;
    s.command = command;
    s.status = STATUS.DRDY | STATUS.BSY;
    s.error = 0;
    const handled = this.execute(command);
    if (handled === false) {
      this.abort();
      this.finish();
    } else if (handled === true) {
      this.finish();
    }
  }

  /** Ends a command that has nothing more to do; the interrupt comes in any case. */
  protected finish(extraStatus = 0): void {
    this.s.status = (this.s.status & ~STATUS.BSY) | extraStatus;
    this.host.commandDone(this);
    this.raiseIrq();
  }

  protected abort(): void {
    this.s.status = STATUS.DRDY | STATUS.ERR;
    this.s.error = ERROR.ABRT;
  }

  raiseIrq(): void {
    this.s.irq = true;
    this.#host?.setIrq(this, true);
  }

  /** Reading Status lowers INTRQ (section 7.15.4). */
  lowerIrq(): void {
    this.s.irq = false;
    this.#host?.setIrq(this, false);
  }

  /** Power-on, hardware or software reset. */
  resetTaskFile(software: boolean): void {
    const { s } = this;
    this.#epoch++;
    this.#busy = 0;
    s.at = 0;
    s.end = 0;
    s.phaseEnd = 'stop';
    s.multiple = MAX_MULTIPLE;
    s.features = 0;
    s.hobFeatures = 0;
    s.hobCount = 1;
    s.hobLow = 0;
    s.hobMid = 0;
    s.hobHigh = 0;
    s.lba48 = false;
    s.error = 1;
    s.device = DEVICE.OBSOLETE;
    this.setSignature();
    s.status = software ? this.idleStatus : STATUS.DRDY | STATUS.DSC;
  }

  /** What identifies the kind of drive (section 9.12). */
  setSignature(): void {
    const { s } = this;
    s.device &= ~DEVICE.HEAD;
    s.count = 1;
    s.lbaLow = 1;
    [s.lbaMid, s.lbaHigh] = this.signature;
  }

  /** EXECUTE DEVICE DIAGNOSTIC passed (section 8.11). */
  diagnose(): void {
    this.setSignature();
    this.s.status = this.idleStatus;
    this.s.error = 1;
  }

  protected override resetEnter(): void {
    this.resetTaskFile(false);
  }

  // PIO

  /** Offers `length` bytes of the buffer to the host, or asks it for as many. */
  protected startPhase(length: number, toHost: boolean, end: PhaseEnd): void {
    const { s } = this;
    s.at = 0;
    s.end = length;
    s.toHost = toHost;
    s.phaseEnd = end;
    s.status = (s.status & ~STATUS.BSY) | STATUS.DRQ;
    if (this.host.pioPhase(this, length, toHost)) this.#endPhase();
  }

  /** The whole phase's data at once, for a host that moves it by itself. */
  dataIn(): Uint8Array {
    return this.s.buffer.subarray(0, this.s.end);
  }

  dataOut(bytes: Uint8Array): void {
    this.s.buffer.set(bytes.subarray(0, this.s.end));
  }

  readData(size: number): number {
    const { s } = this;
    if ((s.status & STATUS.DRQ) === 0 || !s.toHost || s.at + size > s.end) return 0;
    let value = 0;
    for (let index = 0; index < size; index++) value |= (s.buffer[s.at + index] ?? 0) << (8 * index);
    s.at += size;
    if (s.at >= s.end) this.#endPhase();
    return value >>> 0;
  }

  writeData(size: number, value: number): void {
    const { s } = this;
    if ((s.status & STATUS.DRQ) === 0 || s.toHost || s.at + size > s.end) return;
    for (let index = 0; index < size; index++) s.buffer[s.at + index] = value >>> (8 * index);
    s.at += size;
    if (s.at >= s.end) this.#endPhase();
  }

  #endPhase(): void {
    const { s } = this;
    s.status &= ~STATUS.DRQ;
    const end = s.phaseEnd;
    s.phaseEnd = 'stop';
    if (end === 'stop') this.host.commandDone(this);
    else this.phaseEnded(end);
  }

  // Requests to the backend

  /** Remembers that a request is under way; the guard is false once a reset has made its result meaningless. */
  protected begin(): () => boolean {
    const epoch = this.#epoch;
    this.#busy++;
    return () => {
      if (epoch !== this.#epoch) return false;
      this.#busy--;
      return true;
    };
  }

  get requestsUnderWay(): number {
    return this.#busy;
  }

  /** Forgets requests that are under way: their data is dropped. */
  cancelRequests(): void {
    this.#epoch++;
    this.#busy = 0;
  }

  /** What the block layer sees of the drive. */
  protected abstract readonly blockDevice: BlockDevice;
}
