/** Repository of sensor data records (IPMI 2.0, sections 33 and 43). */
import { field, type StateValues } from '../../../core/state/fields.ts';
import { COMPLETION } from '../message.ts';
import { type CommandSet, commands, ERASE, NEVER, nextReservation, saysClear, type TimeOfDay } from './command.ts';

const CAPACITY = 16384;
const VERSION = 0x51;
const HEADER = 5;
/** Places in a record's header (section 43). */
const RECORD_VERSION = 2;
const RECORD_LENGTH = 4;
const LONGEST = 255;
const WHOLE = 0xff;
const LAST = 0xffff;
/** Modal update; Reserve is there (table 33-2). */
const OPERATIONS = 0x22;
const OVERFLOW = 0x80;

export const sensorRecordsState = {
  records: field.list(field.buffer(LONGEST), CAPACITY / HEADER),
  nextId: field.u16(),
  reservation: field.u16(),
  lastAddition: field.u32(NEVER),
  lastErase: field.u32(NEVER),
  overflow: field.bool(),
};

export class SensorRecords {
  readonly #state: StateValues<typeof sensorRecordsState>;
  readonly #now: TimeOfDay;
  readonly commands: CommandSet;

  constructor(state: StateValues<typeof sensorRecordsState>, now: TimeOfDay) {
    this.#state = state;
    this.#now = now;
    this.commands = commands([
      // 33.9 Get SDR Repository Info
      [
        0x20,
        (_, response) => {
          const { records, lastAddition, lastErase, overflow } = this.#state;
          response
            .u8(VERSION)
            .u16(records.length)
            .u16(CAPACITY - this.#used)
            .u32(lastAddition)
            .u32(lastErase);
          response.u8(OPERATIONS | (overflow ? OVERFLOW : 0));
          return COMPLETION.OK;
        },
      ],
      // 33.11 Reserve SDR Repository
      [
        0x22,
        (_, response) => {
          response.u16(this.#state.reservation);
          return COMPLETION.OK;
        },
      ],
      // 33.12 Get SDR
      [
        0x23,
        (request, response) => {
          const { records, reservation } = this.#state;
          const [wanted, offset, count] = [request.u16(2), request.u8(4), request.u8(5)];
          if (offset !== 0 && request.u16(0) !== reservation) return COMPLETION.INVALID_RESERVATION;
          const index = records.findIndex(candidate => idOf(candidate) === wanted);
          const record = records[index];
          if (record === undefined) return COMPLETION.NOT_PRESENT;
          if (offset > record.length) return COMPLETION.PARAMETER_OUT_OF_RANGE;
          const next = records[index + 1];
          response.u16(next === undefined ? LAST : idOf(next));
          if (count !== WHOLE && count > response.room) return COMPLETION.CANNOT_RETURN_BYTES;
          response.add(record.subarray(offset, count === WHOLE ? record.length : offset + count));
          return COMPLETION.OK;
        },
        6,
      ],
      // 33.13 Add SDR
      [
        0x24,
        (request, response) => {
          const id = this.add(request.data);
          if (id === undefined) return COMPLETION.INVALID_DATA_FIELD;
          response.u16(id);
          return COMPLETION.OK;
        },
      ],
      // 33.16 Clear SDR Repository
      [
        0x27,
        (request, response) => {
          const state = this.#state;
          if (request.u16(0) !== state.reservation) return COMPLETION.INVALID_RESERVATION;
          const action = request.u8(5);
          if (!saysClear(request) || (action !== ERASE.INITIATE && action !== ERASE.STATUS))
            return COMPLETION.INVALID_DATA_FIELD;
          if (action === ERASE.INITIATE) {
            state.records = [];
            state.overflow = false;
            state.lastErase = this.#now();
            state.reservation = nextReservation(state.reservation);
          }
          response.u8(ERASE.COMPLETED);
          return COMPLETION.OK;
        },
        6,
      ],
    ]);
  }

  get all(): readonly Uint8Array[] {
    return this.#state.records;
  }

  /** Adds a record, which gets a number. Undefined where it is none, or there is no room. */
  add(record: Uint8Array): number | undefined {
    const state = this.#state;
    if (record.length < HEADER || record.length > LONGEST || record.length !== HEADER + (record[RECORD_LENGTH] ?? 0))
      return undefined;
    if (this.#used + record.length > CAPACITY) {
      state.overflow = true;
      return undefined;
    }
    const added = Buffer.from(record);
    added.writeUInt16LE(state.nextId);
    added[RECORD_VERSION] = VERSION;
    state.records.push(added);
    state.lastAddition = this.#now();
    state.reservation = nextReservation(state.reservation);
    const id = state.nextId;
    state.nextId = (id + 1) & 0xffff;
    return id;
  }

  /** Adds the records of a file, one behind the other. Returns where it makes no sense any more, or undefined. */
  load(file: Uint8Array): number | undefined {
    for (let at = 0; at < file.length; ) {
      const end = at + HEADER + (file[at + RECORD_LENGTH] ?? 0);
      if (end > file.length || this.add(file.subarray(at, end)) === undefined) return at;
      at = end;
    }
    return undefined;
  }

  get #used(): number {
    return this.#state.records.reduce((sum, record) => sum + record.length, 0);
  }
}

const idOf = (record: Uint8Array): number => (record[0] ?? 0) | ((record[1] ?? 0) << 8);
