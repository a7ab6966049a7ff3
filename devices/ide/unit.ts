import { type BlockBackend, type IoResult, whenDone } from '../../core/block/backend.ts';
import { settleTransfers } from '../../core/block/host-transfer.ts';
import type { Dma } from '../../core/memory/dma.ts';
import { field, type StateField, type StateValues } from '../../core/state/fields.ts';
import type { AtaChannel } from './channel.ts';
import { DiskCommands } from './disk.ts';
import { PacketCommands } from './packet.ts';
import { ScatterList } from './scatter-list.ts';
import { Smart, smartState } from './smart.ts';
import { COMMAND, DEVICE, ERROR, MAX_MULTIPLE, REG, SECTOR, STATUS } from './task-file.ts';
import type { AtaTransport, Retry } from './transport.ts';

/** What is connected: a disk or a packet device, who it says it is, and its medium. */
export interface AtaMedium {
  readonly kind: 'disk' | 'cd';
  readonly backend: BlockBackend;
  readonly serial: string;
  readonly version: string;
  readonly model: string;
  readonly wwn: bigint;
  readonly trim: boolean;
  readonly rotationRate: number;
  /** log2 of logical sectors in a physical one. */
  readonly physicalExponent: number;
  readonly cylinders: number;
  readonly heads: number;
  readonly sectors: number;
  /** The guest opened or closed the tray. */
  trayMoved(open: boolean): void;
}

/** Sectors of the largest piece that goes through the buffer. */
const BUFFER_SECTORS = 256;
export const PACKET_SIZE = 12;
export const BUFFER_SIZE = BUFFER_SECTORS * SECTOR + 4;

/** What happens when the data of a PIO phase has been moved. */
export const PHASES = ['idle', 'stop', 'read', 'write', 'packet', 'reply'] as const;
export type Phase = (typeof PHASES)[number];

export type DmaCommand = 'dma-read' | 'dma-write' | 'trim' | 'packet';

/** A buffer that is saved without the zeroes at its end. */
const buffer: StateField<Uint8Array> = {
  initial: () => new Uint8Array(BUFFER_SIZE),
  save(value) {
    let end = value.length;
    while (end > 0 && value[end - 1] === 0) end--;
    return value.slice(0, end);
  },
  load(saved, where) {
    const bytes = new Uint8Array(BUFFER_SIZE);
    bytes.set(field.buffer(BUFFER_SIZE).load(saved, where));
    return bytes;
  },
};

/** The state of one of a channel's two places, whether a drive is there or not. */
export const unitState = {
  // Registers. Each keeps the value before its last as the high-order byte of 48-bit commands.
  features: field.u8(),
  error: field.u8(1),
  /** Wider than the register while a command runs: sectors that are left. */
  count: field.u32(1),
  lbaLow: field.u8(1),
  lbaMid: field.u8(),
  lbaHigh: field.u8(),
  hobFeatures: field.u8(),
  hobCount: field.u8(),
  hobLow: field.u8(),
  hobMid: field.u8(),
  hobHigh: field.u8(),
  device: field.u8(DEVICE.OBSOLETE),
  status: field.u8(STATUS.DRDY | STATUS.DSC),
  lba48: field.bool(),
  // Settings
  heads: field.u16(),
  sectors: field.u16(),
  revertOnReset: field.bool(),
  multiple: field.u8(MAX_MULTIPLE),
  /** Made at the first IDENTIFY; SET FEATURES changes it. */
  identity: field.bytes(SECTOR),
  identified: field.bool(),
  // PIO: where in the buffer the phase is, and what comes after it
  buffer,
  at: field.u32(),
  end: field.u32(),
  phase: field.oneOf(PHASES, 'idle'),
  /** Sectors between two interrupts. */
  perPhase: field.u16(),
  // DMA
  dmaCommand: field.oneOf(['dma-read', 'dma-write', 'trim', 'packet'] as const, 'dma-read'),
  /** Bytes that the descriptors describe, and how far the command has come among them. */
  described: field.number(),
  dmaOffset: field.number(),
  // Packet devices
  packet: field.bytes(PACKET_SIZE),
  senseKey: field.u8(),
  asc: field.u8(),
  trayOpen: field.bool(),
  trayLocked: field.bool(),
  /** 1: removal to be reported, 2: and then the new medium. */
  changed: field.u8(),
  newMedium: field.bool(),
  ejectRequest: field.bool(),
  /** Bytes of the reply that are left, and of its part between two interrupts. */
  packetLeft: field.number(),
  bufferIndex: field.u32(),
  /** The next block of a read, or -1 for a reply from the buffer. */
  block: field.number(-1),
  blockSize: field.u16(),
  packetDma: field.bool(),
  smart: field.record(smartState),
};

export type UnitState = StateValues<typeof unitState>;

/** Registers and phases of one drive; what its commands do is in {@link DiskCommands} and {@link PacketCommands}. */
export class AtaUnit {
  readonly s: UnitState;
  readonly channel: AtaChannel;
  readonly index: number;
  /** Commands that a SATA host may queue; 0 without NCQ. */
  readonly queueDepth: number;
  readonly smart: Smart;
  readonly #dma: Dma;
  readonly #disk: DiskCommands;
  readonly #packet: PacketCommands;
  /** Memory of the DMA command. */
  list: ScatterList;
  #medium: AtaMedium | undefined;
  /** Changes when requests that are under way are to be forgotten. */
  #epoch = 0;
  #requests = 0;
  #next: Phase | undefined;
  #continuing = false;

  constructor(channel: AtaChannel, index: number, state: UnitState, dma: Dma, queueDepth: number) {
    this.channel = channel;
    this.index = index;
    this.s = state;
    this.queueDepth = queueDepth;
    this.#dma = dma;
    this.list = new ScatterList(dma);
    this.smart = new Smart(() => this.s.smart);
    this.#disk = new DiskCommands(this);
    this.#packet = new PacketCommands(this);
  }

  get medium(): AtaMedium | undefined {
    return this.#medium;
  }

  get present(): boolean {
    return this.#medium !== undefined;
  }

  get isCd(): boolean {
    return this.#medium?.kind === 'cd';
  }

  get transport(): AtaTransport {
    return this.channel.transport;
  }

  /** Sectors of 512 bytes; 0 without a medium. */
  get sectorCount(): number {
    return Math.floor((this.#medium?.backend.length ?? 0) / SECTOR);
  }

  get requestsUnderWay(): boolean {
    return this.#requests > 0;
  }

  connect(medium: AtaMedium): void {
    this.#medium = medium;
    this.s.heads = medium.heads;
    this.s.sectors = medium.sectors;
    this.s.identified = false;
    this.reset();
  }

  /** The medium came (`inserted`) or went; the guest learns of it with its next command. */
  mediumChanged(inserted: boolean): void {
    const { s } = this;
    s.trayOpen = !inserted;
    s.changed = 1;
    s.newMedium = true;
    s.ejectRequest = false;
    this.channel.raiseIrq();
  }

  /** Somebody wants the medium; `force` unlocks the tray. */
  ejectRequested(force: boolean): void {
    this.s.ejectRequest = true;
    if (force) this.s.trayLocked = false;
    this.channel.raiseIrq();
  }

  /** The machine goes on after it stopped for an error. */
  resumed(): void {
    if (this.channel.selected === this) this.channel.resumed();
  }

  resized(): void {
    this.#disk.resized();
  }

  disconnect(): void {
    this.#forgetRequests();
    this.#medium = undefined;
  }

  /** Power-on or hardware reset. */
  reset(): void {
    const { s } = this;
    this.#forgetRequests();
    if (s.revertOnReset && this.#medium !== undefined) {
      s.heads = this.#medium.heads;
      s.sectors = this.#medium.sectors;
    }
    s.revertOnReset = false;
    s.multiple = MAX_MULTIPLE;
    s.features = 0;
    s.error = 0;
    s.hobFeatures = 0;
    s.hobCount = 0;
    s.hobLow = 0;
    s.hobMid = 0;
    s.hobHigh = 0;
    s.device = DEVICE.OBSOLETE;
    s.status = STATUS.DRDY | STATUS.DSC;
    s.lba48 = false;
    s.senseKey = 0;
    s.asc = 0;
    s.changed = 0;
    s.packetLeft = 0;
    s.bufferIndex = 0;
    s.blockSize = 0;
    s.packetDma = false;
    s.trayOpen = false;
    s.trayLocked = false;
    s.described = 0;
    s.perPhase = 0;
    s.at = 0;
    s.end = 0;
    s.phase = 'idle';
    this.setSignature();
  }

  /** Bit SRST of the Device Control register (section 9.2). */
  softwareReset(): void {
    this.halt();
    this.reset();
    this.diagnose();
  }

  /** What identifies the kind of drive (section 9.12); all ones where none is. */
  setSignature(): void {
    const { s } = this;
    s.device &= ~DEVICE.HEAD;
    s.count = 1;
    s.lbaLow = 1;
    const kind = this.#medium?.kind;
    s.lbaMid = kind === 'cd' ? 0x14 : kind === 'disk' ? 0 : 0xff;
    s.lbaHigh = kind === 'cd' ? 0xeb : kind === 'disk' ? 0 : 0xff;
  }

  /** EXECUTE DEVICE DIAGNOSTIC: all passed (section 8.11). A packet device shows no DRDY (section 9.10). */
  diagnose(): void {
    const { s } = this;
    s.device = DEVICE.OBSOLETE;
    this.setSignature();
    s.error = 1;
    if (this.isCd) {
      s.status = 0;
      return;
    }
    s.status = STATUS.DRDY | STATUS.DSC;
    this.channel.raiseIrq();
  }

  // Registers (section 7)

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

  /** What was in the register becomes the high-order byte of a 48-bit command (section 6.20). */
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
      case REG.DEVICE:
        s.device = value | DEVICE.OBSOLETE;
        break;
    }
  }

  get busy(): boolean {
    return (this.s.status & (STATUS.BSY | STATUS.DRQ)) !== 0;
  }

  /** A write to the Command register. Only DEVICE RESET, and only to a packet device, interrupts another command. */
  issue(command: number): void {
    const { s } = this;
    if (this.index !== 0 && !this.present) return;
    if (this.busy && !(command === COMMAND.DEVICE_RESET && this.isCd)) return;
    // What a stopped bus master has left behind ends without anybody hearing of it.
    this.#forgetRequests();
    const handler = this.isCd ? this.#packet.handler(command) : this.#disk.handler(command);
    if (handler === undefined) {
      this.abort();
      this.channel.raiseIrq();
      return;
    }
    s.status = STATUS.DRDY | STATUS.BSY;
    s.error = 0;
    s.dmaOffset = 0;
    if (!handler(command)) return;
    s.status &= ~STATUS.BSY;
    this.transport.commandDone();
    this.channel.raiseIrq();
  }

  /** Ends a command that the drive does not carry out; the interrupt is the caller's. */
  abort(): void {
    this.s.status = STATUS.DRDY | STATUS.ERR;
    this.s.error = ERROR.ABRT;
    this.stop();
  }

  // Addresses (section 6.2)

  get lba(): number {
    const { s } = this;
    const low = s.lbaLow | (s.lbaMid << 8) | (s.lbaHigh << 16);
    if ((s.device & DEVICE.LBA) === 0) {
      const track = (s.lbaMid | (s.lbaHigh << 8)) * s.heads + (s.device & DEVICE.HEAD);
      return track * s.sectors + s.lbaLow - 1;
    }
    if (!s.lba48) return (s.device & DEVICE.HEAD) * 2 ** 24 + low;
    return (s.hobHigh * 0x1_0000 + (s.hobMid << 8) + s.hobLow) * 2 ** 24 + low;
  }

  set lba(lba: number) {
    const { s } = this;
    if ((s.device & DEVICE.LBA) === 0) {
      const perTrack = Math.max(1, s.sectors);
      const perCylinder = Math.max(1, s.heads) * perTrack;
      const cylinder = Math.floor(lba / perCylinder);
      s.lbaMid = cylinder & 0xff;
      s.lbaHigh = (cylinder >> 8) & 0xff;
      s.device = (s.device & ~DEVICE.HEAD) | (Math.floor((lba % perCylinder) / perTrack) & DEVICE.HEAD);
      s.lbaLow = (((lba % perCylinder) % perTrack) + 1) & 0xff;
      return;
    }
    const high = Math.floor(lba / 2 ** 24);
    s.lbaLow = lba & 0xff;
    s.lbaMid = (lba >>> 8) & 0xff;
    s.lbaHigh = (lba >>> 16) & 0xff;
    if (s.lba48) {
      s.hobLow = high & 0xff;
      s.hobMid = (high >>> 8) & 0xff;
      s.hobHigh = (high >>> 16) & 0xff;
    } else {
      s.device = (s.device & ~DEVICE.HEAD) | (high & DEVICE.HEAD);
    }
  }

  inRange(lba: number, sectors: number): boolean {
    return lba >= 0 && lba + sectors <= this.sectorCount;
  }

  /** Settles the width of the address, and what a count of 0 means. */
  takeCount(lba48: boolean): void {
    const { s } = this;
    s.lba48 = lba48;
    if (lba48) s.count = (s.hobCount << 8) | (s.count & 0xff) || 0x1_0000;
    // A SATA host gives 16 bits in any case.
    else s.count ||= 0x100;
  }

  /** Moves on by `sectors` that are transferred. */
  advance(sectors: number): void {
    this.lba += sectors;
    this.s.count -= sectors;
  }

  // PIO phases

  /** Offers `length` bytes of the buffer from `at` to the host, or asks it for as many; `phase` is what comes after. */
  startPhase(at: number, length: number, phase: Phase): void {
    const { s, transport } = this;
    s.at = at;
    s.end = at + length;
    this.channel.rememberForRetry(this);
    if ((s.status & STATUS.ERR) === 0) s.status |= STATUS.DRQ;
    s.phase = phase;
    if (transport.pioTransfer === undefined) return;
    transport.pioTransfer(this);
    this.#continue(phase);
  }

  /** No more data; the command is not yet over. */
  halt(): void {
    const { s } = this;
    s.phase = 'stop';
    s.at = 0;
    s.end = 0;
    s.status &= ~STATUS.DRQ;
  }

  stop(): void {
    this.halt();
    this.transport.commandDone();
  }

  /** Whether the data of the phase goes to the host. */
  get toHost(): boolean {
    return this.s.phase !== 'write' && this.s.phase !== 'packet';
  }

  readData(size: number): number {
    const { s } = this;
    if ((s.status & STATUS.DRQ) === 0 || !this.toHost || s.at + size > s.end) return 0;
    const { buffer: bytes, at } = s;
    let value = (bytes[at] ?? 0) | ((bytes[at + 1] ?? 0) << 8);
    if (size === 4) value = (value | ((bytes[at + 2] ?? 0) << 16) | ((bytes[at + 3] ?? 0) << 24)) >>> 0;
    this.#moved(size);
    return value;
  }

  writeData(size: number, value: number): void {
    const { s } = this;
    if ((s.status & STATUS.DRQ) === 0 || this.toHost || s.at + size > s.end) return;
    const { buffer: bytes, at } = s;
    bytes[at] = value;
    bytes[at + 1] = value >>> 8;
    if (size === 4) {
      bytes[at + 2] = value >>> 16;
      bytes[at + 3] = value >>> 24;
    }
    this.#moved(size);
  }

  #moved(size: number): void {
    const { s } = this;
    s.at += size;
    if (s.at < s.end) return;
    s.status &= ~STATUS.DRQ;
    this.#continue(s.phase);
  }

  /** What comes after a phase. A loop, because a host that moves the data by itself makes it follow at once. */
  #continue(phase: Phase): void {
    this.#next = phase;
    if (this.#continuing) return;
    this.#continuing = true;
    while (this.#next !== undefined) {
      const next: Phase = this.#next;
      this.#next = undefined;
      this.#after(next);
    }
    this.#continuing = false;
  }

  #after(phase: Phase): void {
    switch (phase) {
      case 'idle':
        break;
      case 'stop':
        this.stop();
        break;
      case 'read':
        this.#disk.readPart();
        break;
      case 'write':
        this.#disk.writePart();
        break;
      case 'packet':
        this.#packet.accepted();
        break;
      case 'reply':
        this.#packet.continueReply();
        break;
    }
  }

  // DMA

  /** Begins a command's data transfer by DMA. */
  startDma(command: DmaCommand): void {
    this.s.dmaCommand = command;
    this.channel.rememberForRetry(this);
    this.transport.startDma(this);
  }

  /** Software has started the engine. */
  dmaStarted(): void {
    if (this.requestsUnderWay) return;
    if (this.s.dmaCommand === 'packet') this.#packet.runDma();
    else this.#disk.runDma();
  }

  setInactive(more: boolean): void {
    this.channel.forgetRetry();
    this.transport.setInactive(more);
    this.transport.commandDone();
  }

  dmaFailed(): void {
    this.commit(0);
    this.abort();
    this.setInactive(false);
    this.channel.raiseIrq();
  }

  commit(bytes: number): void {
    this.transport.commit(this, bytes);
    this.s.dmaOffset += bytes;
    this.list.clear();
  }

  /**
   * Software has stopped the engine. What a disk has begun counts as done, as if the stop had come a little later; a
   * packet command fails.
   */
  dmaStopped(): void {
    if (!this.requestsUnderWay) return;
    this.#forgetRequests();
    if (this.s.dmaCommand === 'packet') {
      this.#packet.ioError(0);
      this.setInactive(false);
    } else {
      this.#disk.dmaDone();
    }
  }

  // Requests to the backend

  /** Calls `settled` when a request is over, and `then` with its result, unless a reset has come in between. */
  request(result: IoResult, then: (error: number) => void, settled?: () => void): void {
    if (typeof result === 'number') {
      settled?.();
      then(result);
      return;
    }
    const epoch = this.#epoch;
    this.#requests++;
    whenDone(result, error => {
      settled?.();
      if (epoch !== this.#epoch) return;
      this.#requests--;
      then(error);
      this.transport.settled?.();
    });
  }

  /**
   * A request failed: does what the policy says. True where the command is over, or waits for the machine to go on; false
   * where the error is to be ignored.
   */
  failed(error: number, retry: Retry): boolean {
    const backend = this.#medium?.backend;
    if (backend === undefined) return true;
    const isRead = retry === 'pio-read' || retry === 'dma-read' || retry === 'packet';
    const action = backend.errorAction(isRead, error);
    if (action === 'stop') this.channel.retryLater(retry);
    else if (action === 'report') {
      if (retry === 'packet') this.#packet.ioError(error);
      else if (retry === 'dma-read' || retry === 'dma-write' || retry === 'trim') this.dmaFailed();
      else {
        this.abort();
        this.channel.raiseIrq();
      }
    }
    backend.requestFailed(isRead, error);
    return action !== 'ignore';
  }

  /** Tries again what failed. */
  retry(kind: Retry): void {
    const { s, transport } = this;
    switch (kind) {
      case 'none':
        break;
      case 'pio-read':
        this.#disk.readPart();
        break;
      case 'pio-write':
        this.#disk.writePart();
        break;
      case 'flush':
        this.#disk.flush();
        break;
      case 'queued':
        transport.restart();
        break;
      case 'packet':
        transport.restartDma();
        this.#packet.execute();
        break;
      default:
        this.channel.recallForRetry(this);
        transport.restartDma();
        s.described = 0;
        this.startDma(kind);
    }
  }

  #forgetRequests(): void {
    if (this.#requests === 0) return;
    this.#epoch++;
    this.#requests = 0;
    settleTransfers();
    // What is copied there when the request ends is not for the next one.
    this.list = new ScatterList(this.#dma);
    this.s.buffer = this.s.buffer.slice();
  }
}
