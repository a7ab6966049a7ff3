/** System event log (IPMI 2.0, section 31). */
import { field, type StateValues } from '../../../core/state/fields.ts';
import { COMPLETION } from '../message.ts';
import { type CommandSet, commands, ERASE, NEVER, nextReservation, saysClear, type TimeOfDay } from './command.ts';

const CAPACITY = 128;
export const EVENT_SIZE = 16;
const VERSION = 0x51;
const SUPPORTS_RESERVE = 0x02;
const OVERFLOW = 0x80;
const LAST = 0xffff;
const WHOLE = 0xff;
/** Record types from here on have no time (section 32). */
const FIRST_TIMELESS = 0xe0;

/** Places in a record (table 32-1). */
const RECORD_TYPE = 2;
const TIMESTAMP = 3;

export const eventLogState = {
  records: field.list(field.bytes(EVENT_SIZE), CAPACITY),
  reservation: field.u16(),
  lastAddition: field.u32(NEVER),
  lastErase: field.u32(NEVER),
  overflow: field.bool(),
  /** Seconds that the log's clock is ahead of the host's. */
  timeOffset: field.number(),
};

export class EventLog {
  readonly #state: StateValues<typeof eventLogState>;
  readonly #host: TimeOfDay;
  readonly commands: CommandSet;

  constructor(state: StateValues<typeof eventLogState>, host: TimeOfDay) {
    this.#state = state;
    this.#host = host;
    this.commands = commands([
      // 31.2 Get SEL Info
      [
        0x40,
        (_, response) => {
          const { records, lastAddition, lastErase, overflow } = this.#state;
          const free = (CAPACITY - records.length) * EVENT_SIZE;
          response.u8(VERSION).u16(records.length).u16(free).u32(lastAddition).u32(lastErase);
          response.u8(SUPPORTS_RESERVE | (overflow ? OVERFLOW : 0));
          return COMPLETION.OK;
        },
      ],
      // 31.4 Reserve SEL
      [
        0x42,
        (_, response) => {
          response.u16(this.#state.reservation);
          return COMPLETION.OK;
        },
      ],
      // 31.5 Get SEL Entry
      [
        0x43,
        (request, response) => {
          const { records, reservation } = this.#state;
          const [wanted, offset, count] = [request.u16(2), request.u8(4), request.u8(5)];
          if (offset !== 0 && request.u16(0) !== reservation) return COMPLETION.INVALID_RESERVATION;
          const index = wanted === LAST ? records.length - 1 : wanted;
          const record = records[index];
          if (record === undefined) return COMPLETION.NOT_PRESENT;
          const end = count === WHOLE ? EVENT_SIZE : offset + count;
          if (offset >= EVENT_SIZE || end > EVENT_SIZE) return COMPLETION.INVALID_DATA_FIELD;
          response.u16(index + 1 === records.length ? LAST : index + 1).add(record.subarray(offset, end));
          return COMPLETION.OK;
        },
        6,
      ],
      // 31.6 Add SEL Entry
      [
        0x44,
        (request, response) => {
          const number = this.add(request.data.slice(0, EVENT_SIZE));
          if (number === undefined) return COMPLETION.OUT_OF_SPACE;
          response.u16(number);
          return COMPLETION.OK;
        },
        EVENT_SIZE,
      ],
      // 31.9 Clear SEL
      [
        0x47,
        (request, response) => {
          const state = this.#state;
          if (request.u16(0) !== state.reservation) return COMPLETION.INVALID_RESERVATION;
          const action = request.u8(5);
          if (!saysClear(request) || (action !== ERASE.INITIATE && action !== ERASE.STATUS))
            return COMPLETION.INVALID_DATA_FIELD;
          if (action === ERASE.INITIATE) {
            state.records = [];
            state.overflow = false;
            state.lastErase = this.now();
            state.reservation = nextReservation(state.reservation);
          }
          response.u8(ERASE.COMPLETED);
          return COMPLETION.OK;
        },
        6,
      ],
      // 31.10 Get SEL Time
      [
        0x48,
        (_, response) => {
          response.u32(this.now());
          return COMPLETION.OK;
        },
      ],
      // 31.11 Set SEL Time
      [
        0x49,
        request => {
          this.#state.timeOffset = request.u32(0) - this.#host();
          return COMPLETION.OK;
        },
        4,
      ],
    ]);
  }

  now(): number {
    return (this.#host() + this.#state.timeOffset) >>> 0;
  }

  /** Adds an event, with its number and time. Undefined where the log is full. */
  add(event: Uint8Array): number | undefined {
    const state = this.#state;
    const number = state.records.length;
    if (number === CAPACITY) {
      state.overflow = true;
      return undefined;
    }
    const record = Buffer.alloc(EVENT_SIZE);
    record.set(event);
    record.writeUInt16LE(number);
    const now = this.now();
    if ((record[RECORD_TYPE] ?? 0) < FIRST_TIMELESS) record.writeUInt32LE(now, TIMESTAMP);
    state.records.push(record);
    state.lastAddition = now;
    state.reservation = nextReservation(state.reservation);
    return number;
  }
}
