import { type BlockBackend, type BlockDevice, whenDone } from '../../core/block/backend.ts';
import { IoVector } from '../../core/block/io-vector.ts';
import { deviceType } from '../../core/device/device-type.ts';
import { field } from '../../core/state/fields.ts';
import { emptyDrive } from '../empty-drive.ts';
import { driveProperties, IdeDrive } from './drive.ts';
import { identifyPacketDevice } from './identify.ts';
import * as mmc from './mmc.ts';
import { ASC, CD_SECTOR, MMC, SENSE } from './mmc.ts';
import { COMMAND, SECTOR, SIGNATURE, STATUS } from './task-file.ts';

const PACKET_SIZE = 12;
const DMA = 0x01;
const OVERLAPPED = 0x02;
/** Interrupt Reason, in the Count register (ATA/ATAPI-6, section 8.23.3): command or data, and which way. */
const REASON = { CD: 0x01, IO: 0x02, MASK: 0x07 } as const;
/** Part of a read that is moved at a time, in bytes. */
const DMA_CHUNK = 64 * CD_SECTOR;
const RAW_SECTOR = 2352;
const MAX_BYTE_COUNT = 0xfffe;

/** Commands that answer in spite of a pending unit attention. */
const ALLOWS_ATTENTION = new Set<number>([MMC.REQUEST_SENSE, MMC.INQUIRY, MMC.GET_CONFIGURATION, MMC.GET_EVENT_STATUS]);
const NEEDS_MEDIUM = new Set<number>([
  ...[MMC.TEST_UNIT_READY, MMC.READ_CAPACITY, MMC.READ_10, MMC.SEEK_10, MMC.READ_TOC],
  ...[MMC.READ_DISC_INFORMATION, MMC.READ_12, MMC.READ_DVD_STRUCTURE, MMC.READ_CD],
]);
const WITHOUT_DATA = new Set<number>([
  ...[MMC.TEST_UNIT_READY, MMC.START_STOP_UNIT, MMC.PREVENT_ALLOW_REMOVAL, MMC.SEEK_10, MMC.SET_CD_SPEED, MMC.READ_CD],
]);
/** Media events (MMC-3, section 5.7). */
const EVENT = { NONE: 0, EJECT_REQUESTED: 1, NEW_MEDIA: 2 } as const;
const CLASS_MEDIA = 4;

const cdState = {
  senseKey: field.u8(),
  asc: field.u8(),
  trayOpen: field.bool(),
  trayLocked: field.bool(),
  /** 0: no change to tell; 1: tell that the medium is gone; 2: tell that there is another. */
  changed: field.u8(),
  newMedia: field.bool(),
  ejectRequested: field.bool(),
  usesDma: field.bool(),
  /** What is left of a transfer in bytes, where it is in the reply or on the medium, and whether it is the medium's. */
  left: field.number(),
  position: field.number(),
  fromMedium: field.bool(),
  sectorSize: field.u32(CD_SECTOR),
};

/** An ATAPI CD or DVD drive (`ide-cd`). */
export class IdeCdDrive extends IdeDrive<typeof driveProperties> {
  readonly removable = true;
  protected readonly signature = SIGNATURE.ATAPI;
  protected readonly idleStatus = 0;
  readonly #cd = this.state(1, cdState, { name: 'cd', onReset: 'keep' });
  #reply: Uint8Array = new Uint8Array(0);
  #bounce = new Uint8Array(0);

  protected readonly blockDevice: BlockDevice = {
    id: '',
    removable: true,
    changeMedium: inserted => this.#mediumChanged(inserted),
    ejectRequest: force => this.#ejectRequested(force),
    trayOpen: () => this.#cd.trayOpen,
    mediumLocked: () => this.#cd.trayLocked,
  };

  protected override realize(): void {
    Object.assign(this.blockDevice, { id: this.id ?? this.path });
    if (this.props.drive === undefined) this.useBackend(emptyDrive(this.services));
    if (this.backend !== undefined) this.takeBackend(false);
  }

  get #medium(): BlockBackend | undefined {
    return this.backend;
  }

  get #present(): boolean {
    return !this.#cd.trayOpen && (this.#medium?.inserted ?? false) && this.#sectors > 0;
  }

  get #sectors(): number {
    return Math.floor((this.#medium?.length ?? 0) / CD_SECTOR);
  }

  get #facts(): mmc.DriveFacts {
    return {
      serial: this.serialText,
      model: this.props.model ?? 'QEMU DVD-ROM',
      version: this.props.ver ?? '2.5+',
      wwn: this.props.wwn,
      sectors: this.#sectors,
      trayLocked: this.#cd.trayLocked,
    };
  }

  #mediumChanged(inserted: boolean): void {
    const cd = this.#cd;
    cd.trayOpen = !inserted;
    cd.changed = 1;
    cd.newMedia = true;
    cd.ejectRequested = false;
    this.raiseIrq();
  }

  #ejectRequested(force: boolean): void {
    this.#cd.ejectRequested = true;
    if (force) this.#cd.trayLocked = false;
    this.raiseIrq();
  }

  protected override resetEnter(): void {
    super.resetEnter();
    Object.assign(this.#cd, { senseKey: 0, asc: 0, trayLocked: false, left: 0, position: 0, usesDma: false });
  }

  // ATA commands

  protected override execute(command: number): boolean | undefined {
    const { s } = this;
    switch (command) {
      case COMMAND.PACKET:
        return this.#packetCommand();
      case COMMAND.IDENTIFY_PACKET:
        return this.#identify();
      case COMMAND.IDENTIFY:
      case COMMAND.READ_SECTORS:
        this.setSignature();
        return false;
      case COMMAND.DEVICE_RESET:
        this.cancelRequests();
        this.setSignature();
        s.status = 0;
        s.error = 1;
        this.host.commandDone(this);
        return undefined;
      case COMMAND.EXECUTE_DIAGNOSTIC:
        this.diagnose();
        this.host.commandDone(this);
        this.raiseIrq();
        return undefined;
      case COMMAND.SET_FEATURES:
        s.status |= STATUS.DSC;
        return true;
      case COMMAND.FLUSH_CACHE:
        s.status = STATUS.DRDY | STATUS.DSC;
        return true;
      default:
        return false;
    }
  }

  #identify(): undefined {
    const { serial, model, version, wwn } = this.#facts;
    const words = identifyPacketDevice({ serial, model, version, wwn, queueDepth: 0 }, [0x07, 0x07, 0x203f]);
    this.s.buffer.set(new Uint8Array(words.buffer));
    this.s.status = STATUS.DRDY | STATUS.DSC;
    this.raiseIrq();
    this.startPhase(SECTOR, true, 'stop');
    return undefined;
  }

  #packetCommand(): boolean | undefined {
    const { s } = this;
    if ((s.features & OVERLAPPED) !== 0) return false;
    this.#cd.usesDma = (s.features & DMA) !== 0;
    s.status = STATUS.DRDY | STATUS.DSC;
    s.count = REASON.CD;
    this.startPhase(PACKET_SIZE, false, 'packet');
    return undefined;
  }

  protected override phaseEnded(end: string): void {
    if (end === 'packet') this.#execute(this.s.buffer.slice(0, PACKET_SIZE));
    else this.#nextPart();
  }

  // Packet commands

  #execute(packet: Uint8Array): void {
    const cd = this.#cd;
    const opcode = packet[0] ?? 0;
    if (cd.senseKey === SENSE.UNIT_ATTENTION && !ALLOWS_ATTENTION.has(opcode))
      return this.#error(SENSE.UNIT_ATTENTION, cd.asc);
    if (!ALLOWS_ATTENTION.has(opcode) && this.#present && cd.changed !== 0) {
      // Software sees the tray go out and come in again.
      if (cd.changed === 1) {
        this.#error(SENSE.NOT_READY, ASC.MEDIUM_NOT_PRESENT);
        cd.changed = 2;
      } else {
        this.#error(SENSE.UNIT_ATTENTION, ASC.MEDIUM_MAY_HAVE_CHANGED);
        cd.changed = 0;
      }
      return;
    }
    if (NEEDS_MEDIUM.has(opcode) && !this.#present) return this.#error(SENSE.NOT_READY, ASC.MEDIUM_NOT_PRESENT);
    if (!WITHOUT_DATA.has(opcode) && !this.#byteCountIsValid()) return;
    this.#dispatch(opcode, packet);
  }

  /** A PIO command with data needs a byte count limit (ACS-3, section 7.21.5). */
  #byteCountIsValid(): boolean {
    if (this.#cd.usesDma || this.#byteCount !== 0) return true;
    this.abort();
    this.finish();
    return false;
  }

  get #byteCount(): number {
    const limit = this.s.lbaMid | (this.s.lbaHigh << 8);
    return limit === 0xffff ? MAX_BYTE_COUNT : limit;
  }

  #dispatch(opcode: number, packet: Uint8Array): void {
    const cd = this.#cd;
    const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
    const room16 = view.getUint16(7);
    const facts = this.#facts;
    switch (opcode) {
      case MMC.TEST_UNIT_READY:
      case MMC.SET_CD_SPEED:
        return this.#ok();
      case MMC.REQUEST_SENSE:
        this.#answer(mmc.requestSense(cd.senseKey, cd.asc), packet[4] ?? 0);
        if (cd.senseKey === SENSE.UNIT_ATTENTION) cd.senseKey = SENSE.NONE;
        return;
      case MMC.INQUIRY:
        return this.#answer(mmc.inquiry(packet, facts), packet[4] ?? 0);
      case MMC.START_STOP_UNIT:
        return this.#startStop(packet);
      case MMC.PREVENT_ALLOW_REMOVAL:
        cd.trayLocked = ((packet[4] ?? 0) & 1) !== 0;
        return this.#ok();
      case MMC.READ_CAPACITY:
        return this.#answer(mmc.readCapacity(facts), 8);
      case MMC.READ_10:
        return this.#read(view.getUint32(2), room16, CD_SECTOR);
      case MMC.READ_12:
        return this.#read(view.getUint32(2), view.getUint32(6), CD_SECTOR);
      case MMC.READ_CD:
        return this.#readCd(packet, view.getUint32(2));
      case MMC.SEEK_10:
        if (view.getUint32(2) >= this.#sectors)
          return this.#error(SENSE.ILLEGAL_REQUEST, ASC.LOGICAL_BLOCK_OUT_OF_RANGE);
        return this.#ok();
      case MMC.READ_TOC:
        return this.#answer(mmc.readToc(packet, facts), room16);
      case MMC.GET_CONFIGURATION:
        return this.#answer(mmc.getConfiguration(packet, this.#present ? facts : { ...facts, sectors: 0 }), room16);
      case MMC.GET_EVENT_STATUS:
        return this.#eventStatus(packet, room16);
      case MMC.READ_DISC_INFORMATION:
        return this.#answer(mmc.readDiscInformation(packet), room16);
      case MMC.MODE_SENSE_10:
        return this.#answer(mmc.modeSense(packet, facts), room16);
      case MMC.READ_DVD_STRUCTURE:
        return this.#answer(mmc.readDvdStructure(packet, facts), view.getUint16(8));
      case MMC.MECHANISM_STATUS:
        return this.#answer(mmc.mechanismStatus(), view.getUint16(8));
      default:
        return this.#error(SENSE.ILLEGAL_REQUEST, ASC.ILLEGAL_OPCODE);
    }
  }

  #startStop(packet: Uint8Array): void {
    const cd = this.#cd;
    const flags = packet[4] ?? 0;
    const [start, loadEject] = [(flags & 1) !== 0, (flags & 2) !== 0];
    if ((flags & 0xf0) !== 0 || !loadEject) return this.#ok();
    if (!start && !cd.trayOpen && cd.trayLocked) {
      return this.#error(this.#medium?.inserted ? SENSE.NOT_READY : SENSE.ILLEGAL_REQUEST, ASC.REMOVAL_PREVENTED);
    }
    if (cd.trayOpen === start) {
      cd.trayOpen = !start;
      this.services.system.emit('DEVICE_TRAY_MOVED', {
        device: this.#medium?.name ?? '',
        id: this.blockDevice.id,
        'tray-open': !start,
      });
    }
    this.#ok();
  }

  #eventStatus(packet: Uint8Array, room: number): void {
    const cd = this.#cd;
    if (((packet[1] ?? 0) & 1) === 0) return this.#error(SENSE.ILLEGAL_REQUEST, ASC.INVALID_FIELD);
    const supported = 1 << CLASS_MEDIA;
    if (((packet[4] ?? 0) & supported) === 0) return this.#answer(Uint8Array.of(0, 0, 0x80, supported), room);
    let event: number = EVENT.NONE;
    if (!cd.trayOpen && cd.newMedia) {
      event = EVENT.NEW_MEDIA;
      cd.newMedia = false;
    } else if (!cd.trayOpen && cd.ejectRequested) {
      event = EVENT.EJECT_REQUESTED;
      cd.ejectRequested = false;
    }
    const status = cd.trayOpen ? 1 : this.#medium?.inserted ? 2 : 0;
    this.#answer(Uint8Array.of(0, 4, CLASS_MEDIA, supported, event, status, 0, 0), room);
  }

  #readCd(packet: Uint8Array, lba: number): void {
    const sectors = ((packet[6] ?? 0) << 16) | ((packet[7] ?? 0) << 8) | (packet[8] ?? 0);
    const wanted = (packet[9] ?? 0) & 0xf8;
    if (sectors === 0 || wanted === 0) return this.#ok();
    if (!this.#byteCountIsValid()) return;
    if (wanted === 0x10) return this.#read(lba, sectors, CD_SECTOR);
    if (wanted === 0xf8) return this.#read(lba, sectors, RAW_SECTOR);
    this.#error(SENSE.ILLEGAL_REQUEST, ASC.INVALID_FIELD);
  }

  // How a command ends

  #ok(): void {
    this.s.error = 0;
    this.s.status = STATUS.DRDY | STATUS.DSC;
    this.#reason(REASON.IO | REASON.CD);
    this.host.commandDone(this);
    this.raiseIrq();
  }

  #error(key: number, asc: number): void {
    this.s.error = key << 4;
    this.s.status = STATUS.DRDY | STATUS.ERR;
    this.#reason(REASON.IO | REASON.CD);
    this.#cd.senseKey = key;
    this.#cd.asc = asc;
    this.host.commandDone(this);
    this.raiseIrq();
  }

  #reason(reason: number): void {
    this.s.count = (this.s.count & ~REASON.MASK) | reason;
  }

  // Data to the host

  #answer(reply: mmc.Reply, room: number): void {
    if (typeof reply === 'number') return this.#error(SENSE.ILLEGAL_REQUEST, reply);
    this.#reply = reply;
    this.#transfer(Math.min(reply.length, room), 0, false);
  }

  #read(lba: number, sectors: number, sectorSize: number): void {
    if (sectors === 0) return this.#ok();
    if (lba + sectors > this.#sectors) return this.#error(SENSE.ILLEGAL_REQUEST, ASC.LOGICAL_BLOCK_OUT_OF_RANGE);
    this.#cd.sectorSize = sectorSize;
    this.#transfer(sectors * sectorSize, lba * sectorSize, true);
  }

  #transfer(length: number, position: number, fromMedium: boolean): void {
    const cd = this.#cd;
    Object.assign(cd, { left: length, position, fromMedium });
    this.s.status = STATUS.DRDY | STATUS.DSC;
    const { dma } = this.host;
    if (cd.usesDma && dma !== undefined) {
      this.s.status |= STATUS.DRQ;
      dma.ready(this, () => this.#nextDma());
    } else {
      this.#nextPart();
    }
  }

  #nextPart(): void {
    const cd = this.#cd;
    if (cd.left === 0) return this.#ok();
    // A part that is not the last is of even length.
    let size = Math.min(cd.left, this.#byteCount);
    if (size < cd.left && (size & 1) !== 0) size--;
    if (size === 0) return this.#ok();
    this.s.status = STATUS.DRDY | STATUS.DSC | STATUS.BSY;
    this.#fetch(size, source => {
      this.s.buffer.set(source.subarray(0, size));
      this.s.status &= ~STATUS.BSY;
      this.s.lbaMid = size & 0xff;
      this.s.lbaHigh = size >> 8;
      this.#reason(REASON.IO);
      this.raiseIrq();
      this.startPhase(size, true, 'packet-reply');
    });
  }

  #nextDma(): void {
    const cd = this.#cd;
    const { dma } = this.host;
    if (dma === undefined) return;
    if (cd.left === 0) {
      this.s.status = STATUS.DRDY | STATUS.DSC;
      this.#reason(REASON.IO | REASON.CD);
      this.raiseIrq();
      dma.done(false);
      this.host.commandDone(this);
      return;
    }
    const size = Math.min(cd.left, DMA_CHUNK);
    this.#fetch(size, source => {
      if (dma.prepare(size) === 0) {
        dma.done(false);
        return;
      }
      dma.toMemory(source, size);
      this.#nextDma();
    });
  }

  /** The next `size` bytes of the reply or the medium. */
  #fetch(size: number, then: (source: Uint8Array) => void): void {
    const cd = this.#cd;
    const { position } = cd;
    cd.left -= size;
    cd.position += size;
    if (!cd.fromMedium) return then(this.#reply.subarray(position, position + size));
    const first = Math.floor(position / cd.sectorSize);
    const sectors = Math.ceil((position + size) / cd.sectorSize) - first;
    if (this.#bounce.length < sectors * CD_SECTOR) this.#bounce = new Uint8Array(sectors * CD_SECTOR);
    const medium = this.#medium;
    if (medium === undefined) return this.#error(SENSE.NOT_READY, ASC.MEDIUM_NOT_PRESENT);
    const current = this.begin();
    whenDone(medium.readv(first * CD_SECTOR, IoVector.of(this.#bounce, 0, sectors * CD_SECTOR)), error => {
      if (!current()) return;
      if (error !== 0) {
        this.host.dma?.done(false);
        this.#error(SENSE.ILLEGAL_REQUEST, ASC.LOGICAL_BLOCK_OUT_OF_RANGE);
        return;
      }
      const data = cd.sectorSize === RAW_SECTOR ? rawSectors(this.#bounce, first, sectors) : this.#bounce;
      then(data.subarray(position - first * cd.sectorSize));
    });
  }
}

/** Mode 1 sectors with sync, header, and no error correction (ECMA-130, section 14). */
function rawSectors(data: Uint8Array, first: number, count: number): Uint8Array {
  const raw = new Uint8Array(count * RAW_SECTOR);
  for (let index = 0; index < count; index++) {
    const at = index * RAW_SECTOR;
    const frames = first + index + 150;
    raw.fill(0xff, at + 1, at + 11);
    raw.set([Math.floor(frames / 75 / 60), Math.floor(frames / 75) % 60, frames % 75, 0x01], at + 12);
    raw.set(data.subarray(index * CD_SECTOR, (index + 1) * CD_SECTOR), at + 16);
  }
  return raw;
}

export const ideCd = deviceType({
  type: 'ide-cd',
  summary: 'virtual IDE CD-ROM',
  bus: 'IDE',
  category: 'storage',
  parents: ['ide-device', 'device'],
  properties: driveProperties,
  create: IdeCdDrive,
});
