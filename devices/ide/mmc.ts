import { putText } from '../../core/scsi/text.ts';
import { BLOCK, CD_BYTES, RAW_BLOCK } from '../mmc/disc.ts';
import {
  discInformation,
  dvdStructure,
  eventStatus,
  mechanismStatus,
  PROFILE,
  putProfiles,
  readToc,
} from '../mmc/reports.ts';
import type { PacketCommands } from './packet.ts';
import { SECTOR } from './task-file.ts';
import { type AtaUnit, BUFFER_SIZE } from './unit.ts';

/** Sense keys (SPC-3, table 27). */
export const SENSE = { NONE: 0, NOT_READY: 2, ILLEGAL_REQUEST: 5, UNIT_ATTENTION: 6 } as const;

/** Additional sense codes (MMC-5, annex F). */
export const ASC = {
  ILLEGAL_OPCODE: 0x20,
  BLOCK_OUT_OF_RANGE: 0x21,
  INVALID_FIELD: 0x24,
  MEDIUM_CHANGED: 0x28,
  INCOMPATIBLE_FORMAT: 0x30,
  SAVING_NOT_SUPPORTED: 0x39,
  MEDIUM_NOT_PRESENT: 0x3a,
  DATA_PHASE_ERROR: 0x4b,
  REMOVAL_PREVENTED: 0x53,
} as const;

/** What must be so for a command (MMC-5, sections 4.1.6 and 4.1.8), and whether it has data. */
interface Rules {
  /** Is carried out under a unit attention. */
  readonly attention?: boolean;
  /** Needs a medium. */
  readonly medium?: boolean;
  /** `none`, or only with some options (`maybe`): it may come without a byte count limit. */
  readonly data?: 'none' | 'maybe';
}

type Entry = readonly [run: (packet: DataView) => void, rules: Rules];

const CD_ROM = 0x05;
const MODE_PAGE = { ERROR_RECOVERY: 0x01, AUDIO: 0x0e, CAPABILITIES: 0x2a } as const;
/** The commands of a CD/DVD-ROM drive (MMC-5, section 6). */
export class MmcCommands {
  readonly #unit: AtaUnit;
  readonly #packet: PacketCommands;
  readonly #commands: ReadonlyMap<number, Entry>;

  constructor(unit: AtaUnit, packet: PacketCommands) {
    this.#unit = unit;
    this.#packet = packet;
    this.#commands = new Map<number, Entry>([
      [0x00, [() => packet.ok(), { medium: true, data: 'none' }]], // TEST UNIT READY
      [0x03, [cdb => this.#requestSense(cdb), { attention: true }]],
      [0x12, [cdb => this.#inquiry(cdb), { attention: true }]],
      [0x1b, [cdb => this.#startStopUnit(cdb), { data: 'none' }]],
      [0x1e, [cdb => this.#preventRemoval(cdb), { data: 'none' }]],
      [0x25, [() => this.#readCapacity(), { medium: true }]],
      [0x28, [cdb => this.#read(cdb.getUint32(2), cdb.getUint16(7)), { medium: true }]], // READ (10)
      [0x2b, [cdb => this.#seek(cdb), { medium: true, data: 'none' }]],
      [0x43, [cdb => this.#readToc(cdb), { medium: true }]],
      [0x46, [cdb => this.#getConfiguration(cdb), { attention: true }]],
      [0x4a, [cdb => this.#getEventStatus(cdb), { attention: true }]],
      [0x51, [cdb => this.#readDiscInformation(cdb), { medium: true }]],
      [0x5a, [cdb => this.#modeSense(cdb), {}]],
      [0xa8, [cdb => this.#read(cdb.getUint32(2), cdb.getUint32(6)), { medium: true }]], // READ (12)
      [0xad, [cdb => this.#readDvdStructure(cdb), { medium: true }]],
      [0xbb, [() => packet.ok(), { data: 'none' }]], // SET CD SPEED
      [0xbd, [cdb => this.#mechanismStatus(cdb), {}]],
      [0xbe, [cdb => this.#readCd(cdb), { medium: true, data: 'maybe' }]],
    ]);
  }

  get #out(): Uint8Array {
    return this.#unit.s.buffer;
  }

  get #inserted(): boolean {
    return this.#unit.medium?.backend.inserted ?? false;
  }

  get #mediumThere(): boolean {
    return !this.#unit.s.trayOpen && this.#unit.sectorCount > 0;
  }

  execute(bytes: Uint8Array): void {
    const { s } = this.#unit;
    const packet = this.#packet;
    const entry = this.#commands.get(bytes[0] ?? 0);
    const rules = entry?.[1] ?? {};
    if (s.senseKey === SENSE.UNIT_ATTENTION && !rules.attention) {
      packet.attention();
      return;
    }
    // A change of medium shows as its removal first, and then as a new one (MMC-5, section 4.1.6).
    if (!rules.attention && !s.trayOpen && this.#inserted && s.changed !== 0) {
      if (s.changed === 1) packet.error(SENSE.NOT_READY, ASC.MEDIUM_NOT_PRESENT);
      else packet.error(SENSE.UNIT_ATTENTION, ASC.MEDIUM_CHANGED);
      s.changed = s.changed === 1 ? 2 : 0;
      return;
    }
    if (rules.medium && !(this.#mediumThere && this.#inserted)) {
      packet.error(SENSE.NOT_READY, ASC.MEDIUM_NOT_PRESENT);
      return;
    }
    if (entry === undefined) {
      packet.error(SENSE.ILLEGAL_REQUEST, ASC.ILLEGAL_OPCODE);
      return;
    }
    if (rules.data === undefined && !packet.acceptsData()) return;
    entry[0](new DataView(bytes.buffer, bytes.byteOffset, bytes.length));
  }

  #invalid(): void {
    this.#packet.error(SENSE.ILLEGAL_REQUEST, ASC.INVALID_FIELD);
  }

  #requestSense(cdb: DataView): void {
    const { s } = this.#unit;
    const out = this.#out.fill(0, 0, 18);
    out[0] = 0x70 | 0x80;
    out[2] = s.senseKey;
    out[7] = 10;
    out[12] = s.asc;
    if (s.senseKey === SENSE.UNIT_ATTENTION) s.senseKey = SENSE.NONE;
    this.#packet.reply(18, cdb.getUint8(4));
  }

  #inquiry(cdb: DataView): void {
    const maxSize = cdb.getUint8(4);
    if ((cdb.getUint8(1) & 1) !== 0) {
      this.#vitalProductData(cdb.getUint8(2), maxSize);
      return;
    }
    const out = this.#out.fill(0, 0, 36);
    out[0] = CD_ROM;
    out[1] = 0x80; // removable
    out[3] = 0x21; // ATAPI-2
    out[4] = 36 - 5;
    putText(out, 8, 8, 'QEMU');
    putText(out, 16, 16, 'QEMU DVD-ROM');
    putText(out, 32, 4, this.#unit.medium?.version ?? '');
    this.#packet.reply(36, maxSize);
  }

  #vitalProductData(page: number, maxSize: number): void {
    const out = this.#out.fill(0, 0, 256);
    out[0] = CD_ROM;
    out[1] = page;
    let end = 4;
    if (page === 0x00) {
      out[5] = 0x83;
      end = 6;
    } else if (page !== 0x83) {
      this.#invalid();
      return;
    } else {
      end = this.#deviceIdentification(out, end, maxSize);
      if (end === 0) {
        this.#packet.error(SENSE.ILLEGAL_REQUEST, ASC.DATA_PHASE_ERROR);
        return;
      }
    }
    out[3] = end - 4;
    this.#packet.reply(end, maxSize);
  }

  /** As many designators as there is room for (SPC-3, section 7.6.3); 0 where there is none for the first. */
  #deviceIdentification(out: Uint8Array, at: number, maxSize: number): number {
    const { medium } = this.#unit;
    if (medium === undefined || at + 24 > maxSize) return 0;
    out.set([0x02, 0x00, 0x00, 20], at);
    putText(out, at + 4, 20, medium.serial);
    at += 24;
    if (at + 72 > maxSize) return at;
    out.set([0x02, 0x01, 0x00, 68], at);
    putText(out, at + 4, 8, 'ATA');
    putText(out, at + 12, 40, medium.model);
    putText(out, at + 52, 20, medium.serial);
    at += 72;
    if (medium.wwn === 0n || at + 12 > maxSize) return at;
    out.set([0x01, 0x03, 0x00, 0x08], at);
    new DataView(out.buffer, out.byteOffset + at + 4, 8).setBigUint64(0, medium.wwn);
    return at + 12;
  }

  #startStopUnit(cdb: DataView): void {
    const { s, medium } = this.#unit;
    const action = cdb.getUint8(4);
    const start = (action & 0x01) !== 0;
    const moveTray = (action & 0x02) !== 0;
    const powerCondition = action & 0xf0;
    if (powerCondition === 0 && moveTray) {
      if (!start && !s.trayOpen && s.trayLocked) {
        this.#packet.error(this.#inserted ? SENSE.NOT_READY : SENSE.ILLEGAL_REQUEST, ASC.REMOVAL_PREVENTED);
        return;
      }
      if (s.trayOpen === start) {
        s.trayOpen = !start;
        medium?.trayMoved(s.trayOpen);
      }
    }
    this.#packet.ok();
  }

  #preventRemoval(cdb: DataView): void {
    this.#unit.s.trayLocked = (cdb.getUint8(4) & 1) !== 0;
    this.#packet.ok();
  }

  #readCapacity(): void {
    const view = this.#outView;
    view.setUint32(0, this.#packet.blocks - 1);
    view.setUint32(4, BLOCK);
    this.#packet.reply(8, 8);
  }

  get #outView(): DataView {
    const { buffer, byteOffset, length } = this.#out;
    return new DataView(buffer, byteOffset, length);
  }

  /** Whether the blocks are there; ends the command where they are not. */
  #inRange(block: number, count: number): boolean {
    if (block + count <= this.#packet.blocks) return true;
    this.#packet.error(SENSE.ILLEGAL_REQUEST, ASC.BLOCK_OUT_OF_RANGE);
    return false;
  }

  #read(block: number, count: number): void {
    if (count === 0) this.#packet.ok();
    else if (this.#inRange(block, count)) this.#packet.read(block, count, BLOCK);
  }

  /** READ CD: user data only, or the whole raw block. */
  #readCd(cdb: DataView): void {
    const packet = this.#packet;
    const count = (cdb.getUint8(6) << 16) | cdb.getUint16(7);
    const block = cdb.getUint32(2);
    if (count === 0) {
      packet.ok();
      return;
    }
    if (!this.#inRange(block, count)) return;
    const fields = cdb.getUint8(9) & 0xf8;
    if (fields === 0) {
      packet.ok();
      return;
    }
    if (!packet.acceptsData()) return;
    if (fields === 0x10) packet.read(block, count, BLOCK);
    else if (fields === 0xf8) packet.read(block, count, RAW_BLOCK);
    else this.#invalid();
  }

  #seek(cdb: DataView): void {
    if (this.#inRange(cdb.getUint32(2), 1)) this.#packet.ok();
  }

  #readToc(cdb: DataView): void {
    const inMsf = (cdb.getUint8(1) & 0x02) !== 0;
    const request = { format: cdb.getUint8(9) >> 6, inMsf, track: cdb.getUint8(6) };
    const size = readToc(this.#out, this.#packet.blocks, request);
    if (size === 0) this.#invalid();
    else this.#packet.reply(size, cdb.getUint16(7));
  }

  /** Feature 0 only: the list of profiles, and the one that fits the medium. */
  #getConfiguration(cdb: DataView): void {
    if (cdb.getUint16(2) !== 0) {
      this.#invalid();
      return;
    }
    const maxSize = Math.min(cdb.getUint16(7), SECTOR);
    this.#out.fill(0, 0, SECTOR);
    const current = !this.#mediumThere ? PROFILE.NONE : this.#isCd ? PROFILE.CD_ROM : PROFILE.DVD_ROM;
    const end = putProfiles(this.#out, current);
    this.#outView.setUint32(0, end - 4);
    this.#packet.reply(end, maxSize);
  }

  get #isCd(): boolean {
    return this.#unit.sectorCount <= CD_BYTES / SECTOR;
  }

  /** Polling only, and only of the medium. */
  #getEventStatus(cdb: DataView): void {
    if ((cdb.getUint8(1) & 1) === 0) {
      this.#invalid();
      return;
    }
    const size = eventStatus(this.#out, cdb.getUint8(4), this.#unit.s, this.#inserted);
    this.#packet.reply(size, cdb.getUint16(7));
  }

  #readDiscInformation(cdb: DataView): void {
    if ((cdb.getUint8(1) & 7) !== 0) {
      this.#invalid();
      return;
    }
    this.#packet.reply(discInformation(this.#out), cdb.getUint16(7));
  }

  #modeSense(cdb: DataView): void {
    const control = cdb.getUint8(2) >> 6;
    if (control === 3) {
      this.#packet.error(SENSE.ILLEGAL_REQUEST, ASC.SAVING_NOT_SUPPORTED);
      return;
    }
    const page = control === 0 ? this.#modePage(cdb.getUint8(2) & 0x3f) : undefined;
    if (page === undefined) {
      this.#invalid();
      return;
    }
    const size = 8 + page.length;
    const out = this.#out.fill(0, 0, size);
    this.#outView.setUint16(0, size - 2);
    out[2] = 0x70; // medium type: none is known
    out.set(page, 8);
    this.#packet.reply(size, cdb.getUint16(7));
  }

  #modePage(code: number): readonly number[] | undefined {
    switch (code) {
      case MODE_PAGE.ERROR_RECOVERY:
        return [code, 6, 0x00, 0x05, 0, 0, 0, 0];
      case MODE_PAGE.AUDIO:
        return [code, 14, ...new Array<number>(14).fill(0)];
      case MODE_PAGE.CAPABILITIES: {
        // Reads all kinds of discs; plays audio, which some systems want before they mount; tray, lock and eject; 704 kB/s.
        const locked = this.#unit.s.trayLocked ? 0x02 : 0;
        return [
          code,
          20,
          0x3b,
          0x00,
          0x71,
          0x60,
          0x29 | locked,
          0x00,
          0x02,
          0xc0,
          0x00,
          0x02,
          0x02,
          0x00,
          0x02,
          0xc0,
          0,
          0,
          0,
          0,
          0,
          0,
        ];
      }
      default:
        return undefined;
    }
  }

  #mechanismStatus(cdb: DataView): void {
    this.#packet.reply(mechanismStatus(this.#out), cdb.getUint16(8));
  }

  #readDvdStructure(cdb: DataView): void {
    const format = cdb.getUint8(7);
    if (format < 0xff && this.#isCd) {
      this.#packet.error(SENSE.ILLEGAL_REQUEST, ASC.INCOMPATIBLE_FORMAT);
      return;
    }
    const maxSize = cdb.getUint16(8);
    const isDvd = cdb.getUint8(1) === 0;
    this.#out.fill(0, 0, Math.min(BUFFER_SIZE, Math.max(maxSize, BLOCK + 4)));
    const size = isDvd ? dvdStructure(this.#out, this.#packet.blocks, format, cdb.getUint8(6)) : 0;
    if (size === 0) this.#invalid();
    else this.#packet.reply(size, maxSize);
  }
}
