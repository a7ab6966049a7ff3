import { errno } from '../../core/block/io-error.ts';
import { IoVector } from '../../core/block/io-vector.ts';
import { BLOCK, putMsf, RAW_BLOCK } from '../mmc/disc.ts';
import { DiskCommands, type Handler } from './disk.ts';
import { identifyPacketDevice } from './identify.ts';
import { ASC, MmcCommands, SENSE } from './mmc.ts';
import { COMMAND, ERROR, REASON, SECTOR, STATUS } from './task-file.ts';
import { type AtaUnit, PACKET_SIZE } from './unit.ts';

const RAW_DATA_AT = 16;
const BLOCK_SECTORS = BLOCK / SECTOR;
/** Blocks that one DMA request reads at most. */
const DMA_BLOCKS = 64;
/** Features of PACKET (ATA/ATAPI-6, section 8.23.3). */
const FEATURE_DMA = 0x01;
const FEATURE_OVERLAPPED = 0x02;

/** A packet device: the ATA commands that it has, and the phases of a packet command (ATA/ATAPI-6, section 9.10). */
export class PacketCommands {
  readonly #unit: AtaUnit;
  readonly #mmc: MmcCommands;
  readonly #common: DiskCommands;
  readonly #vector = new IoVector();

  constructor(unit: AtaUnit) {
    this.#unit = unit;
    this.#common = new DiskCommands(unit);
    this.#mmc = new MmcCommands(unit, this);
  }

  handler(command: number): Handler | undefined {
    switch (command) {
      case COMMAND.DEVICE_RESET:
        return () => this.#deviceReset();
      case COMMAND.READ_SECTORS:
      case COMMAND.IDENTIFY:
        return () => this.#refuseWithSignature();
      case COMMAND.EXECUTE_DIAGNOSTIC:
      case COMMAND.FLUSH_CACHE:
      case COMMAND.SET_FEATURES:
        return this.#common.handler(command);
      case COMMAND.PACKET:
        return () => this.#acceptPacket();
      case COMMAND.IDENTIFY_PACKET:
        return () => this.#identify();
      default:
        return undefined;
    }
  }

  /** Also with another command under way; the status is all zero afterwards (section 8.10). */
  #deviceReset(): boolean {
    const unit = this.#unit;
    unit.halt();
    unit.reset();
    unit.s.status = 0;
    return false;
  }

  /** How a host that asks for a disk learns that this is none (sections 8.15.5 and 8.27.5). */
  #refuseWithSignature(): boolean {
    this.#unit.setSignature();
    this.#unit.abort();
    return true;
  }

  #identify(): boolean {
    const unit = this.#unit;
    const { s, medium } = unit;
    if (medium === undefined) return this.#refuseWithSignature();
    if (!s.identified) {
      identifyPacketDevice(s.identity, { ...medium, queueDepth: unit.queueDepth });
      s.identified = true;
    }
    s.buffer.set(s.identity);
    s.status = STATUS.DRDY | STATUS.DSC;
    unit.startPhase(0, SECTOR, 'stop');
    unit.channel.raiseIrq();
    return false;
  }

  #acceptPacket(): boolean {
    const unit = this.#unit;
    const { s } = unit;
    if ((s.features & FEATURE_OVERLAPPED) !== 0) {
      unit.abort();
      return true;
    }
    s.status = STATUS.DRDY | STATUS.DSC;
    s.packetDma = (s.features & FEATURE_DMA) !== 0;
    if (s.packetDma) s.dmaCommand = 'packet';
    s.count = REASON.CD;
    unit.startPhase(0, PACKET_SIZE, 'packet');
    return false;
  }

  /** The packet is in the buffer, which its data will overwrite. */
  accepted(): void {
    const { s } = this.#unit;
    s.packet.set(s.buffer.subarray(0, PACKET_SIZE));
    this.execute();
  }

  /** Carries out the packet; also once more, after it failed. */
  execute(): void {
    this.#mmc.execute(this.#unit.s.packet);
  }

  // How commands end

  ok(): void {
    const { s } = this.#unit;
    s.error = 0;
    s.status = STATUS.DRDY | STATUS.DSC;
    this.#end();
  }

  /** CHECK CONDITION. */
  error(sense: number, asc: number): void {
    const { s } = this.#unit;
    s.error = sense << 4;
    s.status = STATUS.DRDY | STATUS.ERR;
    s.senseKey = sense;
    s.asc = asc;
    this.#end();
  }

  /** A unit attention is pending: REQUEST SENSE tells what it is. */
  attention(): void {
    const unit = this.#unit;
    unit.s.error = ERROR.MC | (SENSE.UNIT_ATTENTION << 4);
    unit.s.status = STATUS.ERR;
    unit.s.count = 0;
    unit.channel.raiseIrq();
  }

  ioError(error: number): void {
    if (error === errno.ENOMEDIUM) this.error(SENSE.NOT_READY, ASC.MEDIUM_NOT_PRESENT);
    else this.error(SENSE.ILLEGAL_REQUEST, ASC.BLOCK_OUT_OF_RANGE);
  }

  #end(): void {
    const unit = this.#unit;
    this.#reason(REASON.IO | REASON.CD);
    unit.stop();
    unit.channel.raiseIrq();
  }

  #reason(reason: number): void {
    const { s } = this.#unit;
    s.count = (s.count & ~REASON.MASK) | reason;
  }

  /** How much the host takes between two interrupts (section 8.23.4). */
  #byteCountLimit(): number {
    const { s } = this.#unit;
    const limit = s.lbaMid | (s.lbaHigh << 8);
    return limit === 0xffff ? 0xfffe : limit;
  }

  /** Whether a command with data may go on; without a limit for PIO it is aborted. */
  acceptsData(): boolean {
    if (this.#unit.s.packetDma || this.#byteCountLimit() !== 0) return true;
    this.#unit.abort();
    return false;
  }

  /** Answers with `size` bytes from the start of the buffer. */
  reply(size: number, maxSize: number): void {
    const unit = this.#unit;
    const { s } = unit;
    s.block = -1;
    s.packetLeft = Math.min(size, maxSize);
    s.described = s.packetLeft;
    s.bufferIndex = 0;
    if (s.packetDma) {
      s.status = STATUS.DRDY | STATUS.DSC | STATUS.DRQ;
      unit.startDma('packet');
    } else {
      s.status = STATUS.DRDY | STATUS.DSC;
      this.continueReply();
    }
  }

  /** Answers with blocks of the medium, which are known to be there. */
  read(block: number, count: number, blockSize: number): void {
    const unit = this.#unit;
    const { s } = unit;
    s.block = block;
    s.packetLeft = count * blockSize;
    s.blockSize = blockSize;
    if (s.packetDma) {
      s.described = 0;
      s.status = STATUS.DRDY | STATUS.DSC | STATUS.DRQ | STATUS.BSY;
      unit.startDma('packet');
    } else {
      s.described = 0;
      s.bufferIndex = 0;
      this.continueReply();
    }
  }

  // PIO

  /**
   * The next part of a reply, between two interrupts. All of it is in the buffer before the host hears of it: the host reads a
   * part without looking at BSY again (section 9.10, state HP4).
   */
  continueReply(): void {
    const unit = this.#unit;
    const { s } = unit;
    if (s.packetLeft <= 0) {
      this.ok();
      return;
    }
    const limit = this.#byteCountLimit();
    // All parts but the last are of even length.
    const size = s.packetLeft > limit ? Math.max(2, limit & ~1) : s.packetLeft;
    const missing = size - (s.described - s.bufferIndex);
    if (missing > 0 && s.block >= 0) {
      this.#readBlocks(Math.ceil(missing / s.blockSize));
      return;
    }
    this.#reason(REASON.IO);
    unit.channel.raiseIrq();
    s.lbaMid = size & 0xff;
    s.lbaHigh = (size >> 8) & 0xff;
    s.packetLeft -= size;
    s.bufferIndex += size;
    unit.startPhase(s.bufferIndex - size, size, 'reply');
  }

  /** Reads blocks behind what is left of the last one. */
  #readBlocks(count: number): void {
    const unit = this.#unit;
    const { s, medium } = unit;
    if (medium === undefined) return;
    const { buffer, blockSize } = s;
    buffer.copyWithin(0, s.bufferIndex, s.described);
    const rest = s.described - s.bufferIndex;
    s.bufferIndex = 0;
    s.described = rest;
    const raw = blockSize === RAW_BLOCK;
    s.status |= STATUS.BSY;
    const vector = this.#vector.clear();
    for (let index = 0; index < count; index++)
      vector.add(buffer, rest + index * blockSize + (raw ? RAW_DATA_AT : 0), BLOCK);
    unit.request(medium.backend.readv(s.block * BLOCK, vector), error => {
      s.status &= ~STATUS.BSY;
      if (error !== 0) {
        this.ioError(error);
        return;
      }
      if (raw) for (let index = 0; index < count; index++) this.#frame(rest + index * RAW_BLOCK, s.block + index);
      s.block += count;
      s.described = rest + count * blockSize;
      this.continueReply();
    });
  }

  /** Makes a raw block of mode 1 of the data that is in the buffer from `at` on; without its error correction. */
  #frame(at: number, block: number): void {
    const { buffer } = this.#unit.s;
    buffer[at] = 0;
    buffer.fill(0xff, at + 1, at + 11);
    buffer[at + 11] = 0;
    putMsf(buffer, at + 12, block);
    buffer[at + 15] = 1;
    buffer.fill(0, at + RAW_DATA_AT + BLOCK, at + RAW_BLOCK);
  }

  // DMA

  /** The host's engine has started. `described` is what waits in the buffer. */
  runDma(): void {
    const unit = this.#unit;
    const { s } = unit;
    if (s.described > 0) {
      s.packetLeft -= s.described;
      if (!unit.transport.copyOut(unit, 0, s.described)) {
        unit.setInactive(false);
        return;
      }
    }
    if (s.packetLeft <= 0) {
      s.status = STATUS.DRDY | STATUS.DSC;
      this.#reason(REASON.IO | REASON.CD);
      unit.channel.raiseIrq();
      unit.setInactive(false);
      return;
    }
    this.#readForDma();
  }

  #readForDma(): void {
    const unit = this.#unit;
    const { s, medium } = unit;
    if (medium === undefined || s.block < 0) return;
    const raw = s.blockSize === RAW_BLOCK;
    const blocks = raw ? 1 : Math.min(DMA_BLOCKS, Math.floor(s.packetLeft / BLOCK));
    const vector = this.#vector.clear().add(s.buffer, raw ? RAW_DATA_AT : 0, blocks * BLOCK);
    unit.request(medium.backend.readv(s.block * BLOCK, vector), error => {
      if (error !== 0 && unit.failed(error, 'packet')) {
        if (unit.channel.s.retry === 'none') unit.setInactive(false);
        return;
      }
      if (raw) this.#frame(0, s.block);
      s.block += blocks;
      s.described = raw ? RAW_BLOCK : blocks * BLOCK;
      this.runDma();
    });
  }

  /** Blocks of 2,048 bytes. */
  get blocks(): number {
    return Math.floor(this.#unit.sectorCount / BLOCK_SECTORS);
  }
}
