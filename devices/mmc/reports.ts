/** What a CD/DVD-ROM drive reports of its disc and of itself (MMC-5, section 6), whatever bus it is on. */
import { BLOCK, putMsf } from './disc.ts';

export const PROFILE = { NONE: 0x0000, CD_ROM: 0x0008, DVD_ROM: 0x0010 } as const;

const LEAD_OUT = 0xaa;
const TRACK_DATA = 0x14;
const TRACK_LEAD_OUT = 0x16;

/** Event status notification (section 6.6). */
const CLASS_MEDIA = 4;
const NO_EVENT = 0x80;
const MEDIA_EVENT = { NONE: 0, EJECT_REQUEST: 1, NEW_MEDIA: 2 } as const;
const MEDIA_STATUS = { TRAY_OPEN: 1, PRESENT: 2 } as const;

const DVD_PHYSICAL = 0x00;
const DVD_COPYRIGHT = 0x01;
const DVD_MANUFACTURING = 0x04;
const DVD_LIST = 0xff;
/** Formats of READ DVD STRUCTURE that can be asked for, with their sizes. */
const DVD_FORMATS = [
  [DVD_PHYSICAL, BLOCK + 4],
  [DVD_COPYRIGHT, 8],
  [0x03, 192],
  [DVD_MANUFACTURING, BLOCK + 4],
] as const;

const viewOf = (out: Uint8Array): DataView => new DataView(out.buffer, out.byteOffset, out.length);

export interface TocRequest {
  readonly format: number;
  readonly inMsf: boolean;
  readonly track: number;
}

/**
 * READ TOC/PMA/ATIP (section 6.26) of a disc of one session with one track.
 *
 * @returns the size of the table in `out`, or 0 where there is none of that format or track
 */
export function readToc(out: Uint8Array, blocks: number, { format, inMsf, track }: TocRequest): number {
  switch (format) {
    case 0:
      return track <= 1 || track === LEAD_OUT ? toc(out, blocks, inMsf, track <= 1) : 0;
    case 1:
      out.fill(0, 0, 12).set([0x00, 0x0a, 0x01, 0x01]);
      return 12;
    case 2:
      return rawToc(out, blocks, inMsf);
    default:
      return 0;
  }
}

function toc(out: Uint8Array, blocks: number, inMsf: boolean, withTrack: boolean): number {
  let at = 4;
  const entry = (control: number, track: number, block: number): void => {
    out.set([0, control, track, 0], at);
    putAddress(out, at + 4, block, inMsf);
    at += 8;
  };
  out.set([0, 0, 1, 1]);
  if (withTrack) entry(TRACK_DATA, 1, 0);
  entry(TRACK_LEAD_OUT, LEAD_OUT, blocks);
  viewOf(out).setUint16(0, at - 2);
  return at;
}

function rawToc(out: Uint8Array, blocks: number, inMsf: boolean): number {
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
    [0xa2, blocks],
    [1, 0],
  ] as const) {
    point(number);
    putAddress(out, at + 7, block, inMsf);
    at += 11;
  }
  viewOf(out).setUint16(0, at - 2);
  return at;
}

function putAddress(out: Uint8Array, at: number, block: number, inMsf: boolean): void {
  if (!inMsf) {
    viewOf(out).setUint32(at, block);
    return;
  }
  out[at] = 0;
  putMsf(out, at + 1, block);
}

/** READ DISC INFORMATION (section 6.22): a finalized disc of one session, with one track, for unrestricted use. */
export function discInformation(out: Uint8Array): number {
  out.fill(0, 0, 34).set([0, 32, 0x0e, 1, 1, 1, 1, 0x20]);
  return 34;
}

/**
 * READ DVD STRUCTURE (section 6.29). `out` is zeroed.
 *
 * @returns the size of the structure, or 0 where there is none of that format or layer
 */
export function dvdStructure(out: Uint8Array, blocks: number, format: number, layer: number): number {
  const view = viewOf(out);
  const done = (size: number): number => {
    view.setUint16(0, size - 2);
    return size;
  };
  switch (format) {
    case DVD_PHYSICAL:
      if (layer !== 0) return 0;
      out.set([0x01, 0x0f, 0x01, 0x00], 4); // DVD-ROM; 120 mm; one layer, read-only
      view.setUint32(12, blocks - 1);
      view.setUint32(16, blocks - 1);
      return done(BLOCK + 4);
    case DVD_COPYRIGHT: // none
      return done(8);
    case DVD_MANUFACTURING:
      return done(BLOCK + 4);
    case DVD_LIST:
      for (const [index, [code, size]] of DVD_FORMATS.entries()) {
        out.set([code, 0x40], 4 + 4 * index); // readable, not writable
        view.setUint16(6 + 4 * index, size);
      }
      return done(4 + 4 * DVD_FORMATS.length);
    default:
      return 0;
  }
}

/** Header and profile list, feature 0, of GET CONFIGURATION (section 6.5); returns where further features go. */
export function putProfiles(out: Uint8Array, current: number): number {
  const view = viewOf(out);
  out.fill(0, 0, 20);
  view.setUint16(6, current);
  out[10] = 0x03; // persistent and current
  let end = 12;
  for (const profile of [PROFILE.DVD_ROM, PROFILE.CD_ROM]) {
    view.setUint16(end, profile);
    out[end + 2] = profile === current ? 1 : 0;
    end += 4;
  }
  out[11] = end - 12;
  return end;
}

/** The tray and its medium, with what is to be told of them once. */
export interface MediaState {
  trayOpen: boolean;
  newMedium: boolean;
  ejectRequest: boolean;
}

/** GET EVENT STATUS NOTIFICATION (section 6.6), polled; events of the medium are all that there are. */
export function eventStatus(out: Uint8Array, classes: number, media: MediaState, inserted: boolean): number {
  const wantsMedia = (classes & (1 << CLASS_MEDIA)) !== 0;
  out.set([0, wantsMedia ? 4 : 0, wantsMedia ? CLASS_MEDIA : NO_EVENT, 1 << CLASS_MEDIA]);
  if (!wantsMedia) return 4;
  let event: number = MEDIA_EVENT.NONE;
  if (!media.trayOpen && media.newMedium) {
    event = MEDIA_EVENT.NEW_MEDIA;
    media.newMedium = false;
  } else if (!media.trayOpen && media.ejectRequest) {
    event = MEDIA_EVENT.EJECT_REQUEST;
    media.ejectRequest = false;
  }
  out.set([event, media.trayOpen ? MEDIA_STATUS.TRAY_OPEN : inserted ? MEDIA_STATUS.PRESENT : 0, 0, 0], 4);
  return 8;
}

/** MECHANISM STATUS (section 6.10): one slot, idle. */
export function mechanismStatus(out: Uint8Array): number {
  out.fill(0, 0, 8)[5] = 1;
  return 8;
}
