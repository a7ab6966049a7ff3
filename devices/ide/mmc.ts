import { BLOCK, putMsf, RAW_BLOCK } from './disc.ts';
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
const PROFILE_CD_ROM = 0x0008;
const PROFILE_DVD_ROM = 0x0010;
/** What fits on a CD, in sectors of 512 bytes: 80 minutes. */
const CD_MAX_SECTORS = (80 * 60 * 75 * BLOCK) / SECTOR;
const MODE_PAGE = { ERROR_RECOVERY: 0x01, AUDIO: 0x0e, CAPABILITIES: 0x2a } as const;
/** Event status notification (MMC-5, section 6.6). */
const CLASS_MEDIA = 4;
const NO_EVENT = 0x80;
const MEDIA_EVENT = { NONE: 0, EJECT_REQUEST: 1, NEW_MEDIA: 2 } as const;
const MEDIA_STATUS = { TRAY_OPEN: 1, PRESENT: 2 } as const;
const LEAD_OUT = 0xaa;
const TRACK_DATA = 0x14;
const TRACK_LEAD_OUT = 0x16;

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
    text(out, 8, 8, 'QEMU');
    text(out, 16, 16, 'QEMU DVD-ROM');
    text(out, 32, 4, this.#unit.medium?.version ?? '');
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
    text(out, at + 4, 20, medium.serial);
    at += 24;
    if (at + 72 > maxSize) return at;
    out.set([0x02, 0x01, 0x00, 68], at);
    text(out, at + 4, 8, 'ATA');
    text(out, at + 12, 40, medium.model);
    text(out, at + 52, 20, medium.serial);
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

  // READ TOC/PMA/ATIP: one session with one track

  #readToc(cdb: DataView): void {
    const maxSize = cdb.getUint16(7);
    const inMsf = (cdb.getUint8(1) & 0x02) !== 0;
    const track = cdb.getUint8(6);
    const format = cdb.getUint8(9) >> 6;
    if (format === 0 && (track <= 1 || track === LEAD_OUT)) {
      this.#packet.reply(this.#toc(inMsf, track <= 1), maxSize);
    } else if (format === 1) {
      this.#out.fill(0, 0, 12).set([0x00, 0x0a, 0x01, 0x01]);
      this.#packet.reply(12, maxSize);
    } else if (format === 2) {
      this.#packet.reply(this.#rawToc(inMsf), maxSize);
    } else {
      this.#invalid();
    }
  }

  #toc(inMsf: boolean, withTrack: boolean): number {
    const out = this.#out;
    let at = 4;
    const entry = (control: number, track: number, block: number): void => {
      out.set([0, control, track, 0], at);
      this.#putAddress(at + 4, block, inMsf);
      at += 8;
    };
    out.set([0, 0, 1, 1]);
    if (withTrack) entry(TRACK_DATA, 1, 0);
    entry(TRACK_LEAD_OUT, LEAD_OUT, this.#packet.blocks);
    this.#outView.setUint16(0, at - 2);
    return at;
  }

  #rawToc(inMsf: boolean): number {
    const out = this.#out;
    let at = 4;
    // Session, ADR and control, track, point, and a time that is not known.
    const point = (number: number): void => {
      out.set([1, TRACK_DATA, 0, number, 0, 0, 0, 0, 0, 0, 0], at);
    };
    out.set([0, 0, 1, 1]);
    for (const number of [0xa0, 0xa1]) {
      point(number);
      out[at + 8] = 1; // the first track, and the last
      at += 11;
    }
    for (const [number, block] of [
      [0xa2, this.#packet.blocks],
      [1, 0],
    ] as const) {
      point(number);
      this.#putAddress(at + 7, block, inMsf);
      at += 11;
    }
    this.#outView.setUint16(0, at - 2);
    return at;
  }

  #putAddress(at: number, block: number, inMsf: boolean): void {
    if (!inMsf) {
      this.#outView.setUint32(at, block);
      return;
    }
    this.#out[at] = 0;
    putMsf(this.#out, at + 1, block);
  }

  /** Feature 0 only: the list of profiles, and the one that fits the medium. */
  #getConfiguration(cdb: DataView): void {
    if (cdb.getUint16(2) !== 0) {
      this.#invalid();
      return;
    }
    const maxSize = Math.min(cdb.getUint16(7), SECTOR);
    const out = this.#out.fill(0, 0, SECTOR);
    const view = this.#outView;
    const current = !this.#mediumThere ? 0 : this.#isCd ? PROFILE_CD_ROM : PROFILE_DVD_ROM;
    view.setUint16(6, current);
    out[10] = 0x03; // persistent and current
    let end = 12;
    for (const profile of [PROFILE_DVD_ROM, PROFILE_CD_ROM]) {
      view.setUint16(end, profile);
      out[end + 2] = profile === current ? 1 : 0;
      end += 4;
    }
    out[11] = end - 12;
    view.setUint32(0, end - 4);
    this.#packet.reply(end, maxSize);
  }

  get #isCd(): boolean {
    return this.#unit.sectorCount <= CD_MAX_SECTORS;
  }

  /** Polling only, and only of the medium. */
  #getEventStatus(cdb: DataView): void {
    if ((cdb.getUint8(1) & 1) === 0) {
      this.#invalid();
      return;
    }
    const wantsMedia = (cdb.getUint8(4) & (1 << CLASS_MEDIA)) !== 0;
    const out = this.#out;
    out.set([0, wantsMedia ? 4 : 0, wantsMedia ? CLASS_MEDIA : NO_EVENT, 1 << CLASS_MEDIA]);
    if (wantsMedia) this.#putMediaEvent(out);
    this.#packet.reply(wantsMedia ? 8 : 4, cdb.getUint16(7));
  }

  #putMediaEvent(out: Uint8Array): void {
    const { s } = this.#unit;
    let event: number = MEDIA_EVENT.NONE;
    if (!s.trayOpen && s.newMedium) {
      event = MEDIA_EVENT.NEW_MEDIA;
      s.newMedium = false;
    } else if (!s.trayOpen && s.ejectRequest) {
      event = MEDIA_EVENT.EJECT_REQUEST;
      s.ejectRequest = false;
    }
    out.set([event, s.trayOpen ? MEDIA_STATUS.TRAY_OPEN : this.#inserted ? MEDIA_STATUS.PRESENT : 0, 0, 0], 4);
  }

  #readDiscInformation(cdb: DataView): void {
    if ((cdb.getUint8(1) & 7) !== 0) {
      this.#invalid();
      return;
    }
    // A finalized disc of one session, with one track, for unrestricted use.
    this.#out.fill(0, 0, 34).set([0, 32, 0x0e, 1, 1, 1, 1, 0x20]);
    this.#packet.reply(34, cdb.getUint16(7));
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
    this.#out.fill(0, 0, 8)[5] = 1;
    this.#packet.reply(8, cdb.getUint16(8));
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
    const size = isDvd ? this.#dvdStructure(format, cdb.getUint8(6)) : 0;
    if (size === 0) this.#invalid();
    else this.#packet.reply(size, maxSize);
  }

  /** The size of the structure (MMC-5, section 6.29); 0 where there is none of that kind. */
  #dvdStructure(format: number, layer: number): number {
    const out = this.#out;
    const view = this.#outView;
    const done = (size: number): number => {
      view.setUint16(0, size - 2);
      return size;
    };
    switch (format) {
      case 0x00: {
        if (layer !== 0) return 0;
        const last = this.#packet.blocks - 1;
        out.set([0x01, 0x0f, 0x01, 0x00], 4); // DVD-ROM; 120 mm; one layer, read-only
        view.setUint32(12, last);
        view.setUint32(16, last);
        return done(BLOCK + 4);
      }
      case 0x01: // copyright: none
        return done(8);
      case 0x04: // manufacturing
        return done(BLOCK + 4);
      case 0xff: {
        // The formats that can be read, with their sizes.
        const formats = [
          [0x00, BLOCK + 4],
          [0x01, 8],
          [0x03, 192],
          [0x04, BLOCK + 4],
        ] as const;
        for (const [index, [code, size]] of formats.entries()) {
          out.set([code, 0x40], 4 + 4 * index);
          view.setUint16(6 + 4 * index, size);
        }
        return done(4 + 4 * formats.length);
      }
      default:
        return 0;
    }
  }
}

/** ASCII, padded with blanks. */
function text(out: Uint8Array, at: number, length: number, value: string): void {
  for (let index = 0; index < length; index++) out[at + index] = index < value.length ? value.charCodeAt(index) : 0x20;
}
