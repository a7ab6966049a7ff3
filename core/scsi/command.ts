/** Operation codes (SPC-3, table C.2; SBC-3, table 11; MMC-5, table 235) that devices or their data phases know. */
export const OP = {
  TEST_UNIT_READY: 0x00,
  REQUEST_SENSE: 0x03,
  FORMAT_UNIT: 0x04,
  REASSIGN_BLOCKS: 0x07,
  READ_6: 0x08,
  WRITE_6: 0x0a,
  INQUIRY: 0x12,
  MODE_SELECT_6: 0x15,
  RESERVE_6: 0x16,
  RELEASE_6: 0x17,
  MODE_SENSE_6: 0x1a,
  START_STOP_UNIT: 0x1b,
  RECEIVE_DIAGNOSTIC: 0x1c,
  SEND_DIAGNOSTIC: 0x1d,
  PREVENT_ALLOW_MEDIUM_REMOVAL: 0x1e,
  READ_CAPACITY_10: 0x25,
  READ_10: 0x28,
  WRITE_10: 0x2a,
  SEEK_10: 0x2b,
  WRITE_AND_VERIFY_10: 0x2e,
  VERIFY_10: 0x2f,
  SEARCH_HIGH_10: 0x30,
  SEARCH_EQUAL_10: 0x31,
  SEARCH_LOW_10: 0x32,
  SET_LIMITS_10: 0x33,
  PRE_FETCH_10: 0x34,
  SYNCHRONIZE_CACHE_10: 0x35,
  LOCK_UNLOCK_CACHE_10: 0x36,
  COMPARE: 0x39,
  COPY_AND_VERIFY: 0x3a,
  WRITE_BUFFER: 0x3b,
  READ_BUFFER: 0x3c,
  UPDATE_BLOCK: 0x3d,
  WRITE_LONG_10: 0x3f,
  CHANGE_DEFINITION: 0x40,
  WRITE_SAME_10: 0x41,
  UNMAP: 0x42,
  READ_TOC: 0x43,
  GET_CONFIGURATION: 0x46,
  GET_EVENT_STATUS: 0x4a,
  LOG_SELECT: 0x4c,
  READ_DISC_INFORMATION: 0x51,
  RESERVE_TRACK: 0x53,
  MODE_SELECT_10: 0x55,
  RESERVE_10: 0x56,
  RELEASE_10: 0x57,
  MODE_SENSE_10: 0x5a,
  SEND_CUE_SHEET: 0x5d,
  PERSISTENT_RESERVE_OUT: 0x5f,
  ATA_PASS_THROUGH_16: 0x85,
  READ_16: 0x88,
  WRITE_16: 0x8a,
  WRITE_AND_VERIFY_16: 0x8e,
  VERIFY_16: 0x8f,
  PRE_FETCH_16: 0x90,
  SYNCHRONIZE_CACHE_16: 0x91,
  WRITE_SAME_16: 0x93,
  SERVICE_ACTION_IN_16: 0x9e,
  REPORT_LUNS: 0xa0,
  ATA_PASS_THROUGH_12: 0xa1,
  MAINTENANCE_IN: 0xa3,
  MAINTENANCE_OUT: 0xa4,
  SET_READ_AHEAD: 0xa7,
  READ_12: 0xa8,
  WRITE_12: 0xaa,
  GET_PERFORMANCE: 0xac,
  READ_DVD_STRUCTURE: 0xad,
  WRITE_AND_VERIFY_12: 0xae,
  VERIFY_12: 0xaf,
  SEARCH_HIGH_12: 0xb0,
  SEARCH_EQUAL_12: 0xb1,
  SEARCH_LOW_12: 0xb2,
  SET_STREAMING: 0xb6,
  SET_CD_SPEED: 0xbb,
  MECHANISM_STATUS: 0xbd,
  READ_CD: 0xbe,
  SEND_DVD_STRUCTURE: 0xbf,
} as const;

/** Status codes (SAM-4, section 5.3). */
export const STATUS = {
  GOOD: 0x00,
  CHECK_CONDITION: 0x02,
  BUSY: 0x08,
  RESERVATION_CONFLICT: 0x18,
  TASK_SET_FULL: 0x28,
} as const;

export const CDB_BYTES = 16;
/** The largest transfer that a command may ask for. */
const TRANSFER_MAX = 0x7fff_ffff;
/** READ (6) and WRITE (6) of no blocks are of as many (SBC-3, section 5.6). */
const ZERO_MEANS = 256;

/** Which way the data of a command goes, as its initiator sees it. */
export type DataDirection = 'none' | 'in' | 'out';

/** Commands whose data goes to the device; others with data bring some. */
const DATA_OUT: ReadonlySet<number> = new Set([
  OP.WRITE_6,
  OP.WRITE_10,
  OP.WRITE_AND_VERIFY_10,
  OP.WRITE_12,
  OP.WRITE_AND_VERIFY_12,
  OP.WRITE_16,
  OP.WRITE_AND_VERIFY_16,
  OP.VERIFY_10,
  OP.VERIFY_12,
  OP.VERIFY_16,
  OP.COPY_AND_VERIFY,
  OP.COMPARE,
  OP.CHANGE_DEFINITION,
  OP.LOG_SELECT,
  OP.MODE_SELECT_6,
  OP.MODE_SELECT_10,
  OP.SEND_DIAGNOSTIC,
  OP.WRITE_BUFFER,
  OP.FORMAT_UNIT,
  OP.REASSIGN_BLOCKS,
  OP.SEARCH_EQUAL_10,
  OP.SEARCH_HIGH_10,
  OP.SEARCH_LOW_10,
  OP.UPDATE_BLOCK,
  OP.WRITE_LONG_10,
  OP.WRITE_SAME_10,
  OP.WRITE_SAME_16,
  OP.UNMAP,
  OP.SEARCH_HIGH_12,
  OP.SEARCH_EQUAL_12,
  OP.SEARCH_LOW_12,
  OP.SET_STREAMING,
  OP.SEND_CUE_SHEET,
  OP.SEND_DVD_STRUCTURE,
  OP.PERSISTENT_RESERVE_OUT,
  OP.MAINTENANCE_OUT,
]);

/** Length of a command descriptor block by its operation code's group (SPC-3, section 4.3.4); 0 where it is not known. */
export function cdbLength(opcode: number): number {
  switch (opcode >>> 5) {
    case 0:
      return 6;
    case 1:
    case 2:
      return 10;
    case 4:
      return 16;
    case 5:
      return 12;
    default:
      return 0;
  }
}

/** The TRANSFER, PARAMETER LIST or ALLOCATION LENGTH where the group of the command has it. */
function lengthField(cdb: DataView, length: number): number {
  switch (length) {
    case 6:
      return cdb.getUint8(4);
    case 10:
      return cdb.getUint16(7);
    case 12:
      return cdb.getUint32(6);
    default:
      return cdb.getUint32(10);
  }
}

/** What the length of a command's data depends on. */
export interface LogicalUnit {
  readonly blockSize: number;
  readonly kind: 'disk' | 'cd';
}

/** A command descriptor block, and what it says whatever the command is. */
export class ScsiCommand {
  readonly bytes = new Uint8Array(CDB_BYTES);
  readonly view = new DataView(this.bytes.buffer);
  /** Of the block; 0 where it is none. */
  length = 0;
  /** Bytes of the command's data. */
  transfer = 0;
  direction: DataDirection = 'none';
  /** The LOGICAL BLOCK ADDRESS; beyond 2^53 no longer exact, and out of every device's range. */
  lba = 0;
  /** The TRANSFER LENGTH in blocks, of commands that have one. */
  blocks = 0;

  get opcode(): number {
    return this.bytes[0] ?? 0;
  }

  /** Whether the data is longer than any command's may be. */
  get tooLong(): boolean {
    return this.transfer > TRANSFER_MAX;
  }

  /** Takes the first `available` bytes of `from`. False where they are no command. */
  parse(from: Uint8Array, available: number, unit: LogicalUnit): boolean {
    const length = available > 0 ? cdbLength(from[0] ?? 0) : 0;
    if (length === 0 || length > available) return false;
    for (let index = 0; index < length; index++) this.bytes[index] = from[index] ?? 0;
    this.length = length;
    const field = lengthField(this.view, length);
    this.blocks = field === 0 && (this.opcode === OP.READ_6 || this.opcode === OP.WRITE_6) ? ZERO_MEANS : field;
    this.transfer = this.#dataLength(field, unit);
    this.direction = this.transfer === 0 ? 'none' : this.#goesOut ? 'out' : 'in';
    this.lba = this.#address();
    return true;
  }

  get #goesOut(): boolean {
    const { opcode } = this;
    // T_DIR
    if (opcode === OP.ATA_PASS_THROUGH_12 || opcode === OP.ATA_PASS_THROUGH_16)
      return (this.view.getUint8(2) & 8) === 0;
    return DATA_OUT.has(opcode);
  }

  #address(): number {
    const { view } = this;
    if (this.length === 6) return view.getUint32(0) & 0x1f_ffff;
    if (this.length === 16) return view.getUint32(2) * 2 ** 32 + view.getUint32(6);
    return view.getUint32(2);
  }

  #dataLength(field: number, unit: LogicalUnit): number {
    const { view } = this;
    const isCd = unit.kind === 'cd';
    const options = view.getUint8(1);
    switch (this.opcode) {
      case OP.TEST_UNIT_READY:
      case OP.START_STOP_UNIT:
      case OP.RESERVE_6:
      case OP.RELEASE_6:
      case OP.PREVENT_ALLOW_MEDIUM_REMOVAL:
      case OP.SEEK_10:
      case OP.SYNCHRONIZE_CACHE_10:
      case OP.SYNCHRONIZE_CACHE_16:
      case OP.LOCK_UNLOCK_CACHE_10:
      case OP.SET_CD_SPEED:
      case OP.SET_LIMITS_10:
      case OP.WRITE_LONG_10:
      case OP.UPDATE_BLOCK:
      case OP.RESERVE_TRACK:
      case OP.SET_READ_AHEAD:
      case OP.PRE_FETCH_10:
      case OP.PRE_FETCH_16:
        return 0;
      case OP.VERIFY_10:
      case OP.VERIFY_12:
      case OP.VERIFY_16:
        // BYTCHK 01b compares all blocks, 11b one block with each (SBC-3, section 5.27).
        if ((options & 0x02) === 0) return 0;
        return ((options & 0x04) !== 0 ? 1 : field) * unit.blockSize;
      case OP.WRITE_SAME_10:
      case OP.WRITE_SAME_16:
        return (options & 0x01) !== 0 ? 0 : unit.blockSize;
      case OP.READ_CAPACITY_10:
        return 8;
      case OP.READ_6:
      case OP.READ_10:
      case OP.READ_12:
      case OP.READ_16:
      case OP.WRITE_6:
      case OP.WRITE_10:
      case OP.WRITE_12:
      case OP.WRITE_16:
      case OP.WRITE_AND_VERIFY_10:
      case OP.WRITE_AND_VERIFY_12:
      case OP.WRITE_AND_VERIFY_16:
        return this.blocks * unit.blockSize;
      case OP.FORMAT_UNIT:
        // FMTDATA: a parameter list, whose header LONGLIST makes longer (SBC-3, section 5.2); MMC-5 has one length.
        if ((options & 0x10) === 0) return 0;
        return isCd ? 12 : (options & 0x20) !== 0 ? 8 : 4;
      case OP.INQUIRY:
      case OP.RECEIVE_DIAGNOSTIC:
      case OP.SEND_DIAGNOSTIC:
        return view.getUint16(3);
      case OP.READ_CD:
      case OP.READ_BUFFER:
      case OP.WRITE_BUFFER:
      case OP.SEND_CUE_SHEET:
        return (view.getUint8(6) << 16) | view.getUint16(7);
      case OP.PERSISTENT_RESERVE_OUT:
        return view.getUint32(5);
      case OP.SET_STREAMING:
        return view.getUint16(isCd ? 9 : 8);
      case OP.GET_PERFORMANCE:
        return isCd ? performanceLength(view) : field;
      case OP.MECHANISM_STATUS:
      case OP.READ_DVD_STRUCTURE:
      case OP.SEND_DVD_STRUCTURE:
      case OP.MAINTENANCE_IN:
      case OP.MAINTENANCE_OUT:
        return isCd ? view.getUint16(8) : field;
      case OP.ATA_PASS_THROUGH_12:
        // MMC-5 has BLANK here.
        return isCd ? 0 : passThrough(view, unit.blockSize, view.getUint8(3), view.getUint8(4));
      case OP.ATA_PASS_THROUGH_16: {
        const extended = (options & 0x01) !== 0 ? 0xffff : 0xff;
        return passThrough(view, unit.blockSize, view.getUint16(3) & extended, view.getUint16(5) & extended);
      }
      default:
        return field;
    }
  }
}

/** Performance descriptors by the type of the data, after a header (MMC-5, section 6.7). */
function performanceLength(view: DataView): number {
  const nominal = (view.getUint8(1) & 3) === 0;
  const bytes = [nominal ? 16 : 6, 8, 2048, 16, 8, 8][view.getUint8(10)] ?? 0;
  return 8 + view.getUint16(8) * bytes;
}

/** ATA PASS-THROUGH: T_LENGTH says which field counts, BYT_BLOK and T_TYPE what it counts (SAT-3, section 12.2.2). */
function passThrough(view: DataView, blockSize: number, features: number, count: number): number {
  const options = view.getUint8(2);
  const unit = (options & 0x04) === 0 ? 1 : (options & 0x10) === 0 ? 512 : blockSize;
  const field = options & 3;
  return field === 1 ? features * unit : field === 2 ? count * unit : 0;
}
