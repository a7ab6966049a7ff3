import type { Dma } from '../../core/memory/dma.ts';
import { field, type StateValues } from '../../core/state/fields.ts';
import { AtaChannel, type channelState } from '../ide/channel.ts';
import { CONTROL, STATUS } from '../ide/task-file.ts';
import type { AtaTransport } from '../ide/transport.ts';
import type { AtaUnit, unitState } from '../ide/unit.ts';
import { CommandQueue, type QueueOwner, type queueState } from './queue.ts';
import { RegionTable } from './regions.ts';
import {
  COMMAND,
  DETECT,
  FIS,
  FIS_FLAG,
  FIS_SIZE,
  HEADER,
  INTERRUPT,
  INTERRUPT_ENABLES,
  isQueued,
  LINK_UP,
  NO_SIGNATURE,
  NO_TASK_FILE,
  OPTION,
  PORT,
  RECEIVED,
  SLOTS,
  TABLE,
} from './registers.ts';

export const portState = {
  CLB: field.u32(),
  CLBU: field.u32(),
  FB: field.u32(),
  FBU: field.u32(),
  IS: field.u32(),
  IE: field.u32(),
  CMD: field.u32(),
  TFD: field.u32(),
  SIG: field.u32(),
  SCTL: field.u32(),
  SERR: field.u32(),
  SACT: field.u32(),
  CI: field.u32(),
  /** Where the command list and the received FIS were when their engines started. */
  list: field.number(),
  received: field.number(),
  /** Between the two FIS of a software reset. */
  inReset: field.bool(),
  /** The device has sent its first register FIS. */
  signed: field.bool(),
  /** The slot of the command that the device carries out; -1 without one. */
  busySlot: field.number(-1),
  // Header of the command that was fetched last
  slot: field.u8(),
  options: field.u16(),
  regions: field.u16(),
  table: field.number(),
  transferred: field.u32(),
  /** The first data phase of the command is over. */
  inData: field.bool(),
};

type PortValues = StateValues<typeof portState>;
type Unit = StateValues<typeof unitState>;

interface PortParts {
  readonly dma: Dma;
  readonly state: PortValues;
  readonly channel: StateValues<typeof channelState>;
  readonly units: readonly [Unit, Unit];
  readonly queue: StateValues<typeof queueState>;
  /** Interrupt status or enables have changed. */
  readonly interruptsChanged: () => void;
}

/** A port with its link to a device (AHCI 1.3.1, sections 3.3 and 5). */
export class AhciPort implements AtaTransport, QueueOwner {
  readonly s: PortValues;
  readonly channel: AtaChannel;
  readonly #dma: Dma;
  readonly #unit: AtaUnit;
  readonly #queue: CommandQueue;
  readonly #regions: RegionTable;
  readonly #interruptsChanged: () => void;
  readonly #header = new Uint8Array(16);
  readonly #headerView = new DataView(this.#header.buffer);
  readonly #command = new Uint8Array(TABLE.REGIONS);
  readonly #fis = new Uint8Array(FIS_SIZE);
  /** A command has ended, and others may wait. */
  #look = false;
  #looking = false;

  constructor({ dma, state, channel, units, queue, interruptsChanged }: PortParts) {
    this.#dma = dma;
    this.s = state;
    this.#interruptsChanged = interruptsChanged;
    // The link has no INTRQ: each FIS says whether it interrupts.
    this.channel = new AtaChannel({ transport: this, dma, state: channel, units, irq: () => {}, queueDepth: SLOTS });
    this.#unit = this.channel.units[0];
    this.#queue = new CommandQueue(this, this.#unit, dma, queue);
    this.#regions = new RegionTable(dma);
  }

  // Registers

  read(register: number): number {
    const { s } = this;
    switch (register) {
      case PORT.CLB:
        return s.CLB;
      case PORT.CLBU:
        return s.CLBU;
      case PORT.FB:
        return s.FB;
      case PORT.FBU:
        return s.FBU;
      case PORT.IS:
        return s.IS;
      case PORT.IE:
        return s.IE;
      case PORT.CMD:
        return s.CMD;
      case PORT.TFD:
        return s.TFD;
      case PORT.SIG:
        return s.SIG;
      case PORT.SSTS:
        return this.#unit.present ? LINK_UP : 0;
      case PORT.SCTL:
        return s.SCTL;
      case PORT.SERR:
        return s.SERR;
      case PORT.SACT:
        return s.SACT;
      case PORT.CI:
        return s.CI;
      default:
        return 0;
    }
  }

  write(register: number, value: number): void {
    const { s } = this;
    switch (register) {
      case PORT.CLB:
        s.CLB = value;
        break;
      case PORT.CLBU:
        s.CLBU = value;
        break;
      case PORT.FB:
        s.FB = value;
        break;
      case PORT.FBU:
        s.FBU = value;
        break;
      case PORT.IS:
        s.IS = (s.IS & ~value) >>> 0;
        this.#interruptsChanged();
        break;
      case PORT.IE:
        s.IE = (value & INTERRUPT_ENABLES) >>> 0;
        this.#interruptsChanged();
        break;
      case PORT.CMD:
        this.#writeCommand(value);
        break;
      case PORT.SCTL:
        if ((s.SCTL & DETECT.MASK) === DETECT.RESET && (value & DETECT.MASK) === 0) this.resetLink();
        s.SCTL = value;
        break;
      case PORT.SERR:
        s.SERR = (s.SERR & ~value) >>> 0;
        break;
      case PORT.SACT:
        s.SACT = (s.SACT | value) >>> 0;
        break;
      case PORT.CI:
        s.CI = (s.CI | value) >>> 0;
        this.#look = true;
        break;
    }
    this.settled();
  }

  /** The engines for commands and received FIS start and stop with ST and FRE (sections 10.3.1 and 10.3.2). */
  #writeCommand(value: number): void {
    const { s } = this;
    if ((s.CMD & ~value & COMMAND.ST) !== 0) {
      s.SACT = 0;
      s.CI = 0;
    }
    // A change of the interface's power state takes no time, so ICC reads as 0.
    s.CMD = ((s.CMD & COMMAND.READ_ONLY) | (value & ~(COMMAND.READ_ONLY | COMMAND.ICC))) >>> 0;
    if ((s.CMD & COMMAND.ST) === 0) s.CMD &= ~COMMAND.CR;
    else if ((s.CMD & COMMAND.CR) === 0) {
      s.CMD |= COMMAND.CR;
      s.list = s.CLB + s.CLBU * 2 ** 32;
    }
    if ((s.CMD & COMMAND.FRE) === 0) s.CMD &= ~COMMAND.FR;
    else if ((s.CMD & COMMAND.FR) === 0) {
      s.CMD |= COMMAND.FR;
      s.received = s.FB + s.FBU * 2 ** 32;
    }
    s.CMD >>>= 0;
    this.#sendSignature();
    this.#look = true;
  }

  interrupt(bits: number): void {
    this.s.IS = (this.s.IS | bits) >>> 0;
    this.#interruptsChanged();
  }

  /** HBA reset (section 10.4.3). */
  resetHba(): void {
    const { s } = this;
    s.IS = 0;
    s.IE = 0;
    s.SCTL = 0;
    s.CMD = COMMAND.SUD | COMMAND.POD;
    this.resetLink();
  }

  /** Power-on: also what an HBA reset leaves alone. */
  powerOn(): void {
    const { s } = this;
    s.CLB = 0;
    s.CLBU = 0;
    s.FB = 0;
    s.FBU = 0;
    s.list = 0;
    s.received = 0;
    s.slot = 0;
    s.options = 0;
    s.regions = 0;
    s.table = 0;
    s.transferred = 0;
    s.inData = false;
    this.resetHba();
  }

  /** COMRESET, or the end of a software reset: the device resets and sends its signature (section 10.4). */
  resetLink(): void {
    const { s } = this;
    this.channel.reset();
    this.#queue.reset();
    this.#look = false;
    s.SERR = 0;
    s.SACT = 0;
    s.TFD = NO_TASK_FILE;
    s.SIG = NO_SIGNATURE;
    s.CI = 0;
    s.busySlot = -1;
    s.signed = false;
    s.inReset = false;
    if (!this.#unit.present) return;
    const device = this.#unit.s;
    device.status = STATUS.DSC | STATUS.DF | (this.#unit.isCd ? STATUS.DRDY : 0);
    device.error = 1;
    this.#sendSignature();
  }

  #sendSignature(): void {
    const { s } = this;
    if (s.signed || (s.CMD & COMMAND.FR) === 0 || !this.#unit.present || !this.#sendRegisters(true)) return;
    const { lbaHigh, lbaMid, lbaLow, count } = this.#unit.s;
    s.signed = true;
    s.SIG = ((lbaHigh << 24) | (lbaMid << 16) | (lbaLow << 8) | (count & 0xff)) >>> 0;
  }

  // Received FIS (section 4.2.1)

  #receives(): boolean {
    return (this.s.CMD & (COMMAND.FR | COMMAND.FRE)) === (COMMAND.FR | COMMAND.FRE);
  }

  #deliver(at: number, length: number = FIS_SIZE): void {
    this.#dma.write(this.s.received + at, this.#fis, 0, length);
  }

  #putTaskFile(type: number, interrupts: boolean): Uint8Array {
    const d = this.#unit.s;
    const fis = this.#fis.fill(0);
    fis[0] = type;
    fis[1] = interrupts ? FIS_FLAG.INTERRUPT : 0;
    fis[2] = d.status;
    fis[3] = d.error;
    fis[4] = d.lbaLow;
    fis[5] = d.lbaMid;
    fis[6] = d.lbaHigh;
    fis[7] = d.device;
    fis[8] = d.hobLow;
    fis[9] = d.hobMid;
    fis[10] = d.hobHigh;
    fis[12] = d.count;
    fis[13] = d.count >> 8;
    return fis;
  }

  #shadow(): void {
    const { status, error } = this.#unit.s;
    this.s.TFD = (error << 8) | status;
    if ((status & STATUS.ERR) !== 0) this.interrupt(INTERRUPT.TFES);
  }

  /** Register FIS, device to host. False where the port does not receive. */
  #sendRegisters(interrupts: boolean): boolean {
    if (!this.#receives()) return false;
    this.#putTaskFile(FIS.REGISTER_TO_HOST, interrupts);
    this.#deliver(RECEIVED.REGISTER);
    this.#shadow();
    if (interrupts) this.interrupt(INTERRUPT.DHRS);
    return true;
  }

  #sendPioSetup(length: number, interrupts: boolean): void {
    if (!this.#receives()) return;
    const fis = this.#putTaskFile(FIS.PIO_SETUP, interrupts);
    fis[15] = this.#unit.s.status;
    fis[16] = length;
    fis[17] = length >> 8;
    this.#deliver(RECEIVED.PIO_SETUP);
    this.#shadow();
  }

  sendSetDeviceBits(finished: number): void {
    const { s } = this;
    if (!this.#receives()) return;
    const { status, error } = this.#unit.s;
    const shown = status & ~(STATUS.BSY | STATUS.DRQ);
    const fis = this.#fis.fill(0);
    fis[0] = FIS.SET_DEVICE_BITS;
    fis[1] = FIS_FLAG.INTERRUPT;
    fis[2] = shown;
    fis[3] = error;
    new DataView(fis.buffer).setUint32(4, finished, true);
    this.#deliver(RECEIVED.SET_DEVICE_BITS, 8);
    s.TFD = (error << 8) | shown | (s.TFD & (STATUS.BSY | STATUS.DRQ));
    s.SACT = (s.SACT & ~finished) >>> 0;
    this.interrupt((status & STATUS.ERR) !== 0 ? INTERRUPT.TFES : INTERRUPT.SDBS);
  }

  // Commands (section 5.3)

  /** Fetches commands that were issued; called where no code of the device's is under way. */
  settled(): void {
    if (this.#looking) return;
    this.#looking = true;
    const backend = this.#unit.medium?.backend;
    backend?.plug();
    try {
      while (this.#look) {
        this.#look = false;
        this.#fetchCommands();
      }
    } finally {
      backend?.unplug();
      this.#looking = false;
    }
  }

  #fetchCommands(): void {
    const { s } = this;
    for (let slot = 0; slot < SLOTS && s.CI !== 0 && (s.CMD & COMMAND.ST) !== 0; slot++) {
      if ((s.CI & (1 << slot)) !== 0) this.#fetch(slot);
    }
  }

  #fetch(slot: number): void {
    const { s } = this;
    if (this.#unit.busy || (s.CMD & COMMAND.CR) === 0 || !this.#unit.present) return;
    const header = this.#headerView;
    const at = s.list + slot * HEADER.SIZE;
    if (!this.#dma.read(at, this.#header)) this.#header.fill(0);
    s.slot = slot;
    s.options = header.getUint16(0, true);
    s.regions = header.getUint16(2, true);
    s.transferred = header.getUint32(HEADER.TRANSFERRED, true);
    s.table = header.getUint32(8, true) + header.getUint32(12, true) * 2 ** 32;
    if (!this.#dma.read(s.table, this.#command)) {
      this.interrupt(INTERRUPT.HBFS);
      return;
    }
    if (this.#command[0] === FIS.REGISTER_TO_DEVICE) this.#acceptRegisters(slot);
  }

  #acceptRegisters(slot: number): void {
    const { s } = this;
    const fis = this.#command;
    const flags = fis[1] ?? 0;
    if ((flags & FIS_FLAG.RESERVED) !== 0) return;
    if ((flags & FIS_FLAG.COMMAND) === 0) {
      this.#acceptControl(slot, fis[15] ?? 0);
      return;
    }
    const command = fis[2] ?? 0;
    if (isQueued(command)) {
      if (this.#queue.uses((fis[12] ?? 0) >> 3)) return;
      this.#clearIssue(slot);
      this.#sendRegisters(false);
      this.#queue.accept(fis, s.table, s.regions);
      return;
    }
    this.#loadTaskFile(fis);
    if ((s.options & OPTION.ATAPI) !== 0)
      this.#unit.s.buffer.set(fis.subarray(TABLE.PACKET, TABLE.PACKET + TABLE.PACKET_SIZE));
    s.inData = false;
    s.transferred = 0;
    this.#storeTransferred();
    s.busySlot = slot;
    this.#regions.start(s.table, s.regions);
    this.#unit.issue(command);
  }

  /** The Control register: a software reset is SRST in one FIS, and its absence in the next (section 10.4.1). */
  #acceptControl(slot: number, control: number): void {
    const { s } = this;
    const srst = (control & CONTROL.SRST) !== 0;
    if (!s.inReset && srst) {
      s.inReset = true;
      if ((s.options & OPTION.CLEAR_BUSY) !== 0) this.#clearIssue(slot);
    } else if (s.inReset && !srst) {
      this.resetLink();
    }
  }

  #loadTaskFile(fis: Uint8Array): void {
    const d = this.#unit.s;
    const at = (index: number): number => fis[index] ?? 0;
    d.features = at(3);
    d.lbaLow = at(4);
    d.lbaMid = at(5);
    d.lbaHigh = at(6);
    d.device = at(7);
    d.hobLow = at(8);
    d.hobMid = at(9);
    d.hobHigh = at(10);
    d.hobFeatures = at(11);
    d.count = at(12) | (at(13) << 8);
    d.hobCount = at(13);
    d.error = 0;
  }

  /**
   * A command leaves PxCI when it has ended, one that failed as well: as QEMU 7.2's does. The specification (section 6.2.2.1)
   * lets a failed one stand there until the host stops the list, and drivers take either.
   */
  #clearIssue(slot: number): void {
    this.s.CI = (this.s.CI & ~(1 << slot)) >>> 0;
  }

  #storeTransferred(): void {
    const { s } = this;
    this.#dma.write32(s.list + s.slot * HEADER.SIZE + HEADER.TRANSFERRED, s.transferred);
  }

  // The device's side

  /** Moves a PIO phase's data (section 5.3.8); only data to the host, or after the first part, interrupts. */
  pioTransfer(unit: AtaUnit): void {
    const { s } = this;
    const length = unit.s.end - unit.s.at;
    const isWrite = (s.options & OPTION.WRITE) !== 0;
    const isPacket = (s.options & OPTION.ATAPI) !== 0;
    const interrupts = s.inData || (!isPacket && !isWrite);
    this.#sendPioSetup(length, interrupts);
    // The packet itself came with the command table.
    if (!isPacket || s.inData) {
      this.prepare(unit, length);
      if (isWrite) unit.list.copyFrom(unit.s.buffer, unit.s.at);
      else unit.list.copyTo(unit.s.buffer, unit.s.at);
      unit.commit(length);
    }
    unit.s.at = unit.s.end;
    s.inData = true;
    if (interrupts) this.interrupt(INTERRUPT.PSS);
  }

  startDma(unit: AtaUnit): void {
    unit.s.dmaOffset = 0;
    this.#regions.start(this.s.table, this.s.regions);
    unit.dmaStarted();
  }

  prepare(unit: AtaUnit, limit: number): number {
    this.#regions.take(unit.list, unit.s.dmaOffset, limit);
    return unit.list.length;
  }

  commit(_unit: AtaUnit, bytes: number): void {
    this.s.transferred = (this.s.transferred + bytes) >>> 0;
    this.#storeTransferred();
  }

  copyOut(unit: AtaUnit, at: number, length: number): boolean {
    if (this.prepare(unit, length) === 0) return false;
    unit.list.copyTo(unit.s.buffer, at, length);
    unit.commit(length);
    return true;
  }

  setInactive(): void {}

  commandDone(): void {
    const { s } = this;
    if (s.busySlot >= 0) {
      this.#clearIssue(s.busySlot);
      s.busySlot = -1;
    }
    this.#sendRegisters(true);
    if (s.CI !== 0) this.#look = true;
  }

  restartDma(): void {}

  restart(): void {
    this.#queue.restart();
  }

  reset(): void {}

  /** State is back: the descriptors are read from their beginning again. */
  restored(): void {
    this.#regions.start(this.s.table, this.s.regions);
  }
}
