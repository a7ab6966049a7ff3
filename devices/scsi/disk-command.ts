import { UNMAP as UNMAPPING } from '../../core/block/accounting.ts';
import { IoVector } from '../../core/block/io-vector.ts';
import { writeFlag } from '../../core/block/requests.ts';
import { isZero } from '../../core/memory/zero.ts';
import { OP, STATUS } from '../../core/scsi/command.ts';
import { CHUNK } from '../../core/scsi/scsi-request.ts';
import { putSense, SENSE, type Sense } from '../../core/scsi/sense.ts';
import { CD_BYTES } from '../mmc/disc.ts';
import {
  discInformation,
  dvdStructure,
  eventStatus,
  mechanismStatus,
  PROFILE,
  putProfiles,
  readToc,
} from '../mmc/reports.ts';
import { DiskRequest } from './disk-request.ts';
import { standardInquiry, vitalProductData } from './inquiry.ts';
import { modeSelect, modeSense } from './mode-pages.ts';

/** Commands that need no medium; the others are refused without one. */
const WITHOUT_MEDIUM: ReadonlySet<number> = new Set([
  OP.INQUIRY,
  OP.MODE_SENSE_6,
  OP.MODE_SENSE_10,
  OP.RESERVE_6,
  OP.RESERVE_10,
  OP.RELEASE_6,
  OP.RELEASE_10,
  OP.START_STOP_UNIT,
  OP.PREVENT_ALLOW_MEDIUM_REMOVAL,
  OP.GET_CONFIGURATION,
  OP.GET_EVENT_STATUS,
  OP.MECHANISM_STATUS,
  OP.REQUEST_SENSE,
]);

/** What such a command may bring or take at most. */
const DATA_MAX = 0x1_0000;
const READ_CAPACITY_16 = 0x10;
const MAX_32 = 0xffff_ffff;
/** WRITE SAME (SBC-3, section 5.48): bits of byte 1. */
const WRITE_SAME = { NDOB: 0x01, UNMAP: 0x08, REFUSED: 0x16 } as const;
const UNMAP_HEADER = 8;
const UNMAP_DESCRIPTOR = 16;
const WHOLE_DVD_STRUCTURES = 0xff;

/** Goes on by itself: the command ends, or has ended already. */
const LATER = 'later';
type Answer = Sense | undefined | typeof LATER;

/** The commands of disks and CD-ROM drives but those of {@link DiskTransfer}. */
export class DiskCommand extends DiskRequest {
  protected override send(): number {
    const { command, disk } = this;
    if (!WITHOUT_MEDIUM.has(command.opcode) && !disk.backend.available) {
      this.checkCondition(SENSE.MEDIUM_NOT_PRESENT);
      return 0;
    }
    if (command.transfer > DATA_MAX) {
      this.checkCondition(SENSE.INVALID_FIELD);
      return 0;
    }
    this.device.takeBuffer(this);
    this.buffer.fill(0, 0, Math.max(4096, command.transfer));
    const answer = this.#run();
    if (answer === LATER) return 0;
    if (answer !== undefined) {
      this.checkCondition(answer);
      return 0;
    }
    this.left = command.transfer;
    if (this.left === 0) this.complete(STATUS.GOOD);
    return command.direction === 'out' ? -this.left : this.left;
  }

  /** The rest of the allocation length is zeroes. */
  protected override readData(): void {
    const length = this.left;
    if (length === 0) {
      this.complete(STATUS.GOOD);
      return;
    }
    this.left = 0;
    this.offer(length);
  }

  protected override get bufferUse(): number {
    return this.command.transfer;
  }

  protected override writeData(): void {
    const length = this.left;
    if (length !== 0) {
      this.left = 0;
      this.offer(length);
      return;
    }
    const answer = this.#useParameters();
    if (answer === LATER) return;
    if (answer === undefined) this.complete(STATUS.GOOD);
    else this.checkCondition(answer);
  }

  #run(): Answer {
    const { command, disk } = this;
    const { view } = command;
    const out = this.buffer;
    const options = view.getUint8(1);
    switch (command.opcode) {
      case OP.TEST_UNIT_READY:
      case OP.MODE_SELECT_6:
      case OP.MODE_SELECT_10:
      case OP.UNMAP:
      case OP.FORMAT_UNIT:
        return undefined;
      case OP.INQUIRY:
        return this.#inquiry();
      case OP.MODE_SENSE_6:
      case OP.MODE_SENSE_10:
        return modeSense(disk, command, out);
      case OP.REQUEST_SENSE:
        putSense(out, out.length, SENSE.NONE, (options & 1) === 0);
        return undefined;
      case OP.RESERVE_6:
      case OP.RELEASE_6:
        return (options & 1) !== 0 ? SENSE.INVALID_FIELD : undefined;
      case OP.RESERVE_10:
      case OP.RELEASE_10:
        return (options & 3) !== 0 ? SENSE.INVALID_FIELD : undefined;
      case OP.START_STOP_UNIT:
        return disk.startStop(view.getUint8(4));
      case OP.PREVENT_ALLOW_MEDIUM_REMOVAL:
        disk.media.trayLocked = (view.getUint8(4) & 1) !== 0;
        return undefined;
      case OP.READ_CAPACITY_10:
        return this.#readCapacity10();
      case OP.SERVICE_ACTION_IN_16:
        return (options & 0x1f) === READ_CAPACITY_16 ? this.#readCapacity16() : SENSE.INVALID_FIELD;
      case OP.SYNCHRONIZE_CACHE_10:
      case OP.SYNCHRONIZE_CACHE_16:
        this.flushAndComplete();
        return LATER;
      case OP.SEEK_10:
        return command.lba > disk.lastBlock ? SENSE.LBA_OUT_OF_RANGE : undefined;
      case OP.VERIFY_10:
      case OP.VERIFY_12:
      case OP.VERIFY_16:
        return (options & 0x06) !== 0 ? SENSE.INVALID_FIELD : undefined;
      case OP.WRITE_SAME_10:
      case OP.WRITE_SAME_16:
        return command.direction === 'out' ? undefined : this.#writeSame();
      default:
        return this.#multimedia();
    }
  }

  #useParameters(): Answer {
    const { command, disk } = this;
    switch (command.opcode) {
      case OP.MODE_SELECT_6:
      case OP.MODE_SELECT_10: {
        const wrong = modeSelect(disk, command, this.buffer);
        if (wrong !== undefined || disk.backend.writeCache) return wrong;
        // Without a cache nothing may be left in it.
        this.flushAndComplete();
        return LATER;
      }
      case OP.UNMAP:
        return this.#unmap();
      case OP.WRITE_SAME_10:
      case OP.WRITE_SAME_16:
        return this.#writeSame();
      default:
        return undefined;
    }
  }

  #inquiry(): Answer {
    const { command, disk, buffer } = this;
    const page = command.view.getUint8(2);
    if ((command.view.getUint8(1) & 1) !== 0) {
      return vitalProductData(disk, buffer, page) ? undefined : SENSE.INVALID_FIELD;
    }
    if (page !== 0) return SENSE.INVALID_FIELD;
    standardInquiry(disk, buffer, command.transfer);
    return undefined;
  }

  // Capacity (SBC-3, sections 5.15 and 5.16)

  #readCapacity10(): Answer {
    const { command, disk, buffer } = this;
    if (disk.backend.length < 512) return SENSE.LUN_NOT_READY;
    if ((command.view.getUint8(8) & 1) === 0 && command.lba !== 0) return SENSE.INVALID_FIELD;
    disk.measure();
    const view = new DataView(buffer.buffer, buffer.byteOffset);
    view.setUint32(0, Math.min(disk.lastBlock, MAX_32));
    view.setUint32(4, disk.blockSize);
    return undefined;
  }

  #readCapacity16(): Answer {
    const { command, disk, buffer } = this;
    if (disk.backend.length < 512) return SENSE.LUN_NOT_READY;
    if ((command.view.getUint8(14) & 1) === 0 && command.lba !== 0) return SENSE.INVALID_FIELD;
    disk.measure();
    const view = new DataView(buffer.buffer, buffer.byteOffset);
    view.setUint32(0, Math.floor(disk.lastBlock / 2 ** 32));
    view.setUint32(4, disk.lastBlock >>> 0);
    view.setUint32(8, disk.blockSize);
    buffer[13] = disk.physicalExponent;
    buffer[14] = disk.discardGranularity > 0 ? 0x80 : 0; // LBPME
    return undefined;
  }

  // Unmapping, and the same block many times

  /** SBC-3, section 5.28. */
  #unmap(): Answer {
    const { command, disk, buffer } = this;
    const { length } = { length: command.transfer };
    const view = new DataView(buffer.buffer, buffer.byteOffset);
    const refuse = (sense: Sense): Sense => {
      disk.backend.accountRefused(UNMAPPING);
      return sense;
    };
    // ANCHOR
    if ((command.view.getUint8(1) & 1) !== 0) return refuse(SENSE.INVALID_FIELD);
    const descriptors = length < UNMAP_HEADER ? 0 : view.getUint16(2);
    if (length < UNMAP_HEADER || length < view.getUint16(0) + 2 || length < descriptors + UNMAP_HEADER) {
      return refuse(SENSE.PARAMETER_LIST_LENGTH);
    }
    if (descriptors % UNMAP_DESCRIPTOR !== 0) return refuse(SENSE.PARAMETER_LIST_LENGTH);
    if (!disk.writable) return refuse(SENSE.WRITE_PROTECTED);
    this.#unmapFrom(view, UNMAP_HEADER, UNMAP_HEADER + descriptors);
    return LATER;
  }

  #unmapFrom(view: DataView, at: number, end: number): void {
    const { disk } = this;
    for (let next = at; next < end; next += UNMAP_DESCRIPTOR) {
      const lba = view.getUint32(next) * 2 ** 32 + view.getUint32(next + 4);
      const blocks = view.getUint32(next + 8);
      if (!disk.inRange(lba, blocks)) {
        disk.backend.accountRefused(UNMAPPING);
        this.checkCondition(SENSE.LBA_OUT_OF_RANGE);
        return;
      }
      const result = disk.backend.discard(lba * disk.blockSize, blocks * disk.blockSize);
      if (result === 0) continue;
      this.await(result, () => this.#unmapFrom(view, next + UNMAP_DESCRIPTOR, end));
      return;
    }
    this.complete(STATUS.GOOD);
  }

  #writeSame(): Answer {
    const { command, disk, buffer } = this;
    const options = command.view.getUint8(1);
    const { lba, blocks } = command;
    if (blocks === 0 || (options & WRITE_SAME.REFUSED) !== 0) return SENSE.INVALID_FIELD;
    if (!disk.writable) return SENSE.WRITE_PROTECTED;
    if (!disk.inRange(lba, blocks)) return SENSE.LBA_OUT_OF_RANGE;
    const { blockSize, backend } = disk;
    if ((options & WRITE_SAME.NDOB) !== 0 || isZero(buffer, 0, blockSize)) {
      const flags = (options & WRITE_SAME.UNMAP) !== 0 ? writeFlag.MAY_UNMAP : 0;
      this.await(backend.writeZeroes(lba * blockSize, blocks * blockSize, flags), () => this.complete(STATUS.GOOD));
      return LATER;
    }
    const piece = Math.floor(CHUNK / blockSize) * blockSize;
    for (let at = blockSize; at < Math.min(piece, blocks * blockSize); at *= 2) {
      buffer.copyWithin(at, 0, Math.min(at, piece - at));
    }
    this.#writePieces(lba * blockSize, blocks * blockSize, piece);
    return LATER;
  }

  #writePieces(position: number, length: number, piece: number): void {
    let at = position;
    const end = position + length;
    while (at < end) {
      const size = Math.min(piece, end - at);
      const result = this.disk.backend.writev(at, IoVector.of(this.buffer, 0, size));
      at += size;
      if (result === 0) continue;
      this.await(result, () => this.#writePieces(at, end - at, piece));
      return;
    }
    this.complete(STATUS.GOOD);
  }

  // CD-ROM drives (MMC-5, section 6)

  #multimedia(): Answer {
    const { command, disk, buffer: out } = this;
    const { view } = command;
    const isCd = disk.kind === 'cd';
    switch (command.opcode) {
      case OP.READ_TOC: {
        const inMsf = (view.getUint8(1) & 0x02) !== 0;
        const request = { format: view.getUint8(2) & 0x0f, inMsf, track: view.getUint8(6) };
        return answered(readToc(out, disk.blocks, request));
      }
      case OP.READ_DISC_INFORMATION:
        return isCd && (view.getUint8(1) & 7) === 0 ? answered(discInformation(out)) : SENSE.INVALID_FIELD;
      case OP.MECHANISM_STATUS:
        return isCd ? answered(mechanismStatus(out)) : SENSE.INVALID_FIELD;
      case OP.GET_EVENT_STATUS:
        // Polling only.
        if (!isCd || (view.getUint8(1) & 1) === 0) return SENSE.INVALID_FIELD;
        return answered(eventStatus(out, view.getUint8(4), disk.media, disk.backend.inserted));
      case OP.GET_CONFIGURATION:
        return isCd ? this.#getConfiguration() : SENSE.INVALID_FIELD;
      case OP.READ_DVD_STRUCTURE:
        return isCd ? this.#readDvdStructure() : SENSE.INVALID_FIELD;
      default:
        return SENSE.INVALID_OPCODE;
    }
  }

  get #profile(): number {
    const { backend } = this.disk;
    if (!backend.available) return PROFILE.NONE;
    return backend.length > CD_BYTES ? PROFILE.DVD_ROM : PROFILE.CD_ROM;
  }

  /** Profiles, core and removable medium: tray, loads, ejects, unlocked at power-on, lockable. */
  #getConfiguration(): Answer {
    const out = this.buffer;
    const end = putProfiles(out, this.#profile);
    out.set([0, 1, 0x0b, 8, 0, 0, 0, 1, 1, 0, 0, 0], end);
    out.set([0, 3, 0x0b, 4, 0x39, 0, 0, 0], end + 12);
    new DataView(out.buffer, out.byteOffset).setUint32(0, end + 20 - 4);
    return undefined;
  }

  #readDvdStructure(): Answer {
    const { command, disk, buffer } = this;
    const { view } = command;
    const format = view.getUint8(7);
    if (view.getUint8(1) !== 0) return SENSE.INVALID_FIELD;
    if (format !== WHOLE_DVD_STRUCTURES && this.#profile === PROFILE.CD_ROM) return SENSE.INCOMPATIBLE_FORMAT;
    return answered(dvdStructure(buffer, Math.floor(disk.backend.length / 2048), format, view.getUint8(6)));
  }
}

/** A reply without a length is none. */
function answered(length: number): Answer {
  return length === 0 ? SENSE.INVALID_FIELD : undefined;
}
