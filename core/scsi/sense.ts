/** Sense keys (SPC-3, section 4.5.6). */
export const SENSE_KEY = {
  NO_SENSE: 0x0,
  NOT_READY: 0x2,
  MEDIUM_ERROR: 0x3,
  HARDWARE_ERROR: 0x4,
  ILLEGAL_REQUEST: 0x5,
  UNIT_ATTENTION: 0x6,
  DATA_PROTECT: 0x7,
  ABORTED_COMMAND: 0xb,
} as const;

/** Why a command did not end well: the key, and the additional sense code with its qualifier. */
export interface Sense {
  readonly key: number;
  readonly asc: number;
  readonly ascq: number;
}

const code =
  (key: number) =>
  (asc: number, ascq = 0): Sense => ({ key, asc, ascq });
const notReady = code(SENSE_KEY.NOT_READY);
const illegal = code(SENSE_KEY.ILLEGAL_REQUEST);
const attention = code(SENSE_KEY.UNIT_ATTENTION);

/** Additional sense codes (SPC-3, annex D) under the keys that they come with. */
export const SENSE = {
  NONE: code(SENSE_KEY.NO_SENSE)(0),
  LUN_NOT_READY: notReady(0x04, 0x03),
  MEDIUM_NOT_PRESENT: notReady(0x3a),
  REMOVAL_PREVENTED_WHILE_EMPTY: notReady(0x53, 0x02),
  READ_ERROR: code(SENSE_KEY.MEDIUM_ERROR)(0x11),
  TARGET_FAILURE: code(SENSE_KEY.HARDWARE_ERROR)(0x44),
  PARAMETER_LIST_LENGTH: illegal(0x1a),
  INVALID_OPCODE: illegal(0x20),
  LBA_OUT_OF_RANGE: illegal(0x21),
  INVALID_FIELD: illegal(0x24),
  LUN_NOT_SUPPORTED: illegal(0x25),
  INVALID_PARAMETER: illegal(0x26),
  INCOMPATIBLE_FORMAT: illegal(0x30),
  SAVING_NOT_SUPPORTED: illegal(0x39),
  REMOVAL_PREVENTED: illegal(0x53, 0x02),
  MEDIUM_CHANGED: attention(0x28),
  POWER_ON_OR_RESET: attention(0x29),
  BUS_RESET: attention(0x29, 0x02),
  CAPACITY_CHANGED: attention(0x2a, 0x09),
  MEDIUM_REMOVED: attention(0x3a),
  REPORTED_LUNS_CHANGED: attention(0x3f, 0x0e),
  WRITE_PROTECTED: code(SENSE_KEY.DATA_PROTECT)(0x27),
  SPACE_ALLOCATION_FAILED: code(SENSE_KEY.DATA_PROTECT)(0x27, 0x07),
  IO_PROCESS_TERMINATED: code(SENSE_KEY.ABORTED_COMMAND)(0x00, 0x06),
} as const;

/** Bytes of sense data in the fixed format, which fits all that devices here have to say. */
export const SENSE_BYTES = 18;
const DESCRIPTOR_BYTES = 8;
const FIXED_CURRENT = 0x70;
const DESCRIPTOR_CURRENT = 0x72;

/**
 * Writes sense data into the first bytes of `out`, cut off at `room` (SPC-3, sections 4.5.2 and 4.5.3).
 *
 * @returns how many bytes there are
 */
export function putSense(out: Uint8Array, room: number, sense: Sense, fixed = true): number {
  const length = Math.min(room, fixed ? SENSE_BYTES : DESCRIPTOR_BYTES);
  for (let index = 0; index < length; index++) out[index] = senseByte(index, sense, fixed);
  return length;
}

function senseByte(index: number, { key, asc, ascq }: Sense, fixed: boolean): number {
  if (!fixed) return index === 0 ? DESCRIPTOR_CURRENT : index === 1 ? key : index === 2 ? asc : index === 3 ? ascq : 0;
  switch (index) {
    case 0:
      return FIXED_CURRENT;
    case 2:
      return key;
    case 7:
      return SENSE_BYTES - 8;
    case 12:
      return asc;
    case 13:
      return ascq;
    default:
      return 0;
  }
}

/** Which of two unit attentions is told first: the lower number (SAM-4, section 5.14). */
export function attentionPrecedence({ key, asc, ascq }: Sense): number {
  if (key !== SENSE_KEY.UNIT_ATTENTION) return Number.POSITIVE_INFINITY;
  const all = (asc << 8) | ascq;
  switch (all) {
    case 0x2904: // DEVICE INTERNAL RESET ranks with POWER ON
      return 1;
    case 0x3f01: // MICROCODE HAS BEEN CHANGED ranks with SCSI BUS RESET
      return 2;
    case 0x2905:
    case 0x2906:
      return all;
    case 0x2f01: // COMMANDS CLEARED BY POWER LOSS NOTIFICATION
      return 8;
    default:
      return asc === 0x29 && ascq <= 7 ? ascq : all;
  }
}
