import { type DeviceContext, deviceType } from '../../core/device/device-type.ts';
import { prop } from '../../core/device/property.ts';
import { MemoryRegion } from '../../core/memory/memory-region.ts';
import type { MsiDeclaration } from '../../core/pci/identity.ts';
import { PciDevice } from '../../core/pci/pci-device.ts';
import { OP, STATUS as SCSI_STATUS } from '../../core/scsi/command.ts';
import { ScsiBus, type ScsiHostAdapter } from '../../core/scsi/scsi-bus.ts';
import type { ScsiDevice } from '../../core/scsi/scsi-device.ts';
import type { ScsiRequest, ScsiTask } from '../../core/scsi/scsi-request.ts';
import { SENSE } from '../../core/scsi/sense.ts';
import { asRecord, field, loadValues, type SavedValue, saveValues } from '../../core/state/fields.ts';
import { ScatterList } from '../ide/scatter-list.ts';
import { ScsiDiskBase } from '../scsi/scsi-disk.ts';
import { DirectCommands, type DirectHost } from './direct-commands.ts';
import { describeLink, EXPRESS_AT } from './express-link.ts';
import { Frame } from './frame.ts';
import {
  ABORT,
  DIAG,
  DIAG_KEY,
  DIRECT,
  DOORBELL,
  EVENT,
  EVENT_ARGUMENT,
  FLAG,
  FRAME,
  FRAME_ALIGNMENT,
  HEADER,
  INIT,
  IO,
  LOCALE,
  MASK_ALL,
  MAX_LOGICAL,
  MAX_SGE_SHIFT,
  MSIX_SUPPORTED,
  PASS,
  PENDING,
  REG,
  STATE,
  STATE_SHIFT,
  STATUS,
} from './registers.ts';
import { queueFields, ReplyQueue } from './reply-queue.ts';
import { defaultProperties, eventDetail, SIZE } from './reports.ts';
import { DriveTask, taskFields } from './tasks.ts';

const MEMORY_SIZE = 0x4000;
const PORTS_SIZE = 0x100;
const QUEUE_SIZE = 0x4_0000;
const QUEUE_BAR = 3;
const MSI_AT = 0x50;
const MSIX = { VECTORS: 15, TABLE: 0x2000, PENDING: 0x3800, AT: 0x68 } as const;

/** Frames under way, and elements of their lists, that the firmware can take; below the larger number, the smaller. */
const MOST_FRAMES = 2048;
const MOST_SGE = 80;
const FEWER_SGE = 16;
const CDB_MAX = 16;
const DEFAULT_SERIAL = 'QEMU123456';
/** Locally assigned (NAA 3), with QEMU's company id. */
const SAS_ADDRESS = 0x352_5400n << 36n;

const common = {
  max_sge: prop.u32({ default: 80 }),
  hba_serial: prop.string(),
  sas_address: prop.u64({ default: 0n }),
  msi: prop.onOffAuto({ default: 'auto' }),
  msix: prop.onOffAuto({ default: 'auto' }),
  use_jbod: prop.bit({ default: false }),
} as const;
const properties = { ...common, max_cmds: prop.u32({ default: 1000 }) } as const;
const propertiesGen2 = { ...common, max_cmds: prop.u32({ default: 1008 }) } as const;

const registerFields = {
  state: field.u8(STATE.READY),
  mask: field.u32(MASK_ALL),
  /** Replies that the host has not yet been told of. */
  doorbell: field.u32(),
  addressHigh: field.u32(),
  diag: field.u8(),
  /** How far the host is in the sequence that unlocks DIAG. */
  key: field.u8(),
} as const;

const eventFields = {
  newest: field.u32(),
  shutdown: field.u32(),
  boot: field.u32(),
  /** The frame that waits for one; 0 without. */
  waiting: field.number(),
  contextLow: field.u32(),
  contextHigh: field.u32(),
} as const;

/** What tells one generation from the other. */
interface Generation {
  readonly product: string;
  readonly firmware: string;
  readonly ids: readonly [vendor: number, device: number, subsystemVendor: number, subsystem: number];
  readonly memoryBar: number;
  readonly portsBar: number;
  readonly express: boolean;
  /** OSTS while there are replies. */
  readonly replied: number;
}

/** MegaRAID SAS adapter: frames of the host's, carried out by firmware, each drive a logical one over all of it. */
abstract class Megasas extends PciDevice<typeof properties> implements ScsiHostAdapter, DirectHost {
  protected abstract readonly generation: Generation;
  readonly maxChannel = 0;
  readonly maxTarget = MAX_LOGICAL;
  readonly maxLun = 255;
  readonly taggedQueuing = true;
  readonly scsiBus: ScsiBus;
  readonly #s = this.state(1, registerFields, { name: 'registers' });
  readonly events = this.state(1, eventFields, { name: 'events' });
  readonly #settings = this.state(1, { bytes: field.bytes(SIZE.PROPERTIES) }, { name: 'settings', onReset: 'keep' });
  readonly maxCommands = Math.min(MOST_FRAMES, this.props.max_cmds);
  readonly maxSge = this.props.max_sge >= MOST_SGE ? MOST_SGE : FEWER_SGE;
  readonly jbod = this.props.use_jbod;
  readonly serial = this.props.hba_serial ?? DEFAULT_SERIAL;
  readonly #direct = new DirectCommands(this);
  readonly #queue = new ReplyQueue(this.dma, this.state(1, queueFields, { name: 'queues' }), this.maxCommands);
  readonly #frames = new Set<Frame>();

  constructor(context: DeviceContext<typeof properties>) {
    super(context);
    this.#settings.bytes.set(defaultProperties());
    this.scsiBus = this.addBus(new ScsiBus(this));
  }

  protected override realize(): void {
    const { memoryBar, portsBar } = this.generation;
    const registers = this.shielded({
      read: (offset, size) => lowest(this.#read(offset), size),
      write: (offset, _size, value) => this.#write(offset, value >>> 0),
    });
    const memory = MemoryRegion.container('megasas-mmio', MEMORY_SIZE);
    memory.add(MemoryRegion.io('megasas-registers', MEMORY_SIZE, registers), 0);
    if (this.props.msix !== 'off') {
      const { VECTORS: vectors, TABLE: table, PENDING: pba, AT: offset } = MSIX;
      const msix = this.addMsix({ vectors, bar: memoryBar, table, pba, offset });
      memory.add(msix.table, table, 1);
      memory.add(msix.pending, pba, 1);
    }
    if (this.generation.express) {
      // It has the capability on a conventional bus too.
      if (!this.pciBus.express) this.addExpressCapability(0, EXPRESS_AT);
      describeLink(this.config);
    }
    this.bar(portsBar, registers, { size: PORTS_SIZE, space: 'io' });
    this.bar(memoryBar, memory, { size: MEMORY_SIZE, wide: true });
    this.bar(QUEUE_BAR, { read: () => 0, write: () => {} }, { size: QUEUE_SIZE, wide: true });
  }

  protected override get msiDeclaration(): MsiDeclaration | undefined {
    return this.props.msi === 'off' ? undefined : { vectors: 1, offset: MSI_AT };
  }

  // What direct commands tell

  get pci(): Generation['ids'] {
    return this.generation.ids;
  }

  get product(): string {
    return this.generation.product;
  }

  get firmware(): string {
    return this.generation.firmware;
  }

  get settings(): Uint8Array {
    return this.#settings.bytes;
  }

  get sasAddress(): bigint {
    const { sas_address: given } = this.props;
    const { devfn } = this;
    return given !== 0n ? given : SAS_ADDRESS | BigInt((this.pciBus.number << 16) | ((devfn >> 3) << 8) | (devfn & 7));
  }

  drives(): ScsiDiskBase[] {
    return [...this.scsiBus.units()].filter(unit => unit instanceof ScsiDiskBase);
  }

  drive(target: number, lun: number): ScsiDiskBase | undefined {
    const unit = this.scsiBus.find(0, target, lun);
    return unit instanceof ScsiDiskBase ? unit : undefined;
  }

  now(): Date {
    return new Date(this.services.hostClock.epochMs + this.hostClock.now() / 1e6);
  }

  // Registers

  get #interruptsEnabled(): boolean {
    return this.#s.mask !== MASK_ALL;
  }

  #read(offset: number): number {
    const s = this.#s;
    switch (offset) {
      case REG.OMSG0:
      case REG.OSP0: {
        const msix = this.msix === undefined ? 0 : MSIX_SUPPORTED;
        return (msix | (s.state << STATE_SHIFT) | (this.maxSge << MAX_SGE_SHIFT) | this.maxCommands) >>> 0;
      }
      case REG.OSTS:
        return this.#interruptsEnabled && s.doorbell > 0 ? this.generation.replied : 0;
      case REG.OMSK:
        return s.mask;
      case REG.ODCR0:
        return s.doorbell > 0 ? 1 : 0;
      case REG.OSP1:
        return MSIX.VECTORS;
      case REG.DIAG:
        return s.diag;
      default:
        return 0;
    }
  }

  #write(offset: number, value: number): void {
    const s = this.#s;
    switch (offset) {
      case REG.IDB:
        if ((value & DOORBELL.ABORT) !== 0) this.#abortAll();
        if ((value & DOORBELL.READY) !== 0) this.#softReset();
        if ((value & DOORBELL.STOP) !== 0) s.state = STATE.FAULT;
        break;
      case REG.OMSK:
        s.mask = value;
        if (!this.#interruptsEnabled) {
          this.irq.lower();
          this.#softReset();
        }
        break;
      case REG.ODCR0:
        s.doorbell = 0;
        this.irq.lower();
        break;
      case REG.IQPH:
        s.addressHigh = value;
        break;
      case REG.IQPL:
      case REG.IQP: {
        const high = offset === REG.IQPL ? s.addressHigh : 0;
        s.addressHigh = 0;
        this.#take(high * 2 ** 32 + ((value & ~(FRAME_ALIGNMENT - 1)) >>> 0));
        break;
      }
      case REG.SEQ:
        this.#unlock(value);
        break;
      case REG.DIAG:
        if ((s.diag & DIAG.WRITE_ENABLE) === 0 || (value & DIAG.RESET_ADAPTER) === 0) break;
        this.#softReset();
        s.key = 0;
        s.diag = 0;
        break;
    }
  }

  #unlock(value: number): void {
    const s = this.#s;
    if (value !== DIAG_KEY[s.key]) {
      s.key = 0;
      s.diag = 0;
      return;
    }
    s.key++;
    if (s.key < DIAG_KEY.length) return;
    s.key = 0;
    s.diag = DIAG.WRITE_ENABLE;
  }

  // Frames

  #take(address: number): void {
    const frame = this.#frames.size < this.maxCommands ? Frame.fetch(this.dma, address) : undefined;
    if (frame === undefined) {
      // All that is known of it is where it is.
      this.events.newest++;
      this.dma.write8(address + HEADER.SCSI_STATUS, SCSI_STATUS.BUSY);
      this.dma.write8(address + HEADER.STATUS, STATUS.SCSI_DONE_WITH_ERROR);
      this.#reply(this.dma.read32(address + HEADER.CONTEXT), this.dma.read32(address + HEADER.CONTEXT + 4));
      return;
    }
    this.#frames.add(frame);
    const status = this.#execute(frame);
    if (status !== PENDING) this.finish(frame, status);
  }

  #execute(frame: Frame): number {
    const list = new ScatterList(this.dma);
    switch (frame.command) {
      case FRAME.INIT:
        return this.#initialise(frame);
      case FRAME.DIRECT:
        return this.#direct.execute(frame, list);
      case FRAME.ABORT:
        return this.#abort(frame);
      case FRAME.LD_SCSI:
      case FRAME.PD_SCSI:
        return this.#passThrough(frame, list);
      case FRAME.LD_READ:
      case FRAME.LD_WRITE:
        return this.#transfer(frame, list);
      default:
        this.events.newest++;
        return STATUS.INVALID_COMMAND;
    }
  }

  /** Tells the host how a frame has ended. */
  finish(frame: Frame, status: number): void {
    // A reset has come in between.
    if (!this.#frames.delete(frame)) return;
    frame.setStatus(status);
    if ((frame.flags & FLAG.NOT_IN_REPLY_QUEUE) === 0) this.#reply(frame.contextLow, frame.contextHigh);
  }

  #reply(contextLow: number, contextHigh: number): void {
    this.#queue.post(contextLow, contextHigh, this.#interruptsEnabled);
    if (!this.#interruptsEnabled) return;
    if (this.messageSignalled) {
      this.notify(0);
      return;
    }
    this.#s.doorbell++;
    this.irq.raise();
  }

  #initialise(frame: Frame): number {
    if (this.#queue.known) return STATUS.OK;
    const status = this.#queue.initialise(frame.wide(INIT.QUEUES));
    if (status === STATUS.OK) this.#s.state = STATE.OPERATIONAL;
    else this.events.newest++;
    return status;
  }

  // Commands for drives

  #passThrough(frame: Frame, list: ScatterList): number {
    const { target, lun } = frame;
    const logical = frame.command === FRAME.LD_SCSI;
    const hidden = logical && (this.jbod || target >= MAX_LOGICAL || lun !== 0);
    const drive = hidden ? undefined : this.scsiBus.find(0, target, lun);
    if (drive === undefined) return STATUS.DEVICE_NOT_FOUND;
    const length = frame.view.getUint8(HEADER.CDB_LENGTH);
    if (length > CDB_MAX) return this.#refuse(frame, SENSE.INVALID_OPCODE);
    const described = frame.describe(list, PASS.SGL) && frame.dataLength <= list.length;
    if (!described) return this.#refuse(frame, SENSE.TARGET_FAILURE);
    return this.#start(frame, list, drive, frame.bytes(PASS.CDB, length));
  }

  /** Blocks by their numbers: READ (16) or WRITE (16). */
  #transfer(frame: Frame, list: ScatterList): number {
    const { target, lun, view } = frame;
    const drive = target < MAX_LOGICAL && lun === 0 ? this.scsiBus.find(0, target, lun) : undefined;
    if (drive === undefined) return STATUS.DEVICE_NOT_FOUND;
    const blocks = frame.dataLength;
    const described = frame.describe(list, IO.SGL) && blocks * drive.blockSize <= list.length && blocks > 0;
    if (!described) return this.#refuse(frame, SENSE.TARGET_FAILURE);
    const cdb = new Uint8Array(CDB_MAX);
    const block = new DataView(cdb.buffer);
    cdb[0] = frame.command === FRAME.LD_WRITE ? OP.WRITE_16 : OP.READ_16;
    block.setUint32(2, view.getUint32(IO.LBA + 4, true));
    block.setUint32(6, view.getUint32(IO.LBA, true));
    block.setUint32(10, blocks);
    return this.#start(frame, list, drive, cdb);
  }

  #start(frame: Frame, list: ScatterList, drive: ScsiDevice, cdb: Uint8Array): number {
    const task = new DriveTask(this, frame, list);
    task.start(drive.request(task, frame.contextLow, frame.lun, cdb, cdb.length));
    return PENDING;
  }

  #refuse(frame: Frame, sense: typeof SENSE.NONE): number {
    frame.putSense(sense);
    frame.setScsiStatus(SCSI_STATUS.CHECK_CONDITION);
    this.events.newest++;
    return STATUS.SCSI_DONE_WITH_ERROR;
  }

  // Aborts and resets

  #abort(frame: Frame): number {
    const { view } = frame;
    const address = frame.wide(ABORT.ADDRESS);
    const victim = [...this.#frames].find(other => other !== frame && other.address === address);
    this.events.newest++;
    if (victim === undefined) return STATUS.OK;
    const same =
      victim.contextLow === view.getUint32(ABORT.CONTEXT, true) &&
      (!this.#queue.context64 || victim.contextHigh === view.getUint32(ABORT.CONTEXT + 4, true));
    if (!same) return STATUS.ABORT_NOT_POSSIBLE;
    if (victim.address === this.events.waiting) {
      this.events.waiting = 0;
      this.finish(victim, STATUS.SCSI_IO_FAILED);
    } else {
      this.#requestOf(victim)?.cancel();
    }
    return STATUS.OK;
  }

  #requestOf(frame: Frame): ScsiRequest | undefined {
    for (const drive of this.scsiBus.units()) {
      for (const request of drive.requests) {
        if (request.task instanceof DriveTask && request.task.frame === frame) return request;
      }
    }
    return undefined;
  }

  #abortAll(): void {
    for (const drive of this.scsiBus.units()) {
      for (const request of [...drive.requests]) if (request.task instanceof DriveTask) request.cancel();
    }
  }

  /** The firmware starts anew: nobody waits for what is under way, and it has to be told of the queues again. */
  #softReset(): void {
    for (const drive of this.scsiBus.units()) {
      // Firmware does not report what it has caused itself.
      if (this.#s.state === STATE.READY) drive.forgetAttention();
      for (const request of [...drive.requests]) {
        if (request.task instanceof DriveTask) request.task.abandoned = true;
        request.cancel();
      }
    }
    this.#frames.clear();
    this.#queue.reset();
    Object.assign(this.#s, { state: STATE.READY, mask: MASK_ALL, doorbell: 0, addressHigh: 0 });
    this.irq.lower();
    this.events.waiting = 0;
    this.events.newest++;
    this.events.boot = this.events.newest;
  }

  shutDown(): void {
    this.#s.state = STATE.READY;
    this.events.shutdown = this.events.newest;
  }

  protected override resetHold(): void {
    super.resetHold();
    this.#softReset();
    this.#settings.bytes.set(defaultProperties());
  }

  // Events

  waitForEvent(frame: Frame): void {
    Object.assign(this.events, {
      waiting: frame.address,
      contextLow: frame.contextLow,
      contextHigh: frame.contextHigh,
    });
  }

  plugged(device: ScsiDevice): void {
    this.#report(device, this.jbod ? EVENT.PD_INSERTED : EVENT.LD_CREATED, 'came');
  }

  unplugging(device: ScsiDevice): void {
    this.#report(device, this.jbod ? EVENT.PD_REMOVED : EVENT.LD_DELETED, 'goes');
  }

  #report(device: ScsiDevice, code: number, what: string): void {
    const { events } = this;
    if (!(device instanceof ScsiDiskBase)) return;
    events.newest++;
    const frame = [...this.#frames].find(({ address }) => address === events.waiting);
    if (frame === undefined) return;
    const list = new ScatterList(this.dma);
    frame.describe(list, DIRECT.SGL);
    const detail = eventDetail({
      sequence: events.newest,
      time: this.#direct.time,
      code,
      locale: this.jbod ? LOCALE.PD : LOCALE.LD,
      argument: this.jbod ? EVENT_ARGUMENT.PD : EVENT_ARGUMENT.LD,
      drive: device,
      description: `drive ${device.target}:${device.lun} ${what}`,
    });
    list.copyTo(detail, 0, Math.min(list.length, detail.length));
    events.waiting = 0;
    this.finish(frame, STATUS.OK);
  }

  // State

  saveTask({ task }: ScsiRequest): SavedValue {
    if (!(task instanceof DriveTask)) return null;
    const { address, contextLow, contextHigh } = task.frame;
    return saveValues(taskFields, { address, moved: task.moved, contextLow, contextHigh });
  }

  loadTask(saved: SavedValue, request: ScsiRequest): ScsiTask | undefined {
    if (saved === null) return undefined;
    const { address, moved, contextLow, contextHigh } = loadValues(taskFields, asRecord(saved, this.path), this.path);
    const frame = this.#refetch(address, contextLow, contextHigh);
    if (frame === undefined) return undefined;
    const list = new ScatterList(this.dma);
    const blocks = frame.command === FRAME.LD_READ || frame.command === FRAME.LD_WRITE;
    frame.describe(list, blocks ? IO.SGL : PASS.SGL);
    const task = new DriveTask(this, frame, list, moved);
    task.resume(request);
    return task;
  }

  #refetch(address: number, contextLow: number, contextHigh: number): Frame | undefined {
    const frame = Frame.fetch(this.dma, address);
    if (frame === undefined) return undefined;
    Object.assign(frame, { contextLow, contextHigh });
    this.#frames.add(frame);
    return frame;
  }

  protected override restored(): void {
    super.restored();
    const { waiting, contextLow, contextHigh } = this.events;
    this.#frames.clear();
    if (waiting !== 0) this.#refetch(waiting, contextLow, contextHigh);
  }
}

/** The low `size` bytes of a register. */
const lowest = (value: number, size: number): number => (size === 4 ? value : value & (2 ** (8 * size) - 1));

const VENDOR_LSI = 0x1000;
const GEN1 = { device: 0x0060, subsystem: 0x1013 } as const;
const GEN2 = { device: 0x0079, subsystem: 0x9261 } as const;
const identity = { vendor: VENDOR_LSI, class: 0x01_0400, subsystemVendor: VENDOR_LSI, pin: 'A' } as const;
const parents = ['megasas-base', 'pci-device', 'device'] as const;

class MegasasGen1 extends Megasas {
  protected readonly generation = {
    product: 'LSI MegaRAID SAS 8708EM2',
    firmware: '1.70',
    ids: [VENDOR_LSI, GEN1.device, VENDOR_LSI, GEN1.subsystem],
    memoryBar: 0,
    portsBar: 2,
    express: false,
    replied: 0x8000_0001,
  } as const;
}

class MegasasGen2 extends Megasas {
  protected readonly generation = {
    product: 'LSI MegaRAID SAS 9260-8i',
    firmware: '1.80',
    ids: [VENDOR_LSI, GEN2.device, VENDOR_LSI, GEN2.subsystem],
    memoryBar: 1,
    portsBar: 0,
    express: true,
    replied: 0x0000_0001,
  } as const;
}

export const megasas = deviceType({
  type: 'megasas',
  summary: 'LSI MegaRAID SAS 1078',
  category: 'storage',
  parents,
  properties,
  pci: { ...identity, ...GEN1 },
  create: MegasasGen1,
});

export const megasasGen2 = deviceType({
  type: 'megasas-gen2',
  summary: 'LSI MegaRAID SAS 2108',
  category: 'storage',
  parents,
  properties: propertiesGen2,
  pci: {
    ...identity,
    ...GEN2,
    express: 'endpoint',
    expressCapability: { version: 2, offset: EXPRESS_AT, after: 'msi' },
  },
  create: MegasasGen2,
});
