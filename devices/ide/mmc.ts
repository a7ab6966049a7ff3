/** Replies of a CD or DVD drive to packet commands (MMC-3, T10/1363D; SPC-3 for INQUIRY and sense). */

export const MMC = {
  TEST_UNIT_READY: 0x00,
  REQUEST_SENSE: 0x03,
  INQUIRY: 0x12,
  START_STOP_UNIT: 0x1b,
  PREVENT_ALLOW_REMOVAL: 0x1e,
  READ_CAPACITY: 0x25,
  READ_10: 0x28,
  SEEK_10: 0x2b,
  READ_TOC: 0x43,
  GET_CONFIGURATION: 0x46,
  GET_EVENT_STATUS: 0x4a,
  READ_DISC_INFORMATION: 0x51,
  MODE_SENSE_10: 0x5a,
  READ_12: 0xa8,
  READ_DVD_STRUCTURE: 0xad,
  SET_CD_SPEED: 0xbb,
  MECHANISM_STATUS: 0xbd,
  READ_CD: 0xbe,
} as const;

/** Sense keys (SPC-3, table 27). */
export const SENSE = { NONE: 0, NOT_READY: 2, ILLEGAL_REQUEST: 5, UNIT_ATTENTION: 6 } as const;
/** Additional sense codes (SPC-3, annex D). */
export const ASC = {
  ILLEGAL_OPCODE: 0x20,
  LOGICAL_BLOCK_OUT_OF_RANGE: 0x21,
  INVALID_FIELD: 0x24,
  MEDIUM_MAY_HAVE_CHANGED: 0x28,
  SAVING_NOT_SUPPORTED: 0x39,
  MEDIUM_NOT_PRESENT: 0x3a,
  DATA_PHASE_ERROR: 0x4b,
  REMOVAL_PREVENTED: 0x53,
} as const;

export const CD_SECTOR = 2048;
/** More sectors than fit on a CD: a DVD. */
const CD_MAX_SECTORS = (80 * 60 * 75 * CD_SECTOR) / CD_SECTOR;
const PROFILE = { CD_ROM: 0x0008, DVD_ROM: 0x0010 } as const;
const PAGE = { ERROR_RECOVERY: 0x01, AUDIO: 0x0e, CAPABILITIES: 0x2a } as const;
const LEAD_OUT = 0xaa;
const FRAMES = 75;
const PREGAP = 150;

export interface DriveFacts {
  readonly serial: string;
  readonly model: string;
  readonly version: string;
  readonly wwn: bigint;
  /** Sectors of the medium of 2048 bytes; 0 without one. */
  readonly sectors: number;
  readonly trayLocked: boolean;
}

/** A reply, or the additional sense code of an illegal request. */
export type Reply = Uint8Array | number;

const text = (value: string, length: number): Uint8Array =>
  Buffer.from(value.padEnd(length, ' ').slice(0, length), 'latin1');
const be16 = (value: number): [number, number] => [(value >> 8) & 0xff, value & 0xff];
const be32 = (value: number): number[] => [value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff];
const join = (...parts: (Uint8Array | readonly number[])[]): Uint8Array =>
  Buffer.concat(parts.map(part => Uint8Array.from(part)));

/** SPC-3, section 6.4. */
export function inquiry(packet: Uint8Array, facts: DriveFacts): Reply {
  if (((packet[1] ?? 0) & 1) === 0) {
    return join(
      [0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0],
      text('QEMU', 8),
      text('QEMU DVD-ROM', 16),
      text(facts.version, 4),
    );
  }
  const page = packet[2] ?? 0;
  if (page === 0x00) return join([0x05, page, 0, 2, 0x00, 0x83]);
  if (page !== 0x83) return ASC.INVALID_FIELD;
  const room = packet[4] ?? 0;
  const parts = [join([0x02, 0x00, 0, 20], text(facts.serial, 20))];
  if (4 + 24 > room) return ASC.DATA_PHASE_ERROR;
  if (4 + 24 + 72 <= room) {
    parts.push(join([0x02, 0x01, 0, 68], text('ATA', 8), text(facts.model, 40), text(facts.serial, 20)));
    if (facts.wwn !== 0n && 4 + 24 + 72 + 12 <= room) {
      const wwn = Buffer.alloc(8);
      wwn.writeBigUInt64BE(facts.wwn);
      parts.push(join([0x01, 0x03, 0, 8], wwn));
    }
  }
  const body = Buffer.concat(parts);
  return join([0x05, page, 0, body.length], body);
}

/** Fixed format (SPC-3, section 4.5.3). */
export function requestSense(key: number, asc: number): Uint8Array {
  return join([0xf0, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, 0, 0, 0, 0, 0]);
}

export function readCapacity(facts: DriveFacts): Uint8Array {
  return join(be32(facts.sectors - 1), be32(CD_SECTOR));
}

/** MMC-3, section 5.23; formats 0 (TOC), 1 (sessions) and 2 (full TOC). */
export function readToc(packet: Uint8Array, facts: DriveFacts): Reply {
  const msf = ((packet[1] ?? 0) & 2) !== 0;
  const format = (packet[9] ?? 0) >> 6;
  const first = packet[6] ?? 0;
  const address = (lba: number): number[] => (msf ? [0, ...minuteSecondFrame(lba)] : be32(lba));
  if (format === 1) return join([0, 0x0a, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
  if (format === 0) {
    if (first > 1 && first !== LEAD_OUT) return ASC.INVALID_FIELD;
    const track = first <= 1 ? [0, 0x14, 1, 0, ...address(0)] : [];
    const body = [1, 1, ...track, 0, 0x16, LEAD_OUT, 0, ...address(facts.sectors)];
    return join(be16(body.length), body);
  }
  if (format !== 2) return ASC.INVALID_FIELD;
  const point = (adr: number, number: number, at: readonly number[]): number[] => [1, adr, 0, number, 0, 0, 0, ...at];
  const end = msf ? [0, ...minuteSecondFrame(facts.sectors)] : be32(facts.sectors);
  const start = msf ? [0, 0, 2, 0] : be32(0);
  const body = [
    1,
    1,
    ...point(0x14, 0xa0, [0, 1, 0, 0]),
    ...point(0x14, 0xa1, [0, 1, 0, 0]),
    ...point(0x14, 0xa2, end),
    ...point(0x14, 1, start),
  ];
  return join(be16(body.length), body);
}

function minuteSecondFrame(lba: number): [number, number, number] {
  const frames = lba + PREGAP;
  return [Math.floor(frames / FRAMES / 60), Math.floor(frames / FRAMES) % 60, frames % FRAMES];
}

/** MMC-3, section 5.6: the profile list and nothing else. */
export function getConfiguration(packet: Uint8Array, facts: DriveFacts): Reply {
  if (packet[2] !== 0 || packet[3] !== 0) return ASC.INVALID_FIELD;
  const isDvd = facts.sectors > CD_MAX_SECTORS;
  const current = facts.sectors === 0 ? 0 : isDvd ? PROFILE.DVD_ROM : PROFILE.CD_ROM;
  const profile = (number: number): number[] => [...be16(number), number === current ? 1 : 0, 0];
  const profiles = [...profile(PROFILE.DVD_ROM), ...profile(PROFILE.CD_ROM)];
  const body = [0, 0, ...be16(current), 0, 0, 0x03, profiles.length, ...profiles];
  return join(be32(body.length), body);
}

/** MMC-3, section 5.22. */
export function readDiscInformation(packet: Uint8Array): Reply {
  if (((packet[1] ?? 0) & 7) !== 0) return ASC.INVALID_FIELD;
  const reply = new Uint8Array(34);
  reply.set([0, 32, 0x0e, 1, 1, 1, 1, 0x20]);
  return reply;
}

/** SPC-3, section 6.10; current values only. */
export function modeSense(packet: Uint8Array, facts: DriveFacts): Reply {
  const control = (packet[2] ?? 0) >> 6;
  if (control === 3) return ASC.SAVING_NOT_SUPPORTED;
  if (control !== 0) return ASC.INVALID_FIELD;
  const page = (bytes: readonly number[]): Uint8Array => join(be16(6 + bytes.length), [0x70, 0, 0, 0, 0, 0], bytes);
  switch ((packet[2] ?? 0) & 0x3f) {
    case PAGE.ERROR_RECOVERY:
      return page([PAGE.ERROR_RECOVERY, 6, 0x00, 0x05, 0, 0, 0, 0]);
    case PAGE.AUDIO:
      return page([PAGE.AUDIO, 14, ...new Array<number>(14).fill(0)]);
    case PAGE.CAPABILITIES: {
      // Reads all kinds of CD and DVD, plays audio, ejects; locks; 4x with 512 KiB of cache.
      const lock = (1 << 0) | (1 << 3) | (1 << 5) | (facts.trayLocked ? 1 << 1 : 0);
      return page([
        PAGE.CAPABILITIES,
        20,
        0x3b,
        0,
        0x71,
        3 << 5,
        lock,
        0,
        ...be16(704),
        0,
        2,
        ...be16(512),
        ...be16(704),
        0,
        0,
        0,
        0,
        0,
        0,
      ]);
    }
    default:
      return ASC.INVALID_FIELD;
  }
}

export function mechanismStatus(): Uint8Array {
  return join([0, 0, 0, 0, 0, 1, 0, 0]);
}

/** MMC-3, section 5.24. */
export function readDvdStructure(packet: Uint8Array, facts: DriveFacts): Reply {
  const format = packet[7] ?? 0;
  const [layer, media] = [packet[6] ?? 0, (packet[1] ?? 0) & 0x0f];
  if (format < 0xff && facts.sectors <= CD_MAX_SECTORS) return 0x30;
  if (media !== 0) return ASC.INVALID_FIELD;
  const reply = (size: number, body: readonly number[]): Uint8Array => {
    const bytes = new Uint8Array(size);
    bytes.set(be16(size - 2));
    bytes.set(body, 4);
    return bytes;
  };
  switch (format) {
    case 0x00:
      if (layer !== 0) return ASC.INVALID_FIELD;
      return reply(CD_SECTOR + 4, [1, 0x0f, 1, 0, ...be32(0), ...be32(facts.sectors - 1), ...be32(facts.sectors - 1)]);
    case 0x01:
      return reply(8, []);
    case 0x04:
      return reply(CD_SECTOR + 4, []);
    case 0xff: {
      const entries: readonly [number, number][] = [
        [0x00, CD_SECTOR + 4],
        [0x01, 8],
        [0x03, 192],
        [0x04, CD_SECTOR + 4],
      ];
      return reply(
        20,
        entries.flatMap(([kind, size]) => [kind, 0x40, ...be16(size)]),
      );
    }
    default:
      return ASC.INVALID_FIELD;
  }
}
